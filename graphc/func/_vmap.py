"""``vmap``: a function of one example made a function of many."""
from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import GraphcError
from ..ir import build as P
from ..ir.node import Value
from ..ir.recorder import flush, state
from ..tensor import Tensor, wrap
from ..utils._pytree import TreeSpec, broadcast_prefix, tree_flatten, tree_unflatten
from ._batching import lift, move_axis
from ._trace import Continuation, Recording, example_of

_READ = ("vmap: It looks like you're calling .item() on a Tensor, or attempting to use a Tensor in some data-dependent control "
         "flow or in an operation whose result has a data-dependent shape. vmap does not support that; please try to rewrite "
         "what you're doing with other operations.")


class _ReadError(GraphcError, RuntimeError):
    """A value was read on the host inside of a mapped function."""


def vmap(func: Callable[..., Any], in_dims: Any = 0, out_dims: Any = 0, randomness: str = "error", *,
         chunk_size: int | None = None) -> Callable[..., Any]:
    """A function that maps ``func`` over dimension ``in_dims`` of its arguments and stacks results in ``out_dims``.

    ``in_dims`` is an int or a tree that is a prefix of the positional arguments, with None for what is not mapped;
    ``out_dims`` likewise for the results. Keyword arguments are not mapped. ``randomness``: "error",
    "different" (every example draws its own numbers) or "same". ``chunk_size`` bounds how many examples run together.

    Raises ValueError for dims that do not fit the arguments or results, RuntimeError for reading values on the host, for
    random ops when not allowed and for writing a mapped value into a tensor from outside, NotImplementedError for an op
    that cannot be mapped.
    """
    if randomness not in ("error", "different", "same"):
        raise RuntimeError(f"Only allowed values for randomness are 'error', 'different', or 'same'. Got {randomness}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"vmap: chunk_size should be None or greater than 0. (got {chunk_size})")
    name = getattr(func, "__name__", repr(func))

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        leaves, dims, spec, size = _mapped_arguments(name, in_dims, args, kwargs)
        run = functools.partial(_run, func, name, out_dims, randomness, spec)
        if chunk_size is None or chunk_size >= size:
            return run(leaves, dims, size)
        return _in_chunks(run, leaves, dims, size, chunk_size, name, out_dims)

    return wrapper


# ------------------------------------------------------------------------------------------------------------ arguments
def _mapped_arguments(name: str, in_dims: Any, args: tuple[Any, ...],
                      kwargs: dict[str, Any]) -> tuple[list[Any], list[int | None], TreeSpec, int]:
    """(leaves of (args, kwargs), the dimension each is mapped over, their spec, number of examples)."""
    head = f"vmap({name}, in_dims={in_dims}, ...)(<inputs>): "
    if not isinstance(in_dims, (int, tuple, list)):
        raise ValueError(f"{head}expected `in_dims` to be int or a (potentially nested) tuple matching the structure of "
                         f"inputs, got: {type(in_dims)}.")
    positional, spec = tree_flatten(args)
    named, named_spec = tree_flatten(kwargs)
    if not args:
        raise ValueError(f"vmap({name})(<inputs>): got no inputs. Maybe you forgot to add inputs, or you are trying to vmap "
                         "over a function with no inputs. The latter is unsupported.")
    dims = broadcast_prefix(tuple(in_dims) if isinstance(in_dims, list) else in_dims, spec)
    if dims is None:
        raise ValueError(f"{head}in_dims is not compatible with the structure of `inputs`. in_dims has structure "
                         f"{tree_flatten(in_dims)[1]} but inputs has structure {spec}.")
    leaves = positional + named
    found = [_dim(head, x, d) for x, d in zip(positional, dims)]
    found += [None] * len(named)
    sizes = [x.shape[d] for x, d in zip(leaves, found) if d is not None]
    if not sizes:
        raise ValueError(f"{head}at least one input has to be mapped over: in_dims is None for all of them")
    if len(set(sizes)) > 1:
        raise ValueError("vmap: Expected all tensors to have the same size in the mapped dimension, got sizes "
                         f"{sizes} for the mapped dimension")
    whole = TreeSpec(tuple, None, [spec, named_spec])
    return leaves, found, whole, sizes[0]


def _dim(head: str, x: Any, d: Any) -> int | None:
    if d is None:
        return None
    if not isinstance(d, int):
        raise ValueError(f"{head}Got in_dim={d} for an input but in_dim must be either an integer dimension or None.")
    if not isinstance(x, Tensor):
        raise ValueError(f"{head}Got in_dim={d} for an input but the input is of type {type(x)}. We cannot vmap over "
                         "non-Tensor arguments, please use None as the respective in_dim")
    n = x.ndim
    if not -n <= d < n:
        raise ValueError(f"{head}Got in_dim={d} for some input, but that input is a Tensor of dimensionality {n} so expected "
                         f"in_dim to satisfy -{n} <= in_dim < {n}.")
    return d % n


def _in_chunks(run: Callable[..., Any], leaves: list[Any], dims: list[int | None], size: int, chunk: int, name: str,
               out_dims: Any) -> Any:
    parts = []
    for at in range(0, size, chunk):
        n = min(chunk, size - at)
        cut = [x if d is None else wrap(P.narrow(x._read(), d, at, n)) for x, d in zip(leaves, dims)]
        parts.append(tree_flatten(run(cut, dims, n)))
    spec = parts[0][1]
    axes = _out_dims(name, out_dims, spec)
    joined = []
    for k, d in enumerate(axes):
        column = [p[0][k] for p in parts]
        if d is None:
            joined.append(column[0])
        else:
            joined.append(wrap(P.concat(tuple([t._read() for t in column]), d % column[0].ndim)))
    return tree_unflatten(joined, spec)


# ------------------------------------------------------------------------------------------------------------------ run
def _run(func: Callable[..., Any], name: str, out_dims: Any, randomness: str, spec: TreeSpec, leaves: list[Any],
         dims: list[int | None], size: int) -> Any:
    """Map over all examples at once. If the function reads a value that is pending from before the call, it is run a second
    time, after that value has been computed."""
    args = functools.partial(_attempt, func, name, out_dims, randomness, spec, leaves, dims, size)
    try:
        return args()
    except _ReadError:
        if state.tracing or state.hold:
            raise
    flush()
    return args()


def _attempt(func: Callable[..., Any], name: str, out_dims: Any, randomness: str, spec: TreeSpec, leaves: list[Any],
             dims: list[int | None], size: int) -> Any:
    before = state.grad
    mapped = [move_axis(x._read(), d, 0) for x, d in zip(leaves, dims) if d is not None]
    try:
        with Continuation() as inner:
            rec, outs, out_spec, written = _trace(func, name, randomness, spec, leaves, dims, size, mapped)
            axes = _out_dims(name, out_dims, out_spec)
            pairs = rec.replay([*outs, *[v for _, v in written]])
            results = [_result(name, v, m, d, size) for (v, m), d in zip(pairs, axes)]
            targets = [(leaves[k], dims[k], lift(v, m, size)) for (k, _), (v, m) in zip(written, pairs[len(outs):])]
            del outs, written, pairs
            rec.check_writes()
            rec.close()
    except GraphcError as error:
        if "a value was read while a sub-graph" in str(error) or "leaked into a sub-graph" in str(error):
            raise _ReadError(_READ) from error
        raise
    finally:
        state.grad = before
    inner.join()
    for t, d, v in targets:
        t._write(move_axis(v, 0, d or 0))
    return tree_unflatten([wrap(v) for v in results], out_spec)


def _trace(func: Callable[..., Any], name: str, randomness: str, spec: TreeSpec, leaves: list[Any], dims: list[int | None],
           size: int, mapped: Sequence[Value]) -> tuple[Recording, list[Value], TreeSpec, list[tuple[int, Value]]]:
    """Run ``func`` on one example: (recording, results, their spec, (argument, new value) of arguments it wrote to)."""
    examples = [example_of(v) for v in mapped]
    rec = Recording(size, randomness, mapped, examples)
    it = iter(examples)
    given = [x if d is None else wrap(next(it)) for x, d in zip(leaves, dims)]
    args, kwargs = tree_unflatten(given, spec)
    before, state.program = state.program, state.tracing
    try:
        out, out_spec = tree_flatten(func(*args, **kwargs))
    finally:
        state.program = before
    for t in out:
        if not isinstance(t, Tensor):
            raise ValueError(f"vmap({name}, ...): `{name}` must only return Tensors, got type {type(t)}. Did you mean to set "
                             "out_dims= to None for output?")
    written = []
    it = iter(examples)
    for k, (t, d) in enumerate(zip(given, dims)):
        if d is not None and t._read().slot != next(it).slot:
            written.append((k, t._read()))
    return rec, [t._read() for t in out], out_spec, written


def _out_dims(name: str, out_dims: Any, spec: TreeSpec) -> list[int | None]:
    dims = broadcast_prefix(out_dims, spec)
    if dims is None:
        raise ValueError(f"vmap({name}, ..., out_dims={out_dims})(<inputs>): out_dims is not compatible with the structure of "
                         f"`outputs`. out_dims has structure {tree_flatten(out_dims)[1]} but outputs has structure {spec}.")
    for d in dims:
        if d is not None and not isinstance(d, int):
            raise ValueError(f"vmap({name}, ..., out_dims={out_dims}): `out_dims` must be an int, None or a python collection "
                             "of ints representing where in the outputs the vmapped dimension should appear.")
    return dims


def _result(name: str, v: Value, mapped: bool, d: int | None, size: int) -> Value:
    if d is None:
        if mapped:
            raise ValueError(f"vmap({name}, ...): `{name}` can not return a BatchedTensor when out_dim is None")
        return v
    v = lift(v, mapped, size)
    if not -v.aval.ndim <= d < v.aval.ndim:
        from ..errors import DimError

        raise DimError(f"Dimension out of range (expected to be in range of [{-v.aval.ndim}, {v.aval.ndim - 1}], but got {d})")
    return move_axis(v, 0, d % v.aval.ndim)
