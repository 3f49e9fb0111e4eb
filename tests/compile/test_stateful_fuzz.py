"""1,000 random stateful programs: compiled = eager, bit-equal in integers and random bits, within 1e-5 in floats (or
1e-6 of the largest element, where sums cancel).

A program by its number: ``python tests/compile/test_stateful_fuzz.py 17`` prints it and runs it both ways.
"""
from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np
import pytest
from stateful import World, source

import graphc
from graphc import config
from graphc.compile import replay as compile_replay
from graphc.ir import recorder
from graphc.ir.node import Node

pytestmark = pytest.mark.filterwarnings("ignore")
BLOCK, BLOCKS, CALLS = 100, 10, 5
PATIENT = {"recompile_limit": 10**9}


def differs(got: Any, want: Any, where: str = "log", rtol: float = 1e-5) -> str:
    """Where two logs first differ, or ''."""
    if isinstance(want, (list, tuple)):
        if not isinstance(got, (list, tuple)) or len(got) != len(want):
            return f"{where}: {got} is not {want}"
        return next((d for i, (g, w) in enumerate(zip(got, want)) if (d := differs(g, w, f"{where}[{i}]", rtol))), "")
    if isinstance(want, np.ndarray):
        if not isinstance(got, np.ndarray) or got.dtype != want.dtype or got.shape != want.shape:
            return f"{where}: {got} is not {want}"
        if want.dtype.kind == "f":
            scale = max(1.0, float(np.abs(want, where=np.isfinite(want), out=np.zeros_like(want)).max(initial=0)))
            same = np.allclose(got, want, rtol, 0.1 * rtol * scale, equal_nan=True)
        else:
            same = np.array_equal(got, want)
        return "" if same else f"{where}: {got} is not {want}"
    return "" if type(got) is type(want) and got == want else f"{where}: {got} is not {want}"


def compiled(seed: int) -> list[Any]:
    return World(graphc, lambda fn: graphc.compile(fn, options=PATIENT), seed).run(CALLS)


def check(seed: int) -> bool:
    """Run both ways; whether the eager run saw no error but Stop. AssertionError with the program's text if they differ."""
    want = World(graphc, lambda fn: fn, seed).run(CALLS)
    found = differs(compiled(seed), want)
    assert not found, f"program {seed}: {found}\n{source(seed)}"
    return not any(isinstance(x, tuple) and isinstance(x[0], str) and x[0] != "Stop" for x in want)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_compiled_is_eager(block: int) -> None:
    clean = [check(seed) for seed in range(block * BLOCK, block * BLOCK + BLOCK)]
    assert sum(clean) > 0.9 * BLOCK, "most programs must run without errors to show anything"


def test_a_frozen_hyper_parameter_is_found() -> None:
    """What a compiler does that takes Python numbers for constants."""

    def frozen(fn):
        first = {}
        return lambda x, v, k, hp: fn(x, v, k, first.setdefault("hp", hp))

    found = [bool(differs(World(graphc, frozen, n).run(CALLS), World(graphc, lambda fn: fn, n).run(CALLS))) for n in range(20)]
    assert sum(found) > 5


@pytest.mark.parametrize("rows", [3, 301])
def test_native_compiled_is_eager_on_numpy(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with compiled programs on the native back end, eager ones on NumPy, and plans not shared between them."""
    pytest.importorskip("llvmlite")

    def forget() -> None:
        recorder.PLANS.clear()
        recorder._Trie.root = Node(None, (), (), (), (), 0)

    for seed in range(5000, 5012):
        monkeypatch.setattr(config, "BACKEND", "numpy")
        want = World(graphc, lambda fn: fn, seed, rows=rows).run(3)
        monkeypatch.setattr(config, "BACKEND", "native")
        forget()
        found = differs(World(graphc, lambda fn: graphc.compile(fn, options=PATIENT), seed, rows=rows).run(3), want)
        forget()
        assert not found, f"program {seed}: {found}\n{source(seed)}"


def test_compiled_is_pytorch() -> None:
    """Programs that draw no random numbers, against PyTorch: what aliases what, which writes show where, dtypes, errors."""
    torch = pytest.importorskip("torch")

    class Plain(World):
        def stream(self) -> None:
            """PyTorch's random stream is another one."""

    undefined = {20155}  # writes S['q0'].T while reading a column of S['q0']: PyTorch's result depends on its order
    ran = 0
    for seed in [n for n in range(20000, 20240) if not re.search("rand|dropout|normal_|uniform_", source(n))]:
        if seed in undefined:
            continue
        want = Plain(torch, lambda fn: fn, seed).run(4)
        if any(isinstance(x, tuple) and isinstance(x[0], str) and x[0] != "Stop" for x in want):
            continue  # errors come at other lines there
        found = differs(Plain(graphc, graphc.compile, seed).run(4), want, "log", 1e-3)
        assert not found, f"program {seed}: {found}\n{source(seed)}"
        ran += 1
    assert ran > 30


@pytest.mark.parametrize("block", range(4))
def test_replayed_is_eager(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls in runs of six, so that there is something to replay; never stale, and no audit complains."""
    monkeypatch.setattr(compile_replay, "FIRST_AUDITS", 0)
    made: list[Any] = []

    def replay(fn):
        made.append(graphc.compile(fn, mode="replay", options={**PATIENT, "audit_every": 7}))
        return made[-1]

    for seed in range(block * 25, block * 25 + 25):
        want = World(graphc, lambda fn: fn, seed, fresh=True, share=False).run(3, 6)
        found = differs(World(graphc, replay, seed, fresh=True, share=False).run(3, 6), want)
        assert not found, f"program {seed}: {found}\n{source(seed)}"
    assert sum(f.explain().replayed for f in made) > 25


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(source(int(argument)))
        print("clean" if check(int(argument)) else "has errors")
