"""Kernels for the primitives that are no loops over their result: which launches carry out a node."""
from __future__ import annotations

from collections.abc import Callable

from . import attention, order, scan, scatter, scored
from .library_row import Library, Made


def library_kernels(x: Library) -> list[Made] | None:
    """The launches that compute a node, in order; None where there is no kernel."""
    row = _ROWS.get(x.node.op.name)  # type: ignore[union-attr]
    return None if row is None else row(x)


_ROWS: dict[str, Callable[[Library], list[Made] | None]] = {
    "take_put": scatter.take_put, "scatter": scatter.scatter, "sdpa": attention.sdpa, "sdpa_backward": attention.sdpa_backward,
    "scored_attention": scored.scored, "scored_attention_backward": scored.scored_backward,
    "scan": scan.scan, "sort": order.sort, "topk": order.topk, "searchsorted": order.searchsorted}

__all__ = ["Library", "Made", "library_kernels"]
