"""``DataParallel`` for programs written for several devices: here the module runs on the one it is on."""
from __future__ import annotations

from typing import Any

from .module import Module

__all__ = ["DataParallel", "data_parallel"]


class DataParallel(Module):
    """Calls ``module``. State dict keys start with ``module.``, as in PyTorch.

    PyTorch splits the batch over ``device_ids`` in threads of one process; graphc does not: use one process per
    device. Arguments are accepted so that single-device programs run.

    Raises:
        ValueError: more than one device id.
    """

    def __init__(self, module: Module, device_ids: Any = None, output_device: Any = None, dim: int = 0) -> None:
        super().__init__()
        ids = list(device_ids) if device_ids is not None else []
        if len(ids) > 1:
            raise ValueError(f"DataParallel runs on one device, got device_ids={ids}; start one process per device")
        self.dim = dim
        self.module = module
        self.device_ids = ids
        self.output_device = output_device if output_device is not None else (ids[0] if ids else None)
        if ids:
            self.module.to(ids[0])

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self.module(*inputs, **kwargs)


def data_parallel(module: Module, inputs: Any, device_ids: Any = None, output_device: Any = None, dim: int = 0,
                  module_kwargs: dict[str, Any] | None = None) -> Any:
    """``module`` called once; see :class:`DataParallel`."""
    args = inputs if isinstance(inputs, tuple) else (inputs,) if inputs is not None else ()
    return module(*args, **(module_kwargs or {}))
