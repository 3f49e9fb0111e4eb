"""Thread pool in native code: runs a program of kernels without returning to Python.

A program is an array of 64-bit words: the number of waves, then for each wave the number of jobs, a flag, and the jobs as
pairs (function address, argument block address). A function is ``void f(i64* args, i64 tid, i64 nthreads)``. A wave with
flag 0 runs on the calling thread as (0, 1); with flag 1 every thread calls every job of the wave, with its own ``tid``.
All of a wave is done, and visible to all threads, before the next one starts.

The caller is thread 0 and walks the program. It posts each parallel wave by raising a counter (``go``); a worker runs
its share, then copies the counter into its own slot, where thread 0 waits for it. So a parallel wave costs one message
each way, a serial one none. Workers wait by spinning, then by giving up their time slice, then on a condition variable.
"""
from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from ..errors import CompileError
from . import jit, threads

YIELD_AFTER_NS = 20_000  # of spinning; at once if there are more threads than cores
SLEEP_AFTER_NS = 1_000_000  # an idle worker burns no more time than this
STACK_BYTES = 8 << 20  # of a worker; macOS gives 512 KiB otherwise

# The pool's words; the groups lie on separate pairs of cache lines (16 words), since neighbours are fetched together.
_WORDS = {"go": 0, "sleepers": 16, "alert": 17,
          "n": 32, "slots": 33, "stop": 34, "wave": 35, "yield_after": 36, "sleep_after": 37,
          "run_mutex": 48, "sleep_mutex": 64, "condition": 80}
_STATE_BYTES, _SLOT_BYTES = 96 * 8, 128  # a slot: done counter, state, tid, counter at the start, pthread_t
_CLOCK_MONOTONIC = {"darwin": 6, "freebsd": 4}


def _source(triple: str) -> str:
    """The pool as LLVM text. Structures opaque to us (mutex, condition, attributes) get 128 bytes each."""
    arch = triple.split("-")[0]
    if arch == "x86_64":
        pause, declare = "call void @llvm.x86.sse2.pause()", "declare void @llvm.x86.sse2.pause()"
    elif arch in ("aarch64", "arm64"):
        pause, declare = "call void @llvm.aarch64.hint(i32 1)", "declare void @llvm.aarch64.hint(i32)"
    else:
        pause, declare = "fence acquire", ""
    system = next((name for name in _CLOCK_MONOTONIC if sys.platform.startswith(name)), "")
    text = _POOL_TEXT.replace("PAUSE", pause).replace("CLOCK", str(_CLOCK_MONOTONIC.get(system, 1)))
    for name, word in _WORDS.items():  # %name = address of the word, from the argument %s
        text = text.replace(f"ADDRESS {name}\n", f"%{name} = getelementptr i64, ptr %s, i64 {word}\n")
    text = text.replace("STATE_BYTES", str(_STATE_BYTES)).replace("SLOT_BYTES", str(_SLOT_BYTES))
    return "\n".join((declare, _WAVE_TEXT, text.replace("STACK_BYTES", str(STACK_BYTES))))


_WAVE_TEXT = """
define internal ptr @run_wave(ptr %wave, i64 %tid, i64 %nt) {
entry:
  %jobs = load i64, ptr %wave
  %first = getelementptr i64, ptr %wave, i64 2
  %two = shl i64 %jobs, 1
  %end = getelementptr i64, ptr %first, i64 %two
  br label %head
head:
  %job = phi ptr [%first, %entry], [%next, %body]
  %more = icmp ne ptr %job, %end
  br i1 %more, label %body, label %done
body:
  %f = load ptr, ptr %job
  %pa = getelementptr i64, ptr %job, i64 1
  %a = load ptr, ptr %pa
  call void %f(ptr %a, i64 %tid, i64 %nt)
  %next = getelementptr i64, ptr %job, i64 2
  br label %head
done:
  ret ptr %end
}
define void @pool_run_serial(ptr %unused, ptr %program) {
entry:
  %waves = load i64, ptr %program
  %first = getelementptr i64, ptr %program, i64 1
  br label %head
head:
  %k = phi i64 [0, %entry], [%k1, %body]
  %wave = phi ptr [%first, %entry], [%next, %body]
  %more = icmp slt i64 %k, %waves
  br i1 %more, label %body, label %done
body:
  %next = call ptr @run_wave(ptr %wave, i64 0, i64 1)
  %k1 = add i64 %k, 1
  br label %head
done:
  ret void
}
"""

_POOL_TEXT = """
declare ptr @calloc(i64, i64)
declare void @free(ptr)
declare i32 @sched_yield()
declare i32 @clock_gettime(i32, ptr)
declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)
declare i32 @pthread_attr_init(ptr)
declare i32 @pthread_attr_setstacksize(ptr, i64)
declare i32 @pthread_attr_destroy(ptr)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join(ptr, ptr)

; zeroed memory on a 128-byte boundary; word 15 holds what free wants
define internal ptr @zeroed(i64 %bytes) {
  %with = add i64 %bytes, 128
  %raw = call ptr @calloc(i64 1, i64 %with)
  %up = getelementptr i8, ptr %raw, i64 127
  %whole = ptrtoint ptr %up to i64
  %even = and i64 %whole, -128
  %p = inttoptr i64 %even to ptr
  %pr = getelementptr i64, ptr %p, i64 15
  store ptr %raw, ptr %pr
  ret ptr %p
}

define internal i64 @now(ptr %space) {
  %r = call i32 @clock_gettime(i32 CLOCK, ptr %space)
  %s = load i64, ptr %space
  %pn = getelementptr i64, ptr %space, i64 1
  %n = load i64, ptr %pn
  %sn = mul i64 %s, 1000000000
  %t = add i64 %sn, %n
  ret i64 %t
}

; waits until *word != old; false if that took %limit nanoseconds (0: no limit). Acquires what the writer released.
define internal i1 @wait_change(ptr %s, ptr %word, i64 %old, i64 %limit) {
entry:
  %space = alloca i64, i64 2
  ADDRESS yield_after
  br label %quick
quick:
  %k = phi i64 [0, %entry], [%k1, %quick_pause]
  %v = load atomic i64, ptr %word acquire, align 8
  %changed = icmp ne i64 %v, %old
  br i1 %changed, label %yes, label %quick_pause
quick_pause:
  PAUSE
  %k1 = add i64 %k, 1
  %again = icmp ult i64 %k1, 64
  br i1 %again, label %quick, label %timed
timed:
  %patience = load i64, ptr %yield_after
  %start = call i64 @now(ptr %space)
  br label %round
round:
  br label %spin
spin:
  %j = phi i64 [0, %round], [%j1, %spin_pause]
  %w = load atomic i64, ptr %word acquire, align 8
  %changed2 = icmp ne i64 %w, %old
  br i1 %changed2, label %yes, label %spin_pause
spin_pause:
  PAUSE
  %j1 = add i64 %j, 1
  %again2 = icmp ult i64 %j1, 16
  br i1 %again2, label %spin, label %look
look:
  %t = call i64 @now(ptr %space)
  %spent = sub i64 %t, %start
  %late = icmp ugt i64 %spent, %limit
  %limited = icmp ne i64 %limit, 0
  %over = and i1 %late, %limited
  br i1 %over, label %no, label %maybe
maybe:
  %impatient = icmp uge i64 %spent, %patience
  br i1 %impatient, label %give_way, label %round
give_way:
  %y = call i32 @sched_yield()
  br label %round
yes:
  ret i1 true
no:
  ret i1 false
}

; sleeps until a wave is posted (go != last) or a program is about to start (alert)
define internal void @sleep(ptr %s, i64 %last) noinline {
entry:
  ADDRESS go
  ADDRESS sleepers
  ADDRESS alert
  ADDRESS sleep_mutex
  ADDRESS condition
  %l = call i32 @pthread_mutex_lock(ptr %sleep_mutex)
  %before = load i64, ptr %alert
  %o1 = atomicrmw add ptr %sleepers, i64 1 seq_cst
  br label %check
check:
  %g = load atomic i64, ptr %go seq_cst, align 8
  %posted = icmp ne i64 %g, %last
  %a = load i64, ptr %alert
  %alerted = icmp ne i64 %a, %before
  %wake = or i1 %posted, %alerted
  br i1 %wake, label %out, label %wait
wait:
  %w = call i32 @pthread_cond_wait(ptr %condition, ptr %sleep_mutex)
  br label %check
out:
  %o2 = atomicrmw sub ptr %sleepers, i64 1 seq_cst
  %u = call i32 @pthread_mutex_unlock(ptr %sleep_mutex)
  ret void
}

; wakes sleeping workers, if there are any: they have seen the counter before they count as sleeping, or see it under the lock
define internal void @wake(ptr %s, i64 %alerts) {
entry:
  ADDRESS sleepers
  ADDRESS alert
  ADDRESS sleep_mutex
  ADDRESS condition
  %c = load atomic i64, ptr %sleepers seq_cst, align 8
  %none = icmp eq i64 %c, 0
  br i1 %none, label %done, label %some
some:
  %l = call i32 @pthread_mutex_lock(ptr %sleep_mutex)
  %a = load i64, ptr %alert
  %a1 = add i64 %a, %alerts
  store i64 %a1, ptr %alert
  %b = call i32 @pthread_cond_broadcast(ptr %condition)
  %u = call i32 @pthread_mutex_unlock(ptr %sleep_mutex)
  br label %done
done:
  ret void
}

; raises go: releases the wave to the workers; returns the counter's old value
define internal i64 @post(ptr %s, ptr %the_wave) {
  ADDRESS go
  ADDRESS wave
  store ptr %the_wave, ptr %wave
  %old = load atomic i64, ptr %go monotonic, align 8
  %new = add i64 %old, 1
  store atomic i64 %new, ptr %go seq_cst, align 8
  call void @wake(ptr %s, i64 0)
  ret i64 %old
}

define internal ptr @worker(ptr %slot) {
entry:
  %ps = getelementptr i64, ptr %slot, i64 1
  %s = load ptr, ptr %ps
  %pt = getelementptr i64, ptr %slot, i64 2
  %tid = load i64, ptr %pt
  %pl = getelementptr i64, ptr %slot, i64 3
  %at_start = load i64, ptr %pl
  ADDRESS go
  ADDRESS n
  ADDRESS stop
  ADDRESS wave
  ADDRESS sleep_after
  br label %wait
wait:
  %last = phi i64 [%at_start, %entry], [%last, %sleep], [%g, %run]
  %limit = load i64, ptr %sleep_after
  %posted = call i1 @wait_change(ptr %s, ptr %go, i64 %last, i64 %limit)
  br i1 %posted, label %awake, label %sleep
sleep:
  call void @sleep(ptr %s, i64 %last)
  br label %wait
awake:
  %g = load atomic i64, ptr %go acquire, align 8
  %end = load i64, ptr %stop
  %ends = icmp ne i64 %end, 0
  br i1 %ends, label %exit, label %run
run:
  %the_wave = load ptr, ptr %wave
  %nt = load i64, ptr %n
  %r = call ptr @run_wave(ptr %the_wave, i64 %tid, i64 %nt)
  store atomic i64 %g, ptr %slot release, align 8
  br label %wait
exit:
  ret ptr null
}

define internal void @join(ptr %s, i64 %old, i64 %nt, ptr %the_slots) {
entry:
  br label %head
head:
  %t = phi i64 [1, %entry], [%t1, %body]
  %more = icmp slt i64 %t, %nt
  br i1 %more, label %body, label %done
body:
  %o = mul i64 %t, SLOT_BYTES
  %slot = getelementptr i8, ptr %the_slots, i64 %o
  %w = call i1 @wait_change(ptr %s, ptr %slot, i64 %old, i64 0)
  %t1 = add i64 %t, 1
  br label %head
done:
  ret void
}

define internal i1 @has_parallel(ptr %program) {
entry:
  %waves = load i64, ptr %program
  %first = getelementptr i64, ptr %program, i64 1
  br label %head
head:
  %k = phi i64 [0, %entry], [%k1, %serial]
  %wave = phi ptr [%first, %entry], [%next, %serial]
  %more = icmp slt i64 %k, %waves
  br i1 %more, label %body, label %done
body:
  %pf = getelementptr i64, ptr %wave, i64 1
  %flag = load i64, ptr %pf
  %parallel = icmp ne i64 %flag, 0
  br i1 %parallel, label %done, label %serial
serial:
  %jobs = load i64, ptr %wave
  %two = shl i64 %jobs, 1
  %words = add i64 %two, 2
  %next = getelementptr i64, ptr %wave, i64 %words
  %k1 = add i64 %k, 1
  br label %head
done:
  %found = phi i1 [false, %head], [true, %body]
  ret i1 %found
}

define internal void @run_parallel(ptr %s, ptr %program, i64 %nt) {
entry:
  ADDRESS slots
  %the_slots = load ptr, ptr %slots
  call void @wake(ptr %s, i64 1)
  %waves = load i64, ptr %program
  %first = getelementptr i64, ptr %program, i64 1
  br label %head
head:
  %k = phi i64 [0, %entry], [%k1, %step]
  %wave = phi ptr [%first, %entry], [%next, %step]
  %more = icmp slt i64 %k, %waves
  br i1 %more, label %body, label %done
body:
  %pf = getelementptr i64, ptr %wave, i64 1
  %flag = load i64, ptr %pf
  %parallel = icmp ne i64 %flag, 0
  br i1 %parallel, label %together, label %alone
alone:
  %next1 = call ptr @run_wave(ptr %wave, i64 0, i64 1)
  br label %step
together:
  %old = call i64 @post(ptr %s, ptr %wave)
  %next2 = call ptr @run_wave(ptr %wave, i64 0, i64 %nt)
  call void @join(ptr %s, i64 %old, i64 %nt, ptr %the_slots)
  br label %step
step:
  %next = phi ptr [%next1, %alone], [%next2, %together]
  %k1 = add i64 %k, 1
  br label %head
done:
  ret void
}

define void @pool_run(ptr %s, ptr %program) {
entry:
  ADDRESS n
  ADDRESS run_mutex
  %l = call i32 @pthread_mutex_lock(ptr %run_mutex)
  %nt = load i64, ptr %n
  %many = icmp sgt i64 %nt, 1
  br i1 %many, label %look, label %alone
look:
  %any = call i1 @has_parallel(ptr %program)
  br i1 %any, label %together, label %alone
alone:
  call void @pool_run_serial(ptr null, ptr %program)
  br label %done
together:
  call void @run_parallel(ptr %s, ptr %program, i64 %nt)
  br label %done
done:
  %u = call i32 @pthread_mutex_unlock(ptr %run_mutex)
  ret void
}

define ptr @pool_new() {
  %s = call ptr @zeroed(i64 STATE_BYTES)
  ADDRESS n
  ADDRESS run_mutex
  ADDRESS sleep_mutex
  ADDRESS condition
  %r1 = call i32 @pthread_mutex_init(ptr %run_mutex, ptr null)
  %r2 = call i32 @pthread_mutex_init(ptr %sleep_mutex, ptr null)
  %r3 = call i32 @pthread_cond_init(ptr %condition, ptr null)
  store i64 1, ptr %n
  ret ptr %s
}

define internal void @stop_all(ptr %s) {
entry:
  ADDRESS n
  ADDRESS slots
  ADDRESS stop
  %nt = load i64, ptr %n
  %the_slots = load ptr, ptr %slots
  store i64 1, ptr %stop
  %old = call i64 @post(ptr %s, ptr null)
  br label %head
head:
  %t = phi i64 [1, %entry], [%t1, %body]
  %more = icmp slt i64 %t, %nt
  br i1 %more, label %body, label %done
body:
  %o = mul i64 %t, SLOT_BYTES
  %slot = getelementptr i8, ptr %the_slots, i64 %o
  %ph = getelementptr i64, ptr %slot, i64 4
  %handle = load ptr, ptr %ph
  %r = call i32 @pthread_join(ptr %handle, ptr null)
  %t1 = add i64 %t, 1
  br label %head
done:
  store i64 0, ptr %stop
  store i64 1, ptr %n
  %never = icmp eq ptr %the_slots, null
  br i1 %never, label %out, label %release
release:
  %pr = getelementptr i64, ptr %the_slots, i64 15
  %raw = load ptr, ptr %pr
  call void @free(ptr %raw)
  store ptr null, ptr %slots
  br label %out
out:
  ret void
}

; changes the number of threads (the caller's included) and returns what could be had
define i64 @pool_resize(ptr %s, i64 %want, i64 %patience, i64 %drowsy) {
entry:
  %attributes = alloca i8, i64 128, align 64
  ADDRESS go
  ADDRESS n
  ADDRESS slots
  ADDRESS yield_after
  ADDRESS sleep_after
  ADDRESS run_mutex
  %l = call i32 @pthread_mutex_lock(ptr %run_mutex)
  call void @stop_all(ptr %s)
  store i64 %patience, ptr %yield_after
  store i64 %drowsy, ptr %sleep_after
  %bytes = mul i64 %want, SLOT_BYTES
  %the_slots = call ptr @zeroed(i64 %bytes)
  store ptr %the_slots, ptr %slots
  %g = load i64, ptr %go
  %r1 = call i32 @pthread_attr_init(ptr %attributes)
  %r2 = call i32 @pthread_attr_setstacksize(ptr %attributes, i64 STACK_BYTES)
  br label %head
head:
  %t = phi i64 [1, %entry], [%t1, %made]
  %more = icmp slt i64 %t, %want
  br i1 %more, label %body, label %done
body:
  %o = mul i64 %t, SLOT_BYTES
  %slot = getelementptr i8, ptr %the_slots, i64 %o
  store i64 %g, ptr %slot
  %ps = getelementptr i64, ptr %slot, i64 1
  store ptr %s, ptr %ps
  %pt = getelementptr i64, ptr %slot, i64 2
  store i64 %t, ptr %pt
  %pl = getelementptr i64, ptr %slot, i64 3
  store i64 %g, ptr %pl
  %ph = getelementptr i64, ptr %slot, i64 4
  %r = call i32 @pthread_create(ptr %ph, ptr %attributes, ptr @worker, ptr %slot)
  %ok = icmp eq i32 %r, 0
  br i1 %ok, label %made, label %done
made:
  %t1 = add i64 %t, 1
  br label %head
done:
  store i64 %t, ptr %n
  %r3 = call i32 @pthread_attr_destroy(ptr %attributes)
  %u = call i32 @pthread_mutex_unlock(ptr %run_mutex)
  ret i64 %t
}
"""


_RUN = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)  # releases the GIL during the call
_NEW = ctypes.CFUNCTYPE(ctypes.c_void_p)
_RESIZE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


class _Pool:
    """This process's pool. ``state`` is native memory, never freed: workers may outlive Python's shutdown."""
    lock = threading.Lock()  # guards building and resizing; programs are kept apart by a native mutex
    call: Callable[[int | None, int], None] | None = None  # set last, when everything else is
    resize: Callable[[int, int, int, int], int] | None = None  # None: one thread only
    state: int | None = None
    size = 1


def run(program_address: int) -> None:
    """Execute the program at an address and return when all of it is done; the GIL is free meanwhile.

    One program runs at a time in a process: other Python threads wait their turn. Raises CompileError if the native
    back end is not available.
    """
    call = _Pool.call or _start()
    call(_Pool.state, program_address)


def set_threads(n: int) -> int:
    """Use ``n`` threads, the caller's included, from the next program on; returns how many could be had."""
    _start()
    with _Pool.lock:
        _resize(n)
        return _Pool.size


def size() -> int:
    """Threads a parallel wave runs on."""
    _start()
    return _Pool.size


def _start() -> Callable[[int | None, int], None]:
    """Build the pool if this process has none."""
    with _Pool.lock:
        if _Pool.call is not None:
            return _Pool.call
        engine, text = jit.engine(), _source(jit.triple())
        found: dict[str, int] = {}
        if os.name == "posix" and sys.maxsize > 1 << 32:
            try:
                found = engine.library(text, ("pool_new", "pool_resize", "pool_run"))
            except CompileError:  # no POSIX threads here
                found = {}
        call: Callable[[int | None, int], None]
        if found:
            _Pool.state, _Pool.resize = _NEW(found["pool_new"])(), _RESIZE(found["pool_resize"])
            call = _RUN(found["pool_run"])
            _resize(threads.get_num_threads())
        else:
            call = _one_at_a_time(_RUN(engine.functions({"pool_run_serial": _WAVE_TEXT})["pool_run_serial"]))
        _Pool.call = call
        return call


def _one_at_a_time(serial: Callable[[int | None, int], None]) -> Callable[[int | None, int], None]:
    lock = threading.Lock()

    def call(state: int | None, program: int) -> None:
        with lock:
            serial(state, program)
    return call


def _resize(n: int) -> None:
    """Replace the workers; the caller holds the lock."""
    if _Pool.resize is None or _Pool.state is None or n == _Pool.size:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with _signals_blocked():
        _Pool.size = _Pool.resize(_Pool.state, n, YIELD_AFTER_NS if n <= cores else 0, SLEEP_AFTER_NS)


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Threads started inside never run a signal handler, except for faults of their own."""
    faults = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - faults)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _follow(n: int) -> None:
    """``set_num_threads`` was called: a pool that is not built yet will read the number itself."""
    if _Pool.call is not None:
        set_threads(n)


def _after_fork() -> None:
    """A child has none of the workers, and whatever the pool's memory says may be half of an update: start anew."""
    _Pool.lock = threading.Lock()
    _Pool.call = _Pool.resize = _Pool.state = None
    _Pool.size = 1


threads.on_change(_follow)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
