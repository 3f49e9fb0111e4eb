"""Short-time Fourier transforms and window functions."""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..device import require
from ..dtypes import dtype as DType
from ..dtypes import get_default_dtype
from ..errors import AutogradError, DimError, DTypeError, ShapeError
from ..ir import build as P
from ..ir.node import Value
from ..ir.recorder import fetched, state
from ..tensor import Tensor, from_array, wrap
from ._common import val
from .complex_parts import view_as_real
from .fft import fft, ifft, irfft, rfft
from .rearrange import pad


# ------------------------------------------------------------------------------------------------------------- windows
def _window(name: str, length: int, dtype: DType | None, device: Any, requires_grad: bool, fn: Any, periodic: bool) -> Tensor:
    """``fn`` of 0..length-1 and of the period: the length, or (symmetric) one less. One element is 1."""
    if length < 0:
        raise AutogradError(f"{name} requires non-negative window_length, got window_length={length}")
    dt = dtype or get_default_dtype()
    if not dt.is_floating_point:
        raise DTypeError(f"{name} expects floating point dtypes, got: {dt}")
    k = np.arange(length, dtype=np.float64)
    w = np.ones(1) if length == 1 else fn(k, length if periodic else length - 1)
    t = from_array(w.astype(dt.np), dev=require(device))
    return t.requires_grad_(True) if requires_grad else t


def hann_window(window_length: int, periodic: bool = True, *, dtype: DType | None = None, layout: Any = None,
                device: Any = None, requires_grad: bool = False) -> Tensor:
    """(1 - cos(2 pi k / N)) / 2; N is the length, or (not ``periodic``) one less."""
    return _window("hann_window", window_length, dtype, device, requires_grad,
                   lambda k, n: 0.5 - 0.5 * np.cos(2 * math.pi * k / n), periodic)


def hamming_window(window_length: int, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46, *,
                   dtype: DType | None = None, layout: Any = None, device: Any = None, pin_memory: bool = False,
                   requires_grad: bool = False) -> Tensor:
    """alpha - beta cos(2 pi k / N)."""
    return _window("hamming_window", window_length, dtype, device, requires_grad,
                   lambda k, n: alpha - beta * np.cos(2 * math.pi * k / n), periodic)


def blackman_window(window_length: int, periodic: bool = True, *, dtype: DType | None = None, layout: Any = None,
                    device: Any = None, requires_grad: bool = False) -> Tensor:
    """0.42 - 0.5 cos(2 pi k / N) + 0.08 cos(4 pi k / N)."""
    return _window("blackman_window", window_length, dtype, device, requires_grad,
                   lambda k, n: 0.42 - 0.5 * np.cos(2 * math.pi * k / n) + 0.08 * np.cos(4 * math.pi * k / n), periodic)


def bartlett_window(window_length: int, periodic: bool = True, *, dtype: DType | None = None, layout: Any = None,
                    device: Any = None, requires_grad: bool = False) -> Tensor:
    """Triangle: 1 - |2 k / N - 1|."""
    return _window("bartlett_window", window_length, dtype, device, requires_grad,
                   lambda k, n: 1 - np.abs(2 * k / n - 1), periodic)


def kaiser_window(window_length: int, periodic: bool = True, beta: float = 12.0, *, dtype: DType | None = None,
                  layout: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """I0(beta sqrt(1 - (2 k / N - 1)^2)) / I0(beta), I0 the modified Bessel function."""
    return _window("kaiser_window", window_length, dtype, device, requires_grad,
                   lambda k, n: np.i0(beta * np.sqrt(np.maximum(1 - (2 * k / n - 1) ** 2, 0))) / np.i0(beta), periodic)


# -------------------------------------------------------------------------------------------------------- short-time FFT
def _full_window(window: Tensor | None, win_length: int, n_fft: int, like: Value) -> Tensor:
    """The window with zeros on both sides to ``n_fft`` elements."""
    w = wrap(P.full((win_length,), 1, like.aval.dtype.to_real(), like.aval.device)) if window is None else window
    left = (n_fft - win_length) // 2
    return w if win_length == n_fft else pad(w, (left, n_fft - win_length - left))


def _stft_checks(v: Value, n_fft: int, hop: int, win: int, window: Tensor | None) -> None:
    if v.aval.dtype.category < 2:
        raise DTypeError("stft: expected a tensor of floating point or complex values")
    if v.aval.ndim not in (1, 2):
        raise ShapeError("stft: expected a 1D or 2D tensor")
    if not 0 < n_fft <= v.aval.shape[-1]:
        raise ShapeError(f"stft: expected 0 < n_fft < {v.aval.shape[-1]}, but got n_fft={n_fft}")
    if hop <= 0:
        raise ShapeError(f"stft: expected hop_length > 0, but got hop_length={hop}")
    if not 0 < win <= n_fft:
        raise ShapeError(f"stft: expected 0 < win_length <= n_fft, but got win_length={win}")
    if window is not None and tuple(window.shape) != (win,):
        raise ShapeError(f"stft: expected a 1D window tensor of size equal to win_length={win}, but got window with size "
                         f"{list(window.shape)}")


def stft(input: Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
         window: Tensor | None = None, center: bool = True, pad_mode: str = "reflect", normalized: bool = False,
         onesided: bool | None = None, return_complex: bool | None = None, align_to_window: bool | None = None) -> Tensor:
    """Fourier transforms of overlapping windows of signals (L) or (B, L): (B?, N, T) complex, T frames ``hop_length``
    (default n_fft // 4) apart, N = n_fft // 2 + 1 (``onesided``, the default for real signals) or n_fft.

    ``center`` pads the signal by n_fft // 2 on both sides; ``normalized`` divides by the root of ``n_fft``. With
    ``return_complex=False`` the parts come in a last dimension of size 2.
    """
    v = val(input)
    hop, win = n_fft // 4 if hop_length is None else hop_length, n_fft if win_length is None else win_length
    cplx = v.aval.dtype.is_complex or window is not None and window.dtype.is_complex
    if return_complex is None:
        if not cplx:
            raise AutogradError("stft requires the return_complex parameter be given for real inputs, and will further "
                                "require that return_complex=True in a future PyTorch release.")
        return_complex = True
    if align_to_window is not None:
        raise AutogradError("stft: align_to_window is not supported; leave it out and choose center")
    if center:
        rows = v.aval.ndim == 1
        t = wrap(P.unsqueeze(v, 0)) if rows else input
        v = val(pad(t, (n_fft // 2, n_fft // 2), pad_mode))
        v = P.reshape(v, v.aval.shape[1:]) if rows else v
    _stft_checks(v, n_fft, hop, win, window)
    if onesided is None:
        onesided = not cplx
    if onesided and cplx:
        raise AutogradError("Cannot have onesided output if window or input is complex")
    frames = wrap(P.window(v, (v.aval.ndim - 1,), (n_fft,), (hop,), (1,)))
    if window is not None or win != n_fft:
        frames = frames * _full_window(window, win, n_fft, v)
    spectrum = (rfft if onesided else fft)(frames, norm="ortho" if normalized else None)
    spectrum = wrap(P.transpose(val(spectrum)))
    return spectrum if return_complex else view_as_real(spectrum)


def _istft_checks(v: Value, n_fft: int, hop: int, win: int, window: Tensor | None, onesided: bool, cplx: bool) -> None:
    if not v.aval.dtype.is_complex:
        raise DTypeError("istft requires a complex-valued input tensor matching the output from stft with "
                         "return_complex=True.")
    if v.aval.ndim not in (2, 3):
        raise DimError(f"istft: expected a tensor with 2 or 3 dimensions, but got {v.aval.ndim}")
    if not v.aval.size:
        raise ShapeError("istft: input tensor cannot be empty.")
    bins = n_fft // 2 + 1 if onesided else n_fft
    if v.aval.shape[-2] != bins:
        raise ShapeError(f"istft: expected the frequency dimension (3rd to the last) of the input tensor to match {bins} for "
                         f"n_fft={n_fft} and onesided={onesided}, but got {v.aval.shape[-2]}")
    if not 0 < win <= n_fft:
        raise ShapeError("istft: expected 0 < win_length <= n_fft")
    if not 0 < hop <= win:
        raise ShapeError("istft: expected 0 < hop_length <= win_length")
    if window is not None and tuple(window.shape) != (win,):
        raise ShapeError("istft: Invalid window shape. window has to be 1D and length of `win_length`")
    if onesided and cplx:
        raise AutogradError("Cannot have onesided output if window or input is complex")


def _overlap(frames: Value, n_fft: int, hop: int) -> Value:
    """Sum of frames (..., T, n_fft) put ``hop`` apart: (..., n_fft + hop (T - 1))."""
    lead = frames.aval.shape[:-2]
    length = n_fft + hop * (frames.aval.shape[-2] - 1)
    return P.fold(frames, (*lead, length), (len(lead),), (n_fft,), (hop,), (1,))


def istft(input: Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
          window: Tensor | None = None, center: bool = True, normalized: bool = False, onesided: bool | None = None,
          length: int | None = None, return_complex: bool = False) -> Tensor:
    """Least-squares inverse of :func:`stft` (Griffin and Lim 1984): (B?, N, T) complex to signals (B?, L), cut or padded
    with zeros to ``length``. RuntimeError where the squared windows sum to zero."""
    v = val(input)
    hop, win = n_fft // 4 if hop_length is None else hop_length, n_fft if win_length is None else win_length
    if onesided is None:
        onesided = v.aval.ndim > 1 and v.aval.shape[-2] != n_fft
    cplx = return_complex or window is not None and window.dtype.is_complex
    _istft_checks(v, n_fft, hop, win, window, onesided, cplx)
    w = _full_window(window, win, n_fft, v)
    norm, spectrum = "ortho" if normalized else None, wrap(P.transpose(v))
    if return_complex:
        frames = ifft(spectrum, norm=norm)
    else:  # the upper half of a full spectrum is ignored
        frames = irfft(spectrum, n_fft, norm=norm)
    y = _overlap(val(frames * w), n_fft, hop)
    count = v.aval.shape[-1]
    envelope = _overlap(P.expand(val(w * w), (count, n_fft)), n_fft, hop)
    start = n_fft // 2 if center else 0
    full = y.aval.shape[-1]
    end = start + length if length is not None else full - start if center else full
    stop = max(start, min(end, full))
    y = P.narrow(y, y.aval.ndim - 1, start, stop - start)
    envelope = P.narrow(envelope, 0, start, stop - start)
    if not state.hold and not state.tracing and not (np.abs(fetched(envelope)).min(initial=np.inf) > 1e-11):
        raise AutogradError("istft: window overlap add min: 1")
    if envelope.aval.dtype is not y.aval.dtype:
        envelope = P.cast(envelope, y.aval.dtype)
    y = P.div(y, P.expand(envelope, y.aval.shape))
    if end > stop:
        zero = (0,) * (y.aval.ndim - 1)
        y = P.pad(y, (*zero, 0), (*zero, end - stop))
    return wrap(y)


NAMES = ["hann_window", "hamming_window", "blackman_window", "bartlett_window", "kaiser_window", "stft", "istft"]
METHODS = ["stft", "istft"]
