"""A sampler that gives every process of a distributed run its own share of the data."""
from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ._utils import rng
from .sampler import Sampler

__all__ = ["DistributedSampler"]


def _process_group(what: str) -> int:
    """``get_world_size()`` or ``get_rank()`` of the running process group."""
    import importlib
    import importlib.util

    if importlib.util.find_spec("graphc.distributed") is None:
        raise RuntimeError("Requires distributed package to be available; pass num_replicas and rank instead")
    dist = importlib.import_module("graphc.distributed")
    if not dist.is_available():
        raise RuntimeError("Requires distributed package to be available; pass num_replicas and rank instead")
    return int(getattr(dist, what)())


class DistributedSampler(Sampler[int]):
    """Rank ``rank`` of ``num_replicas`` sees every ``num_replicas``-th index of one common (shuffled) order.

    The order depends on ``seed + epoch`` only: call ``set_epoch(epoch)`` before each pass. All ranks get equally many
    indices: the tail is dropped (``drop_last``) or indices from the front are repeated. Raises ValueError for a rank
    outside [0, num_replicas).
    """

    def __init__(self, dataset: Any, num_replicas: int | None = None, rank: int | None = None, shuffle: bool = True,
                 seed: int = 0, drop_last: bool = False) -> None:
        num_replicas = _process_group("get_world_size") if num_replicas is None else num_replicas
        rank = _process_group("get_rank") if rank is None else rank
        if rank >= num_replicas or rank < 0:
            raise ValueError(f"Invalid rank {rank}, rank should be in the interval [0, {num_replicas - 1}]")
        self.dataset = dataset
        self.num_replicas = num_replicas
        self.rank = rank
        self.epoch = 0
        self.drop_last = drop_last
        self.shuffle = shuffle
        self.seed = seed
        n = len(dataset)
        if drop_last and n % num_replicas:
            self.num_samples = math.ceil((n - num_replicas) / num_replicas)
        else:
            self.num_samples = math.ceil(n / num_replicas)
        self.total_size = self.num_samples * num_replicas

    def __iter__(self) -> Iterator[int]:
        n = len(self.dataset)
        indices = rng.permutation(n, rng.generator(self.seed + self.epoch)) if self.shuffle else list(range(n))
        short = self.total_size - len(indices)
        if short > 0 and not self.drop_last:
            indices += (indices * math.ceil(short / len(indices)))[:short]
        return iter(indices[self.rank:self.total_size:self.num_replicas])

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass (with ``shuffle``)."""
        self.epoch = epoch
