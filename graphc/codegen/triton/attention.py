"""Attention as Triton kernels: no matrix of scores goes through memory, forward or backward, and nothing is atomic.

Forward (Dao 2022/2023): a block of queries walks over blocks of keys with a running maximum and sum per row, in units of
log2; the row's log-sum-exp is saved. Backward in two kernels: one owns queries (and stores rowsum(dO * O)), one owns keys;
both compute the probabilities again from the log-sum-exp. Causal masks become loop bounds: blocks without a masked element
run in a loop of their own without any test. Masks, boolean or added, of any broadcast shape are read where they apply.
Query heads share a key head in groups.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...dtypes import bfloat16, bool_, dtype, float16, float32
from ...ir.node import Aval, Node
from ..native.contraction import View
from . import opcodes
from .library_row import Library, Made
from .printer import Arg, Printed, assemble
from .tiling import WIDE, pow2

LOG2E = math.log2(math.e)
SUPPORTED = (float32, float16, bfloat16)
MAX_DEPTH = 128  # elements of a head


OPERANDS = ("q", "k", "v", "o", "lse", "go")  # of the backward pass; a forward pass has the first three and makes the fourth
STRIDED = {False: (0, 1, 2), True: (0, 1, 2, 3, 5)}  # those that may lie in any layout; for the backward pass: True
NAMES = ("sdpa", "sdpa_backward", "scored_attention", "scored_attention_backward")


@dataclass(frozen=True)
class Tile:
    """Queries and keys of a block, warps, stages of the pipeline."""

    x: int
    y: int
    warps: int
    stages: int


_TILES = {  # (float32, deeper than 64)
    (False, False): {"forward": Tile(128, 64, 4, 3), "queries": Tile(128, 64, 8, 2), "keys": Tile(64, 64, 8, 2)},
    (False, True): {"forward": Tile(128, 64, 8, 2), "queries": Tile(64, 64, 8, 2), "keys": Tile(64, 64, 8, 2)},
    (True, False): {"forward": Tile(64, 32, 4, 2), "queries": Tile(32, 32, 4, 2), "keys": Tile(32, 32, 4, 2)},
    (True, True): {"forward": Tile(32, 32, 4, 2), "queries": Tile(16, 32, 4, 1), "keys": Tile(32, 16, 4, 1)}}


def tile_of(what: str, dt: dtype, depth: int) -> Tile:
    """Block sizes for the ``forward``, ``queries`` or ``keys`` kernel; compiled without spills for sm_80 and sm_90."""
    if what == "keys" and dt is float32 and depth <= 32:
        return Tile(16, 32, 4, 2)
    return _TILES[dt is float32, depth > 64][what]


@dataclass(frozen=True)
class Problem:
    """One attention: leading axes (with the query heads last), sizes, mask shape (None: none)."""

    lead: tuple[int, ...]
    group: int  # query heads of a key head
    queries: int
    keys: int
    depth: int
    value_depth: int
    dt: dtype
    causal: bool
    scale: float
    mask: tuple[int, ...] | None
    mask_dtype: dtype | None
    views: tuple[tuple[str, View], ...] = ()  # of q, k, v, o, go: those that are not contiguous; the last axis always is

    @property
    def heads(self) -> int:
        """Query heads of the whole batch."""
        return math.prod(self.lead)


def problem_of(attrs: Any, ins: Sequence[Aval], masks: int, views: Sequence[View | None] = ()) -> Problem | None:
    """The problem of a node whose inputs begin with q, k, v, or None where these kernels do not apply."""
    q, k, v = ins[:3]
    causal, scale, mask_grad = attrs
    mask = ins[-1] if masks else None
    if q.dtype not in SUPPORTED or not q.size or not k.size or not v.size or mask_grad:
        return None
    if max(q.shape[-1], v.shape[-1]) > MAX_DEPTH or q.ndim < 2:
        return None
    group = q.shape[-3] // k.shape[-3] if q.ndim > 2 else 1
    if mask is not None and mask.dtype is not bool_ and mask.dtype not in SUPPORTED:
        return None
    return Problem(q.shape[:-2], group, q.shape[-2], k.shape[-2], q.shape[-1], v.shape[-1], q.dtype, bool(causal), float(scale),
                   None if mask is None else mask.shape, None if mask is None else mask.dtype,
                   tuple([(name, v) for name, v in zip(OPERANDS, views) if v is not None]))


class Text:
    """Lines of one attention kernel."""

    def __init__(self, p: Problem, t: Tile):
        self.p, self.t = p, t
        self.lines: list[str] = []
        self.helpers: set[str] = set()
        reach = [v.offset + sum(abs(x) for x in v.strides) * max(p.queries, p.keys, *p.lead) for _, v in p.views]
        self.big = max(max(p.heads * p.queries, p.heads * p.keys) * max(p.depth, p.value_depth), *reach, 0) + (1 << 16) >= WIDE
        self.dot = ', input_precision="tf32x3"' if p.dt is float32 else ""
        self.plain = p.mask is None or p.mask_dtype is bool_  # nothing is added to the scores
        self.scaled = repr(LOG2E * p.scale)
        self.unscaled = repr(p.scale)  # what gradients of the scores are multiplied by
        self.empty = "0.0"  # the result of rows without any key
        self.may_be_empty = p.mask is not None  # also in blocks that need no test
        self.late = self.plain and p.scale > 0  # the scale is applied together with the maximum, in one fma

    def line(self, text: str, depth: int = 1) -> None:
        self.lines.append("    " * depth + text)

    def ends(self, rows: str, count: str, width: str) -> list[str]:
        """Conditions that an element of a block of rows exists."""
        total, step = (self.p.queries, self.t.x) if count == "lq" else (self.p.keys, self.t.y)
        size = self.columns(width)
        out = [f"({rows} < {count})[:, None]"] if total % step else []
        return out + ([f"({width} < {size})[None, :]"] if size != pow2(size) else [])

    def columns(self, width: str) -> int:
        return self.p.depth if width == "d" else self.p.value_depth

    def place(self, pointer: str, head: str, rows: str, count: str, width: str) -> str:
        """Addresses of rows of one head."""
        size = self.columns(width)
        view = dict(self.p.views).get(pointer)
        if view is not None:
            lead = self.p.lead if head == "h" else (*self.p.lead[:-1], self.p.lead[-1] // self.p.group)
            parts, rest = [str(view.offset)] if view.offset else [], head
            for d in range(len(lead) - 1, -1, -1):
                parts.append(f"({rest}{f' % {lead[d]}' if d else ''}) * {view.strides[d]}")
                rest = f"({rest} // {lead[d]})"
            return f"{pointer} + {' + '.join(parts)} + {rows}[:, None] * {view.strides[-2]} + {width}[None, :]"
        return f"{pointer} + {head} * {count} * {size} + {rows}[:, None] * {size} + {width}[None, :]"

    def block(self, name: str, pointer: str, head: str, rows: str, count: str, width: str, depth: int) -> None:
        """``name`` = rows of an array, zeros beyond its end; ``width``: columns "d" or "e"."""
        conds = self.ends(rows, count, width)
        mask = f", mask={' & '.join(conds)}, other=0" if conds else ""
        self.line(f"{name} = tl.load({self.place(pointer, head, rows, count, width)}{mask})", depth)

    def row(self, name: str, pointer: str, depth: int = 1) -> None:
        """``name`` = one float per query."""
        mask = ", mask=x < lq, other=0" if self.p.queries % self.t.x else ""
        self.line(f"{name} = tl.load({pointer} + h * lq + x{mask})", depth)

    def head(self, number: str) -> None:
        """Pointers to the query head ``h`` and its key head."""
        wide = ".to(tl.int64)" if self.big else ""
        self.line(f"h = ({number}){wide}")

    def mask_base(self, depth: int = 1) -> None:
        """Move the mask to the head's plane."""
        p = self.p
        if p.mask is None:
            return
        lead = p.mask[:-2]
        parts, rest = [], "h"
        for d in range(len(p.lead) - 1, -1, -1):
            at = len(lead) - len(p.lead) + d
            coordinate = f"({rest} % {p.lead[d]})" if d else f"({rest})"
            if at >= 0 and lead[at] != 1:
                parts.append(f"{coordinate} * {math.prod(p.mask[at + 1:])}")
            rest = f"({rest} // {p.lead[d]})"
        self.line(f"plane = mask{''.join(' + ' + x for x in parts)}", depth)

    def scores(self, transposed: bool, masked: bool, depth: int) -> bool:
        """s: scores in units of log2, -inf where masked; (queries, keys) or transposed. Returns whether the scale is still
        to be applied."""
        p, t = self.p, self.t
        rows, cols = ("x[None, :]", "y[:, None]") if transposed else ("x[:, None]", "y[None, :]")
        self.line(f"s = tl.dot(tk, tl.trans(tq){self.dot})" if transposed else f"s = tl.dot(tq, tl.trans(tk){self.dot})", depth)
        if not self.late:
            self.line(f"s = s * {self.scaled}", depth)
        if p.mask is not None:
            at = "".join(f" + {text}{'' if stride == 1 else f' * {stride}'}" for text, n, stride in (
                (rows, p.mask[-2], p.mask[-1]), (cols, p.mask[-1], 1)) if n != 1)
            sides = ((rows, p.mask[-2], "lq", p.queries, t.x), (cols, p.mask[-1], "ls", p.keys, t.y))
            conds = [f"({text} < {end})" for text, n, end, total, b in sides if n != 1 and total % b]
            where = f"plane + tl.zeros_like(s).to(tl.int32){at}"
            inside = f", mask={' & '.join(conds)}, other=0" if conds else ""
            self.line(f"keep = tl.load({where}{inside})", depth)
            if p.mask_dtype is bool_:
                self.line('s = tl.where(keep != 0, s, float("-inf"))', depth)
            else:
                self.line(f"s = s + keep.to(tl.float32) * {LOG2E!r}", depth)
        if masked:
            conds = [f"({cols} < ls)"] if p.keys % t.y and not transposed else []
            conds += [f"({cols} <= {rows})"] if p.causal else []
            if conds:
                self.line(f's = tl.where({" & ".join(conds)}, s, float("-inf"))', depth)
        return self.late

    def exponent(self, shift: str, late: bool) -> str:
        """exp2 of the scores minus a row value."""
        return f"tl.exp2(tl.fma(s, {self.scaled}, -{shift}))" if late else f"tl.exp2(s - {shift})"

    def prepare(self, depth: int = 1) -> None:
        """What is computed once the head ``h`` is known."""
        self.mask_base(depth)

    def slope(self, transposed: bool, masked: bool, depth: int) -> None:
        """``change``, the gradient of what the softmax reads, becomes that of the unscaled scores."""

    def common(self) -> None:
        """What is computed before a loop over heads."""

    def turned(self, name: str) -> None:
        """Give a factor of the scores the sign of the scale, where that is only known at run time."""

    def put_shift(self) -> None:
        """Store what the backward pass subtracts from a row's scores."""
        number = f"(tl.where(some, top, 0.0) + tl.log2(tl.where(some, total, 1.0))) * {math.log(2)!r}"
        self.put_row("lse", f'tl.where(some, {number}, float("-inf"))')

    def shift(self, depth: int = 1) -> None:
        """Load it."""
        self.row("shift", "lse", depth)
        self.line(f'shift = tl.where(shift == float("-inf"), 0.0, shift * {LOG2E!r})', depth)

    def prob(self, side: str, late: bool, masked: bool) -> str:
        """Probabilities from the scores; ``side`` makes a row's number broadcast."""
        return self.exponent(f"shift{side}", late)

    def finish_head(self, depth: int) -> None:
        """What follows the loops over a head's queries."""

    def finish_rows(self) -> None:
        """What follows the loops over a block's keys in the backward pass."""

    def extra_pointers(self, keys: Sequence[Any]) -> list[tuple[str, dtype, Any]]:
        """Pointers behind those every kernel has."""
        return [("mask", self.p.mask_dtype, keys[0])] if self.p.mask_dtype is not None else []

    def query_loops(self, depth: int, body: Any) -> None:
        """Loops over the blocks of queries that see the block of keys."""
        p, t = self.p, self.t
        if p.causal:
            first = f"tl.minimum(tl.cdiv((pn + 1) * {t.y} - 1, {t.x}) * {t.x}, lq)"
            self.line(f"first = {first}  # from here on no key is masked", depth)
            self.line(f"for m0 in range(pn * {t.y} // {t.x} * {t.x}, first, {t.x}):", depth)
            body(True, depth + 1)
        self.line(f"for m0 in range({'first' if p.causal else '0'}, lq, {t.x}):", depth)
        body(False, depth + 1)

    def key_loops(self, body: Any) -> None:
        """Loops over blocks of keys: those that need no test, then the others. ``body(masked, depth)`` prints one step."""
        p, t = self.p, self.t
        full = f"ls // {t.y} * {t.y}"
        if p.causal:
            self.line(f"hi = tl.minimum(ls, (pm + 1) * {t.x})")
            self.line(f"full = tl.minimum((pm * {t.x} + 1) // {t.y} * {t.y}, {full})  # below: keys no query masks")
            self.line(f"for n0 in range(0, full, {t.y}):")
            body(False, 2)
            self.line(f"for n0 in range(full, hi, {t.y}):")
            body(True, 2)
            return
        self.line(f"for n0 in range(0, {full if p.keys % t.y else 'ls'}, {t.y}):")
        body(False, 2)
        if p.keys % t.y:
            self.line(f"for n0 in range({full}, ls, {t.y}):")
            body(True, 2)

    def finish(self, name: str, pointers: list[tuple[str, dtype, Any]], block: int) -> Printed:
        p = self.p
        args = [Arg(n, opcodes.pointer_type(dt), key, 16) for n, dt, key in pointers]
        args += [Arg(n, "i32", v, math.gcd(v, 16)) for n, v in (("lq", p.queries), ("ls", p.keys))]
        rows = ("lq", block) if name != "attention_keys" else ("ls", block)
        heads = p.heads if name != "attention_keys" else p.heads // p.group
        kind = ", causal" if p.causal else ""
        doc = [f"Attention of {p.heads} heads, {p.queries} queries, {p.keys} keys, depth {p.depth}{kind}."]
        return assemble("k_" + name, doc, self.lines, args, [], [rows, (heads, 1)], self.t.warps, self.helpers,
                        stages=self.t.stages)

    def start_queries(self) -> None:
        """Which queries a program owns; causal ones with the most keys first."""
        t = self.t
        self.line(f"tiles = tl.cdiv(lq, {t.x})")
        self.line("pm = " + ("tiles - 1 - " if self.p.causal else "") + "tl.program_id(0) % tiles")
        self.head("tl.program_id(0) // tiles")
        self.line(f"g = h // {self.p.group}" if self.p.group > 1 else "g = h")
        self.line(f"x = pm * {t.x} + tl.arange(0, {t.x})")
        self.ranges()
        self.prepare()

    def ranges(self) -> None:
        self.line(f"d, e = tl.arange(0, {pow2(self.p.depth)}), tl.arange(0, {pow2(self.p.value_depth)})")

    def query(self, name: str, pointer: str, width: str, depth: int = 1) -> None:
        """A block of the head's queries (or of something shaped like them)."""
        self.block(name, pointer, "h", "x", "lq", width, depth)

    def key(self, name: str, pointer: str, width: str, depth: int = 1) -> None:
        """A block of the head's keys or values."""
        self.block(name, pointer, "g", "y", "ls", width, depth)

    def put(self, pointer: str, head: str, rows: str, count: str, width: str, text: str) -> None:
        """Store a block of rows."""
        conds = self.ends(rows, count, width)
        mask = f", mask={' & '.join(conds)}" if conds else ""
        self.line(f"tl.store({self.place(pointer, head, rows, count, width)}, ({text}).to({pointer}.dtype.element_ty){mask})")

    def put_row(self, pointer: str, text: str) -> None:
        mask = ", mask=x < lq" if self.p.queries % self.t.x else ""
        self.line(f"tl.store({pointer} + h * lq + x, {text}{mask})")


Writer = Callable[[Problem, Tile], Text]


def forward(p: Problem, keys: Sequence[Any], out: Any, lse: Any, tile: Tile | None = None,
            text: Writer | None = None) -> Printed:
    """out and log-sum-exp; ``keys``: memory of q, k, v[, mask or extras]."""
    t = tile or tile_of("forward", p.dt, max(p.depth, p.value_depth))
    w = (text or Text)(p, t)
    w.start_queries()
    w.query("tq", "q", "d")
    w.turned("tq")
    w.line(f'top = tl.full(({t.x},), float("-inf"), tl.float32)')
    w.line(f"total = tl.zeros(({t.x},), tl.float32)")
    w.line(f"acc = tl.zeros(({t.x}, {pow2(p.value_depth)}), tl.float32)")

    def step(masked: bool, depth: int) -> None:
        w.line(f"y = n0 + tl.arange(0, {t.y})", depth)
        w.key("tk", "k", "d", depth)
        late = w.scores(False, masked, depth)
        best = f"tl.max(s, 1) * {w.scaled}" if late else "tl.max(s, 1)"
        w.line(f"new = tl.maximum(top, {best})", depth)
        if masked or w.may_be_empty:  # a row may have nothing yet
            w.line('safe = tl.where(new == float("-inf"), 0.0, new)', depth)
        shift = "safe" if masked or w.may_be_empty else "new"
        w.line(f"e2 = {w.exponent(f'{shift}[:, None]', late)}", depth)
        w.line(f"back = tl.exp2(top - {shift})", depth)
        w.line("total = total * back + tl.sum(e2, 1)", depth)
        w.key("tv", "v", "e", depth)
        w.line(f"acc = tl.dot(e2.to(tv.dtype), tv, acc * back[:, None]{w.dot})", depth)
        w.line("top = new", depth)

    w.key_loops(step)
    w.line(f"some = total != 0  # rows without any key give {'zeros' if w.empty == '0.0' else 'NaN'}")
    w.put("o", "h", "x", "lq", "e", f"acc / tl.where(some, total, {'1.0' if w.empty == '0.0' else w.empty})[:, None]")
    w.put_shift()
    pointers = [("q", p.dt, keys[0]), ("k", p.dt, keys[1]), ("v", p.dt, keys[2]), *w.extra_pointers(keys[3:]),
                ("o", p.dt, out), ("lse", float32, lse)]
    return w.finish("attention", pointers, t.x)


def backward_queries(p: Problem, keys: Sequence[Any], dq: Any, delta: Any, tile: Tile | None = None,
                     text: Writer | None = None) -> Printed:
    """The gradient of q, and rowsum(dO * O) for the other kernel; ``keys``: q, k, v, out, lse, cotangent[, mask or extras]."""
    t = tile or tile_of("queries", p.dt, max(p.depth, p.value_depth))
    w = (text or Text)(p, t)
    w.start_queries()
    w.query("tq", "q", "d")
    w.query("tg", "go", "e")
    w.query("to", "o", "e")
    w.line("sums = tl.sum(tg.to(tl.float32) * to.to(tl.float32), 1)")
    w.put_row("delta", "sums")
    w.shift()
    w.turned("tq")
    w.line(f"acc = tl.zeros(({t.x}, {pow2(p.depth)}), tl.float32)")

    def step(masked: bool, depth: int) -> None:
        w.line(f"y = n0 + tl.arange(0, {t.y})", depth)
        w.key("tk", "k", "d", depth)
        w.key("tv", "v", "e", depth)
        late = w.scores(False, masked, depth)
        w.line(f"prob = {w.prob('[:, None]', late, masked)}", depth)
        w.line(f"change = prob * (tl.dot(tg, tl.trans(tv){w.dot}) - sums[:, None])", depth)
        w.slope(False, masked, depth)
        w.line(f"acc = tl.dot(change.to(tk.dtype), tk, acc{w.dot})", depth)

    w.key_loops(step)
    w.finish_rows()
    w.put("dq", "h", "x", "lq", "d", f"acc * {w.unscaled}")
    pointers = [("q", p.dt, keys[0]), ("k", p.dt, keys[1]), ("v", p.dt, keys[2]), ("o", p.dt, keys[3]),
                ("lse", float32, keys[4]), ("go", p.dt, keys[5]), *w.extra_pointers(keys[6:]), ("dq", p.dt, dq),
                ("delta", float32, delta)]
    return w.finish("attention_queries", pointers, t.x)


def backward_keys(p: Problem, keys: Sequence[Any], dk: Any, dv: Any, delta: Any, tile: Tile | None = None,
                  text: Writer | None = None) -> Printed:
    """The gradients of k and v, summed over the query heads of a group; ``keys`` as for :func:`backward_queries`."""
    t = tile or tile_of("keys", p.dt, max(p.depth, p.value_depth))
    w = (text or Text)(p, t)
    w.line(f"tiles = tl.cdiv(ls, {t.y})")
    w.line("pn = tl.program_id(0) % tiles")
    w.line(f"g = (tl.program_id(0) // tiles){'.to(tl.int64)' if w.big else ''}")
    w.line(f"y = pn * {t.y} + tl.arange(0, {t.y})")
    w.ranges()
    w.key("tk", "k", "d")
    w.key("tv", "v", "e")
    w.line(f"acc_k = tl.zeros(({t.y}, {pow2(p.depth)}), tl.float32)")
    w.line(f"acc_v = tl.zeros(({t.y}, {pow2(p.value_depth)}), tl.float32)")
    depth = 1
    if p.group > 1:
        w.common()
        w.line(f"for member in range({p.group}):")
        depth = 2
    w.line(f"h = g * {p.group} + member" if p.group > 1 else "h = g", depth)
    w.prepare(depth)

    def step(masked: bool, depth: int) -> None:
        w.line(f"x = m0 + tl.arange(0, {t.x})", depth)
        w.query("tq", "q", "d", depth)
        w.query("tg", "go", "e", depth)
        w.shift(depth)
        w.row("sums", "delta", depth)
        late = w.scores(True, masked, depth)
        w.line(f"prob = {w.prob('[None, :]', late, masked)}", depth)
        w.line(f"acc_v = tl.dot(prob.to(tg.dtype), tg, acc_v{w.dot})", depth)
        w.line(f"change = prob * (tl.dot(tv, tl.trans(tg){w.dot}) - sums[None, :])", depth)
        w.slope(True, masked, depth)
        w.line(f"acc_k = tl.dot(change.to(tq.dtype), tq, acc_k{w.dot})", depth)

    w.query_loops(depth, step)
    w.finish_head(depth)
    w.put("dk", "g", "y", "ls", "d", f"acc_k * {w.unscaled}")
    w.put("dv", "g", "y", "ls", "e", "acc_v")
    pointers = [("q", p.dt, keys[0]), ("k", p.dt, keys[1]), ("v", p.dt, keys[2]), ("lse", float32, keys[4]),
                ("go", p.dt, keys[5]), *w.extra_pointers(keys[6:]), ("delta", float32, delta), ("dk", p.dt, dk),
                ("dv", p.dt, dv)]
    return w.finish("attention_keys", pointers, t.y)


def flops(node: Node) -> dict[str, int]:
    """Operations of the products of an attention node's kernels by their labels; half of them for a causal one, all where only
    a mask in memory tells which are left out."""
    if node.op.name not in NAMES:  # type: ignore[union-attr]
        return {}
    q, k, v = node.in_avals[:3]
    pairs = 2 * q.size // max(q.shape[-1], 1) * k.shape[-2]
    if node.attrs[0] is True:
        pairs //= 2
    d, e = q.shape[-1], v.shape[-1]
    return {"attention": pairs * (d + e), "attention_queries": pairs * (2 * d + e), "attention_keys": pairs * 2 * (d + e)}


# -------------------------------------------------------------------------------------------------------------- rows
def forward_views(x: Library) -> list[View | None]:
    """Layouts of q, k, v and of the result."""
    return [*(x.views or (None, None, None))[:3], None if x.placed is None else x.placed[1]]


def sdpa(x: Library) -> list[Made] | None:
    """The composite ``sdpa`` as one kernel."""
    p = problem_of(x.node.attrs, x.ins, len(x.ins) - 3, forward_views(x))
    if p is None:
        return None
    out, lse = x.placed[0] if x.placed is not None else x.node.slot, x.node.slot + 1
    return [(forward(p, x.keys, out, lse), {out, lse}, {})]


def sdpa_backward(x: Library) -> list[Made] | None:
    """The composite ``sdpa_backward`` as two kernels."""
    p = problem_of(x.node.attrs, x.ins, len(x.ins) - 6, x.views[:6])
    if p is None:
        return None
    delta, s = x.own("delta"), x.node.slot
    return [(backward_queries(p, x.keys, s, delta), {s, delta}, {delta: 4 * p.heads * p.queries}),
            (backward_keys(p, x.keys, s + 1, s + 2, delta), {s + 1, s + 2}, {})]
