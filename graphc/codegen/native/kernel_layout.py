"""How a kernel is laid out: the vector axis, which statements each sweep evaluates, what is kept between sweeps, and the
run-time numbers of its argument block. See kernel.py for the plan of the whole."""
from __future__ import annotations

import math
from dataclasses import dataclass

from ...dtypes import float64
from .. import index
from ..loop_ir import Access, Kernel, dependences, inputs_of, stage_of
from . import opcodes
from .llvm import Function

SCRATCH_LIMIT = 1 << 16  # bytes of a scratch row; longer rows are recomputed
TILE_STATEMENTS = 16  # a tile repeats its statements for every column: larger kernels gather


@dataclass
class Val:
    """A statement's value: one register when uniform over the vector axis, else one vector per unrolled step."""

    regs: list[str]
    ty: str

    @property
    def uniform(self) -> bool:
        return self.ty[0] != "<"


Env = dict[int, Val]


class Lanes:
    """Where the vector axis stands: index of the first lane of each unrolled vector (a multiple of the width), and the mask
    and number of live lanes where not all are."""

    def __init__(self, starts: list[str], width: int, mask: str | None, count: str = ""):
        self.starts, self.width, self.mask, self.count = starts, width, mask, count


class Layout:
    """State of printing one kernel, and the decisions made before anything is printed."""

    def __init__(self, k: Kernel, vector_bits: int):
        self.k = k
        self.deps = dependences(k)
        self.stages = stage_of(k.stmts)
        self.f = Function("KERNEL")
        self.numbers: list[int] = []
        self.named: dict[tuple[object, ...], str] = {}
        self.flag_at: dict[tuple[object, ...], int] = {}  # truth values among the numbers
        self.vaxis = choose_vector_axis(k)
        self.across = second_axis(k, self.vaxis)
        wide = all(b.dtype.itemsize == 8 for b in k.buffers) or any(s.dtype is float64 for s in k.stmts)
        width = max(1, vector_bits // (64 if wide else 32))
        self.width = width if self.vaxis is not None else 1
        self.dims: dict[int, str] = {}  # bound axes -> index register (not the vector axis)
        self.pointers = [self.entry(f"load ptr, ptr %args.{i}, !invariant.load !{{}}", i) for i in range(len(k.buffers))]
        self.extents = [self.number(e, fixed=False) for e in k.extents]
        self.lanes: Lanes | None = None
        self.streaming = False  # some stores may go past the caches
        self.scratch_base = self.scratch_length = ""  # of this thread's scratch rows, and elements of each
        self.sweeps = max(self.stages, default=0) + 1
        self.plan_sweeps()
        big = sum(1 for s in k.stmts if s.op not in ("const", "load")) > 40
        self.unroll = 1 if big or self.vaxis is None else 4 if self.has_reductions or len(k.stmts) < 12 else 2
        if self.rng or any(s.op in ("lgamma", "digamma", "trigamma", "erfinv", "pow") for s in k.stmts):
            self.unroll = 1
        self.tiled: list[int] = []  # loads transposed in registers
        if self.across is not None and self.width > 1 and not self.has_reductions:
            self.unroll = 1
            self.tiled = [i for i, s in enumerate(k.stmts) if s.op == "load" and self.is_transposed(s.attr)]
            if len(k.stmts) - len(self.tiled) > TILE_STATEMENTS:
                self.tiled = []

    @property
    def leading(self) -> int:
        """How many of the kept axes are the outermost ones of the tasks that threads share."""
        return min([self.k.kept, *[d for d in (self.vaxis, self.across) if d is not None]])

    def streams_of(self) -> tuple[tuple[int, int], ...]:
        """(slot, number that says whether stores to it go past the caches)."""
        return tuple([(self.k.buffers[self.k.stores[key[1]].access.buffer].slot, at)  # type: ignore[call-overload]
                      for key, at in self.flag_at.items() if key[0] == "stream"])

    @property
    def row_mode(self) -> bool:
        """Lanes walk a reduced axis."""
        return self.vaxis is not None and self.vaxis >= self.k.kept

    def is_transposed(self, a: Access) -> bool:
        """Whether a load is strided along the vector axis and contiguous along the second axis."""
        assert self.vaxis is not None and self.across is not None
        return (not a.guards and index.coefficient(a.ix, self.vaxis) not in (0, 1, None) and not index.data(a.ix)
                and index.coefficient(a.ix, self.across) == 1 and index.variables(a.ix) <= frozenset(range(self.k.kept)))

    def plan_sweeps(self) -> None:
        """Which statements each sweep and each row section needs, and what is kept in scratch between sweeps."""
        k = self.k
        kept = frozenset(range(k.kept))
        self.inner = [not d <= kept for d in self.deps]
        self.has_reductions = any(s.op in ("reduce", "argreduce") for s in k.stmts)
        self.rng = any(s.op == "rng" for s in k.stmts)
        self.reduces: list[list[int]] = [[] for _ in range(self.sweeps)]
        for i, s in enumerate(k.stmts):
            if s.op in ("reduce", "argreduce"):
                self.reduces[self.stages[i] - 1].append(i)
        self.stores: list[list[int]] = [[] for _ in range(self.sweeps)]
        self.row_stores: list[int] = []
        for n, st in enumerate(k.stores):
            if self.inner[st.value] or not index.variables(st.access.ix) <= kept:
                self.stores[self.stages[st.value]].append(n)
            else:
                self.row_stores.append(n)
        self.spill: dict[int, int] = {}  # statement -> scratch row number
        self.needs = [self.closure(s) for s in range(self.sweeps)]
        if not self.row_mode:
            return
        length = math.prod(k.extents[k.kept:])
        for later in range(1, self.sweeps):
            for i in self.needs[later]:
                if (self.vaxis in self.deps[i] and self.stages[i] < later and k.stmts[i].op in opcodes.MATH
                        and i not in self.spill and i in self.needs[self.stages[i]]
                        and (len(self.spill) + 1) * length * 8 <= SCRATCH_LIMIT):
                    self.spill[i] = len(self.spill)
        if self.spill:
            self.needs = [self.closure(s) for s in range(self.sweeps)]

    def closure(self, sweep: int) -> list[int]:
        """Statements sweep ``sweep`` evaluates, in order."""
        k = self.k
        stack = [a for r in self.reduces[sweep] for a in inputs_of(k.stmts[r])]
        stack += [k.stores[n].value for n in self.stores[sweep]]
        stack += [i for i, s in enumerate(k.stmts) if s.op == "check" and self.stages[i] == sweep]  # even if nobody reads it
        return self.reach(stack, sweep)

    def reach(self, stack: list[int], sweep: int) -> list[int]:
        """All statements the given ones need, stopping at reductions and at values kept from an earlier sweep."""
        k = self.k
        seen: set[int] = set()
        while stack:
            i = stack.pop()
            if i in seen:
                continue
            seen.add(i)
            if k.stmts[i].op in ("reduce", "argreduce") or (i in self.spill and self.stages[i] < sweep):
                continue
            stack += inputs_of(k.stmts[i])
        return sorted(seen)

    def all_needs(self) -> list[list[int]]:
        """Statements of all sweeps and of the per-row stores."""
        return [*self.needs, self.reach([self.k.stores[n].value for n in self.row_stores], self.sweeps)]

    # -------------------------------------------------------------------------------------------------- numbers, entry
    def entry(self, text: str, word: int) -> str:
        """An entry-block load of an argument word."""
        r = self.f.fresh("a")
        self.f._entry.append(f"  %p{r} = getelementptr i64, ptr %args, i64 {word}")
        self.f._entry.append("  %" + r + " = " + text.replace(f"%args.{word}", f"%p{r}"))
        return "%" + r

    def number(self, n: int, fixed: bool = True) -> str:
        """A run-time number; small ones (strides) are literal when ``fixed``."""
        if fixed and -1 <= n <= 4:
            return str(n)
        word = len(self.k.buffers) + 2 + len(self.numbers)
        self.numbers.append(n)
        return self.entry(f"load i64, ptr %args.{word}, !invariant.load !{{}}", word)

    def flag(self, key: tuple[object, ...], on: bool) -> str:
        """A run-time truth value (0 or 1), the same for every use of ``key``."""
        found = self.named.get(key)
        if found is None:
            self.flag_at[key] = len(self.numbers)
            found = self.named[key] = self.number(int(on), fixed=False)
        return found

    def coef(self, key: tuple[object, ...], n: int) -> str:
        """The number ``n`` at one place of the kernel: loaded once for that place."""
        if -1 <= n <= 4:
            return str(n)
        found = self.named.get(key)
        if found is None:
            found = self.named[key] = self.number(n)
        return found


def choose_vector_axis(k: Kernel) -> int | None:
    """The axis along which most accesses are contiguous, weighted by how full its vectors are."""
    accesses = [s.attr for s in k.stmts if s.op == "load"] + [st.access for st in k.stores]
    written = [st.access for st in k.stores]
    best, best_score = None, -math.inf
    for d, e in enumerate(k.extents):
        score = 0.0
        for a in accesses:
            c = index.coefficient(a.ix, d)
            weight = math.log2(2 + k.buffers[a.buffer].size)
            if c == 1:
                score += (2.5 if a in written else 2) * weight  # strided loads are cheaper than strided stores
            elif c != 0:
                score -= weight
        fill = e / (-(-e // 16) * 16) if e else 1.0  # nothing to do: any axis is as good
        score = score * fill if score > 0 else score / fill
        if d >= k.kept:
            score -= 1e-3  # of equals a kept axis: no combining of lanes
        if score > best_score:
            best, best_score = d, score
    return best


def second_axis(k: Kernel, vaxis: int | None) -> int | None:
    """The kept axis along which accesses are contiguous that are strided along a kept vector axis, if any."""
    if vaxis is None or vaxis >= k.kept:
        return None
    accesses = [s.attr for s in k.stmts if s.op == "load"] + [st.access for st in k.stores]
    far = [a for a in accesses if index.coefficient(a.ix, vaxis) not in (0, 1, None)]
    votes = {d: sum(1 for a in far if index.coefficient(a.ix, d) == 1) for d in range(k.kept) if d != vaxis}
    return max(votes, key=lambda d: votes[d]) if votes and max(votes.values()) else None
