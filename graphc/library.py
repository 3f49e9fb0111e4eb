"""``torch.library``: functions of one's own under a name, with kernels by device and a formula for the gradient.

A custom op here is Python that runs when it is called: also inside compiled functions and transforms, where it may use tensor
operations freely, while reading values on the host splits a program. So shapes need no description (``register_fake`` is
accepted), and schemas are only read for the name.
"""
from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

from . import ops
from .autograd import no_grad
from .autograd.function import Function
from .tensor import Tensor

__all__ = ["CustomOpDef", "Library", "custom_op", "define", "get_kernel", "impl", "impl_abstract", "infer_schema", "opcheck",
           "register_autograd", "register_fake", "register_kernel", "register_torch_dispatch", "register_vmap", "triton_op",
           "wrap_triton"]
_OPS: dict[str, CustomOpDef] = {}  # registry: "namespace::name" -> op
_KEYS = {"CPU": "cpu", "CUDA": "cuda", "CompositeExplicitAutograd": None, "CompositeImplicitAutograd": None}


def _split(qualname: str) -> tuple[str, str]:
    space, sep, name = qualname.partition("::")
    if not sep or not space.isidentifier() or not name.split(".")[0].isidentifier():
        raise ValueError(f"Expected `name` to be of the form 'namespace::name', got {qualname!r}")
    return space, name


class CustomOpDef:
    """A named function. Calling it picks the kernel of the first tensor's device, else the default one."""

    def __init__(self, qualname: str, fn: Callable[..., Any] | None, mutates_args: Any = ()):
        self._namespace, self._name = _split(qualname)
        self._qualname, self._mutates = qualname, mutates_args
        self._kernels: dict[str | None, Callable[..., Any]] = {} if fn is None else {None: fn}
        self._signature = None if fn is None else inspect.signature(fn)
        self._backward: Callable[..., Any] | None = None
        self._setup: Callable[..., Any] | None = None
        _OPS[qualname] = self
        space = vars(ops).get(self._namespace)
        if space is None:
            space = SimpleNamespace()
            setattr(ops, self._namespace, space)
        if not isinstance(space, SimpleNamespace):
            raise RuntimeError(f"the namespace {self._namespace!r} is taken: graphc.ops.{self._namespace} is something else")
        setattr(space, self._name, self)

    def __repr__(self) -> str:
        return f"<CustomOpDef({self._qualname})>"

    @property
    def default(self) -> CustomOpDef:
        """The overload of that name: the op itself."""
        return self

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        device = next((a.device.type for a in (*args, *kwargs.values()) if isinstance(a, Tensor)), None)
        fn = self._kernels.get(device) or self._kernels.get(None)
        if fn is None:
            raise NotImplementedError(f"Could not run '{self._qualname}' with arguments from the {device!r} backend: it has "
                                      f"kernels for {sorted(map(str, self._kernels))}")
        return fn(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._signature is not None:
            bound = self._signature.bind(*args, **kwargs)
            bound.apply_defaults()
            args, kwargs = bound.args, bound.kwargs
        if not any(isinstance(a, Tensor) and a.requires_grad for a in args):
            return self._run(args, kwargs)
        if self._mutates:  # PyTorch differentiates functional ops only
            with no_grad():
                return self._run(args, kwargs)
        return _Differentiable.apply(self, kwargs, *args)

    def register_kernel(self, device_types: Any, func: Callable[..., Any] | None = None, /) -> Any:
        """``func`` (or the decorated function) runs for tensors of these device types ("cpu", "cuda"; None: all)."""
        types: Sequence[Any] = [device_types] if device_types is None or isinstance(device_types, str) else list(device_types)

        def register(fn: Callable[..., Any]) -> Callable[..., Any]:
            self._kernels.update(dict.fromkeys(types, fn))
            return fn

        return register if func is None else register(func)

    def register_fake(self, fn: Callable[..., Any], /) -> Callable[..., Any]:
        """Accepted: the op itself tells shapes."""
        return fn

    def register_autograd(self, backward: Callable[..., Any], /, *, setup_context: Callable[..., Any] | None = None) -> None:
        """``backward(ctx, *grads)`` gives one gradient (or None) per argument; ``setup_context(ctx, inputs, output)`` may save
        tensors with ``ctx.save_for_backward``. RuntimeError for ops that write their arguments."""
        if self._mutates:
            raise RuntimeError(f"Cannot register autograd formula for non-functional operator {self!r}. Please create a "
                               "functional operator and register an autograd formula for that.")
        self._backward, self._setup = backward, setup_context

    def register_vmap(self, func: Callable[..., Any] | None = None, /) -> Any:
        """Accepted: what the op records is mapped."""
        return (lambda f: f) if func is None else func

    register_torch_dispatch = register_vmap


class _Differentiable(Function):
    """The op with its formula."""

    @staticmethod
    def forward(ctx: Any, op: CustomOpDef, kwargs: dict[str, Any], *args: Any) -> Any:  # type: ignore[override]
        out = op._run(args, kwargs)
        ctx.op, ctx.count = op, len(args)
        if op._setup is not None:
            if kwargs:
                op._setup(ctx=ctx, inputs=args, keyword_only_inputs=kwargs, output=out)
            else:
                op._setup(ctx=ctx, inputs=args, output=out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        op = ctx.op
        if op._backward is None:
            raise RuntimeError(f"Trying to backward through {op._qualname}.default but no autograd formula was registered. "
                               "Please use register_autograd to add one.")
        needs, ctx.needs_input_grad = ctx.needs_input_grad, ctx.needs_input_grad[2:]
        try:
            found = op._backward(ctx, *grads)
        finally:
            ctx.needs_input_grad = needs
        found = tuple(found) if isinstance(found, (tuple, list)) else (found,)
        if len(found) != ctx.count:
            raise RuntimeError(f"{op._qualname}: backward returned {len(found)} gradients for {ctx.count} arguments")
        return (None, None, *found)


def custom_op(name: str, fn: Callable[..., Any] | None = None, /, *, mutates_args: str | Iterable[str],
              device_types: Any = None, schema: str | None = None, tags: Any = None) -> Any:
    """A decorator that makes a function the op ``name`` ("namespace::name"), also found as ``graphc.ops.namespace.name``.

    ``mutates_args``: the arguments it writes, or "unknown"; ``device_types``: those the function is for (None: all).
    """
    def make(f: Callable[..., Any]) -> CustomOpDef:
        op = CustomOpDef(name, f, mutates_args if isinstance(mutates_args, str) else tuple(mutates_args))
        if device_types is not None:
            del op._kernels[None]
            op.register_kernel(device_types, f)
        return op

    return make if fn is None else make(fn)


def triton_op(name: str, fn: Callable[..., Any] | None = None, /, *, mutates_args: str | Iterable[str],
              schema: str | None = None) -> Any:
    """:func:`custom_op`."""
    return custom_op(name, fn, mutates_args=mutates_args, schema=schema)


def wrap_triton(triton_kernel: Any, /) -> Any:
    """The kernel itself."""
    return triton_kernel


def _op(op: Any) -> CustomOpDef:
    if isinstance(op, CustomOpDef):
        return op
    found = _OPS.get(str(op).removesuffix(".default"))
    if found is None:
        raise RuntimeError(f"there is no operator {op!r}: define it with custom_op")
    return found


def register_fake(op: Any, func: Callable[..., Any] | None = None, /, *, lib: Any = None, _stacklevel: int = 1,
                  allow_override: bool = False) -> Any:
    """Accepted: the op itself tells shapes."""
    _op(op)
    return (lambda f: f) if func is None else func


impl_abstract = register_fake


def register_kernel(op: Any, device_types: Any, func: Callable[..., Any] | None = None, /, *, lib: Any = None) -> Any:
    """:meth:`CustomOpDef.register_kernel` by the op or its name."""
    return _op(op).register_kernel(device_types, func)


def register_autograd(op: Any, backward: Callable[..., Any], /, *, setup_context: Callable[..., Any] | None = None,
                      lib: Any = None) -> None:
    """:meth:`CustomOpDef.register_autograd` by the op or its name."""
    _op(op).register_autograd(backward, setup_context=setup_context)


def register_vmap(op: Any, func: Callable[..., Any] | None = None, /, *, lib: Any = None) -> Any:
    """Accepted: what the op records is mapped."""
    return _op(op).register_vmap(func)


def register_torch_dispatch(op: Any, torch_dispatch_class: Any, func: Callable[..., Any] | None = None, /, *, lib: Any = None,
                            allow_override: bool = False) -> Any:
    """Accepted: there is no dispatcher."""
    return _op(op).register_vmap(func)


def define(qualname: str, schema: str, *, lib: Any = None, tags: Any = ()) -> None:
    """The older way: an op without kernels; :func:`impl` adds them."""
    CustomOpDef(qualname, None)


def impl(qualname: str, types: Any, func: Callable[..., Any] | None = None, *, lib: Any = None) -> Any:
    """A kernel for device types; "default" is for all."""
    given = [types] if isinstance(types, str) else list(types)
    return _op(qualname).register_kernel([None if t == "default" else t for t in given], func)


def get_kernel(op: Any, dispatch_key: Any) -> Callable[..., Any]:
    """The function that runs for a device type."""
    op = _op(op)
    fn = op._kernels.get(str(dispatch_key).lower()) or op._kernels.get(None)
    if fn is None:
        raise RuntimeError(f"{op._qualname} has no kernel for {dispatch_key}")
    return fn


class Library:
    """The oldest way: ``Library("ns", "DEF")``, then ``define("name(Tensor x) -> Tensor")`` and ``impl("name", fn, "CPU")``."""

    def __init__(self, ns: str, kind: str, dispatch_key: str = ""):
        if kind not in ("DEF", "IMPL", "FRAGMENT"):
            raise ValueError(f"Unsupported kind: {kind}")
        self.ns, self.kind, self.dispatch_key = ns, kind, dispatch_key

    def define(self, schema: str, alias_analysis: str = "", *, tags: Any = ()) -> str:
        """An op of this name; returns the name."""
        name = schema.split("(")[0].strip()
        CustomOpDef(f"{self.ns}::{name}", None)
        return name

    def impl(self, op_name: Any, fn: Callable[..., Any], dispatch_key: str = "", *, with_keyset: bool = False,
             allow_override: bool = False) -> None:
        """A kernel for "CPU", "CUDA" or all ("CompositeExplicitAutograd"); others ("Meta", "Autograd...") are accepted."""
        key = dispatch_key or self.dispatch_key or "CompositeImplicitAutograd"
        name = op_name if isinstance(op_name, str) else op_name._name
        if key in _KEYS:
            _op(f"{self.ns}::{name.removeprefix(self.ns + '::')}").register_kernel(_KEYS[key], fn)


def infer_schema(prototype_function: Callable[..., Any], /, *, mutates_args: Any, op_name: str | None = None) -> str:
    """The arguments of a function as text, tensors as ``Tensor``."""
    signature = inspect.signature(prototype_function)

    def kind(annotation: Any) -> str:
        text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
        return text.rsplit(".", 1)[-1]

    parts = [f"{kind(p.annotation)} {n}" + ("" if p.default is p.empty else f"={p.default}")
             for n, p in signature.parameters.items()]
    result = "()" if signature.return_annotation in (None, inspect.Signature.empty) else kind(signature.return_annotation)
    return f"{op_name or ''}({', '.join(parts)}) -> {result}"


def opcheck(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None, *, test_utils: Any = None,
            raise_exception: bool = True, atol: float | None = None, rtol: float | None = None) -> dict[str, str]:
    """Runs the op eagerly and compiled, and its gradient against differences for float64 inputs: test -> "SUCCESS".

    AssertionError when results differ.
    """
    from .autograd.gradcheck import gradcheck  # by its module: the package shows one or the other
    from .compile import compile
    from .testing import assert_close

    found, named = _op(op), dict(kwargs or {})
    outs = [fn(*args, **named) for fn in (found, compile(found.__call__))]
    assert_close(*outs, rtol=rtol, atol=atol)
    report = {"test_schema": "SUCCESS", "test_faketensor": "SUCCESS", "test_aot_dispatch_dynamic": "SUCCESS"}
    if found._backward is not None and any(isinstance(a, Tensor) and a.requires_grad for a in args):
        wide = tuple([a.double() if isinstance(a, Tensor) and a.is_floating_point() else a for a in args])
        if not gradcheck(lambda *a: found(*a, **named), wide):
            raise AssertionError(f"{found!r}: the formula of the gradient does not fit the function")
        report["test_autograd_registration"] = "SUCCESS"
    return report
