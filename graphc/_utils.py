"""``torch._utils``: dense lists of tensors as one vector, and back."""
from __future__ import annotations

from collections.abc import Sequence

from . import ops
from .tensor import Tensor


def _flatten_dense_tensors(tensors: Sequence[Tensor]) -> Tensor:
    """All elements in one vector (a copy)."""
    return ops.cat([t.reshape(-1) for t in tensors])


def _unflatten_dense_tensors(flat: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Parts of ``flat`` with the shapes of ``tensors`` (views)."""
    parts = ops.split(flat, [t.numel() for t in tensors])
    return tuple([p.view(tuple(t.shape)) for p, t in zip(parts, tensors)])


def _rebuild_parameter(data: Tensor, requires_grad: bool, backward_hooks: object = None) -> Tensor:
    """A parameter of ``data``, as pickles of checkpoints name it."""
    from .nn import Parameter

    return Parameter(data, requires_grad)
