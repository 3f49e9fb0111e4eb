"""Transforms from unconstrained space onto constraints: ``biject_to`` (bijections) and ``transform_to`` (any)."""
from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any

from . import constraints as C
from . import transforms as T


class ConstraintRegistry:
    """Kinds of constraints and the functions that make a transform for one."""

    def __init__(self) -> None:
        self._makers: dict[type, Callable[[Any], T.Transform]] = {}

    def register(self, constraint: Any, factory: Callable[[Any], T.Transform] | None = None) -> Any:
        """Enter ``factory`` for a constraint (or its class); without factory a decorator."""
        if factory is None:
            return lambda f: self.register(constraint, f)
        kind = type(constraint) if isinstance(constraint, C.Constraint) else constraint
        if not isinstance(kind, type) or not issubclass(kind, C.Constraint):
            raise TypeError(f"Expected constraint to be either a Constraint subclass or instance, but got {constraint}")
        self._makers[kind] = factory
        return factory

    def __call__(self, constraint: C.Constraint) -> T.Transform:
        """A transform whose codomain is ``constraint``; NotImplementedError for kinds without one."""
        maker = self._makers.get(type(constraint))
        if maker is None:
            raise NotImplementedError(f"Cannot transform {type(constraint).__name__} constraints")
        return maker(constraint)


biject_to, transform_to = ConstraintRegistry(), ConstraintRegistry()


def _both(*kinds: Any) -> Callable[[Callable[[Any], T.Transform]], Callable[[Any], T.Transform]]:
    def decorate(f: Callable[[Any], T.Transform]) -> Callable[[Any], T.Transform]:
        for kind in kinds:
            biject_to.register(kind, f)
            transform_to.register(kind, f)
        return f

    return decorate


@_both(C.real)
def _real(constraint: Any) -> T.Transform:
    return T.identity_transform


@_both(C.greater_than, C.greater_than_eq)
def _above(constraint: Any) -> T.Transform:
    low = constraint.lower_bound
    if isinstance(low, numbers.Number) and low == 0:
        return T.ExpTransform()
    return T.ComposeTransform([T.ExpTransform(), T.AffineTransform(low, 1)])


@_both(C.less_than)
def _below(constraint: Any) -> T.Transform:
    return T.ComposeTransform([T.ExpTransform(), T.AffineTransform(constraint.upper_bound, -1)])


@_both(C.interval, C.half_open_interval)
def _between(constraint: Any) -> T.Transform:
    low, high = constraint.lower_bound, constraint.upper_bound
    if isinstance(low, numbers.Number) and isinstance(high, numbers.Number) and (low, high) == (0, 1):
        return T.SigmoidTransform()
    return T.ComposeTransform([T.SigmoidTransform(), T.AffineTransform(low, high - low)])


biject_to.register(C.independent, lambda c: T.IndependentTransform(biject_to(c.base_constraint), c.reinterpreted_batch_ndims))
transform_to.register(C.independent,
                      lambda c: T.IndependentTransform(transform_to(c.base_constraint), c.reinterpreted_batch_ndims))
biject_to.register(C.simplex, lambda c: T.StickBreakingTransform())
transform_to.register(C.simplex, lambda c: T.SoftmaxTransform())
biject_to.register(C.corr_cholesky, lambda c: T.CorrCholeskyTransform())


def _matrices_and_parts(registry: ConstraintRegistry) -> None:
    registry.register(C.lower_cholesky, lambda c: T.LowerCholeskyTransform())
    registry.register(C.positive_definite, lambda c: T.PositiveDefiniteTransform())
    registry.register(C.cat, lambda c: T.CatTransform([registry(p) for p in c.cseq], c.dim, c.lengths))
    registry.register(C.stack, lambda c: T.StackTransform([registry(p) for p in c.cseq], c.dim))


_matrices_and_parts(biject_to)
_matrices_and_parts(transform_to)
transform_to.register(C.corr_cholesky, lambda c: T.CorrCholeskyTransform())

__all__ = ["ConstraintRegistry", "biject_to", "transform_to"]
