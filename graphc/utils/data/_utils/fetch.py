"""Fetching a batch: from indices of a map-style dataset, or from the iterator of an iterable-style one."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ....tensor import Tensor
from . import collate, host


class DatasetKind:
    """How a dataset is read, and the fetcher for each way."""

    Map = 0
    Iterable = 1

    @staticmethod
    def create_fetcher(kind: int, dataset: Any, auto_collation: bool, collate_fn: Callable[[Any], Any],
                       drop_last: bool) -> MapFetcher | IterableFetcher:
        cls = MapFetcher if kind == DatasetKind.Map else IterableFetcher
        return cls(dataset, auto_collation, collate_fn, drop_last)


class MapFetcher:
    """Batches of ``dataset[i]``. ``at`` is the index being read, for error messages."""

    def __init__(self, dataset: Any, auto_collation: bool, collate_fn: Callable[[Any], Any], drop_last: bool) -> None:
        self.dataset, self.auto_collation, self.collate_fn = dataset, auto_collation, collate_fn
        self.at: Any = None

    def fetch(self, index: Any) -> Any:
        """The collated batch at a list of indices, or the converted sample at one index."""
        self.at = None
        if not self.auto_collation:
            return self.collate_fn(self.dataset[index])
        batch = take_whole(self.dataset, index, self.collate_fn)
        if batch is not None:
            return batch
        if getattr(self.dataset, "__getitems__", None):
            return self.collate_fn(self.dataset.__getitems__(index))
        samples = []
        for self.at in index:
            samples.append(self.dataset[self.at])
        self.at = None
        return self.collate_fn(samples)


class IterableFetcher:
    """Batches of consecutive samples of an iterable-style dataset; StopIteration at its end."""

    at: Any = None

    def __init__(self, dataset: Any, auto_collation: bool, collate_fn: Callable[[Any], Any], drop_last: bool) -> None:
        self.auto_collation, self.collate_fn, self.drop_last = auto_collation, collate_fn, drop_last
        self.iterator = iter(dataset)
        self.ended = False

    def fetch(self, index: Any) -> Any:
        """The next ``len(index)`` samples collated, or the next one converted. Raises StopIteration at the end."""
        if self.ended:
            raise StopIteration
        if not self.auto_collation:
            return self.collate_fn(next(self.iterator))
        samples = []
        for _ in index:
            try:
                samples.append(next(self.iterator))
            except StopIteration:
                self.ended = True
                break
        if not samples or (self.drop_last and len(samples) < len(index)):
            raise StopIteration
        return self.collate_fn(samples)


def take_whole(dataset: Any, indices: Any, collate_fn: Any) -> list[Tensor] | None:
    """The default collation of a TensorDataset (or a Subset of one) by indexing each tensor once, else None.

    Equal to collating ``dataset[i]`` one by one. Anything a user may have overridden leads to None.
    """
    from ..dataset import Subset, TensorDataset

    if (collate_fn is not collate.default_collate
            or collate.default_collate_fn_map.get(Tensor) is not collate.collate_tensor_fn):
        return None
    while (type(dataset).__getitem__ is Subset.__getitem__
           and getattr(type(dataset), "__getitems__", None) is Subset.__getitems__):
        indices = [dataset.indices[i] for i in indices]
        dataset = dataset.dataset
    if type(dataset).__getitem__ is not TensorDataset.__getitem__ or hasattr(dataset, "__getitems__"):
        return None
    if any(type(t) is not Tensor for t in dataset.tensors):
        return None
    where = np.array([int(i) for i in indices], dtype=np.int64)
    return [host.take(t, where) for t in dataset.tensors]
