"""What can go wrong below the user's program, and what they are told: a kernel that cannot be built, a cache that cannot be
written, memory that is not there, an index out of range in the middle of a plan."""
from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness
import numpy as np
import programs
import pytest

import graphc
from graphc import config
from graphc.codegen import plan as plan_module
from graphc.codegen.native import opcodes, printed, program
from graphc.dtypes import float32
from graphc.errors import CompileError, IndexOutOfRangeError, OutOfMemoryError
from graphc.ir import recorder
from graphc.runtime import jit, memory

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _programs_are_new(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No plan of another test is found here, and none of these is found elsewhere."""
    if not jit.available():
        pytest.skip(jit.reason())
    recorder.flush()
    with monkeypatch.context() as patch:
        patch.setattr("graphc.ir.flush.PLANS", {})
        patch.setattr(recorder._Trie, "root", recorder.Node(None, (), (), (), (), 0))
        recorder.state.region = recorder.Region()
        yield
        recorder.flush()
    recorder.state.region = recorder.Region()


def data(*shape: int) -> Any:
    return graphc.tensor(np.random.default_rng(1).standard_normal(shape).astype(np.float32))


def here() -> int:
    """The caller's line."""
    return sys._getframe(1).f_lineno


# ------------------------------------------------------------------------------------------------- kernels that do not build
def unknown_opcode(monkeypatch: pytest.MonkeyPatch, op: str) -> None:
    """The printer does not know an opcode."""
    real = opcodes.emit

    def emit(f: Any, name: str, *rest: Any) -> str:
        if name == op:
            raise NotImplementedError(name)
        return real(f, name, *rest)

    monkeypatch.setattr(opcodes, "emit", emit)


def refused_by_llvm(monkeypatch: pytest.MonkeyPatch, op: str) -> None:
    """The text of kernels with an opcode is not LLVM IR."""
    real = printed.print_kernel

    def broken(k: Any, bits: int) -> Any:
        p = real(k, bits)
        if not any(s.op == op for s in k.stmts):
            return p
        return p.__class__(p.symbol, p.text.replace("ret void", "ret i128 %nowhere"), p.numbers, p.scratch, p.checks, p.work)

    monkeypatch.setattr(printed, "print_kernel", broken)


@pytest.mark.parametrize("break_it", [unknown_opcode, refused_by_llvm])
def test_one_warning_then_numpy(break_it: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The warning names the kernel and the user's line; results are NumPy's; the same program does not warn again."""
    break_it(monkeypatch, "tanh")
    x = data(90, 70)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            y, line = (x * 2).tanh(), here()
            got = y.numpy()
    told = [str(w.message) for w in caught]
    assert len(told) == 1, told
    assert re.search(r"kernel \w*tanh", told[0]) and f"test_failures.py:{line}" in told[0], told[0]
    assert "NumPy instead" in told[0] and "GRAPHC_STRICT" in told[0]
    np.testing.assert_allclose(got, np.tanh(x.numpy() * 2), rtol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal((x * 3).numpy(), x.numpy() * 3)  # others stay native and quiet


@pytest.mark.parametrize("break_it", [unknown_opcode, refused_by_llvm])
def test_strict_makes_it_an_error(break_it: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    break_it(monkeypatch, "tanh")
    config.STRICT = True
    x = data(91, 70)
    y, line = (x * 2).tanh(), here()
    with pytest.raises(CompileError, match=r"kernel \w*tanh") as error:
        y.numpy()
    assert f"test_failures.py:{line}" in str(error.value)
    assert (x + 1).sum().item() == pytest.approx(float((x.numpy() + 1).sum()), rel=1e-4)  # the session goes on


def test_internal_error_of_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of ours in the back end costs speed and a warning, not the program."""
    def broken(k: Any, bits: int) -> Any:
        raise KeyError(2)

    monkeypatch.setattr(printed, "print_kernel", broken)
    x = data(92, 70)
    with pytest.warns(UserWarning, match="NumPy instead"):
        got = (x * 2).tanh().numpy()
    np.testing.assert_allclose(got, np.tanh(x.numpy() * 2), rtol=1e-5)
    config.STRICT = True
    with pytest.raises(CompileError):
        (x * 2).cos().numpy()


def test_a_strict_error_is_raised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The in-place step whose kernel cannot be built: one error, then the interpreter's value, never half of it."""
    unknown_opcode(monkeypatch, "sinh")
    config.STRICT = True
    x = data(93, 70)
    want = np.array(x.detach().clone().numpy())
    want += np.sinh(want)
    x.add_(x.sinh())
    with pytest.raises(CompileError, match="sinh"):
        x.numpy()
    np.testing.assert_allclose(x.numpy(), want, rtol=1e-5)


# ---------------------------------------------------------------------------------------------------------- other processes
def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own."""
    full = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **env}
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=full, capture_output=True, text=True, timeout=120)


STEP = """
    import numpy as np
    import graphc
    x = graphc.tensor(np.linspace(-1, 1, 6400, dtype=np.float32).reshape(80, 80))
    for _ in range(3):
        got = (x.exp() * 2).sum(1).numpy()
        again = (x.cos() * 3).numpy()
    np.testing.assert_allclose(got, (np.exp(x.numpy()) * 2).sum(1), rtol=1e-5)
    print("right")
"""


def test_cache_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """A file where the folder should be: one notice on stderr, right results."""
    (tmp_path / "taken").write_text("not a folder")
    out = python(STEP, GRAPHC_CACHE_DIR=str(tmp_path / "taken" / "kernels"))
    assert out.returncode == 0 and out.stdout == "right\n", out.stderr
    assert out.stderr.count("kernels are not kept on disk") == 1 and str(tmp_path / "taken") in out.stderr, out.stderr
    silent = python(STEP, GRAPHC_CACHE_DIR=str(tmp_path / "taken" / "kernels"), GRAPHC_NO_CACHE="1")
    assert silent.returncode == 0 and silent.stderr == "", silent.stderr


def test_damaged_cache_entries(tmp_path: Path) -> None:
    """Every entry cut short or altered between two runs: noticed, built anew, right results."""
    assert python(STEP, GRAPHC_CACHE_DIR=str(tmp_path)).stdout == "right\n"
    entries = sorted(tmp_path.glob("*.obj"))
    assert len(entries) >= 2
    good = {e: e.read_bytes() for e in entries}
    for k, e in enumerate(entries):
        raw = bytearray(good[e])
        raw[-1] ^= 255
        e.write_bytes(bytes(raw) if k % 2 else raw[:len(raw) // 2])
    out = python(STEP, GRAPHC_CACHE_DIR=str(tmp_path))
    assert out.returncode == 0 and out.stdout == "right\n", out.stderr
    assert all(e.read_bytes() == good[e] for e in entries)  # compiled to the same bytes


def test_without_llvmlite() -> None:
    """One line of notice, then NumPy."""
    blocked = """
    import sys
    sys.modules["llvmlite"] = None
    """
    out = python(textwrap.dedent(blocked) + textwrap.dedent(STEP))
    assert out.returncode == 0 and out.stdout == "right\n", out.stderr
    assert out.stderr.count("graphc runs on NumPy") == 1 and "pip install" in out.stderr, out.stderr


def test_unknown_vector_width() -> None:
    out = python(STEP, GRAPHC_VECTOR_BITS="384")
    assert "GRAPHC_VECTOR_BITS=384" in out.stderr


# ------------------------------------------------------------------------------------------------------------------- memory
TOO_MANY = 1 << 30  # rows of 4,096 float32: 16 TiB


def test_out_of_memory_for_a_result() -> None:
    """Names the size of the tensor and what the plan needs; nothing is lost and the next program runs."""
    x = data(4096)
    memory.empty_cache()  # which running out of memory does, too
    held = memory._Pool.used
    with pytest.raises(OutOfMemoryError) as error:
        (x.reshape(1, 4096).expand(TOO_MANY, 4096) * 2).numpy()
    text = str(error.value)
    assert "16,777,216.0 MiB" in text and f"[{TOO_MANY}, 4096]" in text and "results of this plan need" in text, text
    assert f"{held / 2**20:,.1f} MiB are held" in text, text
    assert memory._Pool.used == held
    np.testing.assert_array_equal((x * 2).numpy(), x.numpy() * 2)


def test_out_of_memory_for_intermediates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names the plan's peak and its largest intermediates."""
    monkeypatch.setattr(config, "BYTE_CAP", 1 << 60)  # one plan
    x = data(4096)
    with pytest.raises(OutOfMemoryError) as error:
        x.reshape(1, 4096).expand(TOO_MANY, 4096).exp().cumsum(1).cumsum(0).sum().item()
    text = str(error.value)
    assert re.search(r"intermediates of this plan need [\d,.]+ MiB at once", text), text
    assert f"f32[{TOO_MANY},4096] (16,777,216.0 MiB)" in text, text
    assert isinstance(error.value, RuntimeError)
    np.testing.assert_array_equal((x * 2).numpy(), x.numpy() * 2)


def test_arena_that_cannot_grow_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed plan a smaller one gets its arena: the old one was not lost for good."""
    p = programs.grow(50_003, nodes=(20, 30))
    bindings = harness.bindings_of(p.graph, p.arrays)
    native = harness.native(p.graph)
    want = native(bindings)
    big = memory._raw

    def refuse(nbytes: int, *rest: Any) -> np.ndarray:
        raise OutOfMemoryError("out of memory: none left")

    memory._Pool.arena = np.empty(0, np.uint8)
    monkeypatch.setattr(memory, "_raw", refuse)
    if native.arena_bytes:
        with pytest.raises(OutOfMemoryError, match="none left"):
            native(bindings)
    monkeypatch.setattr(memory, "_raw", big)
    harness.same_bits(want, native(bindings), "after the failure")


# ---------------------------------------------------------------------------------------------------- errors inside a plan
def test_bad_index_in_a_plan_names_the_line_and_changes_nothing() -> None:
    """The error is the interpreter's, at the user's line; the in-place update of the same plan did not happen."""
    x, w = data(70, 80), data(70, 80)
    kept = np.array(w.detach().clone().numpy())
    i = graphc.tensor([0, 69, 70])
    w.mul_(3)
    y, line = x[i], here()
    w.add_(y.sum())
    with pytest.raises(IndexError) as error:
        w.numpy()
    assert isinstance(error.value, IndexOutOfRangeError) or "index" in str(error.value)
    assert f"test_failures.py:{line}" in str(error.value) + "".join(getattr(error.value, "__notes__", [])), repr(error.value)
    with pytest.raises(IndexError):
        y.numpy()
    np.testing.assert_array_equal(x.numpy(), x.numpy())
    assert np.array_equal(w.numpy(), kept * 3) or np.array_equal(w.numpy(), kept)


def test_the_backend_switch() -> None:
    """GRAPHC_BACKEND decides; an unknown name is not silently something else."""
    g = programs.Grower(0, (40,), (float32,))
    g.leaf((40, 50), float32)
    graph = g.b.graph((g.emit("exp", (0,)),))
    for name, native in (("native", True), ("numpy", False)):
        config.BACKEND = name
        assert isinstance(plan_module.Plan(graph, graph).run, program.Program) is native
