"""The native thread pool: programs give exact results for any number of threads, from any thread, after fork, at exit."""
from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc.runtime import jit, pool, threads

if not jit.available():
    pytest.skip(jit.reason(), allow_module_level=True)

ROOT = str(Path(graphc.__file__).resolve().parents[1])
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX threads and fork")

# mix:   out[i] = in[n-1-i] * 3 + k, each thread its share: reads what other threads wrote in the wave before
# total: out[0] = 1 + sum(in) over everything, on one thread;  who: out[tid] += 1 and out[16 + nt] += 1 (thread 0 only)
TEXT = """
define void @mix(ptr %args, i64 %tid, i64 %nt) {
entry:
  %out = load ptr, ptr %args
  %p1 = getelementptr i64, ptr %args, i64 1
  %in = load ptr, ptr %p1
  %p2 = getelementptr i64, ptr %args, i64 2
  %n = load i64, ptr %p2
  %p3 = getelementptr i64, ptr %args, i64 3
  %k = load i64, ptr %p3
  %a = mul i64 %n, %tid
  %lo = udiv i64 %a, %nt
  %b = add i64 %a, %n
  %hi = udiv i64 %b, %nt
  br label %head
head:
  %i = phi i64 [%lo, %entry], [%i1, %body]
  %more = icmp slt i64 %i, %hi
  br i1 %more, label %body, label %done
body:
  %r = sub i64 %n, %i
  %r1 = sub i64 %r, 1
  %q = getelementptr i64, ptr %in, i64 %r1
  %x = load i64, ptr %q
  %x3 = mul i64 %x, 3
  %y = add i64 %x3, %k
  %o = getelementptr i64, ptr %out, i64 %i
  store i64 %y, ptr %o
  %i1 = add i64 %i, 1
  br label %head
done:
  ret void
}
define void @total(ptr %args, i64 %tid, i64 %nt) {
entry:
  %out = load ptr, ptr %args
  %p1 = getelementptr i64, ptr %args, i64 1
  %in = load ptr, ptr %p1
  %p2 = getelementptr i64, ptr %args, i64 2
  %n = load i64, ptr %p2
  br label %head
head:
  %i = phi i64 [0, %entry], [%i1, %body]
  %s = phi i64 [1, %entry], [%s1, %body]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %body, label %done
body:
  %q = getelementptr i64, ptr %in, i64 %i
  %x = load i64, ptr %q
  %s1 = add i64 %s, %x
  %i1 = add i64 %i, 1
  br label %head
done:
  store i64 %s, ptr %out
  ret void
}
define void @who(ptr %args, i64 %tid, i64 %nt) {
entry:
  %out = load ptr, ptr %args
  %p = getelementptr i64, ptr %out, i64 %tid
  %x = load i64, ptr %p
  %x1 = add i64 %x, 1
  store i64 %x1, ptr %p
  %first = icmp eq i64 %tid, 0
  br i1 %first, label %count, label %done
count:
  %o = getelementptr i64, ptr %out, i64 16
  %q = getelementptr i64, ptr %o, i64 %nt
  %y = load i64, ptr %q
  %y1 = add i64 %y, 1
  store i64 %y1, ptr %q
  br label %done
done:
  ret void
}
define void @spin(ptr %args, i64 %tid, i64 %nt) {
entry:
  %n = load i64, ptr %args
  br label %head
head:
  %i = phi i64 [0, %entry], [%i1, %head]
  %i1 = add i64 %i, 1
  %p = getelementptr i64, ptr %args, i64 1
  store volatile i64 %i1, ptr %p
  %more = icmp slt i64 %i1, %n
  br i1 %more, label %head, label %done
done:
  ret void
}
"""


def address(name: str) -> int:
    return jit.engine().library(TEXT, ("mix", "total", "who", "spin"))[name]


class Program:
    """Waves of (flag, [(kernel, arguments), ...]) as words; keeps the argument blocks alive."""

    def __init__(self, waves: Sequence[tuple[int, Sequence[tuple[str, Sequence[int]]]]]):
        self.blocks: list[np.ndarray] = []
        words = [len(waves)]
        for flag, jobs in waves:
            words += [len(jobs), flag]
            for name, args in jobs:
                self.blocks.append(np.array(list(args) or [0], np.int64))
                words += [address(name), self.blocks[-1].ctypes.data]
        self.words = np.array(words, np.int64)
        self.address = self.words.ctypes.data

    def run(self) -> None:
        pool.run(self.address)


class Chain:
    """A random program over two buffers whose every wave depends on all of the wave before; knows the right answer."""

    def __init__(self, seed: int, n: int, length: int):
        rng = np.random.default_rng(seed)
        self.a, self.b = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self.plan = [(int(rng.integers(0, 3)), int(rng.integers(-5, 6))) for _ in range(length)]
        waves: list[tuple[int, list[tuple[str, list[int]]]]] = []
        source, target = self.a, self.b
        for kind, k in self.plan:
            if kind == 2:
                waves.append((0, [("total", [source.ctypes.data, source.ctypes.data, n])]))
                continue
            waves.append((kind, [("mix", [target.ctypes.data, source.ctypes.data, n, k])]))
            source, target = target, source
        self.program = Program(waves)

    def want(self) -> np.ndarray:
        source, target = self.a.copy(), self.b.copy()
        for kind, k in self.plan:
            if kind == 2:
                source[0] = 1 + source.sum()
            else:
                target = source[::-1] * 3 + k
                source, target = target, source
        return source

    def check(self) -> None:
        want = self.want()
        self.program.run()
        swaps = sum(kind != 2 for kind, _ in self.plan)
        assert np.array_equal(self.b if swaps % 2 else self.a, want)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = threads.get_num_threads()
    yield
    threads.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_wave_sees_all_of_the_one_before(count: int) -> None:
    threads.set_num_threads(count)
    for seed in range(30):
        chain = Chain(seed, [1, 3, 64, 1000][seed % 4], 40)
        for _ in range(3):
            chain.check()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_who_runs_what(count: int) -> None:
    """A serial wave runs as (0, 1); a parallel one once for every tid; several jobs of a wave all run; waves may be empty."""
    threads.set_num_threads(count)
    seen = np.zeros(40, np.int64)
    me = [("who", [seen.ctypes.data])]
    Program([(0, me), (1, me * 3), (0, []), (1, []), (0, me), (1, me)]).run()
    assert pool.size() == count
    want = np.zeros(40, np.int64)
    want[:count] = 4
    want[0] += 2
    want[16 + count] += 4
    want[16 + 1] += 2
    assert np.array_equal(seen, want)
    Program([]).run()


def test_stress() -> None:
    """100,000 programs of four waves, some of them after a pause, on two threads."""
    threads.set_num_threads(2)
    seen = np.zeros(40, np.int64)
    me = [("who", [seen.ctypes.data])]
    program = Program([(1, me), (0, me), (1, me), (1, me)])
    for k in range(100_000):
        program.run()
        if k % 5000 == 0:
            time.sleep(0.003)  # long enough for the worker to fall asleep
    assert seen[:3].tolist() == [400_000, 300_000, 0]
    chain = Chain(1, 257, 30)
    for _ in range(2000):
        chain.program.run()
    chain.check()


@pytest.mark.parametrize("count", [2, 3])
def test_programs_from_several_threads(count: int) -> None:
    """One program at a time: kernels that add without atomics lose nothing."""
    threads.set_num_threads(count)
    seen = np.zeros(40, np.int64)
    me = [("who", [seen.ctypes.data])]
    program = Program([(1, me), (0, me), (1, me)])
    chains = [Chain(seed, 50, 10) for seed in range(4)]
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for _ in range(1000):
                program.run()
            for _ in range(20):
                chains[seed].check()
        except BaseException as error:
            errors.append(error)
    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert not errors and not any(worker.is_alive() for worker in workers)
    assert seen[:count].tolist() == [12_000] + [8_000] * (count - 1)


def test_the_number_of_threads_changes_while_others_run() -> None:
    chain, stop, errors = Chain(0, 300, 20), threading.Event(), []

    def work() -> None:
        try:
            while not stop.is_set():
                chain.check()
        except BaseException as error:
            errors.append(error)
    worker = threading.Thread(target=work)
    worker.start()
    for k in range(200):
        threads.set_num_threads(1 + k % 4)
        assert pool.size() == 1 + k % 4
    stop.set()
    worker.join(30)
    assert not worker.is_alive() and not errors


def test_the_gil_is_free() -> None:
    """Python runs while a program does."""
    program = Program([(0, [("spin", [200_000_000, 0])])])
    worker = threading.Thread(target=program.run)
    worker.start()
    count = 0
    while worker.is_alive():
        count += 1
        time.sleep(0.001)
    assert count > 5


@posix
def test_idle_workers_burn_nothing() -> None:
    threads.set_num_threads(2)
    seen = np.zeros(40, np.int64)
    Program([(1, [("who", [seen.ctypes.data])])]).run()
    time.sleep(0.01)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.05


def check_in_child(depth: int) -> None:
    for count in (None, 3, 2):
        if count:
            threads.set_num_threads(count)
        for seed in range(5):
            Chain(seed, 100, 20).check()
    if depth:
        run_child(depth - 1)


def run_child(depth: int) -> None:
    child = multiprocessing.get_context("fork").Process(target=check_in_child, args=(depth,))
    child.start()
    child.join(30)
    hangs = child.is_alive()
    if hangs:
        child.kill()
        child.join()
    assert not hangs and child.exitcode == 0


@posix
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_fork_in_fork() -> None:
    threads.set_num_threads(2)
    Chain(0, 100, 20).check()
    run_child(2)
    Chain(0, 100, 20).check()


@posix
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_fork_while_another_thread_runs_programs() -> None:
    threads.set_num_threads(2)
    chain, stop = Chain(0, 5000, 20), threading.Event()

    def work() -> None:
        while not stop.is_set():
            chain.program.run()
            pool.set_threads(2)  # takes the lock that guards building
    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(10):
            run_child(0)
    finally:
        stop.set()
        worker.join(30)
    assert not worker.is_alive()
    Chain(1, 100, 20).check()


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join([ROOT, str(Path(__file__).parent)]), **env})


@pytest.mark.parametrize("end", ["", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "raise SystemExit(0)",
                                 "import threading; t = threading.Thread(target=busy, daemon=True); t.start()"])
def test_exit_never_hangs(end: str) -> None:
    """With workers spinning, with workers asleep, and with a daemon thread in the middle of a program."""
    code = f"""
import sys, time, test_pool
test_pool.threads.set_num_threads(3)
chain = test_pool.Chain(0, 2000, 30)
chain.check()
def busy():
    while True:
        chain.program.run()
time.sleep(float(sys.argv[1]) if len(sys.argv) > 1 else 0)
print("ran", flush=True)
{end}
"""
    for delay in ("0", "0.01"):
        run = python(code.replace("sys.argv[1]", delay).replace("len(sys.argv) > 1", "True"))
        assert run.stdout == "ran\n" and run.returncode in (0, -signal.SIGTERM if "SIGTERM" in end else 0), run.stderr


@posix
def test_interrupt() -> None:
    """Ctrl-C in the middle of programs: KeyboardInterrupt after the running one, and the pool goes on working."""
    code = """
import signal, threading, time, test_pool
test_pool.threads.set_num_threads(2)
chain = test_pool.Chain(0, 3000, 20)
chain.check()
caught = 0
for _ in range(20):
    signal.setitimer(signal.ITIMER_REAL, 0.005)
    try:
        end = time.time() + 20
        while time.time() < end:
            chain.program.run()
        raise SystemExit("no interrupt")
    except KeyboardInterrupt:
        caught += 1
    chain.check()
print(caught)
"""
    code = code.replace("caught = 0", "caught = 0\nsignal.signal(signal.SIGALRM, signal.default_int_handler)")
    run = python(code)
    assert run.stdout == "20\n" and run.returncode == 0, run.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS and /proc")
def test_threads_that_cannot_be_had() -> None:
    """Out of address space for stacks: as many workers as there are, and right results."""
    code = """
import resource, test_pool
test_pool.Chain(0, 100, 20).check()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), -1))
test_pool.threads.set_num_threads(64)
assert 1 < test_pool.pool.size() < 64, test_pool.pool.size()
for seed in range(5):
    test_pool.Chain(seed, 1000, 20).check()
test_pool.threads.set_num_threads(2)
assert test_pool.pool.size() == 2
test_pool.Chain(0, 1000, 20).check()
print("fine")
"""
    run = python(code)
    assert run.stdout == "fine\n", run.stderr


def test_without_posix_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, one program at a time."""
    for name, value in (("call", None), ("resize", None), ("state", None), ("size", 1)):
        monkeypatch.setattr(pool._Pool, name, value)
    monkeypatch.setattr(pool, "_source", lambda triple: "declare void @not_there()\n" + "".join(
        f"define void @{name}() {{\n  call void @not_there()\n  ret void\n}}\n" for name in ("pool_new", "pool_resize", "pool_run")))
    threads.set_num_threads(2)
    Chain(3, 200, 30).check()
    assert pool.size() == 1 and pool.set_threads(4) == 1


@pytest.mark.parametrize("triple", ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "arm64-apple-darwin22",
                                    "riscv64-unknown-linux-gnu"])
def test_the_pool_is_valid_for_other_machines(triple: str) -> None:
    import llvmlite.binding as llvm
    module = llvm.parse_assembly(pool._source(triple), llvm.create_context())
    module.verify()
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    assembly = llvm.Target.from_triple(triple).create_target_machine(opt=2).emit_assembly(module)
    if triple.startswith("a"):  # acquire loads and release stores, not plain ones
        assert "ldar" in assembly and "stlr" in assembly and ("yield" in assembly or "hint" in assembly)


def test_the_size_follows_set_num_threads() -> None:
    for n in (3, 1, 2):
        threads.set_num_threads(n)
        assert pool.size() == n
    with pytest.raises(RuntimeError):
        threads.set_num_threads(0)
    assert pool.size() == 2
    assert ctypes.sizeof(ctypes.c_void_p) == 8
