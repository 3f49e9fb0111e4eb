"""A plan's kernels compiled without a device, as a table: what the machine code is like, and what the plan moves."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphc.codegen import index
from graphc.codegen.loop_ir import Kernel
from graphc.codegen.triton import compiler
from graphc.codegen.triton.compiler import Compiled, Target
from graphc.codegen.triton.plan import Copy, Host, Launch, Repeat, Step, launches, lower_plan, prepared
from graphc.ir.node import Graph

STREAMING = 1 << 20  # bytes a kernel moves from which on 16-byte accesses decide its time


@dataclass
class Offline:
    """A lowered and compiled plan. ``moved``: bytes by kernel symbol of one launch, each buffer counted once."""

    name: str
    target: Target
    steps: list[Step]
    made: list[Launch]
    code: dict[str, Compiled]
    moved: dict[str, int]
    bytes: int
    least: int

    def hosts(self) -> list[str]:
        """Ops left to the host."""
        return [s.node.op.name for s in self.steps if isinstance(s, Host)]  # type: ignore[union-attr]

    def head(self) -> str:
        """The line of the table."""
        f = [c.facts for c in self.code.values()]
        wide = sum(x["wide_loads"] + x["wide_async"] for x in f), sum(x["loads"] + x["async"] for x in f)
        cores = sum(bool(x["mma"] or x["wgmma"]) for x in f)
        registers = [c.registers for c in self.code.values() if c.registers is not None]
        return (f"{self.name:18} {self.target!s:6} launches {len(self.made):4} kernels {len(self.code):3} "
                f"registers up to {max(registers, default=0):3} spills {sum(c.spills or 0 for c in self.code.values())} "
                f"shared up to {max(c.shared for c in self.code.values()):6} on tensor cores {cores:2} "
                f"wide loads {wide[0]}/{wide[1]} MB {self.bytes / 1e6:7.1f} (products and state alone {self.least / 1e6:.1f})")

    def lines(self) -> list[str]:
        """One line a kernel."""
        out = []
        times = {s: sum(x.printed.symbol == s for x in self.made) for s in self.code}
        for x in {x.printed.symbol: x for x in self.made}.values():
            c = self.code[x.printed.symbol]
            f = c.facts
            cores = "wgmma" if f["wgmma"] else "mma" if f["mma"] else "-"
            out.append(f"  {times[c.symbol]:3} x {x.label:44.44} programs {x.printed.programs():6} warps {c.warps:2} "
                       f"registers {c.registers or 0:3} spills {c.spills or 0} shared {c.shared:6} cores {cores:5} "
                       f"wide loads {f['wide_loads'] + f['wide_async']}/{f['loads'] + f['async']} "
                       f"wide stores {f['wide_stores']}/{f['stores']} MB {self.moved[c.symbol] / 1e6:.2f}")
        return out

    def check(self) -> None:
        """The rules every plan keeps."""
        assert not self.hosts()
        for x in self.made:
            c = self.code[x.printed.symbol]
            assert not c.spills and c.shared <= self.target.shared_limit and not c.facts["atomics"], (c.symbol, c.spills, c.shared)
            if self.target.backend != "cuda":
                continue
            if x.label.startswith(("product", "conv", "attention")):
                assert c.facts["mma"] or c.facts["wgmma"], c.symbol
            elif self.moved[c.symbol] >= STREAMING and streams(x.printed.kernel):
                assert c.facts["wide_loads"] and c.facts["wide_stores"], (c.symbol, c.facts)


def streams(k: Kernel | None) -> bool:
    """Whether a pointwise kernel reads and writes in the order of memory, by whole 16 bytes."""
    if k is None or k.kept < len(k.extents) or not k.extents or k.extents[-1] % 16:
        return False
    last = len(k.extents) - 1
    loads = [s.attr for s in k.stmts if s.op == "load"]
    return all(index.coefficient(a.ix, last) in (0, 1) and not a.guards and not index.data(a.ix)
               for a in [*loads, *[st.access for st in k.stores]])


def moved(x: Launch, avals: Any, own: dict[Any, int]) -> int:
    """Bytes of the buffers a launch touches."""
    return sum(own[k] if k in own else avals[k].nbytes for k in x.reads | x.writes if k in own or isinstance(k, int))


def least(graph: Graph) -> int:
    """Bytes that move if products read and write once each, and nothing else does but inputs and outputs of the program."""
    products = [n for n in graph.nodes if n.op is not None and n.op.kind == "contract"]
    inputs = sum(n.avals[0].nbytes for n in graph.inputs)
    avals = graph.slot_avals()
    outputs = sum(avals[s].nbytes for s in graph.outputs)
    return inputs + outputs + sum(a.nbytes for n in products for a in (*n.in_avals, *n.avals))


def offline(name: str, graph: Graph, target: Target, only: str = "") -> Offline:
    """Lower and compile a recorded step; ``only``: labels that begin so."""
    graph, sched = prepared(graph, target)
    steps = lower_plan(graph, sched, target)
    made = [x for x in launches(steps) if x.label.startswith(only)]
    code = compiler.compiler(target).get([x.printed for x in made])
    avals = graph.slot_avals()
    own: dict[Any, int] = {}
    todo = list(steps)
    while todo:
        s = todo.pop()
        if isinstance(s, (Launch, Repeat)):
            own.update(s.own)
        if isinstance(s, Repeat):
            todo += s.body
    sizes = {x.printed.symbol: moved(x, avals, own) for x in made}
    return Offline(name, target, steps, made, code, sizes, total(steps, avals, own), least(graph))


def total(steps: Any, avals: Any, own: dict[Any, int], times: int = 1) -> int:
    """Bytes of a whole plan, loops unrolled."""
    out = 0
    for s in steps:
        if isinstance(s, Launch):
            out += times * moved(s, avals, own)
        elif isinstance(s, Copy):
            out += times * 2 * s.nbytes
        elif isinstance(s, Repeat):
            out += sum(times * s.length * (moved(x, avals, own) if isinstance(x, Launch) else 2 * x.nbytes)  # type: ignore[union-attr]
                       for x in s.body)
    return out
