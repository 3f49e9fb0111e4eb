"""Random fused programs: graph interpreter = loop IR by NumPy = native code; and the verifier refuses damaged kernels."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import harness
import numpy as np
import programs
import pytest
from programs_library import LIBRARY_STEPS, forgiving, stacks

from graphc.codegen import index
from graphc.codegen.fuse import schedule
from graphc.codegen.loop_ir import Buf, Kernel, Stmt
from graphc.codegen.native import program
from graphc.codegen.verify import VerifyError, verify_kernel, verify_schedule
from graphc.dtypes import float32, float64, int64
from graphc.runtime import jit, memory

CHUNK = 50


def run_native(seeds: range, grow: Callable[[int], programs.Program], monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of these seeds through all back ends, at vectors of 128, 256 and 512 bits in turn."""
    if not jit.available():
        pytest.skip(jit.reason())
    bits, cache = jit.vector_bits(), memory.last_level_cache()
    monkeypatch.setattr(program, "PARALLEL_WORK", 0)  # so that threads share even small programs
    for seed in seeds:
        p = grow(seed)
        narrow = min(bits, 128 << seed % 3)
        monkeypatch.setattr(jit, "vector_bits", lambda: narrow)
        size = cache if seed % 2 else 0  # 0: every result is written past the caches
        monkeypatch.setattr(memory, "last_level_cache", lambda: size)
        try:
            harness.check(p.graph, p.arrays, p.exact, tile=1 << 16 if seed % 2 else 40, threads=(3,) if seed % 4 == 0 else (),
                          optimise=seed % 5 < 2)
        except harness.Mismatch as error:
            pytest.fail(f"seed {seed}, {narrow} bits: {error}")


@pytest.mark.parametrize("start", range(0, 1000, CHUNK))
def test_random_programs_native(start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run_native(range(start, start + CHUNK), programs.grow, monkeypatch)


@pytest.mark.parametrize("start", range(3000, 3300, CHUNK))
def test_random_programs_with_library_calls(start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run_native(range(start, start + CHUNK), lambda seed: programs.grow(seed, steps=LIBRARY_STEPS), monkeypatch)


@pytest.mark.parametrize("start", range(5000, 5060, 20))
def test_random_programs_with_stacks_of_matrices(start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run_native(range(start, start + 20), stacks, monkeypatch)


@pytest.mark.parametrize("start", range(0, 100, CHUNK))
def test_random_programs_with_nothing_in_them(start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Axes of size 0 among others."""
    monkeypatch.setattr(programs, "SIZES", (0, 0, 1, 2, 3, 5, 33))
    run_native(range(start, start + CHUNK), lambda seed: programs.grow(seed, steps=forgiving(LIBRARY_STEPS)), monkeypatch)


@pytest.mark.parametrize("start", range(1000, 3000, 500))
def test_random_programs_loop_ir(start: int) -> None:
    for seed in range(start, start + 500):
        p = programs.grow(seed)
        bindings = harness.bindings_of(p.graph, p.arrays)
        want = harness.reference(p.graph, bindings)
        tol = harness.tolerance(p.graph, bindings, want, p.exact)
        try:
            graph = harness.optimised(p.graph) if seed % 5 < 2 else p.graph
            harness.compare(want, harness.run_loops(graph, bindings, (1 << 16, 40, 1)[seed % 3]), tol, "loop IR")
        except Exception as error:
            pytest.fail(f"seed {seed}: {error}\n{harness.describe(p.graph)}")


# ------------------------------------------------------------------------------------------- what the fuzz found, minimal
def grower(*shapes: tuple[int, ...]) -> programs.Grower:
    """A grower with float32 inputs of these shapes."""
    g = programs.Grower(1, (3,), (float32,))
    for shape in shapes:
        g.leaf(shape, float32, np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape))
    return g


def test_index_used_under_a_guard_along_the_vector_axis() -> None:
    """x[i] at one computed i, written into a part of a row."""
    g = grower((70,), (70,))
    one = g.emit("take", (1, g.scalar(5, int64, None)), (0, True))
    z = g.emit("maximum", (0, one))
    top = g.emit("reduce", (z,), ("max", (0,)))
    y = g.emit("slice_set", (z, g.emit("expand", (one,), ((40,),))), ((30,), (70,), (1,)))
    harness.check(g.b.graph((y, z, top)), g.arrays)


def test_transposed_store_under_a_reduction_nobody_wants() -> None:
    """The kernel has a reduced axis but no reduction: tiles of a transposition must not depend on it."""
    g = grower((17, 17, 15))
    p = g.emit("permute", (g.emit("abs", (0,)),), ((2, 1, 0),))
    g.emit("reduce", (g.emit("neg", (p,)),), ("max", (1,)))
    harness.check(g.b.graph((g.emit("mul", (p, p)), g.emit("neg", (p,)))), g.arrays)


def test_pieces_of_a_concatenation_in_another_order() -> None:
    """Operands of a concat computed by a kernel that walks a permutation of them."""
    g = grower((5, 7, 1, 31))
    y = g.emit("ne", (0, 0))
    outs = (g.emit("permute", (y,), ((1, 2, 0, 3),)), g.emit("concat", (y, y, y), (1,)))
    harness.check(g.b.graph(outs), g.arrays)


def test_quotients_of_a_reversed_index_used_as_values() -> None:
    """Diagonals of a reversed reshape: (15 - i) // 4 == (15 - i) % 4."""
    g = grower((16,))
    i = g.emit("iota", (), (4, int64, programs.CPU))
    eye = g.emit("eq", (g.emit("reshape", (i,), ((4, 1),)), i))
    back = g.emit("slice", (g.emit("reshape", (eye,), ((16,),)),), ((15,), (-1,), (-1,)))
    harness.check(g.b.graph((back, g.emit("where", (back, 0, g.emit("neg", (0,)))))), g.arrays)


# ---------------------------------------------------------------------------------------------------------- the verifier
def softmax_kernel() -> Kernel:
    """Rows of 7 of a 5 x 7 matrix: maximum, sum of exponentials, quotient."""
    g = programs.Grower(0, (5, 7), (float32,))
    x = g.leaf((5, 7), float32)
    top = g.emit("reshape", (g.emit("reduce", (x,), ("max", (1,))),), ((5, 1),))
    e = g.emit("exp", (g.emit("sub", (x, top)),))
    s = g.emit("reshape", (g.emit("reduce", (e,), ("add", (1,))),), ((5, 1),))
    kernels = [k for k in schedule(g.b.graph((g.emit("div", (e, s)),))).steps if isinstance(k, Kernel)]
    assert len(kernels) == 1 and kernels[0].extents == (5, 7)
    return kernels[0]


def number(k: Kernel, op: str) -> int:
    return next(i for i, s in enumerate(k.stmts) if s.op == op)


def changed(k: Kernel, i: int, **new: object) -> Kernel:
    """The kernel with one statement altered."""
    return replace(k, stmts=(*k.stmts[:i], k.stmts[i]._replace(**new), *k.stmts[i + 1:]))


def shifted(k: Kernel, n: int) -> Kernel:
    """The first load moved by ``n`` elements."""
    i = number(k, "load")
    a = k.stmts[i].attr
    return changed(k, i, attr=a._replace(ix=index.add(a.ix, index.num(n))))


def stored(k: Kernel, ix: index.Ix) -> Kernel:
    st = k.stores[0]
    return replace(k, stores=(st._replace(access=st.access._replace(ix=ix)),))


DAMAGE: dict[str, tuple[Callable[[Kernel], Kernel], str]] = {
    "read beyond the end": (lambda k: shifted(k, 1), "element 35 of 35"),
    "read before the start": (lambda k: shifted(k, -1), "element -1 of 35"),
    "operand from the future": (lambda k: changed(k, number(k, "exp"), args=(len(k.stmts) - 1,)), "reads a later statement"),
    "operand dtype": (lambda k: changed(k, number(k, "sub"), dtype=float64), "to torch.float64"),
    "load dtype": (lambda k: changed(k, number(k, "load"), dtype=int64), "from a buffer of"),
    "unknown monoid": (lambda k: changed(k, number(k, "reduce"), attr="xor"), "unknown monoid"),
    "missing operand": (lambda k: changed(k, number(k, "reduce"), args=()), "0 arguments"),
    "no such axis": (lambda k: stored(k, index.var(2)), "axis 2 does not exist"),
    "store transposed": (lambda k: stored(k, index.add(index.var(0), index.scale(index.var(1), 7))), "of 35"),
    "store twice": (lambda k: stored(k, index.var(1)), "several points write one element"),
    "store with gaps": (lambda k: replace(stored(k, index.add(index.scale(index.var(0), 7), index.var(1))),
                                          buffers=(k.buffers[0], Buf(k.buffers[1].slot, float32, 36))), "not every element"),
    "nothing stored": (lambda k: replace(k, stores=()), "no stores"),
    "input overwritten": (lambda k: replace(k, stores=(k.stores[0]._replace(access=k.stores[0].access._replace(buffer=0)),)),
                          "read and written"),
    "stored statement": (lambda k: replace(k, stores=(k.stores[0]._replace(value=99),)), "%99 does not exist"),
    "too many kept axes": (lambda k: replace(k, kept=3), "3 kept axes of 2"),
    "index that nobody checked": (lambda k: changed(k, number(k, "load"), attr=k.stmts[number(k, "load")].attr._replace(
        ix=index.datum(number(k, "load"), 35))), "reads a later statement"),
    "division by nothing": (lambda k: stored(k, index.Ix(0, ((("//", index.var(0), 0), 1),))), "unknown atom"),
    "constant of the wrong size": (lambda k: changed(k, number(k, "load"), op="const", attr=b"\0" * 8), "8 bytes"),
}


def test_the_undamaged_kernel_is_legal() -> None:
    verify_kernel(softmax_kernel())


@pytest.mark.parametrize("damage", DAMAGE)
def test_verifier_refuses(damage: str) -> None:
    alter, why = DAMAGE[damage]
    with pytest.raises(VerifyError) as error:
        verify_kernel(alter(softmax_kernel()))
    assert why in str(error.value), str(error.value)


def test_verifier_knows_guards() -> None:
    """A padded read is legal because of its guard, and not without it."""
    g = programs.Grower(0, (6,), (float32,))
    x = g.leaf((6,), float32)
    out = g.emit("exp", (g.emit("pad", (x, g.const(0, float32)), ((2,), (3,))),))
    (k,) = schedule(g.b.graph((out,))).steps
    assert isinstance(k, Kernel)
    verify_kernel(k)
    i = number(k, "load")
    with pytest.raises(VerifyError, match="element -2 of 6"):
        verify_kernel(changed(k, i, attr=k.stmts[i].attr._replace(guards=())))
    with pytest.raises(VerifyError, match="element 6 of 6"):
        wide = tuple(gd._replace(hi=gd.hi + 1) for gd in k.stmts[i].attr.guards)
        verify_kernel(changed(k, i, attr=k.stmts[i].attr._replace(guards=wide)))


def test_verifier_refuses_schedules() -> None:
    """A step that reads what is not there yet; a result that nobody completes; a part written twice."""
    g = programs.Grower(0, (40, 30), (float32,))
    x = g.leaf((40, 30), float32)
    s = g.emit("reduce", (x,), ("add", (0,)))
    y = g.emit("reduce", (g.emit("sub", (x, g.emit("expand", (s,), ((40, 30),)))),), ("max", (1,)))
    graph = g.b.graph((y,))
    sched = schedule(graph)
    assert len(sched.steps) == 2
    verify_schedule(graph, sched)
    with pytest.raises(VerifyError, match="before it is complete"):
        verify_schedule(graph, replace(sched, steps=sched.steps[::-1]))
    with pytest.raises(VerifyError, match="before it is complete"):
        verify_schedule(graph, replace(sched, steps=sched.steps[:1]))
    with pytest.raises(VerifyError, match="exactly once"):
        verify_schedule(graph, replace(sched, steps=[*sched.steps, sched.steps[1]]))


def test_argreduce_positions_are_checked() -> None:
    g = programs.Grower(0, (5, 7), (float32,))
    x = g.leaf((5, 7), float32)
    (k,) = schedule(g.b.graph((g.emit("argreduce", (x,), ("max", 1)),))).steps
    assert isinstance(k, Kernel)
    i = number(k, "argreduce")
    verify_kernel(k)
    for ix in (index.num(0), index.add(index.var(1), index.num(1)), index.scale(index.var(1), 2)):
        with pytest.raises(VerifyError, match="positions are not"):
            verify_kernel(changed(k, i, attr=("max", ix)))


def test_seeds_must_not_vary() -> None:
    g = programs.Grower(0, (9,), (float32,))
    (k,) = schedule(g.b.graph((g.emit("rng_bits", (g.scalar(3, int64, None), g.const(4, int64)), ((9,),)),))).steps
    assert isinstance(k, Kernel)
    verify_kernel(k)
    seed = k.stmts[number(k, "rng")].args[0]
    varied = replace(k, stmts=tuple(Stmt("index", (), int64, index.var(0)) if j == seed else s for j, s in enumerate(k.stmts)))
    with pytest.raises(VerifyError, match="seeds differ"):
        verify_kernel(varied)


def test_an_empty_operand_whose_axes_do_not_merge() -> None:
    """It is copied into another order: a kernel over nothing."""
    if not jit.available():
        pytest.skip(jit.reason())
    g = grower((3, 0), (2, 0, 3, 1))
    harness.check(g.b.graph((g.emit("contract", (0, 1), ((), (), (1,), (1,))),)), g.arrays)
