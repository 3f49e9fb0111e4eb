"""The scheduler base: epoch counting, setting the groups' rates, warnings about the order of calls."""
from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Sequence
from typing import Any

from ...tensor import Tensor
from ..optimizer import Optimizer

Rates = list[Any]

EPOCH_WARNING = (
    "The epoch parameter in `scheduler.step()` was not necessary and is being deprecated where possible. Please use "
    "`scheduler.step()` to step the scheduler. During the deprecation, if epoch is different from None, the closed form is "
    "used instead of the new chainable form, where available. Please open an issue if you are unable to replicate your use "
    "case: https://github.com/pytorch/pytorch/issues/new/choose.")
_HOW_TO = "See more details at https://pytorch.org/docs/stable/optim.html#how-to-adjust-learning-rate"
_OVERRIDDEN = ("Seems like `optimizer.step()` has been overridden after learning rate scheduler initialization. Please, make "
               f"sure to call `optimizer.step()` before `lr_scheduler.step()`. {_HOW_TO}")
_WRONG_ORDER = ("Detected call of `lr_scheduler.step()` before `optimizer.step()`. In PyTorch 1.1.0 and later, you should "
                "call them in the opposite order: `optimizer.step()` before `lr_scheduler.step()`.  Failure to do this will "
                f"result in PyTorch skipping the first value of the learning rate schedule. {_HOW_TO}")
_NOT_INITIAL = ("param 'initial_lr' is not specified in param_groups[{}] when resuming scheduler with last_epoch >= 0.\n"
                "This typically happens when:\n"
                "1. You're trying to resume training from a checkpoint but haven't properly loaded the optimizer state\n"
                "2. You're using last_epoch >= 0 for a fresh training run (not recommended)")


def check_optimizer(optimizer: Any) -> None:
    """TypeError unless ``optimizer`` is an Optimizer."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")


def copied(x: Any) -> Any:
    """``x``, or a copy where it is a tensor that somebody may change in place."""
    return x.clone() if isinstance(x, Tensor) else x


def per_group(name: str, optimizer: Optimizer, x: Any) -> Rates:
    """``x`` once per parameter group. ValueError for a list of another length."""
    n = len(optimizer.param_groups)
    if not isinstance(x, (list, tuple)):
        x = [x] * n
    elif len(x) != n:
        raise ValueError(f"{name} must have the same length as optimizer.param_groups. {name} has {len(x)} values, "
                         f"param_groups has {n}.")
    return [copied(v) for v in x]


def values_of(optimizer: Optimizer, key: str) -> Rates:
    """``group[key]`` of every group, never aliasing it."""
    return [copied(g[key]) for g in optimizer.param_groups]


def set_value(group: dict[str, Any], key: str, x: Any) -> None:
    """Set ``group[key]``; a tensor there is filled in place."""
    old = group[key]
    if isinstance(old, Tensor):
        old.fill_(x.reshape(()) if isinstance(x, Tensor) else x)
    else:
        group[key] = x


class LRScheduler:
    """Base: ``get_lr()`` gives each group's rate for ``last_epoch``, usually from the current rate.

    TypeError for what is not an Optimizer; KeyError when resuming (``last_epoch >= 0``) without ``initial_lr``.
    """

    _get_lr_called_within_step = False
    _is_initial = False
    _last_lr: Rates
    last_epoch: int

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
        check_optimizer(optimizer)
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", copied(group["lr"]))
            elif "initial_lr" not in group:
                raise KeyError(_NOT_INITIAL.format(i))
        self.base_lrs = values_of(optimizer, "initial_lr")
        self.last_epoch = last_epoch
        _watch_step(optimizer)
        self._initial_step()

    def _initial_step(self) -> None:
        """Set the first rates."""
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def get_lr(self) -> Rates:
        """The rates for ``last_epoch``; users want :meth:`get_last_lr`."""
        raise NotImplementedError

    def get_last_lr(self) -> Rates:
        """The rates set last."""
        return self._last_lr

    def step(self, epoch: int | None = None) -> None:
        """Advance by one (or, deprecated, jump to ``epoch``). To be called after ``optimizer.step()``."""
        if self._step_count == 1:
            if not hasattr(self.optimizer.step, "_wrapped_by_lr_sched"):
                warnings.warn(_OVERRIDDEN, UserWarning, stacklevel=2)
            elif not getattr(self.optimizer, "_opt_called", False):
                warnings.warn(_WRONG_ORDER, UserWarning, stacklevel=2)
        self._step_count += 1
        if epoch is not None:
            warnings.warn(EPOCH_WARNING, UserWarning, stacklevel=2)
        self._update_lr(epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        closed = None if epoch is None else getattr(self, "_get_closed_form_lr", None)
        self._set_rates(closed() if closed is not None else self._within_step())

    def _within_step(self) -> Rates:
        """``get_lr()`` without its warning."""
        self._get_lr_called_within_step = True
        try:
            return self.get_lr()
        finally:
            self._get_lr_called_within_step = False

    def _warn_outside_step(self) -> None:
        if not self._get_lr_called_within_step:
            warnings.warn("To get the last learning rate computed by the scheduler, please use `get_last_lr()`.", UserWarning,
                          stacklevel=3)

    def _set_rates(self, values: Sequence[Any]) -> None:
        for group, lr in zip(self.optimizer.param_groups, values, strict=True):
            set_value(group, "lr", lr)
        self._last_lr = values_of(self.optimizer, "lr")

    def _rates(self) -> Rates:
        return values_of(self.optimizer, "lr")

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {k: v for k, v in self.__dict__.items() if k != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.__dict__.update(state_dict)


class _LRScheduler(LRScheduler):
    """The base's name in old programs."""


def _watch_step(optimizer: Optimizer) -> None:
    """Note in ``_opt_called`` that the optimizer has stepped, to warn when the scheduler steps first."""
    if hasattr(optimizer.step, "_wrapped_by_lr_sched"):
        return
    function = optimizer.step.__func__  # type: ignore[attr-defined]
    owner = weakref.ref(optimizer)  # the optimizer holds the wrapper: a strong reference would be a cycle

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        opt: Any = owner()
        opt._opt_called = True
        return function(opt, *args, **kwargs)

    wrapper._wrapped_by_lr_sched = True  # type: ignore[attr-defined]
    optimizer.step = wrapper  # type: ignore[method-assign]
