"""``GradScaler``: loss scaling whose every decision is made on the device.

PyTorch's scaler reads on the host whether a gradient overflowed and then calls ``optimizer.step()`` or not. Here the step is
always recorded and every tensor it wrote becomes ``where(overflow, old, new)``, so that a training step with scaling stays one
program. Only what an optimizer keeps on the host (the step count of Adam) is put back later: at the next step, when the flag
of this one has long been computed.
"""
from __future__ import annotations

import warnings
from collections import abc
from typing import Any

from .. import cuda, ops
from ..autograd.mode import no_grad
from ..dtypes import float16, float32, int32
from ..ir.node import Value
from ..ir.recorder import soft_flush
from ..ir.recorder import state as recording
from ..tensor import Tensor, wrap

READY, UNSCALED, STEPPED = "ready", "unscaled", "stepped"


class _PerOptimizer:
    """Where one optimizer stands between two updates, and what to undo on the host if its last step was skipped."""

    __slots__ = ("stage", "found", "last", "host", "fresh")

    def __init__(self) -> None:
        self.stage = READY
        self.found: Tensor | None = None  # bool (): a gradient of this step was not finite
        self.last: Tensor | None = None  # that flag of the step before
        self.host: list[tuple[Tensor, Value]] = []  # host scalars and their values before that step
        self.fresh: list[tuple[dict[str, Any], str]] = []  # state that step made


class GradScaler:
    """Scales the loss so that float16 gradients neither vanish nor overflow, and skips steps whose gradients did overflow.

    ``scale`` the loss, ``step(optimizer)`` instead of ``optimizer.step()``, then ``update()``. The scale is multiplied by
    ``backoff_factor`` after an overflow and by ``growth_factor`` after ``growth_interval`` steps without. Errors as PyTorch:
    RuntimeError for calls out of order or gradients in float16, AssertionError for ``update`` without a step.
    """

    def __init__(self, device: str = "cuda", init_scale: float = 2.0**16, growth_factor: float = 2.0,
                 backoff_factor: float = 0.5, growth_interval: int = 2000, enabled: bool = True):
        if enabled and device == "cuda" and not cuda.is_available():
            warnings.warn("torch.cuda.amp.GradScaler is enabled, but CUDA is not available.  Disabling.", stacklevel=2)
            enabled = False
        self._device, self._enabled = device, enabled
        if enabled:
            assert growth_factor > 1.0, "The growth factor must be > 1.0."
            assert backoff_factor < 1.0, "The backoff factor must be < 1.0."
        self._init_scale, self._growth_factor, self._backoff_factor = init_scale, growth_factor, backoff_factor
        self._growth_interval, self._init_tracker = growth_interval, 0
        self._scale: Tensor | None = None
        self._growth_tracker: Tensor | None = None
        self._states: dict[int, _PerOptimizer] = {}

    # ---------------------------------------------------------------------------------------------------------- scaling
    def _begin(self, like: Tensor | None = None) -> Tensor:
        """The scale as a tensor, made where the first loss is."""
        if self._scale is None:
            where = like.device if like is not None else None
            self._scale = ops.full((), self._init_scale, dtype=float32, device=where)
            self._growth_tracker = ops.full((), self._init_tracker, dtype=int32, device=where)
        return self._scale

    def scale(self, outputs: Any) -> Any:
        """``outputs`` (a tensor, or nested lists and tuples of them) times the scale."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            return outputs * self._begin(outputs).to(outputs.dtype)
        if isinstance(outputs, abc.Iterable):
            parts = [self.scale(o) for o in outputs]
            return type(outputs)(parts) if isinstance(outputs, (list, tuple)) else parts
        raise ValueError("outputs must be a Tensor or an iterable of Tensors")

    def _state(self, optimizer: Any) -> _PerOptimizer:
        return self._states.setdefault(id(optimizer), _PerOptimizer())

    def unscale_(self, optimizer: Any) -> None:
        """Divide the gradients by the scale in place, as clipping them needs; done by :meth:`step` otherwise."""
        if not self._enabled:
            return
        st = self._state(optimizer)
        if st.stage is not READY:
            raise RuntimeError("unscale_() has already been called on this optimizer since the last update()."
                               if st.stage is UNSCALED else "unscale_() is being called after step().")
        if self._scale is None:
            raise AssertionError("Attempted unscale_ but _scale is None.  This may indicate your script did not use "
                                 "scaler.scale(loss or outputs) earlier in the iteration.")
        with no_grad():
            inverse, bad = 1.0 / self._scale, None
            for p in (p for group in optimizer.param_groups for p in group["params"]):
                g = p.grad
                if g is None:
                    continue
                if g.dtype is float16:
                    raise ValueError("Attempting to unscale FP16 gradients.")
                g.mul_(inverse.to(g.dtype))
                here = g.isfinite().all().logical_not()
                bad = here if bad is None else bad | here
            st.found = bad
        st.stage = UNSCALED

    # ------------------------------------------------------------------------------------------------------------- step
    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """``optimizer.step()``, undone on the device if a gradient was not finite."""
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs or args:
            raise RuntimeError("Closure use is not currently supported if GradScaler is enabled.")
        st = self._state(optimizer)
        if st.stage is STEPPED:
            raise RuntimeError("step() has already been called since the last update().")
        if st.stage is READY:
            self.unscale_(optimizer)
        assert st.found is not None, "No inf checks were recorded for this optimizer."
        _settle(st)
        before = {id(t): (t, t._read()) for t in _written(optimizer)}
        recording.hold += 1  # the step and its undoing are one program
        try:
            out = optimizer.step()
            with no_grad():
                _undo_if(st, optimizer, before)
        finally:
            recording.hold -= 1
        st.stage = STEPPED
        soft_flush()
        return out

    def update(self, new_scale: Any = None) -> None:
        """Adapt the scale to what the steps since the last update found, or set it."""
        if not self._enabled:
            return
        scale = self._begin()
        tracker = self._growth_tracker
        assert tracker is not None
        with no_grad():
            if new_scale is not None:
                scale.copy_(new_scale) if isinstance(new_scale, Tensor) else scale.fill_(float(new_scale))
            else:
                flags = [st.found for st in self._states.values() if st.found is not None]
                assert flags, "No inf checks were recorded prior to update."
                bad = flags[0]
                for f in flags[1:]:
                    bad = bad | f
                grown = scale * self._growth_factor
                full = (tracker + 1) >= self._growth_interval
                up = ops.where(full & grown.isfinite(), grown, scale)
                scale.copy_(ops.where(bad, scale * self._backoff_factor, up))
                tracker.copy_(ops.where(bad | full, ops.zeros_like(tracker), tracker + 1))
        for st in self._states.values():
            st.stage, st.last, st.found = READY, st.found, None

    # --------------------------------------------------------------------------------------------------------- settings
    def get_scale(self) -> float:
        """The scale as a number (evaluates)."""
        if not self._enabled:
            return 1.0
        return float(self._init_scale if self._scale is None else self._scale.item())

    def get_growth_factor(self) -> float:
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        self._growth_interval = new_interval

    def is_enabled(self) -> bool:
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """``{}`` when disabled."""
        if not self._enabled:
            return {}
        tracker = self._init_tracker if self._growth_tracker is None else int(self._growth_tracker.item())
        return {"scale": self.get_scale(), "growth_factor": self._growth_factor, "backoff_factor": self._backoff_factor,
                "growth_interval": self._growth_interval, "_growth_tracker": tracker}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """RuntimeError for an empty dict (saved by a disabled scaler)."""
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError("The source state dict is empty, possibly because it was saved from a disabled instance of "
                               "GradScaler.")
        self._init_scale, self._init_tracker = state_dict["scale"], state_dict["_growth_tracker"]
        self._growth_factor, self._backoff_factor = state_dict["growth_factor"], state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        self._scale = self._growth_tracker = None


def _written(optimizer: Any) -> list[Tensor]:
    """Every tensor a step may write: parameters and state."""
    out = [p for group in optimizer.param_groups for p in group["params"]]
    for entry in optimizer.state.values():
        out += [t for t in entry.values() if isinstance(t, Tensor)]
    return out


def _undo_if(st: _PerOptimizer, optimizer: Any, before: dict[int, tuple[Tensor, Value]]) -> None:
    """Every tensor becomes ``where(found, old, new)``. What the step made, and numbers the optimizer keeps on the host, are
    noted for :func:`_settle`."""
    found = st.found
    assert found is not None
    st.host, st.fresh = [], []
    for t in [t for t in _written(optimizer) if id(t) in before]:
        old, new = before[id(t)][1], t._read()
        if new is old:
            continue
        if new.region is None and not new.aval.shape and new.aval.device.type == "cpu":
            st.host.append((t, old))
        else:
            t._write(ops.where(found.to(t.device), wrap(old), wrap(new))._read())
    for entry in optimizer.state.values():
        st.fresh += [(entry, key) for key, t in entry.items() if isinstance(t, Tensor) and id(t) not in before]


def _settle(st: _PerOptimizer) -> None:
    """If the step before turned out to be skipped: put host scalars back and forget state it made."""
    last, host, fresh = st.last, st.host, st.fresh
    st.last, st.host, st.fresh = None, [], []
    if last is not None and (host or fresh) and bool(last):
        for t, old in host:
            t._write(old)
        for entry, key in fresh:
            entry.pop(key, None)


__all__ = ["GradScaler"]
