"""Tensors a module owns: :class:`Parameter`, :class:`Buffer` and their uninitialized forms for lazy modules."""
from __future__ import annotations

from typing import Any

from .. import ops
from ..autograd import no_grad
from ..tensor import Tensor, make_alias
from ..tensor_overriding import disabled_torch_function_impl, overriding

__all__ = ["Parameter", "Buffer", "UninitializedParameter", "UninitializedBuffer", "is_lazy"]


def _rebuild_parameter(cls: type[Parameter], data: Tensor, requires_grad: bool, state: dict[str, Any]) -> Parameter:
    """Unpickle a parameter; ``state`` holds attributes users put on it (``p.no_weight_decay = True``)."""
    result = cls(data, requires_grad)
    result.__dict__.update(state)
    return result


class _ParameterMeta(type):
    """The class of Parameter. Gets an ``__instancecheck__`` with the first parameter of another class: isinstance stays fast
    until then."""


def _is_parameter(cls: type, x: Any) -> bool:
    if type.__instancecheck__(cls, x):
        return True
    return cls is Parameter and isinstance(x, Tensor) and x.__dict__.get("_is_param") is True


def _parameter_of_class(data: Tensor, requires_grad: bool) -> Any:
    """A parameter made of an instance of a class that overrides functions: of that class, known by ``_is_param``."""
    t: Any = data.detach().requires_grad_(requires_grad)
    if type(t) is not type(data):
        raise RuntimeError(f"Creating a Parameter from an instance of type {type(data).__name__} requires that detach() "
                           f"returns an instance of the same type, but return type {type(t).__name__} was found instead. To "
                           "use the type as a Parameter, please correct the detach() semantics defined by its "
                           "__torch_dispatch__() implementation.")
    t.__dict__["_is_param"] = True
    _ParameterMeta.__instancecheck__ = _is_parameter  # type: ignore[method-assign,assignment]
    return t


class Parameter(Tensor, metaclass=_ParameterMeta):
    """A tensor that becomes a module's parameter when assigned to an attribute.

    Shares storage with ``data`` and is a leaf. No ``__slots__``: programs hang their own attributes on parameters. Made of an
    instance of a Tensor subclass that overrides functions, it is of that class, and still ``isinstance(p, Parameter)``.

    Raises:
        RuntimeError: ``requires_grad`` with a dtype that is neither floating point nor complex.
        TypeError: ``data`` is not a tensor.
    """

    __torch_function__ = disabled_torch_function_impl

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> Parameter:
        if data is None:
            data = ops.empty(0)
        if not isinstance(data, Tensor):
            raise TypeError(f"Parameter data must be a Tensor, not {type(data).__name__}; wrap it: "
                            "Parameter(torch.tensor(...))")
        if cls is Parameter and overriding(type(data)):
            return _parameter_of_class(data, requires_grad)
        return make_alias(data, cls, requires_grad)

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        """Everything happens in ``__new__``; this keeps Tensor's own initialiser from running again."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        found = memo.get(id(self))
        if found is None:
            with no_grad():
                found = type(self)(self.detach().clone(), self.requires_grad)
            memo[id(self)] = found
        return found

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return "Parameter containing:\n" + super().__repr__()

    def __str__(self) -> str:  # type: ignore[override]
        return self.__repr__()

    def __reduce_ex__(self, proto: Any) -> tuple[Any, ...]:
        return _rebuild_parameter, (type(self), self.detach(), self.requires_grad, dict(self.__dict__))


def empty_parameter(shape: Any, device: Any = None, dtype: Any = None) -> Parameter:
    """A parameter of ``shape`` (an int or a tuple) whose values ``reset_parameters`` will set."""
    # Not through Parameter(): a temporary nobody else holds lets the new tensor own its storage.
    return make_alias(ops.empty(shape, device=device, dtype=dtype), Parameter, True)


class Buffer(Tensor):
    """A tensor that becomes a module's buffer when assigned to an attribute.

    ``persistent=False`` keeps it out of ``state_dict``. Shares storage with ``data``.
    """

    __torch_function__ = disabled_torch_function_impl
    persistent: bool

    def __new__(cls, data: Tensor | None = None, *, persistent: bool = True) -> Buffer:
        data = ops.empty(0) if data is None else data
        result = make_alias(data, cls, data.requires_grad)
        result.persistent = persistent
        return result

    def __init__(self, data: Tensor | None = None, *, persistent: bool = True) -> None:
        """Everything happens in ``__new__``."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Buffer:
        found = memo.get(id(self))
        if found is None:
            memo[id(self)] = found = type(self)(self.detach().clone(), persistent=self.persistent)
        return found

    def __reduce_ex__(self, proto: Any) -> tuple[Any, ...]:
        return _rebuild_buffer, (self.detach(), self.persistent)


def _rebuild_buffer(data: Tensor, persistent: bool) -> Buffer:
    return Buffer(data, persistent=persistent)


_NO_SHAPE = (
    "Can't access the shape of an uninitialized parameter or buffer. This error usually happens in `load_state_dict` "
    "when trying to load an uninitialized parameter into an initialized one. Call `forward` to initialize the "
    "parameters before accessing their attributes."
)


class _Uninitialized:
    """Mixin: a tensor whose shape the first forward call decides (see ``lazy.py``)."""

    cls_to_become: type[Tensor]

    def materialize(self, shape: Any, device: Any = None, dtype: Any = None) -> None:
        """Become an ordinary tensor of ``shape``, values undefined; device and dtype stay unless given."""
        data = self.data  # type: ignore[has-type]
        self.data = ops.empty(tuple(shape), device=device or data.device, dtype=dtype or data.dtype)
        self.__class__ = self.cls_to_become  # type: ignore[assignment]

    @property
    def shape(self) -> Any:
        raise RuntimeError(_NO_SHAPE)

    def share_memory_(self) -> Any:
        raise RuntimeError("Can't share memory on an uninitialized parameter or buffer. Call `forward` to initialize "
                           "the parameters before calling `module.share_memory()`.")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    __str__ = __repr__


class UninitializedParameter(_Uninitialized, Parameter):  # type: ignore[misc]
    """A parameter without a shape yet; any use before ``materialize`` is an error."""

    cls_to_become = Parameter

    def __new__(cls, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> UninitializedParameter:
        return make_alias(ops.empty(0, device=device, dtype=dtype), cls, requires_grad)

    def __init__(self, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> None:
        """Everything happens in ``__new__``."""

    def __deepcopy__(self, memo: dict[int, Any]) -> UninitializedParameter:
        found = memo.get(id(self))
        if found is None:
            found = memo[id(self)] = type(self)(self.requires_grad, self.data.device, self.data.dtype)
        return found

    def __reduce_ex__(self, proto: Any) -> tuple[Any, ...]:
        return type(self), (self.requires_grad, self.data.device, self.data.dtype)


class UninitializedBuffer(_Uninitialized, Tensor):  # type: ignore[misc]
    """A buffer without a shape yet."""

    __torch_function__ = disabled_torch_function_impl
    cls_to_become = Buffer  # not Tensor: only classes of equal layout can be swapped
    persistent: bool

    def __new__(cls, requires_grad: bool = False, device: Any = None, dtype: Any = None,
                persistent: bool = True) -> UninitializedBuffer:
        result = make_alias(ops.empty(0, device=device, dtype=dtype), cls, requires_grad)
        result.persistent = persistent
        return result

    def __init__(self, requires_grad: bool = False, device: Any = None, dtype: Any = None,
                 persistent: bool = True) -> None:
        """Everything happens in ``__new__``."""

    def __deepcopy__(self, memo: dict[int, Any]) -> UninitializedBuffer:
        found = memo.get(id(self))
        if found is None:
            make, args = self.__reduce_ex__(None)
            found = memo[id(self)] = make(*args)
        return found

    def __reduce_ex__(self, proto: Any) -> tuple[Any, ...]:
        return type(self), (self.requires_grad, self.data.device, self.data.dtype, self.persistent)


def is_lazy(param: Any) -> bool:
    """Whether ``param`` is an uninitialized parameter or buffer."""
    return isinstance(param, _Uninitialized)
