"""Adam (Kingma and Ba, 2015); AMSGrad variant (Reddi et al., 2018)."""
from __future__ import annotations

from functools import cache, partial
from typing import Any

from ..dtypes import dtype
from ..ops.optim_steps import Hyper, adam_apply, adam_hyper, for_each, hyper_dtype
from ..tensor import Tensor
from ._scalars import advance_all, scalar
from .optimizer import Optimizer, check_betas, check_fused, check_lr, positive, zeros


class Adam(Optimizer):
    """p -= lr * m_hat / (sqrt(v_hat) + eps) with bias-corrected moments; ``weight_decay`` is added to the gradient.

    With ``amsgrad`` v_hat uses the largest v so far; with ``decoupled_weight_decay`` it is AdamW. Raises ValueError for
    hyper-parameters out of range and for one beta being a float, the other a Tensor.
    """

    def __init__(self, params: Any, lr: Any = 1e-3, betas: tuple[Any, Any] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, amsgrad: bool = False, *, foreach: bool | None = None, maximize: bool = False,
                 capturable: bool = False, differentiable: bool = False, fused: bool | None = None,
                 decoupled_weight_decay: bool = False):
        if isinstance(lr, Tensor) and foreach and not capturable:
            raise ValueError("lr as a Tensor is not supported for capturable=False and foreach=True")
        check_lr(lr)
        positive("epsilon value", eps)
        for i in (0, 1):
            if isinstance(betas[i], Tensor) and betas[i].numel() != 1:
                raise ValueError(f"Tensor betas[{i}] must be 1-element")
        check_betas(betas)
        positive("weight_decay value", weight_decay)
        _check_kinds(betas, bool(foreach) and not capturable)
        betas = tuple([b.reshape(()) if isinstance(b, Tensor) else b for b in betas])  # type: ignore[assignment]
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad,
                                      maximize=maximize, foreach=foreach, capturable=capturable,
                                      differentiable=differentiable, fused=fused,
                                      decoupled_weight_decay=decoupled_weight_decay))
        check_fused(fused, foreach, differentiable)

    def _update_group(self, group: dict[str, Any], params: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        decay, amsgrad, decoupled = group["weight_decay"], group["amsgrad"], group["decoupled_weight_decay"]
        decay_on = isinstance(decay, Tensor) or decay != 0
        states = [self.state[p] for p in params]
        names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if amsgrad else ("exp_avg", "exp_avg_sq")
        for p, state in zip(params, states):
            if not state:
                state["step"] = scalar(0.0)
                state.update({name: zeros(p) for name in names})

        @cache
        def hyper(t: int, dt: dtype) -> Hyper:
            return adam_hyper(dt, lr=group["lr"], beta1=beta1, beta2=beta2, eps=group["eps"], weight_decay=decay,
                              bias_correction1=1 - beta1**t, bias_correction2_sqrt=(1 - beta2**t) ** 0.5, decoupled=decoupled)

        steps = advance_all(states)
        hypers = for_each(params, partial(hyper, steps[0])) if len({*steps}) == 1 else \
            [hyper(t, hyper_dtype(p)) for t, p in zip(steps, params)]
        moments = [[state[name] for state in states] for name in names]
        adam_apply(params, [p._grad for p in params], moments, hypers, decay_on=decay_on,  # type: ignore[misc]
                   decoupled=decoupled, amsgrad=amsgrad, maximize=group["maximize"])


def _check_kinds(betas: tuple[Any, Any], no_tensors: bool) -> None:
    floats = all(isinstance(b, float) for b in betas)
    if not floats and not all(isinstance(b, Tensor) for b in betas):
        raise ValueError("betas must be either both floats or both Tensors")
    if not floats and no_tensors:
        raise ValueError("betas[0] as a Tensor is not supported for capturable=False and foreach=True")
