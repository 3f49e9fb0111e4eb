"""Bessel and Airy functions, orthogonal polynomials, windows: against SciPy and torch, with derivatives."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.ops import bessel, polynomials
from graphc.signal import windows
from graphc.tensor import to_numpy

S = pytest.importorskip("scipy.special")
X = np.concatenate([np.linspace(1e-3, 60, 1501), np.logspace(-8, 3, 150)])
BOTH = np.concatenate([-X, X])
ZERO, ONE = np.zeros(1), np.ones(1)
# name, arguments, values, how large values must be for the error to count relative to them
FUNCTIONS: list[tuple[str, np.ndarray, Any, float]] = [
    ("bessel_j0", BOTH, S.j0, 1e-2), ("bessel_j1", BOTH, S.j1, 1e-2), ("bessel_y0", X, S.y0, 1e-2), ("bessel_y1", X, S.y1, 1e-2),
    ("modified_bessel_i0", BOTH[np.abs(BOTH) < 600], S.i0, 0), ("modified_bessel_i1", BOTH[np.abs(BOTH) < 600], S.i1, 0),
    ("modified_bessel_k0", X, S.k0, 0), ("modified_bessel_k1", X, S.k1, 0),
    ("scaled_modified_bessel_k0", X, S.k0e, 0), ("scaled_modified_bessel_k1", X, S.k1e, 0),
    ("airy_ai", np.linspace(-60, 30, 2001), lambda x: S.airy(x)[0], 1e-2),
    ("spherical_bessel_j0", BOTH, lambda x: S.spherical_jn(0, np.abs(x)), 1e-2),
]
IDS = [f[0] for f in FUNCTIONS]


@pytest.mark.parametrize("case", FUNCTIONS, ids=IDS)
def test_values(case: Any) -> None:
    name, x, want, floor = case
    y, w = to_numpy(getattr(graphc.special, name)(graphc.tensor(x))), want(x)
    if name == "airy_ai":
        floor = np.where(x < 0, floor, 0)
    assert (np.abs(y - w) / np.maximum(np.maximum(np.abs(w), floor), 1e-300)).max() < 5e-12
    half = getattr(graphc.special, name)(graphc.tensor(x[:5], dtype=graphc.float32))
    assert half.dtype is graphc.float32


@pytest.mark.parametrize("case", FUNCTIONS, ids=IDS)
def test_derivatives(case: Any) -> None:
    """First and second, by central differences of the function and of the first."""
    f = getattr(graphc.special, case[0])
    points = np.array([0.3, 1.7, 4.9, 5.2, 11.0, 26.0]) * (-1 if case[0] == "airy_ai" else 1)
    x, h = graphc.tensor(points, requires_grad=True), 1e-5
    (first,) = graphc.autograd.grad(f(x).sum(), x, create_graph=True)
    (second,) = graphc.autograd.grad(first.sum(), x)
    around = [graphc.tensor(points + s, requires_grad=True) for s in (-h, h)]
    values = [to_numpy(f(a).detach()) for a in around]
    slopes = [to_numpy(graphc.autograd.grad(f(a).sum(), a)[0]) for a in around]
    for got, (low, high) in ((first, values), (second, slopes)):
        scale = np.maximum(np.abs(high), 1e-3)
        assert (np.abs(to_numpy(got.detach()) - (high - low) / (2 * h)) / scale).max() < 2e-5


def test_ends() -> None:
    def at(name: str) -> list[float]:
        return to_numpy(getattr(graphc.special, name)(graphc.tensor([0.0, np.inf, np.nan], dtype=graphc.float64))).tolist()

    for name, zero in (("bessel_j0", 1.0), ("bessel_j1", 0.0), ("bessel_y0", -np.inf), ("bessel_y1", -np.inf),
                       ("modified_bessel_k0", np.inf), ("scaled_modified_bessel_k1", np.inf), ("spherical_bessel_j0", 1.0)):
        assert at(name)[:2] == [zero, 0.0] and np.isnan(at(name)[2]), name
    below = graphc.special.bessel_y0(graphc.tensor([-1.0]))
    assert bool(below.isnan()) and bool(graphc.special.modified_bessel_k0(graphc.tensor([-1.0])).isnan())
    out = graphc.zeros(1)
    assert graphc.special.bessel_j0(graphc.zeros(1), out=out) is out and out.tolist() == [1.0]
    assert set(bessel.__dict__) >= {f[0] for f in FUNCTIONS}


POLYNOMIALS = {
    "chebyshev_polynomial_t": S.eval_chebyt, "chebyshev_polynomial_u": S.eval_chebyu, "hermite_polynomial_h": S.eval_hermite,
    "hermite_polynomial_he": S.eval_hermitenorm, "laguerre_polynomial_l": S.eval_laguerre, "legendre_polynomial_p": S.eval_legendre,
    "shifted_chebyshev_polynomial_t": S.eval_sh_chebyt, "shifted_chebyshev_polynomial_u": S.eval_sh_chebyu,
    "chebyshev_polynomial_v": lambda n, x: S.eval_chebyu(n, x) - S.eval_chebyu(n - 1, x) if n else np.ones_like(x),
    "chebyshev_polynomial_w": lambda n, x: S.eval_chebyu(n, x) + S.eval_chebyu(n - 1, x) if n else np.ones_like(x),
}
POINTS = np.array([-1.0, -0.6, 0.0, 0.3, 1.0, 1.4])


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_polynomials(name: str) -> None:
    f, want = getattr(graphc.special, name), POLYNOMIALS[name]
    for n in (0, 1, 2, 3, 7, 12):
        np.testing.assert_allclose(to_numpy(f(graphc.tensor(POINTS), n)), want(n, POINTS), rtol=1e-10, atol=1e-10)
    degrees = np.array([[0], [3], [5], [-2]])
    table = to_numpy(f(graphc.tensor(POINTS), graphc.tensor(degrees)))
    np.testing.assert_allclose(table[:3], [want(n, POINTS) for n in (0, 3, 5)], rtol=1e-10, atol=1e-10)
    assert table.shape == (4, 6) and not table[3].any()
    x = graphc.tensor(POINTS, requires_grad=True)
    f(x, 5).sum().backward()
    h = 1e-6
    np.testing.assert_allclose(to_numpy(x.grad), (want(5, POINTS + h) - want(5, POINTS - h)) / (2 * h), rtol=1e-4, atol=1e-4)


def test_polynomials_follow_torch() -> None:
    torch = pytest.importorskip("torch")
    for name in [n for n in vars(polynomials) if "polynomial_" in n and not n.startswith("_")]:
        for n in (-1, 0, 1, 4):
            args = (POINTS.astype(np.float32), n)
            ours, theirs = (getattr(m.special, name)(m.tensor(args[0]), args[1]) for m in (graphc, torch))
            assert str(ours.dtype) == str(theirs.dtype) and tuple(ours.shape) == tuple(theirs.shape)
            np.testing.assert_allclose(to_numpy(ours), theirs.numpy(), rtol=1e-5, atol=1e-5)
        assert getattr(graphc.special, name)(2, graphc.tensor(2.0)).item() == getattr(torch.special, name)(
            2, torch.tensor(2.0)).item()


WINDOWS: list[tuple[str, dict[str, Any]]] = [
    ("bartlett", {}), ("blackman", {}), ("cosine", {}), ("exponential", {"tau": 2.5}), ("gaussian", {"std": 1.7}),
    ("general_cosine", {"a": [0.4, 0.3, 0.2, 0.1]}), ("general_hamming", {"alpha": 0.6}), ("hamming", {}), ("hann", {}),
    ("kaiser", {"beta": 6.0}), ("kaiser", {}), ("nuttall", {})]


@pytest.mark.parametrize(("name", "kwargs"), WINDOWS)
def test_windows(name: str, kwargs: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    theirs = getattr(torch.signal.windows, name)
    for m in (0, 1, 2, 7, 12):
        for sym in (True, False):
            got = getattr(windows, name)(m, sym=sym, dtype=graphc.float64, **kwargs)
            np.testing.assert_allclose(to_numpy(got), theirs(m, sym=sym, dtype=torch.float64, **kwargs).numpy(), atol=1e-12)
    leaf = getattr(windows, name)(5, requires_grad=True, **kwargs)
    assert leaf.dtype is graphc.float32 and leaf.requires_grad


@pytest.mark.parametrize("call", [
    lambda w, m: w.hann(-1), lambda w, m: w.hann(4, dtype=m.int64), lambda w, m: w.gaussian(4, std=0.0),
    lambda w, m: w.exponential(4, tau=-1.0), lambda w, m: w.exponential(4, center=1.0), lambda w, m: w.kaiser(4, beta=-1.0),
    lambda w, m: w.general_cosine(4, a=3), lambda w, m: w.general_cosine(4, a=[]), lambda w, m: w.hann(4, dtype=m.float16)])
def test_windows_refuse(call: Any) -> None:
    torch = pytest.importorskip("torch")
    kinds = []
    for w, m in ((windows, graphc), (torch.signal.windows, torch)):
        with pytest.raises(Exception) as info:
            call(w, m)
        kinds.append(info.type)
    assert kinds[0] is kinds[1]


def test_exponential_window_off_its_middle() -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = (m.signal.windows.exponential(6, center=1.5, sym=False) for m in (graphc, torch))
    np.testing.assert_allclose(to_numpy(ours), theirs.numpy(), rtol=1e-6)
