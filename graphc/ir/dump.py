"""Text, DOT and networkx forms of a Graph.

Text is one line per node and parses back (:func:`parse`)::

    %3: f32[64,10] = add(%1, %2)  # train.py:41
    %4: f32[64,10] = softmax(%3) [1]
    return %4

Attributes are Python literals, with dtypes written ``f32``-style inside ``<>`` and devices inside ``@``.
"""
from __future__ import annotations

import ast
import os
import re
import sys
from typing import Any

from .. import config
from ..device import device
from ..dtypes import BY_SHORT, dtype
from ..errors import VerifyError
from .location import format_location
from .node import Aval, Graph, GraphBuilder, aval
from .optable import OPS
from .recorder import LEAF, SCALAR


def format_attr(a: Any) -> str:
    """An attribute as text that :func:`parse` reads back."""
    if isinstance(a, dtype):
        return f"'<{a.short}>'"
    if isinstance(a, device):
        return f"'@{a}'"
    if isinstance(a, Aval):
        return repr("$" + format_aval(a))
    if isinstance(a, Graph):
        return repr("graph:" + to_text(a, locations=False))
    if isinstance(a, tuple):
        return "(" + ", ".join(map(format_attr, a)) + ("," if len(a) == 1 else "") + ")"
    if isinstance(a, float) and (a != a or a in (float("inf"), float("-inf"))):
        return repr(f"float:{a}")
    return repr(a)


def format_aval(a: Aval) -> str:
    dims = ",".join(map(str, a.shape))
    return f"{a.dtype.short}[{dims}]" + ("" if a.device.type == "cpu" else f"{{{a.device}}}")


def to_text(graph: Graph, *, locations: bool = True) -> str:
    """The graph as text, one node a line."""
    lines = []
    for n in graph.nodes:
        assert n.op is not None
        outs = ", ".join(f"%{n.slot + k}: {format_aval(a)}" for k, a in enumerate(n.avals))
        text = f"{outs} = {n.op.name}({', '.join(f'%{s}' for s in n.ins)})"
        if n.attrs and n.op not in (LEAF, SCALAR):
            text += f" [{', '.join(map(format_attr, n.attrs))}]"
        if locations and n.loc is not None:
            text += f"  # {format_location(n.loc)}"
        lines.append(text)
    lines.append("return " + ", ".join(f"%{s}" for s in graph.outputs))
    return "\n".join(lines)


_AVAL = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
_LINE = re.compile(r"^(?P<outs>%.*?) = (?P<op>\w+)\((?P<ins>[^)]*)\)(?: \[(?P<attrs>.*?)\])?(?:  # .*)?$")


def parse_aval(text: str) -> Aval:
    m = _AVAL.fullmatch(text)
    if m is None or m[1] not in BY_SHORT:
        raise VerifyError(f"not an abstract value: {text!r}")
    shape = tuple([int(d) for d in m[2].split(",") if d])
    return aval(shape, BY_SHORT[m[1]], device(m[3] or "cpu"))


def _revive(a: Any) -> Any:
    if isinstance(a, tuple):
        return tuple([_revive(x) for x in a])
    if isinstance(a, str):
        if a.startswith("<"):
            return BY_SHORT[a[1:-1]]
        if a.startswith("@"):
            return device(a[1:])
        if a.startswith("$"):
            return parse_aval(a[1:])
        if a.startswith("graph:"):
            return parse(a[6:])
        if a.startswith("float:"):
            return float(a[6:])
    return a


def parse(text: str) -> Graph:
    """The Graph a text dump describes. Raises VerifyError for text that is not one."""
    b = GraphBuilder()
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("return"):
            return b.graph(tuple([int(s) for s in re.findall(r"%(\d+)", line)]))
        m = _LINE.match(line)
        if m is None:
            raise VerifyError(f"cannot parse {line!r}")
        avals = tuple([parse_aval(a) for a in re.findall(r"%\d+: (\w+\[[\d,]*\](?:\{[^}]*\})?)", m["outs"])])
        ins = tuple([int(s) for s in re.findall(r"%(\d+)", m["ins"])])
        if m["op"] in ("leaf", "scalar"):
            b.add(LEAF if m["op"] == "leaf" else SCALAR, (), (avals[0],), avals)
            continue
        op = OPS.get(m["op"])
        if op is None:
            raise VerifyError(f"unknown op {m['op']!r}")
        attrs = _revive(ast.literal_eval(f"({m['attrs']},)")) if m["attrs"] else ()
        b.add(op, ins, attrs, avals)
    raise VerifyError("the text has no return line")


def to_networkx(graph: Graph) -> Any:
    """A ``networkx.DiGraph``: node ids are first slots, with ``op``, ``attrs``, ``avals`` and ``line``; edges carry the
    argument position."""
    import networkx as nx

    g = nx.DiGraph()
    owner = {}
    for n in graph.nodes:
        g.add_node(n.slot, op=n.op.name, attrs=n.attrs, avals=n.avals, line=format_location(n.loc))  # type: ignore[union-attr]
        for k in range(len(n.avals)):
            owner[n.slot + k] = n.slot
        for pos, s in enumerate(n.ins):
            g.add_edge(owner[s], n.slot, position=pos)
    g.graph["outputs"] = graph.outputs
    return g


def to_dot(graph: Graph) -> str:
    """GraphViz source."""
    lines = ["digraph graphc {", "  node [shape=box, fontname=monospace];"]
    owner = {}
    for n in graph.nodes:
        label = f"{n.op.name}\\n{', '.join(map(format_aval, n.avals))}"  # type: ignore[union-attr]
        lines.append(f'  n{n.slot} [label="{label}"];')
        for k in range(len(n.avals)):
            owner[n.slot + k] = n.slot
        lines += [f"  n{owner[s]} -> n{n.slot};" for s in n.ins]
    lines += [f'  out{i} [label="output {i}", shape=ellipse]; n{owner[s]} -> out{i};' for i, s in enumerate(graph.outputs)]
    return "\n".join([*lines, "}"])


_serial = [0]


def emit(stage: str, graph: Graph) -> None:
    """Write the graph where GRAPHC_DUMP asks: stderr, or files ``NNNN.stage.txt`` (and ``.dot``) in GRAPHC_DUMP_DIR."""
    if stage not in config.DUMP and not (stage not in ("trace", "plan") and "passes" in config.DUMP):
        return
    base = emit_text(stage, to_text(graph))
    if base and "dot" in config.DUMP:
        with open(base + ".dot", "w") as f:
            f.write(to_dot(graph))


def emit_text(stage: str, text: str, suffix: str = ".txt") -> str:
    """Write a text of a stage to stderr, or to a file in GRAPHC_DUMP_DIR whose path without suffix is returned."""
    _serial[0] += 1
    text = f"# {stage} {_serial[0]}\n{text}\n" if suffix == ".txt" or not config.DUMP_DIR else text
    if not config.DUMP_DIR:
        sys.stderr.write(text)
        return ""
    os.makedirs(config.DUMP_DIR, exist_ok=True)
    base = os.path.join(config.DUMP_DIR, f"{_serial[0]:04d}.{stage}")
    with open(base + suffix, "w") as f:
        f.write(text)
    return base
