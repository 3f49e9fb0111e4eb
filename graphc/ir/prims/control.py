"""Structured control flow: ``loop_scan``, a loop over time whose body is a Graph.

``body(carries..., x_t..., consts...) -> (carries'..., y_t...)`` runs once per step; ``xs`` are stacked on axis 0, the
``ys`` come out stacked, at the index of the step that made them (also when the loop runs in reverse). Bodies are traced
once per signature (:func:`trace_body`), so that equal loops share one Graph and one compiled program.

For gradients the forward loop also stacks the products (``contract``) of every step and the carries it began with. The
reverse loop computes the rest of each step again from them and applies the step's own vjp, which is again a ``loop_scan``
of plain nodes and so differentiable itself.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...errors import ShapeError, VerifyError
from .. import build as P
from ..node import Aval, Graph, GraphBuilder, Node, Value, aval
from ..optable import OPS, prim
from ..recorder import apply, inline, state, trace
from ..samples import draw

Body = Callable[..., tuple[Value, ...]]

_BODIES: dict[Any, Graph] = {}  # (key, input avals) -> body
_PROGRAMS: dict[Graph, Callable[[list[Any]], list[Any]]] = {}  # body -> NumPy program
_SAVING: dict[Graph, Graph] = {}  # body -> the body that also returns what its gradient needs
_LIMIT = 4096


def trace_body(key: Any, fn: Body, avals: Sequence[Aval]) -> Graph:
    """The Graph of ``fn`` on inputs of these avals, remembered under the hashable ``key``, which must determine fn."""
    full = (key, tuple(avals))
    found = _BODIES.get(full)
    if found is None:
        if len(_BODIES) >= _LIMIT:
            _BODIES.clear()
        found = _BODIES[full] = trace(fn, avals)
    return found


def numpy_program(graph: Graph) -> Callable[[list[Any]], list[Any]]:
    """A callable from input arrays to output arrays, prepared once per Graph (a step is run many times)."""
    found = _PROGRAMS.get(graph)
    if found is None:
        if len(_PROGRAMS) >= _LIMIT:
            _PROGRAMS.clear()
        found = _PROGRAMS[graph] = _compile(graph)
    return found


def _compile(graph: Graph) -> Callable[[list[Any]], list[Any]]:
    from ..passes.expand import expand_composites

    g = expand_composites(graph)
    in_slots = [n.slot for n in g.inputs]
    wanted = _reachable(g)
    steps: list[tuple[Any, Any, tuple[int, ...], int, tuple[np.dtype, ...]]] = []
    for node in g.nodes:
        if node.op.kind != "leaf" and node.slot in wanted:  # type: ignore[union-attr]
            fn = node.op.eval_np  # type: ignore[union-attr]
            steps.append((fn, node.attrs, node.ins, node.slot, tuple(a.dtype.np for a in node.avals)))
    fixed: dict[int, Any] = {slot: np.asarray(fn(attrs)) for fn, attrs, ins, slot, _ in steps if not ins}
    loop = [s for s in steps if s[2]]
    size, outputs = (g.nodes[-1].end if g.nodes else 0), g.outputs

    def run(args: list[Any]) -> list[Any]:
        env: list[Any] = [None] * size
        for s, a in fixed.items():
            env[s] = a
        for s, a in zip(in_slots, args):
            env[s] = a
        for fn, attrs, ins, slot, dts in loop:
            out = fn(attrs, *[env[i] for i in ins])
            for k, o in enumerate(out if isinstance(out, tuple) else (out,)):
                o = np.asarray(o)
                env[slot + k] = o if o.dtype == dts[k] else o.astype(dts[k])
        return [env[s] for s in outputs]

    return run


def _reachable(g: Graph) -> set[int]:
    """First slots of the nodes some output depends on."""
    makers = g.producer()
    seen: set[int] = set()
    stack = [makers[s] for s in g.outputs]
    while stack:
        node = stack.pop()
        if node.slot not in seen:
            seen.add(node.slot)
            stack.extend(makers[s] for s in node.ins)
    return seen


# ----------------------------------------------------------------------------------------------------------- the op row
def _infer(attrs: Any, *ins: Aval) -> tuple[Aval, ...]:
    body, n_carry, n_xs, length, _, _ = attrs
    for i, a in enumerate(ins[n_carry:n_carry + n_xs]):
        if not a.shape or a.shape[0] != length:
            raise ShapeError(f"loop_scan: input {i} must have {length} steps on axis 0, got shape {a.shape}")
    avals = body.slot_avals()
    outs = [avals[s] for s in body.outputs]
    for i, (a, b) in enumerate(zip(ins, outs[:n_carry])):
        if a is not b:
            raise ShapeError(f"loop_scan: carry {i} goes in as {a} and comes out as {b}; they must agree")
    return (*outs[:n_carry], *[aval((length, *a.shape), a.dtype, a.device) for a in outs[n_carry:]])


def _eval(attrs: Any, *ins: np.ndarray) -> Any:
    body, n_carry, n_xs, length, reverse, _ = attrs
    run = numpy_program(body)
    carries = list(ins[:n_carry])
    xs, consts = ins[n_carry:n_carry + n_xs], list(ins[n_carry + n_xs:])
    avals = body.slot_avals()
    ys = [np.empty((length, *avals[s].shape), avals[s].dtype.np) for s in body.outputs[n_carry:]]
    for t in range(length - 1, -1, -1) if reverse else range(length):
        out = run([*carries, *[x[t] for x in xs], *consts])
        carries = out[:n_carry]
        for y, o in zip(ys, out[n_carry:]):
            y[t] = o
    outs = (*carries, *ys)
    return outs if len(outs) > 1 else outs[0]


def _differentiable(a: Aval) -> bool:
    return a.dtype.is_floating_point or a.dtype.is_complex


def _saving(body: Graph, n_carry: int) -> Graph:
    """The body that also returns its products and the carries it got, the same Graph for the same body."""
    found = _SAVING.get(body)
    if found is None:
        if len(_SAVING) >= _LIMIT:
            _SAVING.clear()
        kept = (*_products(body), *[n.slot for n in body.inputs[:n_carry]])
        found = _SAVING[body] = Graph(body.nodes, (*body.outputs, *kept))
    return found


class _Step(NamedTuple):
    """What the reverse body of a loop depends on; the key it is remembered under. Tuples hold indices."""

    body: Graph
    n_carry: int
    n_xs: int
    carries: tuple[int, ...]  # carries that have a cotangent
    consts: tuple[int, ...]  # consts that need a gradient
    xs: tuple[int, ...]  # xs that need one
    ys: tuple[int, ...]  # ys whose cotangent is given
    n_products: int  # products the forward loop saved


def _step_vjp(s: _Step, args: tuple[Value, ...]) -> tuple[Value, ...]:
    """One step backwards. args: cotangents of the carries, xs, saved products (for :func:`_use_saved`), carries at the
    step's start, cotangents of ys, consts. Returns the cotangents of the carries at the start, of the consts, of the xs."""
    from ...autograd.engine import mark_input, vjp_values

    it = iter(args)
    d_carry = [next(it) for _ in s.carries]
    xs = [next(it) for _ in range(s.n_xs + s.n_products)][:s.n_xs]
    carries = [next(it) for _ in range(s.n_carry)]
    d_ys = [next(it) for _ in s.ys]
    consts = list(it)

    def marked(vs: list[Value], live: tuple[int, ...]) -> list[Value]:
        # the identity node first: an alias of a traced input would count as another input
        return [mark_input(apply(OPS["reshape"], (v,), (v.aval.shape,))) if i in live else v for i, v in enumerate(vs)]

    carries, xs, consts = marked(carries, s.carries), marked(xs, s.xs), marked(consts, s.consts)
    outs = inline(s.body, [*carries, *xs, *consts])
    wrt = [carries[i] for i in s.carries] + [consts[i] for i in s.consts] + [xs[i] for i in s.xs]
    pairs = [(outs[i], d) for i, d in zip(s.carries, d_carry)] + [(outs[s.n_carry + i], d) for i, d in zip(s.ys, d_ys)]
    found = vjp_values([o for o, _ in pairs], [d for _, d in pairs], wrt)
    return tuple([P.zeros_like(w) if f is None else f for f, w in zip(found, wrt)])


class _Hoist(NamedTuple):
    """A const's gradient taken out of the loop: a product of two per-step values, contracted over all steps at once,
    or one per-step value summed over ``dims`` and all steps; then permuted by each of ``perms``."""

    operands: tuple[int, ...]
    dims: tuple[tuple[int, ...], ...]
    perms: tuple[tuple[int, ...], ...]


def _hoist(makers: list[Node], slot: int) -> _Hoist | None:
    """How the gradient in ``slot`` can leave the loop, or None: then it is summed step by step."""
    perms: list[tuple[int, ...]] = []
    node = makers[slot]
    while node.op is OPS["permute"]:
        perms.append(node.attrs[0])
        node = makers[node.ins[0]]
    if node.op is OPS["contract"] and not node.attrs[0]:
        return _Hoist(node.ins, (node.attrs[2], node.attrs[3]), tuple(reversed(perms)))
    if node.op is OPS["reduce"] and node.attrs[0] == "add":
        return _Hoist(node.ins, (node.attrs[1],), tuple(reversed(perms)))
    return None


def _hoisted_gradient(h: _Hoist, stacked: list[Value]) -> Value:
    shifted = [(0, *[d + 1 for d in dims]) for dims in h.dims]
    if len(stacked) == 2:
        out = P.contract(stacked[0], stacked[1], ((), ()), (shifted[0], shifted[1]))
    else:
        out = P.reduce("add", stacked[0], shifted[0])
    for perm in h.perms:
        out = P.permute(out, perm)
    return out


class _Plan(NamedTuple):
    """The reverse step as a Graph of (cotangents of carries, gradients of consts that stay, ys). A place is the index of
    a y, or ``~j`` for the j-th stacked input of the reverse loop."""

    graph: Graph
    hoists: tuple[_Hoist | None, ...]  # per const; operands are places
    xs: tuple[int, ...]  # places of the gradients of the xs


_PLANS: dict[Any, _Plan] = {}


def _backward_plan(s: _Step, avals: tuple[Aval, ...]) -> _Plan:
    """The plan for these avals, remembered."""
    found = _PLANS.get((s, avals))
    if found is None:
        if len(_PLANS) >= _LIMIT:
            _PLANS.clear()
        graph = _use_saved(s, trace(lambda *a: _step_vjp(s, a), avals, grad=True))
        found = _PLANS[s, avals] = _make_plan(s, graph)
    return found


def _products(graph: Graph) -> list[int]:
    """Slots of the products of a body."""
    return [n.slot for n in graph.nodes if n.op is OPS["contract"]]


def _use_saved(s: _Step, graph: Graph) -> Graph:
    """The reverse step with the forward's products read instead of computed: they are its first ones, in the same order."""
    first = len(s.carries) + s.n_xs
    new = dict(zip(_products(graph), [node.slot for node in graph.inputs[first:first + s.n_products]]))
    b = GraphBuilder()
    for node in graph.nodes:
        b.add(node.op, tuple([new.get(i, i) for i in node.ins]), node.attrs, node.avals, node.loc)  # type: ignore[arg-type]
    return b.graph(tuple([new.get(i, i) for i in graph.outputs]))


def _make_plan(s: _Step, graph: Graph) -> _Plan:
    makers = graph.producer()
    n, k = len(s.carries), len(s.consts)
    stacked = {node.slot: i for i, node in enumerate(graph.inputs[n:len(graph.inputs) - _n_consts(s, graph)])}
    ys: list[int] = []

    def place(slot: int) -> int:
        origin = slot
        while makers[origin].op is OPS["reshape"] and makers[origin].avals == makers[origin].in_avals:
            origin = makers[origin].ins[0]
        if origin in stacked:  # already there for every step
            return ~stacked[origin]
        if slot not in ys:
            ys.append(slot)
        return ys.index(slot)

    kept: list[int] = []
    hoists: list[_Hoist | None] = []
    for slot in graph.outputs[n:n + k]:
        h = _hoist(makers, slot)
        if h is None:
            kept.append(slot)
        hoists.append(h and h._replace(operands=tuple(map(place, h.operands))))
    xs = tuple(map(place, graph.outputs[n + k:]))
    return _Plan(Graph(graph.nodes, (*graph.outputs[:n], *kept, *ys)), tuple(hoists), xs)


def _n_consts(s: _Step, graph: Graph) -> int:
    return len(graph.inputs) - len(s.carries) - s.n_xs - s.n_products - s.n_carry - len(s.ys)


def _vjp(ctx: Any, g: Any) -> tuple[Value | None, ...]:
    """The reverse loop: carries are the cotangents of the forward's carries and running sums of the gradients of consts
    that could not be hoisted; xs are the forward's xs, the carries each step began with, the cotangents of the ys."""
    body, n_carry, n_xs, _, reverse, n_saved = ctx.attrs
    ins, needs, outs = ctx.ins, ctx.needs, ctx.out
    if n_saved < n_carry:
        raise VerifyError("a loop_scan that is differentiated must be recorded through scan(), which saves its carries")
    xs, consts = ins[n_carry:n_carry + n_xs], ins[n_carry + n_xs:]
    saved = outs[len(outs) - n_saved:]
    s = _Step(body, n_carry, n_xs, tuple(i for i in range(n_carry) if _differentiable(ins[i].aval)),
              tuple(i for i in range(len(consts)) if needs[n_carry + n_xs + i]),
              tuple(i for i in range(n_xs) if needs[n_carry + i]),
              tuple(i for i in range(len(outs) - n_carry) if g[n_carry + i] is not None), n_saved - n_carry)
    d_carry = [g[i] if g[i] is not None else P.zeros_like(ins[i]) for i in s.carries]
    steps = [*xs, *saved, *[g[n_carry + i] for i in s.ys]]
    plan = _backward_plan(s, _step_avals(d_carry, steps, consts))
    sums = [P.zeros_like(consts[i]) for i, h in zip(s.consts, plan.hoists) if h is None]
    n, k = len(d_carry), len(sums)

    def step(*args: Value) -> tuple[Value, ...]:
        res = inline(plan.graph, (*args[:n], *args[n + k:]))
        return (*res[:n], *[P.add(a, b) for a, b in zip(args[n:n + k], res[n:n + k])], *res[n + k:])

    out = scan(("vjp", s), step, [*d_carry, *sums], steps, list(consts), reverse=not reverse)
    return _collect(s, plan, needs, list(out[:n]), list(out[n:n + k]), [*out[n + k:]], steps)


def _collect(s: _Step, plan: _Plan, needs: list[bool], d_carry: list[Value], sums: list[Value], ys: list[Value],
             steps: list[Value]) -> tuple[Value | None, ...]:
    """Sort the reverse loop's results by input of the forward loop."""
    def at(place: int) -> Value:
        return ys[place] if place >= 0 else steps[~place]

    grads: list[Value | None] = [None] * len(needs)
    for i, d in zip(s.carries, d_carry):
        grads[i] = d if needs[i] else None
    for i, h in zip(s.consts, plan.hoists):
        grads[s.n_carry + s.n_xs + i] = sums.pop(0) if h is None else _hoisted_gradient(h, [at(p) for p in h.operands])
    for i, place in zip(s.xs, plan.xs):
        grads[s.n_carry + i] = at(place)
    return tuple(grads)


# ------------------------------------------------------------------------------------------------------------ front end
def _step_avals(carries: Sequence[Value], xs: Sequence[Value], consts: Sequence[Value]) -> tuple[Aval, ...]:
    return (*[v.aval for v in carries], *[aval(x.aval.shape[1:], x.aval.dtype, x.aval.device) for x in xs],
            *[v.aval for v in consts])


def scan(key: Any, fn: Body, carries: Sequence[Value], xs: Sequence[Value], consts: Sequence[Value] = (), *,
         reverse: bool = False, length: int | None = None) -> tuple[Value, ...]:
    """Record a loop: ``fn(*carries, *x_t, *consts) -> (*carries', *y_t)`` over axis 0 of ``xs``.

    ``key`` (hashable) must determine ``fn``: its body is traced once per key and input avals. ``length`` is needed only
    without xs. Returns the final carries and the stacked ys. Raises ShapeError when carries change shape or dtype.
    """
    n = xs[0].aval.shape[0] if xs else length
    if n is None:
        raise ShapeError("scan: give `length` when there are no xs")
    n_carry = len(carries)
    ins = (*carries, *xs, *consts)
    avals = _step_avals(carries, xs, consts)
    if state.grad and any(v.gfn is not None for v in ins):
        plain = trace_body((key, n_carry), fn, avals)
        body = _saving(plain, n_carry)
        n_saved = len(body.outputs) - len(plain.outputs)
        outs = apply(LOOP_SCAN, ins, (body, n_carry, len(xs), n, reverse, n_saved))
        return tuple(outs[:len(outs) - n_saved])
    body = trace_body((key, n_carry), fn, avals)
    return tuple(apply(LOOP_SCAN, ins, (body, n_carry, len(xs), n, reverse, 0)))


def _samples() -> list[Any]:
    def cell(h: Value, x: Value, w: Value) -> tuple[Value, ...]:
        new = P.tanh(P.add(P.contract(h, w, ((), ()), ((1,), (0,))), x))
        return new, P.mul(new, x)

    from ...device import CPU
    from ...dtypes import float64

    avals = [aval(s, float64, CPU) for s in ((2, 3), (2, 3), (3, 3))]
    saving = trace_body("sample", lambda *a: (*cell(*a), a[0]), avals)
    ins = (draw("h", 2, 3), draw("x", 4, 2, 3), draw("w", 3, 3))
    return [(ins, (saving, 1, 1, 4, False, 1)), (ins, (saving, 1, 1, 4, True, 1))]


LOOP_SCAN = prim("loop_scan", kind="control", attrs=("body", "n_carry", "n_xs", "length", "reverse", "n_saved"),
                 infer=_infer, eval_np=_eval, loop="scan", vjp=_vjp, saves=("ins", "out"), samples=_samples, n_out=2,
                 doc="Loop over axis 0 of xs; the last n_saved ys are the carries each step began with.")
