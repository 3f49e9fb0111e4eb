"""Programs for the CUDA run time that must give the same on the stand-in driver and on a real device.

``test_cuda_programs.py`` and ``tests/gpu/test_cuda_runtime.py`` import these tests and bring the fixture ``kit``.
"""
from __future__ import annotations

import gc
import threading

import ml_dtypes
import numpy as np
import pytest

from graphc.errors import ArgumentError, CompileError, DeviceError, OutOfMemoryError, ShapeError
from graphc.runtime.cuda import buffer as B
from graphc.runtime.cuda import device as D
from graphc.runtime.cuda import interop
from graphc.runtime.cuda.allocator import check
from graphc.runtime.cuda.graph import KEPT, MIRRORS, Cells, Replay, capture
from graphc.runtime.cuda.launch import LaunchList, Module, Number, Pointer

AXPY = ("*fp32", "*fp32", "fp32", "i32", "*i8", "*i8")  # y += a * x for n elements, one per thread
AXPY_CELL = ("*fp32", "*fp32", "*fp32", "i32", "*i8", "*i8")  # the same, a in device memory
THREADS = 128


class Kit:
    """``image``: machine code (or PTX) with the kernels axpy and axpy_cell; ``fake``: the stand-in driver, if it is one."""

    def __init__(self, image, fake=None):
        self.image, self.fake = image, fake
        self.module = None

    def function(self, name):
        if self.module is None:
            self.module = Module(D.get(), self.image, "test kernels")
        return self.module.function(name)


def put(array, stream=None):
    array = np.asarray(array)
    buffer = B.empty(array.nbytes, stream=stream)
    B.from_host(buffer, array)
    return buffer


def got(buffer, shape, dt=np.float32, stream=None):
    out = np.empty(shape, dt)
    B.to_host(buffer, out, stream)
    return out


def floats(n, k=0):
    return ((np.arange(n) * 7 + k) % 23 - 11).astype(np.float32)


def axpy_list(kit, n, times=1, by_value=True, name="axpy"):
    """A list of launches y += a * x; call addresses: y, x."""
    launches = LaunchList(D.get(), "axpy plan")
    for _ in range(times):
        launches.add(kit.function(name), (-(-n // THREADS),), THREADS, AXPY,
                     (Pointer(0), Pointer(1), Number(0) if by_value else 2.0, n, 0, 0), lines="user.py:7")
    return launches


# ------------------------------------------------------------------------------------------------------------- copies
@pytest.mark.parametrize("pieces, rest", [(0, 0), (0, 1), (0, 255), (0, 256), (0, 1000), (1, -9), (1, 3), (7, 77)])
def test_copies_there_and_back(kit, pieces, rest):
    n = pieces * B.PIECE + rest
    source = np.random.default_rng(n).integers(0, 255, n).astype(np.uint8)
    buffer = B.empty(n)
    given = source.copy()
    B.from_host(buffer, given)
    given[:] = 0  # may be changed at once
    assert np.array_equal(got(buffer, n, np.uint8), source)
    if kit.fake:
        assert D.host_memory().stats()["allocated_bytes.all.peak"] <= (B.UNDER_WAY + 2) * B.PIECE, "few pieces at a time"
    check(D.get().memory)
    check(D.host_memory())


@pytest.mark.parametrize("dt", ["?", "i1", "u1", "i2", "f2", "i4", "u4", "f4", "i8", "f8", "c8", "c16", ml_dtypes.bfloat16])
def test_copies_of_every_dtype(kit, dt):
    source = np.arange(24).reshape(2, 3, 4).astype(dt)
    back = got(put(source), (2, 3, 4), dt)
    assert back.dtype == source.dtype and np.array_equal(back, source)


def test_copies_of_strided_arrays(kit):
    source = np.arange(60, dtype=np.float32).reshape(5, 12)[::2, ::3].T
    buffer = put(source)
    assert np.array_equal(got(buffer, source.shape), source)
    out = np.zeros((8, 6), np.float32)
    B.to_host(buffer, out[::2, ::2])
    assert np.array_equal(out[::2, ::2], source) and out[1::2].sum() == 0


def test_copies_that_do_not_fit(kit):
    buffer = B.empty(16)
    with pytest.raises(ShapeError, match="20 bytes do not fit into a buffer of 16"):
        B.from_host(buffer, np.zeros(5, np.float32))
    with pytest.raises(ShapeError):
        B.to_host(buffer, np.zeros(5, np.float32))
    with pytest.raises(ShapeError):
        B.copy(buffer, B.empty(17))
    with pytest.raises(ArgumentError, match="bytes 8 to 24"):
        buffer.view(8, 16)


def test_pinned_arrays(kit):
    n = 1000
    a, b = B.pinned((n,), np.float32), B.pinned((n,), np.float32)
    a[:] = floats(n)
    assert B.pinned_owner(a) is not None and B.pinned_owner(a[3:].reshape(-1, 1)) is not None
    assert B.pinned_owner(np.zeros(3)) is None
    buffer = B.empty(4 * n)
    B.from_host(buffer, a)
    B.to_host(buffer, b, non_blocking=True)
    D.current_stream().synchronize()
    assert np.array_equal(a, b)
    assert B.pinned((2, 2), ml_dtypes.bfloat16).dtype == ml_dtypes.bfloat16
    with pytest.raises(ArgumentError, match="object"):
        B.pinned((2,), object)


def test_pinned_memory_is_not_reused_before_its_copy(kit):
    n = 1000
    buffers = [B.empty(4 * n) for _ in range(6)]
    for k, buffer in enumerate(buffers):
        a = B.pinned((n,), np.float32)
        a[:] = floats(n, k)
        B.from_host(buffer, a)
        del a
        gc.collect()
    for k, buffer in enumerate(buffers):
        assert np.array_equal(got(buffer, n), floats(n, k))


def test_device_copies_views_and_fill(kit):
    a = put(floats(100))
    b = B.empty(400)
    B.fill(b, 0)
    B.copy(b.view(200, 200), a.view(0, 200))
    out = got(b, 100)
    assert np.array_equal(out[50:], floats(100)[:50]) and not out[:50].any()
    B.fill(b, 0xFF)
    assert np.isnan(got(b, 100)).all()
    part = b.view(4, 8).view(4, 4)
    assert (part.ptr, part.nbytes, part.device) == (b.ptr + 8, 4, b.device)
    del b
    gc.collect()
    assert np.isnan(got(part, 1)[0]), "a view keeps the whole"


def test_memory_goes_back_with_the_last_reference(kit):
    memory = D.get().memory
    before = memory.stats()["allocated_bytes.all.current"]
    a = B.empty(1000, tag="a")
    v = a.view(0, 10)
    assert memory.stats()["allocated_bytes.all.current"] == before + 1024
    del a
    assert memory.stats()["allocated_bytes.all.current"] == before + 1024
    del v
    assert memory.stats()["allocated_bytes.all.current"] == before
    b = B.empty(300)
    b.free()
    b.free()
    assert b.ptr == 0 and memory.stats()["allocated_bytes.all.current"] == before


# ---------------------------------------------------------------------------------------------------- streams, events
def test_streams_and_events(kit):
    n = 4096
    s = D.Stream()
    assert s != D.current_stream() and s.device.type == "cuda"
    with s:
        assert D.current_stream() == s
        a = put(floats(n))
        assert a.stream == s
        with D.Stream() as t:
            assert D.current_stream() == t
        assert D.current_stream() == s
    assert D.current_stream() == D.get().default
    event = s.record_event()
    b = B.empty(4 * n)
    D.current_stream().wait_event(event)
    a.record_stream(D.current_stream())
    B.copy(b, a, D.current_stream())
    assert np.array_equal(got(b, n), floats(n))
    event.synchronize()
    assert event.query()
    s.synchronize()
    assert s.query()


def test_copy_waits_for_the_streams_of_both_buffers(kit):
    s, t = D.Stream(), D.Stream()
    a, b = put(floats(1 << 16), s), put(np.zeros(1 << 16, np.float32), t)
    B.copy(b, a)
    assert np.array_equal(got(b, 1 << 16), floats(1 << 16))


def test_memory_freed_under_another_streams_work_is_not_reused(kit):
    n, s = 1 << 16, D.Stream()
    out = B.empty(4 * n, stream=s)
    for k in range(4):
        a = put(floats(n, k))
        s.wait_stream(a.stream)
        B.copy(out, a, s)  # notes that s uses a
        del a
        again = put(floats(n, 100 + k))
        again.stream.synchronize()  # runs before s does
        assert np.array_equal(got(out, n), floats(n, k))
        del again


def test_event_timing(kit):
    start, end = D.Event(enable_timing=True), D.Event(enable_timing=True)
    assert start.query() and "uninitialized" in repr(start)
    with pytest.raises(ValueError, match="must be recorded"):
        start.elapsed_time(end)
    with pytest.raises(ValueError, match="enable_timing=True"):
        D.Event().elapsed_time(end)
    start.record()
    put(floats(1 << 20))
    end.record()
    end.synchronize()
    assert 0 < start.elapsed_time(end) < 10_000
    assert "0x" in repr(start) and start.device.index == D.current()
    with pytest.raises(NotImplementedError, match="processes"):
        D.Event(interprocess=True)


def test_streams_are_used_again_when_they_go(kit):
    seen = set()
    for _ in range(20):
        s = D.Stream()
        seen.add(s.cuda_stream)
        del s
    assert len(seen) == 1
    a, b = D.Stream(), D.Stream()
    assert a.cuda_stream != b.cuda_stream and hash(a) != hash(b)
    outside = D.ExternalStream(a.cuda_stream)
    assert outside == a and outside.__cuda_stream__() == (0, a.cuda_stream)
    high = D.Stream(priority=-1)
    assert high.priority == -1 and high.cuda_stream not in (a.cuda_stream, b.cuda_stream)
    with pytest.raises(TypeError, match="colour"):
        D.Stream(colour=1)


def test_current_stream_is_per_thread(kit):
    found = []
    with D.Stream() as s:
        thread = threading.Thread(target=lambda: found.append(D.current_stream()))
        thread.start()
        thread.join()
    assert found[0] == D.get().default != s


# ------------------------------------------------------------------------------------------------------------- launch
def test_launch_with_changing_addresses_and_numbers(kit):
    n = 1000
    launches = axpy_list(kit, n, times=2)
    stream = D.current_stream()
    for k in range(3):
        y, x = put(floats(n)), put(floats(n, k))
        launches.run(stream, (y.ptr, x.ptr), (float(k),))
        assert np.array_equal(got(y, n), floats(n) + 2 * k * floats(n, k))
        assert np.array_equal(got(x, n), floats(n, k))


def test_launches_in_a_row_before_anything_ran_keep_their_own_arguments(kit):
    n = 300
    launches, stream = axpy_list(kit, n), D.Stream()
    pairs = [(put(np.zeros(n, np.float32), stream), put(floats(n, k), stream)) for k in range(5)]
    for k, (y, x) in enumerate(pairs):
        launches.run(stream, (y.ptr, x.ptr), (k,))
    for k, (y, _) in enumerate(pairs):
        assert np.array_equal(got(y, n), k * floats(n, k))


def test_offsets_into_an_arena(kit):
    n = 128
    launches = LaunchList(D.get())
    for k in range(3):  # block k + 1 += 1 * block k
        launches.add(kit.function("axpy"), (1,), THREADS, AXPY, (Pointer(0, 512 * k + 512), Pointer(0, 512 * k), 1.0, n, 0, 0))
    arena = put(np.stack([floats(n, k) for k in range(4)]))
    launches.run(D.current_stream(), (arena.ptr,))
    assert np.array_equal(got(arena, (4, n)), np.cumsum([floats(n, k) for k in range(4)], 0, dtype=np.float32))


def test_copies_and_fills_between_launches(kit):
    n = 200
    launches = LaunchList(D.get())
    launches.add_fill(Pointer(0), 4 * n)  # y = 0; y += 2 x; z = y; y = -1 in all bits; z += 2 x
    axpy = ((-(-n // THREADS),), THREADS, AXPY)
    launches.add(kit.function("axpy"), *axpy, (Pointer(0), Pointer(1), 2.0, n, 0, 0))
    launches.add_copy(Pointer(2), Pointer(0), 4 * n)
    launches.add_fill(Pointer(0, 4), 4 * n - 4, 255)
    launches.add(kit.function("axpy"), *axpy, (Pointer(2), Pointer(1), 2.0, n, 0, 0))
    launches.link()
    assert launches.n_pointers == 3 and "Copy(" in launches.describe()
    for how in ("plain", "graph"):
        y, x, z = put(floats(n, 5)), put(floats(n)), B.empty(4 * n)
        addresses = (y.ptr, x.ptr, z.ptr)
        if how == "plain":
            launches.run(D.current_stream(), addresses)
        else:
            D.get().synchronize()
            capture(D.get(), lambda s: launches.run(s, addresses)).launch(D.current_stream())
        assert np.array_equal(got(z, n), 4 * floats(n))
        out = got(y, n)
        assert out[0] == 2 * floats(n)[0] and np.isnan(out[1:]).all()


def test_grid_covers_everything_and_no_more(kit):
    n = 5 * THREADS + 1
    y, x = put(np.zeros(n + 50, np.float32)), put(np.ones(n + 50, np.float32))
    axpy_list(kit, n).run(D.current_stream(), (y.ptr, x.ptr), (3.0,))
    assert np.array_equal(got(y, n + 50), [3.0] * n + [0.0] * 50)


def test_bad_launches(kit):
    launches, f = LaunchList(D.get(), "p"), kit.function("axpy")
    good = (Pointer(0), Pointer(1), 1.0, 4, 0, 0)
    with pytest.raises(ArgumentError, match="grid"):
        launches.add(f, (0,), 32, AXPY, good)
    with pytest.raises(ArgumentError, match="grid"):
        launches.add(f, (1, 1, 1, 1), 32, AXPY, good)
    with pytest.raises(ArgumentError, match="4096 threads"):
        launches.add(f, (1,), 4096, AXPY, good)
    with pytest.raises(ArgumentError, match="6 parameters, 5 arguments"):
        launches.add(f, (1,), 32, AXPY, good[:5])
    with pytest.raises(CompileError, match="bytes of shared memory"):
        launches.add(f, (1,), 32, AXPY, good, shared=1 << 20)
    launches.add(f, (1,), 32, AXPY, (*good[:3], 1 << 40, 0, 0))
    with pytest.raises(ArgumentError, match="i32: 1099511627776"):
        launches.link()
    wrong = LaunchList(D.get())
    wrong.add(f, (1,), 32, ("*fp32", "*fp32", "float", "i32", "*i8", "*i8"), good)
    with pytest.raises(ArgumentError, match="'float' is not a kernel parameter type"):
        wrong.link()
    fine = axpy_list(kit, 4)
    with pytest.raises(ArgumentError, match="2 addresses and 1 numbers are needed, got 1 and 1"):
        fine.run(D.current_stream(), (0,), (1,))
    with pytest.raises(CompileError, match="no kernel 'nothing'"):
        kit.function("nothing")
    with pytest.raises(CompileError, match="broken kernels cannot be loaded on cuda:0"):
        Module(D.get(), b"\x7fNOT", "broken kernels")


def test_much_shared_memory_is_allowed_by_an_attribute(kit):
    n = 100
    launches = LaunchList(D.get())
    f = kit.function("axpy")
    launches.add(f, (1,), THREADS, AXPY, (Pointer(0), Pointer(1), 2.0, n, 0, 0), shared=90 << 10)
    y, x = put(floats(n)), put(floats(n, 1))
    launches.run(D.current_stream(), (y.ptr, x.ptr))
    assert np.array_equal(got(y, n), floats(n) + 2 * floats(n, 1)) and f.allowed == 90 << 10
    assert "shared=92160" in launches.describe() and "axpy" in launches.describe()


def test_overlap_and_cooperative_launches(kit):
    n = 100
    for options in ({"overlap": True}, {"cooperative": True}):
        launches = LaunchList(D.get())
        launches.add(kit.function("axpy"), (1,), THREADS, AXPY, (Pointer(0), Pointer(1), 2.0, n, 0, 0), **options)
        y, x = put(floats(n)), put(floats(n, 1))
        launches.run(D.current_stream(), (y.ptr, x.ptr))
        assert np.array_equal(got(y, n), floats(n) + 2 * floats(n, 1))


def test_parameters_have_the_sizes_the_code_says(kit):
    assert kit.function("axpy").parameter_sizes() in (None, [8, 8, 4, 4, 8, 8])  # None: a driver before 12.4


# ------------------------------------------------------------------------------------------------------------- graphs
def test_capturing_is_seen(kit):
    seen, stream = [], D.Stream()
    capture(D.get(), lambda s: seen.append(s.driver.capturing(s.handle)), stream)
    assert seen == [True] and not stream.driver.capturing(stream.handle)


def test_capture_runs_nothing_and_replay_runs_all(kit):
    n = 1000
    launches = axpy_list(kit, n, times=3, by_value=False)
    y, x = put(floats(n)), put(floats(n, 1))
    D.get().synchronize()
    graph = capture(D.get(), lambda s: launches.run(s, (y.ptr, x.ptr)))
    assert np.array_equal(got(y, n), floats(n))
    for k in range(1, 4):
        graph.launch(D.current_stream())
        assert np.array_equal(got(y, n), floats(n) + 6 * k * floats(n, 1))
    graph.free()
    graph.free()


def test_a_failing_capture_leaves_the_stream_usable(kit):
    stream, n = D.Stream(), 100
    y, x = put(floats(n), stream), put(floats(n, 1), stream)
    launches = axpy_list(kit, n, by_value=False)

    def work(s):
        launches.run(s, (y.ptr, x.ptr))
        raise KeyError("user")

    with pytest.raises(KeyError, match="user"):
        capture(D.get(), work, stream)
    with pytest.raises(DeviceError, match="CAPTURE"):
        capture(D.get(), lambda s: s.synchronize(), stream)
    assert gc.isenabled()
    launches.run(stream, (y.ptr, x.ptr))
    assert np.array_equal(got(y, n), floats(n) + 2 * floats(n, 1))


def test_cells_change_between_replays(kit):
    n = 500
    cells = Cells(D.get(), ("int64", "float32", "bool"))
    launches = LaunchList(D.get())
    launches.add(kit.function("axpy_cell"), (-(-n // THREADS),), THREADS, AXPY_CELL, (Pointer(0), Pointer(1), Pointer(2), n, 0, 0))
    y, x = put(np.zeros(n, np.float32)), put(floats(n))
    stream, total = D.current_stream(), 0
    D.get().synchronize()
    graph = capture(D.get(), lambda s: launches.run(s, (y.ptr, x.ptr, cells.pointer(1))))
    for step in range(3 * MIRRORS):  # the host runs ahead of the device
        cells.write((step, step % 5, True), stream)
        graph.launch(stream)
        total += step % 5
    assert np.array_equal(got(y, n), total * floats(n))
    assert got(cells.memory.view(0, 8), 1, np.int64)[0] == 3 * MIRRORS - 1
    turn = cells.turn
    cells.write((step, step % 5, True), stream)
    assert cells.turn == turn, "nothing new, nothing copied"
    with pytest.raises(ArgumentError, match="do not fit"):
        cells.write((1 << 70, 0, 0), stream)
    with pytest.raises(ArgumentError, match="complex64"):
        Cells(D.get(), ("complex64",))
    halves = Cells(D.get(), ("float16", "bfloat16"))
    halves.write((1.5, -2.25), stream)
    assert got(halves.memory, 8, np.float16)[0] == 1.5 and got(halves.memory, 16, ml_dtypes.bfloat16)[8] == -2.25
    with pytest.raises(IndexError):
        cells.pointer(3)


def test_replay_captures_at_the_second_sight_of_addresses(kit):
    n = 200
    replay = Replay(axpy_list(kit, n, by_value=False))
    x, ys = put(floats(n)), [put(np.zeros(n, np.float32)) for _ in range(2)]
    for _ in range(5):
        for y in ys:  # addresses that alternate
            replay.run(D.current_stream(), (y.ptr, x.ptr))
    for y in ys:
        assert np.array_equal(got(y, n), 10 * floats(n))
    assert (replay.plain, replay.captured, replay.replayed, replay.updated) == (2, 2, 8, 0)
    replay.free()


def test_replay_gives_old_graphs_new_addresses(kit):
    n = 200
    replay = Replay(axpy_list(kit, n, times=2, by_value=False), warm=0)
    x, ys = put(floats(n)), [put(np.zeros(n, np.float32)) for _ in range(KEPT + 2)]
    for _ in range(2):
        for y in ys:
            replay.run(D.current_stream(), (y.ptr, x.ptr))
    for y in ys:
        assert np.array_equal(got(y, n), 8 * floats(n))
    assert replay.captured == KEPT and replay.updated == 2 * len(ys) - KEPT and replay.plain == 0
    assert len(replay.known) <= 2 * KEPT


def test_replay_refuses_numbers_by_value(kit):
    with pytest.raises(ArgumentError, match="Cells"):
        Replay(axpy_list(kit, 10))


# ------------------------------------------------------------------------------------------------------------ interop
def test_cuda_array_interface_there_and_back(kit):
    array = interop.Array(put(floats(24)), (2, 3, 4), (12, 4, 1), np.dtype(np.float32))

    class Producer:
        __cuda_array_interface__ = interop.cuda_array_interface(array)

    facts = Producer.__cuda_array_interface__
    assert facts["strides"] is None and facts["typestr"] == "<f4" and facts["version"] == 3 and facts["stream"] == 1
    back = interop.from_cuda_array_interface(Producer())
    assert (back.shape, back.strides, back.dtype) == (array.shape, array.strides, array.dtype)
    assert back.buffer.ptr == array.buffer.ptr and back.buffer.nbytes == 96
    assert np.array_equal(got(back.buffer, 24), floats(24))
    turned = interop.Array(array.buffer, (4, 6), (1, 4), np.dtype(np.float32))
    Producer.__cuda_array_interface__ = interop.cuda_array_interface(turned)
    assert Producer.__cuda_array_interface__["strides"] == (4, 16)
    assert interop.from_cuda_array_interface(Producer()).strides == (1, 4)


def test_dlpack_there_and_back(kit):
    for version in (None, (1, 0)):
        for dt in (np.float32, np.bool_, ml_dtypes.bfloat16, np.complex64):
            source = np.arange(12).astype(dt)
            array = interop.Array(put(source), (3, 4), (1, 3), np.dtype(dt))
            capsule = interop.to_dlpack(array, max_version=version)
            back = interop.from_dlpack(capsule)
            assert (back.shape, back.strides, back.dtype) == ((3, 4), (1, 3), np.dtype(dt))
            assert back.buffer.ptr == array.buffer.ptr and back.buffer.device == array.buffer.device
            with pytest.raises(ArgumentError, match="used before"):
                interop.from_dlpack(capsule)
            held, array = array.buffer.ptr, None
            gc.collect()
            assert np.array_equal(got(back.buffer, 12, dt), source), "the importer keeps the memory"
            assert B.empty(12 * np.dtype(dt).itemsize).ptr != held


# -------------------------------------------------------------------------------------------------------------- errors
def test_out_of_memory_names_holders(kit):
    memory = D.get().memory
    free, _ = D.get().memory_info()
    keep = B.empty(3 << 20, tag="activations of layer 7")
    with pytest.raises(OutOfMemoryError) as error:
        B.empty(1 << 50, tag="too much")
    text = str(error.value)
    assert text.startswith("CUDA out of memory. Tried to allocate 1024.00 TiB.") and "activations of layer 7" in text
    assert memory.stats()["num_ooms"] >= 1
    B.fill(keep, 1)
    assert got(keep, 3 << 20, np.uint8).all() and free > 0


def test_wrong_devices(kit):
    with pytest.raises(DeviceError, match="invalid device ordinal 99"):
        D.get(99)
    with pytest.raises(ValueError, match="Expected a cuda device, but got: cpu"):
        D.get("cpu")
    with pytest.raises(DeviceError):
        D.set_current(-1)
    assert D.current() == 0 and D.index_of("cuda") == 0 and D.index_of("cuda:3") == 3
