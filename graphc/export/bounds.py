"""What the op table's inference takes for granted because recording guarantees it: attributes within bounds. Programs that come
from files are checked for it, so that no kernel reads or writes outside of its operands."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import VerifyError
from ..ir.node import Graph, Node
from ..ir.recorder import LEAF, SCALAR

_MAX_ELEMENTS = 1 << 40


def _axes(given: Any, ndim: int, what: str) -> None:
    if (not isinstance(given, tuple) or len(set(given)) != len(given)
            or not all(type(a) is int and 0 <= a < ndim for a in given)):
        raise VerifyError(f"{what} {given!r:.60} of a value of {ndim} dimensions")


def _sizes(given: Any, count: int, least: int, what: str) -> None:
    if not isinstance(given, tuple) or len(given) != count or not all(type(a) is int and a >= least for a in given):
        raise VerifyError(f"{what} {given!r:.60}: {count} integers of at least {least} are needed")


_ONE_DTYPE = ("pad", "concat", "slice_set", "conv_input_grad", "conv_weight_grad", "scatter", "take_put")


def _dtypes(n: Node) -> None:
    """Operands whose dtypes must agree and are not compared by the op's own rule."""
    assert n.op is not None
    if n.op.name == "where" and n.in_avals[0].dtype.name != "bool":
        raise VerifyError("where: the condition is not bool")
    data = [a for i, a in enumerate(n.in_avals) if i != 1 or n.op.name not in ("scatter", "take_put")]
    if n.op.name in _ONE_DTYPE and any(a.dtype is not data[0].dtype for a in data):
        raise VerifyError(f"{n.op.name}: operands of several dtypes")


def _const(n: Node) -> None:
    if not isinstance(n.attrs[0], bytes) or len(n.attrs[0]) != n.avals[0].dtype.itemsize:
        raise VerifyError(f"a constant of {n.avals[0].dtype.name} with other bytes")


def _permute(n: Node) -> None:
    _axes(n.attrs[0], n.in_avals[0].ndim, "permutation")
    _sizes(n.attrs[0], n.in_avals[0].ndim, 0, "permutation")


def _slice(n: Node) -> None:
    shape = n.in_avals[0].shape
    for part in n.attrs:
        _sizes(part, len(shape), -(1 << 62), "slice")
    for d, a, b, s in zip(shape, *n.attrs):
        at = range(a, b, s)  # a step of 0 raises ValueError
        if len(at) and not (0 <= at[0] < d and 0 <= at[-1] < d):
            raise VerifyError(f"slice {(a, b, s)} of an axis of {d}")


def _pad(n: Node) -> None:
    for part in n.attrs:
        _sizes(part, n.in_avals[0].ndim, 0, "padding")
    if n.in_avals[1].ndim:
        raise VerifyError("padding with a value that is not zero-dim")


def _one_axis(at: int) -> Callable[[Node], None]:
    return lambda n: _axes((n.attrs[at],), max(1, n.in_avals[0].ndim), "axis")


def _window(n: Node) -> None:
    axes, sizes, strides, dilations = n.attrs
    _axes(axes, n.in_avals[0].ndim, "window axes")
    for part in (sizes, strides, dilations):
        _sizes(part, len(axes), 1, "window")


def _overlap(n: Node) -> None:
    shape, axes, sizes, strides, dilations = n.attrs
    _sizes(shape, len(shape), 0, "shape")
    _axes(axes, len(shape), "window axes")
    for part in (sizes, strides, dilations):
        _sizes(part, len(axes), 1, "window")
    g = n.in_avals[0].shape
    if len(g) != len(shape) + len(axes) or g[len(shape):] != sizes:
        raise VerifyError("overlap_add of values that are no windows")
    for d, (have, want) in enumerate(zip(g, shape)):
        if d in axes:
            i = axes.index(d)
            want = (want - dilations[i] * (sizes[i] - 1) - 1) // strides[i] + 1
        if have != want:
            raise VerifyError("overlap_add of windows that do not fit the shape")


def _reduce(n: Node) -> None:
    from ..ir.prims.reduction import MONOIDS

    if n.attrs[0] not in MONOIDS:
        raise VerifyError(f"reduction {n.attrs[0]!r:.40}")
    _axes(n.attrs[1], n.in_avals[0].ndim, "axes")


def _contract(n: Node) -> None:
    a, b = n.in_avals
    ba, bb, da, db = n.attrs
    _axes(ba + da, a.ndim, "axes")
    _axes(bb + db, b.ndim, "axes")
    if len(ba) != len(bb) or len(da) != len(db):
        raise VerifyError("a product of axes that are no pairs")


def _conv(n: Node) -> None:
    k = len(n.attrs[0])
    for part, least in zip(n.attrs[:4], (1, 0, 0, 1)):
        _sizes(part, k, least, "conv")
    if type(n.attrs[4]) is not int or n.attrs[4] < 1 or any(a.ndim != k + 2 for a in n.in_avals):
        raise VerifyError("a convolution of the wrong number of groups or dimensions")


def _conv_grad(n: Node) -> None:
    """The forward convolution, inferred from what the gradient says of it, must have the cotangent's shape."""
    from ..ir.optable import OPS

    _conv(n)
    if n.op is OPS["conv_input_grad"]:
        x, w, g = n.avals[0], n.in_avals[1], n.in_avals[0]
    else:
        x, w, g = n.in_avals[0], n.avals[0], n.in_avals[1]
    if OPS["conv"].infer(n.attrs[:5], x, w).shape != g.shape:
        raise VerifyError("a convolution's gradient of the wrong shape")


def _loop(n: Node) -> None:
    body, n_carry, n_xs, length, _, n_saved = n.attrs
    if not isinstance(body, Graph) or any(type(k) is not int or k < 0 for k in (n_carry, n_xs, length, n_saved)):
        raise VerifyError("a loop without a body")
    avals = body.slot_avals()
    outer = n.in_avals
    want = [*outer[:n_carry], *outer[n_carry:n_carry + n_xs], *outer[n_carry + n_xs:]]
    inner = [node.avals[0] for node in body.inputs]
    if len(inner) != len(want) or len(body.outputs) < n_carry or any(not 0 <= s < len(avals) for s in body.outputs):
        raise VerifyError("a loop whose body has other inputs or outputs")
    for i, (a, b) in enumerate(zip(want, inner)):
        shape = a.shape[1:] if n_carry <= i < n_carry + n_xs else a.shape
        if shape != b.shape or a.dtype is not b.dtype:
            raise VerifyError("a loop whose body has inputs of other shapes")


_RULES: dict[str, Callable[[Node], None]] = {
    "const": _const,
    "permute": _permute, "slice": _slice, "slice_set": _slice, "pad": _pad, "concat": _one_axis(0), "take": _one_axis(0),
    "take_put": _one_axis(0), "gather": _one_axis(0), "scatter": _one_axis(0), "window": _window, "overlap_add": _overlap,
    "reduce": _reduce, "argreduce": _one_axis(1), "scan": _one_axis(1), "sort": _one_axis(0), "topk": _one_axis(0),
    "contract": _contract, "conv": _conv, "conv_input_grad": _conv_grad, "conv_weight_grad": _conv_grad, "loop_scan": _loop,
}


def check_bounds(graph: Graph) -> None:
    """Raise VerifyError where an attribute of ``graph`` (or of a loop's body in it) is out of bounds."""
    from ..ir.passes.expand import expand_composites
    from ..ir.verify import verify

    todo = [graph]
    while todo:
        for n in todo.pop().nodes:
            if n.op is None or any(d < 0 for a in n.avals for d in a.shape) or sum(a.size for a in n.avals) > _MAX_ELEMENTS:
                raise VerifyError("a value of impossible size")
            if n.op in (LEAF, SCALAR):
                continue
            if n.op.is_composite or len(n.attrs) != len(n.op.attrs):
                raise VerifyError(f"op {n.op.name} with {len(n.attrs)} attributes in an exported program")
            _dtypes(n)
            rule = _RULES.get(n.op.name)
            if rule is not None:
                rule(n)
            bodies = [a for a in n.attrs if isinstance(a, Graph)]
            for body in bodies:
                verify(body, "loop body")
            todo += [expand_composites(body) for body in bodies]  # bodies keep their composites until they are compiled
