"""Batching rules: an op on one example, turned into ops on all examples at once.

A batched Value has the examples on axis 0. A rule gets the op's inputs, of which at least one is batched, and returns
batched outputs. There is one rule per row of the op table or per kind of rows; composites without one are expanded, rows of
kind "opaque" without one run example by example.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..dtypes import int64
from ..ir import build as P
from ..ir.node import Aval, Graph, Node, Value, aval
from ..ir.optable import OPS, Op
from ..ir.passes.expand import expansion
from ..ir.recorder import apply
from ..ir.tape import alias_value

Outs = tuple[Value, ...]


class Call:
    """One op to be batched: the op on examples (attrs, in_avals), its inputs, which of them are batched, how many
    examples there are."""

    __slots__ = ("op", "attrs", "in_avals", "ins", "flags", "size")

    def __init__(self, op: Op, attrs: Any, ins: Sequence[Value], flags: Sequence[bool], size: int):
        self.op, self.attrs, self.ins, self.flags, self.size = op, attrs, tuple(ins), tuple(flags), size
        self.in_avals = tuple([example_aval(v, f) for v, f in zip(ins, flags)])

    def full(self, k: int) -> Value:
        """Input ``k`` batched, repeated if it was not."""
        return lift(self.ins[k], self.flags[k], self.size)

    def all_full(self) -> Outs:
        return tuple([self.full(k) for k in range(len(self.ins))])

    def shape(self, k: int) -> tuple[int, ...]:
        """Shape of an example of input ``k``."""
        return self.in_avals[k].shape

    def only(self, k: int) -> bool:
        """Whether input ``k`` is the one that is batched."""
        return self.flags[k] and sum(self.flags) == 1

    def again(self, *ins: Value, attrs: Any = None) -> Any:
        """Record the same op."""
        return apply(self.op, ins, self.attrs if attrs is None else attrs)


Rule = Callable[[Call], Any]
RULES: dict[str, Rule] = {}  # op name -> rule


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a rule for these ops."""
    def enter(fn: Rule) -> Rule:
        for name in names:
            if name not in OPS or name in RULES:
                raise KeyError(f"batching rule for {name!r}: no such op, or it has one")
            RULES[name] = fn
        return fn

    return enter


def example_aval(v: Value, batched: bool) -> Aval:
    a = v.aval
    return aval(a.shape[1:], a.dtype, a.device) if batched else a


def lift(v: Value, batched: bool, size: int) -> Value:
    """``v`` with the batch axis, repeated if it has none."""
    return v if batched else P.expand(v, (size, *v.aval.shape))


def move_axis(v: Value, source: int, target: int) -> Value:
    """``v`` with one axis moved."""
    perm = [i for i in range(v.aval.ndim) if i != source]
    perm.insert(target, source)
    return P.permute(v, tuple(perm))


def _up(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple([a + 1 for a in axes])


def batched(op: Op, attrs: Any, ins: Sequence[Value], flags: Sequence[bool], size: int) -> Outs:
    """The op on all examples; every output is batched. Raises NotImplementedError where that cannot be done."""
    call = Call(op, attrs, ins, flags, size)
    found = RULES.get(op.name)
    if found is None:
        found = _general_rule(call)
    out = found(call)
    return tuple(out) if isinstance(out, (tuple, list)) else (out,)


def _general_rule(c: Call) -> Rule:
    if c.op.kind == "pointwise" and not c.op.is_composite:
        return _pointwise
    if c.op.is_composite:
        shapes = {a.shape for a in c.in_avals}
        return _same_shapes if c.op.kind == "pointwise" and c.op.n_out == 1 and len(shapes) == 1 else _expanded
    if c.op.kind == "opaque":
        return _one_by_one
    raise NotImplementedError(f"vmap: there is no batching rule for {c.op.name!r}")


def run_graph(graph: Graph, args: Sequence[Value], flags: Sequence[bool], size: int) -> list[tuple[Value, bool]]:
    """``graph``, written for examples, on ``args`` of which those flagged are batched: its outputs and which are batched."""
    env: list[tuple[Value, bool]] = []
    given = iter(zip(args, flags))
    for node in graph.nodes:
        assert node.op is not None
        if node.op.kind == "leaf":
            env.append(next(given))
            continue
        pairs = [env[i] for i in node.ins]
        ins, on = [v for v, _ in pairs], [f for _, f in pairs]
        if any(on):
            env.extend((o, True) for o in batched(node.op, node.attrs, ins, on, size))
        else:
            out = apply(node.op, tuple(ins), node.attrs)
            env.extend((o, False) for o in (out if isinstance(out, tuple) else (out,)))
    return [env[s] for s in graph.outputs]


# ------------------------------------------------------------------------------------------------------- general rules
def _pointwise(c: Call) -> Any:
    """Broadcasting aligns axes from the right: an example of lower rank gets axes of size 1 behind the batch axis."""
    rank = max(a.ndim for a in c.in_avals)
    dev = next((a.device for a in c.in_avals if a.ndim), c.in_avals[0].device)
    ins = []
    for v, f, a in zip(c.ins, c.flags, c.in_avals):
        if f and a.ndim < rank:
            v = P.reshape(v, (c.size, *[1] * (rank - a.ndim), *a.shape))
        ins.append(P.to_device(v, dev) if f and v.aval.device is not dev else v)  # zero-dim host operands may mix, these not
    return c.again(*ins)


def _same_shapes(c: Call) -> Any:
    return c.again(*c.all_full())


def _expanded(c: Call) -> Any:
    graph = expansion(Node(c.op, (), c.attrs, (), c.in_avals, 0))
    return [lift(v, f, c.size) for v, f in run_graph(graph, c.ins, c.flags, c.size)]


def _one_by_one(c: Call) -> Any:
    if not c.size:
        avals = c.op.infer_avals(c.attrs, c.in_avals)
        return [P.full((0, *a.shape), 0, a.dtype, a.device) for a in avals]
    rows = []
    for b in range(c.size):
        ins = [P.reshape(P.narrow(v, 0, b, 1), v.aval.shape[1:]) if f else v for v, f in zip(c.ins, c.flags)]
        out = c.again(*ins)
        rows.append(out if isinstance(out, tuple) else (out,))
    return [P.concat(tuple([P.unsqueeze(v, 0) for v in column]), 0) for column in zip(*rows)]


# ------------------------------------------------------------------------------------------------------------ movement
@rule("reshape")
def _reshape(c: Call) -> Any:
    return P.reshape(c.ins[0], (c.size, *c.attrs[0]))


@rule("permute")
def _permute(c: Call) -> Any:
    return c.again(c.ins[0], attrs=((0, *_up(c.attrs[0])),))


@rule("expand")
def _expand(c: Call) -> Any:
    lead = len(c.attrs[0]) - len(c.shape(0))
    return P.expand(P.reshape(c.ins[0], (c.size, *[1] * lead, *c.shape(0))), (c.size, *c.attrs[0]))


@rule("slice")
def _slice(c: Call) -> Any:
    starts, stops, steps = c.attrs
    return P.slice_(c.ins[0], (0, *starts), (c.size, *stops), (1, *steps))


@rule("slice_set")
def _slice_set(c: Call) -> Any:
    starts, stops, steps = c.attrs
    return P.slice_set(c.full(0), c.full(1), (0, *starts), (c.size, *stops), (1, *steps))


@rule("pad")
def _pad(c: Call) -> Any:
    lo, hi = (0, *c.attrs[0]), (0, *c.attrs[1])
    x, value = c.full(0), c.ins[1]
    if not c.flags[1]:
        return c.again(x, value, attrs=(lo, hi))
    from ..dtypes import bool_

    border = P.pad(P.full(x.aval.shape, False, bool_, x.aval.device), lo, hi, True)
    return P.where(border, P.reshape(value, (c.size, *[1] * (x.aval.ndim - 1))), P.pad(x, lo, hi))


@rule("concat")
def _concat(c: Call) -> Any:
    return P.concat(c.all_full(), c.attrs[0] + 1)


@rule("window")
def _window(c: Call) -> Any:
    axes, *rest = c.attrs
    return c.again(c.ins[0], attrs=(_up(axes), *rest))


@rule("fold", "overlap_add")
def _fold(c: Call) -> Any:
    shape, axes, *rest = c.attrs
    return c.again(c.ins[0], attrs=((c.size, *shape), _up(axes), *rest))


@rule("bitcast", "copy")
def _same_attrs(c: Call) -> Any:
    return c.again(*c.ins)


# ---------------------------------------------------------------------------------- along axes: reductions, scans, sorts
@rule("reduce")
def _reduce(c: Call) -> Any:
    return c.again(c.ins[0], attrs=(c.attrs[0], _up(c.attrs[1])))


@rule("argreduce", "scan")
def _second_is_axis(c: Call) -> Any:
    return c.again(c.ins[0], attrs=(c.attrs[0], c.attrs[1] + 1, *c.attrs[2:]))


@rule("sort", "topk", "softmax", "softmax_backward", "log_softmax", "log_softmax_backward")
def _first_is_axis(c: Call) -> Any:
    return c.again(*c.all_full(), attrs=(c.attrs[0] + 1, *c.attrs[1:]))


@rule("fft", "rfft", "irfft", "logsumexp")
def _first_is_axes(c: Call) -> Any:
    return c.again(*c.ins, attrs=(_up(c.attrs[0]), *c.attrs[1:]))


@rule("searchsorted")
def _searchsorted(c: Call) -> Any:
    rows, values = c.in_avals
    if rows.ndim > 1:
        return c.again(*c.all_full())
    if c.only(1):
        return c.again(*c.ins)
    out = c.again(c.full(0), P.reshape(c.full(1), (c.size, values.size)))
    return P.reshape(out, (c.size, *values.shape))


# ---------------------------------------------------------------------------------------------------------- contractions
@rule("contract")
def _contract(c: Call) -> Any:
    ba, bb, da, db = c.attrs
    a, b = c.ins
    if all(c.flags):
        return c.again(a, b, attrs=((0, *_up(ba)), (0, *_up(bb)), _up(da), _up(db)))
    if c.flags[0]:  # the batch axis is a's first free axis
        return move_axis(c.again(a, b, attrs=(_up(ba), bb, _up(da), db)), len(ba), 0)
    return move_axis(c.again(a, b, attrs=(ba, _up(bb), da, _up(db))), a.aval.ndim - len(da), 0)


@rule("linear")
def _linear(c: Call) -> Any:
    x, w, *b = c.ins
    if c.only(0) and c.in_avals[0].ndim:
        return c.again(*c.ins)
    last_x, last_w = len(c.shape(0)) - 1, len(c.shape(1)) - 1
    y = _contract(Call(OPS["contract"], ((), (), (last_x,), (last_w,)), (x, w), c.flags[:2], c.size)) if any(
        c.flags[:2]) else lift(P.contract(x, w, ((), ()), ((last_x,), (last_w,))), False, c.size)
    return batched(OPS["add"], (), (y, b[0]), (True, c.flags[2]), c.size)[0] if b else y


@rule("sdpa", "sdpa_backward")
def _attention(c: Call) -> Any:
    ins = list(c.all_full())
    n = 3 if c.op is OPS["sdpa"] else 6
    rank = len(c.shape(0))
    for k in range(n, len(ins)):  # a mask may have fewer axes than the scores
        shape = c.shape(k)
        ins[k] = P.reshape(ins[k], (c.size, *[1] * (rank - len(shape)), *shape))
    outs = c.again(*ins)
    return [P.reshape(o, (c.size, *a.shape)) for o, a in zip(outs, c.op.infer_avals(c.attrs, c.in_avals))]


def _merge(v: Value, axis: int) -> Value:
    """(B, ..., n, ...) with the batch axis merged into ``axis`` of the example, batch first."""
    v = move_axis(v, 0, axis)
    sh = v.aval.shape
    return P.reshape(v, (*sh[:axis], sh[axis] * sh[axis + 1], *sh[axis + 2:]))


def _split(v: Value, axis: int, size: int) -> Value:
    """Undo :func:`_merge`."""
    sh = v.aval.shape
    return move_axis(P.reshape(v, (*sh[:axis], size, sh[axis] // size if size else 0, *sh[axis + 1:])), axis, 0)


@rule("conv", "conv_input_grad")
def _conv(c: Call) -> Any:
    """x (N, C, *S), w (O, C/g, *K): examples join the N of x if w is shared, else they are groups."""
    if c.only(0):
        return _split(c.again(_merge(c.ins[0], 0), c.ins[1]), 0, c.size)
    groups = c.attrs[4]
    w = _merge(c.ins[1], 0)
    if not c.flags[0] and groups == 1 and c.op is OPS["conv"]:
        return _split(c.again(c.ins[0], w), 1, c.size)
    attrs = (*c.attrs[:4], groups * c.size, *c.attrs[5:])
    return _split(c.again(_merge(c.full(0), 1), w, attrs=attrs), 1, c.size)


@rule("conv_weight_grad")
def _conv_weight_grad(c: Call) -> Any:
    if c.only(1) and c.attrs[4] == 1:
        return _split(c.again(c.ins[0], _merge(c.ins[1], 1)), 0, c.size)
    attrs = (*c.attrs[:4], c.attrs[4] * c.size, *c.attrs[5:])
    return _split(c.again(_merge(c.full(0), 1), _merge(c.full(1), 1), attrs=attrs), 0, c.size)


# -------------------------------------------------------------------------------------------------------------- indexing
def _rows(c: Call, idx: Value, n: int, wrap: bool) -> Value:
    """Indices (B, *I) into axes of ``n`` as indices into the B * n rows of all examples, checked against n first."""
    idx = P.cast(P.take(P.iota(n, int64, idx.aval.device), idx, 0, wrap), int64)
    base = P.reshape(P.mul(P.iota(c.size, int64, idx.aval.device), n), (c.size, *[1] * (idx.aval.ndim - 1)))
    return P.add(idx, base)


@rule("take")
def _take(c: Call) -> Any:
    axis, wrap = c.attrs
    x, idx = c.ins
    if not c.flags[1]:
        return P.take(x, idx, axis + 1, wrap)
    if not c.flags[0]:
        return move_axis(P.take(x, idx, axis, wrap), axis, 0)
    shape, n_idx = c.shape(0), len(c.shape(1))
    rest = (*shape[:axis], *shape[axis + 1:])
    table = P.reshape(move_axis(x, axis + 1, 1), (c.size * shape[axis], *rest))
    out = P.take(table, _rows(c, idx, shape[axis], wrap), 0)  # B, *I, *rest
    perm = (0, *range(1 + n_idx, 1 + n_idx + axis), *range(1, 1 + n_idx), *range(1 + n_idx + axis, out.aval.ndim))
    return P.permute(out, perm)


@rule("take_put")
def _take_put(c: Call) -> Any:
    axis, mode, wrap = c.attrs
    base, src = c.full(0), c.full(2)
    if not c.flags[1]:
        return P.take_put(base, c.ins[1], src, axis + 1, mode, wrap)
    shape, n_idx = c.shape(0), len(c.shape(1))
    n, rest = shape[axis], (*shape[:axis], *shape[axis + 1:])
    table = P.reshape(move_axis(base, axis + 1, 1), (c.size * n, *rest))
    perm = (0, *range(1 + axis, 1 + axis + n_idx), *range(1, 1 + axis), *range(1 + axis + n_idx, src.aval.ndim))
    out = P.take_put(table, _rows(c, c.ins[1], n, wrap), P.permute(src, perm), 0, mode)
    return move_axis(P.reshape(out, (c.size, n, *rest)), 1, axis + 1)


@rule("gather", "scatter", "scatter_reduce")
def _elementwise_index(c: Call) -> Any:
    ins = c.all_full()
    if c.in_avals[0].ndim:
        return c.again(*ins, attrs=(c.attrs[0] + 1, *c.attrs[1:]))
    out = c.again(*[P.reshape(v, (c.size, 1)) for v in ins], attrs=(1, *c.attrs[1:]))
    return P.reshape(out, (c.size,))


@rule("embedding")
def _embedding(c: Call) -> Any:
    padding, by_frequency = c.attrs
    if by_frequency:
        raise NotImplementedError("vmap: embedding with scale_grad_by_freq=True has no batching rule")
    w, idx = c.ins
    if c.only(1):
        return c.again(w, idx)
    out = _take(Call(OPS["take"], (0, False), (w, idx), c.flags, c.size))
    if padding < 0 or w.gfn is None:
        return out
    hit = lift(P.unsqueeze(P.eq(idx, padding), idx.aval.ndim), c.flags[1], c.size)
    return P.where(hit, alias_value(out), out)  # the padding row gets no gradient


# -------------------------------------------------------------------------------------------- composites, linear algebra
@rule("clamp")
def _clamp(c: Call) -> Any:
    """With bounds that differ between examples: bounds get no gradient, x one where it lies within."""
    if c.only(0):
        return c.again(*c.ins)
    out = x = c.full(0)
    names = (["maximum"] if c.attrs[0] else []) + (["minimum"] if c.attrs[1] else [])
    for k, name in enumerate(names, 1):
        out = _pointwise(Call(OPS[name], (), (alias_value(out), alias_value(c.ins[k])), (True, c.flags[k]), c.size))
    return P.where(P.eq(out, x), x, out)


@rule("nll", "cross_entropy")
def _class_loss(c: Call) -> Any:
    """Class weights get no gradient."""
    ins = (*c.ins[:2], *[alias_value(w) for w in c.ins[2:]])
    return _expanded(Call(c.op, c.attrs, ins, c.flags, c.size))


@rule("linalg_qr")
def _qr(c: Call) -> Any:
    q, r = c.again(c.ins[0])
    return (P.full((c.size, 0), 0, q.aval.dtype, q.aval.device) if c.attrs[0] == "r" else q), r


@rule("layer_norm", "rms_norm")
def _last_axes_norm(c: Call) -> Any:
    return c.again(*c.ins) if c.only(0) else _expanded(c)


@rule("group_norm", "batch_norm_eval")
def _rows_norm(c: Call) -> Any:
    return _split(c.again(_merge(c.ins[0], 0), *c.ins[1:]), 0, c.size) if c.only(0) else _expanded(c)


@rule("max_pool")
def _max_pool(c: Call) -> Any:
    return c.again(*c.ins)


@rule("logsumexp_backward")
def _logsumexp_backward(c: Call) -> Any:
    return c.again(*c.all_full(), attrs=(_up(c.attrs[0]), *c.attrs[1:]))


_MATRIX = ("linalg_inv_ex", "linalg_solve_ex", "linalg_solve_triangular", "mirror", "linalg_cholesky_ex", "linalg_eigh",
           "linalg_svd", "linalg_svdvals", "linalg_lu_factor_ex", "pivot_order", "linalg_det", "cofactor",
           "linalg_slogdet", "linalg_matrix_exp", "linalg_pinv", "linalg_lstsq", "linalg_eig", "geqrf")


@rule(*_MATRIX)
def _matrices(c: Call) -> Any:
    """These take leading batch axes; zero-dim parameters are shared by all."""
    return c.again(*[v if a.ndim == 0 and not f else lift(v, f, c.size) for v, f, a in zip(c.ins, c.flags, c.in_avals)])


# ---------------------------------------------------------------------------------------------------------------- loops
@rule("loop_scan")
def _loop(c: Call) -> Any:
    """The batched body; carries and stacked results are batched throughout."""
    from ..ir.prims.control import scan

    body, n_carry, n_xs, length, reverse, _ = c.attrs
    size, flags = c.size, c.flags
    on = (*[True] * n_carry, *flags[n_carry:])
    carries = [c.full(k) for k in range(n_carry)]
    xs = [move_axis(c.ins[k], 0, 1) if flags[k] else c.ins[k] for k in range(n_carry, n_carry + n_xs)]

    def step(*args: Value) -> Outs:
        return tuple([lift(v, f, size) for v, f in run_graph(body, args, on, size)])

    outs = scan(("vmap", body, on, size), step, carries, xs, c.ins[n_carry + n_xs:], reverse=reverse, length=length)
    return [*outs[:n_carry], *[move_axis(y, 1, 0) for y in outs[n_carry:]]]
