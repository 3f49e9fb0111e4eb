"""Gradients against finite differences."""
from __future__ import annotations

import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import GraphcError
from ..tensor import Tensor, from_numpy_copy
from .functional import grad


class GradcheckError(GraphcError, RuntimeError):
    """An analytical gradient differs from the numerical one."""


def _outputs(out: Any) -> list[Tensor]:
    return [o for o in (out if isinstance(out, (tuple, list)) else [out])
            if isinstance(o, Tensor) and o.dtype.is_floating_point and o.requires_grad]


def _numerical(func: Callable[..., Any], inputs: Sequence[Any], k: int, eps: float) -> list[np.ndarray]:
    """d outputs / d inputs[k] by central differences: one (input size, output size) matrix per output."""
    base = inputs[k].detach().numpy().copy()
    columns = []
    for i in range(base.size):
        sides = []
        for sign in (eps, -eps):
            moved = base.copy()
            moved.reshape(-1)[i] += sign
            args = [from_numpy_copy(moved).requires_grad_(True) if j == k else x for j, x in enumerate(inputs)]
            sides.append([o.detach().numpy().astype(np.float64).reshape(-1).copy() for o in _outputs(func(*args))])
        columns.append([(a - b) / (2 * eps) for a, b in zip(*sides)])
    return [np.array([c[n] for c in columns]).reshape(base.size, -1) for n in range(len(columns[0]) if columns else 0)]


def gradcheck(func: Callable[..., Any], inputs: Any, *, eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3,
              raise_exception: bool = True, **_: Any) -> bool:
    """Whether ``func``'s gradients agree with central differences of step ``eps`` for every floating input that requires them.

    Meant for float64 inputs. Raises GradcheckError (a RuntimeError) where they differ, or returns False without
    ``raise_exception``; ValueError if no input requires a gradient.
    """
    args = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
    wanted = [k for k, x in enumerate(args) if isinstance(x, Tensor) and x.requires_grad]
    if not wanted:
        raise ValueError("gradcheck expects at least one input tensor to require gradient, but none of the them have "
                         "requires_grad=True.")
    outs = _outputs(func(*args))
    for k in wanted:
        numeric = _numerical(func, args, k, eps)
        for n, out in enumerate(outs):
            size = out.numel()
            mine = np.zeros((args[k].numel(), size))
            for j in range(size):
                one = np.zeros(size, out.dtype.np)
                one[j] = 1
                weight = from_numpy_copy(one.reshape(tuple(out.shape)))
                (g,) = grad(out, [args[k]], weight, retain_graph=True, allow_unused=True)
                if g is not None:
                    mine[:, j] = g.numpy().reshape(-1)
            if not np.allclose(mine, numeric[n], rtol, atol):
                if not raise_exception:
                    return False
                raise GradcheckError(f"Jacobian mismatch for output {n} with respect to input {k},\nnumerical:{numeric[n]}\n"
                                     f"analytical:{mine}\n")
    return True


def gradgradcheck(func: Callable[..., Any], inputs: Any, grad_outputs: Any = None, *, eps: float = 1e-6, atol: float = 1e-5,
                  rtol: float = 1e-3, raise_exception: bool = True, **_: Any) -> bool:
    """:func:`gradcheck` of the gradients themselves, weighted by ``grad_outputs`` (by default numbers between 0.5 and 1.5)."""
    args = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
    wanted = [k for k, x in enumerate(args) if isinstance(x, Tensor) and x.requires_grad]
    rng = np.random.default_rng(0)
    if grad_outputs is None:
        weights = [from_numpy_copy((rng.random(tuple(o.shape)) + 0.5).astype(o.dtype.np)) for o in _outputs(func(*args))]
    else:
        weights = list(grad_outputs) if isinstance(grad_outputs, (tuple, list)) else [grad_outputs]

    def first(*xs: Any) -> Any:
        outs = _outputs(func(*xs))
        grads = grad(outs, [xs[k] for k in wanted], weights, create_graph=True, allow_unused=True)
        return tuple(g for g in grads if g is not None)

    return gradcheck(first, args, eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception)


__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]


class _Callable(types.ModuleType):
    """This module, which hides the function of its name once something imports it, can be called as that function."""

    def __call__(self, *args: Any, **kwargs: Any) -> bool:
        return gradcheck(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
