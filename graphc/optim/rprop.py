"""Resilient backpropagation (Riedmiller and Braun, 1993): only the signs of gradients count."""
from __future__ import annotations

from typing import Any

from ..ops.indexing import where
from ..tensor import Tensor
from ._scalars import advance, scalar
from .optimizer import Optimizer, check_lr, rate, zeros


class Rprop(Optimizer):
    """Each element's step grows by ``etas[1]`` while its gradient keeps its sign and shrinks by ``etas[0]`` at a change.

    Raises ValueError unless ``0 < etas[0] < 1 < etas[1]``, and for a negative ``lr`` (the first step size).
    """

    def __init__(self, params: Any, lr: Any = 1e-2, etas: tuple[float, float] = (0.5, 1.2),
                 step_sizes: tuple[float, float] = (1e-6, 50), *, capturable: bool = False, foreach: bool | None = None,
                 maximize: bool = False, differentiable: bool = False):
        check_lr(lr)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}")
        super().__init__(params, dict(lr=lr, etas=etas, step_sizes=step_sizes, foreach=foreach, maximize=maximize,
                                      differentiable=differentiable, capturable=capturable))

    def _update(self, p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state["step"], state["prev"] = scalar(0.0), zeros(p)
            state["step_size"] = zeros(p).add_(rate(group))
        advance(state)
        g: Any = -p.grad if group["maximize"] else p.grad  # type: ignore[operator]
        down, up = group["etas"]
        low, high = group["step_sizes"]
        product = g * state["prev"]
        turned = product < 0
        size = state["step_size"]
        size.copy_(where(product > 0, size * up, where(turned, size * down, size)).clamp(low, high))
        g = where(turned, 0.0, g)
        p.addcmul_(g.sign(), size, value=-1)
        state["prev"].copy_(g)
