"""Special functions against mpmath (relative error in ulp), and against scipy and PyTorch at the edges."""
from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc.ir.prims import special

# name, interval, allowed relative error
ACCURACY = [("erf", -6, 6, 1e-15), ("erf", -1e-3, 1e-3, 1e-15), ("erfc", -3, 3, 1.5e-15), ("erfc", 0, 26, 1.5e-15),
            ("erfinv", -1, 1, 1e-15), ("erfinv", -1e-5, 1e-5, 1e-15), ("erfinv", 0.9999, 1, 1e-15),
            ("lgamma", 0, 30, 1e-15), ("lgamma", 0.9, 1.1, 1e-15), ("lgamma", 1.9, 2.1, 1e-15), ("lgamma", 50, 1e8, 1e-15),
            ("digamma", 0, 30, 1e-15), ("digamma", 1.46, 1.463, 1e-15), ("digamma", 30, 1e6, 1e-15),
            ("trigamma", 0, 30, 1.5e-15), ("trigamma", -10, 0, 1.5e-15)]


@pytest.mark.parametrize("name, lo, hi, tol", ACCURACY)
def test_accuracy(name: str, lo: float, hi: float, tol: float) -> None:
    mp = pytest.importorskip("mpmath")
    exact = {"erf": mp.erf, "erfc": mp.erfc, "erfinv": mp.erfinv, "digamma": mp.digamma,
             "lgamma": lambda x: mp.log(abs(mp.gamma(x))), "trigamma": lambda x: mp.polygamma(1, x)}[name]
    x = np.random.default_rng(5).uniform(lo, hi, 60)
    with mp.workdps(40):
        want = [exact(mp.mpf(float(v))) for v in x]
        errors = [abs(float((mp.mpf(float(g)) - w) / w)) for g, w in zip(getattr(special, name)(x), want)]
    assert max(errors) < tol, x[int(np.argmax(errors))]


EDGES = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 2.0, -2.0, -3.0, 3.0, 0.5, -0.5, 1.5, 10.0, 1e-300, -1e-300, 1e300,
                  -1e300, 5e-324, 26.0, 28.0, 1e-20, -7.25])


@pytest.mark.parametrize("name", ["erf", "erfc", "erfinv", "lgamma", "digamma", "trigamma"])
def test_edges_against_scipy(name: str) -> None:
    sp = pytest.importorskip("scipy.special")
    theirs = {"lgamma": sp.gammaln, "trigamma": lambda x: sp.polygamma(1, x)}.get(name) or getattr(sp, name)
    x = EDGES
    if name in ("lgamma", "trigamma"):  # at -inf, -1e300 and denormals PyTorch's answers count
        x = x[(np.isnan(x) | (x > -1e299)) & (x != 5e-324)]
    np.testing.assert_allclose(getattr(special, name)(x), theirs(x), rtol=2e-14, atol=1e-320)


@pytest.mark.parametrize("name", ["erf", "erfc", "erfinv", "lgamma", "digamma"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_edges_against_torch(name: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    x = np.clip(EDGES, -3e38, 3e38).astype(dtype) if dtype == "float32" else EDGES
    ours = getattr(graphc, name)(graphc.tensor(x))
    theirs = getattr(torch, name)(torch.tensor(x))
    assert str(ours.dtype) == str(theirs.dtype)
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5 if dtype == "float32" else 2e-14, atol=1e-40)


@pytest.mark.parametrize("name", ["erf", "erfc", "erfinv", "lgamma", "digamma", "trigamma"])
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (2, 3)])
def test_shape_and_dtype_are_kept(name: str, shape: tuple[int, ...]) -> None:
    for dt in (np.float32, np.float64, np.float16):
        y = getattr(special, name)(np.full(shape, 0.5, dt))
        assert y.shape == shape and y.dtype == dt


def test_signed_zero() -> None:
    assert np.signbit(special.erf(np.array(-0.0))) and np.signbit(special.erfinv(np.array(-0.0)))
    assert special.digamma(np.array(0.0)) == -np.inf and special.digamma(np.array(-0.0)) == np.inf


def test_erfinv_undoes_erf() -> None:
    y = np.concatenate([1 - 0.5 ** np.arange(1, 53), [2.0**-40, -0.3]])
    x = special.erfinv(y)
    np.testing.assert_allclose(special.erfc(x), 1 - y, rtol=3e-14)


def test_gradients() -> None:
    torch = pytest.importorskip("torch")
    for name, lo, hi in [("erf", -2, 2), ("erfc", -2, 2), ("erfinv", -0.9, 0.9), ("lgamma", 0.2, 5), ("digamma", 0.2, 5)]:
        arr = np.random.default_rng(0).uniform(lo, hi, 20)
        a, b = graphc.tensor(arr, requires_grad=True), torch.tensor(arr, requires_grad=True)
        getattr(graphc, name)(a).sum().backward()
        getattr(torch, name)(b).sum().backward()
        tol = 1e-8 if name == "digamma" else 1e-12  # PyTorch's trigamma has 9 digits
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=tol, err_msg=name)
