"""Functions under the names of PyTorch's kernels, and rarer ones: values, dtypes, shapes, gradients, errors against torch."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.tensor import to_numpy

torch = pytest.importorskip("torch")
R = np.random.default_rng(6)
A, B, V = R.standard_normal((3, 5)), R.standard_normal((3, 5)), R.standard_normal(5)
SEQ, IMG, GRID = R.standard_normal((7, 2, 4)), R.standard_normal((2, 6, 5, 4)), R.uniform(-1.2, 1.2, (2, 3, 3, 2))
W3, BIAS = R.standard_normal((3, 4, 2)), R.standard_normal(2)
TALL, SQ = R.standard_normal((6, 3)), R.standard_normal((4, 4))
SYM, PD = SQ + SQ.T, SQ @ SQ.T + np.eye(4)


def lengths(m: Any, kind: str) -> dict[str, Any]:
    return {"lengths": m.tensor([2, 0, 1])} if kind == "lengths" else {"offsets": m.tensor([0, 2, 2, 3])}


SMOOTH: list[tuple[str, Any, tuple[np.ndarray, ...]]] = [
    ("constant_pad_nd", lambda m, x: m.constant_pad_nd(x, [1, 2, 0, 1], 0.5), (A,)),
    ("conv_tbc", lambda m, x, w, b: m.conv_tbc(x, w, b, 1), (SEQ, W3, BIAS)),
    ("grid_sampler", lambda m, x, g: m.grid_sampler(x, g, 0, 1, True), (IMG, GRID)),
    ("grid_sampler_2d", lambda m, x, g: m.grid_sampler_2d(x, g, 1, 0, False), (IMG, GRID)),
    ("affine_grid_generator", lambda m, t: m.affine_grid_generator(t, (2, 1, 3, 4), False), (R.standard_normal((2, 2, 3)),)),
    ("native_channel_shuffle", lambda m, x: m.native_channel_shuffle(x.detach(), 3) + 0 * x, (IMG,)),
    ("max_pool1d_with_indices", lambda m, x: m.max_pool1d_with_indices(x, 2)[0], (SEQ,)),
    ("native_layer_norm", lambda m, x, w: m.native_layer_norm(x, (5,), w, None, 1e-5)[0], (A, V)),
    ("native_layer_norm mean", lambda m, x: m.native_layer_norm(x, (5,), None, None, 1e-5)[1] + 0 * x.sum(1, True), (A,)),
    ("native_layer_norm rstd", lambda m, x: m.native_layer_norm(x, (3, 5), None, None, 1e-5)[2] + 0 * x.sum(), (A,)),
    ("native_group_norm", lambda m, x: m.native_group_norm(x, None, None, 2, 6, 20, 3, 1e-5)[0], (IMG,)),
    ("native_group_norm rstd", lambda m, x: m.native_group_norm(x, None, None, 2, 6, 20, 3, 1e-5)[2] + 0 * x.sum(), (IMG,)),
    ("native_dropout", lambda m, x: m.native_dropout(x, 0.5, False)[0], (A,)),
    ("norm_except_dim", lambda m, x: m.norm_except_dim(x, 2, 1), (IMG,)),
    ("norm_except_dim all", lambda m, x: m.norm_except_dim(x, 2, -1), (A,)),
    ("fill", lambda m, x, y: m.fill(x, y[0]), (A, V)), ("fill number", lambda m, x: m.fill(x, 2.5) + 0 * x, (A,)),
    ("feature_dropout", lambda m, x: m.feature_dropout(x, 0.5, False), (IMG,)),
    ("dropout_", lambda m, x: m.dropout_(x * 1, 0.0, True), (A,)),
    ("alpha_dropout_", lambda m, x: m.alpha_dropout_(x * 1, 0.5, False), (A,)),
    ("detach_", lambda m, x: m.detach_(x * 1) + x, (A,)),
    ("conj_physical_", lambda m, x: m.conj_physical_(x * 1), (A,)),
    ("addmv_", lambda m, x, a, v: m.addmv_(x * 1, a, v, beta=2), (A[:, 0], A, V)),
    ("as_strided_scatter", lambda m, x, s: m.as_strided_scatter(x.detach(), s[:2, :2], (2, 2), (4, 3), 2), (A, B)),
    ("polygamma_", lambda m, x: (x * 1).polygamma_(1), (np.abs(A) + 0.5,)),
    ("ormqr", lambda m, x: m.ormqr(*m.geqrf(m.tensor(TALL)), x), (R.standard_normal((6, 2)),)),
    ("ormqr right", lambda m, x: m.ormqr(*m.geqrf(m.tensor(TALL)), x, left=False), (R.standard_normal((2, 6)),)),
    ("ormqr transposed", lambda m, x: m.ormqr(*m.geqrf(m.tensor(TALL)), x, transpose=True), (R.standard_normal((6, 2)),)),
]
SMOOTH += [(f"segment_reduce {how} {by} {start}",
            lambda m, x, a=(how, by, start): m.segment_reduce(x, a[0], initial=a[2], **lengths(m, a[1])), (A,))
           for how in ("sum", "mean", "max", "min", "prod") for by in ("lengths", "offsets") for start in (None, 1.5)
           if (how, start) != ("mean", 1.5)]


@pytest.mark.parametrize(("name", "fn", "arrays"), SMOOTH, ids=[c[0] for c in SMOOTH])
def test_values_and_gradients(name: str, fn: Any, arrays: tuple[np.ndarray, ...]) -> None:
    results = []
    for m in (graphc, torch):
        leaves = [m.tensor(a, requires_grad=True) for a in arrays]
        y = fn(m, *leaves)
        w = m.tensor(np.cos(np.arange(y.numel())).reshape(tuple(y.shape)))
        finite = m.isfinite(y)
        m.where(finite, y * w, m.zeros_like(y)).sum().backward()
        results.append([y, *[m.zeros_like(t) if t.grad is None else t.grad for t in leaves]])
    for ours, theirs in zip(*results):
        assert tuple(ours.shape) == tuple(theirs.shape) and str(ours.dtype) == str(theirs.dtype)
        np.testing.assert_allclose(to_numpy(ours.detach()), theirs.detach().numpy(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kwargs", [{"bins": [3, 4]}, {"bins": 3}, {"bins": [3, 2], "range": [-1.0, 1.0, -2.0, 2.0]},
                                    {"bins": [2, 2], "density": True}])
def test_histograms_of_points(kwargs: dict[str, Any]) -> None:
    x = R.standard_normal((50, 2))
    (h, edges), (want, want_edges) = (m.histogramdd(m.tensor(x), **kwargs) for m in (graphc, torch))
    for a, b in zip([h, *edges], [want, *want_edges]):
        np.testing.assert_allclose(to_numpy(a), b.numpy(), rtol=1e-9)
    weight = np.abs(x[:, 0])
    a, b = (m.histogramdd(m.tensor(x), [3, 3], weight=m.tensor(weight))[0] for m in (graphc, torch))
    np.testing.assert_allclose(to_numpy(a), b.numpy(), rtol=1e-9)
    own = [np.array([-1.0, 0.0, 2.0]), np.array([-2.0, 1.0])]
    a, b = (m.histogramdd(m.tensor(x), [m.tensor(e) for e in own])[0] for m in (graphc, torch))
    np.testing.assert_allclose(to_numpy(a), b.numpy())


@pytest.mark.parametrize("largest", [True, False, None])
@pytest.mark.parametrize("general", [False, True])
def test_some_eigenvalues(largest: bool | None, general: bool) -> None:
    a, b = graphc.tensor(SYM), graphc.tensor(PD) if general else None
    values, vectors = graphc.lobpcg(a, 2, b, largest=largest)
    want = np.sort(np.linalg.eigvals(np.linalg.solve(PD, SYM) if general else SYM).real)
    np.testing.assert_allclose(to_numpy(values), want[:2] if largest is False else want[::-1][:2], rtol=1e-9)
    right = vectors if b is None else b @ vectors
    np.testing.assert_allclose(to_numpy(a @ vectors), to_numpy(right * values), rtol=1e-8, atol=1e-9)
    assert graphc.lobpcg(a)[0].shape == (1,) and graphc.lobpcg(a, X=graphc.ones(4, 3))[1].shape == (4, 3)


def test_random_ones() -> None:
    graphc.manual_seed(5)
    n = graphc.full((4000,), 10.0)
    draws = graphc.binomial(n, graphc.full((4000,), 0.3))
    assert draws.dtype is graphc.float32 and abs(draws.mean().item() - 3) < 0.15 and abs(draws.var().item() - 2.1) < 0.2
    y, mask = graphc.native_dropout(graphc.ones(4000), 0.25, True)
    assert mask.dtype is graphc.bool and abs(mask.float().mean().item() - 0.75) < 0.03
    np.testing.assert_allclose(to_numpy(y), to_numpy(mask) / 0.75, rtol=1e-6)
    dropped = graphc.feature_dropout(graphc.ones(50, 20, 3, 3), 0.5, True)
    assert set(to_numpy(dropped).reshape(1000, 9).sum(1)) == {0.0, 18.0}
    x = graphc.ones(1000)
    assert graphc.dropout_(x, 0.5, True) is x and 300 < int((x == 0).sum()) < 700
    assert graphc.feature_dropout_(x.reshape(100, 10), 1.0, True).sum().item() == 0 == x.sum().item()


def test_rows_of_a_table_in_place() -> None:
    rows = []
    for m in (graphc, torch):
        w = m.tensor(A * 3)
        m.embedding_renorm_(w, m.tensor([0, 2, 2]), 1.0, 2.0)
        rows.append(np.asarray(w))
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-6)
    z = graphc.tensor([1 + 2j, 3 - 1j])
    assert graphc.conj_physical_(z) is z and z.tolist() == [1 - 2j, 3 + 1j]


@pytest.mark.parametrize("call", [
    lambda m: m.binomial(m.ones(2, dtype=m.int64), m.ones(2)), lambda m: m.fill(m.ones(2), m.ones(2)),
    lambda m: m.histogramdd(m.ones(3), [2]), lambda m: m.ormqr(m.ones(4, 2), m.ones(2), m.ones(3, 3)),
    lambda m: m.segment_reduce(m.ones(3), "sum", lengths=m.tensor([1, 1])),
    lambda m: m.segment_reduce(m.ones(3), "median", lengths=m.tensor([3]))])
def test_refusals(call: Any) -> None:
    kinds = []
    for m in (graphc, torch):
        with pytest.raises(Exception) as info:
            call(m)
        kinds.append(info.type)
    assert issubclass(kinds[0], kinds[1]) or issubclass(kinds[0], RuntimeError), kinds


def test_what_a_strided_scatter_keeps_gets_the_gradient() -> None:
    """torch 2.13 gives the input the gradient of what was replaced."""
    x = graphc.tensor(A, requires_grad=True)
    graphc.as_strided_scatter(x, graphc.zeros(2, 2, dtype=graphc.float64), (2, 2), (4, 3), 2).sum().backward()
    want = np.ones(15)
    want[[2, 5, 6, 9]] = 0
    assert x.grad is not None and x.grad.tolist() == want.reshape(3, 5).tolist()


def test_what_tensors_tell() -> None:
    for m in (graphc, torch):
        t = m.arange(24.0).reshape(2, 3, 4)
        assert t.dim_order() == (0, 1, 2) and t.transpose(0, 2).dim_order() == (2, 1, 0) and t.const_data_ptr() == t.data_ptr()
        assert m.empty_permuted((2, 3, 4), (0, 2, 1)).stride() == (12, 1, 3) and not t.is_xpu and t.grad_dtype == t.dtype
        got = m.tensor([1.0, 2.0]).map2_(m.tensor([3.0, 4.0]), m.tensor([5.0, 6.0]), lambda a, b, c: a + b * c)
        assert got.tolist() == [16, 26]
        with pytest.raises(RuntimeError):
            m.empty_permuted((2, 3), (0, 2, 1))
        assert m.from_dlpack(m.to_dlpack(t)).tolist() == t.tolist() if m is torch else m.to_dlpack(t) is not None
