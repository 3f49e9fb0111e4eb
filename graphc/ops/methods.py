"""Install functions as Tensor methods and operators, and derive the in-place variants.

One rule makes every ``name_``: compute ``name`` out of place, then write the result back through the view.
"""
from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np

from ..tensor import Tensor, from_numpy
from ..tensor_overriding import foreign, twin
from ..tensor_overriding import install as install_overriding
from . import _common, convert, creation, joining, pointwise, rearrange, reduction, shape

IN_PLACE_OPERATORS = {"__iadd__": "add", "__isub__": "sub", "__imul__": "mul", "__itruediv__": "div",
                      "__ifloordiv__": "floor_divide", "__imod__": "remainder", "__ipow__": "pow",
                      "__iand__": "bitwise_and", "__ior__": "bitwise_or", "__ixor__": "bitwise_xor",
                      "__ilshift__": "bitwise_left_shift", "__irshift__": "bitwise_right_shift"}


def in_place(fn: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
    """The ``name_`` variant of ``fn``."""

    def f(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        out = fn(self, *args, **kwargs)
        return _common.write(self, out._v if out._alias is None else out._read(), name)

    f.__name__, f.__doc__ = name, f"In-place version of {fn.__name__}()."
    return f


def _operator(fn: Callable[..., Tensor], swap: bool = False) -> Callable[..., Any]:
    """A binary dunder: NotImplemented for foreign operands so that Python may try their side."""

    def f(self: Tensor, other: Any) -> Any:
        if not isinstance(other, (Tensor, int, float)):
            if not isinstance(other, (*_common.NUMBERS, np.ndarray)):
                foreign(other)
                return NotImplemented
        return fn(other, self) if swap else fn(self, other)

    return f


def _rpow(other: Any, self: Tensor) -> Tensor:
    return pointwise.pow(other, self)


def _eq(self: Tensor, other: Any) -> Any:
    if not isinstance(other, (Tensor, *_common.NUMBERS)):
        if not isinstance(other, np.ndarray):
            return False
    return pointwise.eq(self, other)


def _ne(self: Tensor, other: Any) -> Any:
    if not isinstance(other, (Tensor, *_common.NUMBERS)):
        if not isinstance(other, np.ndarray):
            return True
    return pointwise.ne(self, other)


def _array_wrap(self: Tensor, array: np.ndarray, context: Any = None, return_scalar: bool = False) -> Tensor:
    """What NumPy's functions make of a tensor is a tensor (of uint8 instead of bool, as in PyTorch)."""
    return from_numpy(np.asarray(array.astype(np.uint8) if array.dtype == bool else array))


def _install_operators() -> None:
    fn: Any
    for dunder, fn in {"add": pointwise.add, "sub": pointwise.sub, "mul": pointwise.mul, "truediv": pointwise.div,
                       "floordiv": pointwise.floor_divide, "mod": pointwise.remainder,
                       "and": pointwise.bitwise_and, "or": pointwise.bitwise_or, "xor": pointwise.bitwise_xor}.items():
        setattr(Tensor, f"__{dunder}__", _operator(fn))
        setattr(Tensor, f"__r{dunder}__", _operator(fn, swap=True))
    for dunder, fn in {"pow": pointwise.pow, "lt": pointwise.lt, "le": pointwise.le, "gt": pointwise.gt,
                       "ge": pointwise.ge, "lshift": pointwise.bitwise_left_shift,
                       "rshift": pointwise.bitwise_right_shift}.items():
        setattr(Tensor, f"__{dunder}__", _operator(fn))
    for dunder, fn in (("lshift", pointwise.bitwise_left_shift), ("rshift", pointwise.bitwise_right_shift)):
        setattr(Tensor, f"__r{dunder}__", _operator(fn, swap=True))
    setattr(Tensor, "__array_wrap__", _array_wrap)  # noqa: B010
    Tensor.__rpow__ = _operator(pointwise.pow, swap=True)  # type: ignore[method-assign,assignment]
    Tensor.__eq__, Tensor.__ne__ = _eq, _ne  # type: ignore[method-assign,assignment]
    Tensor.__neg__ = pointwise.neg  # type: ignore[method-assign,assignment]
    setattr(Tensor, "__pos__", pointwise.positive)  # noqa: B010
    Tensor.__abs__ = pointwise.abs  # type: ignore[attr-defined]
    Tensor.__invert__ = pointwise.bitwise_not  # type: ignore[method-assign,assignment]
    for dunder, base in IN_PLACE_OPERATORS.items():
        setattr(Tensor, dunder, in_place(getattr(pointwise, base), base + "_"))


POINTWISE_IN_PLACE = """add sub mul div pow floor_divide remainder fmod exp exp2 expm1 log log2 log10 log1p sin cos tan asin
acos atan sinh cosh tanh asinh acosh atanh erf erfc erfinv sqrt rsqrt reciprocal abs absolute neg negative sign floor ceil trunc
frac square round sigmoid logit clamp clip clamp_min clamp_max lerp addcmul addcdiv nan_to_num eq ne lt le gt ge logical_and
logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor bitwise_not atan2 true_divide multiply subtract divide
lgamma digamma hypot xlogy copysign cumsum cumprod deg2rad rad2deg float_power""".split()


def _view_in_place(fn: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
    """``squeeze_``, ``t_`` ...: the tensor itself becomes the view."""

    def f(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        out = fn(self, *args, **kwargs)
        if out is not self:
            self._v, self._alias = out._read(), out._alias
        return self

    f.__name__, f.__doc__ = name, f"In-place version of {fn.__name__}()."
    return f


def _split(self: Tensor, split_size: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Chunks of the given size(s) along ``dim`` (views). The method's argument has another name than the function's."""
    return joining.split(self, split_size, dim)


NOT_METHODS = {"cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "row_stack", "column_stack",
               "broadcast_shapes", "broadcast_tensors", "meshgrid", "cartesian_prod", "block_diag", "atleast_1d",
               "atleast_2d", "atleast_3d", "is_tensor", "infer_size", "var_value", "norm_value", "mean_value", "T", "mT",
               "numel", "is_floating_point", "is_complex", "pad", "vector_norm", "tensor", "builtins_abs"}


def install_family(module: Any, names: list[str] | None = None) -> None:
    """Make the public functions of an op family Tensor methods."""
    for name in names or [n for n in vars(module) if not n.startswith("_")]:
        fn = getattr(module, name)
        if name in NOT_METHODS or not callable(fn) or isinstance(fn, type):
            continue
        if names is None and getattr(fn, "__module__", None) != module.__name__:
            continue
        if name not in Tensor.__dict__:
            setattr(Tensor, name, fn)


def install() -> None:
    """Fill Tensor. Called once when ``graphc.ops`` is imported."""
    _install_operators()
    for family in (pointwise, reduction, shape, joining, rearrange):
        install_family(family)
    for name in POINTWISE_IN_PLACE:
        setattr(Tensor, name + "_", in_place(getattr(pointwise, name, None) or getattr(reduction, name), name + "_"))
    for name in ("squeeze", "unsqueeze", "t", "transpose", "swapaxes", "swapdims"):
        setattr(Tensor, name + "_", _view_in_place(getattr(shape, name), name + "_"))
    for name, fn in convert.CASTS.items():
        setattr(Tensor, name, fn)
    for name in ("to", "cpu", "cuda", "type_as", "copy_", "fill_", "zero_", "set_", "resize_", "resize_as_",
                 "fill_diagonal_", "pin_memory"):
        setattr(Tensor, name, getattr(convert, name))
    setattr(Tensor, "type", convert.type_)  # noqa: B010
    for name in ("new_zeros", "new_ones", "new_empty", "new_full", "new_tensor"):
        setattr(Tensor, name, getattr(creation, name))
    setattr(Tensor, "split", _split)  # noqa: B010
    Tensor.T = property(shape.T)  # type: ignore[attr-defined]
    Tensor.mT = property(shape.mT)  # type: ignore[assignment,attr-defined]


_NAMED = {"__pow__": "pow", "__ipow__": "pow_", "__rtruediv__": "__rdiv__"}  # as PyTorch names them


def own() -> None:
    """Make every method and property a function of its own, named as in the class: ``Tensor.add`` is not ``graphc.add``, as the
    handlers of ``__torch_function__`` expect. Called once when all families are installed."""
    install_overriding()
    for name, x in list(vars(Tensor).items()):
        if isinstance(x, FunctionType) and x.__module__ != Tensor.__module__:
            setattr(Tensor, name, twin(x, _NAMED.get(name, name), f"Tensor.{name}"))
        elif isinstance(x, property) and isinstance(x.fget, FunctionType) and x.fget.__module__ != Tensor.__module__:
            setattr(Tensor, name, property(twin(x.fget, name, f"Tensor.{name}"), x.fset, x.fdel, x.__doc__))
