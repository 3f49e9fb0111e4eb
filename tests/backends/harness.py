"""One graph through every back end: the graph interpreter (the definition), loop IR by NumPy, native code.

Floats are compared with a tolerance found by running the interpreter again with noise of a few units in the last place
after every rounding operation; values marked exact (integers, booleans, movement, sums of few bits) must be equal.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from programs_library import magnitude_of_scan

import graphc
from graphc import config
from graphc.codegen import loop_numpy
from graphc.codegen.fuse import Schedule, schedule
from graphc.codegen.loop_ir import Kernel, to_text
from graphc.codegen.loop_numpy import run_kernel
from graphc.codegen.verify import verify_schedule
from graphc.ir.interpret import bind_inputs, compile_numpy, run_node
from graphc.ir.node import Graph, leaf_value
from graphc.ir.passes import run_passes
from graphc.ir.passes.expand import expand_composites
from graphc.ir.recorder import SCALAR

POISON = 0xA5
NOISE = 4.0  # units in the last place
EPS = {"float16": 2.0 ** -11, "bfloat16": 2.0 ** -8, "float32": 2.0 ** -24, "float64": 2.0 ** -53}
# results of these are exact functions of their operands: no rounding, so no noise
NO_ROUNDING = frozenset(("neg", "abs", "sign", "floor", "ceil", "round", "trunc", "maximum", "minimum", "where", "take",
                         "gather", "slice_set", "scatter", "take_put", "sort", "topk", "iota", "const", "bitcast", "copy",
                         "searchsorted", "rng_bits", "argreduce"))


class Mismatch(AssertionError):
    """Two back ends disagree."""


def bindings_of(graph: Graph, arrays: Sequence[Any]) -> list[Any]:
    """Leaf Values (numbers for scalar nodes) of arrays."""
    return [a.item() if n.op is SCALAR else leaf_value(n.avals[0], a) for n, a in zip(graph.inputs, arrays)]


def reference(graph: Graph, bindings: list[Any]) -> list[np.ndarray]:
    """What the graph interpreter gives."""
    return compile_numpy(graph)(bindings)


def poisoned(size: int, dt: np.dtype) -> np.ndarray:
    """Memory nobody has written yet."""
    return np.full(size * dt.itemsize, POISON, np.uint8).view(dt) if dt != np.bool_ else np.full(size, True)


def view_of(sched: Schedule, env: dict[Any, np.ndarray], slot: int, shape: tuple[int, ...]) -> np.ndarray:
    """A slot as a library call reads it."""
    if slot not in sched.views:
        return env[slot].reshape(shape)
    base, ix = sched.views[slot]
    flat, strides = env[base], dict(ix.terms)
    steps = [strides.get(d, 0) * flat.itemsize for d in range(len(shape))]
    return np.lib.stride_tricks.as_strided(flat[ix.const:], shape, steps)


def run_loops(graph: Graph, bindings: list[Any], tile: int = 1 << 16, sched: Schedule | None = None) -> list[np.ndarray]:
    """The schedule's kernels verified and run by NumPy, library nodes by their NumPy meaning."""
    sched = schedule(graph) if sched is None else sched
    verify_schedule(graph, sched)
    avals = graph.slot_avals()
    env: dict[Any, np.ndarray] = {n.slot: np.array(a, order="C").reshape(-1)
                                  for n, a in zip(graph.inputs, bind_inputs(graph, bindings))}
    old, loop_numpy.TILE = loop_numpy.TILE, tile
    try:
        for step in sched.steps:
            if isinstance(step, Kernel):
                for b in step.writes:
                    buf = step.buffers[b]
                    if buf.slot not in env:  # else another kernel wrote a part of it
                        env[buf.slot] = poisoned(buf.size, buf.dtype.np)
                run_kernel(step, [env[b.slot] for b in step.buffers])
            else:
                with np.errstate(all="ignore"):
                    out = run_node(step, [view_of(sched, env, s, avals[s].shape) for s in step.ins])
                for k, o in enumerate(out):
                    env[step.slot + k] = np.array(o, order="C").reshape(-1)
    finally:
        loop_numpy.TILE = old
    return [env[s].reshape(avals[s].shape) for s in graph.outputs]


def spoil(a: np.ndarray, magnitude: Any, rng: np.random.Generator) -> np.ndarray:
    """``a`` with noise of NOISE units in the last place of ``magnitude``, of random sign."""
    eps = EPS["bfloat16" if a.dtype.name == "bfloat16" else a.dtype.name]
    wide = a.astype(np.float64)
    step = np.asarray(magnitude, np.float64) * eps * NOISE
    step = np.where(np.isfinite(wide) & np.isfinite(step), step, 0)
    return np.asarray(wide + step * rng.choice([-1.0, 1.0], wide.shape)).astype(a.dtype)


def noisy(graph: Graph, arrays: list[Any], rng: np.random.Generator, exact: frozenset[int]) -> list[np.ndarray]:
    """The interpreter with noise after every operation that rounds; slots in ``exact`` get none."""
    env: list[Any] = []
    it = iter(arrays)
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            op = node.op
            assert op is not None
            if op.kind == "leaf":
                env.append(next(it))
                continue
            args = [env[s] for s in node.ins]
            outs = list(run_node(node, args))
            if op.kind != "view" and op.name not in NO_ROUNDING and node.slot not in exact:
                for k, av in enumerate(node.avals):
                    if av.dtype.is_floating_point:
                        outs[k] = spoil(outs[k], _magnitude(node, args, outs[k]), rng)
            env.extend(outs)
    return [env[s] for s in graph.outputs]


def _magnitude(node: Any, args: list[np.ndarray], out: np.ndarray) -> np.ndarray:
    """The size rounding errors of an operation are relative to."""
    name = node.op.name
    own = np.abs(out.astype(np.float64))
    if name == "reduce":
        x = args[0].astype(np.float64)
        n = max(1, x.size // max(1, out.size))
        if node.attrs[0] == "add":
            return np.add.reduce(np.abs(x), node.attrs[1]) * max(1.0, math.sqrt(n) / 4)
        return own * max(1.0, math.sqrt(n)) if node.attrs[0] == "mul" else 0 * own
    if name in ("add", "sub"):  # a product before may be fused: its own rounding is then missing
        return np.broadcast_to(np.maximum(np.abs(args[0].astype(np.float64)), np.abs(args[1].astype(np.float64))), own.shape)
    if name == "scan" and node.attrs[0] == "add":
        return magnitude_of_scan(args[0], *node.attrs[1:])
    if name == "contract":
        wide = [np.abs(a.astype(np.float64)) for a in args]
        return np.asarray(node.op.eval_np(node.attrs, *wide))
    return own


def tolerance(graph: Graph, bindings: list[Any], want: list[np.ndarray], exact: frozenset[int],
              runs: int = 3) -> list[np.ndarray | None]:
    """Per output the allowed difference (NaN: anything goes), None where results must be equal."""
    graph = expand_composites(graph)
    arrays = bind_inputs(graph, bindings)
    loose = [s for s in graph.outputs if s not in exact and graph.slot_avals()[s].dtype.is_floating_point]
    if not loose:
        return [None] * len(want)
    spread: list[Any] = [0.0] * len(want)
    for r in range(runs):
        got = noisy(graph, arrays, np.random.default_rng(r), exact)
        with np.errstate(all="ignore"):
            for k, (g, w) in enumerate(zip(got, want)):
                if w.dtype.kind not in "fV":
                    continue
                w64, g64 = w.astype(np.float64), g.astype(np.float64)
                d = np.abs(g64 - w64)
                same = (g64 == w64) | (np.isnan(g64) & np.isnan(w64))
                d = np.where(same, 0, np.where(np.isfinite(w64) & np.isfinite(g64), d, np.nan))
                spread[k] = np.maximum(spread[k], d)
    out: list[np.ndarray | None] = []
    for s, w, d in zip(graph.outputs, want, spread):
        if s not in loose:
            out.append(None)
            continue
        name = graph.slot_avals()[s].dtype.name
        w64 = np.abs(w.astype(np.float64))
        finite = d[np.isfinite(d)]
        typical = float(np.mean(finite)) if finite.size else 0.0
        tiny = 1e-37 if name in ("float32", "bfloat16") else 1e-6 if name == "float16" else 1e-300
        out.append(np.asarray(8 * d + 32 * EPS[name] * np.where(np.isfinite(w64), w64, 0) + typical + tiny))
    return out


def compare(want: Sequence[np.ndarray], got: Sequence[np.ndarray], tol: Sequence[np.ndarray | None], who: str) -> None:
    """Raise Mismatch naming the back end and the worst element."""
    assert len(want) == len(got)
    for k, (w, g, t) in enumerate(zip(want, got, tol)):
        if w.shape != g.shape or w.dtype != g.dtype:
            raise Mismatch(f"{who}: output {k} is {g.dtype}{g.shape}, expected {w.dtype}{w.shape}")
        if w.dtype.kind not in "fVc":
            bad = np.asarray(w != g)
        elif w.dtype.kind == "c":
            bad = ~np.isclose(w, g, rtol=1e-4 if w.dtype.itemsize == 8 else 1e-10, atol=1e-4, equal_nan=True)
        else:
            with np.errstate(all="ignore"):
                a, b = w.astype(np.float64), g.astype(np.float64)
                same = (a == b) | (np.isnan(a) & np.isnan(b))
                bad = ~same if t is None else ~(same | (np.abs(a - b) <= t) | np.isnan(t))
        if bad.any():
            n = np.unravel_index(int(np.argmax(bad)), bad.shape)
            allowed = "exactly" if t is None else f"within {float(np.broadcast_to(t, bad.shape)[n])}"
            raise Mismatch(f"{who}: output {k} {w.dtype}{list(w.shape)} differs at {int(bad.sum())} of {bad.size} elements, "
                           f"first at {tuple(map(int, n))}: {g[n]} instead of {w[n]} {allowed}")


def optimised(graph: Graph) -> Graph:
    """What the passes make of a graph, verified after each pass."""
    config.VERIFY = 2
    try:
        return run_passes(graph)
    finally:
        config.VERIFY = 0


def native(graph: Graph) -> Any:
    """The native plan; its kernels verified."""
    from graphc.codegen.native.program import Program

    program = Program(graph)
    verify_schedule(program.graph, program.schedule)
    return program


def describe(graph: Graph) -> str:
    """The graph and its kernels, for messages."""
    lines = [f"s{n.slot} {n.avals} = {n.op.name}{n.ins} {n.attrs if n.op.kind != 'leaf' else ''}"  # type: ignore[union-attr]
             for n in graph.nodes]
    try:
        lines += [to_text(k) if isinstance(k, Kernel) else f"call {k.op.name}" for k in schedule(graph).steps]  # type: ignore
    except Exception as error:  # the schedule itself may be what is wrong
        lines.append(f"schedule: {error!r}")
    return "\n".join([*lines, f"outputs {graph.outputs}"])


def check(graph: Graph, arrays: Sequence[Any], exact: frozenset[int] = frozenset(), *, tile: int = 1 << 16,
          threads: Sequence[int] = (), optimise: bool = False) -> None:
    """All back ends agree on one graph; ``exact`` slots bit for bit (up to the sign of zero). Native results must not
    depend on the number of threads, nor on inputs being free to be overwritten; inputs stay what they are otherwise. With ``optimise`` the back ends get
    what the passes make of the graph, verified after each."""
    bindings = bindings_of(graph, arrays)
    try:
        want = reference(graph, bindings)
        tol = tolerance(graph, bindings, want, exact)
        if optimise:
            graph = optimised(graph)
            compare(want, reference(graph, bindings), tol, "the passes' graph")
        compare(want, run_loops(graph, bindings, tile), tol, "loop IR by NumPy")
        plan = native(graph)
        before = [np.array(a) for a in arrays]
        got = plan(bindings)
        compare(want, got, tol, "native")
        for n in threads:
            graphc.set_num_threads(n)
            same_bits(got, native(graph)(bindings), f"native with {n} threads")
        same_bits(before, [np.array(a) for a in arrays], "inputs after the run")
        if plan.donors:
            same_bits(got, plan(bindings_of(graph, [np.array(a) for a in arrays]), plan.donors), "native overwriting inputs")
    except Exception as error:
        raise Mismatch(f"{type(error).__name__}: {error}\n{describe(graph)}") from error


def same_bits(a: Sequence[np.ndarray], b: Sequence[np.ndarray], who: str) -> None:
    """Raise Mismatch unless arrays are identical byte for byte."""
    for k, (x, y) in enumerate(zip(a, b)):
        if x.tobytes() != y.tobytes():
            raise Mismatch(f"{who}: array {k} differs")
