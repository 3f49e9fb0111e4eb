"""Older names of Tensor methods and functions, and those that only describe a tensor."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..dtypes import complex64, complex128
from ..errors import ShapeError
from ..tensor import Size, Tensor, from_array, to_numpy
from ..tensor_overriding import as_class
from . import creation, pointwise, special_functions
from .methods import in_place


def new(self: Tensor, *args: Any, device: Any = None) -> Tensor:
    """PyTorch's old constructor: sizes (uninitialised: zeros here) or data, of this tensor's dtype and device."""
    device = self.device if device is None else device
    if len(args) == 1 and not isinstance(args[0], (int, Size)):
        return creation.tensor(args[0], dtype=self.dtype, device=device)
    size = tuple(args[0]) if args and isinstance(args[0], Size) else args
    return creation.empty(*(size or (0,)), dtype=self.dtype, device=device)


def to_dense(self: Tensor, dtype: Any = None, *, masked_grad: Any = None) -> Tensor:
    """This tensor: all tensors are dense."""
    return self if dtype is None else self.to(dtype)


def apply_(self: Tensor, callable: Callable[[Any], Any]) -> Tensor:
    """Replace each element by ``callable(element)`` (slow: a Python call per element; no gradient)."""
    a = to_numpy(self.detach())
    flat = np.array([callable(x) for x in a.reshape(-1).tolist()], dtype=a.dtype)
    return self.copy_(from_array(flat.reshape(a.shape)))


def map_(self: Tensor, tensor: Tensor, callable: Callable[[Any, Any], Any]) -> Tensor:
    """Replace each element by ``callable(element, other element)``."""
    a = to_numpy(self.detach())
    b = np.broadcast_to(to_numpy(tensor.detach()), a.shape)
    flat = np.array([callable(x, y) for x, y in zip(a.reshape(-1).tolist(), b.reshape(-1).tolist())], dtype=a.dtype)
    return self.copy_(from_array(flat.reshape(a.shape)))


def polygamma(self: Tensor, n: int) -> Tensor:
    """The ``n``-th derivative of digamma."""
    return special_functions.polygamma(n, self)


def is_signed(input: Tensor) -> bool:
    """Whether the dtype has negative numbers."""
    return input.is_signed()


def is_inference(input: Tensor) -> bool:
    """Whether made under ``inference_mode``: never marked here."""
    return input.is_inference()


def get_device(input: Tensor) -> int:
    """Index of the tensor's GPU, -1 on the CPU."""
    return input.get_device()


def cfloat(self: Tensor, memory_format: Any = None) -> Tensor:
    """As complex64."""
    return self.to(complex64)


def cdouble(self: Tensor, memory_format: Any = None) -> Tensor:
    """As complex128."""
    return self.to(complex128)


def is_set_to(self: Tensor, tensor: Tensor) -> bool:
    """Whether both are the same view of the same storage."""
    a, b = self._base_alias(), tensor._base_alias()
    return a.storage is b.storage and a.chain == b.chain


def is_pinned(self: Tensor, device: Any = None) -> bool:
    """Whether in page-locked memory (see ``pin_memory``)."""
    from ..runtime.cuda.buffer import pinned_owner

    v = self._read()
    return self.is_cpu and v.region is None and isinstance(v.buffer, np.ndarray) and pinned_owner(v.buffer) is not None


def is_distributed(input: Tensor) -> bool:
    """Whether spread over processes: never."""
    return False


def as_subclass(self: Tensor, cls: type) -> Any:
    """An instance of ``cls`` on the same storage, with the same history."""
    if not (isinstance(cls, type) and issubclass(cls, Tensor)):
        raise TypeError(f"as_subclass(): argument 'cls' must be a subclass of Tensor (got {cls!r})")
    return as_class(self, cls)


def map2_(self: Tensor, x: Tensor, y: Tensor, callable: Callable[[Any, Any, Any], Any]) -> Tensor:
    """Replace each element by ``callable(element, x's, y's)``."""
    a = to_numpy(self.detach())
    others = [np.broadcast_to(to_numpy(t.detach()), a.shape).reshape(-1).tolist() for t in (x, y)]
    flat = np.array([callable(*v) for v in zip(a.reshape(-1).tolist(), *others)], dtype=a.dtype)
    return self.copy_(from_array(flat.reshape(a.shape)))


def dim_order(self: Tensor, ambiguity_check: Any = False) -> tuple[int, ...]:
    """Dimensions from the largest stride to the smallest."""
    strides = self.stride()
    return tuple(sorted(range(self.ndim), key=lambda d: (-strides[d], d)))


def const_data_ptr(self: Tensor) -> int:
    """``data_ptr()``, for reading."""
    return self.data_ptr()


def empty_permuted(size: Any, physical_layout: Any, *, dtype: Any = None, layout: Any = None, device: Any = None,
                   requires_grad: bool = False, pin_memory: bool = False) -> Tensor:
    """:func:`empty` whose memory runs through the dimensions in the order ``physical_layout``: a permuted view."""
    order = tuple(physical_layout)
    if sorted(order) != list(range(len(tuple(size)))):
        raise ShapeError(f"Number of dimensions in size does not match the length of the physical_layout; i.e. len(size) = "
                         f"{len(tuple(size))} is not equal to len(physical_layout) = {len(order)}")
    made = creation.empty(tuple([tuple(size)[d] for d in order]), dtype=dtype, device=device)
    t = made.permute([order.index(d) for d in range(len(order))])
    return t.requires_grad_() if requires_grad else t


def to_dlpack(tensor: Tensor) -> Any:
    """A DLPack capsule of the tensor's memory."""
    return tensor.__dlpack__()


def new_empty_strided(self: Tensor, size: Any, stride: Any, **kw: Any) -> Tensor:
    """:func:`new_empty`: layout is the compiler's business."""
    return self.new_empty(size, **kw)


METHODS = ["new", "polygamma", "to_dense", "apply_", "map_", "cfloat", "cdouble", "is_set_to", "is_pinned", "is_distributed",
           "as_subclass", "new_empty_strided", "map2_", "dim_order", "const_data_ptr"]
NAMES = ["is_signed", "is_inference", "get_device", "is_distributed", "empty_permuted", "to_dlpack"]
OTHER_DEVICES = ("is_xpu", "is_maia", "is_mtia", "is_ipu", "is_vulkan", "volatile")  # never so
MORE_IN_PLACE = """arccos arccosh arcsin arcsinh arctan arctan2 arctanh bitwise_left_shift bitwise_right_shift fix greater
greater_equal heaviside ldexp less less_equal not_equal sgn sinc""".split()
FUNCTIONS_IN_PLACE = """abs acos acosh arccos arccosh arcsin arcsinh arctan arctanh asin asinh atan atanh ceil clamp clamp_max
clamp_min clip cos cosh deg2rad erf erfc exp exp2 expm1 fix floor frac log log10 log1p log2 logit nan_to_num neg negative
rad2deg reciprocal round rsqrt sigmoid sin sinc sinh sqrt square tan tanh trunc xlogy ldexp gcd lcm i0""".split()


_DENSE = "tensors are dense: use this tensor itself, and nonzero() for the places of its elements"
_WHOLE = "numbers are not quantized: use float16 or bfloat16"
REFUSED = {**dict.fromkeys(("to_sparse", "to_sparse_coo", "to_sparse_csr", "coalesce", "sparse_mask"), _DENSE),
           **dict.fromkeys(("dequantize", "int_repr", "q_scale", "q_zero_point"), _WHOLE)}


def _refused(name: str, instead: str) -> Callable[..., Any]:
    def f(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"Tensor.{name} is not there: {instead}")

    f.__name__, f.__doc__ = name, f"Not there: {instead}."
    return f


def install(namespace: dict[str, Any], families: tuple[Any, ...]) -> None:
    """In-place methods of the newer families, and ``graphc.exp_(x)`` for ``x.exp_()``."""
    for name in MORE_IN_PLACE:
        if not hasattr(Tensor, name + "_"):
            setattr(Tensor, name + "_", in_place(getattr(pointwise, name), name + "_"))
    for family in families:
        for name in getattr(family, "IN_PLACE", ()):
            setattr(Tensor, name + "_", in_place(getattr(family, name), name + "_"))
    setattr(Tensor, "polygamma_", in_place(polygamma, "polygamma_"))  # noqa: B010
    setattr(Tensor, "grad_dtype", property(lambda self: self.dtype, doc="The dtype of the gradient."))  # noqa: B010
    for name in OTHER_DEVICES:
        setattr(Tensor, name, False)
    for name, instead in REFUSED.items():
        setattr(Tensor, name, _refused(name, instead))
    for name in FUNCTIONS_IN_PLACE:
        namespace[name + "_"] = _as_function(name + "_")


def _as_function(name: str) -> Callable[..., Tensor]:
    method = getattr(Tensor, name)

    def f(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return method(input, *args, **kwargs)

    f.__name__, f.__doc__ = name, f"``input.{name}(...)``."
    f.__module__ = "graphc.ops"
    return f
