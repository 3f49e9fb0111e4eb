"""``torch.autograd.graph``: looking at the gradient graph, hooks over several tensors."""
from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from .._absent import absent_class
from ..ir.tape import OutputEdge
from ..tensor import Tensor
from ..tensor_hooks import GradFn, HookHandle

__all__ = ["GradientEdge", "Node", "disable_saved_tensors_hooks", "get_gradient_edge", "increment_version",
           "register_multi_grad_hook", "save_on_cpu", "saved_tensors_hooks"]
Node = GradFn  # what tensor.grad_fn is
saved_tensors_hooks = absent_class("autograd.graph.saved_tensors_hooks",
                                   "what backward needs is kept by the plan, not tensor by tensor: use "
                                   "utils.checkpoint.checkpoint")


class GradientEdge(NamedTuple):
    """Where a tensor hangs on the gradient graph: the function that gave it and the number of that function's output."""

    node: Any
    output_nr: int


def get_gradient_edge(tensor: Tensor) -> GradientEdge:
    """The edge of a tensor that requires a gradient (RuntimeError for another)."""
    edge = tensor._read().gfn
    if edge is None:
        raise RuntimeError("It is not possible to get the gradient edge for a Tensor that does not require gradients")
    return GradientEdge(GradFn(edge), edge.index if edge.__class__ is OutputEdge else 0)


class _Handles:
    """Removes several hooks."""

    def __init__(self, handles: Sequence[HookHandle]):
        self._handles = tuple(handles)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> _Handles:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def register_multi_grad_hook(tensors: Sequence[Tensor], fn: Callable[..., Any], *, mode: str = "all") -> _Handles:
    """Call ``fn`` in backward passes: mode "any" with the first gradient of these tensors that is there, mode "all" with the
    list of all gradients once each is there."""
    if mode not in ("all", "any"):
        raise ValueError(f"Expects mode to be one of ('all', 'any') but got {mode}")
    lock, found = threading.Lock(), [None] * len(tensors)
    state = {"left": len(tensors), "done": False}

    def hook(k: int) -> Callable[[Tensor], None]:
        def one(grad: Tensor) -> None:
            with lock:
                if state["left"] == 0:  # the next backward pass begins
                    state.update(left=len(tensors), done=False)
                found[k] = grad  # type: ignore[call-overload]
                state["left"] -= 1
                ready = state["left"] == 0 if mode == "all" else not state["done"]
                state["done"] = True
                given = list(found) if ready and mode == "all" else grad
                if ready and mode == "all":
                    found[:] = [None] * len(tensors)
            if ready:
                fn(given)

        return one

    return _Handles([t.register_hook(hook(k)) for k, t in enumerate(tensors)])


@contextlib.contextmanager
def save_on_cpu(pin_memory: bool = False, device_type: str = "cuda") -> Iterator[None]:
    """Accepted: what backward needs stays where it is; ``utils.checkpoint.checkpoint`` saves memory."""
    yield


@contextlib.contextmanager
def disable_saved_tensors_hooks(error_message: str) -> Iterator[None]:
    """Accepted: there are no such hooks."""
    yield


def increment_version(tensor: Any) -> None:
    """Count a write from outside to a tensor, or to each of several."""
    for t in [tensor] if isinstance(tensor, Tensor) else list(tensor):
        alias = t._base_alias()
        alias.storage.version += 1


