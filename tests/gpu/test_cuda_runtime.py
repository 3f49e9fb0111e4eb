"""The CUDA run time on a real device: the programs of tests/runtime/cuda_suite.py, lost devices, and figures.

Needs a GPU of compute capability 8.0 or newer, its driver and cuda-bindings; skipped with the reason elsewhere.
"""
from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from graphc.runtime.cuda import driver

ROOT = Path(__file__).resolve().parent.parent.parent
pytest.register_assert_rewrite("cuda_suite")

from cuda_suite import *  # noqa: F403
from cuda_suite import Kit, axpy_list, got, put

from graphc.runtime.cuda import buffer as B
from graphc.runtime.cuda import device as D
from graphc.runtime.cuda.graph import capture

WHY = driver.reason()
pytestmark = pytest.mark.skipif(bool(WHY), reason=f"no CUDA device: {WHY}")

_BODY = """
.visible .entry {name}(.param .u64 y, .param .u64 x, .param {type} a, .param .s32 n, .param .u64 s0, .param .u64 s1)
{{
    .reg .pred %p;
    .reg .b32 %r<5>;
    .reg .b64 %d<6>;
    .reg .f32 %f<4>;
    mov.u32 %r0, %ctaid.x;
    mov.u32 %r1, %ntid.x;
    mov.u32 %r2, %tid.x;
    mad.lo.s32 %r3, %r0, %r1, %r2;
    ld.param.s32 %r4, [n];
    setp.ge.s32 %p, %r3, %r4;
    @%p ret;
    ld.param.u64 %d0, [y];
    ld.param.u64 %d1, [x];
    cvta.to.global.u64 %d0, %d0;
    cvta.to.global.u64 %d1, %d1;
    mul.wide.s32 %d2, %r3, 4;
    add.s64 %d0, %d0, %d2;
    add.s64 %d1, %d1, %d2;
{load}
    ld.global.f32 %f1, [%d0];
    ld.global.f32 %f2, [%d1];
    fma.rn.f32 %f3, %f0, %f2, %f1;
    st.global.f32 [%d0], %f3;
    ret;
}}
"""
_CELL = "    ld.param.u64 %d3, [a];\n    cvta.to.global.u64 %d3, %d3;\n    ld.global.f32 %f0, [%d3];"
_TRAP = """
.visible .entry trap(.param .u64 p)
{
    .reg .b64 %d<2>;
    ld.param.u64 %d0, [p];
    st.global.u64 [%d0], %d0;
    ret;
}
"""
PTX = ".version 7.0\n.target sm_80\n.address_size 64\n" + _BODY.format(
    name="axpy", type=".f32", load="    ld.param.f32 %f0, [a];") + _BODY.format(name="axpy_cell", type=".u64", load=_CELL) + _TRAP


@pytest.fixture
def kit():
    driver.reset()
    yield Kit(PTX.encode() + b"\0")
    driver.reset()


def test_an_illegal_address_is_reported_with_kernel_and_line(kit):
    """In a process of its own, which loses the device."""
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests" / "gpu")!r})
from test_cuda_runtime import PTX
from graphc.runtime.cuda import buffer, device
from graphc.runtime.cuda.launch import LaunchList, Module
launches = LaunchList(device.get(), "plan of model.py")
launches.add(Module(device.get(), PTX.encode() + b"\\0").function("trap"), (1,), 1, ("*i64",), (4096,), lines="model.py:9")
try:
    launches.run(device.current_stream())
    device.get().synchronize()
except Exception as error:
    print("SAID", error)
try:
    buffer.empty(1 << 30)
except Exception as error:
    print("THEN", error)
"""
    for blocking, text in (("0", "plan of model.py"), ("1", "kernel trap (recorded at model.py:9)")):
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
                             env={**os.environ, "CUDA_LAUNCH_BLOCKING": blocking, "PYTHONPATH": str(ROOT)})
        said = [line for line in out.stdout.splitlines() if line.startswith("SAID")]
        assert out.returncode == 0 and said and text in said[0] and "ILLEGAL_ADDRESS" in said[0], out.stdout + out.stderr


def test_properties_and_memory_of_the_device(kit):
    p = D.get().properties
    free, total = D.get().memory_info()
    assert p.major >= 8 and p.multi_processor_count > 1 and p.warp_size == 32 and p.name
    assert p.shared_memory_per_block_optin >= 96 << 10 and 0 < free <= total <= p.total_memory * 1.01


def test_figures(kit, capsys):
    """Printed: host cost of a launch, a replay and an allocation; copy speeds."""
    n, stream, rows = 1024, D.current_stream(), []
    y, x = put(np.zeros(n, np.float32)), put(np.ones(n, np.float32))
    launches = axpy_list(kit, n, times=100, by_value=False)
    launches.run(stream, (y.ptr, x.ptr))
    graph = capture(D.get(), lambda s: launches.run(s, (y.ptr, x.ptr)))
    for name, action, per in (("launch", lambda: launches.run(stream, (y.ptr, x.ptr)), 100),
                              ("replayed launch", lambda: graph.launch(stream), 100),
                              ("allocation", lambda: B.empty(1000), 1)):
        best = 1e9
        for _ in range(20):
            stream.synchronize()
            t = time.perf_counter()
            action()
            best = min(best, time.perf_counter() - t)
        rows.append(f"{name}: {best / per * 1e6:.2f} us on the host")
    big = B.empty(256 << 20)
    for name, host in (("pageable", np.ones(64 << 20, np.float32)), ("pinned", B.pinned((64 << 20,), np.float32))):
        for what, action in (("to the device", lambda: B.from_host(big, host)), ("to the host", lambda: B.to_host(big, host))):
            action()
            stream.synchronize()
            t = time.perf_counter()
            action()
            stream.synchronize()
            rows.append(f"{name} {what}: {big.nbytes / (time.perf_counter() - t) / 1e9:.1f} GB/s")
    with capsys.disabled():
        print("\n" + "\n".join(rows))
    assert np.array_equal(got(y, 1), [2.0 * 100 * 41])  # 1 plain run, 20 timed and 20 replayed ones of 100 launches
