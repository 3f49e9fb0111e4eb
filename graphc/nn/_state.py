"""Saving and loading a module tree's state: what ``Module.state_dict`` and ``Module.load_state_dict`` do.

Both walk the tree with an explicit stack; a child whose class overrides ``state_dict`` is asked itself.
"""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..autograd import no_grad
from ..tensor import Tensor
from ._tree import overrides
from .parameter import Parameter, is_lazy

if TYPE_CHECKING:
    from .module import Module

EXTRA_STATE = "_extra_state"


class _Keys(NamedTuple):
    missing_keys: list[str]
    unexpected_keys: list[str]


class _IncompatibleKeys(_Keys):
    """Result of ``load_state_dict``: the keys the module misses and those it does not know."""

    __slots__ = ()

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"_IncompatibleKeys(missing_keys={self.missing_keys!r}, unexpected_keys={self.unexpected_keys!r})"

    __str__ = __repr__


def new_destination() -> Any:
    """The empty mapping ``state_dict`` fills."""
    destination: Any = OrderedDict()
    destination._metadata = OrderedDict()
    return destination


def save(root: Module, destination: Any, prefix: str, keep_vars: bool) -> Any:
    """Fill ``destination`` with the state of ``root`` and everything below it; returns it (or what a hook made)."""
    result = destination
    stack: list[tuple[Any, str, dict[str, Any] | None]] = [(root, prefix, None)]  # with metadata: children are done
    while stack:
        module, at, metadata = stack.pop()
        if metadata is not None:
            replaced = _run_post_hooks(module, destination, at, metadata)
            result = replaced if module is root else result
            continue
        if module is not root and overrides(module, "state_dict"):
            module.state_dict(destination=destination, prefix=at, keep_vars=keep_vars)
            continue
        metadata = {"version": module._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[at[:-1]] = metadata
        for hook in module._state_dict_pre_hooks.values():
            hook(module, at, keep_vars)
        module._save_to_state_dict(destination, at, keep_vars)
        stack.append((module, at, metadata))
        children = [(m, f"{at}{name}.", None) for name, m in module._modules.items() if m is not None]
        stack.extend(reversed(children))
    return result


def _run_post_hooks(module: Module, destination: Any, prefix: str, metadata: dict[str, Any]) -> Any:
    for hook in module._state_dict_hooks.values():
        replaced = hook(module, destination, prefix, metadata)
        if replaced is None:
            continue
        if getattr(hook, "_from_public_api", False):
            raise RuntimeError("state_dict post-hook must return None")
        destination = replaced
    return destination


def save_own(module: Module, destination: Any, prefix: str, keep_vars: bool) -> None:
    """The parameters, persistent buffers and extra state of ``module`` itself."""
    transient = module._non_persistent_buffers_set
    buffers = ((k, b) for k, b in module._buffers.items() if k not in transient)
    for name, tensor in (*module._parameters.items(), *buffers):
        if tensor is not None:
            destination[prefix + name] = tensor if keep_vars else tensor.detach()
    if overrides(module, "get_extra_state"):
        destination[prefix + EXTRA_STATE] = module.get_extra_state()


def load(root: Module, state: Mapping[str, Any], strict: bool, assign: bool) -> _IncompatibleKeys:
    """Copy (or with ``assign`` adopt) the tensors of ``state`` into ``root`` and everything below it.

    Raises:
        TypeError: ``state`` is not a mapping.
        RuntimeError: every mismatch found, in one message.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"Expected state_dict to be dict-like, got {type(state)}.")
    missing: list[str] = []
    unexpected: list[str] = []
    errors: list[str] = []
    metadata = getattr(state, "_metadata", None)
    copied: Any = OrderedDict(state)  # hooks may rename keys in it
    if metadata is not None:
        copied._metadata = metadata
    _load_tree(root, copied, metadata or {}, assign, missing, unexpected, errors)
    if strict:
        if unexpected:
            errors.insert(0, "Unexpected key(s) in state_dict: {}. ".format(", ".join(f'"{k}"' for k in unexpected)))
        if missing:
            errors.insert(0, "Missing key(s) in state_dict: {}. ".format(", ".join(f'"{k}"' for k in missing)))
    if errors:
        raise RuntimeError("Error(s) in loading state_dict for {}:\n\t{}".format(
            type(root).__name__, "\n\t".join(errors)))
    return _IncompatibleKeys(missing, unexpected)


def _load_tree(root: Module, state: Any, metadata: Mapping[str, Any], assign: bool, missing: list[str],
               unexpected: list[str], errors: list[str]) -> None:
    stack: list[tuple[Any, Any, str, bool]] = [(root, state, "", False)]
    while stack:
        module, local, prefix, leaving = stack.pop()
        if leaving:
            keys = _IncompatibleKeys(missing, unexpected)
            for hook in module._load_state_dict_post_hooks.values():
                if hook(module, keys) is not None:
                    raise AssertionError(
                        "Hooks registered with ``register_load_state_dict_post_hook`` are not expected to return new "
                        "values, if incompatible_keys need to be modified, it should be done inplace.")
            continue
        local_metadata = dict(metadata.get(prefix[:-1], {}))
        if assign:
            local_metadata["assign_to_params_buffers"] = True
        module._load_from_state_dict(local, prefix, local_metadata, True, missing, unexpected, errors)
        stack.append((module, None, prefix, True))
        children = []
        for name, child in module._modules.items():
            if child is not None:
                below = f"{prefix}{name}."
                # Each child gets its own part, so that the whole walk looks at every key once per level only.
                children.append((child, {k: v for k, v in local.items() if k.startswith(below)}, below, False))
        stack.extend(reversed(children))


def load_own(module: Module, state: Any, prefix: str, metadata: dict[str, Any], strict: bool, missing: list[str],
             unexpected: list[str], errors: list[str]) -> None:
    """Load what belongs to ``module`` itself; collects problems in the three lists instead of raising."""
    for hook in module._load_state_dict_pre_hooks.values():
        hook(state, prefix, metadata, strict, missing, unexpected, errors)
    transient = module._non_persistent_buffers_set
    persistent = ((k, b) for k, b in module._buffers.items() if k not in transient)
    own = {k: t for k, t in (*module._parameters.items(), *persistent) if t is not None}
    assign = metadata.get("assign_to_params_buffers", False)
    for name, target in own.items():
        key = prefix + name
        if key in state:
            _load_tensor(module, name, key, target, state[key], assign, errors)
        elif strict:
            missing.append(key)
    extra_key = prefix + EXTRA_STATE
    if overrides(module, "set_extra_state"):
        if extra_key in state:
            module.set_extra_state(state[extra_key])
        elif strict:
            missing.append(extra_key)
    elif strict and extra_key in state:
        unexpected.append(extra_key)
    if strict:
        unexpected.extend(k for k in state if _is_unexpected(module, k, prefix, extra_key, own))


def _is_unexpected(module: Module, key: str, prefix: str, extra_key: str, own: dict[str, Any]) -> bool:
    if not key.startswith(prefix) or key == extra_key:
        return False
    head, dot, _ = key[len(prefix):].partition(".")
    return head not in (module._modules if dot else own)


def _load_tensor(module: Module, name: str, key: str, target: Any, source: Any, assign: bool,
                 errors: list[str]) -> None:
    if not isinstance(source, Tensor):
        errors.append(f'While copying the parameter named "{key}", expected torch.Tensor or Tensor-like object from '
                      f"checkpoint but received {type(source)}")
        return
    if not is_lazy(target) and source.shape != target.shape:
        if len(target.shape) == 0 and len(source.shape) == 1 and source.shape[0] == 1:
            source = source[0]  # checkpoints of early PyTorch stored scalars with one dimension
        else:
            errors.append(f"size mismatch for {key}: copying a param with shape {source.shape} from checkpoint, "
                          f"the shape in current model is {target.shape}.")
            return
    try:
        if assign:
            setattr(module, name, _adopt(target, source))
        else:
            with no_grad():
                target.copy_(source)
    except Exception as error:
        errors.append(f'While copying the parameter named "{key}", whose dimensions in the model are {target.size()} '
                      f"and whose dimensions in the checkpoint are {source.size()}, an exception occurred : "
                      f"{error.args}.")


def _adopt(target: Any, source: Tensor) -> Tensor:
    """``source`` as what replaces ``target``: a parameter with the same ``requires_grad`` if that is one."""
    if not isinstance(target, Parameter):
        return source
    if not isinstance(source, Parameter):
        return Parameter(source, requires_grad=target.requires_grad)
    return source.requires_grad_(target.requires_grad)
