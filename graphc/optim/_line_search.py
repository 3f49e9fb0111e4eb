"""Line search for the strong Wolfe conditions (Nocedal and Wright, 2006, algorithms 3.5 and 3.6)."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..tensor import Tensor

SUFFICIENT, CURVATURE = 1e-4, 0.9  # c1 and c2 of the Wolfe conditions
Evaluate = Callable[[float], tuple[float, Tensor]]


class _Point:
    """The function along the search direction at one step size: value, gradient, slope."""

    __slots__ = ("t", "f", "g", "slope")

    def __init__(self, t: float, f: float, g: Tensor, slope: float):
        self.t, self.f, self.g, self.slope = t, f, g, slope


def cubic_minimum(a: Any, b: Any, bounds: tuple[float, float] | None = None) -> float:
    """Where the cubic through two points with their slopes is least, kept inside ``bounds`` (equation 3.59)."""
    low, high = bounds if bounds is not None else (a.t, b.t) if a.t <= b.t else (b.t, a.t)
    d1 = a.slope + b.slope - 3 * (a.f - b.f) / (a.t - b.t)
    square = d1**2 - a.slope * b.slope
    if not square >= 0:
        return (low + high) / 2.0
    d2 = square**0.5
    if a.t <= b.t:
        at = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2))
    else:
        at = a.t - (a.t - b.t) * ((a.slope + d2 - d1) / (a.slope - b.slope + 2 * d2))
    return min(max(at, low), high)


def strong_wolfe(evaluate: Evaluate, t: float, d: Tensor, f: float, g: Tensor, slope: float, *, max_ls: int = 25,
                 tolerance_change: float = 1e-9) -> tuple[float, Tensor, float, int]:
    """``(loss, gradient, step size, evaluations)`` at an acceptable step along ``d``.

    ``evaluate(t)`` gives loss and flat gradient at step size ``t``; ``f``, ``g`` and ``slope`` are those at 0.
    """

    def at(t: float) -> _Point:
        value, grad = evaluate(t)
        return _Point(t, value, grad, grad.dot(d).item())

    def too_high(p: _Point) -> bool:
        return p.f > f + SUFFICIENT * p.t * slope

    bracket, done, n = _bracket(at, too_high, t, _Point(0.0, f, g, slope), max_ls)
    evaluations = n + 1
    scale = d.abs().max().item()
    stalled = False
    low, high = (0, 1) if bracket[0].f <= bracket[-1].f else (1, 0)
    while not done and n < max_ls:
        if abs(bracket[1].t - bracket[0].t) * scale < tolerance_change:
            break
        t, stalled = _next_size(bracket, stalled)
        new = at(t)
        evaluations += 1
        n += 1
        if too_high(new) or new.f >= bracket[low].f:
            bracket[high] = new
            low, high = (0, 1) if bracket[0].f <= bracket[1].f else (1, 0)
            continue
        if abs(new.slope) <= -CURVATURE * slope:
            done = True
        elif new.slope * (bracket[high].t - bracket[low].t) >= 0:
            bracket[high] = bracket[low]
        bracket[low] = new
    best = bracket[low]
    return best.f, best.g, best.t, evaluations


def _bracket(at: Callable[[float], _Point], too_high: Callable[[_Point], bool], t: float, start: _Point,
             max_ls: int) -> tuple[list[_Point], bool, int]:
    """Extend the step until an interval holding an acceptable one, or an acceptable one itself, is found."""
    prev, new = start, at(t)
    for n in range(max_ls):
        if too_high(new) or (n > 1 and new.f >= prev.f):
            return [prev, new], False, n
        if abs(new.slope) <= -CURVATURE * start.slope:
            return [new], True, n
        if new.slope >= 0:
            return [prev, new], False, n
        bounds = (new.t + 0.01 * (new.t - prev.t), new.t * 10)
        t = cubic_minimum(prev, new, bounds)
        prev, new = new, at(t)
    return [start, new], False, max_ls


def _next_size(bracket: list[_Point], stalled: bool) -> tuple[float, bool]:
    """The cubic minimum inside the bracket, moved away from an end it came close to twice."""
    t = cubic_minimum(bracket[0], bracket[1])
    left, right = sorted((bracket[0].t, bracket[1].t))
    eps = 0.1 * (right - left)
    if min(right - t, t - left) >= eps:
        return t, False
    if not stalled and left < t < right:
        return t, True
    return (right - eps if abs(t - right) < abs(t - left) else left + eps), False
