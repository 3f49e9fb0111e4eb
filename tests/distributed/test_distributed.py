"""Processes over TCP: every collective, DistributedDataParallel against one process, failures that are named."""
from __future__ import annotations

import datetime
import os
import socket
import sys
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.distributed as dist
import graphc.multiprocessing as mp
from graphc import nn
from graphc.nn.parallel import DistributedDataParallel
from graphc.tensor import to_numpy

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tests use localhost sockets as on POSIX")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(rank: int, world: int, port: int, seconds: float = 60) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", world_size=world, rank=rank,
                            timeout=datetime.timedelta(seconds=seconds))


def collectives(rank: int, world: int, port: int) -> None:
    start(rank, world, port)
    mine = graphc.arange(4, dtype=graphc.float32) + 10 * rank
    everyone = [np.arange(4, dtype=np.float32) + 10 * r for r in range(world)]

    def check(got: Any, want: Any) -> None:
        np.testing.assert_array_equal(to_numpy(got), want)

    for op, want in ((dist.ReduceOp.SUM, sum(everyone)), (dist.ReduceOp.MAX, everyone[-1]), (dist.ReduceOp.MIN, everyone[0]),
                     (dist.ReduceOp.AVG, sum(everyone) / world), (dist.ReduceOp.PRODUCT, np.prod(everyone, 0))):
        t = mine.clone()
        dist.all_reduce(t, op)
        check(t, want)
    bits = graphc.tensor([1 << rank, 7])
    dist.all_reduce(bits, dist.ReduceOp.BOR)
    check(bits, [(1 << world) - 1, 7])
    t = mine.clone()
    dist.reduce(t, 1)
    check(t, sum(everyone) if rank == 1 else everyone[rank])
    t = mine.clone()
    work = dist.broadcast(t, 2, async_op=True)
    assert work is not None and work.wait()
    check(t, everyone[2])
    parts = [graphc.empty(4) for _ in range(world)]
    dist.all_gather(parts, mine)
    for p, want in zip(parts, everyone):
        check(p, want)
    joined, stacked = graphc.empty(4 * world), graphc.empty(world, 4)
    dist.all_gather_into_tensor(joined, mine)
    dist.all_gather_into_tensor(stacked, mine)
    check(joined, np.concatenate(everyone))
    check(stacked, np.stack(everyone))
    parts = [graphc.zeros(4) for _ in range(world)]
    dist.gather(mine, parts if rank == 0 else None, 0)
    check(parts[1], everyone[1] if rank == 0 else np.zeros(4))
    t = graphc.empty(2)
    dist.scatter(t, [graphc.full((2,), float(r)) for r in range(world)] if rank == 1 else None, 1)
    check(t, [rank, rank])
    dist.reduce_scatter(t, [graphc.full((2,), float(r + rank)) for r in range(world)])
    check(t, [world * rank + sum(range(world))] * 2)
    dist.reduce_scatter_tensor(t, graphc.arange(2.0 * world))
    check(t, world * (np.arange(2) + 2 * rank))
    parts = [graphc.empty(1, dtype=graphc.int64) for _ in range(world)]
    dist.all_to_all(parts, [graphc.tensor([10 * rank + j]) for j in range(world)])
    assert [p.item() for p in parts] == [10 * j + rank for j in range(world)]
    objects: list[Any] = [None] * world
    dist.all_gather_object(objects, {"rank": rank})
    assert objects == [{"rank": r} for r in range(world)]
    things = ["a", 1] if rank == 0 else [None, None]
    dist.broadcast_object_list(things, 0)
    assert things == ["a", 1]
    dist.barrier()
    assert (dist.get_rank(), dist.get_world_size(), dist.get_backend()) == (rank, world, "gloo")
    assert dist.new_group(list(range(world))).size() == world
    sync = nn.SyncBatchNorm(2)
    try:
        sync(graphc.ones(3, 2))
    except NotImplementedError as refusal:  # rather than statistics of one process in silence
        assert "GroupNorm" in str(refusal)
    else:
        raise AssertionError("SyncBatchNorm trained on its own process")
    assert tuple(sync.eval()(graphc.ones(3, 2)).shape) == (3, 2)
    dist.destroy_process_group()
    assert not dist.is_initialized()
    sync.train()(graphc.ones(3, 2))


def test_collectives() -> None:
    mp.spawn(collectives, (3, free_port()), nprocs=3)


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.BatchNorm1d(4), nn.Linear(4, 1))


DATA = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)


def train(net: Any, x: Any, steps: int = 3) -> None:
    net.eval()
    opt = graphc.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(steps):
        opt.zero_grad()
        net(x).square().mean().backward()
        opt.step()


def data_parallel(rank: int, world: int, port: int, path: str) -> None:
    start(rank, world, port)
    graphc.manual_seed(rank)  # different on each process: rank 0's parameters must win
    net = DistributedDataParallel(model())
    x = graphc.from_numpy(DATA[rank::world].copy())
    net.eval()  # batch statistics would differ between the halves
    with net.no_sync():
        net(x).sum().backward()
    local = to_numpy(net.module[0].weight.grad)
    net.zero_grad()
    train(net, x)
    assert np.isfinite(local).all() and list(net.state_dict())[0].startswith("module.")
    arrays = {k: to_numpy(v) for k, v in net.module.state_dict().items()}
    np.savez(os.path.join(path, f"{rank}.npz"), local=local, **arrays)
    dist.destroy_process_group()


def test_gradients_are_averaged(tmp_path: Any) -> None:
    """Two processes on halves of the batch end where one process on the whole batch ends."""
    mp.spawn(data_parallel, (2, free_port(), str(tmp_path)), nprocs=2)
    a, b = [dict(np.load(tmp_path / f"{r}.npz")) for r in range(2)]
    assert not np.array_equal(a.pop("local"), b.pop("local"))
    graphc.manual_seed(0)
    net = model()
    train(net, graphc.from_numpy(DATA))
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(a[name], b[name])
        np.testing.assert_allclose(a[name], to_numpy(value), rtol=2e-5, atol=1e-6)


def leave(rank: int, port: int) -> None:
    start(rank, 2, port, seconds=20)
    if rank == 1:
        raise ValueError("rank 1 has had enough")
    dist.barrier()


def test_a_failing_process_is_reported() -> None:
    with pytest.raises((mp.ProcessRaisedException, mp.ProcessExitedException)) as failure:
        mp.spawn(leave, (free_port(),), nprocs=2)
    assert "rank 1 has had enough" in str(failure.value) or "rank 1 within" in str(failure.value)


def test_one_process() -> None:
    """World size 1 needs no address and changes nothing."""
    os.environ.update(RANK="0", WORLD_SIZE="1")
    try:
        dist.init_process_group()
    finally:
        del os.environ["RANK"], os.environ["WORLD_SIZE"]
    try:
        t = graphc.ones(2)
        dist.all_reduce(t)
        dist.barrier()
        out = [graphc.empty(2)]
        dist.all_gather(out, t)
        assert out[0].tolist() == [1.0, 1.0] and dist.get_world_size() == 1
        net = DistributedDataParallel(nn.Linear(2, 1), find_unused_parameters=True)
        net(t).sum().backward()
        assert net.module.weight.grad is not None
        with pytest.raises(ValueError, match="twice"):
            dist.init_process_group(world_size=1, rank=0)
        with pytest.raises(NotImplementedError):
            dist.new_group([0, 1])
    finally:
        dist.destroy_process_group()


def test_errors() -> None:
    with pytest.raises(ValueError, match="has not been initialized"):
        dist.get_rank()
    with pytest.raises(ValueError, match="WORLD_SIZE expected"):
        dist.init_process_group("gloo")
    with pytest.raises(RuntimeError, match="gloo"):
        dist.init_process_group("nccl", world_size=1, rank=0)
    with pytest.raises(RuntimeError, match="only ranks"):
        start(0, 2, free_port(), seconds=0.3)
    with pytest.raises(RuntimeError, match="cannot reach"):
        start(1, 2, free_port(), seconds=0.3)
    with pytest.raises(NotImplementedError, match="DistributedDataParallel"):
        dist.fsdp  # noqa: B018
    with pytest.raises(AttributeError):
        dist.no_such_name  # noqa: B018
    with pytest.raises(ValueError):
        mp.set_sharing_strategy("telepathy")
    assert dist.is_available() and not dist.is_initialized() and not dist.is_nccl_available()
