"""Every exception graphc raises on purpose.

Each class also subclasses the type PyTorch raises for the same mistake, so ``except RuntimeError`` in existing
programs keeps working. Messages state the op, the shapes and dtypes involved, what is wrong and one hint.
"""
from __future__ import annotations


class GraphcError(Exception):
    """Base of all graphc errors."""


class ShapeError(GraphcError, RuntimeError):
    """Shapes that do not fit an operation."""


class DTypeError(GraphcError, RuntimeError):
    """A dtype the operation does not accept, or dtypes that must agree and do not."""


class DeviceError(GraphcError, RuntimeError):
    """An unknown or unavailable device, or tensors on different devices."""


class DimError(GraphcError, IndexError):
    """A dimension out of range."""


class IndexOutOfRangeError(GraphcError, IndexError, RuntimeError):
    """An index outside the indexed dimension; raised when the data is read, with the line that recorded the op."""


class ArgumentError(GraphcError, ValueError):
    """A value outside what the operation allows."""


class ArgumentTypeError(GraphcError, TypeError):
    """An argument of the wrong Python type."""


class AutogradError(GraphcError, RuntimeError):
    """Misuse of automatic differentiation."""


class GraphBreakError(GraphcError, RuntimeError):
    """A value was read on the host inside a ``fullgraph=True`` region."""


class StaleReplayError(GraphcError, RuntimeError):
    """An audit under ``mode="replay"`` found that the recorded program has changed."""


class CompileError(GraphcError, RuntimeError):
    """A kernel or plan could not be built."""


class VerifyError(GraphcError, RuntimeError):
    """An IR invariant does not hold: a bug in graphc."""


class CheckpointError(GraphcError, RuntimeError):
    """A checkpoint that is damaged, foreign, or refused for safety."""


class OutOfMemoryError(GraphcError, RuntimeError):
    """An allocation failed; the message lists what holds memory."""


class NonFiniteError(GraphcError, FloatingPointError, RuntimeError):
    """A NaN or infinity where none is allowed."""


class LinAlgError(GraphcError, RuntimeError):
    """A matrix operation that has no result (singular, not positive definite, no convergence)."""
