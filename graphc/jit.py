"""``torch.jit``: programs run as Python here and are compiled by :func:`graphc.compile`, so scripting and tracing return what
they are given. TorchScript archives are neither written nor read."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, get_origin

from .futures import Future
from .nn.module import Module

__all__ = ["Attribute", "CompilationUnit", "Error", "Final", "Future", "RecursiveScriptModule", "ScriptFunction",
           "ScriptModule", "TracerWarning", "annotate", "enable_onednn_fusion", "export", "fork", "freeze", "ignore",
           "interface", "is_scripting", "is_tracing", "isinstance", "load", "onednn_fusion_enabled", "optimize_for_inference",
           "save", "script", "script_if_tracing", "script_method", "trace", "trace_module", "unused", "wait"]

_T = TypeVar("_T")
_ARCHIVE = ("TorchScript archives hold a program; graphc runs Python: save model.state_dict() with graphc.save and build the "
            "model in code before load_state_dict")


class TracerWarning(Warning):
    """A category programs filter; nothing here warns with it."""


class Error(RuntimeError):
    """What TorchScript raises; nothing here does."""


class ScriptModule(Module):
    """A module: Python runs it as any other."""


RecursiveScriptModule = ScriptModule
ScriptFunction = Callable


def script(obj: _T, optimize: None = None, _frames_up: int = 0, _rcb: Any = None, example_inputs: Any = None) -> _T:
    """``obj`` itself. Use :func:`graphc.compile` to make one plan of it."""
    return obj


def trace(func: _T, example_inputs: Any = None, optimize: Any = None, check_trace: bool = True, check_inputs: Any = None,
          check_tolerance: float = 1e-05, strict: bool = True, _force_outplace: bool = False, _module_class: Any = None,
          _compilation_unit: Any = None, example_kwarg_inputs: Any = None, _store_inputs: bool = True) -> _T:
    """``func`` itself: unlike a trace, it keeps its branches and may be called with other shapes."""
    return func


def trace_module(mod: _T, inputs: Any, optimize: Any = None, check_trace: bool = True, check_inputs: Any = None,
                 check_tolerance: float = 1e-05, strict: bool = True, _force_outplace: bool = False, _module_class: Any = None,
                 _compilation_unit: Any = None, example_inputs_is_kwarg: bool = False, _store_inputs: bool = True) -> _T:
    """``mod`` itself."""
    return mod


def save(m: Any, f: Any, _extra_files: Any = None) -> None:
    """Not there: see the message."""
    raise NotImplementedError(f"jit.save: {_ARCHIVE}")


def load(f: Any, map_location: Any = None, _extra_files: Any = None, _restore_shapes: bool = False) -> Any:
    """Not there: see the message."""
    raise NotImplementedError(f"jit.load: {_ARCHIVE}")


def is_scripting() -> bool:
    """Whether TorchScript runs this code: never."""
    return False


def is_tracing() -> bool:
    """Whether a trace is being taken: never; Python runs on every call."""
    return False


def _same(fn: _T) -> _T:
    """``fn`` itself."""
    return fn


def unused(fn: _T) -> _T:
    """``fn`` itself."""
    return fn


def export(fn: _T) -> _T:
    """``fn`` itself."""
    return fn


def script_method(fn: _T) -> _T:
    """``fn`` itself."""
    return fn


def script_if_tracing(fn: _T) -> _T:
    """``fn`` itself."""
    return fn


def ignore(drop: Any = False, **kwargs: Any) -> Any:
    """A decorator that changes nothing; also usable without brackets."""
    return drop if callable(drop) else _same


def freeze(mod: Any, preserved_attrs: list[str] | None = None, optimize_numerics: bool = True) -> Any:
    """``mod`` itself, which must be in evaluation mode."""
    if mod.training:
        raise RuntimeError("Freezing is currently only implemented for modules in eval mode. Please call .eval() on your "
                           "module before freezing.")
    return mod


def optimize_for_inference(mod: Any, other_methods: list[str] | None = None) -> Any:
    """``mod`` itself."""
    return mod


def annotate(the_type: Any, the_value: _T) -> _T:
    """``the_value``."""
    return the_value


def Attribute(value: _T, type: Any) -> _T:
    """``value``."""
    return value


def isinstance(obj: Any, target_type: Any) -> bool:
    """Python's isinstance, with ``List[int]`` and the like judged by the container."""
    import builtins

    given: Any = target_type if builtins.isinstance(target_type, tuple) else (target_type,)
    kinds: list[Any] = [get_origin(t) or t for t in given]
    return any(builtins.isinstance(obj, k) for k in kinds)


def fork(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``func(*args, **kwargs)``, run at once."""
    return func(*args, **kwargs)


def wait(future: _T) -> _T:
    """``future``: :func:`fork` has its result already."""
    return future


class CompilationUnit:
    """Not there: TorchScript source is not compiled."""

    def __init__(self, lang: Any = None, _frames_up: int = 0) -> None:
        raise NotImplementedError("jit.CompilationUnit compiles TorchScript source: write the functions in Python and use "
                                  "graphc.compile")


def set_fusion_strategy(strategy: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Accepted: fusion is the compiler's business."""
    return strategy


def enable_onednn_fusion(enabled: bool) -> None:
    """Accepted: kernels are graphc's own."""


def onednn_fusion_enabled() -> bool:
    """Whether oneDNN fuses: no."""
    return False


def interface(obj: type) -> type:
    """The class itself: Python needs no declaration of an interface."""
    return obj


class strict_fusion:
    """Accepted as a context manager: what is not fused shows in ``compile(f).explain()``."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> None:
        return None
