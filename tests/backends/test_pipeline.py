"""Jobs that share a batch axis run slice by slice: the same bits as one after the other, whatever the threads."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import harness
import numpy as np
import pytest
from programs_library import stacks
from slicing import found, plain, same_either_way

import graphc
from graphc import config, dtypes
from graphc.codegen import index
from graphc.codegen.native import pipeline, program
from graphc.codegen.native.jobs import Space
from graphc.codegen.native.pipeline import Pipeline, slices
from graphc.codegen.native.program import Program
from graphc.device import CPU
from graphc.ir import build as P
from graphc.ir.node import Graph, aval
from graphc.ir.passes import run_passes
from graphc.ir.recorder import trace
from graphc.runtime import jit, memory

if not jit.available():
    pytest.skip(jit.reason(), allow_module_level=True)

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two threads, and no program too small for them."""
    before = graphc.get_num_threads()
    graphc.set_num_threads(2)
    monkeypatch.setattr(program, "PARALLEL_WORK", 0)
    yield
    graphc.set_num_threads(before)


# ------------------------------------------------------------------------------------------------------------- programs
def graph_of(fn: Callable[..., Any], shapes: Any, dt: Any = dtypes.float32) -> Graph:
    return run_passes(trace(fn, tuple(aval(s, dt, CPU) for s in shapes), grad=False))


def softmax(x: Any) -> Any:
    last = (len(x.aval.shape) - 1,)
    e = P.exp(P.sub(x, P.reduce("max", x, last, True)))
    return P.div(e, P.reduce("add", e, last, True))


def attend(q: Any, k: Any, v: Any) -> Any:
    return P.matmul(softmax(P.matmul(q, P.permute(k, (0, 2, 1)))), v)


def arrays_of(graph: Graph, shapes: Any, dt: Any = dtypes.float32) -> list[Any]:
    return harness.bindings_of(graph, [RNG.standard_normal(s).astype(dt.np) for s in shapes])


def check(fn: Callable[..., Any], shapes: Any, monkeypatch: pytest.MonkeyPatch, expect: int = 1, dt: Any = dtypes.float32) -> list[Pipeline]:
    """The program is right, whatever runs it; the pipelines in it."""
    graph = graph_of(fn, shapes, dt)
    monkeypatch.setattr(config, "VERIFY", 2)
    made = same_either_way(graph, arrays_of(graph, shapes, dt), monkeypatch)
    assert len(made) == expect, Program(graph).to_text()
    harness.check(graph, [RNG.standard_normal(s).astype(dt.np) for s in shapes], threads=(1, 3, 2))
    return made


def test_intermediates_stay_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores are memory of one slice per thread, and no more."""
    shapes = [(12, 40, 16)] * 3
    (p,) = check(lambda q, k, v: (attend(q, k, v),), shapes, monkeypatch)
    assert sorted(p.local.values()) == [16 * 64 * 4, 40 * 40 * 4, 40 * 40 * 4]
    whole = Program(graph_of(lambda q, k, v: (attend(q, k, v),), shapes))
    assert whole.kernels() == ["pipeline_contract_reduce_sub_exp_div_contract"]
    assert whole.arena_bytes == 2 * p.scratch < plain(whole.graph, monkeypatch).arena_bytes / 2
    assert whole.bytes_moved() == 4 * (4 * 12 * 40 * 16)
    assert "12 slices" in whole.to_text()


def test_results_in_place_of_operands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights lie where the scores were, but not where these are needed again."""
    def again(q: Any, k: Any, v: Any) -> Any:
        s = P.matmul(q, P.permute(k, (0, 2, 1)))
        return (P.matmul(P.mul(P.matmul(softmax(s), P.exp(s)), s), v),)

    shapes, matrix = [(12, 40, 16)] * 3, 40 * 40 * 4
    (p,) = check(lambda q, k, v: (attend(q, k, v),), shapes, monkeypatch)
    assert p.size == matrix + 16 * 64 * 4
    (p,) = check(again, shapes, monkeypatch)
    assert p.size >= 3 * matrix


def test_small_values_that_all_slices_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every thread makes a mask for itself; not one that others want, nor a large one, nor one that waits for a slice."""
    def mask(t: Any) -> Any:
        return P.exp(P.mul(P.reshape(t, (1, 40, 1)), P.reshape(t, (1, 1, 40))))

    def fn(q: Any, t: Any) -> Any:
        m = P.expand(mask(t), (12, 40, 40))
        s = P.add(P.matmul(q, P.permute(q, (0, 2, 1))), m)
        return (P.matmul(P.mul(softmax(s), P.sub(s, m)), q),)

    shapes = [(12, 40, 16), (40,)]
    (p,) = check(fn, shapes, monkeypatch)
    assert p.once == 1 and list(p.shared.values()) == [40 * 40 * 4] and "once kernel" in p.label
    assert Program(graph_of(fn, shapes)).bytes_moved() == 4 * (4 * 12 * 40 * 16 + 40)
    (p,) = check(lambda q, t: (*fn(q, t), mask(t)), shapes, monkeypatch)
    assert p.once == 0
    monkeypatch.setattr(pipeline, "SHARED", 40 * 40)
    (p,) = check(fn, shapes, monkeypatch)
    assert p.once == 0

    def last(q: Any, t: Any) -> Any:
        a = P.matmul(q, P.permute(q, (0, 2, 1)))
        b = P.matmul(P.sub(softmax(a), P.expand(mask(P.reduce("max", a, (0, 1), False)), (12, 40, 40))), q)
        return (b,)

    made = same_either_way(graph_of(last, shapes), arrays_of(graph_of(last, shapes), shapes), monkeypatch)
    assert all(p.once == 0 for p in made)


def test_what_others_read_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    def fn(q: Any, k: Any, v: Any) -> Any:
        p = softmax(P.matmul(q, P.permute(k, (0, 2, 1))))
        return P.matmul(p, v), p, P.reduce("add", P.matmul(q, P.permute(k, (0, 2, 1))), (0,))

    (p,) = check(fn, [(6, 10, 8)] * 3, monkeypatch)
    assert len(p.local) == 1  # the packed operand


def test_no_path_leads_out_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two attentions all slices meet."""
    def fn(q: Any, k: Any, v: Any, w: Any) -> Any:
        x = attend(q, k, v)
        x = P.sub(x, P.reduce("add", x, (0,), True))
        return (attend(P.matmul(x, P.expand(w, (6, 8, 8))), k, x),)

    check(fn, [(6, 10, 8)] * 3 + [(1, 8, 8)], monkeypatch, expect=2)


def test_two_that_would_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """a1 -> b1 and b2 -> a2 through sums over the batch: contracting both pairs would make a cycle."""
    def total(x: Any) -> Any:
        return P.expand(P.reduce("add", x, (0,), True), x.aval.shape)

    def fn(a: Any, b: Any) -> Any:
        a1, b2 = P.matmul(a, a), P.matmul(P.exp(b), b)
        b1 = P.matmul(total(a1), P.tanh(b2))
        a2 = P.matmul(total(b2), P.tanh(a1))
        return P.matmul(P.cos(b1), b2), P.matmul(P.sin(a2), a1)

    graph = graph_of(fn, [(6, 9, 9)] * 2)
    bindings = arrays_of(graph, [(6, 9, 9)] * 2)
    assert same_either_way(graph, bindings, monkeypatch)
    harness.check(graph, [RNG.standard_normal((6, 9, 9)).astype(np.float32) for _ in range(2)])


def test_shared_operands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and values of one head for all queries; a mask of one batch for all heads; one of one head for all batches."""
    def fn(q: Any, k: Any, v: Any, m: Any, n: Any) -> Any:
        kt = P.expand(P.reshape(P.permute(k, (0, 2, 1)), (3, 1, 8, 10)), (3, 4, 8, 10))
        s = P.add(P.add(P.matmul(q, kt), P.reshape(m, (3, 1, 10, 10))), n)
        return (P.matmul(softmax(s), P.expand(P.reshape(v, (3, 1, 10, 8)), (3, 4, 10, 8))),)

    (p,) = check(fn, [(3, 4, 10, 8), (3, 10, 8), (3, 10, 8), (3, 10, 10), (4, 10, 10)], monkeypatch)
    assert p.slices == 12


def test_mixed_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels over merged, split and swapped axes join; what mixes slices does not."""
    def fn(a: Any, b: Any, c: Any) -> Any:
        y = P.matmul(a, b)
        z = P.mul(P.reshape(y, (4, 3, 70)), P.reshape(c, (4, 3, 1)))
        w = P.permute(P.matmul(P.reshape(z, (12, 10, 7)), P.permute(a, (0, 2, 1))), (1, 0, 2))
        flipped = P.flip(P.tanh(y), (0,))
        return P.exp(w), P.matmul(flipped, P.permute(b, (0, 2, 1)))

    graph = graph_of(fn, [(12, 10, 7), (12, 7, 7), (12,)])
    assert same_either_way(graph, arrays_of(graph, [(12, 10, 7), (12, 7, 7), (12,)]), monkeypatch)
    harness.check(graph, [RNG.standard_normal(s).astype(np.float32) for s in ((12, 10, 7), (12, 7, 7), (12,))], threads=(1, 3))


def test_results_of_several_slices_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients of queries, keys and values written into one array: a part each, chosen by guards."""
    def fn(q: Any, k: Any, v: Any) -> Any:
        s = P.matmul(q, P.permute(k, (0, 2, 1)))
        parts = [P.reshape(P.matmul(softmax(s), v), (1, 6, 10, 8)), P.reshape(P.matmul(s, k), (1, 6, 10, 8))]
        return (P.add(P.pad(parts[0], (0, 0, 0, 0), (1, 0, 0, 0), 0.0), P.pad(parts[1], (1, 0, 0, 0), (0, 0, 0, 0), 0.0)),)

    (p,) = check(fn, [(6, 10, 8)] * 3, monkeypatch)
    assert len(p.jobs) == 6 and len(p.local) == 5


@pytest.mark.parametrize("rows", [5, 8, 16])
def test_one_matrix_before_many(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries, keys and values as parts of one product over all rows of all slices."""
    def fn(x: Any, w: Any) -> Any:
        y = P.reshape(P.matmul(P.reshape(x, (33 * rows, 24)), w), (33, rows, 72))
        q, k, v = (P.slice_(y, (0, 0, at), (33, rows, at + 24), (1, 1, 1)) for at in (0, 24, 48))
        return (P.add(x, attend(q, k, v)),)

    (p,) = check(fn, [(33, rows, 24), (24, 72)], monkeypatch)
    assert p.slices == 33


def test_long_rows_and_long_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """k in several blocks behind an epilogue (partial sums of a slice), and a k that is cut in parts (no pipeline)."""
    def fn(a: Any, b: Any) -> Any:
        y = P.tanh(P.matmul(a, b))
        return (P.matmul(y, P.permute(y, (0, 2, 1))),)

    (p,) = check(fn, [(4, 9, 600), (4, 600, 20)], monkeypatch)
    assert any(x[-1] == "c" for x in p.local if isinstance(x, tuple))
    check(lambda a, b: (P.exp(P.matmul(a, b)),), [(2, 3, 4100), (2, 4100, 5)], monkeypatch, expect=0)


def test_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products with a vector in each slice: one query."""
    check(lambda q, k, v: (attend(q, k, v),), [(12, 1, 16), (12, 40, 16), (12, 40, 16)], monkeypatch)


@pytest.mark.parametrize("bits", [128, 256, 512])
def test_vector_widths(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if bits > jit.vector_bits():
        pytest.skip("no such vectors here")
    monkeypatch.setattr(jit, "vector_bits", lambda: bits)
    check(lambda q, k, v: (attend(q, k, v),), [(5, 33, 20)] * 3, monkeypatch)
    check(lambda q, k, v: (attend(q, k, v),), [(4, 9, 20)] * 3, monkeypatch, dt=dtypes.float64)


def test_stores_past_the_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large results go past the caches, what stays in a slice does not."""
    monkeypatch.setattr(memory, "last_level_cache", lambda: 0)

    def fn(q: Any, k: Any, v: Any) -> Any:
        p = softmax(P.matmul(q, P.permute(k, (0, 2, 1))))
        return P.matmul(p, v), P.mul(p, P.full((), 2.0, dtypes.float32, CPU))

    (p,) = check(fn, [(4, 32, 16)] * 3, monkeypatch)
    flags = {key: j.numbers[at] for j in p.jobs for key, at in j.streams}
    assert any(key in p.local for key in flags) and any(key not in p.local for key in flags)
    assert all(value == (key not in p.local) for key, value in flags.items())


def test_slices_of_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [(3, 64, 16)] * 3
    graph = graph_of(lambda q, k, v: (attend(q, k, v),), shapes)
    assert len(found(Program(graph))) == 1
    monkeypatch.setattr(pipeline, "SMALL", 64 * 64 * 4)  # a matrix of scores, but not the packed keys
    monkeypatch.setattr(pipeline, "BLOCK", 8 * 64 * 4)
    (p,) = found(Program(graph))
    assert p.slices == 24 and not any(isinstance(x, tuple) for x in p.local)
    assert same_either_way(graph, arrays_of(graph, shapes), monkeypatch)[0].slices == 24
    monkeypatch.undo()
    graphc.set_num_threads(5)
    (p,) = found(Program(graph))
    assert p.slices == 12  # three would leave two of five threads idle
    assert not found(Program(graph_of(lambda q, k, v: (attend(q, k, v),), [(3, 63, 16)] * 3)))  # no equal parts


@pytest.mark.parametrize("queries,keys,slices", [(1024, 1024, 32), (1000, 900, 100), (512, 2048, 32)])
def test_long_contexts(queries: int, keys: int, slices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All scores of a head would be 4 MB; parts of its rows are not."""
    shapes = [(4, queries, 32), (4, keys, 32), (4, keys, 32)]
    graph = graph_of(lambda q, k, v: (attend(q, k, v),), shapes)
    (p,) = same_either_way(graph, arrays_of(graph, shapes), monkeypatch)
    assert p.slices == slices and p.size <= pipeline.BLOCK
    assert Program(graph).arena_bytes < 3 << 20


def test_new_batch_sizes_compile_nothing() -> None:
    def run(batch: int) -> None:
        shapes = [(batch, 20, 16)] * 3
        graph = graph_of(lambda q, k, v: (attend(q, k, v),), shapes)
        p = Program(graph)
        assert len(found(p)) == 1
        p(arrays_of(graph, shapes))

    run(4)
    before = jit.engine().compiled + jit.engine().reloaded
    for batch in (6, 10, 12):
        run(batch)
    assert jit.engine().compiled + jit.engine().reloaded == before


def test_measured_and_described() -> None:
    shapes = [(12, 40, 16)] * 3
    graph = graph_of(lambda q, k, v: (attend(q, k, v),), shapes)
    p = Program(graph)
    times = p.timed(arrays_of(graph, shapes))
    assert [name for name, _ in times] == ["patch addresses", *p.kernels()]
    assert all(name in p.to_text() for name in ("mm_float32", "mm_pack", "12 slices", "exp"))


def test_indices_out_of_range_are_reported() -> None:
    """A kernel of a pipeline that looks something up may fail."""
    def fn(q: Any, table: Any, i: Any) -> Any:
        return (P.matmul(P.tanh(P.add(P.matmul(q, q), P.take(table, i, 0))), q),)

    q, table = RNG.standard_normal((6, 8, 8)).astype(np.float32), RNG.standard_normal((9, 8)).astype(np.float32)
    avals = (aval((6, 8, 8), dtypes.float32, CPU), aval((9, 8), dtypes.float32, CPU), aval((6, 8), dtypes.int64, CPU))
    graph = run_passes(trace(fn, avals, grad=False))
    good = RNG.integers(0, 9, (6, 8))
    harness.check(graph, [q, table, good], threads=(1, 3))
    p = Program(graph)
    bad = good.copy()
    bad[4, 3] = 9
    with pytest.raises(IndexError):
        p(harness.bindings_of(graph, [q, table, bad]))
    harness.same_bits(p(harness.bindings_of(graph, [q, table, good])), Program(graph)(harness.bindings_of(graph, [q, table, good])),
                      "after an error")


@pytest.mark.parametrize("start", range(6000, 6040, 20))
def test_random_programs(start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs with chains of batched products: pipelines change no bit, and there are many."""
    count = 0
    for seed in range(start, start + 20):
        p = stacks(seed)
        monkeypatch.setattr(memory, "last_level_cache", lambda size=seed % 2 << 25: size)
        monkeypatch.setattr(pipeline, "SMALL", (1 << 20, 1024, 256)[seed % 3])
        monkeypatch.setattr(pipeline, "BLOCK", (1 << 19, 1024, 256)[seed % 3])
        count += len(same_either_way(run_passes(p.graph), harness.bindings_of(p.graph, p.arrays), monkeypatch))
    assert count > 5


def random_attention(r: np.random.Generator, b: int, tq: int, tk: int) -> Callable[..., Any]:
    """Biases of several shapes on the scores, weights used once or more, sums over keys or over queries."""
    def maybe(p: float) -> bool:
        return bool(r.random() < p)

    def fn(q: Any, k: Any, v: Any, bias: Any, per_key: Any, per_query: Any) -> Any:
        s = P.matmul(q, P.permute(k, (0, 2, 1)))
        s = P.add(s, bias) if maybe(.4) else s
        s = P.mul(s, P.expand(P.reshape(per_key, (b, 1, tk)), (b, tq, tk))) if maybe(.4) else s
        s = P.add(s, P.expand(P.reshape(per_query, (b, tq, 1)), (b, tq, tk))) if maybe(.4) else s
        p = softmax(s) if maybe(.7) else P.exp(P.tanh(s))
        p = P.add(p, P.mul(s, P.full((), 0.5, s.aval.dtype, CPU))) if maybe(.3) else p
        y = P.matmul(p, v)
        more = [lambda: P.matmul(P.permute(p, (0, 2, 1)), q), lambda: P.reduce("add", P.mul(p, s), (2,)), lambda: p,
                lambda: P.permute(P.mul(y, q), (1, 0, 2)), lambda: P.matmul(P.matmul(y, P.permute(q, (0, 2, 1))), q)]
        return (y, *[make() for make in more if maybe(.25)])

    return fn


@pytest.mark.parametrize("start", range(0, 40, 20))
def test_random_attention(start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of whole matrices and of parts of their rows."""
    by_rows = 0
    for seed in range(start, start + 20):
        r = np.random.default_rng(seed)
        b, tq, tk, d = (int(r.choice(x)) for x in ([2, 3, 4, 6], [16, 24, 32, 64, 128], [8, 16, 20, 33, 64], [4, 8, 16, 20]))
        for name in ("SMALL", "BLOCK"):
            monkeypatch.setattr(pipeline, name, (256, 2048, 8192)[seed % 3])
        shapes = [(b, tq, d), (b, tk, d), (b, tk, d), (tq, tk), (b, tk), (b, tq)]
        graph = graph_of(random_attention(r, b, tq, tk), shapes, (dtypes.float32, dtypes.float64)[seed % 2])
        made = same_either_way(graph, arrays_of(graph, shapes, (dtypes.float32, dtypes.float64)[seed % 2]), monkeypatch)
        assert made, seed
        by_rows += sum(p.slices > b for p in made)
    assert by_rows > 1


# --------------------------------------------------------------------------------------------------------------- slices
def test_slices_against_enumeration() -> None:
    """Which keys are touched slice by slice: compared with listing every element every slice touches."""
    r = np.random.default_rng(5)
    seen = {True: 0, False: 0, None: 0}
    for _ in range(600):
        ext = tuple(int(x) for x in r.choice([1, 2, 3, 4, 6], int(r.integers(1, 5))))
        leading = int(r.integers(0, len(ext) + 1))
        n, total = int(r.choice([2, 3, 4, 6, 8])), math.prod(ext)
        dense = [math.prod(ext[d + 1:]) for d in range(len(ext))]
        strides = dense if r.random() < .5 else [int(r.choice([0, 1, *dense])) for _ in ext]
        ix = index.Ix(int(r.choice([0, 0, 0, 1])), tuple((d, s) for d, s in enumerate(strides) if s and ext[d] > 1))
        size = int(r.choice([total, total, 2 * total, total // 2 or 1])) * 4
        got = slices(Space(ext, leading, (("x", 4, ix),)), n, lambda key, size=size: size)
        if got is None:
            seen[None] += 1
            continue
        assert math.prod(ext[:leading]) % n == 0 and total % n == 0
        at = np.full(ext, ix.const)
        for d, s in enumerate(strides):
            at += s * np.arange(ext[d]).reshape([-1 if e == d else 1 for e in range(len(ext))])
        touched = at.reshape(n, -1)
        each = size // 4 // n
        want = size % (4 * n) == 0 and all((touched[b] >= b * each).all() and (touched[b] < (b + 1) * each).all() for b in range(n))
        assert want or not got["x"]  # never a slice that reaches into another
        seen[got["x"]] += 1
        if strides == dense and not ix.const and size == 4 * total:
            assert got["x"]
    assert min(seen.values()) > 20, seen


@pytest.mark.parametrize("start", range(6000, 6020, 10))
def test_long_plans_in_windows(start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of few steps and pipelines of few members change no bit; growing takes no time with the cube of a chain."""
    count = 0
    monkeypatch.setattr(pipeline, "WINDOW", 9)
    monkeypatch.setattr(pipeline, "MEMBERS", 4)
    for seed in range(start, start + 10):
        p = stacks(seed)
        made = same_either_way(run_passes(p.graph), harness.bindings_of(p.graph, p.arrays), monkeypatch)
        assert all(len(m.members) - m.once <= 4 for m in made)
        count += len(made)
    assert count > 1


def test_a_chain_of_products_is_several_pipelines(monkeypatch: pytest.MonkeyPatch) -> None:
    def fn(x: Any) -> Any:
        y = x
        for _ in range(60):
            y = softmax(P.matmul(y, x))
        return (y,)

    made = same_either_way(graph_of(fn, [(4, 16, 16)]), arrays_of(graph_of(fn, [(4, 16, 16)]), [(4, 16, 16)]), monkeypatch)
    assert len(made) > 1 and max(len(m.members) for m in made) == pipeline.MEMBERS
