"""Small things the distributions share: broadcasting of parameters, probabilities and logits, noise, lazy attributes."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import dtypes, ops
from ..autograd import enable_grad
from ..ir.recorder import state
from ..ops.creation import as_tensor
from ..tensor import Size, Tensor
from ..tensor_overriding import overriding

euler_constant = 0.57721566490153286060  # Euler-Mascheroni


def as_size(shape: Any) -> Size:
    """A sample shape (int, sequence of int or Size) as Size."""
    return Size((shape,) if isinstance(shape, int) else tuple(shape))


def broadcast_all(*values: Any) -> tuple[Tensor, ...]:
    """Tensors and numbers as tensors of one shape; numbers take the dtype of the tensors (default dtype without any).

    Raises ValueError for anything but numbers and tensors.
    """
    if not all(isinstance(v, (Tensor, int, float, np.number)) or overriding(type(v)) for v in values):
        raise ValueError("Input arguments must all be instances of Number, torch.Tensor or objects implementing "
                         "__torch_function__.")
    tensors = [v for v in values if isinstance(v, Tensor)]
    dtype = tensors[0].dtype if tensors else dtypes.get_default_dtype()
    device = tensors[0].device if tensors else None
    made = [as_tensor(v, dtype=dtype, device=device) if isinstance(v, (int, float, np.number)) else v for v in values]
    out = ops.broadcast_tensors(*made)
    return tuple(out) if isinstance(out, list) else out  # type: ignore[no-any-return]  # what a foreign class answers


def finfo_of(t: Tensor) -> Any:
    return dtypes.finfo(t.dtype)


def clamp_probs(probs: Tensor) -> Tensor:
    """Probabilities kept inside the open interval (0, 1)."""
    eps = finfo_of(probs).eps
    return probs.clamp(min=eps, max=1 - eps)


def probs_to_logits(probs: Tensor, is_binary: bool = False) -> Tensor:
    """Log odds (binary) or log probabilities."""
    p = clamp_probs(probs)
    return ops.log(p) - ops.log1p(-p) if is_binary else ops.log(p)


def logits_to_probs(logits: Tensor, is_binary: bool = False) -> Tensor:
    """Sigmoid (binary) or softmax over the last dimension."""
    return ops.sigmoid(logits) if is_binary else ops.softmax(logits, -1)


def sum_rightmost(value: Any, dims: int) -> Any:
    """Sum over the last ``dims`` dimensions."""
    return value if dims == 0 else value.reshape(tuple(value.shape[:value.ndim - dims]) + (-1,)).sum(-1)


def tril_matrix_to_vec(mat: Tensor, diag: int = 0) -> Tensor:
    """The elements on and below diagonal ``diag`` of square matrices (*, n, n), row by row, as vectors."""
    n = mat.shape[-1]
    if not -n <= diag < n:
        raise ValueError(f"diag ({diag}) provided is outside [{-n}, {n - 1}].")
    rows, cols = ops.tril_indices(n, n, diag)
    return mat[..., rows, cols]


def vec_to_tril_matrix(vec: Tensor, diag: int = 0) -> Tensor:
    """The inverse of :func:`tril_matrix_to_vec`: zeros above."""
    size = vec.shape[-1]
    n = (-(1 + 2 * diag) + math.sqrt((1 + 2 * diag) ** 2 + 8 * size + 4 * abs(diag) * (diag + 1))) / 2
    if not round(n) - n == 0:
        raise ValueError(f"The size of last dimension is {size} which cannot be expressed as the lower triangular part of a "
                         f"square D x D matrix.")
    out = vec.new_zeros((*vec.shape[:-1], round(n), round(n)))
    rows, cols = ops.tril_indices(round(n), round(n), diag)
    out[..., rows, cols] = vec
    return out


def positive_uniform(shape: Any, like: Tensor) -> Tensor:
    """Uniform in (0, 1): never zero, so that its logarithm is finite."""
    return ops.rand(tuple(shape), dtype=like.dtype, device=like.device).clamp(min=finfo_of(like).tiny)


def standard_normal(shape: Any, like: Tensor) -> Tensor:
    return ops.randn(tuple(shape), dtype=like.dtype, device=like.device)


def standard_exponential(shape: Any, like: Tensor) -> Tensor:
    return ops.empty(tuple(shape), dtype=like.dtype, device=like.device).exponential_()


def known_false(ok: Tensor) -> bool:
    """Whether any element is False. Inside a compiled call pending values are not read: the call stays one region."""
    v = ok._read()
    if state.hold and v.region is not None:
        return False
    return not bool(ok.all().item())


def log_two_pi() -> float:
    return math.log(2 * math.pi)


class lazy_property:
    """An attribute computed at its first use and then kept on the instance."""

    def __init__(self, wrapped: Callable[[Any], Any]):
        self.wrapped = wrapped
        self.__doc__ = wrapped.__doc__
        self.name = wrapped.__name__

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        with enable_grad():
            value = self.wrapped(instance)
        instance.__dict__[self.name] = value
        return value


class LogitsOrProbs:
    """Parameters given as exactly one of ``probs`` and ``logits``; the other is computed when asked for.

    Subclasses say whether logits are log odds (``_binary``) or log probabilities over the last dimension.
    """

    _binary = True

    def _set_parameter(self, probs: Any, logits: Any) -> Tensor:
        if (probs is None) == (logits is None):
            raise ValueError("Either `probs` or `logits` must be specified, but not both.")
        name = "logits" if probs is None else "probs"
        self.__dict__[name] = logits if probs is None else probs
        return self._param

    @property
    def _param(self) -> Tensor:
        return self.__dict__["probs" if self._given() == "probs" else "logits"]

    def _given(self) -> str:
        return self.__dict__.setdefault("_given_name", "probs" if "probs" in self.__dict__ else "logits")

    @lazy_property
    def logits(self) -> Tensor:
        """Log odds, or normalised log probabilities."""
        return probs_to_logits(self.probs, is_binary=self._binary)

    @lazy_property
    def probs(self) -> Tensor:
        """Probabilities."""
        return logits_to_probs(self.logits, is_binary=self._binary)
