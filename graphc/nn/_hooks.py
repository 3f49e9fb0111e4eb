"""Hooks of modules: the handles, the hooks common to all modules, and the call path that runs them.

``Module.__call__`` comes here only when some hook exists, so a program without hooks never pays for this file.
"""
from __future__ import annotations

import itertools
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..autograd import Function, is_grad_enabled
from ..tensor import Tensor

if TYPE_CHECKING:
    from .module import Module

Hook = Callable[..., Any]
HookDict = dict[int, Hook]

_ids = itertools.count()


class RemovableHandle:
    """Removes one hook: ``handle.remove()``, or leave it as a context manager."""

    def __init__(self, hooks_dict: Any, *, extra_dict: Any = None) -> None:
        self.id = next(_ids)
        extra = () if extra_dict is None else extra_dict if isinstance(extra_dict, (list, tuple)) else (extra_dict,)
        # Weak: a handle a user keeps must not keep the module alive. OrderedDict can be referenced weakly, dict cannot.
        self._dicts = [weakref.ref(d) for d in (hooks_dict, *extra)]

    def remove(self) -> None:
        """Remove the hook; removing it twice is harmless."""
        for ref in self._dicts:
            found = ref()
            if found is not None:
                found.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()

    def __getstate__(self) -> tuple[Any, ...]:
        return ([ref() for ref in self._dicts], self.id)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        dicts, self.id = state
        self._dicts = [weakref.ref(OrderedDict() if d is None else d) for d in dicts]


def add_hook(hooks: Any, hook: Hook, flags: Iterable[tuple[Any, bool]] = (), prepend: bool = False) -> RemovableHandle:
    """Store ``hook`` under a new handle's id, and the id in each of ``flags`` whose value is true."""
    flags = list(flags)
    handle = RemovableHandle(hooks, extra_dict=[d for d, _ in flags])
    hooks[handle.id] = hook
    for d, on in flags:
        if on:
            d[handle.id] = True
    if prepend:
        hooks.move_to_end(handle.id, last=False)
    return handle


class ModuleBoundHook:
    """A hook that gets its module as first argument, without keeping the module alive."""

    def __init__(self, hook: Hook, module: Any) -> None:
        self.hook, self._module = hook, weakref.ref(module)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        module = self._module()
        if module is None:
            raise RuntimeError("You are trying to call the hook of a dead Module!")
        return self.hook(module, *args, **kwargs)

    def __getstate__(self) -> tuple[Any, ...]:
        return self.hook, self._module()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.hook, module = state
        if module is None:
            raise RuntimeError("You are trying to revive the hook of a dead Module!")
        self._module = weakref.ref(module)


class GlobalHooks:
    """Registry of the hooks common to all modules (for debugging, profiling and ``graphc.inspect``)."""

    def __init__(self) -> None:
        self.forward_pre: HookDict = OrderedDict()
        self.forward: HookDict = OrderedDict()
        self.forward_always: dict[int, bool] = OrderedDict()
        self.forward_kwargs: dict[int, bool] = OrderedDict()
        self.backward_pre: HookDict = OrderedDict()
        self.backward: HookDict = OrderedDict()
        self.backward_is_full: bool | None = None
        self.buffer_registration: HookDict = OrderedDict()
        self.module_registration: HookDict = OrderedDict()
        self.parameter_registration: HookDict = OrderedDict()
        # Ids of all hooks that concern calls: empty means Module.__call__ may take its short path.
        self.call: dict[int, bool] = OrderedDict()


GLOBAL = GlobalHooks()


def register_module_buffer_registration_hook(hook: Hook) -> RemovableHandle:
    """``hook(module, name, buffer)`` runs before every buffer registration and may return a replacement."""
    return add_hook(GLOBAL.buffer_registration, hook)


def register_module_module_registration_hook(hook: Hook) -> RemovableHandle:
    """``hook(module, name, submodule)`` runs before every module registration and may return a replacement."""
    return add_hook(GLOBAL.module_registration, hook)


def register_module_parameter_registration_hook(hook: Hook) -> RemovableHandle:
    """``hook(module, name, param)`` runs before every parameter registration and may return a replacement."""
    return add_hook(GLOBAL.parameter_registration, hook)


def register_module_forward_pre_hook(hook: Hook) -> RemovableHandle:
    """``hook(module, args)`` runs before every module's forward and may return new positional arguments."""
    return add_hook(GLOBAL.forward_pre, hook, [(GLOBAL.call, True)])


def register_module_forward_hook(hook: Hook, *, with_kwargs: bool = False,
                                 always_call: bool = False) -> RemovableHandle:
    """``hook(module, args[, kwargs], output)`` runs after every module's forward and may return a new output."""
    flags = [(GLOBAL.forward_kwargs, with_kwargs), (GLOBAL.forward_always, always_call), (GLOBAL.call, True)]
    return add_hook(GLOBAL.forward, hook, flags)


def register_module_full_backward_pre_hook(hook: Hook) -> RemovableHandle:
    """``hook(module, grad_output)`` runs before every module's backward and may return a new ``grad_output``."""
    return add_hook(GLOBAL.backward_pre, hook, [(GLOBAL.call, True)])


def register_module_full_backward_hook(hook: Hook) -> RemovableHandle:
    """``hook(module, grad_input, grad_output)`` runs after every module's backward."""
    _claim_backward_kind(GLOBAL, "backward_is_full", True, "as a global Module hook")
    return add_hook(GLOBAL.backward, hook, [(GLOBAL.call, True)])


def register_module_backward_hook(hook: Hook) -> RemovableHandle:
    """Older form of :func:`register_module_full_backward_hook`; gradients are those of the module, as there."""
    _claim_backward_kind(GLOBAL, "backward_is_full", False, "as a global Module hook")
    return add_hook(GLOBAL.backward, hook, [(GLOBAL.call, True)])


def _claim_backward_kind(owner: Any, attribute: str, full: bool, where: str) -> None:
    """Full and non-full backward hooks exclude each other; remember the first kind used."""
    if getattr(owner, attribute) is (not full):
        raise RuntimeError(f"Cannot use both regular backward hooks and full backward hooks {where}. "
                           "Please use only one of them.")
    object.__setattr__(owner, attribute, full)


class _OutputGate(Function):
    """Identity over a module's outputs; its backward runs the pre-hooks and remembers ``grad_output``."""

    @staticmethod
    def forward(ctx: Any, state: BackwardHooks, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.state = state
        ctx.set_materialize_grads(False)
        return tuple(t.view_as(t) for t in tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        return (None, *ctx.state.on_grad_output(grads))


class _InputGate(Function):
    """Identity over a module's inputs; its backward runs the hooks with the gradients of the inputs."""

    @staticmethod
    def forward(ctx: Any, state: BackwardHooks, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.state = state
        ctx.set_materialize_grads(False)
        return tuple(t.view_as(t) for t in tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        return (None, *ctx.state.on_grad_input(grads))


class BackwardHooks:
    """Runs a module's backward (pre-)hooks for one call.

    The tensors among positional inputs and outputs pass through two identity functions whose backwards see all
    gradients of the module's outputs, then of its inputs, at once.
    """

    def __init__(self, module: Module, hooks: list[Hook], pre_hooks: list[Hook]) -> None:
        self.module, self.hooks, self.pre_hooks = module, hooks, pre_hooks
        self.input_positions: list[int] = []
        self.output_positions: list[int] = []
        self.n_inputs = self.n_outputs = 0
        self.gated_input = False
        self.grad_outputs: tuple[Any, ...] | None = None

    def gate_inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Positional arguments with every tensor passed through the input gate."""
        self.n_inputs = len(args)
        self.input_positions = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
        tensors = [args[i] for i in self.input_positions]
        if not (is_grad_enabled() and any(t.requires_grad for t in tensors)):
            return args
        self.gated_input = True
        return _replace(args, self.input_positions, _InputGate.apply(self, *tensors))

    def gate_outputs(self, result: Any) -> Any:
        """The module's result with every tensor passed through the output gate."""
        if not isinstance(result, (Tensor, tuple)):
            warnings.warn("For backward hooks to be called, module output should be a Tensor or a tuple of Tensors"
                          f" but received {type(result)}", stacklevel=4)
            return result
        outputs = result if isinstance(result, tuple) else (result,)
        self.n_outputs = len(outputs)
        self.output_positions = [i for i, a in enumerate(outputs) if isinstance(a, Tensor)]
        tensors = [outputs[i] for i in self.output_positions]
        if not (is_grad_enabled() and any(t.requires_grad for t in tensors)):
            return result
        gated = _replace(outputs, self.output_positions, _OutputGate.apply(self, *tensors))
        if not isinstance(result, tuple):
            return gated[0]
        return gated if type(result) is tuple else type(result)(*gated)  # a named tuple takes its fields one by one

    def on_grad_output(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        full = _scatter(grads, self.output_positions, self.n_outputs)
        for hook in self.pre_hooks:
            replaced = hook(self.module, full)
            if replaced is not None:
                full = _checked(replaced, len(full), "pre hook", "grad_output")
        self.grad_outputs = full
        if not self.gated_input:  # nothing to wait for: no input takes a gradient
            self._run_hooks(_scatter((), [], self.n_inputs))
        return tuple(full[i] for i in self.output_positions)

    def on_grad_input(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        if self.grad_outputs is None:  # only part of the graph ran backward
            return grads
        full = self._run_hooks(_scatter(grads, self.input_positions, self.n_inputs))
        return tuple(full[i] for i in self.input_positions)

    def _run_hooks(self, grad_inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        for hook in self.hooks:
            replaced = hook(self.module, grad_inputs, self.grad_outputs)
            if replaced is not None:
                grad_inputs = _checked(replaced, len(grad_inputs), "hook", "grad_input")
        self.grad_outputs = None
        return grad_inputs


def _replace(items: tuple[Any, ...], positions: list[int], new: Any) -> tuple[Any, ...]:
    out = list(items)
    for i, t in zip(positions, new if isinstance(new, tuple) else (new,)):
        out[i] = t
    return tuple(out)


def _scatter(values: tuple[Any, ...], positions: list[int], size: int) -> tuple[Any, ...]:
    out: list[Any] = [None] * size
    for i, v in zip(positions, values):
        out[i] = v
    return tuple(out)


def _checked(value: Any, size: int, kind: str, what: str) -> tuple[Any, ...]:
    value = value if isinstance(value, tuple) else (value,)
    if len(value) != size:
        raise RuntimeError(f"Backward {kind} returned an invalid number of {what}, got {len(value)}, "
                           f"but expected {size}")
    return value


def call_with_hooks(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``module.forward`` with all hooks around it; ``always_call`` hooks run even when something raises."""
    call = _HookedCall(module, args, kwargs)
    try:
        return call.run()
    except Exception:
        call.run_pending_always()
        raise


class _HookedCall:
    """One call of a module that has hooks: arguments and result as hooks may have replaced them."""

    def __init__(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.module, self.args, self.kwargs = module, args, kwargs
        self.result: Any = None
        self.done: set[int] = set()

    def run(self) -> Any:
        module = self.module
        self._pre_hooks()
        backward = self._backward_hooks()
        if backward is not None:
            self.args = backward.gate_inputs(self.args)
        self.result = module.forward(*self.args, **self.kwargs)
        for hook_id, hook, with_kwargs, _ in self._forward_hooks():
            self.done.add(hook_id)
            self._run_forward_hook(hook, with_kwargs)
        if backward is not None:
            self.result = backward.gate_outputs(self.result)
        return self.result

    def _pre_hooks(self) -> None:
        module = self.module
        for hook_id, hook in (*GLOBAL.forward_pre.items(), *module._forward_pre_hooks.items()):
            if hook_id in module._forward_pre_hooks_with_kwargs:
                replaced = hook(module, self.args, self.kwargs)
                if replaced is None:
                    continue
                if not (isinstance(replaced, tuple) and len(replaced) == 2):
                    raise RuntimeError("forward pre-hook must return None or a tuple of (new_args, new_kwargs), "
                                       f"but got {replaced}.")
                self.args, self.kwargs = replaced
            else:
                replaced = hook(module, self.args)
                if replaced is not None:
                    self.args = replaced if isinstance(replaced, tuple) else (replaced,)

    def _backward_hooks(self) -> BackwardHooks | None:
        module = self.module
        hooks = [*GLOBAL.backward.values(), *module._backward_hooks.values()]
        pre_hooks = [*GLOBAL.backward_pre.values(), *module._backward_pre_hooks.values()]
        return BackwardHooks(module, hooks, pre_hooks) if hooks or pre_hooks else None

    def _forward_hooks(self) -> Iterator[tuple[int, Hook, bool, bool]]:
        module = self.module
        for i, hook in list(GLOBAL.forward.items()):
            yield i, hook, i in GLOBAL.forward_kwargs, i in GLOBAL.forward_always
        for i, hook in list(module._forward_hooks.items()):
            yield i, hook, i in module._forward_hooks_with_kwargs, i in module._forward_hooks_always_called

    def _run_forward_hook(self, hook: Hook, with_kwargs: bool) -> None:
        if with_kwargs:
            replaced = hook(self.module, self.args, self.kwargs, self.result)
        else:
            replaced = hook(self.module, self.args, self.result)
        if replaced is not None:
            self.result = replaced

    def run_pending_always(self) -> None:
        """After an exception: the ``always_call`` hooks that have not run; their own errors become warnings."""
        for hook_id, hook, with_kwargs, always in self._forward_hooks():
            if always and hook_id not in self.done:
                try:
                    self._run_forward_hook(hook, with_kwargs)
                except Exception as error:
                    warnings.warn("module forward hook with ``always_call=True`` raised an exception that was "
                                  f"silenced as another error was raised in forward: {error}", stacklevel=4)


class HookMixin:
    """Methods of :class:`Module` that register hooks; each returns a handle whose ``remove()`` takes it away."""

    _backward_pre_hooks: HookDict
    _backward_hooks: HookDict
    _is_full_backward_hook: bool | None
    _forward_hooks: HookDict
    _forward_hooks_with_kwargs: dict[int, bool]
    _forward_hooks_always_called: dict[int, bool]
    _forward_pre_hooks: HookDict
    _forward_pre_hooks_with_kwargs: dict[int, bool]
    _state_dict_hooks: HookDict
    _state_dict_pre_hooks: HookDict
    _load_state_dict_pre_hooks: HookDict
    _load_state_dict_post_hooks: HookDict

    def register_forward_pre_hook(self, hook: Hook, *, prepend: bool = False,
                                  with_kwargs: bool = False) -> RemovableHandle:
        """``hook(module, args)`` before forward; may return new args.

        With ``with_kwargs`` it is ``hook(module, args, kwargs)`` and may return ``(args, kwargs)``.
        """
        flags = [(self._forward_pre_hooks_with_kwargs, with_kwargs)]
        return add_hook(self._forward_pre_hooks, hook, flags, prepend)

    def register_forward_hook(self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False,
                              always_call: bool = False) -> RemovableHandle:
        """``hook(module, args, output)`` after forward; may return a new output.

        With ``with_kwargs`` it is ``hook(module, args, kwargs, output)``; with ``always_call`` it runs even when
        forward raises (``output`` is then ``None``).
        """
        flags = [(self._forward_hooks_with_kwargs, with_kwargs), (self._forward_hooks_always_called, always_call)]
        return add_hook(self._forward_hooks, hook, flags, prepend)

    def register_full_backward_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """``hook(module, grad_output)`` before the module's backward; may return a new ``grad_output``."""
        return add_hook(self._backward_pre_hooks, hook, prepend=prepend)

    def register_full_backward_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """``hook(module, grad_input, grad_output)`` after the module's backward; may return a new ``grad_input``."""
        _claim_backward_kind(self, "_is_full_backward_hook", True, "on a single Module")
        return add_hook(self._backward_hooks, hook, prepend=prepend)

    def register_backward_hook(self, hook: Hook) -> RemovableHandle:
        """Older form of :meth:`register_full_backward_hook`; sees the module's gradients, as that does."""
        _claim_backward_kind(self, "_is_full_backward_hook", False, "on a single Module")
        return add_hook(self._backward_hooks, hook)

    def _register_state_dict_hook(self, hook: Hook) -> RemovableHandle:
        """``hook(module, state_dict, prefix, local_metadata)`` after saving; may return another dict."""
        if getattr(hook, "_from_public_api", False):
            raise RuntimeError("Cannot register the same function as the state dict post hook that was previously "
                               "registered via register_state_dict_post_hook")
        return add_hook(self._state_dict_hooks, hook)

    def register_state_dict_post_hook(self, hook: Hook) -> RemovableHandle:
        """``hook(module, state_dict, prefix, local_metadata) -> None`` after saving; may change the dict in place."""
        hook._from_public_api = True  # type: ignore[attr-defined]
        return add_hook(self._state_dict_hooks, hook)

    def register_state_dict_pre_hook(self, hook: Hook) -> RemovableHandle:
        """``hook(module, prefix, keep_vars)`` before saving."""
        return add_hook(self._state_dict_pre_hooks, hook)

    def _register_load_state_dict_pre_hook(self, hook: Hook, with_module: bool = False) -> RemovableHandle:
        bound = ModuleBoundHook(hook, self) if with_module else hook
        return add_hook(self._load_state_dict_pre_hooks, bound)

    def register_load_state_dict_pre_hook(self, hook: Hook) -> RemovableHandle:
        """``hook(module, state_dict, prefix, local_metadata, strict, missing, unexpected, errors)`` before loading."""
        return self._register_load_state_dict_pre_hook(hook, with_module=True)

    def register_load_state_dict_post_hook(self, hook: Hook) -> RemovableHandle:
        """``hook(module, incompatible_keys)`` after loading; may change the key lists in place."""
        return add_hook(self._load_state_dict_post_hooks, hook)
