"""Batch and instance normalisation, with lazy forms."""
from __future__ import annotations

import sys
import warnings
from typing import Any

from .. import ops
from ..autograd import no_grad
from ..dtypes import int64
from ..tensor import Tensor
from . import functional as F
from . import init
from .lazy import LazyModuleMixin
from .module import Module
from .parameter import Parameter, UninitializedBuffer, UninitializedParameter, empty_parameter

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d",
           "LazyBatchNorm1d", "LazyBatchNorm2d", "LazyBatchNorm3d", "LazyInstanceNorm1d", "LazyInstanceNorm2d",
           "LazyInstanceNorm3d", "SyncBatchNorm"]


def _count(device: Any) -> Tensor:
    return ops.zeros((), dtype=int64, device=device)


class _NormBase(Module):
    """Parameters and running statistics of batch and instance norm; statistics are ``(num_features,)``."""

    _version = 2  # 2: num_batches_tracked is part of the state
    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, device: Any = None, dtype: Any = None, *,
                 bias: bool = True) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        where = {"device": device, "dtype": dtype}
        self.register_parameter("weight", empty_parameter(num_features, **where) if affine else None)
        self.register_parameter("bias", empty_parameter(num_features, **where) if affine and bias else None)
        stats = track_running_stats
        self.register_buffer("running_mean", ops.zeros(num_features, **where) if stats else None)
        self.register_buffer("running_var", ops.ones(num_features, **where) if stats else None)
        self.register_buffer("num_batches_tracked", _count(device) if stats else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Mean 0, variance 1, no batches seen."""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Weight 1, bias 0, running statistics as new."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def _check_input_dim(self, input: Tensor) -> None:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
                f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}")

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: dict[str, Any], *rest: Any) -> None:
        version = local_metadata.get("version")
        if (version is None or version < 2) and self.track_running_stats:
            # Older checkpoints lack the counter; keep the one we have.
            counter = self.num_batches_tracked if self.num_batches_tracked is not None else _count(None)
            state_dict.setdefault(prefix + "num_batches_tracked", counter)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


def _check_dims(input: Tensor, allowed: tuple[int, ...]) -> None:
    if input.dim() not in allowed:
        expected = " or ".join(f"{d}D" for d in allowed)
        raise ValueError(f"expected {expected} input (got {input.dim()}D input)")


class _BatchNorm(_NormBase):
    """Normalises each feature over the batch; in evaluation (and with statistics tracked) by running statistics.

    ``momentum=None`` makes the running statistics plain averages over all batches.
    """

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        training, params, buffers = self.training, self._parameters, self._buffers
        mean, var = buffers["running_mean"], buffers["running_var"]
        factor: Any = self.momentum if self.momentum is not None else 0.0
        if training and self.track_running_stats:
            count = buffers["num_batches_tracked"]
            if count is not None:
                with no_grad():
                    count.add_(1)
                if self.momentum is None:
                    factor = 1.0 / float(count)
        if training and not self.track_running_stats:
            mean = var = None
        try:
            weight, bias = params["weight"], params["bias"]
        except KeyError:  # parametrized
            weight, bias = self.weight, self.bias
        return F.batch_norm(input, mean, var, weight, bias, training or (mean is None and var is None), factor,
                            self.eps)


class BatchNorm1d(_BatchNorm):
    """Batch norm of ``(N, C)`` or ``(N, C, L)``."""

    def _check_input_dim(self, input: Tensor) -> None:
        _check_dims(input, (2, 3))


class BatchNorm2d(_BatchNorm):
    """Batch norm of ``(N, C, H, W)``."""

    def _check_input_dim(self, input: Tensor) -> None:
        _check_dims(input, (4,))


class BatchNorm3d(_BatchNorm):
    """Batch norm of ``(N, C, D, H, W)``."""

    def _check_input_dim(self, input: Tensor) -> None:
        _check_dims(input, (5,))


class SyncBatchNorm(_BatchNorm):
    """Batch norm over all processes of a group. With one process, which is what is supported, plain batch norm.

    Raises:
        NotImplementedError: in training, while ``graphc.distributed`` connects several processes.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, process_group: Any = None, device: Any = None, dtype: Any = None,
                 *, bias: bool = True) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)
        self.process_group = process_group

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input (got {input.dim()}D input)")

    def forward(self, input: Tensor) -> Tensor:
        distributed = sys.modules.get("graphc.distributed")  # not loaded: there is one process
        if self.training and distributed is not None and distributed.is_initialized() and distributed.get_world_size() > 1:
            raise NotImplementedError("SyncBatchNorm does not share statistics between processes: use BatchNorm, whose "
                                      "statistics are those of each process, or GroupNorm")
        return super().forward(input)

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: Any = None) -> Module:
        """``module`` with every BatchNorm layer in it replaced by a SyncBatchNorm sharing its tensors."""
        result = cls._converted(module, process_group)
        stack = [result]
        while stack:
            parent = stack.pop()
            for name, child in list(parent.named_children()):
                converted = cls._converted(child, process_group)
                if converted is not child:
                    parent.add_module(name, converted)
                stack.append(converted)
        return result

    @classmethod
    def _converted(cls, module: Module, process_group: Any) -> Module:
        if not isinstance(module, _BatchNorm) or isinstance(module, cls):
            return module
        new = cls(module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats,
                  process_group, bias=module.bias is not None)
        new._parameters.update(module._parameters)
        new._buffers.update(module._buffers)
        new.training = module.training
        return new


class _InstanceNorm(_NormBase):
    """Normalises each feature of each sample over its positions."""

    _unbatched: int  # dimensions of an input without batch

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False,
                 track_running_stats: bool = False, device: Any = None, dtype: Any = None, *,
                 bias: bool = True) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def _check_input_dim(self, input: Tensor) -> None:
        _check_dims(input, (self._unbatched, self._unbatched + 1))

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        unbatched = input.dim() == self._unbatched
        dim = 0 if unbatched else 1
        if input.shape[dim] != self.num_features:
            if self.affine:
                raise ValueError(f"expected input's size at dim={dim} to match num_features ({self.num_features}), "
                                 f"but got: {input.shape[dim]}.")
            warnings.warn(f"input's size at dim={dim} does not match num_features. You can silence this warning by "
                          "not passing in num_features, which is not used because affine=False", stacklevel=2)
        out = F.instance_norm(input.unsqueeze(0) if unbatched else input, self.running_mean, self.running_var,
                              self.weight, self.bias, self.training or not self.track_running_stats,
                              self.momentum if self.momentum is not None else 0.0, self.eps)
        return out.squeeze(0) if unbatched else out

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: dict[str, Any], strict: bool,
                              missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str]) -> None:
        if local_metadata.get("version") is None and not self.track_running_stats:
            found = [prefix + n for n in ("running_mean", "running_var") if prefix + n in state_dict]
            if found:
                names, klass = " and ".join(f'"{k}"' for k in found), type(self).__name__
                error_msgs.append(
                    f"Unexpected running stats buffer(s) {names} for {klass} with track_running_stats=False. If "
                    f"state_dict is a checkpoint saved before 0.4.0, this may be expected because {klass} does not "
                    "track running stats by default since 0.4.0. Please remove these keys from state_dict. If the "
                    f"running stats are actually needed, instead set track_running_stats=True in {klass} to enable "
                    f"them. See the documentation of {klass} for details.")
                for key in found:
                    state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys,
                                      error_msgs)


class InstanceNorm1d(_InstanceNorm):
    """Instance norm of ``(N, C, L)`` or ``(C, L)``."""

    _unbatched = 2


class InstanceNorm2d(_InstanceNorm):
    """Instance norm of ``(N, C, H, W)`` or ``(C, H, W)``."""

    _unbatched = 3


class InstanceNorm3d(_InstanceNorm):
    """Instance norm of ``(N, C, D, H, W)`` or ``(C, D, H, W)``."""

    _unbatched = 4


class _LazyNormBase(LazyModuleMixin, _NormBase):
    """A norm that takes ``num_features`` from the first input."""

    def __init__(self, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, device: Any = None, dtype: Any = None, *,
                 bias: bool = True) -> None:
        super().__init__(0, eps, momentum, False, False, device, dtype)
        where = {"device": device, "dtype": dtype}
        self.affine = affine
        self.track_running_stats = track_running_stats
        if affine:
            self.weight = UninitializedParameter(**where)
            if bias:
                self.bias = UninitializedParameter(**where)
        if track_running_stats:
            self.running_mean = UninitializedBuffer(**where)
            self.running_var = UninitializedBuffer(**where)
            self.num_batches_tracked = _count(device)

    def reset_parameters(self) -> None:
        if not self.has_uninitialized_params() and self.num_features != 0:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor) -> None:  # type: ignore[override]
        if not self.has_uninitialized_params():
            return
        self.num_features = input.shape[1]
        for tensor in (self.weight, self.bias, self.running_mean, self.running_var):
            if tensor is not None:
                tensor.materialize((self.num_features,))  # type: ignore[union-attr]
        self.reset_parameters()


class LazyBatchNorm1d(_LazyNormBase, BatchNorm1d):
    """:class:`BatchNorm1d` with ``num_features`` from the first input."""

    cls_to_become = BatchNorm1d


class LazyBatchNorm2d(_LazyNormBase, BatchNorm2d):
    """:class:`BatchNorm2d` with ``num_features`` from the first input."""

    cls_to_become = BatchNorm2d


class LazyBatchNorm3d(_LazyNormBase, BatchNorm3d):
    """:class:`BatchNorm3d` with ``num_features`` from the first input."""

    cls_to_become = BatchNorm3d


class LazyInstanceNorm1d(_LazyNormBase, InstanceNorm1d):
    """:class:`InstanceNorm1d` with ``num_features`` from the first input."""

    cls_to_become = InstanceNorm1d


class LazyInstanceNorm2d(_LazyNormBase, InstanceNorm2d):
    """:class:`InstanceNorm2d` with ``num_features`` from the first input."""

    cls_to_become = InstanceNorm2d


class LazyInstanceNorm3d(_LazyNormBase, InstanceNorm3d):
    """:class:`InstanceNorm3d` with ``num_features`` from the first input."""

    cls_to_become = InstanceNorm3d
