"""``torch.functional``: the functions PyTorch writes in Python, by that module's name."""
from . import ops

_NAMES = ("align_tensors atleast_1d atleast_2d atleast_3d block_diag broadcast_shapes broadcast_tensors cartesian_prod cdist "
          "chain_matmul einsum istft lu meshgrid norm split stft tensordot unique unique_consecutive unravel_index")
__all__ = [name for name in _NAMES.split() if hasattr(ops, name)]
globals().update({name: getattr(ops, name) for name in __all__})
