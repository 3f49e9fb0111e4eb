"""Foreign classes with ``__torch_function__`` in the modules that import graphc.

A subclass of Tensor tells when it is made; a class that only has the method does not, and its first call would find public
functions that do not ask yet. So the modules that import graphc are looked at: CPython asks for
``graphc.__spec__._initializing`` at every ``import graphc``, and the frame behind that question is the module being run. If its
code holds a class statement with a ``__torch_function__``, the switch is thrown. Costs nothing but at import statements. Where
it does not see a class (made in a function, or in another module), the first call is refused and later ones ask
(``tensor_overriding.foreign``).
"""
from __future__ import annotations

import inspect
import sys
import weakref
from importlib.machinery import ModuleSpec
from types import CodeType, FrameType, ModuleType
from typing import Any

from .tensor_overriding import SWITCH

_seen: weakref.WeakSet[CodeType] = weakref.WeakSet()  # code of modules already looked at


class _Spec(ModuleSpec):
    """The spec of graphc itself."""

    @property
    def _initializing(self) -> bool:
        importer(sys._getframe(1))
        return bool(self.__dict__.get("_initializing", False))

    @_initializing.setter
    def _initializing(self, value: bool) -> None:
        self.__dict__["_initializing"] = value


def importer(frame: FrameType | None) -> None:
    """Look at the module whose import statement leads to ``frame``."""
    while frame is not None and (frame.f_code.co_filename.startswith("<frozen importlib") or
                                 frame.f_globals.get("__name__", "").startswith("importlib")):
        frame = frame.f_back
    if frame is None or SWITCH.kept or frame.f_code in _seen or frame.f_code.co_flags & inspect.CO_NEWLOCALS:
        return  # a function's import: what the function defines may never exist
    if frame.f_globals.get("__name__", "").startswith(f"{__package__}."):
        return
    _seen.add(frame.f_code)
    if defines_override(frame.f_code):
        SWITCH.need()


def defines_override(module: CodeType) -> bool:
    """Whether a module's code makes a class with ``__torch_function__``, outside of functions."""
    todo = [module]
    while todo:
        for c in todo.pop().co_consts:
            if isinstance(c, CodeType):
                if c.co_name == "__torch_function__":
                    return True
                if not c.co_flags & inspect.CO_OPTIMIZED:  # a class body, not a function
                    todo.append(c)
    return False


def watch(module: ModuleType) -> None:
    """Look at the module that is importing ``module``, which is graphc, now and at all that import it later."""
    spec: Any = module.__spec__
    if type(spec) is ModuleSpec:
        spec.__class__ = _Spec
    importer(sys._getframe(2))
