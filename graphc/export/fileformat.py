"""The file of an exported program: graphc's checksummed safetensors container (see serialization/container.py) around a
description of plain data, the text of the graph, and the weights by name. Nothing in it is code; ops are looked up in the op
table, and every attribute is checked against the op's rule before anything runs."""
from __future__ import annotations

import itertools
from typing import Any

from ..errors import CheckpointError, GraphcError
from ..ir import composites, prims  # noqa: F401  (fill the op table)
from ..ir.dump import format_aval, parse, parse_aval, to_text
from ..ir.node import Graph
from ..ir.verify import verify
from ..serialization import container
from ..serialization.atomic import write_chunks
from ..serialization.records import Builder
from ..serialization.source import damage_means_checkpoint_error, open_source
from .bounds import check_bounds
from .program import Program
from .runtime import check_sources
from .template import at_size

MARK = "graphc.export"
VERSION = 1


def _text(graph: Graph) -> str:
    """The graph's text, sure to read back as the same graph."""
    text = to_text(graph, locations=False)
    if parse(text) != graph:
        raise GraphcError("this program can't be written as text; please report its graph: " + text[:2000])
    return text


def save(program: Program, f: Any) -> None:
    """Write a program to ``f``, a path (atomically) or a binary file object."""
    obj = {MARK: VERSION,
           "graph": _text(program.graph),
           "inputs": [format_aval(a) for a in program.in_avals],
           "sources": [list(s) for s in program.sources],
           "states": list(program.states),
           "in_spec": program.in_spec, "out_spec": program.out_spec, "results": program.n_results,
           "sizes": [[size, _text(g)] for size, g in program.sizes.items()], "batch": list(program.batch),
           "weights": dict(program.weights)}
    chunks = container.write(obj, container.numpy_leaf)
    write_chunks(f, itertools.chain([next(chunks)], chunks))


def load(f: Any) -> Program:
    """Read what :func:`save` wrote to a path or a binary file object.

    Raises CheckpointError for a damaged file, one that is no exported program, or one of a later version; FileNotFoundError.
    """
    with open_source(f) as source, damage_means_checkpoint_error(source.name):
        obj = container.read(source, Builder())
        if not isinstance(obj, dict) or MARK not in obj:
            raise CheckpointError("this is a checkpoint, not an exported program: read it with graphc.load()")
        if obj[MARK] != VERSION:
            raise CheckpointError(f"an exported program of version {obj[MARK]!r:.40}; this graphc reads version {VERSION}: "
                                  "upgrade graphc or export again")
        try:
            return _program(obj)
        except GraphcError as error:
            raise CheckpointError(f"not a valid program: {error}") from None


def _checked(text: Any) -> Graph:
    graph = parse(text)
    verify(graph, "exported program")
    check_bounds(graph)
    return graph


def _program(obj: dict[Any, Any]) -> Program:
    sources = [(kind, tuple(what) if kind == "rate" else what) for kind, what in obj["sources"]]
    p = Program(_checked(obj["graph"]), [parse_aval(a) for a in obj["inputs"]], sources,
                dict(obj["weights"]), list(obj["states"]), obj["in_spec"], obj["out_spec"], int(obj["results"]),
                {int(size): _checked(text) for size, text in obj["sizes"]}, list(obj["batch"]))
    check_sources(p, p.graph)
    if len(p.graph.outputs) != p.n_results + len(p.states) or not set(p.states) <= set(p.weights):
        raise CheckpointError("results and states do not match the graph's outputs")
    avals = p.graph.slot_avals()
    inputs = {what: node.avals[0] for node, (kind, what) in zip(p.graph.inputs, p.sources) if kind == "weight"}
    for name, slot in zip(p.states, p.graph.outputs[p.n_results:]):
        if inputs.get(name) is not avals[slot]:
            raise CheckpointError(f"state {name!r:.80} is written with {avals[slot]}")
    if len(p.sizes) not in (0, 2) or any(not 0 <= i < len(p.in_avals) for i in p.batch) or bool(p.batch) != bool(p.sizes):
        raise CheckpointError("the dynamic batch is described wrongly")
    if p.batch and at_size(p.sizes, p.in_avals[p.batch[0]].shape[0]) != p.graph:
        raise CheckpointError("the graphs of the dynamic batch do not agree")
    return p
