"""``torch.fft``: discrete Fourier transforms of float32, float64 and complex tensors (integers become the default dtype).

``n`` and ``s`` are the sizes to transform: longer axes are cut, shorter ones padded with zeros. ``norm`` is "backward"
(default: the inverse is divided by the number of elements), "ortho" (both by its root) or "forward" (the other way).
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..device import require
from ..dtypes import dtype as DType
from ..dtypes import get_default_dtype
from ..errors import AutogradError, DimError, DTypeError, ShapeError
from ..ir import build as P
from ..ir.node import Value
from ..ir.optable import OPS
from ..ir.recorder import apply
from ..tensor import Tensor, from_array, wrap
from ._common import norm_dim, to_out, val
from ._linalg_common import c_name
from .complex_parts import conj
from .rearrange import roll

_SCALES = {None: (0, 2), "backward": (0, 2), "ortho": (1, 1), "forward": (2, 0)}


def _scale(norm: str | None, inverse: bool) -> int:
    """The ``scale`` attribute of the rows for a norm mode."""
    if norm not in _SCALES:
        raise AutogradError(f'Invalid normalization mode: "{norm}"')
    return _SCALES[norm][inverse]


def _flipped(norm: str | None) -> str | None:
    return {None: "forward", "backward": "forward", "forward": "backward"}.get(norm, norm)


def _input(t: Any) -> Value:
    v = val(t)
    if v.aval.dtype.category < 2:
        return P.cast(v, get_default_dtype())
    if v.aval.dtype.itemsize == 2:
        raise DTypeError(f"Unsupported dtype {c_name(v)}")
    return v


def _real_input(name: str, t: Any, text: str) -> Value:
    v = _input(t)
    if v.aval.dtype.is_complex:
        raise DTypeError(text.format(name=name, dtype=c_name(v)))
    return v


def _complex_input(t: Any) -> Value:
    v = _input(t)
    return P.cast(v, v.aval.dtype.to_complex())


def _axis(dim: int, v: Value) -> int:
    if not v.aval.ndim:
        raise DimError(f"Dimension specified as {dim} but tensor has no dimensions")
    return norm_dim(dim, v.aval.ndim)


def _resize(v: Value, axis: int, n: int) -> Value:
    """Cut or padded with zeros to ``n`` elements along ``axis``."""
    if n < 1:
        raise ShapeError(f"Invalid number of data points ({n}) specified")
    have = v.aval.shape[axis]
    if n <= have:
        return P.narrow(v, axis, 0, n)
    zero = (0,) * v.aval.ndim
    return P.pad(v, zero, tuple([n - have if i == axis else 0 for i in range(v.aval.ndim)]))


def _axes(v: Value, s: Sequence[int] | None, dim: Any) -> tuple[tuple[int, ...], list[int]]:
    """(axes in the given order, their sizes with -1 for the input's)."""
    nd = v.aval.ndim
    if isinstance(s, int):
        s = (s,)
    if isinstance(dim, int):
        dim = (dim,)
    if dim is not None:
        axes = tuple([_axis(d, v) for d in dim])
        if len(set(axes)) != len(axes):
            raise ShapeError("FFT dims must be unique")
        if s is not None and len(s) != len(axes):
            raise ShapeError("When given, dim and shape arguments must have the same length")
    elif s is not None:
        if len(s) > nd:
            raise ShapeError(f"Got shape with {len(s)} values but input tensor only has {nd} dimensions.")
        axes = tuple(range(nd - len(s), nd))
    else:
        axes = tuple(range(nd))
    return axes, [-1] * len(axes) if s is None else [int(n) for n in s]


def _sized(v: Value, axes: tuple[int, ...], sizes: list[int]) -> Value:
    for a, n in zip(axes, sizes):
        v = _resize(v, a, v.aval.shape[a] if n == -1 else n)
    return v


def _result(name: str, out: Tensor | None, v: Value) -> Tensor:
    if out is not None and out.dtype.is_complex != v.aval.dtype.is_complex:
        kind = "complex" if v.aval.dtype.is_complex else "floating point"
        raise DTypeError(f"{name} expects a {kind} output tensor, but got {c_name(val(out))}")
    return to_out(out, v)


# ------------------------------------------------------------------------------------------------------- one dimension
def _fft(name: str, input: Tensor, n: int | None, dim: int, norm: str | None, out: Tensor | None, inverse: bool) -> Tensor:
    v = _input(input)
    a = _axis(dim, v)
    v = _resize(v, a, v.aval.shape[a] if n is None else n)
    return _result(name, out, apply(OPS["fft"], (v,), ((a,), inverse, _scale(norm, inverse))))


def fft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None, *, out: Tensor | None = None) -> Tensor:
    """X_k = sum_j x_j exp(-2 pi i j k / n) along ``dim``."""
    return _fft("fft", input, n, dim, norm, out, False)


def ifft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None, *, out: Tensor | None = None) -> Tensor:
    """Inverse of :func:`fft`."""
    return _fft("ifft", input, n, dim, norm, out, True)


def rfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None, *, out: Tensor | None = None) -> Tensor:
    """The first n // 2 + 1 elements of :func:`fft` of real numbers; the others are their conjugates."""
    v = _real_input("rfft", input, "{name} expects a real input tensor, but got {dtype}")
    a = _axis(dim, v)
    v = _resize(v, a, v.aval.shape[a] if n is None else n)
    return _result("rfft", out, apply(OPS["rfft"], (v,), ((a,), _scale(norm, False))))


def irfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None, *, out: Tensor | None = None) -> Tensor:
    """Inverse of :func:`rfft`: ``n`` real numbers, by default 2 (size - 1)."""
    v = _complex_input(input)
    a = _axis(dim, v)
    return _result("irfft", out, _irfft(v, (a,), [-1 if n is None else n], norm, n is not None))


def _irfft(v: Value, axes: tuple[int, ...], sizes: list[int], norm: str | None, given: bool = False) -> Value:
    last = axes[-1]
    n = 2 * (v.aval.shape[last] - 1) if sizes[-1] == -1 and not given else sizes[-1]
    if n < 1:
        raise ShapeError(f"Invalid number of data points ({n}) specified")
    v = _resize(_sized(v, axes[:-1], sizes[:-1]), last, n // 2 + 1)
    return apply(OPS["irfft"], (v,), (axes, n, _scale(norm, True)))


def hfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None, *, out: Tensor | None = None) -> Tensor:
    """Real transform of a signal given by its first half, the rest being conjugates; ``n`` elements, by default
    2 (size - 1)."""
    return irfft(conj(wrap(_complex_input(input))), n, dim, _flipped(norm), out=out)


def ihfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None, *, out: Tensor | None = None) -> Tensor:
    """Inverse of :func:`hfft`."""
    v = _real_input("ihfft", input, "{name} expects a real input tensor, but got {dtype}")
    return _result("ihfft", out, val(conj(rfft(wrap(v), n, dim, _flipped(norm)))))


# ----------------------------------------------------------------------------------------------------- many dimensions
def _fftn(name: str, input: Tensor, s: Any, dim: Any, norm: str | None, out: Tensor | None, inverse: bool) -> Tensor:
    v = _input(input)
    axes, sizes = _axes(v, s, dim)
    scale = _scale(norm, inverse)
    if not axes:
        return _result(name, out, P.cast(v, v.aval.dtype.to_complex()))
    return _result(name, out, apply(OPS["fft"], (_sized(v, axes, sizes),), (axes, inverse, scale)))


def _some(name: str, axes: tuple[int, ...]) -> None:
    if not axes:
        raise ShapeError(f"{name} must transform at least one axis")


def fftn(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None, *, out: Tensor | None = None) -> Tensor:
    """:func:`fft` over several dims: ``dim``, or the last ``len(s)``, or all."""
    return _fftn("fftn", input, s, dim, norm, out, False)


def ifftn(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None, *, out: Tensor | None = None) -> Tensor:
    """Inverse of :func:`fftn`."""
    return _fftn("ifftn", input, s, dim, norm, out, True)


def rfftn(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None, *, out: Tensor | None = None) -> Tensor:
    """:func:`fftn` of real numbers, the half along the last dim."""
    v = _real_input("rfftn", input, "{name} expects a real-valued input tensor, but got {dtype}")
    axes, sizes = _axes(v, s, dim)
    _some("rfftn", axes)
    return _result("rfftn", out, apply(OPS["rfft"], (_sized(v, axes, sizes),), (axes, _scale(norm, False))))


def irfftn(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None, *, out: Tensor | None = None) -> Tensor:
    """Inverse of :func:`rfftn`; the last size is by default 2 (size - 1)."""
    return _irfftn("irfftn", input, s, dim, norm, out)


def _irfftn(name: str, input: Tensor, s: Any, dim: Any, norm: str | None, out: Tensor | None) -> Tensor:
    v = _complex_input(input)
    axes, sizes = _axes(v, s, dim)
    _some(name, axes)
    return _result(name, out, _irfft(v, axes, sizes, norm))


def hfftn(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None, *, out: Tensor | None = None) -> Tensor:
    """:func:`hfft` over the last of several dims, :func:`fft` over the others."""
    return _irfftn("hfftn", conj(wrap(_complex_input(input))), s, dim, _flipped(norm), out)


def ihfftn(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None, *, out: Tensor | None = None) -> Tensor:
    """Inverse of :func:`hfftn`."""
    v = _real_input("ihfftn", input, "Only supports floating-point dtypes, but found: {dtype}")
    axes, sizes = _axes(v, s, dim)
    _some("ihfftn", axes)
    half = apply(OPS["rfft"], (_sized(v, axes, sizes),), (axes, _scale(_flipped(norm), False)))
    return _result("ihfftn", out, apply(OPS["conj"], (half,)))


def fft2(input: Tensor, s: Any = None, dim: Any = (-2, -1), norm: str | None = None, *, out: Tensor | None = None) -> Tensor:
    """:func:`fftn` over two dims."""
    return fftn(input, s, dim, norm, out=out)


def ifft2(input: Tensor, s: Any = None, dim: Any = (-2, -1), norm: str | None = None, *, out: Tensor | None = None) -> Tensor:
    """:func:`ifftn` over two dims."""
    return ifftn(input, s, dim, norm, out=out)


def rfft2(input: Tensor, s: Any = None, dim: Any = (-2, -1), norm: str | None = None, *, out: Tensor | None = None) -> Tensor:
    """:func:`rfftn` over two dims."""
    return rfftn(input, s, dim, norm, out=out)


def irfft2(input: Tensor, s: Any = None, dim: Any = (-2, -1), norm: str | None = None, *, out: Tensor | None = None) -> Tensor:
    """:func:`irfftn` over two dims."""
    return irfftn(input, s, dim, norm, out=out)


def hfft2(input: Tensor, s: Any = None, dim: Any = (-2, -1), norm: str | None = None, *, out: Tensor | None = None) -> Tensor:
    """:func:`hfftn` over two dims."""
    return hfftn(input, s, dim, norm, out=out)


def ihfft2(input: Tensor, s: Any = None, dim: Any = (-2, -1), norm: str | None = None, *, out: Tensor | None = None) -> Tensor:
    """:func:`ihfftn` over two dims."""
    return ihfftn(input, s, dim, norm, out=out)


# ------------------------------------------------------------------------------------------------------------- helpers
def _frequencies(name: str, k: np.ndarray, n: int, d: float, dtype: DType | None, device: Any, requires_grad: bool,
                 out: Tensor | None) -> Tensor:
    dt = dtype or get_default_dtype()
    if dt.category < 2:
        raise DTypeError(f"{name} requires a floating point or complex dtype")
    arr = k.astype(dt.np) * dt.to_real().np.type(1.0 / (n * d) if n else 0.0)
    t = to_out(out, from_array(np.asarray(arr, dt.np), dev=require(device))._v)
    return t.requires_grad_(True) if requires_grad else t


def fftfreq(n: int, d: float = 1.0, *, out: Tensor | None = None, dtype: DType | None = None, layout: Any = None,
            device: Any = None, requires_grad: bool = False) -> Tensor:
    """Frequencies of :func:`fft`'s elements in cycles per unit, for samples ``d`` units apart: 0, 1, ..., -1 over n d."""
    if n < 0:
        raise ShapeError(f"Trying to create tensor with negative dimension {n}: [{n}]")
    k = np.arange(n)
    return _frequencies("fftfreq", np.where(k < (n + 1) // 2, k, k - n), n, d, dtype, device, requires_grad, out)


def rfftfreq(n: int, d: float = 1.0, *, out: Tensor | None = None, dtype: DType | None = None, layout: Any = None,
             device: Any = None, requires_grad: bool = False) -> Tensor:
    """Frequencies of :func:`rfft`'s elements."""
    if n < 0:
        raise ShapeError(f"Trying to create tensor with negative dimension {n}: [{n}]")
    return _frequencies("rfftfreq", np.arange(n // 2 + 1), n, d, dtype, device, requires_grad, out)


def _shifted(input: Tensor, dim: Any, forward: bool) -> Tensor:
    dims = tuple(range(input.ndim)) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    if not dims:
        return input.clone()
    sizes = [input.shape[norm_dim(d, input.ndim)] for d in dims]
    return roll(input, [n // 2 if forward else (n + 1) // 2 for n in sizes], dims)


def fftshift(input: Tensor, dim: Any = None) -> Tensor:
    """Frequency zero moved from the first place to the middle of ``dim`` (default all)."""
    return _shifted(input, dim, True)


def ifftshift(input: Tensor, dim: Any = None) -> Tensor:
    """Inverse of :func:`fftshift`."""
    return _shifted(input, dim, False)
