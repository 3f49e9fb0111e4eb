"""``torch._dynamo``: switches that programs set; :func:`graphc.compile` needs none of them."""
from ..compiler import allow_in_graph, disable, is_compiling, list_backends, reset
from . import config

__all__ = ["allow_in_graph", "config", "disable", "graph_break", "is_compiling", "list_backends", "mark_dynamic", "mark_static",
           "maybe_mark_dynamic", "optimize", "reset"]


def optimize(backend="inductor", *, nopython=False, guard_export_fn=None, guard_fail_fn=None, disable=False, dynamic=None):  # type: ignore[no-untyped-def]
    """A decorator: :func:`graphc.compile` (or nothing with ``disable``)."""
    from ..compile import compile

    return (lambda fn: fn) if disable else (lambda fn: compile(fn, fullgraph=nopython))


def graph_break(msg: str = "") -> None:
    """Accepted: a call is recorded as one region whatever Python does between."""


def mark_dynamic(t: object, index: object, *, hint_override: object = None, min: object = None, max: object = None,
                 specialize_on: object = None) -> None:
    """Accepted: a new size builds a new plan and compiles nothing."""


def maybe_mark_dynamic(t: object, index: object) -> None:
    """Accepted, as :func:`mark_dynamic`."""


def mark_static(t: object, index: object = None) -> None:
    """Accepted: sizes are read on every call."""
