"""What can go wrong in a worker: it must be said at once, with the indices, and leave no process or memory behind."""
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings

import numpy as np
import pytest

import graphc
from graphc.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from graphc.utils.data._utils import multiprocess, transport

posix = pytest.mark.skipif(os.name != "posix", reason="signals and fork are POSIX")
pytestmark = posix


class Faulty(Dataset):
    """``fault`` happens at index 5 of 12; every sample is large enough to travel in a segment."""

    def __init__(self, fault):
        self.fault = fault

    def __len__(self):
        return 12

    def __getitem__(self, i):
        if i == 5:
            FAULTS[self.fault]()
        return np.full((100, 100), i, np.float32)


def _raise():
    raise ValueError("sample is broken")


def _key_error():
    raise KeyError("label")


class Awkward(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} {b}")


def _awkward():
    raise Awkward("two", "arguments")


def _segv():
    import faulthandler

    faulthandler.disable()  # pytest's would print a stack
    os.kill(os.getpid(), signal.SIGSEGV)


FAULTS = {
    "raise": _raise, "key": _key_error, "awkward": _awkward, "exit": lambda: os._exit(3), "sysexit": lambda: sys.exit(4),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL), "segv": lambda: _segv(),
    "stuck": lambda: time.sleep(1000), "none": lambda: None,
}


def segments(pid=None):
    """Named shared-memory segments of a loader in this process (or ``pid``), where there is a /dev/shm to look at."""
    mark = f"gc{pid or os.getpid():x}_"
    return [s for s in os.listdir("/dev/shm") if s.startswith(mark)] if os.path.isdir("/dev/shm") else []


@pytest.fixture(autouse=True)
def nothing_left_behind():
    gc.collect()
    fds = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    mapped = transport._Mapped.count
    yield
    gc.collect()
    for _ in range(40):
        if not multiprocessing.active_children():
            break
        time.sleep(0.05)
    assert multiprocessing.active_children() == []
    assert segments() == []
    if fds:
        assert len(os.listdir("/proc/self/fd")) <= fds + 3  # a resource tracker may have been started
    assert transport._Mapped.count == mapped


def run(loader):
    """Iterate to the end, dropping everything, so that only a failure's traceback could hold on to it."""
    for _ in loader:
        pass


def failure(loader):
    """The message of the error, and the seconds it took."""
    start = time.monotonic()
    try:
        run(loader)
    except Exception as error:
        return type(error), str(error), time.monotonic() - start
    raise AssertionError("no error")


@pytest.mark.parametrize("workers", (1, 2))
def test_worker_exception_keeps_type_traceback_worker_and_index(workers):
    kind, text, _ = failure(DataLoader(Faulty("raise"), 2, num_workers=workers))
    assert kind is ValueError
    assert "sample is broken" in text and "in __getitem__" in text and "_raise" in text
    assert f"worker process {0 if workers == 1 else 2 % 2}" in text
    assert "dataset index 5" in text and "[4, 5]" in text and "batch 2" in text


def test_exceptions_that_are_hard_to_rebuild():
    kind, text, _ = failure(DataLoader(Faulty("key"), num_workers=1))
    assert kind is KeyError and "\n" in text and "'label'" in text
    kind, text, _ = failure(DataLoader(Faulty("awkward"), num_workers=1))
    assert kind is RuntimeError and "Caught Awkward" in text and "two arguments" in text


def test_iteration_can_go_on_after_a_worker_exception():
    it = iter(DataLoader(Faulty("raise"), 2, num_workers=1))
    assert [next(it)[0, 0, 0].item() for _ in range(2)] == [0, 2]
    with pytest.raises(ValueError):
        next(it)
    assert [b[0, 0, 0].item() for b in it] == [6, 8, 10]


@pytest.mark.parametrize("fault,how", [("kill", r"signal 9 \(SIGKILL\)"), ("exit", "exited with code 3"),
                                       ("sysexit", "exited with code 4"), ("segv", r"signal 11 \(SIGSEGV\)")])
@pytest.mark.parametrize("workers", (1, 2))
def test_dead_worker_is_named_within_a_second(fault, how, workers):
    import re

    kind, text, seconds = failure(DataLoader(Faulty(fault), 2, num_workers=workers))
    assert kind is RuntimeError and "exited unexpectedly" in text
    assert re.search(how, text) and "[4, 5]" in text and re.search(r"worker \d", text) and "pid" in text
    assert seconds < 10


def test_dead_worker_with_default_timeout_is_noticed_while_waiting_for_another():
    class Mixed(Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            if i == 0:
                time.sleep(30)
            os._exit(7)

    kind, text, seconds = failure(DataLoader(Mixed(), num_workers=2))
    assert kind is RuntimeError and "exited with code 7" in text and "[1]" in text and seconds < 10


def test_stuck_worker_times_out_with_indices_and_stack():
    kind, text, seconds = failure(DataLoader(Faulty("stuck"), 2, num_workers=2, timeout=0.7))
    assert kind is RuntimeError and "timed out after 0.7 seconds" in text
    assert "[4, 5]" in text and "worker 0" in text and "still loading batch 2" in text
    assert "time.sleep(1000)" in text  # the worker's stack
    assert seconds < 10


def test_stuck_worker_without_timeout_warns_once(monkeypatch):
    class Slow(Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            if i == 1:
                time.sleep(1.2)
            if i == 2:
                time.sleep(0.7)
            return i

    monkeypatch.setattr(multiprocess, "WATCHDOG_SECONDS", 0.3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [int(b) for b in DataLoader(Slow(), num_workers=1)] == [0, 1, 2]
    texts = [str(w.message) for w in caught if "waiting" in str(w.message)]
    assert len(texts) == 1 and "dataset indices [1]" in texts[0] and "time.sleep(1.2)" in texts[0]


def test_timeout_does_not_hit_a_healthy_loader():
    assert len(list(DataLoader(Faulty("none"), 2, num_workers=2, timeout=60))) == 6


def test_failed_iterator_stays_failed_and_loader_works_again():
    loader = DataLoader(Faulty("exit"), 2, num_workers=1, persistent_workers=True)
    it = iter(loader)
    next(it), next(it)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            next(it)
    loader.dataset.fault = "none"
    assert len(list(loader)) == 6


def test_early_break_and_exception_in_the_loop():
    for batch in DataLoader(Faulty("stuck"), 2, num_workers=2):
        assert batch.shape == (2, 100, 100)
        break
    with pytest.raises(ZeroDivisionError):
        for _ in DataLoader(Faulty("none"), 2, num_workers=2):
            1 / 0
    it = iter(DataLoader(Faulty("none"), 2, num_workers=2))
    next(it)
    del it


def test_failing_init_collate_and_sampler():
    def init(worker_id):
        raise OSError("no licence")

    kind, text, _ = failure(DataLoader(Faulty("none"), num_workers=1, worker_init_fn=init))
    assert kind is OSError and "no licence" in text and "while starting" in text

    def collate(batch):
        raise TypeError("cannot collate")

    kind, text, _ = failure(DataLoader(Faulty("none"), 3, num_workers=1, collate_fn=collate))
    assert kind is TypeError and "cannot collate" in text and "[0, 1, 2]" in text

    def sampler():
        yield 0
        raise LookupError("sampler broke")

    class S:
        def __iter__(self):
            return sampler()

    kind, text, _ = failure(DataLoader(Faulty("none"), num_workers=1, sampler=S()))
    assert kind is LookupError and "sampler broke" in text


def test_result_that_cannot_travel():
    class Lambdas(Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, i):
            return lambda: i

    kind, text, _ = failure(DataLoader(Lambdas(), num_workers=1, collate_fn=list))
    assert "while sending batch 0" in text and "[0]" in text and "ambda" in text

    class Grads(Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, i):
            return graphc.ones(2, requires_grad=True) * 2

    kind, text, _ = failure(DataLoader(Grads(), num_workers=1))
    assert kind is RuntimeError and "non-leaf" in text and "detach" in text


def test_iterable_dataset_fault():
    class Broken(IterableDataset):
        def __iter__(self):
            yield 1
            raise ValueError("stream broke")

    kind, text, _ = failure(DataLoader(Broken(), num_workers=1))
    assert kind is ValueError and "stream broke" in text
    kind, text, _ = failure(DataLoader(Broken(), num_workers=0))
    assert kind is ValueError


def test_unpicklable_dataset_under_spawn_says_what_and_what_to_do():
    class Local(Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, i):
            return i

    with pytest.raises((AttributeError, TypeError, __import__("pickle").PicklingError)) as info:
        run(DataLoader(Local(), num_workers=2, multiprocessing_context="spawn"))
    assert "dataset can't be sent" in str(info.value) and "top level" in str(info.value)
    with pytest.raises((AttributeError, TypeError, __import__("pickle").PicklingError)) as info:
        run(DataLoader(TensorDataset(graphc.arange(3)), num_workers=1, multiprocessing_context="spawn",
                       collate_fn=lambda b: b))
    assert "collate_fn can't be sent" in str(info.value)
    del info


@pytest.mark.parametrize("method", [m for m in ("spawn", "forkserver") if m in multiprocessing.get_all_start_methods()])
def test_other_start_methods(method, tmp_path):
    """In a process of its own: the fork server and the resource tracker it starts belong to that process."""
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent("""
        import os, sys
        import graphc
        from graphc.utils.data import DataLoader, TensorDataset

        class Bad(TensorDataset):
            def __getitem__(self, i):
                if i == 3:
                    os._exit(9)
                return super().__getitem__(i)

        if __name__ == "__main__":
            x = graphc.arange(6).reshape(3, 2) * 2
            half = graphc.ones(3, dtype=graphc.bfloat16)
            loader = DataLoader(TensorDataset(x, half), num_workers=1, multiprocessing_context=sys.argv[1])
            print([(a.tolist(), str(b.dtype)) for a, b in loader])
            try:
                list(DataLoader(Bad(graphc.arange(4)), num_workers=1, multiprocessing_context=sys.argv[1]))
            except RuntimeError as error:
                print("exited with code 9" in str(error), "[3]" in str(error))
    """))
    out = subprocess.run([sys.executable, str(script), method], capture_output=True, text=True, timeout=120,
                         env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert out.stdout.splitlines() == [
        "[([[0, 2]], 'torch.bfloat16'), ([[4, 6]], 'torch.bfloat16'), ([[8, 10]], 'torch.bfloat16')]", "True True"], out.stderr
    assert "leaked" not in out.stderr


def test_named_segments_are_removed_in_every_case(monkeypatch):
    """Where there is no memfd (macOS, Windows) segments have names."""
    monkeypatch.setattr(transport, "ANONYMOUS", False)
    monkeypatch.setattr(multiprocess, "_GRACE_SECONDS", 0.5)
    out = [b[0, 0, 0].item() for b in DataLoader(Faulty("none"), 2, num_workers=2)]
    assert out == [0, 2, 4, 6, 8, 10]
    for fault in ("raise", "kill", "exit"):
        failure(DataLoader(Faulty(fault), 2, num_workers=2))
    for _ in DataLoader(Faulty("none"), 2, num_workers=2):
        break
    failure(DataLoader(Faulty("stuck"), 2, num_workers=1, timeout=0.5))


def test_leftover_segments_of_any_size_are_removed():
    from multiprocessing.shared_memory import SharedMemory

    if not os.path.isdir("/dev/shm"):
        pytest.skip("needs /dev/shm to make a segment without a size")
    channel = transport.Channel(None, f"gc{os.getpid():x}_test_")
    channel.anonymous, channel.received = False, 3
    SharedMemory(channel.prefix + "3", create=True, size=10).close()
    open(f"/dev/shm/{channel.prefix}5", "w").close()  # its maker died before giving it a size
    channel.remove_leftovers(2)
    assert segments() == []


def test_batches_beyond_the_mapping_limit_are_copied(monkeypatch):
    monkeypatch.setattr(transport, "_MAX_MAPPINGS", transport._Mapped.count + 2)
    kept = list(DataLoader(Faulty("none"), 2, num_workers=1))
    assert transport._Mapped.count <= transport._MAX_MAPPINGS
    assert [b[1, 3, 3].item() for b in kept] == [1, 3, 5, 7, 9, 11]
    kept[5].add_(1)
    assert kept[5][0, 0, 0].item() == 11


SCRIPT = """
import os, signal, sys, threading, time
import numpy as np
from graphc.utils.data import DataLoader, Dataset

class D(Dataset):
    def __len__(self):
        return 100
    def __getitem__(self, i):
        if i == 20 and {stuck}:
            time.sleep(100)
        return np.zeros((100, 100), np.float32)

loader = DataLoader(D(), 2, num_workers=2, persistent_workers=True)
it = iter(loader)
next(it)
print(*[w.process.pid for w in it._pool.workers], flush=True)
{then}
"""


def children_after(then, stuck, sig=None, tmp_path=None):
    """Run a script that has no ``__main__`` guard; returns (its exit code, its errors, worker pids still alive, segments left)."""
    script = tmp_path / "run.py"
    script.write_text(SCRIPT.format(then=then, stuck=stuck))
    p = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                         env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, start_new_session=True)
    pids = [int(x) for x in p.stdout.readline().split()]
    assert len(pids) == 2
    if sig == "group-int":
        time.sleep(0.3)
        os.killpg(p.pid, signal.SIGINT)
    elif sig is not None:
        p.send_signal(sig)
    _, err = p.communicate(timeout=60)
    until = time.monotonic() + 10
    while (alive := [pid for pid in pids if os.path.exists(f"/proc/{pid}") and state(pid) != "Z"]) and time.monotonic() < until:
        time.sleep(0.05)
    return p.returncode, err, alive, segments(p.pid)


def state(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


@pytest.mark.parametrize("stuck", (False, True))
@pytest.mark.parametrize("then,sig", [
    ("sys.exit(0)", None), ("raise ValueError('training failed')", None), ("list(it); time.sleep(60)", "group-int"),
    ("time.sleep(60)", signal.SIGKILL), ("os._exit(1)", None)], ids=["exit", "raise", "ctrl-c", "sigkill", "_exit"])
def test_no_orphans_however_the_parent_ends(then, sig, stuck, tmp_path):
    if not os.path.isdir("/proc/self"):
        pytest.skip("needs /proc to look for processes")
    code, err, alive, left = children_after(then, stuck, sig, tmp_path)
    assert alive == []
    assert left == []
    assert "graphc-loader" not in err  # no worker complained
    if sig == "group-int":
        assert err.count("KeyboardInterrupt") == 1 and code != 0
