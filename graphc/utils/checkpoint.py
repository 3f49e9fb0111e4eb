"""Activation checkpointing: a segment's intermediates are computed again in backward instead of being kept.

The segment is recorded with gradients once, only to learn which values from outside it uses; its tape is dropped and one
gradient node takes its place, which holds the segment's arguments alone. In backward that node records the segment again
and differentiates it. Equal programs would be merged by the compiler, which would keep the intermediates after all; so the
arguments of the second run pass through a selection between themselves and an element of the incoming gradient, by a flag
the compiler does not know. The selection costs nothing (it fuses with its readers), gives the same bits, and makes the second
run depend on the gradient: it cannot be moved ahead of it.
"""
from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..autograd.engine import edge_key, walk
from ..dtypes import bool_
from ..errors import AutogradError
from ..ir import build as P
from ..ir.node import Node, Value
from ..ir.optable import OPS
from ..ir.recorder import apply, scalar, state
from ..ir.tape import AccumulateGrad, GradNode, OutputEdge, alias_value, next_sequence
from ..ops._generator import default_generator
from ..tensor import Tensor
from ..tensor_overriding import kind, of_kind
from ._pytree import TreeSpec, tree_flatten, tree_unflatten

__all__ = ["CheckpointError", "check_backward_validity", "checkpoint", "checkpoint_sequential", "detach_variable",
           "get_device_states", "noop_context_fn", "set_checkpoint_debug_enabled", "set_checkpoint_early_stop",
           "set_device_states"]


class CheckpointError(AutogradError):
    """The second run of a segment gave other outputs than the first."""


def noop_context_fn() -> tuple[Any, Any]:
    """Two contexts that do nothing."""
    return contextlib.nullcontext(), contextlib.nullcontext()


@contextlib.contextmanager
def set_checkpoint_early_stop(enable: bool) -> Iterator[None]:
    """Accepted: what the second run computes beyond need is dropped by the compiler in any case."""
    yield


@contextlib.contextmanager
def set_checkpoint_debug_enabled(enabled: bool | None) -> Iterator[None]:
    """Accepted: a segment that differs between its runs is always reported."""
    yield


class _Row:
    """The little of an op row that the gradient node needs."""

    name = "checkpoint"
    vjp = None
    saves_any = False


def _autocast_state() -> list[Any]:
    """Contexts that bring the present autocast modes back."""
    from ..amp.autocast_mode import autocast, get_autocast_dtype, is_autocast_enabled

    return [autocast(d, dtype=get_autocast_dtype(d), enabled=is_autocast_enabled(d)) for d in ("cpu", "cuda")]


def _after(v: Value, g: Value) -> Value:
    """``v``, bit for bit, as a value that cannot be computed before ``g`` and equals no other to the compiler."""
    if not v.aval.size or not g.aval.size:
        return v
    nd = g.aval.ndim
    first = alias_value(P.reshape(P.slice_(g, (0,) * nd, (1,) * nd, (1,) * nd), ()))
    other = P.expand(P.to_device(P.cast(first, v.aval.dtype), v.aval.device), v.aval.shape)
    flag = P.expand(P.to_device(scalar(True, bool_), v.aval.device), v.aval.shape)
    return P.where(flag, v, other)


def _ends(roots: Sequence[Any], doors: set[Any], start: int) -> list[Any]:
    """Edges at which a tape recorded since ``start`` leads outside, other than through ``doors``."""
    found: dict[Any, Any] = {}
    seen: set[int] = set()
    stack = [e for e in roots if e is not None]
    while stack:
        e = stack.pop()
        gn = e.gn if e.__class__ is OutputEdge else e
        if gn.seq < start:
            found[edge_key(e)] = e
        elif gn.__class__ is not AccumulateGrad and id(gn) not in seen and gn not in doors:
            seen.add(id(gn))
            stack.extend([x for x in gn.edges or () if x is not None])
    return list(found.values())


@contextlib.contextmanager
def _closed(edges: Sequence[Any]) -> Iterator[None]:
    """Within this block walks end at these edges: what lies behind them is the outer walk's part."""
    nodes = {e.gn if e.__class__ is OutputEdge else e for e in edges if e.__class__ is not AccumulateGrad}
    saved = [(gn, gn.edges, gn.hooks) for gn in nodes]
    try:
        for gn, inner, _ in saved:
            gn.edges, gn.hooks = None if inner is None else (None,) * len(inner), None
        yield
    finally:
        for gn, inner, hooks in saved:
            gn.edges, gn.hooks = inner, hooks


class _Segment:
    """One checkpointed call."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], preserve_rng: bool,
                 recompute_context: Any):
        self.function, self.context = function, recompute_context
        leaves, self.spec = tree_flatten((args, kwargs))
        self.leaves = [alias_value(x._read()) if isinstance(x, Tensor) else x for x in leaves]
        self.edges = [x._read().gfn if isinstance(x, Tensor) else None for x in leaves]
        self.kinds = [kind(x) for x in leaves]
        self.casts = _autocast_state()
        self.rng = (default_generator._seed, default_generator._offset) if preserve_rng else None
        self.captured: list[Any] = []  # edges of values from outside that are no arguments
        self.outs: list[tuple[Any, Any]] = []  # shape and dtype of each output

    def call(self, args: Sequence[Any]) -> tuple[list[Any], TreeSpec]:
        given, kwargs = tree_unflatten(args, self.spec)
        return tree_flatten(self.function(*given, **kwargs))

    def entered(self, after: Value | None) -> tuple[list[Any], list[Value | None]]:
        """The arguments for a run, and of each that needs a gradient the value to differentiate by."""
        args: list[Any] = []
        wrt: list[Value | None] = []
        for leaf, edge, like in zip(self.leaves, self.edges, self.kinds):
            if not isinstance(leaf, Value):
                args.append(leaf)
                wrt.append(None)
                continue
            v = alias_value(leaf)
            v.gfn = edge
            if after is not None:
                v = _after(v, after)
            if edge is not None:  # a place of its own on the tape
                v = apply(OPS["reshape"], (v,), (v.aval.shape,))
            wrt.append(v if edge is not None else None)
            args.append(of_kind(v, like))
        return args, wrt

    # ------------------------------------------------------------------------------------------------------------ forward
    def forward(self) -> Any:
        """Run the segment and put its one gradient node on the tape."""
        start = next_sequence()
        before, state.grad = state.grad, True
        try:
            args, entered = self.entered(None)
            out, spec = self.call(args)
        finally:
            state.grad = before
        values = [t._read() if isinstance(t, Tensor) else None for t in out]
        self.outs = [(v.aval.shape, v.aval.dtype) for v in values if v is not None]
        self.captured = _ends([v.gfn for v in values if v is not None], {v.gfn for v in entered if v is not None}, start)
        edges = (*self.edges, *self.captured)
        if all(e is None for e in edges):
            return tree_unflatten(out, spec)
        gn = self._node(edges, tuple([v.aval for v in values if v is not None]))
        k, result = 0, []
        for t, v in zip(out, values):
            if v is None:
                result.append(t)
                continue
            plain = alias_value(v)
            plain.gfn = OutputEdge(gn, k) if v.gfn is not None else None
            result.append(of_kind(plain, kind(t)))
            k += 1
        return tree_unflatten(result, spec)

    def _node(self, edges: tuple[Any, ...], avals: tuple[Any, ...]) -> GradNode:
        gn = GradNode(Node(_Row, (), (), avals, (), 0), (), None)  # type: ignore[arg-type]
        gn.edges = edges
        gn.rule = lambda node, g: self.backward(list(g))
        return gn

    # ----------------------------------------------------------------------------------------------------------- backward
    def backward(self, cots: list[Value | None]) -> list[Value | None]:
        """Gradients of the arguments and the captured values, by a second run."""
        create_graph, state.grad = state.grad, True
        rng = (default_generator._seed, default_generator._offset)
        try:
            if self.rng is not None:
                default_generator._seed, default_generator._offset = self.rng
            with contextlib.ExitStack() as stack:
                for c in (*self.casts, self.context):
                    stack.enter_context(c)
                args, wrt = self.entered(next(g for g in cots if g is not None))
                out, _ = self.call(args)
        finally:
            state.grad = create_graph
            if self.rng is not None:
                default_generator._seed, default_generator._offset = rng
        values = [t._read() for t in out if isinstance(t, Tensor)]
        if [(v.aval.shape, v.aval.dtype) for v in values] != self.outs:
            raise CheckpointError("torch.utils.checkpoint: Recomputed values have different metadata than during the forward "
                                  f"pass: {[(v.aval.shape, v.aval.dtype) for v in values]} instead of {self.outs}")
        pairs = [(v.gfn, g) for v, g in zip(values, cots) if v.gfn is not None and g is not None]
        targets = [v.gfn if v is not None else None for v in wrt] + self.captured
        wanted = [e for e in targets if e is not None]
        with _closed(wanted):
            w = walk([e for e, _ in pairs], [g for _, g in pairs], keep=True, create_graph=create_graph, wrt=wanted)
        return [None if e is None else w.leaves.get(e) if e.__class__ is AccumulateGrad else w.captured.get(edge_key(e))
                for e in targets]


def checkpoint(function: Callable[..., Any], *args: Any, use_reentrant: bool | None = None,
               context_fn: Callable[[], tuple[Any, Any]] = noop_context_fn, determinism_check: str = "default",
               debug: bool = False, early_stop: bool = True, **kwargs: Any) -> Any:
    """``function(*args, **kwargs)``, whose intermediates are not kept for backward but computed again there.

    ``preserve_rng_state=False`` lets the second run draw new random numbers (default: the same). ``context_fn`` gives the
    contexts of the first and the second run. Both values of ``use_reentrant`` use the same mechanism, which takes keyword
    arguments, nested containers, values ``function`` captures, ``autograd.grad`` and higher derivatives; with True (or None,
    after a warning) gradients flow only if an argument needs one, as in PyTorch. ``determinism_check="none"``, ``debug`` and
    ``early_stop`` are accepted.

    Raises ValueError for unexpected keyword arguments under ``use_reentrant=True``, in backward CheckpointError when the second
    run's outputs differ in number, shape or dtype.
    """
    if use_reentrant is None:
        warnings.warn("torch.utils.checkpoint: the use_reentrant parameter should be passed explicitly. "
                      "use_reentrant=False is recommended.", stacklevel=2)
        use_reentrant = True
    preserve = kwargs.pop("preserve_rng_state", True)
    if use_reentrant:
        if kwargs:
            raise ValueError("Unexpected keyword arguments: " + ",".join(kwargs))
        if context_fn is not noop_context_fn or debug:
            raise ValueError("Passing `context_fn` or `debug` is only supported when use_reentrant=False.")
    if not state.grad:
        return function(*args, **kwargs)
    if use_reentrant and not any(isinstance(x, Tensor) and x.requires_grad for x in args):
        warnings.warn("None of the inputs have requires_grad=True. Gradients will be None", stacklevel=2)
        before, state.grad = state.grad, False
        try:
            return function(*args)
        finally:
            state.grad = before
    first, second = context_fn()
    segment = _Segment(function, args, kwargs, preserve, second)
    with first:
        return segment.forward()


def checkpoint_sequential(functions: Any, segments: int, input: Any, use_reentrant: bool | None = None, **kwargs: Any) -> Any:
    """The functions (or modules of a Sequential) one after the other, checkpointed in ``segments`` parts; the last part is
    not. Raises ValueError for unexpected keyword arguments or no segments."""
    if use_reentrant is None:
        warnings.warn("torch.utils.checkpoint.checkpoint_sequential: the use_reentrant parameter should be passed explicitly. "
                      "use_reentrant=False is recommended.", stacklevel=2)
        use_reentrant = True
    preserve = kwargs.pop("preserve_rng_state", True)
    if kwargs:
        raise ValueError("Unexpected keyword arguments: " + ",".join(kwargs))
    steps = list(functions.children()) if hasattr(functions, "children") else list(functions)
    size = len(steps) // segments if segments else 0
    if size < 1:
        raise ValueError(f"checkpoint_sequential: cannot divide {len(steps)} functions into {segments} segments")

    def part(start: int, stop: int) -> Callable[[Any], Any]:
        def run(x: Any) -> Any:
            for step in steps[start:stop]:
                x = step(x)
            return x

        return run

    at = 0
    for _ in range(segments - 1):
        input = checkpoint(part(at, at + size), input, use_reentrant=use_reentrant, preserve_rng_state=preserve)
        at += size
    return part(at, len(steps))(input)


# ----------------------------------------------------------------------------------------- what PyTorch's own needs inside
def check_backward_validity(inputs: Sequence[Any]) -> None:
    """Warn if no tensor among ``inputs`` requires a gradient."""
    if not any(x.requires_grad for x in inputs if isinstance(x, Tensor)):
        warnings.warn("None of the inputs have requires_grad=True. Gradients will be None", stacklevel=2)


def detach_variable(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Tensors detached, requiring gradients as they did; other objects as they are. RuntimeError unless a tuple."""
    if not isinstance(inputs, tuple):
        raise RuntimeError(f"Only tuple of tensors is supported. Got Unsupported input type: {type(inputs).__name__}")
    return tuple([x.detach().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x for x in inputs])


def get_device_states(*args: Any) -> tuple[list[int], list[Any]]:
    """Generators of GPUs that arguments are on: none, one generator serves all devices and is restored by itself."""
    return [], []


def set_device_states(devices: Sequence[int], states: Sequence[Any], *, device_type: str | None = None) -> None:
    """Accepted: see :func:`get_device_states`."""
