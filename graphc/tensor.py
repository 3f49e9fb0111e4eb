"""The Tensor: a handle on a Value, directly or through a view of a Storage.

The class holds what needs its inside: reading and writing through views, gradients, conversion to and from Python and
NumPy. What a tensor tells about itself is in ``tensor_info``.
Every mathematical method is installed by ``graphc.ops.methods`` from the functions of ``graphc.ops``.
"""
from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from . import dtypes
from .device import CPU, device, require
from .dtypes import dtype
from .errors import ArgumentTypeError, AutogradError, DTypeError, ShapeError
from .ir import build as P
from .ir.node import PoisonedValue, SharedValue, Value, aval, leaf_value
from .ir.optable import OPS
from .ir.recorder import apply, evaluated, export, fetched, state
from .ir.tape import AccumulateGrad, OutputEdge, alias_value
from .tensor_hooks import GradFn
from .tensor_hooks import HookHandle as HookHandle
from .tensor_info import Size as Size
from .tensor_info import TensorInfo
from .view_steps import contiguous_cover, np_view, part
from .views import (
    REPEATING,
    Alias,
    Storage,
    inherit,
    is_alone,
    log_write,
    overwrite,
    private_alias,
    put_back,
    replay,
    settle,
)


class Tensor(TensorInfo):
    """An n-dimensional array with PyTorch's semantics. Build with ``graphc.tensor``, ``zeros``, ``randn`` ..."""

    __slots__ = ("_v", "_alias", "_grad", "__dict__", "__weakref__")
    __array_priority__ = 1000
    _v: Value
    _alias: Alias | None
    _grad: Tensor | None

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if not args:
            return _new(leaf_value(aval((0,), dtypes.get_default_dtype(), CPU),
                                   np.zeros(0, dtypes.get_default_dtype().np)), cls)
        return _legacy(cls, args, kwargs.get("dtype") or dtypes.get_default_dtype())

    # ------------------------------------------------------------------------------------------- reading and writing
    def _read(self) -> Value:
        """The current Value."""
        a = self._alias
        if a is not None and (a.version != a.storage.version or a.chain and a.storage.value.__class__ is SharedValue):
            self._v = a.refresh()  # also where the outside may have written meanwhile
        return self._v

    def _own(self) -> Value:
        """The current Value, of a tensor about to be written; if nobody shares its storage any more it does without one."""
        v = self._read()
        if v.__class__ is Value and is_alone(self._alias):  # type: ignore[arg-type]
            self._v, self._alias = v, None
        return v

    def _write(self, v: Value) -> None:
        """Rebind in place. ``v`` must have this tensor's shape and dtype."""
        a = self._alias
        if a is None:
            old = self._v
            new = v if v.gfn is None is old.gfn and old.__class__ is Value else settle(old, inherit(old, v, False))
            log_write(self, old)
            self._v = new
            return
        if overwrite(self, v):
            return
        old = a.storage.value
        if a.detached or a.leaf is not None:
            if a.leaf is not None and state.grad:
                what = "a leaf Variable" if a.depth == len(a.chain) else "a view of a leaf Variable"
                raise AutogradError(f"{what} that requires grad is being used in an in-place operation.")
            before, state.grad = state.grad, False
            try:
                plain = alias_value(v) if v.gfn is not None else v
                base = alias_value(put_back(old, a.chain, plain))
                base.gfn = old.gfn
            finally:
                state.grad = before
        else:
            base = inherit(old, put_back(old, a.chain, v), bool(a.chain))
        base = settle(old, base)
        log_write(a.storage, old)
        a.storage.value = base
        a.storage.version += 1
        if not a.chain and not a.detached and a.leaf is None:
            self._v = base
            a.version = a.storage.version
        elif state.grad and a.leaf is None and a.detached and v.gfn is not None:
            self._v = v  # written with a differentiable value: this tensor has a history again, its base has not
            a.version = a.storage.version

    def restore(self, old: Value) -> None:
        """Undo a write whose computation failed (called by the recorder)."""
        if self._alias is None and self._v.__class__ is PoisonedValue:
            self._v = old

    def _view(self, name: str, attrs: Any, *more: tuple[str, Any]) -> Tensor:
        """A tensor sharing this one's storage, seen through one more movement op (or several)."""
        source = self._v if self._alias is None else self._read()
        v = part(source, ((name, attrs), *more)) if name == "slice" and source.region is None else None
        if v is None:
            v = apply(OPS[name], (source,), attrs)
            for op, its in more:
                v = apply(OPS[op], (v,), its)
        t = self._aliased(v, ((name, attrs), *more), not state.grad)
        if v.aval.nbytes > REPEATING:
            t._base_alias().keep_no_result(v)
        return t

    def _aliased(self, v: Value, steps: tuple[Any, ...], detached: bool) -> Tensor:
        a = self._alias
        if a is None:
            a = self._alias = Alias(Storage(self._v, self), (), False)
        t = wrap(v)
        t._alias = alias = Alias(a.storage, a.chain + steps, detached or a.detached)
        if a.version == -1 or self._v.__class__ is SharedValue:
            alias.version = -1
        if a.leaf is not None and not detached:
            alias.leaf, alias.depth = a.leaf, a.depth
        return t

    def _base_alias(self) -> Alias:
        a = self._alias
        if a is None:
            a = self._alias = Alias(Storage(self._v, self), (), False)
        return a

    # ------------------------------------------------------------------------------------------------------- gradients
    @property
    def requires_grad(self) -> bool:
        return self._read().gfn is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Make this leaf record gradients, or stop it."""
        v = self._read()
        if requires_grad:
            if v.gfn is not None:
                return self
            if not (self.dtype.is_floating_point or self.dtype.is_complex):
                raise AutogradError("only Tensors of floating point and complex dtype can require gradients, got "
                                    f"{self.dtype.name}")
            self._set_edge(AccumulateGrad(self))
        elif v.gfn is not None:
            if v.gfn.__class__ is not AccumulateGrad:
                raise AutogradError("you can only change requires_grad flags of leaf variables. If you want to use a "
                                    "computed variable in a subgraph that doesn't require differentiation use "
                                    "var_no_grad = var.detach().")
            self._set_edge(None)
        return self

    def _set_edge(self, edge: Any) -> None:
        v = alias_value(self._read())
        v.gfn = edge
        a = self._alias
        if a is not None:
            if a.chain or a.detached or a.storage.__class__ is not Storage:
                a.leaf, a.depth = edge, len(a.chain)
                a.detached = a.detached or edge is None
            else:
                a.storage.value = v
                a.storage.version += 1
                a.version = a.storage.version
        self._v = v

    @property
    def grad(self) -> Tensor | None:
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise ArgumentTypeError(f"assigned grad expected to be a Tensor or None but got grad of type {type(value)}")
            if value.shape != self.shape:
                raise ShapeError(f"assigned grad has data of a different size: {tuple(value.shape)} for a tensor of "
                                 f"{tuple(self.shape)}")
            if value.dtype is not self.dtype:
                raise DTypeError(f"assigned grad has data of a different type: {value.dtype} for {self.dtype}")
        self._grad = value

    @grad.deleter
    def grad(self) -> None:
        self._grad = None

    @property
    def grad_fn(self) -> Any:
        edge = self._read().gfn
        return None if edge is None or edge.__class__ is AccumulateGrad else GradFn(edge)

    @property
    def is_leaf(self) -> bool:
        edge = self._read().gfn
        return edge is None or edge.__class__ is AccumulateGrad

    @property
    def output_nr(self) -> int:
        edge = self._read().gfn
        return edge.index if edge.__class__ is OutputEdge else 0

    def backward(self, gradient: Tensor | None = None, retain_graph: bool | None = None, create_graph: bool = False,
                 inputs: Any = None) -> None:
        """Accumulate gradients of this tensor into the leaves it was computed from."""
        _functional().backward((self,), None if gradient is None else (gradient,), retain_graph, create_graph, inputs=inputs)

    def detach(self) -> Tensor:
        """The same storage without gradient."""
        v = self._read()
        return self._aliased(alias_value(v) if v.gfn is not None else v, (), True)

    def detach_(self) -> Tensor:
        """Drop the gradient history of this tensor itself."""
        if self._read().gfn is not None:
            self._set_edge(None)
        return self

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, other: Tensor) -> None:
        edge = self._read().gfn
        source = other._base_alias()
        v = other._read()
        alias = Alias(source.storage, source.chain, True)
        self._alias = alias
        self._v = v
        if edge is not None:
            alias.leaf = AccumulateGrad(self) if edge.__class__ is not AccumulateGrad else edge
            nv = alias_value(v)
            nv.gfn = alias.leaf
            self._v = nv

    def _adopt(self, other: Tensor) -> None:
        """``self.data = other`` for a tensor nobody else holds: its value becomes this tensor's own, so that it can be
        overwritten in place."""
        edge = self._read().gfn
        if other._alias is not None or other._v.gfn is not None or other._v.__class__ is not Value:
            self.data = other
            return
        self._alias, self._v = None, other._v
        if edge is not None:
            self._v.gfn = edge if edge.__class__ is AccumulateGrad else AccumulateGrad(self)

    def register_hook(self, hook: Any) -> Any:
        """Call ``hook(grad)`` when this tensor's gradient is computed; it may return a replacement."""
        edge = self._read().gfn
        if edge is None:
            raise AutogradError("cannot register a hook on a tensor that doesn't require gradient")
        owner, index = (edge.gn, edge.index) if edge.__class__ is OutputEdge else (edge, 0)
        if owner.hooks is None:
            owner.hooks = {}
            if edge.__class__ is not AccumulateGrad:
                owner.home = None
        return HookHandle(owner.hooks, (index, hook))

    def register_post_accumulate_grad_hook(self, hook: Any) -> Any:
        """Call ``hook(self)`` after ``.grad`` of this leaf was updated."""
        edge = self._read().gfn
        if edge.__class__ is not AccumulateGrad:
            raise AutogradError("post accumulate grad hooks cannot be registered on non-leaf tensors")
        if edge.post_hooks is None:
            edge.post_hooks = {}
        return HookHandle(edge.post_hooks, hook)

    def retain_grad(self) -> None:
        """Keep the gradient of this non-leaf tensor in ``.grad``."""
        edge = self._read().gfn
        if edge is None:
            raise AutogradError("can't retain_grad on Tensor that has requires_grad=False")
        if edge.__class__ is AccumulateGrad or getattr(self, "_retains", False):
            return
        import weakref

        me = weakref.ref(self)
        self._retains = True

        def keep(g: Tensor) -> None:
            t = me()
            if t is not None:
                t._grad = g if t.grad is None else wrap(P.add(t.grad._read(), g._read()))

        keep.retains = True  # type: ignore[attr-defined]
        self.register_hook(keep)

    @property
    def retains_grad(self) -> bool:
        return bool(getattr(self, "_retains", False))

    # ------------------------------------------------------------------------------------------ to Python and to NumPy
    def item(self) -> Any:
        """The single element as a Python number (evaluates)."""
        if self._v.aval.size != 1:
            raise AutogradError(f"a Tensor with {self._v.aval.size} elements cannot be converted to Scalar")
        return _python(fetched(self._read()).reshape(())[()])

    def tolist(self) -> Any:
        """Nested Python lists (a number for a zero-dim tensor)."""
        arr = fetched(self._read())
        return arr.astype(np.float32).tolist() if self.dtype is dtypes.bfloat16 else arr.tolist()

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """A NumPy array sharing memory with this CPU tensor; writes on either side show on the other."""
        if force:
            return self.detach().cpu().numpy()
        if self.requires_grad:
            raise AutogradError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        if not self.is_cpu:
            raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy the tensor "
                            "to host memory first.")
        if self.dtype is dtypes.bfloat16:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return _export(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        arr = self.numpy()
        if dtype is not None and arr.dtype != dtype:
            return arr.astype(dtype)
        return arr.copy() if copy else arr

    def __dlpack__(self, *, stream: Any = None, **kwargs: Any) -> Any:
        if self.requires_grad:
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
        if not self.is_cpu:
            return _shared_array(self).to_dlpack(stream=stream, max_version=kwargs.get("max_version"))
        return _export(self).__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0) if self.is_cpu else (2, self.get_device())

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self.is_cpu:
            raise AttributeError(f"Can't get __cuda_array_interface__ on non-CUDA tensor type: {self.type()} If CUDA data is "
                                 "required use tensor.cuda() to copy tensor to device memory.")
        if self.requires_grad:
            raise AutogradError("Can't get __cuda_array_interface__ on Variable that requires grad. If gradients aren't "
                                "required, use var.detach() to get Variable that doesn't require grad.")
        interface: dict[str, Any] = _shared_array(self).to_interface()
        return interface

    def __bool__(self) -> bool:
        n = self._v.aval.size
        if n != 1:
            what = "no values" if n == 0 else "more than one value"
            raise AutogradError(f"Boolean value of Tensor with {what} is ambiguous")
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.category > 1 or self._v.aval.size != 1:
            raise TypeError("only integer tensors of a single element can be converted to an index")
        return int(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __contains__(self, x: Any) -> bool:
        return bool((self == x).any())

    def __iter__(self) -> Any:
        if not self._v.aval.shape:
            raise TypeError("iteration over a 0-d tensor")
        return iter(self.unbind(0))

    def __reversed__(self) -> Tensor:
        """Flipped along the first dimension."""
        return self.flip(0) if self._v.aval.shape else self  # type: ignore[attr-defined,no-any-return]

    def __hash__(self) -> int:
        return id(self)

    def __format__(self, spec: str) -> str:
        if not self._v.aval.shape and type(self) is Tensor:
            return self.item().__format__(spec)
        return object.__format__(self, spec)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        from .tensor_repr import tensor_repr

        edge = self._read().gfn
        leaf = edge.__class__ is AccumulateGrad
        ours = type(self).__module__.startswith(__name__.partition(".")[0] + ".")
        array = None if self.is_meta else fetched(self._read())
        return tensor_repr(array, dtype_name=self.dtype.name, device=str(self.device), shape=self.shape,
                           requires_grad=leaf, grad_fn_name=None if edge is None or leaf else GradFn(edge).name(),
                           prefix="tensor(" if ours else f"{type(self).__name__}(")

    __str__ = __repr__

    # ---------------------------------------------------------------------------------------------- copies and pickling
    def __copy__(self) -> Any:
        """A leaf over the same memory, with this tensor's own attributes."""
        out = make_alias(self, type(self), self.requires_grad)
        out.__dict__.update(self.__dict__)
        return out

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) in memo:
            return memo[id(self)]
        if not self.is_leaf:
            raise AutogradError("Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol "
                                "at the moment.  If you were attempting to deepcopy a module, this may be because of a "
                                "torch.nn.utils.weight_norm usage, see https://github.com/pytorch/pytorch/pull/103001")
        import copy

        v, a = self._read(), self._alias
        out = _new(private_alias(v), type(self))
        memo[id(self)] = out
        if a is not None and v.gfn is None and a.storage.value.gfn is None:  # copies of views of one storage share one, too
            storage = memo.get(id(a.storage))
            if storage is None:
                storage = memo[id(a.storage)] = Storage(private_alias(a.storage.value))
            out._alias = Alias(storage, a.chain, a.detached)
        if v.gfn is not None:
            out._v.gfn = AccumulateGrad(out)
        if self.grad is not None:
            out._grad = copy.deepcopy(self.grad, memo)
        for k, x in self.__dict__.items():
            out.__dict__[k] = copy.deepcopy(x, memo)
        return out

    def __reduce_ex__(self, protocol: Any) -> Any:
        if not self.is_leaf:
            raise AutogradError("Tensors with a grad_fn cannot be pickled; use detach()")
        where = () if self.is_cpu else (str(self.device),)
        return _rebuild, (type(self), to_numpy(self), self.dtype.name, self.requires_grad, dict(self.__dict__), *where)

    if TYPE_CHECKING:  # installed by graphc.ops.methods

        def __getattr__(self, name: str) -> Any: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def __setitem__(self, index: Any, value: Any) -> None: ...
        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __floordiv__(self, other: Any) -> Tensor: ...
        def __mod__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __xor__(self, other: Any) -> Tensor: ...
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __eq__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: Any) -> Tensor: ...  # type: ignore[override]


@cache
def _functional() -> Any:
    """The module of backward passes, which builds on this one; a plain import at every backward() would cost 3 us."""
    from .autograd import functional

    return functional


# ------------------------------------------------------------------------------------------------------- construction
def _new(v: Value, cls: type = Tensor) -> Any:
    t: Any = object.__new__(cls)
    t._v = v
    t._alias = t._grad = None
    return t


def wrap(v: Value) -> Tensor:
    """A Tensor holding ``v``."""
    t = object.__new__(Tensor)
    t._v = v
    t._alias = t._grad = None
    return t


def value_of(t: Tensor) -> Value:
    """The tensor's current Value."""
    return t._read()


def make_alias(data: Tensor, cls: type = Tensor, requires_grad: bool = False) -> Any:
    """An instance of ``cls`` sharing ``data``'s storage, detached from its history."""
    a = data._base_alias()
    v = data._read()
    t = _new(alias_value(v) if v.gfn is not None else v, cls)
    if not a.chain and v.gfn is None and not a.detached and sys.getrefcount(data) <= 3:
        t._alias = None  # nobody else holds `data`: the new tensor may own the storage
        t._v = v
    else:
        t._alias = Alias(a.storage, a.chain, True)
    if requires_grad:
        t.requires_grad_(True)
    return t


def from_array(arr: np.ndarray, *, share: bool = False, dev: device = CPU, cls: type = Tensor) -> Any:
    """A Tensor over ``arr``: sharing its memory, or taking it over (the caller must not keep it)."""
    dt = dtypes.from_numpy(arr.dtype)
    if arr.dtype.byteorder == ">":
        arr = arr.astype(arr.dtype.newbyteorder("="))
    if not share:
        arr = np.ascontiguousarray(arr).reshape(arr.shape)
        if arr.base is not None or not arr.flags.owndata or not arr.flags.writeable:
            arr = arr.copy()
    v = leaf_value(aval(arr.shape, dt, CPU), arr)
    if share:
        v.__class__ = SharedValue
    if dev is not CPU:
        v = P.to_device(v, dev)
    return _new(v, cls)


def from_numpy(arr: np.ndarray) -> Tensor:
    """A tensor sharing memory with ``arr``: changes on either side show on the other."""
    if not isinstance(arr, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(arr).__name__})")
    if any(s < 0 for s in arr.strides):
        raise ValueError("At least one stride in the given numpy array is negative, and tensors with negative strides are "
                         "not currently supported. (You can probably work around this by making a copy of your array "
                         " with array.copy().) ")
    if not arr.flags.writeable or arr.dtype.byteorder == ">":
        return from_array(arr.copy())
    if arr.flags.c_contiguous:
        return from_array(arr, share=True)
    cover = contiguous_cover(arr)
    if cover is None:
        return from_array(arr.copy())
    base = from_array(cover[0], share=True)
    return base._aliased(replay(base._v, (cover[1],)), (cover[1],), False)


def from_numpy_copy(arr: np.ndarray) -> Tensor:
    """A tensor owning a copy of ``arr`` (any supported dtype, bfloat16 included)."""
    return from_array(np.array(arr, order="C", copy=True))


def to_numpy(t: Tensor) -> np.ndarray:
    """A private copy of the data (bfloat16 as ``ml_dtypes.bfloat16``)."""
    arr = fetched(t._read())
    return arr.copy() if t._v.aval.device is CPU else arr


def _export(t: Tensor) -> np.ndarray:
    """Writable array sharing ``t``'s memory; the value's buffer becomes one the outside may change."""
    a = t._alias
    v = a.storage.value if a is not None else t._v
    evaluated(v)
    if v.__class__ is not SharedValue:
        # Others may hold this Value or its buffer (copies are lazy): share a private copy with the outside then.
        holders = sys.getrefcount(v) - (2 if a is None or t._v is not v else 3)
        if holders > 1 or sys.getrefcount(v.buffer) > 2 or v.buffer.base is not None or not v.buffer.flags.writeable:
            nv = leaf_value(v.aval, v.buffer.copy())
            nv.gfn = v.gfn
            v = nv
        v.__class__ = SharedValue
        if a is None:
            t._v = v
        else:
            a.storage.value = v
            a.storage.version += 1
    arr = export(v.buffer)
    for name, attrs in a.chain if a is not None else ():
        arr = np_view(arr, name, attrs)
    return arr


def _shared_array(t: Tensor) -> Any:
    """The device array of ``t`` as others see it; from now on they may write to its memory."""
    a = t._alias
    v = a.storage.value if a is not None else t._v
    evaluated(v)
    if v.__class__ is not SharedValue:
        # Others may hold this Value or its memory (copies are lazy): share a private copy with the outside then.
        holders = sys.getrefcount(v) - (2 if a is None or t._v is not v else 3)
        if holders > 1 or sys.getrefcount(v.buffer) > 2 or sys.getrefcount(v.buffer.buffer) > 2:
            nv = leaf_value(v.aval, v.buffer.copy())
            nv.gfn = v.gfn
            v = nv
        v.__class__ = SharedValue
        if a is None:
            t._v = v
        else:
            a.storage.value = v
            a.storage.version += 1
    return v.buffer.part(t.storage_offset(), tuple(t.shape), tuple(t.stride()), t.dtype.np)


def accumulate_grad(t: Tensor, g: Value, create_graph: bool) -> None:
    """Add ``g`` into ``t.grad``, running the leaf's hooks."""
    edge = t._read().gfn
    hooks = getattr(edge, "hooks", None)
    if hooks:
        for _, fn in list(hooks.values()):
            new = fn(wrap(g))
            if new is not None:
                if new.shape != t.shape:
                    raise ShapeError(f"hook 'hook' has changed the size of value: {tuple(new.shape)} for {tuple(t.shape)}")
                g = value_of(new)
    have = t.grad
    if have is None:
        t._grad = wrap(g)
    else:
        before, state.grad = state.grad, create_graph
        try:
            total = P.add(have._read(), g)
        finally:
            state.grad = before
        if create_graph:
            t._grad = wrap(total)
        else:
            have._write(total)
    post = getattr(edge, "post_hooks", None)
    if post:
        for fn in list(post.values()):
            fn(t)


def _rebuild(cls: type, arr: np.ndarray, dtype_name: str, requires_grad: bool, attributes: dict[str, Any],
             where: str = "cpu") -> Any:
    t = from_array(arr, cls=cls, dev=require(where))
    t.__dict__.update(attributes)
    if requires_grad:
        t.requires_grad_(True)
    return t


def _legacy(cls: type, args: tuple[Any, ...], dt: dtype) -> Any:
    """``Tensor(2, 3)`` (uninitialised sizes) and ``Tensor([..])`` (data), PyTorch's old constructor."""
    if all(isinstance(a, (int, np.integer)) for a in args):
        return from_array(np.zeros(args, dt.np), cls=cls)
    if len(args) == 1 and isinstance(args[0], Size):
        return from_array(np.zeros(args[0], dt.np), cls=cls)
    if len(args) == 1 and isinstance(args[0], Tensor):
        return make_alias(args[0], cls)
    return from_array(np.array(args[0], dtype=dt.np), cls=cls)


def _python(x: Any) -> Any:
    return float(x) if x.dtype.kind == "V" or x.dtype.name == "bfloat16" else x.item()
