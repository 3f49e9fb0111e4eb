"""Errors of the driver, packed arguments, launch attributes and lost devices, on the stand-in driver."""
from __future__ import annotations

import gc
import os
import struct

import numpy as np
import pytest
from cuda_fake import FakeCuda, array
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.errors import ArgumentError, CompileError, DeviceError
from graphc.runtime.cuda import buffer as B
from graphc.runtime.cuda import device as D
from graphc.runtime.cuda import driver
from graphc.runtime.cuda.driver import CudaError, CudaUnavailable, Driver
from graphc.runtime.cuda.graph import capture
from graphc.runtime.cuda.launch import FORMATS, LaunchList, Module, Number, Pointer, layout, load, pack


@pytest.fixture
def fake():
    fake = FakeCuda(devices=2)
    driver.reset(lambda: fake)
    yield fake
    driver.reset()


# ------------------------------------------------------------------------------------------------- starting the driver
def test_too_old_a_driver_no_device_and_no_package():
    with pytest.raises(DeviceError, match=r"too old: it supports CUDA 11\.8, graphc needs 12\.0"):
        Driver(FakeCuda(version=11080))
    with pytest.raises(DeviceError, match="finds no device"):
        Driver(FakeCuda(devices=0))
    for code, text in ((100, "finds no device"), (34, "a stub that comes with the CUDA toolkit"), (803, "different versions"),
                       (700, r"cannot be used: CUDA_ERROR_ILLEGAL_ADDRESS: what it means \(code 700\)"),
                       (12345, "error 12345: unknown error")):
        fake = FakeCuda()
        fake.fail["cuInit"] = [code]
        with pytest.raises(DeviceError, match=text):
            Driver(fake)

    class NoLibrary(FakeCuda):
        def cuInit(self, flags):
            raise RuntimeError("libcuda.so.1: cannot open shared object file")

    with pytest.raises(DeviceError, match="no NVIDIA driver was found .libcuda.so.1: cannot open"):
        Driver(NoLibrary())


def test_the_answer_is_found_once_and_says_how_to_get_cuda():
    asked = []

    def load():
        asked.append(1)
        raise DeviceError("the package cuda-bindings is not installed (No module named 'cuda')")

    driver.reset(load)
    try:
        for _ in range(3):
            assert "not installed" in driver.reason()
            with pytest.raises(CudaUnavailable, match=r"pip install 'graphc\[cuda\]'"):
                driver.get()
        assert len(asked) == 1
    finally:
        driver.reset()


def test_a_function_the_driver_does_not_have(fake):
    class Missing(FakeCuda):
        def cuCtxSynchronize(self):
            raise RuntimeError("function cuCtxSynchronize is not found")

    missing = Driver(Missing())
    with pytest.raises(CudaError, match=r"the NVIDIA driver \(CUDA 13\.0\) or the installed cuda-bindings has no cuCtxSynchronize"):
        missing.call("cuCtxSynchronize")
    with pytest.raises(CudaError, match="has no cuNothing"):
        missing.call("cuNothing")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_says_why_it_cannot(fake):
    D.get()
    buffer = B.empty(100)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        text = ""
        try:
            buffer.free()  # belongs to the parent: nothing happens
            D.get()
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    assert os.read(read, 1000).decode().startswith("CudaUnavailable: Cannot re-initialize CUDA in forked subprocess")
    os.close(read)
    assert D.get().index == 0 and D.used() is not None


def test_errors_carry_code_and_name(fake):
    D.get()
    fake.fail["cuCtxSynchronize"] = [1]
    with pytest.raises(CudaError) as error:
        D.get().synchronize()
    assert error.value.code == 1 and error.value.name == "CUDA_ERROR_INVALID_VALUE"
    assert str(error.value) == "CUDA error in cuCtxSynchronize: CUDA_ERROR_INVALID_VALUE: what it means (code 1)"
    D.get().synchronize()


def test_the_context_is_made_current_again_after_other_libraries(fake):
    D.get(1), D.get(0)
    fake.local.device = 1  # as another library would leave it
    buffer = B.empty(100, device=0)
    assert fake.memory[buffer.ptr][2] == 0
    assert [n for n, _ in fake.calls].count("cuDevicePrimaryCtxRetain") == 2


# ------------------------------------------------------------------------------------------------------ lost devices
def test_an_illegal_address_names_the_plan_and_the_process_can_go_on_reporting(fake):
    launches = LaunchList(D.get(), "plan of user.py:12")
    f = Module(D.get(), b"FAKE").function("trap")
    launches.add(f, (1,), 32, ("*fp32",), (Pointer(0),))
    buffer = B.empty(64, tag="x")
    event = D.Event()
    event.record()
    launches.run(D.current_stream(), (buffer.ptr,))
    with pytest.raises(CudaError) as error:
        D.get().synchronize()
    text = str(error.value)
    assert error.value.code == 700 and "CUDA_ERROR_ILLEGAL_ADDRESS" in text and "plan of user.py:12" in text
    assert "CUDA_LAUNCH_BLOCKING=1" in text and "cannot be used again in this process" in text
    with pytest.raises(CudaError, match=r"First error: CUDA error in cuCtxSynchronize"):
        B.empty(100 << 20)
    del buffer, event  # finalizers stay quiet
    gc.collect()
    assert D.get().memory.stats()["allocated_bytes.all.current"] == 512 - 256  # the figures can still be asked
    assert D.get().memory.holders()[0][2] == "x"


def test_blocking_launches_name_kernel_and_line(fake, monkeypatch):
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    launches = LaunchList(D.get(), "step")
    module = Module(D.get(), b"FAKE")
    y = B.empty(64)
    launches.add(module.function("axpy"), (1,), 16, ("*fp32", "*fp32", "fp32", "i32", "*i8", "*i8"),
                 (Pointer(0), Pointer(0), 0.0, 16, 0, 0), lines="model.py:3")
    launches.add(module.function("trap"), (1,), 16, ("*fp32",), (Pointer(0),), lines="model.py:9")
    with pytest.raises(CudaError, match=r"error in kernel trap \(recorded at model.py:9\), launch 2 of 2 of step: CUDA_ERROR_ILLEGAL"):
        launches.run(D.current_stream(), (y.ptr,))


def test_a_launch_that_is_refused_names_kernel_and_line(fake):
    launches = LaunchList(D.get(), "step")
    f = Module(D.get(), b"FAKE").function("trap")
    launches.add(f, (1,), 16, ("*fp32",), (Pointer(0),), lines="model.py:9")
    fake.fail["cuLaunchKernel"] = [1]
    with pytest.raises(CudaError, match=r"kernel trap \(recorded at model.py:9\), launch 1 of 1 of step: CUDA_ERROR_INVALID_VALUE"):
        launches.run(D.current_stream(), (0,))
    launches.run(D.current_stream(), (0,))


# -------------------------------------------------------------------------------------------------- packed arguments
types = st.sampled_from(["*fp32", "*i64", "i1", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "fp32", "fp64", "fp16"])


def value_of(t):
    if t.startswith("*"):
        return st.integers(0, 2 ** 47)
    if t == "i1":
        return st.booleans()
    if t in ("fp32", "fp16", "fp64"):
        return st.sampled_from([0.0, 1.5, -2.25, 1024.0, float("inf")])
    bits = int(t[1:])
    return st.integers(-2 ** (bits - 1), 2 ** (bits - 1) - 1) if t[0] == "i" else st.integers(0, 2 ** bits - 1)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_arguments_arrive_as_packed(data):
    """Several launches with any mix of types, fixed and changing: the driver sees what was given."""
    fake = FakeCuda()
    driver.reset(lambda: fake)
    launches = LaunchList(D.get())
    pointers = [data.draw(st.integers(0, 2 ** 47)) for _ in range(3)]
    numbers, expected = [], []
    for k in range(data.draw(st.integers(1, 4))):
        kinds = data.draw(st.lists(types, min_size=1, max_size=9))
        fake.kernels[f"k{k}"] = (kinds, lambda *args: None)
        values, seen = [], []
        for t in kinds:
            value = data.draw(value_of(t))
            how = data.draw(st.integers(0, 2))
            if t.startswith("*") and how:
                which, offset = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 1000)) * 256
                values.append(Pointer(which, offset))
                seen.append(("pointer", which, offset))
            elif how == 2:
                numbers.append(value)
                values.append(Number(len(numbers) - 1))
                seen.append(("number", len(numbers) - 1, t))
            else:
                values.append(value)
                seen.append(("fixed", value, t))
        launches.add(Module(D.get(), b"FAKE").function(f"k{k}"), (k + 1,), 32, kinds, values)
        expected.append(seen)
    for turn in range(2):
        launches.run(D.current_stream(), pointers, numbers)
        for launch, seen in zip(fake.launches[-len(expected):], expected):
            want = []
            for kind, a, b in seen:
                if kind == "pointer":
                    want.append(pointers[a] + b)
                else:
                    value, t = (numbers[a], b) if kind == "number" else (a, b)
                    want.append(int(np.float16(value).view(np.uint16)) if t == "fp16" else value)
            assert list(launch.args) == want
        pointers = [p + 256 for p in pointers]
    driver.reset()


def test_layout_is_that_of_c():
    assert layout(("*fp32", "i8", "i16", "i8", "i32", "fp64", "i1", "*i8")) == ([0, 8, 10, 12, 16, 24, 32, 40], 48, 8)
    assert layout(("i32", "tma", "i32")) == ([0, 64, 192], 196, 64)
    assert layout(()) == ([], 0, 8)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.5, 3.14159, 1e30, 1e-40, float("inf"), float("nan"), 257.0, 3])
def test_bfloat16_scalars_round_to_nearest_even(value):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    got = np.frombuffer(pack("bf16", value), ml_dtypes.bfloat16)[0]
    want = ml_dtypes.bfloat16(value)
    assert got == want or (np.isnan(got) and np.isnan(want))


@pytest.mark.parametrize("t, value", [("i32", 1 << 31), ("u8", -1), ("i32", 1.5), ("fp32", "x"), ("*fp32", -1), ("tma", b"short"),
                                      ("i64", None), ("fp16", 1e9)])
def test_arguments_that_do_not_fit(t, value):
    with pytest.raises(ArgumentError, match=f"kernel argument of type {t[:1].replace('*', '.')}"):
        pack(t, value)


def test_every_format_has_the_size_c_gives_it():
    sizes = {t: struct.calcsize("=" + f) for t, f in FORMATS.items()}
    assert all(sizes[t] == {"1": 1, "8": 1, "16": 2, "32": 4, "64": 8}[t.lstrip("iubfp")] for t in sizes)


def test_tensor_maps_are_64_byte_aligned_in_the_buffer(fake):
    seen = []
    fake.kernels["t"] = (["i32"], lambda *a: None)
    launches = LaunchList(D.get())
    f = Module(D.get(), b"FAKE").function("t")
    launches.add(f, (1,), 32, ("i32", "tma", "*i8"), (7, bytes(range(128)), Pointer(0)))
    launches.add(f, (1,), 32, ("i32", "tma", "*i8"), (8, bytes(128), Pointer(0, 16)))
    launches.patch((4096,))
    for k, word in enumerate((0, 3)):
        at = int(launches.table[word + 1])
        seen.append(bytes(array(at, 128, np.uint8)))
        assert at % 64 == 0 and array(int(launches.table[word]), 1, np.int32)[0] == 7 + k
        assert array(int(launches.table[word + 2]), 1, np.int64)[0] == 4096 + 16 * k
    assert seen == [bytes(range(128)), bytes(128)]


def test_clusters_and_attributes(fake):
    launches = LaunchList(D.get())
    f = Module(D.get(), b"FAKE").function("trap")
    launches.add(f, (3, 2), 64, ("*fp32",), (0,), ctas=4, overlap=True)
    launches.add(f, (1,), 64, ("*fp32",), (0,), ctas=16)
    launches.add(f, (5,), 64, ("*fp32",), (0,), cooperative=True, shared=60 << 10)
    launches.run(D.current_stream())
    first, second, third = fake.launches
    assert first.grid == (12, 2, 1) and first.block == (64, 1, 1)
    assert vars(first.attributes[4]["clusterDim"]) == {"x": 4, "y": 1, "z": 1}
    assert first.attributes[5] == {"clusterDim": first.attributes[5]["clusterDim"], "clusterSchedulingPolicyPreference": 1}
    assert first.attributes[6]["programmaticStreamSerializationAllowed"] == 1
    assert second.grid == (16, 1, 1) and fake.attributes["trap", 14] == 1
    assert third.attributes[2]["cooperative"] == 1 and third.shared == 60 << 10 and fake.attributes["trap", 8] == 60 << 10


class Compiled:
    """What the Triton compiler gives, as far as launching goes."""

    symbol, entry, code, warps, ctas, shared, scratch, scratch_align = "s1", "axpy", b"FAKE", 4, 1, 64 << 10, 0, 1


def test_triton_kernels_get_two_scratch_pointers(fake):
    owner, launches = D.get(), LaunchList(D.get(), "p")
    kernel = load(owner, Compiled)
    assert load(owner, Compiled) is kernel and kernel.threads == 128

    class Scratchy(Compiled):
        symbol, scratch, scratch_align, ctas = "s2", 100, 128, 2

    types = ("*fp32", "*fp32", "fp32", "i32")
    launches.add_kernel(kernel, (3,), types, (Pointer(0), Pointer(1), 1.0, 4), lines="a.py:1")
    launches.add_kernel(load(owner, Scratchy), (5, 2), types, (Pointer(0), Pointer(1), 1.0, 4))
    y, x = B.empty(16), B.empty(16)
    launches.run(D.current_stream(), (y.ptr, x.ptr))
    first, second = fake.launches
    assert first.args == (y.ptr, x.ptr, 1.0, 4, 0, 0) and first.block == (128, 1, 1) and first.shared == 64 << 10
    assert second.args == (y.ptr, x.ptr, 1.0, 4, launches.scratch.ptr, 0) and second.grid == (10, 2, 1)
    assert launches.scratch.nbytes == 128 * 10 * 2 and launches.scratch.ptr % 128 == 0
    with pytest.raises(ArgumentError, match="scratch memory and cannot overlap"):
        launches.add_kernel(load(owner, Scratchy), (1,), types, (0, 0, 1.0, 4), overlap=True)

    class Broken(Compiled):
        symbol, code = "s3", b"?"

    with pytest.raises(CompileError, match=r"kernel s3 cannot be loaded on cuda:0 \(Fake H100 0, sm_90\)"):
        load(owner, Broken)


def test_a_copy_that_fails_is_named(fake):
    launches = LaunchList(D.get(), "p")
    launches.add_copy(4096, 8192, 16)
    with pytest.raises(CudaError, match=r"error in Copy\(dst=4096, src=8192, nbytes=16\), launch 1 of 1 of p: CUDA_ERROR_INVALID"):
        launches.run(D.current_stream())


def test_shared_memory_attribute_is_set_only_when_needed_and_only_up_to_the_limit(fake):
    f = Module(D.get(), b"FAKE").function("axpy")
    f.allow_shared(48 << 10)
    assert not [c for c in fake.calls if c[0] == "cuFuncSetAttribute"]
    f.allow_shared(100 << 10)
    f.allow_shared(90 << 10)
    assert [int(c[1][2]) for c in fake.calls if c[0] == "cuFuncSetAttribute"] == [100 << 10]
    with pytest.raises(CompileError, match="needs 262144 bytes of shared memory, Fake H100 0 has 232448 per block"):
        f.allow_shared(256 << 10)
    assert (f.registers, f.spills, f.static_shared, f.max_threads) == (40, 0, 0, 1024)


def test_modules_are_unloaded_when_nobody_needs_them(fake):
    f = Module(D.get(), b"FAKE").function("axpy")
    assert not [c for c in fake.calls if c[0] == "cuModuleUnload"]
    del f
    gc.collect()
    assert [c for c in fake.calls if c[0] == "cuModuleUnload"]


def test_lists_are_bound_to_a_device(fake):
    f = Module(D.get(0), b"FAKE").function("axpy")
    with pytest.raises(ArgumentError, match="loaded on cuda:0, the list runs on cuda:1"):
        LaunchList(D.get(1)).add(f, (1,), 1, (), ())
    launches = LaunchList(D.get(0), "p")
    with pytest.raises(ArgumentError, match="p runs on cuda:0, the stream is on cuda:1"):
        launches.run(D.current_stream(1))


# ------------------------------------------------------------------------------------------------------ two devices
def test_copies_between_devices(fake):
    source = np.arange(1000, dtype=np.float32)
    a, b = B.empty(4000, device=0), B.empty(4000, device=1)
    B.from_host(a, source)
    B.copy(b, a)
    out = np.empty(1000, np.float32)
    B.to_host(b, out)
    assert np.array_equal(out, source) and "cuMemcpyPeerAsync" in [n for n, _ in fake.calls]
    with pytest.raises(DeviceError, match="the stream is on cuda:1, the memory on cuda:0"):
        B.from_host(a, source, D.current_stream(1))


def test_finalizers_leave_the_current_device_alone(fake):
    """Garbage of device 1 goes while launches of device 0 are being sent."""
    module = Module(D.get(1), b"FAKE")
    plain = LaunchList(D.get(1))
    plain.add(module.function("trap"), (1,), 32, ("*fp32",), (0,))
    graph, buffer, event = capture(D.get(1), plain.run), B.empty(100, device=1), D.Event()
    event.record(D.current_stream(1))
    buffer.record_stream(D.Stream(1))
    garbage = [module, plain, graph, buffer, event]
    del module, plain, graph, buffer, event
    launches = LaunchList(D.get(0))
    for _ in range(2):
        launches.add(Module(D.get(0), b"FAKE").function("axpy"), (1,), 32, ("*fp32", "*fp32", "fp32", "i32", "*i8", "*i8"),
                     (Pointer(0), Pointer(0), 0.0, 1, 0, 0))
    y = B.empty(64, device=0)
    send = fake.cuLaunchKernel

    def late(*args):
        result = send(*args)
        garbage.clear()
        gc.collect()
        return result

    fake.cuLaunchKernel = late
    launches.run(D.current_stream(0), (y.ptr,))
    names = [n for n, _ in fake.calls]
    assert fake.current == 0 and {"cuModuleUnload", "cuGraphExecDestroy", "cuEventDestroy"} <= set(names)


def test_graphs_are_destroyed_and_captures_ended(fake):
    launches = LaunchList(D.get())
    launches.add(Module(D.get(), b"FAKE").function("trap"), (1,), 32, ("*fp32",), (0,))
    graph = capture(D.get(), launches.run)
    assert len(fake.graphs) == 1
    del graph
    gc.collect()
    assert not fake.graphs
    with pytest.raises(CudaError, match="CAPTURE_UNSUPPORTED"):
        capture(D.get(), lambda s: s.synchronize())
    with pytest.raises(ZeroDivisionError):
        capture(D.get(), lambda s: 1 / 0)
    assert not fake.graphs and not any(s.capture is not None for s in fake.streams.values())
