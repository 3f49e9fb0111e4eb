"""The NumPy interpreter of the graph IR: the definition of meaning.

Every back end is tested against this. It expands composites, then evaluates node after node with each row's
``eval_np``. :func:`compile_numpy` prepares the same thing as a flat program for repeated runs, freeing every
intermediate after its last use.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .node import Graph, Node, Value
from .optable import Prim
from .passes.expand import expand_composites
from .quiet import quiet
from .recorder import SCALAR, scalar_buffer, with_location


def bind_inputs(graph: Graph, bindings: list[Any]) -> list[Any]:
    """Arrays for the graph's inputs: leaf Values give their buffer, numbers become zero-dim arrays."""
    out = []
    for node, b in zip(graph.inputs, bindings):
        out.append(scalar_buffer(b, node.avals[0].dtype) if node.op is SCALAR else b.buffer)
    return out


def owned(arr: Any, inputs: set[int]) -> np.ndarray:
    """``arr`` as a contiguous array that shares memory with nothing else."""
    a = np.asarray(arr)
    if a.base is not None or not a.flags.c_contiguous or id(a) in inputs or not a.flags.owndata:
        return a.copy(order="C")
    return a


def run_node(node: Node, args: list[Any]) -> tuple[Any, ...]:
    """Evaluate one primitive; results always have the inferred dtype."""
    op = node.op
    assert isinstance(op, Prim)
    out = op.eval_np(node.attrs, *args)
    outs = out if isinstance(out, tuple) else (out,)
    return tuple([_typed(o, av.dtype.np) for o, av in zip(outs, node.avals)])


def _typed(o: Any, np_dtype: np.dtype) -> np.ndarray:
    a = np.asarray(o)
    return a if a.dtype == np_dtype else a.astype(np_dtype)


def compile_numpy(graph: Graph) -> Callable[[list[Any]], list[Any]]:
    """A callable from bindings to output buffers, in the order of ``graph.outputs``."""
    graph = expand_composites(graph)
    last: dict[int, int] = {}
    for i, node in enumerate(graph.nodes):
        for s in node.ins:
            last[s] = i
    keep = set(graph.outputs)
    program: list[tuple[Node, Any, tuple[int, ...]]] = []
    for i, node in enumerate(graph.nodes):
        if node.op is None or node.op.kind == "leaf":
            continue
        assert isinstance(node.op, Prim)
        frees = tuple({s for s in node.ins if last[s] == i and s not in keep})
        program.append((node, node.op.eval_np, frees))
    n_slots = graph.nodes[-1].end if graph.nodes else 0
    in_slots = [n.slot for n in graph.inputs]
    outputs = graph.outputs

    def run(bindings: list[Any]) -> list[Any]:
        env: list[Any] = [None] * n_slots
        arrays = bind_inputs(graph, bindings)
        for s, a in zip(in_slots, arrays):
            env[s] = a
        with quiet():
            for node, fn, frees in program:
                try:
                    out = fn(node.attrs, *[env[s] for s in node.ins])
                except Exception as error:
                    raise with_location(error, node) from None
                if len(node.avals) == 1:
                    env[node.slot] = _typed(out, node.avals[0].dtype.np)
                else:
                    for k, av in enumerate(node.avals):
                        env[node.slot + k] = _typed(out[k], av.dtype.np)
                for s in frees:
                    env[s] = None
        ids = {id(a) for a in arrays}
        seen: dict[int, np.ndarray] = {}
        result = []
        for s in outputs:
            a = owned(env[s], ids)
            if id(a) in seen:
                a = a.copy()
            seen[id(a)] = a
            result.append(a)
        return result

    return run


def evaluate_each(graph: Graph, bindings: list[Any]) -> list[Any]:
    """Every slot's array, or the exception of the op it depends on that failed."""
    graph_inputs = iter(bind_inputs(graph, bindings))
    env: list[Any] = []
    with quiet():
        for node in graph.nodes:
            assert node.op is not None
            if node.op.kind == "leaf":
                env.append(owned(next(graph_inputs), set()))
                continue
            args = [env[s] for s in node.ins]
            failed = next((a for a in args if isinstance(a, BaseException)), None)
            if failed is not None:
                env.extend([failed] * len(node.avals))
                continue
            try:
                env.extend(owned(o, set()) for o in _run_any(node, args))
            except Exception as error:
                env.extend([with_location(error, node)] * len(node.avals))
    return env


def _run_any(node: Node, args: list[Any]) -> tuple[Any, ...]:
    if isinstance(node.op, Prim):
        return run_node(node, args)
    from .passes.expand import expansion

    sub = expansion(node)
    return tuple(run_graph(sub, args))


def run_graph(graph: Graph, args: list[Any]) -> list[Any]:
    """Evaluate a Graph on arrays; the plain, slow form (sub-graphs of control ops, tests)."""
    env: list[Any] = []
    it = iter(args)
    with quiet():
        for node in graph.nodes:
            assert node.op is not None
            if node.op.kind == "leaf":
                env.append(next(it))
            else:
                env.extend(_run_any(node, [env[s] for s in node.ins]))
    return [env[s] for s in graph.outputs]


def evaluate(values: list[Value]) -> list[np.ndarray]:
    """Buffers of values, flushing what is pending."""
    from .recorder import evaluated

    return [evaluated(v) for v in values]
