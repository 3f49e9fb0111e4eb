"""Compiling, loading and caching kernels."""
from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc.errors import CompileError
from graphc.runtime import jit, threads
from graphc.runtime.kernel_cache import KernelCache

if not jit.available():
    pytest.skip(jit.reason(), allow_module_level=True)

ROOT = str(Path(graphc.__file__).resolve().parents[1])
KERNEL = "define void @{0}(ptr %args, i64 %tid, i64 %nt) {{\n{1}\n  ret void\n}}\n"


def host() -> jit._Host:
    assert jit.available() and jit._Process.host is not None
    return jit._Process.host


@pytest.fixture
def engine(tmp_path: Path) -> jit.Engine:
    """An engine of its own with an empty disk cache."""
    return jit.Engine(host(), KernelCache(tmp_path / "kernels", host().stamp()))


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = threads.get_num_threads()
    yield
    threads.set_num_threads(before)


def answer(value: int, name: str = "f") -> str:
    """Text of a function without arguments that returns a number."""
    return f"define i64 @{name}() {{\n  ret i64 {value}\n}}\n"


def call(address: int) -> int:
    return ctypes.CFUNCTYPE(ctypes.c_int64)(address)()


def test_a_kernel_runs(engine: jit.Engine) -> None:
    body = """  %pp = getelementptr i64, ptr %args, i64 0
  %p = load ptr, ptr %pp
  %x = load <4 x float>, ptr %p, align 4
  %y = fmul <4 x float> %x, %x
  store <4 x float> %y, ptr %p, align 4"""
    address = engine.functions({"square": KERNEL.format("square", body)})["square"]
    data = np.arange(4, dtype=np.float32)
    args = np.array([data.ctypes.data], dtype=np.int64)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(address)(args.ctypes.data, 0, 1)
    assert data.tolist() == [0, 1, 4, 9]


@pytest.mark.parametrize("text,arguments,want", [
    ("declare float @expf(float)\ndefine float @f(float %x) {\n %y = call float @expf(float %x)\n ret float %y\n}", (1.0,), np.e),
    ("declare double @lgamma(double)\ndefine double @f(double %x) {\n %y = call double @lgamma(double %x)\n ret double %y\n}",
     (4.0,), np.log(6)),
    ("declare float @llvm.pow.f32(float, float)\ndefine float @f(float %x) {\n %y = call float @llvm.pow.f32(float %x, float 3.0)\n"
     " ret float %y\n}", (2.0,), 8),
    ("define float @f(float %x) {\n %y = frem float %x, 0.75\n ret float %y\n}", (2.0,), 0.5),
    ("declare double @llvm.sin.f64(double)\ndefine double @f(double %x) {\n %y = call double @llvm.sin.f64(double %x)\n"
     " ret double %y\n}", (1.0,), np.sin(1.0)),
])
def test_the_c_library_is_found(engine: jit.Engine, text: str, arguments: tuple[float, ...], want: float) -> None:
    kind = ctypes.c_float if "define float" in text else ctypes.c_double
    f = ctypes.CFUNCTYPE(kind, kind)(engine.functions({"f": text})["f"])
    assert f(*arguments) == pytest.approx(want, rel=1e-6)


def test_memory_functions_are_found(engine: jit.Engine) -> None:
    text = """declare ptr @memcpy(ptr, ptr, i64)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
define i64 @f(ptr %d, ptr %s, i64 %n) {
  call void @llvm.memset.p0.i64(ptr %d, i8 7, i64 %n, i1 false)
  %half = lshr i64 %n, 1
  %r = call ptr @memcpy(ptr %d, ptr %s, i64 %half)
  ret i64 %n
}"""
    d, s = ctypes.create_string_buffer(1000), ctypes.create_string_buffer(b"x" * 1000, 1000)
    ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(engine.functions({"f": text})["f"])(d, s, 1000)
    assert d.raw == b"x" * 500 + b"\7" * 500


def test_helpers_of_one_name_do_not_clash(engine: jit.Engine) -> None:
    """Each text's helpers are its own, also if it forgot to say so."""
    modules = {f"k{k}": f"define i64 @helper() noinline {{\n  ret i64 {k}\n}}\n@data = global i64 {k}\n"
               f"define i64 @k{k}() {{\n  %a = call i64 @helper()\n  %b = load i64, ptr @data\n  %c = mul i64 %b, 10\n"
               "  %d = add i64 %a, %c\n  ret i64 %d\n}" for k in range(4)}
    addresses = engine.functions(modules)
    assert [call(addresses[f"k{k}"]) for k in range(4)] == [0, 11, 22, 33]


def test_loaded_kernels_are_kept(engine: jit.Engine) -> None:
    first = engine.functions({"f": answer(1)})
    assert engine.functions({"f": answer(1)}) == first
    assert engine.compiled == 1
    other = engine.functions({"f": answer(2)})  # the same name with another text is another kernel
    assert (call(first["f"]), call(other["f"])) == (1, 2)


def test_several_functions_of_one_text(engine: jit.Engine) -> None:
    text = "@c = internal global i64 0\ndefine void @set(i64 %x) {\n  store i64 %x, ptr @c\n  ret void\n}\n" \
           "define i64 @get() {\n  %x = load i64, ptr @c\n  ret i64 %x\n}\n"
    found = engine.library(text, ("set", "get"))
    ctypes.CFUNCTYPE(None, ctypes.c_int64)(found["set"])(42)
    assert call(found["get"]) == 42


@pytest.mark.parametrize("text,what", [
    ("define void @bad() { garbage }", "expected instruction opcode"),
    ("define void @bad() {\n  %x = add i32 %y, 1\n  %y = add i32 %x, 1\n  ret void\n}", "dominate"),
    ("define void @other() {\n  ret void\n}", "does not define bad"),
    ("declare void @bad()", "does not define bad"),
    ("declare void @no_such_thing()\ndefine void @bad() {\n  call void @no_such_thing()\n  ret void\n}", "no_such_thing"),
    ("", "does not define bad"),
])
def test_errors_name_the_kernel(engine: jit.Engine, text: str, what: str) -> None:
    with pytest.raises(CompileError, match=what) as error:
        engine.functions({"good": answer(5, "good"), "bad": text, "fine": answer(6, "fine")})
    assert "kernel bad" in str(error.value)
    before = engine.compiled
    assert call(engine.functions({"good": answer(5, "good")})["good"]) == 5
    assert engine.compiled == before == 2  # the others were kept
    with pytest.raises(CompileError, match="kernel bad"):
        engine.functions({"bad": text})


def test_disk_cache(tmp_path: Path) -> None:
    def fresh() -> jit.Engine:
        return jit.Engine(host(), KernelCache(tmp_path, host().stamp()))
    modules = {f"f{k}": answer(k, f"f{k}") for k in range(5)}
    one = fresh()
    one.functions(modules)
    two = fresh()
    base = two.reloaded  # an engine may load functions of its own
    found = two.functions(modules)
    assert [call(found[f"f{k}"]) for k in range(5)] == list(range(5))
    assert (two.reloaded - base, two.compiled) == (5, 0)
    entries = sorted(tmp_path.glob("*.obj"))
    entries[0].write_bytes(entries[0].read_bytes()[:-3])
    three = fresh()
    found = three.functions(modules)
    assert [call(found[f"f{k}"]) for k in range(5)] == list(range(5))
    assert three.compiled == 1
    assert fresh().functions(modules).keys() == modules.keys()


def test_an_entry_that_does_not_load_is_built_anew(tmp_path: Path) -> None:
    """A whole entry with the wrong object: one that lacks the symbol, one that is no object at all."""
    cache = KernelCache(tmp_path, host().stamp())
    wrong = jit._compile(host().llvm, host().machine(), ("g",), answer(1, "g"))
    for k, payload in enumerate((wrong, b"no object", b"")):
        text = answer(100 + k)
        cache.put(cache.key(f"f\0{text}"), payload)
        engine = jit.Engine(host(), cache)
        base = engine.compiled
        assert call(engine.functions({"f": text})["f"]) == 100 + k
        assert engine.compiled - base == 1
        again = jit.Engine(host(), cache)
        assert call(again.functions({"f": text})["f"]) == 100 + k and again.compiled == 0


def test_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_NO_CACHE", "1")
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "kernels"))
    engine = jit.Engine(host())
    assert call(engine.functions({"f": answer(7)})["f"]) == 7
    assert not (tmp_path / "kernels").exists()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_parallel_compilation(engine: jit.Engine, count: int) -> None:
    threads.set_num_threads(count)
    modules = {f"f{k}": answer(k * k, f"f{k}") for k in range(40)}
    found = engine.functions(modules)
    assert [call(found[f"f{k}"]) for k in range(40)] == [k * k for k in range(40)]
    assert engine.compiled >= 40


def test_callers_in_several_threads(engine: jit.Engine) -> None:
    wrong: list[object] = []

    def work(seed: int) -> None:
        for k in range(30):
            names = [f"f{(seed * 3 + k + j) % 40}" for j in range(4)]
            found = engine.functions({name: answer(int(name[1:]) + 7, name) for name in names})
            wrong.extend(name for name in names if call(found[name]) != int(name[1:]) + 7)
    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong and engine.compiled == 40


def test_vector_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAPHC_VECTOR_BITS", raising=False)
    bits = jit.vector_bits()
    assert bits in (128, 256, 512)
    assert (bits >= 256) == bool(jit.features().get("avx2"))
    for forced in (128, 256, 512):
        monkeypatch.setenv("GRAPHC_VECTOR_BITS", str(forced))
        assert jit.vector_bits() == forced
    monkeypatch.setenv("GRAPHC_VECTOR_BITS", "64")
    with pytest.raises(CompileError, match="128, 256 or 512"):
        jit.vector_bits()


def test_without_llvmlite() -> None:
    code = """import sys
sys.modules["llvmlite"] = None
from graphc.errors import CompileError
from graphc.runtime import jit, pool
assert not jit.available() and "not installed" in jit.reason(), jit.reason()
for call in (jit.engine, jit.vector_bits, lambda: pool.run(0)):
    try:
        call()
    except CompileError as error:
        assert "not installed" in str(error)
    else:
        raise SystemExit("no error")
"""
    run = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": ROOT, "GRAPHC_VECTOR_BITS": ""},
                         capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_during_compilation_compiles(engine: jit.Engine) -> None:
    """Code loaded before the fork runs in the child, and the child compiles, whatever other threads were at."""
    loaded = engine.functions({"before": answer(3, "before")})["before"]
    stop = threading.Event()

    def busy() -> None:
        k = 0
        while not stop.is_set():
            k += 1
            engine.functions({f"b{k}": answer(k, f"b{k}")})
    worker = threading.Thread(target=busy)
    worker.start()
    try:
        for k in range(8):
            time.sleep(0.003 * k)
            pid = os.fork()
            if pid == 0:
                good = call(loaded) == 3 and call(engine.functions({f"c{k}": answer(k, f"c{k}")})[f"c{k}"]) == k
                os._exit(0 if good else 1)
            deadline = time.time() + 30
            while True:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    break
                if time.time() > deadline:
                    os.kill(pid, 9)
                    os.waitpid(pid, 0)
                    pytest.fail("the child hangs")
                time.sleep(0.002)
            assert status == 0
    finally:
        stop.set()
        worker.join()


@pytest.mark.skipif(not jit.triple().startswith("x86_64"), reason="x86 only")
def test_bfloat16_without_instructions_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On CPUs without AVX512-BF16 LLVM calls a function for the rounding; ours rounds once, to nearest even."""
    if not jit.features().get("avx2"):
        pytest.skip("needs AVX2 to run Haswell's code")
    old = jit._Host()
    old.cpu, old.feature_text, old.features = "haswell", "", {}
    engine = jit.Engine(old, KernelCache(tmp_path, old.stamp()))
    rng = np.random.default_rng(0)
    singles = np.concatenate([rng.integers(0, 2 ** 32, 20000, dtype=np.uint32).view(np.float32),
                              np.array([0, -0.0, 1, np.inf, -np.inf, np.nan, 3.3895314e38, 3.4e38, 1e-45, 1.00390625,
                                        1.01171875], np.float32)])
    ties = (rng.integers(128, 256, 2000) + 0.5) * 2.0 ** rng.integers(-140, 120, 2000)
    with np.errstate(invalid="ignore"):
        wide = singles.astype(np.float64)
    doubles = np.concatenate([wide, rng.standard_normal(5000), ties, ties * (1 + 2.0 ** -40), ties * (1 - 2.0 ** -40), [1 + 2 ** -8 + 2 ** -40, 1 + 2 ** -8 - 2 ** -40, 1e300, -1e300, 1e-300,
                                                          1 + 2 ** -8, 1 + 3 * 2 ** -8]])
    for name, values in (("float", singles), ("double", doubles)):
        text = f"""define void @f(ptr %out, ptr %in, i64 %n) {{
entry:
  br label %head
head:
  %i = phi i64 [0, %entry], [%next, %body]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %body, label %done
body:
  %p = getelementptr {name}, ptr %in, i64 %i
  %x = load {name}, ptr %p
  %y = fptrunc {name} %x to bfloat
  %q = getelementptr bfloat, ptr %out, i64 %i
  store bfloat %y, ptr %q
  %next = add i64 %i, 1
  br label %head
done:
  ret void
}}"""
        got = np.zeros(len(values), np.uint16)
        ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(engine.functions({"f": text})["f"])(
            got.ctypes.data, values.ctypes.data, len(values))
        want = np.array([nearest_bfloat16(float(v)) for v in values], np.uint16)
        nan = np.isnan(values)
        assert np.array_equal(got[~nan], want[~nan])
        assert np.all((got[nan] & 0x7F80) == 0x7F80) and np.all(got[nan] & 0x7F)


def nearest_bfloat16(value: float) -> int:
    """Bits of the bfloat16 nearest to a number, ties to even, from exact arithmetic on neighbours."""
    if value != value:
        return 0x7FC0
    sign, size = (0x8000 if struct.pack(">d", value)[0] & 128 else 0), abs(value)
    if size == np.inf:
        return sign | 0x7F80
    step = 2.0 ** max(int(np.floor(np.log2(size))) - 7, -133) if size else 1.0
    if size and size / step >= 256:  # log2 rounded down across a power of two
        step *= 2
    rounded = round(size / step) * step  # exact: a division by a power of two; round() goes to even
    if rounded >= 2.0 ** 128:
        return sign | 0x7F80
    return sign | struct.unpack(">I", struct.pack(">f", rounded))[0] >> 16
