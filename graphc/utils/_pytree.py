"""Trees of Python containers: flattening to a list of leaves and back.

Nodes are tuples, named tuples, lists, dicts and their subclasses ``OrderedDict`` and ``defaultdict``, deques, and types
entered with :func:`register_pytree_node`; everything else, ``None`` included, is a leaf.
"""
from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

PyTree = Any
FlattenFunc = Callable[[Any], tuple[list[Any], Any]]
UnflattenFunc = Callable[[Iterable[Any], Any], Any]


class _Node(NamedTuple):
    flatten: FlattenFunc
    unflatten: UnflattenFunc


_NODES: dict[type, _Node] = {}  # container types (a documented registry)


def register_pytree_node(cls: type, flatten_fn: FlattenFunc, unflatten_fn: UnflattenFunc, **kwargs: Any) -> None:
    """Make ``cls`` a container: ``flatten_fn(x) -> (children, context)``, ``unflatten_fn(children, context) -> x``.

    Raises ValueError when the type is one already. Further keyword arguments of PyTorch's are accepted.
    """
    if cls in _NODES:
        raise ValueError(f"{cls} is already registered as pytree node.")
    _NODES[cls] = _Node(flatten_fn, unflatten_fn)


def _register_builtin() -> None:
    def values(d: Any) -> tuple[list[Any], Any]:
        return list(d.values()), list(d)

    register_pytree_node(tuple, lambda t: (list(t), None), lambda c, _: tuple(c))
    register_pytree_node(list, lambda t: (list(t), None), lambda c, _: list(c))
    register_pytree_node(dict, values, lambda c, keys: dict(zip(keys, c)))
    register_pytree_node(OrderedDict, values, lambda c, keys: OrderedDict(zip(keys, c)))
    register_pytree_node(defaultdict, lambda d: (list(d.values()), [d.default_factory, list(d)]),
                         lambda c, ctx: defaultdict(ctx[0], zip(ctx[1], c)))
    register_pytree_node(deque, lambda d: (list(d), d.maxlen), lambda c, n: deque(c, n))


_register_builtin()


def is_namedtuple(x: Any) -> bool:
    """Whether ``x`` is an instance of a named tuple type."""
    cls = x if isinstance(x, type) else type(x)
    return issubclass(cls, tuple) and cls is not tuple and hasattr(cls, "_fields") and hasattr(cls, "_make")


def _children(x: Any) -> tuple[list[Any], Any, Any] | None:
    """(children, context, key of the kind) of a container, None for a leaf."""
    node = _NODES.get(type(x))
    if node is not None:
        children, context = node.flatten(x)
        return list(children), context, type(x)
    return (list(x), type(x), None) if is_namedtuple(x) else None


class TreeSpec:
    """The shape of a tree: ``type`` (None for a leaf), ``context`` and the children's specs."""

    __slots__ = ("type", "context", "children_specs", "num_leaves")

    def __init__(self, kind: Any, context: Any, children_specs: list[TreeSpec], leaf: bool = False):
        self.type, self.context, self.children_specs = kind, context, children_specs
        self.num_leaves: int = 1 if leaf else sum(c.num_leaves for c in children_specs)

    def is_leaf(self) -> bool:
        return self.type is _Leaf

    def unflatten(self, leaves: Iterable[Any]) -> Any:
        """The tree of this shape with these leaves. Raises ValueError unless there are ``num_leaves``."""
        return tree_unflatten(leaves, self)

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, TreeSpec) and self.type is other.type and self.context == other.context
                and self.children_specs == other.children_specs)

    def __hash__(self) -> int:
        return hash((self.type, self.num_leaves, len(self.children_specs)))

    def __repr__(self) -> str:
        if self.is_leaf():
            return "*"
        name = self.context.__name__ if self.type is None else self.type.__name__
        return f"TreeSpec({name}, {self.context!r}, {self.children_specs!r})"


class _Leaf:
    """Kind of a leaf."""


_LEAF = TreeSpec(_Leaf, None, [], leaf=True)


def LeafSpec() -> TreeSpec:  # noqa: N802 (PyTorch's name)
    """The spec of a single leaf."""
    return _LEAF


def tree_flatten(tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> tuple[list[Any], TreeSpec]:
    """(leaves, spec) of a tree; ``is_leaf`` may declare containers to be leaves."""
    leaves: list[Any] = []
    return leaves, _flatten(tree, is_leaf, leaves)


def _flatten(tree: Any, is_leaf: Any, leaves: list[Any]) -> TreeSpec:
    parts = None if is_leaf is not None and is_leaf(tree) else _children(tree)
    if parts is None:
        leaves.append(tree)
        return _LEAF
    children, context, kind = parts
    return TreeSpec(kind, context, [_flatten(c, is_leaf, leaves) for c in children])


def tree_unflatten(leaves: Iterable[Any], treespec: TreeSpec) -> PyTree:
    """The tree of shape ``treespec`` with these leaves. Raises ValueError when their number differs."""
    given = list(leaves)
    if len(given) != treespec.num_leaves:
        raise ValueError(f"tree_unflatten(leaves, treespec): `leaves` has length {len(given)} but the spec refers to a pytree "
                         f"that holds {treespec.num_leaves} items ({treespec}).")
    return _build(iter(given), treespec)


def _build(leaves: Any, spec: TreeSpec) -> Any:
    if spec.type is _Leaf:
        return next(leaves)
    children = [_build(leaves, c) for c in spec.children_specs]
    return spec.context._make(children) if spec.type is None else _NODES[spec.type].unflatten(children, spec.context)


def tree_leaves(tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> list[Any]:
    """The leaves alone."""
    return tree_flatten(tree, is_leaf)[0]


def tree_structure(tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> TreeSpec:
    """The spec alone."""
    return tree_flatten(tree, is_leaf)[1]


def tree_map(func: Callable[..., Any], tree: PyTree, *rests: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> PyTree:
    """``func`` on every leaf (and on what stands at its place in ``rests``, which must have the same shape above it)."""
    leaves, spec = tree_flatten(tree, is_leaf)
    columns = [leaves, *[flatten_up_to(spec, r) for r in rests]]
    return tree_unflatten([func(*args) for args in zip(*columns)], spec)


def tree_map_only(kind: Any, func: Callable[[Any], Any], tree: PyTree) -> PyTree:
    """``func`` on the leaves that are instances of ``kind`` (a type or a tuple of types)."""
    return tree_map(lambda x: func(x) if isinstance(x, kind) else x, tree)


def tree_all(pred: Callable[[Any], bool], tree: PyTree) -> bool:
    """Whether ``pred`` holds for all leaves."""
    return all(map(pred, tree_leaves(tree)))


def tree_any(pred: Callable[[Any], bool], tree: PyTree) -> bool:
    """Whether ``pred`` holds for some leaf."""
    return any(map(pred, tree_leaves(tree)))


def flatten_up_to(spec: TreeSpec, tree: PyTree) -> list[Any]:
    """What stands in ``tree`` at the leaves of ``spec``. Raises ValueError when their shapes differ above that."""
    if spec.type is _Leaf:
        return [tree]
    parts = _children(tree)
    if parts is None or parts[2] is not spec.type or len(parts[0]) != len(spec.children_specs):
        raise ValueError(f"Node type mismatch: expected a tree of shape {spec}, but got {type(tree).__name__}")
    if parts[1] != spec.context:
        raise ValueError(f"Node context mismatch: expected {spec.context!r}, but got {parts[1]!r}")
    return [leaf for s, child in zip(spec.children_specs, parts[0]) for leaf in flatten_up_to(s, child)]


def broadcast_prefix(prefix: PyTree, spec: TreeSpec) -> list[Any] | None:
    """``prefix``, a tree whose leaves may stand for whole branches of ``spec``, as one item per leaf of ``spec``;
    None when the shapes disagree."""
    parts = None if spec.type is _Leaf else _children(prefix)
    if parts is None:
        return [prefix] * spec.num_leaves if _children(prefix) is None else None
    children, context, kind = parts
    if kind is not spec.type or context != spec.context or len(children) != len(spec.children_specs):
        return None
    out: list[Any] = []
    for child, s in zip(children, spec.children_specs):
        branch = broadcast_prefix(child, s)
        if branch is None:
            return None
        out.extend(branch)
    return out
