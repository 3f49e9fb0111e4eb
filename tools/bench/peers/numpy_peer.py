"""The small MLP by hand in NumPy: the least a Python program can do, preallocated where it helps."""
from __future__ import annotations

from typing import Any

import numpy as np
from workloads import Arrays, Workload


class Program:
    """784-64-10 with SGD; the interface is that of ``torchlike.TorchLike``."""

    def __init__(self, w: Workload, c: dict[str, Any], a: Arrays) -> None:
        self.p = [a[f"p.l{i}.{k}"].copy() for i in range(2) for k in ("weight", "bias")]
        self.lr = np.float32(w.optimizer[1]["lr"])
        self.inputs = [a["x"].copy(), a["y"].copy()]
        self.grad = [np.empty_like(q) for q in self.p]

    def place(self, x: np.ndarray) -> np.ndarray:
        return x

    def step(self, x: np.ndarray, y: np.ndarray) -> Any:
        w0, b0, w1, b1 = self.p
        g0, h0, g1, h1 = self.grad
        n, rows = len(x), np.arange(len(x))
        h = np.maximum(x @ w0.T + b0, 0)
        z = h @ w1.T + b1
        z -= z.max(1, keepdims=True)
        e = np.exp(z)
        total = e.sum(1, keepdims=True)
        loss = np.mean(np.log(total[:, 0]) - z[rows, y])
        e /= total
        e[rows, y] -= 1
        e /= n
        np.matmul(e.T, h, out=g1)
        np.sum(e, 0, out=h1)
        d = e @ w1
        d *= h > 0
        np.matmul(d.T, x, out=g0)
        np.sum(d, 0, out=h0)
        for q, g in zip(self.p, self.grad):
            g *= self.lr
            q -= g
        return loss

    def wait(self, out: Any) -> None:
        """NumPy has finished when it returns."""

    def values(self, out: Any) -> list[Any]:
        return [np.asarray(out)]
