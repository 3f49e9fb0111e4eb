"""``torch.distributed``: process groups and collectives on CPU tensors."""
from __future__ import annotations

import datetime
import enum
import os
import pickle
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd import no_grad
from ..errors import ArgumentError, ShapeError
from ..tensor import Tensor, from_array, to_numpy
from ._star import DistributedError, Star

_HEAD = struct.Struct("<16sI")


class ReduceOp(enum.Enum):
    """How values are combined; AVG divides the sum by the number of processes."""

    SUM, AVG, PRODUCT, MIN, MAX, BAND, BOR, BXOR = range(8)


_COMBINE: dict[ReduceOp, Callable[[Any, Any], Any]] = {
    ReduceOp.SUM: np.add, ReduceOp.AVG: np.add, ReduceOp.PRODUCT: np.multiply, ReduceOp.MIN: np.minimum,
    ReduceOp.MAX: np.maximum, ReduceOp.BAND: np.bitwise_and, ReduceOp.BOR: np.bitwise_or, ReduceOp.BXOR: np.bitwise_xor}


class ProcessGroup:
    """All processes: the only group there is."""

    def __init__(self, star: Star, backend: str):
        self.star, self.backend = star, backend

    def rank(self) -> int:
        return self.star.rank

    def size(self) -> int:
        return self.star.world


class Work:
    """Handle of a collective called with ``async_op=True``: it is done already."""

    def wait(self, timeout: Any = None) -> bool:
        return True

    def is_completed(self) -> bool:
        return True


class _Default:
    group: ProcessGroup | None = None  # the process group of this process


# --------------------------------------------------------------------------------------------------------------- set-up
def _environment(name: str) -> str:
    if name not in os.environ:
        raise ArgumentError(f"Error initializing torch.distributed using env:// rendezvous: environment variable {name} "
                            "expected, but not set")
    return os.environ[name]


def _address(init_method: str, world: int) -> tuple[str, int]:
    if init_method.startswith("tcp://"):
        host, _, port = init_method[6:].rpartition(":")
        return host, int(port)
    if init_method.startswith("env://"):
        return (_environment("MASTER_ADDR"), int(_environment("MASTER_PORT"))) if world > 1 else ("", 0)
    raise NotImplementedError(f"init_method {init_method!r}: use env:// or tcp://host:port")


def init_process_group(backend: str | None = None, init_method: str | None = None, timeout: datetime.timedelta | None = None,
                       world_size: int = -1, rank: int = -1, store: Any = None, group_name: str = "", pg_options: Any = None,
                       device_id: Any = None, _ranks: list[int] | None = None) -> None:
    """Connect this process to the others. ``backend`` is "gloo" (tensors on the CPU); rank, size and address come from the
    arguments or from RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. Every process must call it.

    Raises ValueError when called twice or a variable is not set, RuntimeError when processes do not come in time.
    """
    if _Default.group is not None:
        raise ArgumentError("trying to initialize the default process group twice!")
    if backend not in (None, "gloo", "cpu:gloo"):
        raise DistributedError(f"graphc.distributed has the backend 'gloo' only (processes over TCP), not {backend!r}")
    if store is not None:
        raise NotImplementedError("init_process_group(store=...): use init_method='env://' or 'tcp://host:port'")
    world = world_size if world_size > 0 else int(_environment("WORLD_SIZE"))
    rank = rank if rank >= 0 else int(_environment("RANK"))
    if not 0 <= rank < world:
        raise ArgumentError(f"rank {rank} is outside 0..{world - 1}")
    host, port = _address(init_method or "env://", world)
    seconds = timeout.total_seconds() if timeout is not None else 1800.0
    _Default.group = ProcessGroup(Star(rank, world, host, port, seconds), "gloo")


def destroy_process_group(group: ProcessGroup | None = None) -> None:
    """Close the connections."""
    if _Default.group is not None:
        _Default.group.star.close()
        _Default.group = None


def is_available() -> bool:
    """Whether there is a distributed package: yes."""
    return True


def is_initialized() -> bool:
    """Whether :func:`init_process_group` was called."""
    return _Default.group is not None


def is_gloo_available() -> bool:
    return True


def is_nccl_available() -> bool:
    return False


def is_mpi_available() -> bool:
    return False


def is_ucc_available() -> bool:
    return False


def is_torchelastic_launched() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def _star(group: Any = None) -> Star:
    g = group if isinstance(group, ProcessGroup) else _Default.group
    if g is None:
        raise ArgumentError("Default process group has not been initialized, please make sure to call init_process_group.")
    return g.star


def get_rank(group: Any = None) -> int:
    """Rank of this process."""
    return _star(group).rank


def get_world_size(group: Any = None) -> int:
    """Number of processes."""
    return _star(group).world


def get_backend(group: Any = None) -> str:
    """Name of the backend."""
    _star(group)
    return "gloo"


def get_process_group_ranks(group: Any = None) -> list[int]:
    return list(range(get_world_size(group)))


def new_group(ranks: Any = None, timeout: Any = None, backend: Any = None, pg_options: Any = None,
              use_local_synchronization: bool = False, group_desc: Any = None, device_id: Any = None,
              sort_ranks: bool = True) -> ProcessGroup:
    """The group of all processes again; groups of some of them are not there."""
    star = _star()
    if ranks is not None and sorted(ranks) != list(range(star.world)):
        raise NotImplementedError(f"new_group(ranks={list(ranks)}): only the group of all {star.world} processes is there")
    assert _Default.group is not None
    return _Default.group


# ------------------------------------------------------------------------------------------------------------- messages
def _pack(t: Tensor) -> bytes:
    a = np.asarray(to_numpy(t.detach()), order="C")
    return _HEAD.pack(t.dtype.name.encode(), a.ndim) + struct.pack(f"<{a.ndim}Q", *a.shape) + a.tobytes()


def _unpack(data: bytes, like: Tensor) -> np.ndarray:
    """The array in a message; it must have ``like``'s dtype."""
    name, ndim = _HEAD.unpack_from(data)
    if name.rstrip(b"\0").decode() != like.dtype.name:
        raise DistributedError(f"processes gave tensors of different dtypes: {name.rstrip(bytes(1)).decode()} and "
                               f"{like.dtype.name}")
    shape = struct.unpack_from(f"<{ndim}Q", data, _HEAD.size)
    return np.frombuffer(data, like.dtype.np, offset=_HEAD.size + 8 * ndim).reshape(shape)


def _set(t: Tensor, a: np.ndarray) -> None:
    if tuple(a.shape) != tuple(t.shape):
        raise ShapeError(f"processes gave tensors of different shapes: {tuple(a.shape)} and {tuple(t.shape)}")
    with no_grad():
        t.copy_(from_array(np.array(a)))


def _done(async_op: bool) -> Work | None:
    return Work() if async_op else None


def _gathered(t: Tensor, group: Any) -> list[np.ndarray]:
    """Every process's tensor, on every process."""
    star = _star(group)

    def join(all_data: list[bytes]) -> list[bytes]:
        sizes = struct.pack(f"<{len(all_data)}Q", *[len(d) for d in all_data])
        return [sizes + b"".join(all_data)] * star.world

    data = star.combine(_pack(t), join)
    at = 8 * star.world
    out = []
    for n in struct.unpack_from(f"<{star.world}Q", data):
        out.append(_unpack(data[at:at + n], t))
        at += n
    return out


def _reduced(arrays: list[np.ndarray], op: ReduceOp) -> np.ndarray:
    if op not in _COMBINE:
        raise ArgumentError(f"unknown reduction {op!r}")
    if any(a.shape != arrays[0].shape for a in arrays):
        raise ShapeError(f"processes gave tensors of different shapes: {[a.shape for a in arrays]}")
    total = arrays[0].copy()
    for a in arrays[1:]:
        total = _COMBINE[op](total, a)
    if op is ReduceOp.AVG:
        total = total / len(arrays) if total.dtype.kind != "i" else total // len(arrays)
    return total.astype(arrays[0].dtype)


# ---------------------------------------------------------------------------------------------------------- collectives
def all_reduce(tensor: Tensor, op: Any = ReduceOp.SUM, group: Any = None, async_op: bool = False) -> Work | None:
    """``tensor`` becomes the reduction over all processes, equal on all, summed in rank order."""
    star = _star(group)
    if star.world > 1:
        def combine(all_data: list[bytes]) -> list[bytes]:
            total = _reduced([_unpack(d, tensor) for d in all_data], op)
            return [_pack(from_array(total))] * star.world

        _set(tensor, _unpack(star.combine(_pack(tensor), combine), tensor))
    return _done(async_op)


def reduce(tensor: Tensor, dst: int | None = None, op: Any = ReduceOp.SUM, group: Any = None, async_op: bool = False,
           group_dst: int | None = None) -> Work | None:
    """The reduction on process ``dst`` only."""
    kept = tensor.detach().clone()
    all_reduce(tensor, op, group)
    if get_rank(group) != (dst if dst is not None else group_dst):
        _set(tensor, to_numpy(kept))
    return _done(async_op)


def broadcast(tensor: Tensor, src: int | None = None, group: Any = None, async_op: bool = False,
              group_src: int | None = None) -> Work | None:
    """``tensor`` of process ``src`` on every process."""
    star, source = _star(group), _rank_argument(src, group_src, group)
    if star.world > 1:
        mine = _pack(tensor) if star.rank == source else b""
        _set(tensor, _unpack(star.combine(mine, lambda data: [data[source]] * star.world), tensor))
    return _done(async_op)


def _rank_argument(rank: int | None, group_rank: int | None, group: Any) -> int:
    value = rank if rank is not None else group_rank
    if value is None or not 0 <= value < get_world_size(group):
        raise ArgumentError(f"rank {value} is outside 0..{get_world_size(group) - 1}")
    return value


def all_gather(tensor_list: list[Tensor], tensor: Tensor, group: Any = None, async_op: bool = False) -> Work | None:
    """Fill ``tensor_list`` with every process's ``tensor``."""
    found = _gathered(tensor, group)
    if len(tensor_list) != len(found):
        raise ArgumentError(f"all_gather needs a list of {len(found)} tensors, got {len(tensor_list)}")
    for t, a in zip(tensor_list, found):
        _set(t, a)
    return _done(async_op)


def all_gather_into_tensor(output_tensor: Tensor, input_tensor: Tensor, group: Any = None,
                           async_op: bool = False) -> Work | None:
    """Every process's tensor joined along the first dimension, or stacked if ``output_tensor`` has one more."""
    found = _gathered(input_tensor, group)
    stack = output_tensor.ndim == input_tensor.ndim + 1
    _set(output_tensor, np.stack(found) if stack else np.concatenate(found))
    return _done(async_op)


def gather(tensor: Tensor, gather_list: list[Tensor] | None = None, dst: int | None = None, group: Any = None,
           async_op: bool = False, group_dst: int | None = None) -> Work | None:
    """Every process's tensor in ``gather_list`` of process ``dst`` (default 0)."""
    found = _gathered(tensor, group)
    if get_rank(group) == (dst if dst is not None else group_dst or 0):
        for t, a in zip(gather_list or (), found):
            _set(t, a)
    return _done(async_op)


def scatter(tensor: Tensor, scatter_list: list[Tensor] | None = None, src: int | None = None, group: Any = None,
            async_op: bool = False, group_src: int | None = None) -> Work | None:
    """Element ``r`` of process ``src``'s list (default 0) on process ``r``."""
    star = _star(group)
    source = src if src is not None else group_src or 0
    mine = b""
    if star.rank == source:
        parts = [_pack(t) for t in scatter_list or ()]
        if len(parts) != star.world:
            raise ArgumentError(f"scatter needs a list of {star.world} tensors, got {len(parts)}")
        mine = struct.pack(f"<{star.world}Q", *[len(p) for p in parts]) + b"".join(parts)
    _set(tensor, _unpack(star.combine(mine, lambda data: _split(data[source], star.world)), tensor))
    return _done(async_op)


def _split(data: bytes, n: int) -> list[bytes]:
    at, out = 8 * n, []
    for size in struct.unpack_from(f"<{n}Q", data):
        out.append(data[at:at + size])
        at += size
    return out


def reduce_scatter(output: Tensor, input_list: list[Tensor], op: Any = ReduceOp.SUM, group: Any = None,
                   async_op: bool = False) -> Work | None:
    """The reduction of everyone's element ``r`` on process ``r``."""
    rank = get_rank(group)
    for r, t in enumerate(input_list):
        total = t.detach().clone()
        all_reduce(total, op, group)
        if r == rank:
            _set(output, to_numpy(total))
    return _done(async_op)


def reduce_scatter_tensor(output: Tensor, input: Tensor, op: Any = ReduceOp.SUM, group: Any = None,
                          async_op: bool = False) -> Work | None:
    """:func:`reduce_scatter` of equal parts of the first dimension."""
    total = input.detach().clone()
    all_reduce(total, op, group)
    n, rank = get_world_size(group), get_rank(group)
    _set(output, to_numpy(total).reshape((n, *output.shape))[rank])
    return _done(async_op)


def all_to_all(output_tensor_list: list[Tensor], input_tensor_list: list[Tensor], group: Any = None,
               async_op: bool = False) -> Work | None:
    """Element ``j`` of process ``i``'s list becomes element ``i`` of process ``j``'s."""
    star = _star(group)
    parts = [_pack(t) for t in input_tensor_list]
    mine = struct.pack(f"<{star.world}Q", *[len(p) for p in parts]) + b"".join(parts)

    def turn(all_data: list[bytes]) -> list[bytes]:
        table = [_split(d, star.world) for d in all_data]
        columns = [[row[j] for row in table] for j in range(star.world)]
        return [struct.pack(f"<{star.world}Q", *[len(p) for p in c]) + b"".join(c) for c in columns]

    for t, d in zip(output_tensor_list, _split(star.combine(mine, turn), star.world)):
        _set(t, _unpack(d, t))
    return _done(async_op)


def barrier(group: Any = None, async_op: bool = False, device_ids: Any = None, timeout: Any = None) -> Work | None:
    """Wait until every process is here."""
    star = _star(group)
    star.combine(b"", lambda data: [b""] * star.world)
    return _done(async_op)


def monitored_barrier(group: Any = None, timeout: Any = None, wait_all_ranks: bool = False) -> None:
    """:func:`barrier`: a process that does not come is named in the error."""
    barrier(group)


# -------------------------------------------------------------------------------------------------------------- objects
def all_gather_object(object_list: list[Any], obj: Any, group: Any = None) -> None:
    """Every process's picklable object. Objects are unpickled, which runs code from the other processes: trust them."""
    star = _star(group)

    def join(all_data: list[bytes]) -> list[bytes]:
        return [struct.pack(f"<{star.world}Q", *[len(d) for d in all_data]) + b"".join(all_data)] * star.world

    parts = _split(star.combine(pickle.dumps(obj), join), star.world)
    object_list[:] = [pickle.loads(p) for p in parts]


def broadcast_object_list(object_list: list[Any], src: int | None = None, group: Any = None, device: Any = None,
                          group_src: int | None = None) -> None:
    """Process ``src``'s picklable objects on every process; see :func:`all_gather_object` about trust."""
    star, source = _star(group), _rank_argument(src if src is not None or group_src is not None else 0, group_src, group)
    mine = pickle.dumps(list(object_list)) if star.rank == source else b""
    object_list[:] = pickle.loads(star.combine(mine, lambda data: [data[source]] * star.world))


def gather_object(obj: Any, object_gather_list: list[Any] | None = None, dst: int | None = None, group: Any = None,
                  group_dst: int | None = None) -> None:
    """Every process's object on process ``dst`` (default 0)."""
    found: list[Any] = []
    all_gather_object(found, obj, group)
    if object_gather_list is not None and get_rank(group) == (dst if dst is not None else group_dst or 0):
        object_gather_list[:] = found


__all__ = ["DistributedError", "ProcessGroup", "ReduceOp", "Work", "all_gather", "all_gather_into_tensor", "all_gather_object",
           "all_reduce", "all_to_all", "barrier", "broadcast", "broadcast_object_list", "destroy_process_group", "gather",
           "gather_object", "get_backend", "get_process_group_ranks", "get_rank", "get_world_size", "init_process_group",
           "is_available", "is_gloo_available", "is_initialized", "is_mpi_available", "is_nccl_available",
           "is_torchelastic_launched", "is_ucc_available", "monitored_barrier", "new_group", "reduce", "reduce_scatter",
           "reduce_scatter_tensor", "scatter"]
