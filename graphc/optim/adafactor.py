"""Adafactor: second moments of a matrix kept as one row and one column (Shazeer and Stern, 2018)."""
from __future__ import annotations

from typing import Any

from ..dtypes import finfo
from ..ops.pointwise import minimum
from ..ops.reduction import norm
from ..tensor import Tensor
from ._scalars import advance, scalar
from .optimizer import Optimizer, check_lr, descent, positive, rate


class Adafactor(Optimizer):
    """beta2 = 1 - t^beta2_decay; the update g / sqrt(v) is clipped to RMS ``d`` and scaled by max(eps[1], RMS(p)) and
    min(lr, 1/sqrt(t)). ValueError for values out of range."""

    def __init__(self, params: Any, lr: Any = 1e-2, beta2_decay: float = -0.8, eps: tuple[float | None, float] = (None, 1e-3),
                 d: float = 1.0, weight_decay: float = 0.0, *, foreach: bool | None = None, maximize: bool = False):
        check_lr(lr)
        if beta2_decay > 0:
            raise ValueError(f"beta2_decay should be <= 0 but is: {beta2_decay}")
        if eps[0] is not None:
            positive("epsilon1", eps[0])
        positive("epsilon2", eps[1])
        if d < 1:
            raise ValueError(f"Clipping threshold d should be >= 1 but is: {d}")
        positive("weight_decay", weight_decay)
        super().__init__(params, dict(lr=lr, beta2_decay=beta2_decay, eps=eps, d=d, weight_decay=weight_decay, foreach=foreach,
                                      maximize=maximize))

    def _update(self, p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        matrix = p.ndim > 1
        if not state:
            state["step"] = scalar(0.0)
            if matrix:
                state["row_var"] = p.new_zeros((*p.shape[:-1], 1))
                state["col_var"] = p.new_zeros((*p.shape[:-2], 1, p.shape[-1]))
            else:
                state["variance"] = p.new_zeros(tuple(p.shape))
        t = advance(state)
        plain = dict(group, weight_decay=0)  # the decay is not part of the gradient
        g = descent(p, plain)
        eps1, eps2 = group["eps"]
        eps1 = finfo(p.dtype).eps if eps1 is None else eps1
        new = t ** group["beta2_decay"]  # 1 - beta2
        lr = rate(group)
        step = minimum(_tensor(lr, t), t ** -0.5) * (norm(p, 2) / p.numel() ** 0.5).clamp(min=eps2)
        if group["weight_decay"] != 0:
            p.mul_(1 - lr * group["weight_decay"])
        if matrix:
            row, col = state["row_var"], state["col_var"]
            row.copy_(row + (g.square().mean(-1, keepdim=True) - row) * new)
            col.copy_(col + (g.square().mean(-2, keepdim=True) - col) * new)
            v = (row @ col) / row.mean(-2, keepdim=True).clamp(min=eps1)
        else:
            v = state["variance"]
            v.copy_(v + (g.square() - v) * new)
        update = v.clamp(min=eps1 * eps1).rsqrt() * g
        clip = (norm(update, 2) / (update.numel() ** 0.5 * group["d"])).clamp(min=1.0)
        p.sub_((update * (step / clip)).to(p.dtype))


def _tensor(value: Any, like: Any) -> Any:
    return value if isinstance(value, Tensor) else like * 0 + value
