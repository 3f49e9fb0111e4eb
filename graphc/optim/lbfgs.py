"""L-BFGS (Nocedal and Wright, Numerical Optimization, 2006, chapter 7) with an optional strong-Wolfe line search.

The line search branches on values, so each evaluation of the closure is one compiled step followed by one read.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd.mode import enable_grad, no_grad
from ..ops.creation import zeros
from ..ops.joining import cat
from ..tensor import Tensor
from ._line_search import strong_wolfe
from .optimizer import Optimizer, check_lr, number_of

_CURVATURE = 1e-10  # pairs with y.s below this would make the approximation lose positive definiteness
_MEMORY = ("d", "t", "old_dirs", "old_stps", "ro", "H_diag", "prev_flat_grad", "prev_loss")


class LBFGS(Optimizer):
    """Quasi-Newton steps from the last ``history_size`` gradient changes; ``step`` needs a closure.

    One parameter group only (ValueError). All state is kept under the first parameter, as in PyTorch.
    """

    def __init__(self, params: Any, lr: Any = 1, max_iter: int = 20, max_eval: int | None = None,
                 tolerance_grad: float = 1e-7, tolerance_change: float = 1e-9, history_size: int = 100,
                 line_search_fn: str | None = None):
        check_lr(lr)
        if max_eval is None:
            max_eval = max_iter * 5 // 4
        super().__init__(params, dict(lr=lr, max_iter=max_iter, max_eval=max_eval, tolerance_grad=tolerance_grad,
                                      tolerance_change=tolerance_change, history_size=history_size,
                                      line_search_fn=line_search_fn))
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")

    @property
    def _params(self) -> list[Tensor]:
        return self.param_groups[0]["params"]

    # ------------------------------------------------------------------------------------------ parameters as one vector
    def _flat_grad(self) -> Tensor:
        return cat([zeros(p.numel(), dtype=p.dtype, device=p.device) if p.grad is None else p.grad.reshape(-1)
                    for p in self._params], 0)

    def _move(self, size: float, direction: Tensor) -> None:
        offset = 0
        for p in self._params:
            p.add_(direction[offset:offset + p.numel()].view_as(p), alpha=size)
            offset += p.numel()

    def _evaluate_at(self, closure: Callable[[], Any], start: list[Tensor], t: float, d: Tensor) -> tuple[float, Tensor]:
        self._move(t, d)
        loss = float(closure())
        grad = self._flat_grad()
        for p, value in zip(self._params, start):
            p.copy_(value)
        return loss, grad

    # ------------------------------------------------------------------------------------------------------------- step
    @no_grad()
    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """Up to ``max_iter`` quasi-Newton iterations; returns the loss the first evaluation gave."""
        evaluate = enable_grad()(closure)
        group = self.param_groups[0]
        state = self.state[self._params[0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        first = evaluate()
        state["func_evals"] += 1
        grad = self._flat_grad()
        if _largest(grad) <= group["tolerance_grad"]:
            return first
        self._iterate(evaluate, group, state, float(first), grad)
        return first

    def _iterate(self, closure: Callable[[], Any], group: dict[str, Any], state: dict[str, Any], loss: float,
                 grad: Tensor) -> None:
        memory: dict[str, Any] = {k: state.get(k) for k in _MEMORY}
        lr, change, evals = number_of(group["lr"]), group["tolerance_change"], 1
        for n in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            fresh = state["n_iter"] == 1
            if fresh:
                memory.update(d=grad.neg(), old_dirs=[], old_stps=[], ro=[], H_diag=1)
            else:
                _remember(memory, grad, group["history_size"])
                memory["d"] = _direction(memory, grad)
            d = memory["d"]
            memory["prev_flat_grad"], memory["prev_loss"] = grad.clone(), loss
            memory["t"] = t = min(1.0, 1.0 / grad.abs().sum().item()) * lr if fresh else lr
            slope = grad.dot(d).item()
            if slope > -change:
                break
            used = 0
            if group["line_search_fn"] is not None:
                loss, grad, t, used = self._search(closure, group, t, d, (loss, grad, slope), evals)
                memory["t"] = t
                self._move(t, d)
            else:
                self._move(t, d)
                if n != group["max_iter"]:
                    loss, used = float(closure()), 1
                    grad = self._flat_grad()
            evals += used
            state["func_evals"] += used
            if (n == group["max_iter"] or evals >= group["max_eval"] or _largest(grad) <= group["tolerance_grad"]
                    or _largest(d.mul(t)) <= change or abs(loss - memory["prev_loss"]) < change):
                break
        state.update(memory)

    def _search(self, closure: Callable[[], Any], group: dict[str, Any], t: float, d: Tensor,
                at: tuple[float, Tensor, float], evals: int) -> tuple[float, Tensor, float, int]:
        if group["line_search_fn"] != "strong_wolfe":
            raise RuntimeError("only 'strong_wolfe' is supported")
        start = [p.clone() for p in self._params]
        return strong_wolfe(lambda t: self._evaluate_at(closure, start, t, d), t, d, *at,
                            max_ls=group["max_eval"] - evals)


def _largest(x: Tensor) -> float:
    return x.abs().max().item()


def _remember(memory: dict[str, Any], grad: Tensor, history_size: int) -> None:
    """Add the newest pair (s, y) of step and gradient change where its curvature is positive."""
    y, s = grad.sub(memory["prev_flat_grad"]), memory["d"].mul(memory["t"])
    ys = y.dot(s)
    if ys.item() <= _CURVATURE:
        return
    if len(memory["old_dirs"]) == history_size:
        for name in ("old_dirs", "old_stps", "ro"):
            memory[name].pop(0)
    memory["old_dirs"].append(y)
    memory["old_stps"].append(s)
    memory["ro"].append(1.0 / ys)
    memory["H_diag"] = ys / y.dot(y)


def _direction(memory: dict[str, Any], grad: Tensor) -> Tensor:
    """The two-loop recursion: minus the approximate inverse Hessian times the gradient."""
    dirs, steps, ro = memory["old_dirs"], memory["old_stps"], memory["ro"]
    q = grad.neg()
    al: list[Any] = [None] * len(dirs)
    for i in range(len(dirs) - 1, -1, -1):
        al[i] = steps[i].dot(q) * ro[i]
        q = q - dirs[i] * al[i]
    r = q * memory["H_diag"]
    for i in range(len(dirs)):
        r = r + steps[i] * (al[i] - dirs[i].dot(r) * ro[i])
    return r
