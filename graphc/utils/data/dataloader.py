"""The DataLoader: batches of a dataset, loaded here or by worker processes."""
from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ._utils import rng
from ._utils.collate import default_collate, default_convert
from ._utils.fetch import DatasetKind as _DatasetKind
from ._utils.worker import Job, get_worker_info
from .dataset import Dataset, IterableDataset
from .sampler import BatchSampler, RandomSampler, Sampler, SequentialSampler

if TYPE_CHECKING:
    from ._utils.multiprocess import Pool, Schedule

__all__ = ["DataLoader", "default_collate", "default_convert", "get_worker_info"]

_T_co = TypeVar("_T_co", covariant=True)


class _InfiniteConstantSampler(Sampler[Any]):
    """None for ever: an iterable-style dataset decides itself what comes next."""

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield None


class DataLoader(Generic[_T_co]):
    """Iterate over batches of ``dataset``.

    Batches come in order and are the same for any ``num_workers`` (what a *dataset* draws at random depends on the
    process that draws: worker ``i`` is seeded with ``base_seed + i``, and ``base_seed`` comes from ``generator`` or the
    default one). Workers are forked processes on Linux. An exception in a worker is raised here with the worker's
    traceback and dataset indices; a worker that dies raises RuntimeError, and so does one that needs more than
    ``timeout`` seconds for a batch.

    Args as in PyTorch: ``batch_size`` (None: samples are not batched), ``shuffle``, ``sampler``, ``batch_sampler``,
    ``num_workers``, ``collate_fn``, ``pin_memory``, ``drop_last``, ``timeout``, ``worker_init_fn(worker_id)``,
    ``multiprocessing_context``, ``generator``, ``prefetch_factor`` (batches per worker, 2), ``persistent_workers``,
    ``in_order``.

    Raises ValueError for contradicting arguments.
    """

    _initialized = False
    _iterator: _MultiProcessingDataLoaderIter | None = None
    _FIXED = frozenset(("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers"))

    def __init__(self, dataset: Dataset[_T_co], batch_size: int | None = 1, shuffle: bool | None = None,
                 sampler: Sampler[Any] | Iterable[Any] | None = None,
                 batch_sampler: Sampler[list[Any]] | Iterable[list[Any]] | None = None, num_workers: int = 0,
                 collate_fn: Callable[[Any], Any] | None = None, pin_memory: bool = False, drop_last: bool = False,
                 timeout: float = 0, worker_init_fn: Callable[[int], None] | None = None,
                 multiprocessing_context: Any = None, generator: Any = None, *, prefetch_factor: int | None = None,
                 persistent_workers: bool = False, pin_memory_device: str = "", in_order: bool = True) -> None:
        _check_worker_options(num_workers, timeout, prefetch_factor, persistent_workers)
        self.dataset: Any = dataset
        self.num_workers = num_workers
        self.prefetch_factor = 2 if num_workers > 0 and prefetch_factor is None else prefetch_factor
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.in_order = in_order
        self.generator = generator
        self._dataset_kind = _DatasetKind.Iterable if isinstance(dataset, IterableDataset) else _DatasetKind.Map
        _check_sampling_options(self._dataset_kind, batch_size, shuffle, sampler, batch_sampler, drop_last)
        if batch_sampler is not None:
            batch_size, drop_last = None, False
        if sampler is None:
            sampler = self._default_sampler(bool(shuffle))
        if batch_size is not None and batch_sampler is None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.collate_fn = collate_fn or (default_convert if batch_sampler is None else default_collate)
        self.persistent_workers = persistent_workers
        self._IterableDataset_len_called: int | None = None
        self._initialized = True
        self.check_worker_number_rationality()

    def _default_sampler(self, shuffle: bool) -> Sampler[Any]:
        if self._dataset_kind == _DatasetKind.Iterable:
            return _InfiniteConstantSampler()
        return RandomSampler(self.dataset, generator=self.generator) if shuffle else SequentialSampler(self.dataset)

    @property
    def multiprocessing_context(self) -> Any:
        """The context workers are started in; None chooses (fork on Linux)."""
        return self._context

    @multiprocessing_context.setter
    def multiprocessing_context(self, context: Any) -> None:
        self._context = _checked_context(context, self.num_workers)

    def __setattr__(self, name: str, value: Any) -> None:
        if self._initialized and name in self._FIXED:
            raise ValueError(f"{name} attribute should not be set after {type(self).__name__} is initialized")
        super().__setattr__(name, value)

    def __iter__(self) -> _BaseDataLoaderIter:
        if not (self.persistent_workers and self.num_workers > 0):
            return self._get_iterator()
        it = self._iterator
        if it is None or it._pool.closed:
            it = self._iterator = _MultiProcessingDataLoaderIter(self)
        else:
            it._reset(self)
        return it

    def _get_iterator(self) -> _BaseDataLoaderIter:
        return _MultiProcessingDataLoaderIter(self) if self.num_workers > 0 else _SingleProcessDataLoaderIter(self)

    @property
    def _auto_collation(self) -> bool:
        return self.batch_sampler is not None

    @property
    def _index_sampler(self) -> Any:
        return self.batch_sampler if self._auto_collation else self.sampler

    def __len__(self) -> int:
        if self._dataset_kind == _DatasetKind.Map:
            return len(self._index_sampler)
        # What the dataset claims: with several workers each may produce all of it; the iterator warns then.
        length = self._IterableDataset_len_called = len(self.dataset)
        if self.batch_size is None:
            return length
        return length // self.batch_size if self.drop_last else -(-length // self.batch_size)

    def check_worker_number_rationality(self) -> None:
        """Warn when there are more workers than processors this process may use."""
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if self.num_workers > cpus:
            warnings.warn(
                f"This DataLoader will create {self.num_workers} worker processes in total. Our suggested max number of "
                f"worker in current system is {cpus}, which is smaller than what this DataLoader is going to create. Please "
                "be aware that excessive worker creation might get DataLoader running slow or even freeze, lower the worker "
                "number to avoid potential slowness/freeze if necessary.", stacklevel=3)


def _check_worker_options(num_workers: int, timeout: float, prefetch_factor: int | None, persistent: bool) -> None:
    if num_workers < 0:
        raise ValueError("num_workers option should be non-negative; use num_workers=0 to disable multiprocessing.")
    if timeout < 0:
        raise ValueError("timeout option should be non-negative")
    if num_workers == 0 and prefetch_factor is not None:
        raise ValueError("prefetch_factor option could only be specified in multiprocessing. let num_workers > 0 to enable "
                         "multiprocessing, otherwise set prefetch_factor to None.")
    if prefetch_factor is not None and prefetch_factor < 1:
        raise ValueError(f"prefetch_factor option should be positive, got {prefetch_factor}")
    if persistent and num_workers == 0:
        raise ValueError("persistent_workers option needs num_workers > 0")


def _check_sampling_options(kind: int, batch_size: int | None, shuffle: bool | None, sampler: Any, batch_sampler: Any,
                            drop_last: bool) -> None:
    if kind == _DatasetKind.Iterable:
        for name, value in (("shuffle", shuffle or None), ("sampler", sampler), ("batch_sampler", batch_sampler)):
            if value is not None:
                raise ValueError(f"DataLoader with IterableDataset: expected unspecified {name} option, but got "
                                 f"{name}={value}")
    if sampler is not None and shuffle:
        raise ValueError("sampler option is mutually exclusive with shuffle")
    if batch_sampler is not None and (batch_size != 1 or shuffle or sampler is not None or drop_last):
        raise ValueError("batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last")
    if batch_sampler is None and batch_size is None and drop_last:
        raise ValueError("batch_size=None option disables auto-batching and is mutually exclusive with drop_last")


def _checked_context(context: Any, num_workers: int) -> Any:
    if context is None:
        return None
    if num_workers == 0:
        raise ValueError("multiprocessing_context can only be used with multi-process loading (num_workers > 0), but got "
                         f"num_workers={num_workers}")
    import multiprocessing
    import multiprocessing.context

    if isinstance(context, str):
        methods = multiprocessing.get_all_start_methods()
        if context not in methods:
            raise ValueError("multiprocessing_context option should specify a valid start method in "
                             f"{methods!r}, but got multiprocessing_context={context!r}")
        return multiprocessing.get_context(context)
    if not isinstance(context, multiprocessing.context.BaseContext):
        raise TypeError("multiprocessing_context option should be a valid context object or a string specifying the start "
                        f"method, but got multiprocessing_context={context}")
    return context


# ----------------------------------------------------------------------------------------------------------- iterators
class _BaseDataLoaderIter:
    """One pass over a loader."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader_kind = loader._dataset_kind
        self._dataset = loader.dataset
        self._index_sampler = loader._index_sampler
        self._num_workers = loader.num_workers
        self._pin = _pins(loader)
        self._begin(loader)
        self._base_seed = rng.seed(loader.generator)

    def _begin(self, loader: DataLoader[Any]) -> None:
        self._sampler_iter: Iterator[Any] = iter(self._index_sampler)
        self._expected = loader._IterableDataset_len_called
        self._num_yielded = 0

    def __iter__(self) -> _BaseDataLoaderIter:
        return self

    def __len__(self) -> int:
        return len(self._index_sampler)

    def __getstate__(self) -> Any:
        raise NotImplementedError(f"{type(self).__name__} cannot be pickled")

    def _next_data(self) -> Any:
        raise NotImplementedError

    def __next__(self) -> Any:
        data = self._next_data()
        if self._pin:
            from ._utils.pin_memory import pin_memory

            data = pin_memory(data)
        self._num_yielded += 1
        if (self._loader_kind == _DatasetKind.Iterable and self._expected is not None
                and self._num_yielded > self._expected):
            self._warn_length()
        return data

    def _warn_length(self) -> None:
        text = (f"Length of IterableDataset {self._dataset} was reported to be {self._expected} (when accessing "
                f"len(dataloader)), but {self._num_yielded} samples have been fetched. ")
        if self._num_workers > 0:
            text += ("For multiprocessing data-loading, this could be caused by not properly configuring the "
                     "IterableDataset replica at each worker: use get_worker_info() in its __iter__.")
        warnings.warn(text, stacklevel=3)


def _pins(loader: DataLoader[Any]) -> bool:
    """Whether batches are copied to page-locked memory: asked for, and there is a device to copy to."""
    if not loader.pin_memory:
        return False
    from ...cuda import is_available

    if not is_available():
        warnings.warn("'pin_memory' argument is set as true but no accelerator is found, then device pinned memory won't be "
                      "used.", stacklevel=5)
        return False
    return True


class _SingleProcessDataLoaderIter(_BaseDataLoaderIter):
    """Loads in this process, when asked."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        super().__init__(loader)
        self._fetcher = _DatasetKind.create_fetcher(loader._dataset_kind, loader.dataset, loader._auto_collation,
                                                    loader.collate_fn, loader.drop_last)

    def _next_data(self) -> Any:
        index = next(self._sampler_iter)
        if self._loader_kind == _DatasetKind.Iterable:
            return self._fetcher.fetch(index)
        try:
            return self._fetcher.fetch(index)
        except StopIteration as error:  # would end the loop as if the data had run out
            raise RuntimeError(f"dataset raised StopIteration at indices {index}") from error


class _MultiProcessingDataLoaderIter(_BaseDataLoaderIter):
    """Loads in worker processes, ahead of time. Workers end with the pass, or with the iterator if persistent."""

    _pool: Pool
    _schedule: Schedule

    def __init__(self, loader: DataLoader[Any]) -> None:
        from ._utils.multiprocess import Pool

        super().__init__(loader)
        self._timeout = loader.timeout
        self._persistent = loader.persistent_workers
        self._prefetch, self._in_order = loader.prefetch_factor or 2, loader.in_order
        self._epoch = 0
        self._pool = Pool(Job(loader._dataset_kind, loader.dataset, loader._auto_collation, loader.collate_fn,
                              loader.drop_last, loader.worker_init_fn, self._base_seed, loader.num_workers),
                          loader.multiprocessing_context)
        self._start_pass()

    def _start_pass(self) -> None:
        from ._utils.multiprocess import Schedule

        self._schedule = Schedule(self._pool, self._epoch, self._prefetch, self._in_order)
        try:
            self._schedule.hand_out(self._sampler_iter)
        except BaseException:
            self._pool.close()
            raise

    def _reset(self, loader: DataLoader[Any]) -> None:
        from ._utils.multiprocess import reset

        self._begin(loader)
        self._epoch += 1
        reset(self._pool, self._epoch)
        self._start_pass()

    def _next_data(self) -> Any:
        from ._utils.multiprocess import deliver

        try:
            number = self._wait()
            data = None if number is None else self._schedule.deliver(number)
            if number is not None:
                self._schedule.hand_out(self._sampler_iter)
        except BaseException:  # a dead or late worker, Ctrl-C, a failing sampler: nothing may be left behind
            self._pool.close()
            raise
        if number is None:
            if not self._persistent:
                self._pool.close()
            raise StopIteration
        return deliver(data)

    def _wait(self) -> int | None:
        """The number of the next batch, once it is here; None at the end of the pass."""
        s = self._schedule
        if self._pool.closed:
            if s.owner:
                raise RuntimeError("this DataLoader iterator ended after an error; make a new one with iter(loader)")
            return None
        while s.owner:
            number = s.next_number()
            if number is not None:
                return number
            self._pool.receive(self._timeout, s)
            s.hand_out(self._sampler_iter)  # a worker that ran dry leaves its turns to the others
        return None
