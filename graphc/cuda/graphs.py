"""``torch.cuda.graphs``. Plans are captured as CUDA graphs and replayed by themselves; a compiled function is one plan.

Capturing a block of a program by hand means fixing the addresses of its tensors, which are not fixed here.
"""
from __future__ import annotations

from typing import Any

from .._absent import absent_class, absent_function
from ..compile import compile
from ..errors import ArgumentTypeError
from ..nn import Module
from ..runtime.cuda import device as _devices
from ..tensor import Tensor

_INSTEAD = "plans are captured and replayed as CUDA graphs by themselves; use torch.compile or make_graphed_callables"
CUDAGraph = absent_class("torch.cuda.CUDAGraph", _INSTEAD)
graph = absent_class("torch.cuda.graph", _INSTEAD)
graph_pool_handle = absent_function("torch.cuda.graph_pool_handle", _INSTEAD)


def is_current_stream_capturing() -> bool:
    """Whether work sent to the current stream is recorded into a graph."""
    s = _devices.current_stream()
    return s.driver.capturing(s.handle)


def make_graphed_callables(callables: Any, sample_args: tuple[Any, ...], num_warmup_iters: int = 3,
                           allow_unused_input: bool = False, pool: Any = None) -> Any:
    """Compiled forms of functions or modules (of modules: themselves, with a compiled ``forward``), run once on their sample
    arguments. One callable with its arguments, or tuples of both. Unlike PyTorch's they take other shapes as well."""
    single = not isinstance(callables, tuple)
    todo = (callables,) if single else callables
    samples = (sample_args,) if single else sample_args
    if len(todo) != len(samples):
        raise ArgumentTypeError(f"make_graphed_callables: {len(todo)} callables, {len(samples)} tuples of sample arguments")
    out = []
    for f, args in zip(todo, samples):
        if not all(isinstance(a, Tensor) for a in args):
            raise ArgumentTypeError("In the beta API, sample_args for each callable must contain only Tensors. Other types are "
                                    "not allowed.")
        if isinstance(f, Module):
            f.forward = compile(f.forward)  # type: ignore[method-assign]
            out.append(f)
        else:
            out.append(compile(f))
        out[-1](*args)
    return out[0] if single else tuple(out)


__all__ = ["CUDAGraph", "graph", "graph_pool_handle", "is_current_stream_capturing", "make_graphed_callables"]
