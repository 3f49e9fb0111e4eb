"""The autograd tape: what recording remembers for backward.

A :class:`GradNode` is one differentiable operation: edges to the gradient nodes of its inputs and only those Values
its vjp says it saves. The tape hangs on Values (``Value.gfn``), so dropping the last Value drops the tape.
"""
from __future__ import annotations

import itertools
import weakref
from operator import attrgetter
from typing import Any

from .node import Node, Value

_sequence = itertools.count()
_edge = attrgetter("gfn")
_FIRST_TWO = (0, 1)  # what products with a bias save
_PYTORCH_NAMES = {"reduce add": "sum", "reduce mul": "prod", "reduce max": "amax", "reduce min": "amin", "scan add": "cumsum",
                  "scan mul": "cumprod", "linear": "addmm", "contract": "mm", "reshape": "view", "concat": "cat",
                  "take": "index", "cast": "to_copy", "conv": "convolution", "nll": "nll_loss"}


class GradNode:
    """A recorded differentiable operation. ``seq`` grows with recording order: descending ``seq`` is topological."""

    __slots__ = ("node", "edges", "ins", "out", "seq", "hooks", "rule", "home", "__weakref__")

    def __init__(self, node: Node, ins: tuple[Value, ...], out: Value | None, home: Any = None):
        op = node.op
        self.node = node
        self.edges: tuple[Any, ...] | None = tuple(map(_edge, ins))
        if op.saves_any:  # type: ignore[union-attr]
            keep = op.save_ins  # type: ignore[union-attr]
            if keep is None or len(keep) == len(ins):
                self.ins: Any = ins
            elif not keep:
                self.ins = (None,) * len(ins)
            elif keep == _FIRST_TWO and len(ins) == 3:
                self.ins = (ins[0], ins[1], None)
            else:
                self.ins = tuple([v if i in keep else None for i, v in enumerate(ins)])
            if out is not None and op.save_out:  # type: ignore[union-attr]
                # An alias without gradient edge: keeping `out` itself would make a cycle out -> gfn -> out.
                self.out: Any = alias_value(out)
            else:
                self.out = None
        else:
            self.ins = self.out = None
        self.seq = next(_sequence)
        self.hooks: Any = None
        self.rule: Any = None  # a custom autograd.Function's backward
        self.home = home  # token of the region that recorded it; None once anything but recording happens in its backward

    @property
    def attrs(self) -> Any:
        return self.node.attrs

    @property
    def in_avals(self) -> Any:
        return self.node.in_avals

    @property
    def needs(self) -> list[bool]:
        """Which inputs need a gradient."""
        return [e is not None for e in self.edges or ()]

    @property
    def released(self) -> bool:
        return self.edges is None

    def release(self) -> None:
        """Forget saved values and edges (after a backward without ``retain_graph``). What saves nothing may be walked again."""
        if self.ins is None and self.out is None and self.rule is None:
            return
        self.edges = None
        self.ins = self.out = self.rule = None

    def name(self) -> str:
        """PyTorch-like name: ``MulBackward0``."""
        op = self.node.op
        name = op.name if op else "?"
        if name in ("reduce", "scan"):
            name = _PYTORCH_NAMES.get(f"{name} {self.attrs[0]}", name)
        name = _PYTORCH_NAMES.get(name, name)
        return "".join(p[:1].upper() + p[1:] for p in name.split("_")) + "Backward0"


class OutputEdge:
    """Edge to one output of a gradient node with several."""

    __slots__ = ("gn", "index")

    def __init__(self, gn: GradNode, index: int):
        self.gn, self.index = gn, index


class AccumulateGrad:
    """End of the tape: the leaf tensor whose ``.grad`` collects. Holds the tensor weakly (it holds its Value)."""

    __slots__ = ("tensor", "hooks", "post_hooks", "seq", "__weakref__")

    def __init__(self, tensor: Any):
        self.tensor = weakref.ref(tensor)
        self.hooks: Any = None
        self.post_hooks: Any = None
        self.seq = next(_sequence)

    def name(self) -> str:
        return "AccumulateGrad"


def alias_value(v: Value, edge: Any = None) -> Value:
    """Another handle on the same result, with this gradient edge."""
    out = Value(v.aval, v.region, v.slot)
    out.gfn = edge
    if v.region is None:
        out.buffer = v.buffer
        if v.__class__ is not Value:
            out.__class__ = v.__class__
    else:
        v.region.live.append(weakref.ref(out))
    return out


def next_sequence() -> int:
    return next(_sequence)
