"""``DataParallel`` (the module runs on the one device it is on) and ``DistributedDataParallel`` (gradients are averaged over
the processes of ``graphc.distributed``)."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..tensor import Tensor, from_array, to_numpy
from .module import Module

__all__ = ["DataParallel", "DistributedDataParallel", "data_parallel", "gather", "parallel_apply", "replicate", "scatter"]


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


class DistributedDataParallel(Module):
    """Calls ``module``; its parameters and buffers start as rank 0's, and after every backward the gradients are the average
    over all processes. Parameters must all take part in every backward.

    Raises:
        ValueError: ``graphc.distributed`` is not initialised, or no parameter requires a gradient.
        RuntimeError: in ``forward``, when the last backward left parameters without gradient.
        NotImplementedError: ``find_unused_parameters=True`` with several processes.
    """

    def __init__(self, module: Module, device_ids: Any = None, output_device: Any = None, dim: int = 0,
                 broadcast_buffers: bool | None = None, init_sync: bool = True, process_group: Any = None,
                 bucket_cap_mb: Any = None, find_unused_parameters: bool = False, check_reduction: bool = False,
                 gradient_as_bucket_view: bool = False, static_graph: bool = False, delay_all_reduce_named_params: Any = None,
                 param_to_hook_all_reduce: Any = None, mixed_precision: Any = None, device_mesh: Any = None,
                 skip_all_reduce_unused_params: bool = False, bucket_cap_mb_list: Any = None,
                 batched_grad_copy: bool = False, forward_sync_buffers: bool | None = None) -> None:
        super().__init__()
        from .. import distributed

        self._world = distributed.get_world_size(process_group)
        if not any(p.requires_grad for p in module.parameters()):
            raise RuntimeError("DistributedDataParallel is not needed when a module doesn't have any parameters that require "
                               "a gradient.")
        if find_unused_parameters and self._world > 1:
            raise NotImplementedError("DistributedDataParallel(find_unused_parameters=True): let every parameter take part in "
                                      "the loss, or freeze those that do not with requires_grad_(False)")
        self.module = module
        self.device_ids, self.output_device, self.dim = device_ids, output_device, dim
        self.broadcast_buffers = broadcast_buffers is not False
        self.require_backward_grad_sync = True
        self._learned = [p for p in module.parameters() if p.requires_grad]
        self._arrived = 0
        if self._world > 1:
            if init_sync:
                for t in [*module.parameters(), *module.buffers()]:
                    distributed.broadcast(t.detach(), 0)
            for p in self._learned:
                p.register_post_accumulate_grad_hook(self._on_gradient)

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        if 0 < self._arrived < len(self._learned):
            missing = len(self._learned) - self._arrived
            raise RuntimeError("Expected to have finished reduction in the prior iteration before starting a new one: "
                               f"{missing} parameters got no gradient in the last backward; every parameter must take part in "
                               "the loss")
        if self._world > 1 and self.broadcast_buffers and self.training and self.require_backward_grad_sync:
            from .. import distributed

            for b in self.module.buffers():
                distributed.broadcast(b, 0)
        return self.module(*inputs, **kwargs)

    def _on_gradient(self, parameter: Tensor) -> None:
        if not self.require_backward_grad_sync:
            return
        self._arrived += 1
        if self._arrived == len(self._learned):
            self._arrived = 0
            self._average()

    def _average(self) -> None:
        """One message per dtype for all gradients."""
        from .. import distributed

        by_dtype: dict[Any, list[Tensor]] = {}
        for p in self._learned:
            if p.grad is not None:
                by_dtype.setdefault(p.grad.dtype, []).append(p.grad)
        for grads in by_dtype.values():
            arrays = [to_numpy(g.detach()) for g in grads]
            flat = from_array(np.concatenate([a.reshape(-1) for a in arrays]))
            distributed.all_reduce(flat, distributed.ReduceOp.AVG)
            total, at = to_numpy(flat), 0
            for g, a in zip(grads, arrays):
                g.detach().copy_(from_array(total[at:at + a.size].reshape(a.shape).copy()))
                at += a.size

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """Backward passes inside only accumulate; the first one outside averages."""
        before, self.require_backward_grad_sync = self.require_backward_grad_sync, False
        try:
            yield
        finally:
            self.require_backward_grad_sync = before


def scatter(inputs: Any, target_gpus: Any, dim: int = 0) -> tuple[Any, ...]:
    """Tensors cut along ``dim`` into one part per device, in tuples, lists and dicts; other objects go to each."""
    n = len(target_gpus)

    def spread(x: Any) -> list[Any]:
        if isinstance(x, Tensor):
            return [part.to(d) for part, d in zip(x.chunk(n, dim), target_gpus)]
        if isinstance(x, (tuple, list)) and x:
            made = [type(x)(p) for p in zip(*[spread(y) for y in x])]
            return [type(x)(*p) for p in made] if hasattr(x, "_fields") else made
        if isinstance(x, dict) and x:
            return [type(x)(p) for p in zip(*[[(k, v) for v in spread(y)] for k, y in x.items()])]
        return [x for _ in target_gpus]

    return tuple(spread(inputs))


def gather(outputs: Any, target_device: Any, dim: int = 0) -> Any:
    """The inverse of :func:`scatter`: parts joined along ``dim`` on one device; numbers as tensors of one element become
    vectors."""
    from .. import ops

    first = outputs[0]
    if isinstance(first, Tensor):
        return ops.cat([(o.reshape(1) if not o.ndim else o).to(target_device) for o in outputs], dim)
    if first is None:
        return None
    if isinstance(first, dict):
        return type(first)((k, gather([o[k] for o in outputs], target_device, dim)) for k in first)
    return type(first)(gather(list(part), target_device, dim) for part in zip(*outputs))


def replicate(network: Module, devices: Any, detach: bool = False) -> list[Module]:
    """The module once per device; on the device it is on it is itself. RuntimeError for several devices: start one process for
    each."""
    if len(devices) > 1:
        raise RuntimeError(f"replicate: one process works on one device, got {list(devices)}; start one process per device")
    return [network.to(d) for d in devices]


def parallel_apply(modules: Any, inputs: Any, kwargs_tup: Any = None, devices: Any = None) -> list[Any]:
    """Each module on its arguments."""
    named = kwargs_tup if kwargs_tup is not None else [{} for _ in modules]
    if not len(modules) == len(inputs) == len(named):
        raise AssertionError(f"The number of modules {len(modules)} is not equal to the number of inputs {len(inputs)}")
    return [m(*(x if isinstance(x, (tuple, list)) else (x,)), **k) for m, x, k in zip(modules, inputs, named)]
