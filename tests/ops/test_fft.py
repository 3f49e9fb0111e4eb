"""Fourier transforms, short-time transforms, windows and complex parts against PyTorch: values, dtypes, shapes, first and
second derivatives, errors."""
from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.tensor import to_numpy

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore")


def rand(*shape: int, dtype: str = "float64") -> np.ndarray:
    r = np.random.default_rng(zlib.crc32(str(shape).encode()))
    x = r.standard_normal(shape)
    return (x + 1j * r.standard_normal(shape) if dtype.startswith("complex") else x).astype(dtype)


def parts(m: Any, t: Any) -> list[Any]:
    return [t.real, t.imag] if t.dtype.is_complex else [t]


def run(m: Any, fn: Any, arrays: Any, order: int) -> list[np.ndarray]:
    """Value, gradients of a nonlinear function of it, and gradients of a weighted sum of those."""
    ins = [m.tensor(a).requires_grad_(order > 0) for a in arrays]
    found = [fn(m, *ins)]
    r = np.random.default_rng(7)

    def weighted(ts: Any) -> Any:
        total: Any = 0
        for t in ts:
            for p in parts(m, t):
                total = total + (p.sin() * m.tensor(r.standard_normal(tuple(t.shape))).to(p.dtype)).sum()
        return total

    if order > 0:
        gs = m.autograd.grad(weighted(found[:1]), ins, create_graph=order > 1)
        found += gs
        if order > 1:
            found += m.autograd.grad(weighted(gs), ins)
    return [to_numpy(t.detach()) if m is graphc else t.detach().resolve_conj().resolve_neg().numpy(force=True) for t in found]


def compare(fn: Any, arrays: Any, order: int = 2, tol: float = 1e-9) -> None:
    ours, theirs = run(graphc, fn, arrays, order), run(torch, fn, arrays, order)
    assert len(ours) == len(theirs)
    for k, (a, b) in enumerate(zip(ours, theirs)):
        assert a.dtype == b.dtype and a.shape == b.shape, k
        np.testing.assert_allclose(a, b, rtol=tol, atol=tol * max(1.0, float(np.abs(b).max(initial=0))), err_msg=str(k))


# ---------------------------------------------------------------------------------------------------------- transforms
ONE = [{}, {"n": 4}, {"n": 7}, {"dim": 0}, {"dim": 0, "n": 8, "norm": "ortho"}, {"norm": "forward"}, {"norm": "backward"}]
MANY: list[dict[str, Any]] = [{}, {"s": (4,), "dim": (1,)}, {"s": (7, 3)}, {"dim": (2, 0)}, {"dim": (0, 1), "norm": "ortho"},
                              {"s": (-1, 4, 5), "norm": "forward"}, {"s": (2, 6), "dim": (2, 1)}]
REAL_ONLY = {"rfft", "rfftn", "rfft2", "ihfft", "ihfftn", "ihfft2"}
TRANSFORMS = ([(n, kw) for n in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft") for kw in ONE]
              + [(n, kw) for n in ("fftn", "ifftn", "rfftn", "irfftn", "hfftn", "ihfftn") for kw in MANY]
              + [(n, kw) for n in ("fft2", "ifft2", "rfft2", "irfft2", "hfft2", "ihfft2")
                 for kw in ({}, {"s": (5, 4)}, {"dim": (0, 2), "norm": "ortho"}, {"norm": "forward"})])


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("name, kw", TRANSFORMS)
def test_transform(name: str, kw: dict[str, Any], dtype: str) -> None:
    if dtype.startswith("complex") and name in REAL_ONLY:
        with pytest.raises(RuntimeError, match="but (got|found)"):
            getattr(graphc.fft, name)(graphc.tensor(rand(3, 5, 6, dtype=dtype)), **kw)
        return
    x = rand(5, 6, dtype=dtype) if name.strip("ihr") == "fft" else rand(3, 5, 6, dtype=dtype)
    compare(lambda m, t: getattr(m.fft, name)(t, **kw), [x])


@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft", "fftn", "ifftn", "rfftn", "irfftn"])
@pytest.mark.parametrize("dtype", ["float32", "complex64", "int64", "bool", "uint8"])
def test_dtypes(name: str, dtype: str) -> None:
    if dtype == "complex64" and name in REAL_ONLY:
        return
    x = rand(3, 6, dtype="complex64") if dtype == "complex64" else (3 * rand(3, 6)).astype(dtype)
    compare(lambda m, t: getattr(m.fft, name)(t), [x], 0, 1e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_small_sizes_and_odd_inverses(n: int) -> None:
    compare(lambda m, t: m.fft.rfft(t), [rand(2, n)])
    compare(lambda m, t: m.fft.irfft(t, n), [rand(2, n // 2 + 1, dtype="complex128")])
    compare(lambda m, t: m.fft.irfftn(t, (3, n)), [rand(3, n // 2 + 1, dtype="complex128")])
    x = rand(3, n)
    np.testing.assert_allclose(to_numpy(graphc.fft.irfft(graphc.fft.rfft(graphc.tensor(x)), n)), x, atol=1e-12)


def test_long_and_strided() -> None:
    x = rand(6000, 2)
    ours = graphc.fft.rfft(graphc.tensor(x)[::2, 1])
    np.testing.assert_allclose(to_numpy(ours), np.fft.rfft(x[::2, 1]), atol=1e-9)
    assert ours.shape == (1501,)


@pytest.mark.parametrize("n", [0, 1, 2, 5, 8])
def test_frequencies_and_shifts(n: int) -> None:
    for name in ("fftfreq", "rfftfreq"):
        for kw in ({}, {"d": 0.25}, {"dtype": "float64"}):
            ours = getattr(graphc.fft, name)(n, **{k: getattr(graphc, v) if k == "dtype" else v for k, v in kw.items()})
            if n == 0 and name == "rfftfreq":  # PyTorch divides by zero here
                continue
            theirs = getattr(torch.fft, name)(n, **{k: getattr(torch, v) if k == "dtype" else v for k, v in kw.items()})
            assert str(ours.dtype) == str(theirs.dtype) and tuple(ours.shape) == tuple(theirs.shape)
            np.testing.assert_allclose(to_numpy(ours), theirs.numpy(), rtol=1e-6)
    if n:
        for dim in (None, 0, (0, 1), -1):
            compare(lambda m, t, dim=dim: m.fft.fftshift(t, dim), [rand(n, 3)])
            compare(lambda m, t, dim=dim: m.fft.ifftshift(t, dim), [rand(n, 3)])
    assert graphc.fft.fftfreq(4, requires_grad=True).requires_grad


def test_convolution_theorem_gradient() -> None:
    compare(lambda m, a, b: m.fft.irfft(m.fft.rfft(a, 8) * m.fft.rfft(b, 8), 8), [rand(5), rand(4)])


def test_compiled_transform() -> None:
    @graphc.compile
    def f(x: Any) -> Any:
        return graphc.fft.fft2(x).abs().sum()

    for k in range(3):
        x = rand(8, 8) + k
        assert f(graphc.tensor(x)).item() == pytest.approx(np.abs(np.fft.fft2(x)).sum())


# ------------------------------------------------------------------------------------------- windows, short-time transforms
@pytest.mark.parametrize("name", ["hann", "hamming", "blackman", "bartlett", "kaiser"])
@pytest.mark.parametrize("periodic", [True, False])
def test_windows(name: str, periodic: bool) -> None:
    for n in (0, 1, 2, 3, 8, 33):
        for dt in ("float32", "float64"):
            ours = getattr(graphc, f"{name}_window")(n, periodic, dtype=getattr(graphc, dt))
            theirs = getattr(torch, f"{name}_window")(n, periodic, dtype=getattr(torch, dt))
            assert str(ours.dtype) == str(theirs.dtype) and tuple(ours.shape) == tuple(theirs.shape)
            np.testing.assert_allclose(to_numpy(ours), theirs.numpy(), atol=1e-6 if dt == "float32" else 1e-12)
    np.testing.assert_allclose(to_numpy(graphc.hamming_window(5, True, 0.5, 0.3)), torch.hamming_window(5, True, 0.5, 0.3).numpy(),
                               atol=1e-6)
    np.testing.assert_allclose(to_numpy(graphc.kaiser_window(5, True, 3.0)), torch.kaiser_window(5, True, 3.0).numpy(), atol=1e-6)


STFT: list[dict[str, Any]] = [{"n_fft": 8}, {"n_fft": 8, "hop_length": 3}, {"n_fft": 8, "win_length": 6},
                              {"n_fft": 8, "center": False}, {"n_fft": 7, "normalized": True},
                              {"n_fft": 8, "onesided": False}, {"n_fft": 8, "pad_mode": "constant"}]


@pytest.mark.parametrize("kw", STFT)
@pytest.mark.parametrize("shape", [(24,), (2, 24)])
def test_stft(kw: dict[str, Any], shape: tuple[int, ...]) -> None:
    w = np.hanning(kw.get("win_length", kw["n_fft"]) + 2)[1:-1]
    compare(lambda m, x, w: m.stft(x, window=w, return_complex=True, **kw), [rand(*shape), w])
    compare(lambda m, x: m.stft(x, return_complex=False, **kw), [rand(*shape)])
    if "onesided" not in kw:
        compare(lambda m, x: m.stft(x, **kw), [rand(*shape, dtype="complex128")])


@pytest.mark.parametrize("kw", STFT)
@pytest.mark.parametrize("length", [None, 20, 30])
def test_istft(kw: dict[str, Any], length: int | None) -> None:
    kw = {k: v for k, v in kw.items() if k != "pad_mode"}
    w = np.hanning(kw.get("win_length", kw["n_fft"]) + 2)[1:-1]
    bins = kw["n_fft"] if kw.get("onesided") is False else kw["n_fft"] // 2 + 1
    if length and kw.get("center") is False:
        length -= 10
    z = rand(2, bins, 9, dtype="complex128")
    if length and "win_length" in kw:  # no window reaches the end of the signal
        for m in (graphc, torch):
            with pytest.raises(RuntimeError, match="window overlap add min"):
                m.istft(m.tensor(z), window=m.tensor(w), length=length, **kw)
        return
    compare(lambda m, z, w: m.istft(z, window=w, length=length, **kw), [z, w])


def test_stft_is_inverted() -> None:
    x = graphc.tensor(rand(2, 100))
    w = graphc.hann_window(16, dtype=graphc.float64)
    for kw in ({}, {"normalized": True}, {"onesided": False}):
        z = graphc.stft(x, 16, 4, window=w, return_complex=True, **kw)
        np.testing.assert_allclose(to_numpy(graphc.istft(z, 16, 4, window=w, length=100, **kw)), to_numpy(x), atol=1e-12)
    z = graphc.stft(x.to(graphc.complex128), 16, 4, window=w)
    back = graphc.istft(z, 16, 4, window=w, length=100, return_complex=True, onesided=False)
    np.testing.assert_allclose(to_numpy(back), to_numpy(x), atol=1e-12)


# --------------------------------------------------------------------------------------------------------- complex numbers
COMPLEX: list[tuple[str, Any]] = [
    ("real", lambda m, z: z.real), ("imag", lambda m, z: z.imag), ("conj", lambda m, z: z.conj() * 1),
    ("abs", lambda m, z: z.abs()), ("builtin abs", lambda m, z: abs(z)), ("angle", lambda m, z: z.angle()),
    ("sgn", lambda m, z: z.sgn()), ("view_as_real", lambda m, z: m.view_as_real(z)),
    ("view_as_complex", lambda m, z: m.view_as_complex(m.view_as_real(z) * 2)), ("mH", lambda m, z: z.mH * 1),
    ("H", lambda m, z: z.H * 1), ("adjoint", lambda m, z: z.adjoint() * 1), ("T", lambda m, z: z.T),
    ("conj_physical", lambda m, z: m.conj_physical(z)), ("complex", lambda m, z: m.complex(z.imag, z.real * 2)),
    ("polar", lambda m, z: m.polar(z.abs(), z.angle() * 2)), ("neg", lambda m, z: -z), ("add", lambda m, z: z + 2j),
    ("sub", lambda m, z: 1 - z), ("mul", lambda m, z: z * (1 - 2j)), ("square", lambda m, z: z * z), ("div", lambda m, z: (1 + 1j) / z),
    ("div real", lambda m, z: z / z.abs()), ("pow", lambda m, z: z ** 3), ("pow complex", lambda m, z: z ** (1.5 + 0.5j)),
    ("sqrt", lambda m, z: z.sqrt()), ("rsqrt", lambda m, z: z.rsqrt()), ("reciprocal", lambda m, z: z.reciprocal()),
    ("exp", lambda m, z: z.exp()), ("exp2", lambda m, z: z.exp2()), ("expm1", lambda m, z: z.expm1()), ("log", lambda m, z: z.log()),
    ("log2", lambda m, z: z.log2()), ("log10", lambda m, z: z.log10()), ("log1p", lambda m, z: z.log1p()),
    ("sin", lambda m, z: z.sin()), ("cos", lambda m, z: z.cos()), ("tan", lambda m, z: z.tan()), ("sinh", lambda m, z: z.sinh()),
    ("cosh", lambda m, z: z.cosh()), ("tanh", lambda m, z: z.tanh()), ("asin", lambda m, z: z.asin()),
    ("acos", lambda m, z: z.acos()), ("atan", lambda m, z: z.atan()), ("asinh", lambda m, z: z.asinh()),
    ("acosh", lambda m, z: z.acosh()), ("atanh", lambda m, z: z.atanh()), ("sum", lambda m, z: z.sum(0)), ("mean", lambda m, z: z.mean()),
    ("prod", lambda m, z: z.prod(1)), ("cumsum", lambda m, z: z.cumsum(1)), ("cumprod", lambda m, z: z.cumprod(1)),
    ("matmul", lambda m, z: z @ z), ("einsum", lambda m, z: m.einsum("ij,kj->ik", z, z.conj())), ("index", lambda m, z: z[1:, ::2]),
    ("where", lambda m, z: m.where(z.real > 0, z, z * 2)), ("cat", lambda m, z: m.cat([z, z.conj()])),
    ("to complex", lambda m, z: z.real.to(m.complex128) * 1j), ("sigmoid", lambda m, z: z.sigmoid()), ("square()", lambda m, z: z.square()),
    ("broadcast", lambda m, z: z * z[0] + z[:, :1]), ("real times complex", lambda m, z: z.real * z), ("dot", lambda m, z: m.dot(z[0], z[1])),
    ("vdot", lambda m, z: m.vdot(z[0], z[1])), ("norm", lambda m, z: z.norm()), ("trace", lambda m, z: z.trace()),
    ("norm 3", lambda m, z: m.norm(z, 3, dim=1)), ("norm nuc", lambda m, z: m.norm(z, "nuc")), ("dist", lambda m, z: m.dist(z, z.T)),
    ("var", lambda m, z: z.var()), ("std", lambda m, z: z.std(0)), ("var_mean", lambda m, z: m.var_mean(z, 1)[0]),
    ("std_mean", lambda m, z: m.std_mean(z, 1, keepdim=True)[0]), ("mean of std_mean", lambda m, z: m.std_mean(z)[1]),
    ("float_power", lambda m, z: m.float_power(z, 2.5)), ("linear", lambda m, z: m.nn.functional.linear(z, z * 2, z[0])),
    ("cumsum", lambda m, z: z.cumsum(0)), ("flip", lambda m, z: z.flip(0)),
    ("gather", lambda m, z: z.gather(1, m.tensor([[2], [0], [1]]))), ("pow of real base", lambda m, z: 2.0 ** z),
    ("pow of parts", lambda m, z: z ** z.conj()),
]


@pytest.mark.parametrize("name, fn", COMPLEX, ids=[name for name, _ in COMPLEX])
def test_complex_numbers(name: str, fn: Any) -> None:
    compare(fn, [rand(3, 3, dtype="complex128")], 2, 1e-8)
    compare(fn, [rand(3, 3, dtype="complex128")], 1, 1e-8)


@pytest.mark.parametrize("name", """relu max min argmax sort floor round amax cummax erf digamma maximum lt ge clamp softmax
gelu sign median topk""".split())
def test_what_needs_an_order_refuses_complex_numbers(name: str) -> None:
    extra = {"maximum": 1, "lt": 1, "ge": 1, "cummax": 0, "clamp": 0, "softmax": 0, "topk": 1}
    for m in (graphc, torch):
        z = m.tensor(rand(3, 3, dtype="complex64"))
        fn = m.nn.functional.gelu if name == "gelu" else getattr(m, name)
        args = (z, z) if name in ("maximum", "lt", "ge") else (z, extra[name]) if name in extra else (z,)
        with pytest.raises(RuntimeError):
            fn(*args)


def test_closeness() -> None:
    a = np.array([1 + 1j, 2, complex(np.nan, 0), complex(np.inf, 1), complex(np.inf, 1), 1e-9j])
    b = np.array([1 + 1.000001j, 2.1, complex(np.nan, 0), complex(np.inf, 1), complex(np.inf, 2), 0])
    for nan in (False, True):
        ours = graphc.isclose(graphc.tensor(a), graphc.tensor(b), equal_nan=nan)
        np.testing.assert_array_equal(to_numpy(ours), torch.isclose(torch.tensor(a), torch.tensor(b), equal_nan=nan).numpy())
    assert graphc.allclose(graphc.tensor(a[:1]), graphc.tensor(b[:1])) and not graphc.allclose(graphc.tensor(a), graphc.tensor(b))


def test_parts_of_real_tensors() -> None:
    x = np.array([1.5, -2.0, 0.0, np.nan, np.inf])
    for name in ("real", "conj", "abs", "angle", "sgn", "conj_physical", "isreal", "resolve_conj"):
        ours, theirs = getattr(graphc, name)(graphc.tensor(x)), getattr(torch, name)(torch.tensor(x))
        assert str(ours.dtype) == str(theirs.dtype), name
        np.testing.assert_array_equal(to_numpy(ours), theirs.numpy(), err_msg=name)
    t = graphc.tensor(x)
    assert t.real is t and t.conj() is t and not t.is_conj()
    assert graphc.angle(graphc.tensor([1, -1])).tolist() == torch.angle(torch.tensor([1, -1])).tolist()


def test_edges_of_complex_numbers() -> None:
    z = np.array([0, -0.0 + 0j, 1j, -1, complex(np.inf, 1), complex(0, np.nan), complex(-1, -0.0)])
    for name in ("abs", "angle", "real", "imag", "isreal"):
        np.testing.assert_array_equal(to_numpy(getattr(graphc, name)(graphc.tensor(z))), getattr(torch, name)(torch.tensor(z)).numpy(),
                                      err_msg=name)
    for name in ("abs", "angle", "sgn"):  # derivatives at 0 are 0
        t, u = graphc.zeros(2, dtype=graphc.complex128).requires_grad_(), torch.zeros(2, dtype=torch.complex128).requires_grad_()
        for m, x in ((graphc, t), (torch, u)):
            y = getattr(m, name)(x)
            (y.real if y.dtype.is_complex else y).sum().backward()
        np.testing.assert_array_equal(to_numpy(t.grad), u.grad.numpy(), err_msg=name)


def test_large_complex_programs() -> None:
    z = rand(80, 80, dtype="complex64")
    t = graphc.tensor(z)
    got = ((t * t.conj()).real.sqrt() - t.abs()).abs().max().item()
    assert got < 1e-5
    np.testing.assert_allclose(to_numpy((t.exp() + 1j) * t[::2].mean()), (np.exp(z) + 1j) * z[::2].mean(), rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------------------------------------------------------- errors
# PyTorch's message differs: it lists all arguments, or comes from inside.
OTHER_TEXT = {"not tensor", "stft scalar", "stft pad", "istft 1d", "window int"}
ERRORS: list[tuple[str, Any]] = [
    ("norm name", lambda m: m.fft.fft(m.ones(3), norm="x")),
    ("n zero", lambda m: m.fft.fft(m.ones(3), n=0)),
    ("n negative", lambda m: m.fft.fft(m.ones(3), n=-2)),
    ("n minus one", lambda m: m.fft.fft(m.ones(3), n=-1)),
    ("scalar", lambda m: m.fft.fft(m.tensor(1.0))),
    ("dim", lambda m: m.fft.fft(m.ones(3), dim=2)),
    ("rfft of complex", lambda m: m.fft.rfft(m.ones(3, dtype=m.complex64))),
    ("half", lambda m: m.fft.fft(m.ones(4, dtype=m.float16))),
    ("bfloat16", lambda m: m.fft.fft(m.ones(4, dtype=m.bfloat16))),
    ("half rfft", lambda m: m.fft.rfft(m.ones(4, dtype=m.float16))),
    ("irfft of one", lambda m: m.fft.irfft(m.ones(1))),
    ("irfft of none", lambda m: m.fft.irfft(m.ones(0))),
    ("fft of none", lambda m: m.fft.fft(m.ones(0))),
    ("irfft n zero", lambda m: m.fft.irfft(m.ones(3), n=0)),
    ("rfft n zero", lambda m: m.fft.rfft(m.ones(3), n=0)),
    ("fftn dims twice", lambda m: m.fft.fftn(m.ones(2, 3), dim=(0, 0))),
    ("fftn s too long", lambda m: m.fft.fftn(m.ones(2, 3), s=(1, 2, 3))),
    ("fftn s and dim", lambda m: m.fft.fftn(m.ones(2, 3), s=(1, 2), dim=(0,))),
    ("fftn s zero", lambda m: m.fft.fftn(m.ones(2, 3), s=(0, 2))),
    ("fftn s negative", lambda m: m.fft.fftn(m.ones(2, 3), s=(-3, 2))),
    ("fft2 of 1-D", lambda m: m.fft.fft2(m.ones(3))),
    ("rfft2 of 1-D", lambda m: m.fft.rfft2(m.ones(3))),
    ("rfftn no dims", lambda m: m.fft.rfftn(m.ones(2, 3), dim=())),
    ("irfftn no dims", lambda m: m.fft.irfftn(m.ones(2, 3), dim=())),
    ("hfftn no dims", lambda m: m.fft.hfftn(m.ones(2, 3), dim=())),
    ("ihfftn no dims", lambda m: m.fft.ihfftn(m.ones(2, 3), dim=())),
    ("rfftn of complex", lambda m: m.fft.rfftn(m.ones(2, 3, dtype=m.complex64))),
    ("rfftn of scalar", lambda m: m.fft.rfftn(m.tensor(1.0))),
    ("fftn dim", lambda m: m.fft.fftn(m.ones(2, 3), dim=(0, 5))),
    ("fftn norm", lambda m: m.fft.fftn(m.ones(2, 3), norm="x")),
    ("fftshift dim", lambda m: m.fft.fftshift(m.ones(3), dim=4)),
    ("fftfreq dtype", lambda m: m.fft.fftfreq(4, dtype=m.int64)),
    ("fftfreq negative", lambda m: m.fft.fftfreq(-1)),
    ("ihfft of complex", lambda m: m.fft.ihfft(m.ones(3, dtype=m.complex64))),
    ("ihfftn of complex", lambda m: m.fft.ihfftn(m.ones(2, 2, dtype=m.complex64))),
    ("ihfft2 of 1-D", lambda m: m.fft.ihfft2(m.ones(3))),
    ("out dtype", lambda m: m.fft.fft(m.ones(3), out=m.ones(3))),
    ("empty dim", lambda m: m.fft.fft(m.ones(0, 3), dim=0)),
    ("not tensor", lambda m: m.fft.fft([1.0])),
    ("stft scalar", lambda m: m.stft(m.tensor(1.0), 4, return_complex=True)),
    ("stft n_fft", lambda m: m.stft(m.ones(10), 20, center=False, return_complex=True)),
    ("stft n_fft0", lambda m: m.stft(m.ones(10), 0, center=False, return_complex=True)),
    ("stft hop", lambda m: m.stft(m.ones(10), 4, 0, center=False, return_complex=True)),
    ("stft win_length", lambda m: m.stft(m.ones(10), 4, 1, 5, center=False, return_complex=True)),
    ("stft window", lambda m: m.stft(m.ones(10), 4, 1, window=m.ones(3), center=False, return_complex=True)),
    ("stft return_complex", lambda m: m.stft(m.ones(10), 4)),
    ("stft onesided complex", lambda m: m.stft(m.ones(10, dtype=m.complex64), 4, onesided=True, return_complex=True)),
    ("stft int", lambda m: m.stft(m.ones(10, dtype=m.int64), 4, return_complex=True)),
    ("stft 3d", lambda m: m.stft(m.ones(1, 2, 10), 4, return_complex=True)),
    ("stft pad", lambda m: m.stft(m.ones(1), 4, return_complex=True)),
    ("istft real", lambda m: m.istft(m.ones(3, 4), 4)),
    ("istft empty", lambda m: m.istft(m.ones(0, 4, dtype=m.complex64), 4)),
    ("istft 1d", lambda m: m.istft(m.ones(3, dtype=m.complex64), 4)),
    ("istft hop", lambda m: m.istft(m.ones(3, 4, dtype=m.complex64), 4, 5)),
    ("istft win", lambda m: m.istft(m.ones(3, 4, dtype=m.complex64), 4, 1, 5)),
    ("istft window", lambda m: m.istft(m.ones(3, 4, dtype=m.complex64), 4, 1, window=m.ones(3))),
    ("istft nola", lambda m: m.istft(m.ones(3, 4, dtype=m.complex64), 4, 1, window=m.zeros(4))),
    ("istft rc", lambda m: m.istft(m.ones(3, 4, dtype=m.complex64), 4, 1, window=m.ones(4), return_complex=True)),
    ("window neg", lambda m: m.hann_window(-1)),
    ("window int", lambda m: m.hann_window(3, dtype=m.int64)),
]


@pytest.mark.parametrize("name, fn", ERRORS, ids=[name for name, _ in ERRORS])
def test_errors(name: str, fn: Any) -> None:
    with pytest.raises(Exception) as theirs:
        fn(torch)
    with pytest.raises(next(t for t in (IndexError, TypeError, RuntimeError) if issubclass(theirs.type, t))) as ours:
        fn(graphc)
    if name not in OTHER_TEXT:
        assert str(theirs.value).split("\n")[0].endswith(str(ours.value).removeprefix("stft: ").removeprefix("istft: "))


def test_complex_errors() -> None:
    for fn in (lambda m: m.ones(2).imag, lambda m: m.view_as_complex(m.ones(3)), lambda m: m.view_as_real(m.ones(3)),
               lambda m: m.view_as_complex(m.ones(3, 2, dtype=m.int64)), lambda m: m.ones(3).H, lambda m: m.ones(3).mH,
               lambda m: m.complex(m.ones(2), m.ones(2, dtype=m.float64)), lambda m: m.ones(3, 2, 2).H,
               lambda m: m.polar(m.ones(2, dtype=m.int64), m.ones(2)), lambda m: m.view_as_complex(m.tensor(1.0)),
               lambda m: m.ones(2, dtype=m.complex64).sign(), lambda m: m.ones(2, dtype=m.complex64).abs_(),
               lambda m: m.ones(2).adjoint()):
        with pytest.raises(RuntimeError) as theirs:
            fn(torch)
        with pytest.raises(RuntimeError) as ours:
            fn(graphc)
        assert str(ours.value) == str(theirs.value).split("\n")[0]
