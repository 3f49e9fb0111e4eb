"""``torch.sparse``: tensors are dense."""
from __future__ import annotations

from ._absent import absent_function

_INSTEAD = "tensors are dense: zeros(size).index_put_(tuple(indices), values, accumulate=True) builds one from coordinates"

sparse_coo_tensor, sparse_csr_tensor, sparse_csc_tensor, sparse_bsr_tensor, sparse_compressed_tensor = [
    absent_function(n, _INSTEAD) for n in ("sparse_coo_tensor", "sparse_csr_tensor", "sparse_csc_tensor", "sparse_bsr_tensor",
                                           "sparse_compressed_tensor")]
mm, addmm, sum, softmax, log_softmax = [
    absent_function(f"sparse.{n}", f"tensors are dense: use graphc.{n}")
    for n in ("mm", "addmm", "sum", "softmax", "log_softmax")]

__all__ = ["addmm", "log_softmax", "mm", "softmax", "sum"]
