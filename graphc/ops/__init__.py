"""User-facing operations by family: validate, promote, record. ``graphc`` re-exports them; Tensor methods come from here."""
from __future__ import annotations

import sys
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from .. import codegen  # noqa: F401  (installs the planner)
from ..ir import composites, prims  # noqa: F401  (fill the op table)
from . import (  # noqa: E402
    activation,
    attention,
    complex_parts,
    conv,
    convert,
    creation,
    gamma_functions,
    indexing,
    joining,
    kernel_names,
    legacy,
    linalg_old,
    loss,
    matmul,
    methods,
    norm,
    numeric,
    pointwise,
    pool,
    random,
    rearrange,
    recurrent,
    reduction,
    scatter_views,
    setops,
    shape,
    signal,
    sort,
    special_functions,
)

FAMILIES = (pointwise, reduction, shape, joining, rearrange, creation, convert, indexing, sort, setops, matmul, conv, pool,
            random, activation, norm, loss, attention, recurrent)


def _export() -> None:
    methods.install()
    for family in (indexing, sort, setops, matmul):
        methods.install_family(family)
    methods.install_family(linalg_old, linalg_old.METHODS)
    methods.install_family(signal, signal.METHODS)
    complex_parts.install()
    methods.install_family(activation, ["relu", "relu_", "softmax", "log_softmax", "prelu", "hardshrink"])
    for family in FAMILIES:
        for name, obj in vars(family).items():
            if not name.startswith("_") and callable(obj) and getattr(obj, "__module__", "").startswith("graphc"):
                if isinstance(globals().get(name, sys), ModuleType):  # a function named like its family wins
                    globals()[name] = obj
    newer = (gamma_functions, numeric, scatter_views, special_functions, kernel_names, legacy)
    for module in newer:
        methods.install_family(module, module.METHODS)
    legacy.install(globals(), newer)
    for module in (linalg_old, complex_parts, signal, *newer):
        for name in module.NAMES:
            globals()[name] = getattr(module, name)
    methods.own()
    for name, obj in globals().items():  # functions made by other functions are found under their own name: pickle asks for it
        if isinstance(obj, FunctionType) and "<locals>" in obj.__qualname__:
            found: Any = vars(sys.modules[obj.__module__]).get(name)
            if id(found) == id(obj):
                found.__qualname__ = name


_export()

if TYPE_CHECKING:  # names come from the families above

    def __getattr__(name: str) -> Any: ...
