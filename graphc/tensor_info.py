"""What a tensor tells about itself without evaluating: shape, dtype, device, strides, storage.

:class:`TensorInfo` is the part of :class:`~graphc.tensor.Tensor` that only reads its Value's type and its view's geometry.
"""
from __future__ import annotations

from typing import Any

from .device import device
from .dtypes import dtype
from .errors import ArgumentTypeError, DimError
from .ir.node import Value
from .ir.recorder import evaluated
from .view_steps import contiguous_strides
from .views import Alias


class Size(tuple):
    """A shape: a tuple that prints like PyTorch's and has ``numel()``."""

    __slots__ = ()

    def numel(self) -> int:
        n = 1
        for d in self:
            n *= d
        return n

    def __repr__(self) -> str:
        return f"torch.Size([{', '.join(map(str, self))}])"

    def __getitem__(self, i: Any) -> Any:
        out = tuple.__getitem__(self, i)
        return Size(out) if isinstance(i, slice) else out

    def __add__(self, other: Any) -> Any:
        return Size(tuple.__add__(self, tuple(other)))


def norm_dim(d: Any, ndim: int) -> int:
    """A dimension counted from the front. Zero-dim tensors accept 0 and -1. Raises IndexError when out of range."""
    if d.__class__ is int and 0 <= d < ndim:
        return d  # type: ignore[no-any-return]
    n = max(ndim, 1)
    if not isinstance(d, int):
        if not hasattr(d, "__index__"):
            raise ArgumentTypeError(f"argument 'dim' must be int, not {type(d).__name__}")
        d = d.__index__()
    if -n <= d < n:
        return d + n if d < 0 else d
    raise DimError(f"Dimension out of range (expected to be in range of [{-n}, {n - 1}], but got {d})")


class TensorInfo:
    """The attributes of a tensor that need no computation."""

    __slots__ = ()
    _v: Value
    _alias: Alias | None

    @property
    def shape(self) -> Size:
        return Size(self._v.aval.shape)

    @property
    def dtype(self) -> dtype:
        return self._v.aval.dtype

    @property
    def device(self) -> device:
        return self._v.aval.device

    @property
    def ndim(self) -> int:
        return self._v.aval.ndim

    def size(self, dim: int | None = None) -> Any:
        """The shape, or one dimension of it."""
        if dim is None:
            return Size(self._v.aval.shape)
        return self._v.aval.shape[norm_dim(dim, self._v.aval.ndim)]

    def dim(self) -> int:
        return self._v.aval.ndim

    ndimension = dim

    def numel(self) -> int:
        return self._v.aval.size

    nelement = numel

    def element_size(self) -> int:
        return self.dtype.itemsize

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self._v.aval.nbytes

    def __len__(self) -> int:
        if not self._v.aval.shape:
            raise TypeError("len() of a 0-d tensor")
        return self._v.aval.shape[0]

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def is_meta(self) -> bool:
        return self.device.type == "meta"

    is_sparse = is_quantized = is_mps = is_nested = is_mkldnn = is_xla = False
    layout = "torch.strided"
    names: Any = None

    @property
    def is_cpu(self) -> bool:
        return self.device.type == "cpu"

    def get_device(self) -> int:
        return -1 if self.is_cpu else self.device.index or 0

    def is_floating_point(self) -> bool:
        return self.dtype.is_floating_point

    def is_complex(self) -> bool:
        return self.dtype.is_complex

    def is_signed(self) -> bool:
        return self.dtype.is_signed

    def record_stream(self, stream: Any) -> None:
        """Work on ``stream`` uses this tensor's memory: it is reused when that work is done. (Programs recorded here see to it
        themselves; this is for other libraries.)"""
        if self.is_cpu:
            raise NotImplementedError("record_stream: a tensor in host memory belongs to no stream")
        evaluated(self._v).buffer.record_stream(stream)

    def share_memory_(self) -> Any:
        """Accepted: tensors travel between processes by value."""
        return self

    def is_shared(self) -> bool:
        return False

    def is_inference(self) -> bool:
        return False

    def stride(self, dim: int | None = None) -> Any:
        """Strides in elements (logical: buffers themselves are contiguous)."""
        a = self._alias
        st = a.geometry()[0] if a is not None and a.chain else contiguous_strides(self._v.aval.shape)
        return st if dim is None else st[dim]

    def storage_offset(self) -> int:
        a = self._alias
        return a.geometry()[1] if a is not None and a.chain else 0

    def is_contiguous(self, memory_format: Any = None) -> bool:
        a = self._alias
        if a is None or not a.chain:
            return True
        want = contiguous_strides(self._v.aval.shape)
        return all(d == 1 or s == w for d, s, w in zip(self._v.aval.shape, a.geometry()[0], want)) or self.numel() == 0

    def data_ptr(self) -> int:
        """Address of the first element (evaluates the tensor; equal for tensors that share storage)."""
        a = self._alias
        base = evaluated(self._v if a is None else a.storage.value)
        start = base.buffer.ptr if hasattr(base, "buffer") else base.__array_interface__["data"][0]
        return int(start) + (0 if a is None else a.geometry()[1] * self.dtype.itemsize)

    def untyped_storage(self) -> Any:
        return StorageInfo(self)

    storage = untyped_storage

    @property
    def _version(self) -> int:
        return self._alias.storage.version if self._alias is not None else 0

    @property
    def _base(self) -> Any:
        a = self._alias
        return None if a is None or not a.chain else a.storage

    def _is_view(self) -> bool:
        return self._base is not None


class StorageInfo:
    """The little of PyTorch's storage object that programs ask for."""

    def __init__(self, t: Any):
        self._t = t

    def data_ptr(self) -> int:
        t = self._t
        return t.data_ptr() - t.storage_offset() * t.element_size()

    def nbytes(self) -> int:
        a = self._t._alias
        return a.storage.value.aval.nbytes if a is not None else self._t.nbytes

    def size(self) -> int:
        return self.nbytes()

    def __len__(self) -> int:
        return self.nbytes() // max(1, self._t.element_size())
