"""LKJ distribution over Cholesky factors of correlation matrices."""
from __future__ import annotations

import math
from typing import Any

from .. import ops
from ..tensor import Tensor
from . import constraints
from .beta import Beta
from .distribution import Distribution
from .utils import as_size, broadcast_all, finfo_of, standard_normal


class LKJCholesky(Distribution):
    """Lower Cholesky factors L of ``dim`` x ``dim`` correlation matrices with density proportional to det(L L^T)^(eta - 1),
    eta = ``concentration`` (1: uniform over correlation matrices).

    Draws use the onion method (Lewandowski, Kurowicka and Joe 2009, section 3): each row adds a point of a ball to the factor
    so far. ValueError for ``dim`` below 2.
    """

    arg_constraints = {"concentration": constraints.positive}
    support = constraints.corr_cholesky

    def __init__(self, dim: int, concentration: Any = 1.0, validate_args: bool | None = None):
        if dim < 2:
            raise ValueError(f"Expected dim to be an integer greater than or equal to 2. Found dim={dim}.")
        self.dim = dim
        (self.concentration,) = broadcast_all(concentration)
        self._set_beta()
        super().__init__(self.concentration.shape, (dim, dim), validate_args)

    def _set_beta(self) -> None:
        """The squared length of each row's off-diagonal part is Beta distributed; the first row has none."""
        c = self.concentration
        rank = ops.arange(self.dim, dtype=c.dtype, device=c.device).sub(1).clamp(min=0)
        top = (c + 0.5 * (self.dim - 2)).unsqueeze(-1) - 0.5 * rank
        self._beta = Beta((rank + 0.5).expand(tuple(top.shape)), top, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(LKJCholesky, _instance)
        shape = tuple(as_size(batch_shape))
        new.dim, new.concentration = self.dim, self.concentration.expand(shape)
        new._beta = self._beta.expand((*shape, self.dim))
        Distribution.__init__(new, shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def sample(self, sample_shape: Any = ()) -> Tensor:
        c = self.concentration
        length = self._beta.sample(sample_shape).unsqueeze(-1)
        direction = standard_normal(self._extended_shape(sample_shape), c.detach()).tril(-1)
        norm = direction.norm(dim=-1, keepdim=True)
        below = length.sqrt() * (direction / ops.where(norm == 0, 1.0, norm))
        diag = (1 - below.pow(2).sum(-1)).clamp(min=finfo_of(c).tiny).sqrt()
        return below + diag.diag_embed()

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        c, n = self.concentration, self.dim - 1
        order = 2 * (c - 1).unsqueeze(-1) + self.dim - ops.arange(2, self.dim + 1, dtype=c.dtype, device=c.device)
        density = (order * value.diagonal(dim1=-2, dim2=-1)[..., 1:].log()).sum(-1)
        alpha = c + 0.5 * n
        return density - (0.5 * n * math.log(math.pi) + ops.mvlgamma(alpha - 0.5, n) - n * ops.lgamma(alpha))

    def __repr__(self) -> str:
        c = self.concentration
        return f"LKJCholesky(concentration: {c if c.numel() == 1 else c.size()})"
