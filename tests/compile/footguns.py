"""Running one program eagerly, compiled, and in PyTorch, and comparing what it returns.

A *footgun* is a small program, ``program(torch, compile)``, that some other compiler answers wrongly without an error.
It compiles what it wants with ``compile`` and returns plain Python data (numbers, strings, lists, arrays).
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc

Program = Callable[[Any, Callable[..., Any]], Any]
PROGRAMS: dict[str, Program] = {}  # filled by @footgun
OWN: set[str] = set()  # programs PyTorch answers differently (its own random stream, graphc's own names)


def footgun(program: Program) -> Program:
    """Register a program that PyTorch's eager mode must answer equally."""
    PROGRAMS[program.__name__] = program
    return program


def own(program: Program) -> Program:
    """Register a program compared with eager graphc only."""
    OWN.add(program.__name__)
    return footgun(program)


def programs_of(module: str) -> list[str]:
    """Names of the programs a test file registered."""
    return [name for name, program in PROGRAMS.items() if program.__module__ == module]


def check(name: str) -> None:
    """Compiled, eager and PyTorch answer alike."""
    program = PROGRAMS[name]
    want = run_eager(program)
    assert want, "a program that returns nothing shows nothing"
    same(run_compiled(program), want)
    if name not in OWN:
        same(run_torch(program), want, "PyTorch", rtol=1e-4)


def never(fn: Any = None, **options: Any) -> Any:
    """Stands in for ``compile`` and changes nothing."""
    return fn if fn is not None else never


def same(got: Any, want: Any, where: str = "result", rtol: float = 1e-5) -> None:
    """Equal structure, equal integers, strings and flags, floats within ``rtol`` (absolute 1e-6)."""
    if isinstance(want, (list, tuple)):
        assert isinstance(got, (list, tuple)) and len(got) == len(want), f"{where}: {got} is not {want}"
        for i, (g, w) in enumerate(zip(got, want)):
            same(g, w, f"{where}[{i}]", rtol)
    elif isinstance(want, dict):
        assert list(got) == list(want), f"{where}: {got} is not {want}"
        for k in want:
            same(got[k], want[k], f"{where}[{k!r}]", rtol)
    elif isinstance(want, np.ndarray):
        assert got.dtype == want.dtype and got.shape == want.shape, f"{where}: {got} is not {want}"
        np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-6, err_msg=where)
    elif isinstance(want, float) and not isinstance(got, str):
        assert isinstance(got, float) and (math.isclose(got, want, rel_tol=rtol, abs_tol=1e-6) or got == want
                                           or got != got and want != want), f"{where}: {got!r} is not {want!r}"
    else:
        assert type(got) is type(want) and got == want, f"{where}: {got!r} is not {want!r}"


def run_eager(program: Program) -> Any:
    graphc.manual_seed(0)
    return program(graphc, never)


def run_compiled(program: Program, **options: Any) -> Any:
    graphc.manual_seed(0)
    return program(graphc, lambda fn=None, **kw: graphc.compile(fn, **{**options, **kw}))


def run_torch(program: Program) -> Any:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    return program(torch, never)


def small_net(torch, *middle):
    """A linear model with fixed weights (PyTorch's and graphc's random streams differ)."""
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), *middle, torch.nn.Tanh(), torch.nn.Linear(4, 2))
    with torch.no_grad():
        for k, p in enumerate(net.parameters()):
            p.copy_((torch.arange(float(p.numel())).reshape(p.shape) * 0.7 + k).sin() * 0.5)
    return net


def batch(torch, k=0, n=4):
    x = (torch.arange(float(n * 3)).reshape(n, 3) + k).cos()
    return x, (x * 3).sum(1).abs().to(torch.int64) % 2


def params(net):
    return [p.detach().tolist() for p in net.parameters()]
