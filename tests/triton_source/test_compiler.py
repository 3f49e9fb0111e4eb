"""Offline compilation: machine code for GPUs on a machine without one, its quality, and the disk cache."""
from __future__ import annotations

import functools
import os
import struct
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from recorded_steps import captured, kernels, workload

import graphc
import graphc.nn.functional as F
from graphc.codegen.triton import compiler
from graphc.codegen.triton.compiler import A100, H100, MI300, Compiled, Compiler, Target, assembly_facts
from graphc.codegen.triton.printer import Arg, Printed
from graphc.errors import CompileError
from graphc.runtime.kernel_cache import KernelCache

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _cache_on(monkeypatch) -> None:
    monkeypatch.delenv("GRAPHC_NO_CACHE", raising=False)


@functools.cache
def gelu_chain():
    x, y = graphc.randn(1 << 16), graphc.randn(1 << 16)
    return captured(lambda a, b: F.gelu(a * b + 0.5) * a, x, y)


@functools.cache
def adam():
    p = graphc.nn.Parameter(graphc.randn(512, 64))
    p.grad = graphc.randn(512, 64)
    return captured(graphc.optim.Adam([p], lr=1e-3).step)


PROGRAMS = {"softmax_bwd": lambda: workload("softmax_bwd"), "layernorm_bwd": lambda: workload("layernorm_bwd"),
            "xent": lambda: workload("xent"), "chain": lambda: workload("chain_1e6"), "permute": lambda: workload("permute"),
            "bcast_relu": lambda: workload("bcast_relu"), "gelu": gelu_chain, "adam": adam}
STREAMING = ("softmax_bwd", "chain", "bcast_relu", "gelu", "adam")


@pytest.mark.usefixtures("triton_installed")
@pytest.mark.parametrize("target", [A100, H100], ids=str)
@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_quality(name: str, target: Target) -> None:
    """No spills, shared memory within the limit; kernels that stream through memory do so 16 bytes at a time."""
    printed = kernels(PROGRAMS[name]())
    assert printed
    for c in compiler.compiler(target).get(printed).values():
        assert c.code[:4] == b"\x7fELF" and c.entry == c.symbol
        assert c.spills == 0 and 0 < c.registers <= 255 and c.shared <= target.shared_limit
        assert not c.facts["atomics"]
        if name in STREAMING:
            assert c.facts["wide_loads"] and c.facts["wide_stores"], (c.symbol, c.facts)


def copy_kernel(name: str = "copy", body: str = "tl.store(o + i, tl.load(a + i))", block: int = 1024, divisor: int = 16) -> Printed:
    source = ("import triton\nimport triton.language as tl\n\n\n@triton.jit\n"
              f"def {name}(a, o, BX: tl.constexpr):\n    i = tl.program_id(0) * BX + tl.arange(0, BX)\n    {body}\n")
    args = (Arg("a", "*fp32", 0, divisor), Arg("o", "*fp32", 1, divisor))
    return Printed(name, source, args, (("BX", block),), ((block, block),), 4)


@pytest.mark.usefixtures("triton_installed")
def test_16_byte_accesses_need_the_hint(tmp_path: Path) -> None:
    c = Compiler(H100, KernelCache(tmp_path, ""))
    with_hint, without = copy_kernel("hinted"), copy_kernel("bare", divisor=1)
    got = c.get([with_hint, without])
    assert got["hinted"].facts["wide_loads"] == got["hinted"].facts["loads"] > 0
    assert got["bare"].facts["wide_loads"] == 0 < got["bare"].facts["loads"]


@pytest.mark.usefixtures("triton_installed")
def test_other_vendor(tmp_path: Path) -> None:
    c = Compiler(MI300, KernelCache(tmp_path, "")).get([copy_kernel()])["copy"]
    assert c.code[:4] == b"\x7fELF" and c.registers is None and c.warps == 2


@pytest.mark.usefixtures("triton_installed")
def test_failure_names_kernel_and_stays_quiet(capfd, tmp_path: Path) -> None:
    """Errors of the front end and of the assembler: one exception, nothing printed, the other kernels are kept."""
    c = Compiler(H100, KernelCache(tmp_path, ""))
    bad = copy_kernel("bad", "tl.store(o + i, no_such_name)")
    asm = copy_kernel("asm", 'x = tl.inline_asm_elementwise("nonsense $0, $1;", "=r,r", [i], tl.int32, True, 1)\n'
                             '    tl.store(o + i, x.to(tl.float32))')
    with pytest.raises(CompileError, match=r"kernel bad cannot be compiled for sm_90: .*no_such_name.*\(and 1 more\)"):
        c.get([bad, copy_kernel("good"), asm])
    with pytest.raises(CompileError, match="kernel asm .*ptxas failed"):
        c.get([asm])
    before = c.compiled
    c.get([copy_kernel("good")])
    assert c.compiled == before == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("triton_installed")
def test_too_much_shared_memory(tmp_path: Path) -> None:
    body = ("j = tl.arange(0, 16)\n    p = a + j[:, None] * 2048 + tl.arange(0, 2048)[None, :]\n"
            "    x = tl.load(p)\n    acc = tl.dot(x, tl.trans(x))\n    tl.store(o + j[:, None] * 16 + j[None, :], acc)")
    with pytest.raises(CompileError, match="bytes of shared memory, the device has 101376"):
        Compiler(Target("cuda", 86), KernelCache(tmp_path, "")).get([copy_kernel("big", body)])


@pytest.mark.usefixtures("triton_installed")
def test_equal_kernels_once_and_threads(tmp_path: Path) -> None:
    """Several threads ask for the same kernels at the same time."""
    c = Compiler(H100, KernelCache(tmp_path, "t"))
    printed = [copy_kernel(f"k{n}", block=1024 << n) for n in range(4)]
    results: list[dict[str, Compiled]] = []
    workers = [threading.Thread(target=lambda: results.append(c.get([*printed, *printed]))) for _ in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert c.compiled == 4 and len(results) == 4 and all(r == results[0] for r in results)


@pytest.mark.usefixtures("triton_installed")
def test_disk_cache(tmp_path: Path) -> None:
    """Reloaded whole; a damaged entry is compiled again; other options or another target are other entries; comments are not."""
    first = Compiler(H100, KernelCache(tmp_path, "stamp"))
    want = first.get([copy_kernel()])
    p = copy_kernel()
    second = Compiler(H100, KernelCache(tmp_path, "stamp"))
    noted = replace(p, source=p.source.rstrip("\n") + "  # model.py:7\n")
    assert second.get([noted]) == want and (second.compiled, second.reloaded) == (0, 1)
    for entry in tmp_path.glob("*.obj"):
        entry.write_bytes(entry.read_bytes()[:-1])
    third = Compiler(H100, KernelCache(tmp_path, "stamp"))
    assert third.get([p]) == want and (third.compiled, third.reloaded) == (1, 0)
    for other in (replace(p, warps=8), replace(p, stages=2), replace(p, constants=(("BX", 2048),))):
        c = Compiler(H100, KernelCache(tmp_path, "stamp"))
        c.get([other])
        assert c.compiled == 1
    c = Compiler(H100, KernelCache(tmp_path, "other"))
    c.get([p])
    assert c.compiled == 1


@pytest.mark.usefixtures("triton_installed")
def test_warm_process_imports_no_triton(tmp_path: Path) -> None:
    program = (f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom test_compiler import copy_kernel\n"
               "from graphc.codegen.triton.compiler import H100, compiler\nc = compiler(H100)\nk = c.get([copy_kernel()])['copy']\n"
               "print('RESULT', c.compiled, c.reloaded, 'triton' in sys.modules, len(k.code))\n")
    env = {**os.environ, "GRAPHC_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    env.pop("GRAPHC_NO_CACHE", None)
    results = []
    for _ in range(2):
        out = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=120, cwd=ROOT)
        results.append(next(x for x in out.stdout.splitlines() if x.startswith("RESULT")).split()[1:])
    assert results[0][:3] == ["1", "0", "True"] and results[1][:3] == ["0", "1", "False"] and results[0][3] == results[1][3]


def test_damaged_bytes_are_refused() -> None:
    c = Compiled("s", "s", b"\x7fELFxyz", 4, 1, 0, 0, 1, 32, 0, {"loads": 3})
    assert Compiled.unpack(c.pack()) == c
    for bad in (b"", b"\x10\0\0\0", c.pack()[:9], b"\xff\xff\xff\x7f{}"):
        with pytest.raises((ValueError, TypeError, struct.error)):
            Compiled.unpack(bad)


@pytest.mark.parametrize(("have", "text"), [("", "not installed"), ("3.5.1", "3.5.1 is not supported"), ("3.11.0", "3.11.0 is not"),
                                            ("3.6.0", ""), ("3.10.2", ""), ("2.9", "not supported")])
def test_versions(have: str, text: str, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compiler, "version", lambda: have)
    assert text in compiler.reason() and bool(text) == bool(compiler.reason())
    if text:
        with pytest.raises(CompileError, match="GPU kernels are not available"):
            Compiler(H100, KernelCache(tmp_path, "")).get([copy_kernel()])


def test_facts_of_assembly() -> None:
    text = ("ld.global.v4.b32 {a};\nld.global.L1::evict_first.v2.b64 {b};\nld.global.b32 {c};\nst.global.v4.f32 [x];\n"
            "st.global.b16 [y];\nmma.sync.aligned.m16n8k16;\nwgmma.mma_async.sync;\ncp.async.cg.shared.global [s], [g], 16;\n"
            "cp.async.ca.shared.global [s], [g], 4;\natom.global.gpu.acq_rel.add.f32;\nred.gpu.global.add.f32;")
    got = assembly_facts(text)
    assert got == {"loads": 3, "wide_loads": 2, "stores": 2, "wide_stores": 1, "async": 2, "wide_async": 1, "tma": 0, "mma": 1,
                   "wgmma": 1, "atomics": 2}
