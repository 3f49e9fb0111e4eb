"""``torch.nn._reduction``: the older pair of flags for ``reduction``."""
from __future__ import annotations

from ._args import legacy_reduction


def get_enum(reduction: str) -> int:
    """0, 1 or 2 for "none", "mean" and "sum"."""
    if reduction not in ("none", "mean", "elementwise_mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return {"none": 0, "sum": 2}.get(reduction, 1)


def legacy_get_string(size_average: bool | None, reduce: bool | None, emit_warning: bool = True) -> str:
    """``reduction`` for the older flags."""
    if size_average is None and reduce is None:
        return "mean"
    if emit_warning:
        return legacy_reduction(size_average, reduce, "mean")
    return "none" if reduce is False else "sum" if size_average is False else "mean"
