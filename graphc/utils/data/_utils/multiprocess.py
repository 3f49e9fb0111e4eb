"""The parent's side of worker processes: start them, hand out batches, put results in order, notice faults, clean up.

Every worker has its own connection: nothing is shared between workers, so one that dies can't hold a lock another needs.
"""
from __future__ import annotations

import os
import time
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

from .transport import Channel, prepare_parent
from .worker import Job, Reset, Result, Stack, Stop, Task, WhereAreYou, WorkerError, describe, worker_main

WATCHDOG_SECONDS = 60.0  # with timeout=0: warn once when a batch takes longer
_TICK_SECONDS = 0.5  # how often dead workers are looked for besides being told
_GRACE_SECONDS = 1.0  # to end by itself, after its connection closes, and after SIGTERM


class Worker:
    """A worker process as the parent sees it. ``tasks``: number -> index of the batches it has been given."""

    def __init__(self, number: int, process: Any, channel: Channel) -> None:
        self.number, self.process, self.channel = number, process, channel
        self.tasks: dict[int, Any] = {}
        self.active = True  # an iterable-style dataset can run dry in one worker before another

    def send(self, message: Any) -> None:
        """Send, leaving it to :meth:`Pool.receive` to find out that the worker is dead."""
        try:
            self.channel.send(message)
        except OSError:
            pass


def default_context() -> Any:
    """Fork on Linux (scripts without a ``__main__`` guard work, the dataset need not be picklable), else Python's
    default."""
    import multiprocessing
    import sys

    return multiprocessing.get_context("fork" if sys.platform == "linux" else None)


class Pool:
    """The workers of one iterator. Raises RuntimeError from :meth:`receive` for a dead or late worker, after having
    ended all others."""

    def __init__(self, job: Job, context: Any) -> None:
        self.workers: list[Worker] = []
        self.closed = False
        self.warned = False  # the watchdog barks once
        self._stop = weakref.finalize(self, _end, self.workers, os.getpid())
        try:
            self._start(job, default_context() if context is None else context)
        except BaseException:
            self.close()
            raise

    def _start(self, job: Job, context: Any) -> None:
        from ....ir import recorder

        forks = context.get_start_method() == "fork"
        if forks:
            recorder.flush("loader workers start")  # once here instead of once in every worker
        prepare_parent()
        body = job if forks else _pickled(job, context.get_start_method())
        token = os.urandom(4).hex()
        for number in range(job.num_workers):
            mine, theirs = context.Pipe(duplex=True)
            prefix = f"gc{os.getpid():x}_{token}_{number:x}_"
            inherited = [w.channel.connection for w in self.workers] + [mine] if forks else []
            process = context.Process(target=worker_main, args=(theirs, prefix, inherited, body, number), daemon=True,
                                      name=f"graphc-loader-{number}")
            worker = Worker(number, process, Channel(mine, prefix))
            try:
                _start_quietly(process)
                self.workers.append(worker)
            finally:
                theirs.close()

    # ------------------------------------------------------------------------------------------------------- receiving
    def receive(self, timeout: float, schedule: Schedule) -> None:
        """Pass results to ``schedule`` until it can go on; ``timeout`` seconds of waiting (0: no limit) raise."""
        start = time.monotonic()
        while not schedule.settled():
            left = start + timeout - time.monotonic() if timeout else _TICK_SECONDS
            for worker in self._ready(max(0.0, min(_TICK_SECONDS, left))):
                self._take(worker, schedule)
            waited = time.monotonic() - start
            if timeout and waited >= timeout:
                story = self._story(schedule)
                if story is not None:
                    raise RuntimeError(f"DataLoader timed out after {timeout} seconds: {story}")
            elif not timeout and not self.warned and waited >= WATCHDOG_SECONDS:
                self.warned = True
                story = self._story(schedule)
                if story is not None:
                    warnings.warn(f"DataLoader has been waiting {waited:.0f} seconds for a batch: {story}\nUse timeout= to "
                                  "make this an error.", RuntimeWarning, stacklevel=5)

    def _ready(self, seconds: float) -> list[Worker]:
        """Workers with something to read, or dead."""
        from multiprocessing.connection import wait

        busy = [w for w in self.workers if w.tasks]
        owner = {w.channel.connection: w for w in busy}
        owner.update({w.process.sentinel: w for w in busy})
        found = [owner[r] for r in wait(list(owner), seconds)]
        if not found:
            found = [w for w in busy if not w.process.is_alive()]
        return list(dict.fromkeys(found))

    def _take(self, worker: Worker, schedule: Schedule) -> Stack | None:
        """Read one message of ``worker``; raise when it is dead and everything it sent has been read."""
        try:
            if worker.channel.connection.poll(0):
                message = worker.channel.receive()
                if isinstance(message, Stack):
                    return message
                schedule.store(worker, message)
                return None
        except (EOFError, OSError) as error:
            worker.process.join(_GRACE_SECONDS)
            if worker.process.is_alive() and not isinstance(error, EOFError):
                raise  # no more descriptors or memory here: not the worker's fault
        if worker.tasks and not worker.process.is_alive():
            raise RuntimeError(_obituary(worker))
        return None

    def _story(self, schedule: Schedule) -> str | None:
        """What the worker waited for is doing: its batch, and its stack if it can still tell. None: it has answered."""
        worker = schedule.waiting_for()
        if schedule.settled() or worker is None:
            return None
        worker.send(WhereAreYou())
        stack, until = None, time.monotonic() + 1.0
        while stack is None and worker.tasks and time.monotonic() < until:
            if worker.channel.connection.poll(0.05) or not worker.process.is_alive():
                stack = self._take(worker, schedule)
        if schedule.settled():
            return None
        where = f" Its stack:\n{stack.text.rstrip()}" if stack is not None else ""
        return f"worker {worker.number} (pid {worker.process.pid}) is still loading {_first_task(worker)}.{where}"

    def close(self) -> None:
        """End all workers. Idempotent."""
        self.closed = True
        self._stop()


def _start_quietly(process: Any) -> None:
    with warnings.catch_warnings():  # Python 3.12 warns about every fork of a process with threads
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        process.start()


def _pickled(job: Job, method: str) -> dict[str, bytes]:
    """The job's members, pickled one by one so that an error can say which one is at fault. Keeps the error's type."""
    from multiprocessing.reduction import ForkingPickler

    out = {}
    for name, value in vars(job).items():
        try:
            out[name] = bytes(ForkingPickler.dumps(value))
        except Exception as error:
            what = {"init_fn": "worker_init_fn"}.get(name, name)
            text = (f"DataLoader: {what} can't be sent to worker processes started by {method!r}: {error}. Define it at the "
                    "top level of a module, or use multiprocessing_context='fork' where available, or num_workers=0.")
            try:
                renamed = type(error)(text)
            except Exception:
                renamed = RuntimeError(text)
            raise renamed from error
    return out


def _first_task(worker: Worker) -> str:
    number, index = next(iter(worker.tasks.items()))
    # An iterable-style dataset has no indices: the loader's are placeholders.
    known = "" if index is None or (isinstance(index, list) and None in index[:1]) else (
        f" (dataset indices {describe(index)})")
    return f"batch {number}{known}"


def _obituary(worker: Worker) -> str:
    import signal

    code, pid = worker.process.exitcode, worker.process.pid
    if code is not None and code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = "unknown"
        how = f"was killed by signal {-code} ({name})"
    else:
        how = f"exited with code {code}"
    hint = {-9: " SIGKILL often means that the system ran out of memory.",
            -7: " SIGBUS often means that shared memory ran out.",
            -11: " SIGSEGV means that native code used by the dataset crashed."}.get(code or 0, "")
    return (f"DataLoader worker (pid(s) {pid}) exited unexpectedly: worker {worker.number} {how} while it had "
            f"{_first_task(worker)}.{hint}")


def _end(workers: list[Worker], owner_pid: int) -> None:
    """Stop, then close, then terminate, then kill; each step gets a little time. Also runs at interpreter exit."""
    if os.getpid() != owner_pid:
        return  # a fork's copy of the pool: the workers are not its children
    for w in workers:
        if w.process.is_alive():
            w.send(Stop())
    for step in (None, lambda w: w.channel.close(), lambda w: w.process.terminate(), lambda w: w.process.kill()):
        if step is not None:
            for w in _living(workers):
                step(w)
        until = time.monotonic() + _GRACE_SECONDS
        for w in workers:
            w.process.join(max(0.0, until - time.monotonic()))
    for w in workers:
        w.channel.remove_leftovers(len(w.tasks))
        w.channel.close()
    workers.clear()


def _living(workers: list[Worker]) -> Iterator[Worker]:
    return (w for w in workers if w.process.is_alive())


class Schedule:
    """Which worker loads which batch, and what has come back: the order of one pass."""

    def __init__(self, pool: Pool, epoch: int, prefetch: int, in_order: bool) -> None:
        self.pool, self.epoch, self.in_order = pool, epoch, in_order
        self.limit = prefetch * len(pool.workers)
        self.given = 0  # number of the next batch to hand out
        self.wanted = 0  # number of the next batch to deliver
        self.owner: dict[int, Worker] = {}  # handed out and not delivered
        self.ready: dict[int, Any] = {}
        self._turn = 0
        self._ran_dry = False  # since the last hand_out
        for w in pool.workers:
            w.active = True
            w.tasks.clear()

    def hand_out(self, indices: Iterator[Any]) -> None:
        """Give the next indices to workers until enough batches are under way."""
        self._ran_dry = False
        while len(self.owner) < self.limit:
            worker = self._next_worker()
            if worker is None:
                return
            index = next(indices, self)
            if index is self:
                return
            self._turn = worker.number + 1
            worker.tasks[self.given] = index
            self.owner[self.given] = worker
            worker.send(Task(self.epoch, self.given, index))
            self.given += 1

    def _next_worker(self) -> Worker | None:
        workers = self.pool.workers
        turn = [workers[(self._turn + k) % len(workers)] for k in range(len(workers))]
        active = [w for w in turn if w.active]
        if not active:
            return None
        return active[0] if self.in_order else min(active, key=lambda w: len(w.tasks))

    def store(self, worker: Worker, result: Result) -> None:
        """Take in a result; results of an earlier pass are dropped."""
        if result.epoch != self.epoch:
            return
        if not result.end:
            worker.tasks.pop(result.number, None)
            self.ready[result.number] = result.data
            return
        worker.active, self._ran_dry = False, True
        for number in worker.tasks:  # they will never come
            self.owner.pop(number, None)
        worker.tasks.clear()

    def next_number(self) -> int | None:
        """The batch to deliver now if it is here, else None."""
        if not self.in_order:
            return next(iter(self.ready), None)
        while self.wanted < self.given and self.wanted not in self.owner:
            self.wanted += 1
        return self.wanted if self.wanted in self.ready else None

    def settled(self) -> bool:
        """Whether something can be done: deliver, hand out turns of a worker that ran dry, or end."""
        return self._ran_dry or not self.owner or self.next_number() is not None

    def waiting_for(self) -> Worker | None:
        """The worker whose batch must come next."""
        pending = (n for n in sorted(self.owner) if n not in self.ready)
        number = next(pending, None)
        return None if number is None else self.owner[number]

    def deliver(self, number: int) -> Any:
        """The batch, or its WorkerError."""
        del self.owner[number]
        return self.ready.pop(number)


def deliver(data: Any) -> Any:
    """``data``, or the exception it stands for."""
    if isinstance(data, WorkerError):
        data.reraise()
    return data


def reset(pool: Pool, epoch: int) -> None:
    """Start a new pass in all workers."""
    for w in pool.workers:
        w.send(Reset(epoch))
