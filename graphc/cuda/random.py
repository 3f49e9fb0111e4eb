"""``torch.cuda.random``. One generator serves every device, so that numbers do not depend on where they are used.

Seeding here seeds it if there is a GPU and does nothing otherwise, as programs expect that seed "all GPUs" everywhere.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..ops.random import default_generator
from ..runtime.cuda import device as _devices
from ..runtime.cuda import driver as _driver
from ..tensor import Tensor
from ._available import is_available


def manual_seed(seed: int) -> None:
    """Seed the generator; nothing happens without a GPU."""
    seed = int(seed)
    if is_available():
        default_generator.manual_seed(seed)


def manual_seed_all(seed: int) -> None:
    """Seed the generator of all devices; nothing happens without a GPU."""
    manual_seed(seed)


def seed() -> None:
    """Seed from the operating system's randomness; nothing happens without a GPU."""
    if is_available():
        default_generator.seed()


def seed_all() -> None:
    """Seed from the operating system's randomness; nothing happens without a GPU."""
    seed()


def initial_seed() -> int:
    """The seed in use."""
    _driver.get()
    return default_generator.initial_seed()


def get_rng_state(device: Any = "cuda") -> Tensor:
    """State of the generator, uint8."""
    _driver.get().check_index(_devices.index_of(device))
    return default_generator.get_state()


def get_rng_state_all() -> list[Tensor]:
    """One state per device."""
    return [] if not is_available() else [get_rng_state(k) for k in range(_driver.get().count)]


def set_rng_state(new_state: Tensor, device: Any = "cuda") -> None:
    """Continue where a state was taken; nothing happens without a GPU."""
    if is_available():
        _driver.get().check_index(_devices.index_of(device))
        default_generator.set_state(new_state)


def set_rng_state_all(new_states: Iterable[Tensor]) -> None:
    """Set the state of every device; they are one generator's, so the first decides."""
    for state in list(new_states)[:1]:
        set_rng_state(state)
