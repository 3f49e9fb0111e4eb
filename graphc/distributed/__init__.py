"""``torch.distributed``: several processes that train together, connected by TCP (the "gloo" of PyTorch).

Collectives work on CPU tensors and on the group of all processes. Start the processes with ``graphc.multiprocessing.spawn``
or any launcher that sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; ``nn.parallel.DistributedDataParallel`` averages
gradients. What spreads one model over processes (FSDP, tensor parallelism) is not there.
"""
from __future__ import annotations

from typing import Any

from ._collectives import *  # noqa: F403
from ._collectives import __all__ as __all__

Backend = str  # names of backends are strings

_ABSENT = {
    "fsdp": "parameters are not sharded: use nn.parallel.DistributedDataParallel",
    "tensor": "tensors live in one process: use nn.parallel.DistributedDataParallel",
    "device_mesh": "all processes form one group: use init_process_group",
    "checkpoint": "save on rank 0 with graphc.save(model.state_dict(), path)",
    "rpc": "use collectives, or multiprocessing queues",
    "send": "point-to-point messages: use broadcast, scatter or gather",
    "recv": "point-to-point messages: use broadcast, scatter or gather",
    "isend": "point-to-point messages: use broadcast, scatter or gather",
    "irecv": "point-to-point messages: use broadcast, scatter or gather",
}


def __getattr__(name: str) -> Any:
    if name in _ABSENT:
        raise NotImplementedError(f"graphc.distributed.{name} is not there: {_ABSENT[name]}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
