"""``torch.fx``: graphs are not edited from outside; what was recorded can be looked at."""
from __future__ import annotations

from ._absent import absent_class, absent_function

_INSTEAD = "programs are recorded while Python runs; compile(f).explain().graph shows the graph of the last call"

Graph, GraphModule, Interpreter, Node, Proxy, Tracer, Transformer = [
    absent_class(f"fx.{n}", _INSTEAD)
    for n in ("Graph", "GraphModule", "Interpreter", "Node", "Proxy", "Tracer", "Transformer")]
symbolic_trace = absent_function("fx.symbolic_trace", _INSTEAD)
replace_pattern = absent_function("fx.replace_pattern", _INSTEAD)


def wrap(fn_or_name: object) -> object:
    """``fn_or_name`` itself: it only marks functions for symbolic tracing."""
    return fn_or_name


__all__ = ["Graph", "GraphModule", "Interpreter", "Node", "Proxy", "Tracer", "Transformer", "replace_pattern", "symbolic_trace",
           "wrap"]
