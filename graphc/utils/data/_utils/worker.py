"""What runs in a worker process.

The main thread fetches batches. A second thread reads the connection all the time, so that the parent never blocks on
a busy worker, a stop is seen in the middle of a batch's queue, the parent can ask where a worker is stuck, and a worker
whose parent is gone ends at once even if it is stuck itself.
"""
from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import rng
from .fetch import DatasetKind
from .transport import Channel

_PARENT_CHECK_SECONDS = 2.0


@dataclass(frozen=True)
class WorkerInfo:
    """About the current worker: its number, how many there are, its seed, and its copy of the dataset."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


class _Current:
    """The worker this process is, if any."""

    info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """In a worker process its :class:`WorkerInfo`, elsewhere None."""
    return _Current.info


@dataclass(frozen=True)
class Job:
    """What all workers of an iterator have in common."""

    kind: int
    dataset: Any
    auto_collation: bool
    collate_fn: Callable[[Any], Any]
    drop_last: bool
    init_fn: Callable[[int], Any] | None
    base_seed: int
    num_workers: int


@dataclass(frozen=True)
class Task:
    """Fetch batch ``number`` of pass ``epoch``."""

    epoch: int
    number: int
    index: Any


@dataclass(frozen=True)
class Result:
    """The answer to a task. ``end``: the worker's iterable-style dataset has no more."""

    epoch: int
    number: int
    data: Any = None
    end: bool = False


@dataclass(frozen=True)
class Reset:
    """Start a new pass (persistent workers)."""

    epoch: int


@dataclass(frozen=True)
class WhereAreYou:
    """Asks for the stack of the worker's main thread; answered by a ``Stack``."""


@dataclass(frozen=True)
class Stack:
    """Where a worker's main thread is."""

    text: str


@dataclass(frozen=True)
class Stop:
    """End the worker after the batch in hand."""


class WorkerError:
    """An exception of a worker on its way to the parent: its type, its traceback as text, and where it happened."""

    def __init__(self, error: BaseException, where: str) -> None:
        import traceback

        self.kind: type[BaseException] = type(error)
        self.where = where
        self.text = "".join(traceback.format_exception(type(error), error, error.__traceback__))

    def __reduce__(self) -> Any:
        import pickle

        try:
            pickle.dumps(self.kind)
            kind = self.kind
        except Exception:  # a class defined inside a function cannot travel
            kind = RuntimeError
        return _restored_error, (kind, self.where, self.text)

    def reraise(self) -> None:
        """Raise an exception of the original type that tells the whole story (RuntimeError if it cannot be built)."""
        message = f"Caught {self.kind.__name__} {self.where}.\nOriginal {self.text}"
        if issubclass(self.kind, KeyError):
            raise self.kind(_Message(message))
        if issubclass(self.kind, (StopIteration, StopAsyncIteration, GeneratorExit)):
            raise RuntimeError(message)  # would end the caller's loop as if the data had run out
        try:
            error = self.kind(message)
        except Exception:
            raise RuntimeError(message) from None
        raise error


class _Message(str):
    """KeyError prints repr() of its argument; this one stays readable."""

    def __repr__(self) -> str:
        return str(self)


def _restored_error(kind: type[BaseException], where: str, text: str) -> WorkerError:
    out = WorkerError.__new__(WorkerError)
    out.kind, out.where, out.text = kind, where, text
    return out


class _Inbox(threading.Thread):
    """Reads the connection into ``tasks`` and answers what must not wait for the main thread."""

    def __init__(self, channel: Channel) -> None:
        import queue

        super().__init__(name="graphc-loader-inbox", daemon=True)
        self.channel = channel
        self.lock = threading.Lock()  # one message at a time on the connection
        self.tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.stopping = False
        self.epoch = 0
        self.main = threading.main_thread().ident

    def run(self) -> None:
        first_ppid = os.getppid()
        try:
            while True:
                while not self.channel.connection.poll(_PARENT_CHECK_SECONDS):
                    _exit_if_orphan(first_ppid)
                self._take(self.channel.receive())
        except (EOFError, OSError):
            os._exit(0)  # the parent closed the connection or is gone

    def _take(self, message: Any) -> None:
        if isinstance(message, WhereAreYou):
            self._report()
            return
        if isinstance(message, Stop):
            self.stopping = True
        elif isinstance(message, Reset):
            self.epoch = message.epoch
        self.tasks.put(message)

    def _report(self) -> None:
        import sys
        import traceback

        frame = sys._current_frames().get(self.main or 0)
        text = "".join(traceback.format_stack(frame)[-12:]) if frame is not None else ""
        if self.lock.acquire(timeout=0.5):  # held while a batch is being sent: then nothing is stuck
            try:
                self.channel.send(Stack(text))
            finally:
                self.lock.release()


def _exit_if_orphan(first_ppid: int) -> None:
    import multiprocessing

    parent = multiprocessing.parent_process()
    if os.getppid() != first_ppid or (parent is not None and not parent.is_alive()):
        os._exit(1)


def _prepare_process() -> None:
    """Signals and recording state of a new worker."""
    import signal

    from ....ir import recorder
    from ....runtime.threads import set_num_threads

    set_num_threads(1)  # the workers themselves are the parallelism
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to every process: the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    state = recorder.state
    state.region = recorder.Region()  # after a fork: what the parent was recording is not ours to compute
    state.hold = state.tracing = 0


def _seed(job: Job, worker_id: int) -> int:
    import random

    import numpy as np

    seed = job.base_seed + worker_id
    random.seed(seed)
    rng.seed_process(seed & ((1 << 63) - 1))
    np.random.seed(np.random.SeedSequence([job.base_seed, worker_id]).generate_state(4))
    return seed


def worker_main(connection: Any, prefix: str, inherited: list[Any], job: Job | dict[str, bytes], worker_id: int) -> None:
    """Body of a worker process. ``inherited``: the parent's connections, copies of which a fork left here."""
    for other in inherited:
        other.close()
    _prepare_process()
    inbox = _Inbox(Channel(connection, prefix))
    inbox.start()
    server = _Server(inbox, worker_id)
    try:
        server.guarded("starting", server.start, job)
        server.serve()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the parent closed the connection while a batch was being sent


class _Server:
    """The main thread of a worker: turns tasks into results."""

    def __init__(self, inbox: _Inbox, worker_id: int) -> None:
        self.inbox, self.worker_id = inbox, worker_id
        self.where = f"in DataLoader worker process {worker_id}"
        self.job: Any = None
        self.fetcher: Any = None
        self.failed: WorkerError | None = None  # the answer to every task when the worker could not start
        self.ended = False

    def guarded(self, doing: str, step: Callable[..., None], *args: Any) -> None:
        """Run ``step``; its exception becomes the answer to every task that follows."""
        try:
            step(*args)
            self.failed = None
        except Exception as error:
            self.failed = WorkerError(error, f"{self.where} (pid {os.getpid()}) while {doing}")

    def start(self, job: Job | dict[str, bytes]) -> None:
        """Unpack the job, seed the process, run the user's init function."""
        import pickle

        self.job = job = job if isinstance(job, Job) else Job(**{k: pickle.loads(v) for k, v in job.items()})
        seed = _seed(job, self.worker_id)
        _Current.info = WorkerInfo(self.worker_id, job.num_workers, seed, job.dataset)
        if job.init_fn is not None:
            job.init_fn(self.worker_id)
        self.new_pass()

    def new_pass(self) -> None:
        """A fetcher at the beginning of the dataset."""
        self.fetcher, self.ended = _fetcher(self.job), False

    def serve(self) -> None:
        """Answer tasks until told to stop."""
        while True:
            message = self.inbox.tasks.get()
            if self.inbox.stopping:
                return
            if isinstance(message, Reset):
                if self.fetcher is not None:
                    self.guarded("starting a new pass", self.new_pass)
            elif message.epoch == self.inbox.epoch and not self.ended:
                self.answer(message)
            del message

    def answer(self, task: Task) -> None:
        """Fetch one batch and send it."""
        if self.failed is not None:
            result = Result(task.epoch, task.number, self.failed)
        else:
            result = _fetch(self.fetcher, self.job, task, self.where)
            self.ended = result.end
        _send(self.inbox, result, self.where, task)


def _fetcher(job: Job) -> Any:
    return DatasetKind.create_fetcher(job.kind, job.dataset, job.auto_collation, job.collate_fn, job.drop_last)


def _fetch(fetcher: Any, job: Job, task: Task, where: str) -> Result:
    try:
        return Result(task.epoch, task.number, fetcher.fetch(task.index))
    except Exception as error:
        if isinstance(error, StopIteration) and job.kind == DatasetKind.Iterable:
            return Result(task.epoch, task.number, end=True)
        return Result(task.epoch, task.number, _located(error, fetcher, job, task, where))


def _located(error: BaseException, fetcher: Any, job: Job, task: Task, where: str) -> WorkerError:
    at = f" at dataset index {fetcher.at!r}" if fetcher.at is not None else ""
    had = f" (dataset indices {describe(task.index)})" if job.kind == DatasetKind.Map else ""
    return WorkerError(error, f"{where} (pid {os.getpid()}){at} while loading batch {task.number}{had}")


def _send(inbox: _Inbox, result: Result, where: str, task: Task) -> None:
    with inbox.lock:
        try:
            inbox.channel.send_large(result)
            return
        except (BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:  # cannot be pickled, or no memory for the segment: nothing was sent yet
            failed = WorkerError(error, f"{where} (pid {os.getpid()}) while sending batch {task.number} "
                                        f"(dataset indices {describe(task.index)}) to the main process")
        inbox.channel.send(Result(task.epoch, task.number, failed))


def describe(index: Any, limit: int = 32) -> str:
    """Dataset indices for a message, shortened when there are many."""
    if not isinstance(index, (list, tuple)) or len(index) <= limit:
        return str(index)
    return f"[{', '.join(map(str, index[:limit]))}, ... {len(index)} in all]"
