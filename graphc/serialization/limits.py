"""Guards against files built to hang, crash or exhaust the reader."""
from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

from ..errors import CheckpointError

MAX_KEY_PARTS = 10_000
MAX_KEY_DEPTH = 100
MAX_DEPTH = 1000  # of nested containers in a pickled file; Python's own pickler can't write more
_MAX_COLLISIONS = 64
_PLAIN_KEYS = (str, bytes, bool, type(None))


class KeyGuard:
    """Admits the dictionary keys and set members of one file's containers.

    Hashing walks nested tuples in C: without recursion check (a crash) and once per path (``t = (t, t)`` sixty times
    takes 2**60 steps). Numbers and tuples can be chosen to share one hash, which makes filling a dict quadratic.
    """

    def __init__(self) -> None:
        self._seen: dict[int, tuple[Any, dict[int, int]]] = {}  # id(container) -> container, how often each hash

    def __call__(self, key: Any, container: Any) -> Any:
        """``key`` unchanged, or CheckpointError when it can't or mustn't be hashed into ``container``."""
        if type(key) in _PLAIN_KEYS:
            return key
        check_key_size(key)
        try:
            value = hash(key)
        except TypeError:
            raise CheckpointError(f"a {type(key).__name__} can't be a dictionary key or set member") from None
        found = self._seen.get(id(container))
        if found is None:
            found = self._seen[id(container)] = (container, {})
        count = found[1][value] = found[1].get(value, 0) + 1
        if count > _MAX_COLLISIONS:
            raise CheckpointError("too many keys of one container share one hash")
        return key


def check_key_size(key: Any) -> None:
    """CheckpointError when ``key`` nests or repeats tuples too much to be hashed safely."""
    if not isinstance(key, (tuple, frozenset)):
        return
    stack, parts = [(key, 1)], 0
    while stack:
        value, depth = stack.pop()
        parts += 1
        if parts > MAX_KEY_PARTS or depth > MAX_KEY_DEPTH:
            raise CheckpointError(f"a dictionary key may nest {MAX_KEY_DEPTH} levels and hold {MAX_KEY_PARTS} parts")
        if isinstance(value, (tuple, frozenset)):
            if len(value) > MAX_KEY_PARTS:
                raise CheckpointError(f"a dictionary key may hold at most {MAX_KEY_PARTS} parts")
            stack.extend((child, depth + 1) for child in value)


def children(value: Any) -> list[Any]:
    """The objects directly inside a container that a reader builds; [] for anything else."""
    if isinstance(value, dict):
        found = [*value.keys(), *value.values()]
        if isinstance(value, OrderedDict) and "_metadata" in value.__dict__:
            found.append(value.__dict__["_metadata"])
        return found
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return list(value)
    if isinstance(value, slice):
        return [value.start, value.stop, value.step]
    return []


def check_depth(root: Any, forbidden: tuple[type, ...] = ()) -> None:
    """CheckpointError when containers nest deeper than MAX_DEPTH or an object of a ``forbidden`` type is found.

    Iterative; each object is visited once, so shared parts cost nothing and cycles end.
    """
    heights: dict[int, int] = {}
    stack: list[tuple[Any, list[Any] | None]] = [(root, None)]
    while stack:
        value, inside = stack.pop()
        if inside is None:
            if isinstance(value, forbidden):
                raise CheckpointError(f"the file's content holds {value}, which is not data")
            if id(value) in heights:
                continue
            inside = children(value)
            if not inside:
                continue
            heights[id(value)] = 0  # in progress: a cycle back to here adds nothing
            stack.append((value, inside))
            stack.extend((child, None) for child in inside)
        else:
            height = 1 + max(heights.get(id(child), 0) for child in inside)
            if height > MAX_DEPTH:
                raise CheckpointError(f"containers are nested more than {MAX_DEPTH} levels deep")
            heights[id(value)] = height
