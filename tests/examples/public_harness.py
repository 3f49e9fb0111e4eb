"""Runs a program written for PyTorch under either framework and compares what it returns and prints."""
from __future__ import annotations

import contextlib
import importlib
import io
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Program = Callable[[Any], list[Any]]
NUMBER = re.compile(r"(?<![A-Za-z_])[-+]?(?:\d+\.\d*(?:e[-+]?\d+)?|\d+(?:e[-+]?\d+)?|nan|inf)")


class Framework:
    """A module that looks like ``torch``: random numbers come from NumPy, alike in both frameworks, and ``compile`` means
    what ``mode`` says: nothing ("eager"), the compiler ("compile") or the compiler that skips Python ("replay")."""

    def __init__(self, name: str, mode: str):
        self._m: Any = importlib.import_module(name)
        self._mode, self._r = mode, np.random.default_rng(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._m, name)

    def _made(self, a: np.ndarray, dtype: Any = None, device: Any = None, requires_grad: bool = False, **_: Any) -> Any:
        t = self._m.from_numpy(np.asarray(a))
        t = t if dtype is None else t.to(dtype)
        return t.requires_grad_() if requires_grad else t

    def randn(self, *size: Any, **kwargs: Any) -> Any:
        return self._made(self._r.standard_normal(size[0] if size and isinstance(size[0], tuple) else size, np.float32), **kwargs)

    def rand(self, *size: int, **kwargs: Any) -> Any:
        return self._made(self._r.random(size, np.float32), **kwargs)

    def randint(self, low: int, high: int, size: Any, **kwargs: Any) -> Any:
        return self._made(self._r.integers(low, high, tuple(size)), **kwargs)

    def compile(self, f: Callable[..., Any]) -> Callable[..., Any]:
        if self._mode == "eager":
            return f
        compiled: Callable[..., Any] = self._m.compile(f, **({"mode": "replay"} if self._mode == "replay" else {}))
        return compiled

    def fill(self, *nets: Any) -> Any:
        """Weights from NumPy, the same in both frameworks; gives the (first) network back."""
        r = np.random.default_rng(1)
        with self._m.no_grad():
            for net in nets:
                for name, p in net.named_parameters():
                    shape = tuple(p.shape)
                    bound = 1 / np.sqrt(max(1, int(np.prod(shape[1:])))) if len(shape) > 1 else 0.05
                    norm = p.ndim == 1 and name.endswith("weight")
                    p.copy_(self._m.from_numpy(np.asarray(r.uniform(-bound, bound, shape) + norm, np.float32)))
        return nets[0]


class Outcome(NamedTuple):
    """What a program returned, flat (tensors as a line about them and their numbers), and what it printed."""

    values: list[Any]
    text: str


def _flat(x: Any, m: Any) -> list[Any]:
    if isinstance(x, (list, tuple)):
        return [y for v in x for y in _flat(v, m)]
    if isinstance(x, dict):
        return [y for k, v in x.items() for y in [str(k), *_flat(v, m)]]
    if isinstance(x, m.Tensor):
        return [f"{tuple(x.shape)} {x.dtype} {x.requires_grad}", np.array(x.detach().numpy())]
    return [x]


def execute(program: Program, framework: str, mode: str = "eager") -> Outcome:
    m = Framework(framework, mode)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        values = _flat(program(m), m)
    return Outcome(values, out.getvalue().replace("graphc.", "torch."))


def _close(a: Any, b: Any, rtol: float) -> bool:
    if not isinstance(a, (int, float, complex, np.ndarray, np.generic)):
        return type(a) is type(b) and a == b
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and np.allclose(a, b, rtol=rtol, atol=1e-5, equal_nan=True)


def same_text(a: str, b: str, rtol: float) -> bool:
    """Whether two texts are alike: numbers nearly, everything else exactly."""
    x, y = [[float(v) for v in NUMBER.findall(t)] for t in (a, b)]
    return NUMBER.sub("#", a) == NUMBER.sub("#", b) and bool(np.allclose(x, y, rtol=rtol, atol=2e-4, equal_nan=True))


def differences(ours: Outcome, reference: Outcome, rtol: float) -> list[str]:
    """What is not alike, in words."""
    found = [f"value {k}: {a!r} instead of {b!r}" for k, (a, b) in enumerate(zip(ours.values, reference.values))
             if type(a) is not type(b) or not _close(a, b, rtol)]
    if len(ours.values) != len(reference.values):
        found.append(f"{len(ours.values)} values instead of {len(reference.values)}")
    lines, wanted = ours.text.splitlines(), reference.text.splitlines()
    found += [f"printed {a!r} instead of {b!r}" for a, b in zip(lines, wanted) if not same_text(a, b, max(rtol, 2e-4))]
    return found if len(lines) == len(wanted) else [*found, f"{len(lines)} lines instead of {len(wanted)}"]
