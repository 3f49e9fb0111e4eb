"""Objects whose end computes something: the garbage collector may call it at any moment of recording."""
from __future__ import annotations

import gc
import random
from typing import Any

import numpy as np
import pytest

import graphc as torch

STEPS = 120


class Program:
    """A training loop over batches of several sizes. With ``dirty``, objects die in cycles all the time, each of which does
    ``what`` at its end."""

    def __init__(self, mode: str, what: str, dirty: bool):
        self.what, self.dirty, self.deaths, self.sum = what, dirty, 0, torch.zeros(3)
        self.w = torch.full((8, 8), 0.1).requires_grad_()
        self.b = torch.zeros(8).requires_grad_()
        self.optimizer = torch.optim.Adam([self.w, self.b], lr=0.01)
        self.step = self.train if mode == "eager" else torch.compile(self.train, mode=mode)

    def train(self, x: Any) -> Any:
        self.optimizer.zero_grad()
        y = (x @ self.w + self.b).tanh()
        loss = (y * y).mean() + self.w.sum() * x.shape[0] * 0.01
        loss.backward()
        self.optimizer.step()
        return loss

    def die(self) -> None:
        self.deaths += 1
        if self.what == "free":
            torch.ones(3).mul_(2).add_(self.sum)
            return
        self.sum.add_(torch.ones(3) if self.what == "leaf" else 1)
        if self.what == "read":
            self.sum.tolist()

    def run(self) -> np.ndarray:
        program = self

        class Mortal:
            def __init__(self) -> None:
                self.me = self

            def __del__(self) -> None:
                program.die()

        sizes, whims, out = random.Random(1), random.Random(2), []
        for i in range(STEPS):
            if self.dirty:
                for _ in range(whims.randrange(4)):
                    Mortal()
                gc.set_threshold(whims.randrange(3, 60))
            loss = self.step(torch.ones(sizes.randrange(2, 9) if i % 3 else 4, 8) * (i % 5))
            if i % 4 == 0:
                out.append(loss.item())
        return np.array([*out, *self.w.flatten().tolist(), *self.b.tolist()])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("mode", ["eager", "default", "replay"])
@pytest.mark.parametrize("what", ["record", "leaf", "read", "free"])
def test_ends_that_compute_change_nothing(mode: str, what: str) -> None:
    before = gc.get_threshold()
    clean = Program(mode, what, False).run()
    dirty = Program(mode, what, True)
    try:
        assert np.array_equal(dirty.run(), clean)
    finally:
        gc.set_threshold(*before)
    assert dirty.deaths
    if what != "free":
        assert dirty.sum.tolist() == [dirty.deaths] * 3
