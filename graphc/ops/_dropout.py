"""Dropout in its forms. Masks are recomputed in backward, never stored."""
from __future__ import annotations

import math
import warnings

from ..dtypes import float32
from ..errors import ArgumentError, DTypeError, ShapeError
from ..ir import build as P
from ..ir.node import Value
from ..ir.optable import OPS
from ..ir.recorder import apply
from ..tensor import Tensor, wrap
from ._common import number, val
from ._generator import rng_slots, uniform_value


def _check_p(p: float) -> None:
    if not 0.0 <= p <= 1.0:
        raise ArgumentError(f"dropout probability has to be between 0 and 1, but got {p}")


def _floating(input: Tensor) -> Value:
    v = val(input)
    if not v.aval.dtype.is_floating_point:
        raise DTypeError(f"result type Float can't be cast to the desired output type {v.aval.dtype.name}: dropout needs a "
                         "floating input")
    return v


def _drop(input: Tensor, p: float, mask_shape: tuple[int, ...] | None, inplace: bool) -> Tensor:
    """Dropout with one draw per element (None) or per element of ``mask_shape``, which broadcasts."""
    v = _floating(input)
    if p == 1:
        out = P.mul(v, 0)
    else:
        slots = rng_slots(math.prod(mask_shape or v.aval.shape), None)
        out = apply(OPS["dropout"], (v, *slots, number(p, float32)), (mask_shape,))
    if inplace:
        input._write(out)
        return input
    return wrap(out)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero elements with probability ``p`` and scale the rest by 1/(1-p) (Srivastava et al., JMLR 2014)."""
    _check_p(p)
    return _drop(input, p, None, inplace) if training and p and input.numel() else input


def _channels(input: Tensor, name: str) -> tuple[int, ...]:
    """One draw per sample and channel of (N, C, ...)."""
    sh = tuple(input.shape)
    if len(sh) < 2:
        raise ShapeError(f"{name}: Feature dropout requires at least 2 dimensions in the input, got {len(sh)}")
    return sh[:2] + (1,) * (len(sh) - 2)


def _warn_dims(name: str, input: Tensor, expected: tuple[int, int]) -> None:
    if input.ndim not in expected:
        warnings.warn(f"{name}: Received a {input.ndim}-D input to {name}, which is deprecated and will result in an error in "
                      f"a future release. To retain the behavior and silence this warning, please use a {expected[0]}-D or "
                      f"{expected[1]}-D input.", stacklevel=3)


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Drop whole channels of (N, C, L) or (C, L)."""
    _check_p(p)
    if input.ndim not in (2, 3):
        raise ShapeError(f"dropout1d: Expected 2D or 3D input, but received a {input.ndim}D input.")
    shape = (input.shape[0], 1) if input.ndim == 2 else _channels(input, "dropout1d")
    return _drop(input, p, shape, inplace) if training and p else input


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Drop whole channels of (N, C, H, W); of (N, C, L) as well, as PyTorch does."""
    _check_p(p)
    _warn_dims("dropout2d", input, (3, 4))
    return _drop(input, p, _channels(input, "dropout2d"), inplace) if training and p else input


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Drop whole channels of (N, C, D, H, W) or (C, D, H, W)."""
    _check_p(p)
    _warn_dims("dropout3d", input, (4, 5))
    sh = tuple(input.shape)
    shape = _channels(input, "dropout3d") if len(sh) == 5 else sh[:1] + (1,) * (len(sh) - 1)
    return _drop(input, p, shape, inplace) if training and p else input


def _alpha(input: Tensor, p: float, mask_shape: tuple[int, ...], inplace: bool) -> Tensor:
    alpha = -1.7580993408473766
    v = _floating(input)
    keep = P.ge(P.to_device(uniform_value(mask_shape, float32, None), v.aval.device), number(p, float32))
    a = ((1 - p) * (1 + p * alpha**2)) ** -0.5 if p < 1 else 0.0
    dropped = P.where(P.expand(keep, v.aval.shape), v, P.full_like(v, alpha))
    dt = v.aval.dtype
    out = P.add(P.mul(dropped, number(a, dt)), number(-a * alpha * p, dt))
    if inplace:
        input._write(out)
        return input
    return wrap(out)


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Dropout that keeps mean and variance for SELU (Klambauer et al., 2017)."""
    _check_p(p)
    return _alpha(input, p, tuple(input.shape), inplace) if training and p else input


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """:func:`alpha_dropout` of whole channels."""
    _check_p(p)
    return _alpha(input, p, _channels(input, "feature_alpha_dropout"), inplace) if training and p else input
