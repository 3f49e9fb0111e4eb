"""graphc.cuda: PyTorch's names without a GPU, and over the stand-in driver."""
from __future__ import annotations

import gc
import json
import subprocess
import sys

import pytest

import graphc
from graphc import cuda
from graphc.codegen.triton import compiler
from graphc.errors import DeviceError, OutOfMemoryError
from graphc.runtime.cuda import buffer as B
from graphc.runtime.cuda import driver

from cuda_fake import FakeCuda  # isort: skip


@pytest.fixture
def absent():
    """A process without cuda-bindings."""
    def load():
        raise DeviceError("the package cuda-bindings is not installed (No module named 'cuda')")

    driver.reset(load)
    yield
    driver.reset()


@pytest.fixture
def fake(monkeypatch):
    """Two devices, and a compiler for them."""
    fake = FakeCuda(devices=2, total=1 << 28)
    driver.reset(lambda: fake)
    monkeypatch.setattr(compiler, "reason", lambda: "")
    yield fake
    driver.reset()


# ------------------------------------------------------------------------------------------------------ without a GPU
def test_questions_are_answered_without_a_gpu(absent):
    assert cuda.is_available() is False and cuda.device_count() == 0 and not cuda.is_initialized()
    assert cuda.memory_allocated() == cuda.max_memory_allocated() == cuda.memory_reserved() == cuda.max_memory_reserved() == 0
    assert cuda.memory_stats() == {} == cuda.host_memory_stats() and cuda.memory_snapshot() == []
    assert "Allocated memory" in cuda.memory_summary()
    assert not cuda.is_bf16_supported() and not cuda.is_tf32_supported() and cuda.get_arch_list() == []
    assert cuda.get_rng_state_all() == []
    assert graphc.cuda.OutOfMemoryError is OutOfMemoryError and issubclass(OutOfMemoryError, RuntimeError)


def test_what_does_nothing_without_a_gpu(absent):
    graphc.manual_seed(5)
    cuda.manual_seed(1)
    cuda.manual_seed_all(2)
    cuda.seed()
    cuda.seed_all()
    assert graphc.initial_seed() == 5
    cuda.set_rng_state_all([graphc.get_rng_state()])
    cuda.set_rng_state_all([])
    cuda.empty_cache()
    cuda.reset_peak_memory_stats()
    cuda.reset_max_memory_allocated()
    cuda.reset_accumulated_memory_stats()
    cuda.ipc_collect()
    cuda.set_device(-1)
    cuda.set_stream(None)
    with cuda.stream(None), cuda.device(None), cuda.device_of(graphc.ones(2)):
        pass


USES = {
    "current_device": lambda: cuda.current_device(), "set_device": lambda: cuda.set_device(0), "init": lambda: cuda.init(),
    "synchronize": lambda: cuda.synchronize(), "get_device_name": lambda: cuda.get_device_name(),
    "get_device_properties": lambda: cuda.get_device_properties(0), "capability": lambda: cuda.get_device_capability(),
    "mem_get_info": lambda: cuda.mem_get_info(), "Event": lambda: cuda.Event(enable_timing=True),
    "Stream": lambda: cuda.Stream(), "current_stream": lambda: cuda.current_stream(),
    "default_stream": lambda: cuda.default_stream(), "device": lambda: cuda.device(0).__enter__(),
    "initial_seed": lambda: cuda.initial_seed(), "get_rng_state": lambda: cuda.get_rng_state(),
    "peer": lambda: cuda.can_device_access_peer(0, 1), "capturing": lambda: cuda.is_current_stream_capturing(),
    "fraction": lambda: cuda.set_per_process_memory_fraction(0.5), "external": lambda: cuda.get_stream_from_external(64),
}


@pytest.mark.parametrize("name", USES)
def test_use_says_what_is_missing(absent, name):
    for kind in (RuntimeError, AssertionError, DeviceError):  # programs catch one or the other
        with pytest.raises(kind, match=r"cuda-bindings is not installed.*driver and pip install 'graphc\[cuda\]'.*device='cpu'"):
            USES[name]()


def test_tensors_cannot_go_there(absent):
    for use in (lambda: graphc.ones(2).cuda(), lambda: graphc.ones(2).to("cuda"), lambda: graphc.ones(2, device="cuda:0"),
                lambda: graphc.nn.Linear(2, 2).cuda()):
        with pytest.raises(RuntimeError, match=r"cuda.*not available"):
            use()
    with pytest.raises(TypeError, match="torch.cuda.FloatTensor not available"):
        cuda.FloatTensor(3)
    assert not isinstance(graphc.ones(2), cuda.FloatTensor)
    with pytest.raises(ValueError, match="Expected a cuda device, but got: cpu"):
        cuda.device("cpu")
    with pytest.raises(ValueError, match="Stream or None"):
        cuda.stream("s")


def test_mixed_precision_names(absent):
    from graphc.cuda.amp import GradScaler, autocast, custom_bwd, custom_fwd

    assert cuda.amp.GradScaler is GradScaler
    with pytest.warns(UserWarning, match="CUDA is not available"):
        scaler = GradScaler()
    assert not scaler.is_enabled()
    x, w = graphc.ones(2, 2), graphc.ones(2, 2, requires_grad=True)
    with autocast():
        out = x @ w
    assert out.dtype is graphc.float32, "tensors on the CPU stay as they are"
    loss = scaler.scale(out.sum())
    loss.backward()
    assert w.grad.tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert custom_fwd(lambda ctx, a: a)(None, 3) == 3 and custom_fwd(cast_inputs=graphc.float32)(lambda ctx, a: a)(None, 3) == 3
    assert custom_bwd(len)([1]) == 1
    with pytest.warns(UserWarning, match="bfloat16 or float16"):
        assert not autocast(dtype=graphc.float32)._enabled
    with pytest.raises(AttributeError, match="nothing"):
        cuda.nothing


def test_submodules():
    import graphc.cuda.memory
    import graphc.cuda.random
    import graphc.cuda.streams

    assert graphc.cuda.memory.memory_allocated is cuda.memory_allocated
    assert graphc.cuda.random.manual_seed is cuda.manual_seed and graphc.cuda.streams.Event is cuda.Event


def test_a_gpu_alone_does_not_make_programs_choose_it(monkeypatch):
    """As long as nothing can be compiled for it, ``"cuda" if is_available() else "cpu"`` must say "cpu"."""
    driver.reset(FakeCuda)
    monkeypatch.setattr(compiler, "reason", lambda: "triton is not installed")
    try:
        assert not cuda.is_available() and cuda.device_count() == 0
        assert cuda.get_device_name().startswith("Fake"), "the device itself can be asked"
        with pytest.raises(DeviceError, match="'cuda:1' is not available. Triton is not installed"):
            graphc.ones(2).to("cuda:1")
    finally:
        driver.reset()


def test_importing_loads_no_cuda():
    code = ("import sys, json, graphc; graphc.ones(2).sum().item(); graphc.cuda.memory_allocated();"
            "print(json.dumps([m for m in sys.modules if m.split('.')[0] in ('cuda', 'triton')]))")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert out.returncode == 0, out.stderr
    assert json.loads(out.stdout) == []


# ------------------------------------------------------------------------------------------------------- with devices
def test_devices(fake):
    assert cuda.is_available() and cuda.device_count() == 2 and not cuda.is_initialized()
    assert cuda.current_device() == 0
    cuda.set_device("cuda:1")
    assert cuda.current_device() == 1 and cuda.get_device_name() == "Fake H100 1"
    with cuda.device(0):
        assert cuda.current_device() == 0
        with cuda.device(graphc.device("cuda:1")):
            assert cuda.current_device() == 1
        assert cuda.current_device() == 0
    assert cuda.current_device() == 1
    cuda.set_device(0)
    p = cuda.get_device_properties("cuda:1")
    assert (p.name, p.major, p.minor, p.total_memory, p.multi_processor_count) == ("Fake H100 1", 9, 0, 1 << 28, 132)
    assert p.shared_memory_per_block_optin == 232448 and p.L2_cache_size == 50 << 20 and p.warp_size == 32
    assert repr(p).startswith("_CudaDeviceProperties(name='Fake H100 1', major=9, minor=0, total_memory=256MB")
    assert "uuid=00010203-0405-0607-0809-0a0b0c0d0e0f" in repr(p)
    assert cuda.get_device_capability() == (9, 0) and cuda.get_arch_list() == ["sm_90"]
    assert cuda.is_bf16_supported() and cuda.is_bf16_supported(including_emulation=False) and cuda.is_tf32_supported()
    assert cuda.can_device_access_peer(0, 1) and not cuda.can_device_access_peer(1, 1)
    for use in (lambda: cuda.set_device(2), lambda: cuda.get_device_properties(2), lambda: cuda.synchronize(7),
                lambda: cuda.device("cuda:5").__enter__()):
        with pytest.raises(RuntimeError, match="invalid device ordinal .: devices are numbered 0 to 1"):
            use()
    assert not cuda.is_initialized()
    cuda.init()
    assert cuda.is_initialized()


def test_a_device_block_ends_with_an_exception(fake):
    with pytest.raises(KeyError), cuda.device(1):
        raise KeyError
    assert cuda.current_device() == 0


def test_memory_figures(fake):
    assert cuda.memory_allocated() == 0 and not cuda.is_initialized()
    a = B.empty(5 << 20, tag="weights")
    assert cuda.memory_allocated() == 5 << 20 and cuda.memory_reserved() == 32 << 20 and cuda.memory_allocated(1) == 0
    free, total = cuda.mem_get_info()
    assert (free, total) == ((1 << 28) - (32 << 20), 1 << 28)
    b = B.empty(1 << 20, device=1)
    assert cuda.memory_allocated("cuda:1") == 1 << 20
    del a
    gc.collect()
    assert cuda.memory_allocated() == 0 and cuda.max_memory_allocated() == 5 << 20
    assert cuda.memory_stats()["allocated_bytes.all.peak"] == 5 << 20
    cuda.reset_peak_memory_stats()
    assert cuda.max_memory_allocated() == 0 and cuda.max_memory_reserved() == 32 << 20
    cuda.empty_cache()
    assert cuda.memory_reserved() == 0 and cuda.mem_get_info()[0] == 1 << 28 and cuda.memory_reserved(1) == 2 << 20
    assert [s["device"] for s in cuda.memory_snapshot()] == [1]
    text = cuda.memory_summary(1)
    assert "device 1" in text and "1.00 MiB  unnamed (1 blocks)" in text and "unnamed" not in cuda.memory_summary(1, True)
    cuda.reset_accumulated_memory_stats(1)
    assert cuda.memory_stats(1)["allocated_bytes.all.allocated"] == 0
    with pytest.raises(RuntimeError, match="invalid device ordinal 4"):
        cuda.memory_allocated(4)
    assert b.nbytes


def test_fraction_limits_this_process(fake):
    cuda.set_per_process_memory_fraction(0.25)
    with pytest.raises(cuda.OutOfMemoryError, match=r"may hold 64.00 MiB \(set_per_process_memory_fraction\)"):
        B.empty(100 << 20)
    B.empty(60 << 20)
    for wrong in (-0.1, 1.5):
        with pytest.raises(ValueError, match="Allowed range: 0~1"):
            cuda.set_per_process_memory_fraction(wrong)
    with pytest.raises(TypeError):
        cuda.set_per_process_memory_fraction("half")


def test_streams_and_events(fake):
    s = cuda.Stream(device=1)
    assert s.device == graphc.device("cuda:1") and cuda.current_stream(1) == cuda.default_stream(1)
    with cuda.stream(s):
        assert cuda.current_device() == 1 and cuda.current_stream() == s
    assert cuda.current_device() == 0
    cuda.set_stream(s)
    assert cuda.current_stream() == s and cuda.current_device() == 1
    cuda.set_stream(cuda.default_stream(1))
    start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    start.record()
    end.record()
    cuda.synchronize()
    assert start.elapsed_time(end) > 0 and not cuda.is_current_stream_capturing()
    assert cuda.get_stream_from_external(s.cuda_stream) == s and isinstance(s, cuda.Stream)
    other = cuda.Event()
    other.record(cuda.default_stream(0))
    with pytest.raises(RuntimeError, match="Event device 0 does not match recording stream's device 1"):
        other.record(s)


def test_seeds(fake):
    cuda.manual_seed_all(11)
    assert graphc.initial_seed() == 11 == cuda.initial_seed()
    states = cuda.get_rng_state_all()
    assert len(states) == 2
    first = graphc.rand(4).tolist()
    cuda.set_rng_state_all(states)
    assert graphc.rand(4).tolist() == first
    cuda.set_rng_state(states[0], "cuda:1")
    assert graphc.rand(4).tolist() == first
    with pytest.raises(RuntimeError, match="ordinal"):
        cuda.get_rng_state(2)
