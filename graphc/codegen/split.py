"""Split reductions that have too few independent results to share among threads (or thread blocks).

Algorithm: forward sweep. A reduction with few tasks and much work is done in two steps: its outermost reduced axis is cut
into about 32 parts, every part is reduced on its own, and the parts are combined by a second, small reduction. What is
left over when the axis has no suitable divisor is reduced separately. The partition depends on sizes only, so the result
does not depend on the number of threads. 16-bit floats are widened first, since they accumulate in float32. Long sums of
floats are cut too, however many results there are, since every accumulator's error grows with its length.
"""
from __future__ import annotations

import math

from ..dtypes import bfloat16, float16, float32
from ..ir.node import Graph, GraphBuilder, Node
from ..ir.optable import OPS

PARTS = 32
COLUMNS = 64  # results one task computes side by side when the last axis is kept
SMALL, LARGE = 1 << 16, 1 << 18  # elements
LANES = 16  # accumulators of a row's sum, at least
CHAIN, LINK = 1 << 13, 1 << 10  # float32 additions in a row: so many are cut into pieces of so many, for accuracy
_BINARY = {"add": "add", "mul": "mul", "max": "maximum", "min": "minimum", "any": "bit_or", "all": "bit_and"}


def split_reductions(graph: Graph) -> Graph:
    """An equal graph whose large reductions have enough independent results."""
    if not any(chain(n) > CHAIN or thin(n) for n in graph.nodes):
        return graph
    b = GraphBuilder()
    new: list[int] = []
    for node in graph.nodes:
        ins = tuple([new[s] for s in node.ins])
        length = chain(node)
        if length > CHAIN:
            node, x = as_one_axis(b, node, ins[0])
            shape = b.avals[x].shape
            new.append(split_node(b, node, x, max(PARTS, length // LINK), max(node.attrs[1], key=shape.__getitem__)))
            continue
        if thin(node):
            new.append(split_node(b, node, ins[0]))
            continue
        new.extend(b.copy(node, ins))
    return b.graph(tuple([new[s] for s in graph.outputs]))


def thin(node: Node) -> bool:
    """Whether a reduction has too few results for its work."""
    if node.op is not OPS["reduce"]:
        return False
    x, axes = node.in_avals[0], node.attrs[1]
    if x.size < SMALL or not axes or x.shape[min(axes)] < 4 or node.avals[0].dtype.is_complex:
        return False
    rows = node.avals[0].size
    last = innermost(x.shape)
    if last not in axes:
        rows = rows // x.shape[last] * -(-x.shape[last] // COLUMNS)
    return rows < (8 if x.size >= LARGE else 2)


def chain(node: Node) -> int:
    """About how many additions one accumulator makes one after the other; 0 where that costs no accuracy."""
    if node.op is not OPS["reduce"]:
        return 0
    x, (kind, axes) = node.in_avals[0], node.attrs
    if kind != "add" or not axes or x.dtype not in (float32, float16, bfloat16):
        return 0
    length = x.size // max(1, node.avals[0].size)
    return length // LANES if innermost(x.shape) in axes else length


def innermost(shape: tuple[int, ...]) -> int:
    """The last axis with more than one position."""
    return max([d for d, n in enumerate(shape) if n > 1], default=0)


def parts_of(n: int, near: int = PARTS) -> int:
    """The divisor of n nearest ``near``, from 8 on and up to twice of it, or 0. (Few are looked at: of many some divide.)"""
    for d in range(min(near, 10_000) + 1):
        for s in (near - d, near + d):
            if s >= 8 and n % s == 0:
                return s
    return 0


def as_one_axis(b: GraphBuilder, node: Node, x: int) -> tuple[Node, int]:
    """The reduction and its operand with reduced axes that are neighbours as one, which can be cut anywhere."""
    kind, axes = node.attrs
    first, last = min(axes), max(axes) + 1
    if len(axes) > 1 and last - first == len(axes):
        shape = node.in_avals[0].shape
        x = b.emit(OPS["reshape"], (x,), ((*shape[:first], math.prod(shape[first:last]), *shape[last:]),), node.loc)
        node = Node(node.op, (x,), (kind, (first,)), node.avals, (b.avals[x],), node.slot, node.loc)
    return node, x


def split_node(b: GraphBuilder, node: Node, x: int, parts: int = PARTS, axis: int | None = None) -> int:
    """Build the two steps of a reduction of ``x``, the first in about ``parts`` parts of a reduced axis (the outermost unless
    told); the slot of the result."""
    kind, axes = node.attrs
    av = b.avals[x]
    narrow = av.dtype if av.dtype in (float16, bfloat16) and kind in ("add", "mul") else None  # others do not round
    if narrow is not None:
        x = b.emit(OPS["cast"], (x,), (float32,), node.loc)
    axis = min(axes) if axis is None else axis
    n = av.shape[axis]
    s = parts_of(n, parts) if n > parts else n
    main = n if s else n - n % parts
    rest = None
    if main < n:
        rest = b.emit(OPS["reduce"], (_cut(b, node, x, axis, main, n),), (kind, axes), node.loc)
        x, s = _cut(b, node, x, axis, 0, main), parts
    shape = b.avals[x].shape
    if s < main:
        x = b.emit(OPS["reshape"], (x,), ((*shape[:axis], s, main // s, *shape[axis + 1:]),), node.loc)
        inner = tuple(sorted([axis + 1, *[a + (a > axis) for a in axes if a != axis]]))
    else:
        inner = tuple([a for a in axes if a != axis])
    if inner:
        x = b.emit(OPS["reduce"], (x,), (kind, inner), node.loc)
    out = b.emit(OPS["reduce"], (x,), (kind, (axis - sum([a < axis for a in inner]),)), node.loc)
    if rest is not None:
        out = b.emit(OPS[_BINARY[kind]], (out, rest), (), node.loc)
    return out if narrow is None else b.emit(OPS["cast"], (out,), (narrow,), node.loc)


def _cut(b: GraphBuilder, node: Node, x: int, axis: int, start: int, stop: int) -> int:
    shape = b.avals[x].shape
    starts = tuple([start if d == axis else 0 for d in range(len(shape))])
    stops = tuple([stop if d == axis else m for d, m in enumerate(shape)])
    return b.emit(OPS["slice"], (x,), (starts, stops, (1,) * len(shape)), node.loc)
