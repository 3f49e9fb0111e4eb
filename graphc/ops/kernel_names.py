"""Functions that PyTorch exports under the names of its kernels, and rarer reductions and factorizations under ``torch.*``."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import AutogradError, DTypeError, ShapeError
from ..tensor import Tensor, from_array, to_numpy
from . import creation, grid, linalg, pointwise, pool, random, rearrange, reduction
from ._common import to_out, write
from .conv import conv1d
from .linalg_norm import householder_product, vector_norm
from .norm import group_norm, layer_norm

_MODES = (("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection"))


# ----------------------------------------------------------------------------------------------------- by another name
def constant_pad_nd(input: Tensor, pad: Sequence[int], value: float = 0) -> Tensor:
    """``nn.functional.pad`` in constant mode."""
    return rearrange.pad(input, pad, "constant", value)


def conv_tbc(input: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:
    """Convolution over time: input (time, batch, in), weight (width, in, out), bias (out), result (time', batch, out)."""
    y = conv1d(input.permute(1, 2, 0), weight.permute(2, 1, 0), bias, padding=pad)
    return y.permute(2, 0, 1)


def grid_sampler(input: Tensor, grid_: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool) -> Tensor:
    """``nn.functional.grid_sample`` with numbers for the modes."""
    return grid.grid_sample(input, grid_, _MODES[0][interpolation_mode], _MODES[1][padding_mode], align_corners)


def affine_grid_generator(theta: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """``nn.functional.affine_grid``."""
    return grid.affine_grid(theta, size, align_corners)


def native_channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """``nn.functional.channel_shuffle``."""
    return rearrange.channel_shuffle(input, groups)


def max_pool1d_with_indices(input: Tensor, kernel_size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1,
                            ceil_mode: bool = False) -> tuple[Tensor, Tensor]:
    """``nn.functional.max_pool1d`` with the places of the maxima."""
    return pool.max_pool1d(input, kernel_size, stride or None, padding, dilation, ceil_mode, True)


def _moments(x: Tensor, dims: Sequence[int], eps: float) -> tuple[Tensor, Tensor]:
    """(mean, 1 / sqrt(variance + eps)) with the dimensions kept, without gradient."""
    x = x.detach()
    mean = reduction.mean(x, dims, True)
    return mean, ((x - mean).pow(2).mean(dims, True) + eps).rsqrt()


def native_layer_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, bias: Tensor | None,
                      eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(normalised, mean, reciprocal standard deviation)."""
    dims = tuple(range(input.ndim - len(normalized_shape), input.ndim))
    return (layer_norm(input, normalized_shape, weight, bias, eps), *_moments(input, dims, eps))


def native_group_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None, N: int, C: int, HxW: int, group: int,
                      eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(normalised, mean, reciprocal standard deviation), the last two of shape (N, group)."""
    mean, rstd = _moments(input.reshape(N, group, -1), (2,), eps)
    return group_norm(input, group, weight, bias, eps), mean.squeeze(2), rstd.squeeze(2)


def native_dropout(input: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    """(dropped and scaled, which elements are left)."""
    if not train:
        return input.clone(), creation.ones_like(input).bool()
    mask = random.rand(tuple(input.shape), device=input.device) >= p
    return input * mask * (0.0 if p == 1 else 1 / (1 - p)), mask


def norm_except_dim(v: Tensor, pow: int = 2, dim: int = 0) -> Tensor:
    """Norms over all dimensions but ``dim`` (-1: over all), with those kept as 1."""
    if dim == -1:
        return vector_norm(v, pow)
    return vector_norm(v, pow, [d for d in range(v.ndim) if d != dim % v.ndim], True)


def fill(input: Tensor, value: Any) -> Tensor:
    """A tensor like ``input`` full of ``value``; a tensor value gets the gradient."""
    if isinstance(value, Tensor):
        if value.ndim:
            raise AutogradError(f"fill only supports 0-dimension value tensor but got tensor with {value.ndim} dimensions")
        return value.to(input.dtype).expand(tuple(input.shape)).clone()
    return creation.full_like(input, value)


# ------------------------------------------------------------------------------------------------------------ in place
def _in_place(name: str, fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def f(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return write(input, fn(input, *args, **kwargs)._read(), name)

    f.__name__, f.__doc__ = name, f"In-place version of {name[:-1]}()."
    return f


def feature_dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """Dropout of whole channels: (N, C, ...)."""
    if not train or not p:
        return input
    keep = (random.rand(tuple(input.shape[:2]), device=input.device) >= p).to(input.dtype) * (0.0 if p == 1 else 1 / (1 - p))
    return input * keep.reshape((*input.shape[:2], *[1] * (input.ndim - 2)))


dropout_, alpha_dropout_ = _in_place("dropout_", random.dropout), _in_place("alpha_dropout_", random.alpha_dropout)
feature_dropout_ = _in_place("feature_dropout_", feature_dropout)
feature_alpha_dropout_ = _in_place("feature_alpha_dropout_", random.feature_alpha_dropout)


def detach_(input: Tensor) -> Tensor:
    """``input.detach_()``."""
    return input.detach_()


def conj_physical_(input: Tensor) -> Tensor:
    """Conjugate in place."""
    return input.copy_(input.conj()) if input.is_complex() else input


def addmv_(input: Tensor, mat: Tensor, vec: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """``input.addmv_(mat, vec)``."""
    return input.addmv_(mat, vec, beta=beta, alpha=alpha)


def embedding_renorm_(weight: Tensor, indices: Tensor, max_norm: float, norm_type: float = 2.0) -> Tensor:
    """Rows of ``weight`` that ``indices`` name, scaled in place to a norm of at most ``max_norm``."""
    norms = vector_norm(weight.detach(), norm_type, 1, True)
    scale = pointwise.clamp(max_norm / (norms + 1e-7), max=1.0)
    named = creation.zeros(weight.shape[0], 1, dtype=weight.dtype, device=weight.device)
    named[indices.reshape(-1)] = 1.0
    return write(weight, (weight * (1 + named * (scale - 1)))._read(), "embedding_renorm_")


# --------------------------------------------------------------------------------------------------- sampling, counting
def binomial(count: Tensor, prob: Tensor, generator: Any = None) -> Tensor:
    """Binomial draws with ``count`` trials (floating) of probability ``prob`` (evaluates; drawn by NumPy)."""
    if not count.is_floating_point() or count.dtype is not prob.dtype:
        raise DTypeError(f"binomial needs floating tensors of one dtype, got {count.dtype} and {prob.dtype}")
    g = generator or random.default_generator
    rng = np.random.Generator(np.random.Philox(key=[g._seed, g.reserve(4)]))
    n, p = to_numpy(count.detach()).astype(np.float64), to_numpy(prob.detach()).astype(np.float64)
    if not (n >= 0).all() or not ((p >= 0) & (p <= 1)).all():
        raise AutogradError("binomial expects non-negative counts and probabilities in [0, 1]")
    return from_array(np.asarray(rng.binomial(n.astype(np.int64), p)).astype(count.dtype.np), dev=count.device)


def histogramdd(input: Tensor, bins: Any, *, range: Any = None, weight: Tensor | None = None,
                density: bool = False) -> tuple[Tensor, list[Tensor]]:
    """(counts, bin edges per dimension) of points (..., D). ``bins``: a number, one per dimension, or the edges; ``range``:
    left and right ends, one pair after the other."""
    if not input.is_floating_point():
        raise DTypeError(f'"histogramdd" not implemented for \'{input.dtype.name}\'')
    if input.ndim < 2:
        raise ShapeError("torch.histogramdd(): input tensor should have at least 2 dimensions")
    points = to_numpy(input.detach()).reshape(-1, input.shape[-1]).astype(np.float64)
    sizes: Any = bins if isinstance(bins, int) else [
        to_numpy(b.detach()).astype(np.float64) if isinstance(b, Tensor) else int(b) for b in bins]
    ends: Any = None if range is None else np.asarray(range, np.float64).reshape(-1, 2).tolist()
    weights = None if weight is None else to_numpy(weight.detach()).reshape(-1).astype(np.float64)
    h, edges = np.histogramdd(points, sizes, ends, density=density, weights=weights)
    made = [from_array(e.astype(input.dtype.np), dev=input.device) for e in (h, *edges)]
    return made[0], made[1:]


_START = {"sum": 0.0, "mean": 0.0, "max": -np.inf, "min": np.inf, "prod": 1.0}
_SCATTER = {"sum": "sum", "mean": "sum", "max": "amax", "min": "amin", "prod": "prod"}


def segment_reduce(data: Tensor, reduce: str, *, lengths: Tensor | None = None, indices: Tensor | None = None,
                   offsets: Tensor | None = None, axis: int = 0, unsafe: bool = False, initial: Any = None) -> Tensor:
    """``reduce`` ("sum", "mean", "max", "min", "prod") of consecutive parts of the first axis, given by ``lengths`` or
    ``offsets`` (read on the host). Empty parts give ``initial``, else 0, NaN, -inf, inf and 1."""
    if reduce not in _START:
        raise AutogradError(f"unsupported reduction {reduce!r}")
    if (lengths is None) == (offsets is None) or axis or indices is not None:
        raise AutogradError("segment_reduce(): give one of lengths and offsets, and axis 0")
    given = lengths if lengths is not None else offsets
    assert given is not None
    counts = to_numpy(given.detach()).astype(np.int64)
    counts = np.diff(counts) if lengths is None else counts
    if counts.ndim != 1 or (counts < 0).any() or counts.sum() != data.shape[0]:
        raise AutogradError(f"segment_reduce(): lengths {counts.tolist()} do not add up to {data.shape[0]} along the axis")
    rest = tuple(data.shape[1:])
    at = from_array(np.repeat(np.arange(len(counts)), counts), dev=data.device).reshape((-1, *[1] * len(rest)))
    start = _START[reduce] if initial is None else float(initial)
    base = creation.full((len(counts), *rest), start, dtype=data.dtype, device=data.device)
    out = base.scatter_reduce(0, at.expand((data.shape[0], *rest)), data, _SCATTER[reduce], include_self=True)
    if reduce != "mean":
        return out
    size = from_array(counts.astype(data.dtype.np), dev=data.device).reshape((-1, *[1] * len(rest)))
    return out / size if initial is None else (out / pointwise.clamp(size, min=1))


# ------------------------------------------------------------------------------------------------------ factorizations
def ormqr(input: Tensor, tau: Tensor, other: Tensor, left: bool = True, transpose: bool = False, *,
          out: Tensor | None = None) -> Tensor:
    """Q other or other Q (``transpose``: with Q^H) for the full Q of the reflectors that ``geqrf`` gives."""
    m, n = input.shape[-2:]
    if other.shape[-2 if left else -1] != m:
        raise ShapeError(f"torch.ormqr: other.shape[{-2 if left else -1}] must be equal to input.shape[-2]")
    q = householder_product(rearrange.pad(input[..., :m], (0, max(m - n, 0))), tau)
    q = q.mH if transpose else q
    y = q @ other if left else other @ q
    return y if out is None else to_out(out, y._read())


def lobpcg(A: Tensor, k: int | None = None, B: Tensor | None = None, X: Tensor | None = None, n: int | None = None,
           iK: Tensor | None = None, niter: int | None = None, tol: float | None = None, largest: bool | None = None,
           method: str | None = None, tracker: Any = None, ortho_iparams: Any = None, ortho_fparams: Any = None,
           ortho_bparams: Any = None) -> tuple[Tensor, Tensor]:
    """(values, vectors) of the ``k`` largest (or smallest) eigenvalues of A x = lambda B x, A symmetric, B positive definite.

    Found by a dense factorization, exactly and differentiably; start values, preconditioners and tolerances are accepted.
    """
    count = k if k is not None else 1 if X is None else X.shape[-1]
    if A.shape[-2] != A.shape[-1] or not 0 < count <= A.shape[-1]:
        raise ShapeError(f"lobpcg: needs square matrices and 0 < k <= their size, got {list(A.shape)} and k={count}")
    low = None if B is None else linalg.cholesky(B)
    c = A if low is None else linalg.solve_triangular(low, linalg.solve_triangular(low, A, upper=False).mT, upper=False)
    values, vectors = linalg.eigh(c)
    if largest is None or largest:
        values, vectors = rearrange.flip(values, -1), rearrange.flip(vectors, -1)
    values, vectors = values[..., :count], vectors[..., :count]
    return values, vectors if low is None else linalg.solve_triangular(low.mT, vectors, upper=True)


grid_sampler_2d = grid_sampler_3d = grid_sampler

NAMES = ["constant_pad_nd", "conv_tbc", "grid_sampler", "grid_sampler_2d", "grid_sampler_3d", "affine_grid_generator",
         "native_channel_shuffle", "max_pool1d_with_indices", "native_layer_norm", "native_group_norm", "native_dropout",
         "norm_except_dim", "fill", "feature_dropout", "dropout_", "alpha_dropout_", "feature_dropout_",
         "feature_alpha_dropout_", "detach_", "conj_physical_", "addmv_", "embedding_renorm_", "binomial", "histogramdd",
         "segment_reduce", "ormqr", "lobpcg"]
METHODS = ["ormqr", "conj_physical_"]
