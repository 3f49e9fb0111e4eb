"""Draws made on the host by NumPy (rejection methods), keyed by graphc's generator, and the gradient of gamma draws."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import ops
from ..autograd.function import Function
from ..dtypes import finfo
from ..ir.prims import special
from ..ops.random import default_generator
from ..tensor import Tensor, from_array, to_numpy

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)
_NEGLIGIBLE = -50.0  # e^-50 is below the rounding of the sum


def stream() -> np.random.Generator:
    """A NumPy generator that continues graphc's default generator: equal seeds give equal draws."""
    g = default_generator
    return np.random.Generator(np.random.Philox(key=[g._seed, g.reserve(4)]))


def draw(sampler: Callable[..., Any], like: Tensor, *parameters: Tensor) -> Tensor:
    """``sampler(rng, *float64 arrays)`` as a tensor of ``like``'s dtype and device. Evaluates the parameters."""
    arrays = [to_numpy(p.detach()).astype(np.float64) for p in parameters]
    out = np.asarray(sampler(stream(), *arrays))
    return from_array(out.astype(like.dtype.np), dev=like.device)


def log_gamma_draws(rng: np.random.Generator, concentration: np.ndarray) -> np.ndarray:
    """Logarithms of standard gamma draws. Below concentration 1: G(a) = G(a + 1) U^(1/a), which never underflows as a
    logarithm (Marsaglia and Tsang 2000, section 6)."""
    small = concentration < 1
    g = np.log(rng.standard_gamma(concentration + small))
    u = 1.0 - rng.random(concentration.shape)
    return g + np.where(small, np.log(u) / concentration, 0.0)


def gamma_sensitivity(log_x: np.ndarray, a: np.ndarray) -> np.ndarray:
    """d log(x) / da of a standard gamma draw x at a fixed quantile: implicit differentiation, -(dF/da) / (x p(x)).

    Figurnov, Mohamed and Mnih 2018, "Implicit reparameterization gradients". With t = x e^(-w) (or x e^w, for the
    complement) the quotient is the integral of exp(h(w)) (|log x - psi(a)| + w) over w > 0, where
    h = x (1 - e^(-w)) - a w (or x (1 - e^w) + a w): the tail is chosen in which the integrand is positive, so nothing
    cancels. Gauss-Legendre up to where exp(h) is negligible.
    """
    c = log_x - special.digamma(a)
    sign = np.where(c < 0, -1.0, 1.0)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        x = np.exp(log_x)

        def h(w: np.ndarray) -> np.ndarray:
            return np.where(log_x < -500, -np.exp(log_x + sign * w), -x * np.expm1(sign * w)) + sign * a * w  # no 0 * inf

        end = np.full_like(x, 1e-12)
        step = 4.0
        while step > 1.001:  # the largest multiple still above the threshold, to 0.1 per cent
            for _ in range(64):
                grow = h(end * step) > _NEGLIGIBLE
                if not grow.any():
                    break
                end = np.where(grow, end * step, end)
            step **= 0.5
        end = end * 1.001
        total = np.zeros_like(x)
        last = np.minimum(end / 3, 10.0)  # where x e^w passes 1 the integrand drops within a few units of w
        for left, half in ((0 * end, end / 2 - last), (end - 2 * last, last / 2), (end - last, last / 2)):
            for node, weight in zip(_NODES, _WEIGHTS):
                w = left + half * (1 + node)
                total += half * weight * np.exp(h(w)) * (np.abs(c) + w)
    return total


class _LogGamma(Function):
    """Logarithm of standard gamma draws, differentiable in the concentration once."""

    @staticmethod
    def forward(ctx: Any, concentration: Tensor) -> Tensor:  # type: ignore[override]
        a = to_numpy(concentration.detach()).astype(np.float64)
        log_x = log_gamma_draws(stream(), a)
        np_dtype, dev = concentration.dtype.np, concentration.device
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(from_array(gamma_sensitivity(log_x, a).astype(np_dtype), dev=dev))
        return from_array(log_x.astype(np_dtype), dev=dev)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (sensitivity,) = ctx.saved_tensors
        return grad * sensitivity


def log_standard_gamma(concentration: Tensor) -> Tensor:
    """Logarithms of standard gamma draws, elementwise."""
    return _LogGamma.apply(concentration)


def standard_gamma(concentration: Tensor) -> Tensor:
    """Standard gamma draws, elementwise, never zero."""
    return ops.exp(log_standard_gamma(concentration)).clamp(min=finfo(concentration.dtype).tiny)
