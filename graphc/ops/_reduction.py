"""The ``reduction`` argument of the losses and its two predecessors."""
from __future__ import annotations

import warnings
from typing import Any

from ..errors import ArgumentError
from ..ir import build as P
from ..ir.composites._common import acc_dtype
from ..ir.node import Value


def reduction_name(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """``none``, ``mean`` or ``sum``. Raises ValueError for anything else."""
    if size_average is not None or reduce is not None:
        average = size_average is None or size_average
        reduction = "none" if not (reduce is None or reduce) else "mean" if average else "sum"
        warnings.warn("size_average and reduce args will be deprecated, please use "
                      f"reduction='{reduction}' instead.", stacklevel=4)
    if reduction not in ("none", "mean", "sum"):
        raise ArgumentError(f"{reduction} is not a valid value for reduction")
    return reduction


def reduced(v: Value, reduction: str) -> Value:
    """``v`` as it is, its mean or its sum; 16-bit floats are summed in float32."""
    if reduction == "none":
        return v
    dt = v.aval.dtype
    total = P.sum(P.cast(v, acc_dtype(dt)))
    if reduction == "mean":
        total = P.div(total, v.aval.size) if v.aval.size else P.div(total, P.zeros_like(total))
    return P.cast(total, dt)


def finish(v: Value, reduction: str) -> Any:
    """:func:`reduced` as a Tensor."""
    from ..tensor import wrap

    return wrap(reduced(v, reduction))
