"""Random training programs whose world changes between steps, eager, compiled and replayed, against PyTorch.

A program by its number: ``python tests/compile/test_between_calls.py 17`` prints what happens in it.
"""
from __future__ import annotations

import copy
import random
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc

pytestmark = pytest.mark.filterwarnings("ignore")


class Stop(Exception):
    pass


class Seen:
    """What the step reaches."""

    def __init__(self, m: Any, opt: Any):
        self.m, self.opt, self.accumulate, self.fail = m, opt, False, 0


class World:
    """A model, its optimizer, and a step that sees nothing but ``seen``."""

    def __init__(self, torch: Any, compile: Callable[..., Any], seed: int):
        self.torch, self.rnd, self.np = torch, random.Random(seed), np.random.default_rng(seed)
        nn, r, optims = torch.nn, self.rnd, torch.optim
        self.size, self.rows = r.choice([8, 16, 33]), r.choice([4, 16, 33])
        norm = (nn.LayerNorm, nn.BatchNorm1d)[r.randrange(2)](self.size)

        class Model(nn.Module):
            def __init__(self, size: int):
                super().__init__()
                self.a, self.b, self.c, self.norm = nn.Linear(size, size), nn.Linear(size, size), nn.Linear(size, 5), norm
                self.scale, self.extra = 1.0, None

            def forward(self, x: Any) -> Any:
                h = self.norm(self.a(x)).tanh()
                h = h + self.b(h).relu() * self.scale
                return self.c(h if self.extra is None else h + self.extra)

        m = Model(self.size).double()
        with torch.no_grad():
            for p in m.parameters():
                p.copy_(torch.tensor(self.np.standard_normal(tuple(p.shape)) * 0.3))
        kind = r.randrange(4)
        make = [lambda p: optims.SGD(p, lr=0.05), lambda p: optims.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
                lambda p: optims.AdamW(p, lr=0.01, eps=1e-2), lambda p: optims.RMSprop(p, lr=0.005, eps=1e-2)][kind]
        groups = [{"params": list(m.a.parameters())}, {"params": list(m.b.parameters()) + [m.c.weight], "lr": 0.02}]
        self.seen = Seen(m, make(groups))
        self.kept: list[Any] = []
        self.arrays: list[Any] = []
        self.log: list[Any] = []
        seen, loss_of = self.seen, torch.nn.functional.mse_loss

        def step(x: Any, y: Any) -> Any:
            if not seen.accumulate:
                seen.opt.zero_grad()
            out = seen.m(x)
            loss = loss_of(out, y[:, :5])
            if seen.fail == 1:
                raise Stop
            loss.backward()
            if seen.fail == 2:
                raise Stop
            seen.opt.step()
            return loss.detach(), out.detach()

        self.step = compile(step)

    def floats(self, *shape: int) -> Any:
        return self.torch.tensor(self.np.standard_normal(shape))

    def parameter(self) -> Any:
        return self.rnd.choice(list(self.seen.m.parameters()))

    def replace(self) -> None:
        self.seen.m.b.weight = self.torch.nn.Parameter(self.seen.m.b.weight.detach() * 0.5)

    def groups_again(self) -> None:
        self.seen.opt.param_groups[:] = [dict(g) for g in self.seen.opt.param_groups]

    def under_no_grad(self) -> None:
        with self.torch.no_grad():
            self.parameter().add_(0.01)
            self.seen.m.a.weight[0].mul_(0.9)

    def shared_with_numpy(self) -> None:
        self.arrays.append(self.parameter().detach().numpy())

    def deep_copy(self) -> None:
        self.seen.m = copy.deepcopy(self.seen.m)
        self.seen.opt = self.torch.optim.SGD(self.seen.m.parameters(), lr=0.02)

    def load(self) -> None:
        self.seen.m.load_state_dict({k: v * 0.99 if v.dtype.is_floating_point else v for k, v in self.seen.m.state_dict().items()})

    def optimizer_state(self) -> None:
        self.seen.opt.load_state_dict(copy.deepcopy(self.seen.opt.state_dict()))

    def gradients(self) -> None:
        grads = [p.grad for p in self.seen.m.parameters() if p.grad is not None]
        self.kept += grads[:2]
        for g in grads[:1]:
            g.mul_(0.5)

    def slower(self) -> None:
        self.rnd.choice(self.seen.opt.param_groups)["lr"] *= 0.8

    def flags(self) -> None:
        p = self.parameter()
        p.requires_grad_(not p.requires_grad)

    def data(self) -> None:
        p = self.parameter()
        p.data = p.data * 0.9

    def gradient_given(self) -> None:
        p = self.parameter()
        p.grad = self.torch.ones_like(p) * 0.1

    def kept_changed(self) -> None:
        for t in self.kept:
            t.mul_(2)
        for a in self.arrays:
            a += 0.001

    def attributes(self) -> None:
        self.seen.m.scale *= 0.9
        self.seen.m.extra = self.floats(self.size) if self.seen.m.extra is None else None

    def tied(self) -> None:
        self.seen.m.b.weight = self.seen.m.a.weight

    def modes(self) -> None:
        self.seen.m.train(not self.seen.m.training)
        self.seen.accumulate = self.rnd.random() < 0.5

    def failing(self) -> None:
        self.seen.fail = self.rnd.randrange(1, 3)

    def batch(self) -> None:
        self.rows = self.rnd.choice([4, 16, 33])

    def call(self) -> None:
        """One step, sometimes in a thread of its own; its results are kept, sometimes."""
        x, y = self.floats(self.rows + 1, self.size)[1:], self.floats(self.rows, self.size)
        out: list[Any] = []

        def go() -> None:
            try:
                out.extend(self.step(x, y))
            except (Stop, RuntimeError) as error:
                out.append(type(error).__name__)

        if self.rnd.random() < 0.1:
            thread = threading.Thread(target=go)
            thread.start()
            thread.join()
        else:
            go()
        self.log.append([show(t) for t in out])
        if self.rnd.random() < 0.3:
            self.kept += [t for t in out if not isinstance(t, str)]

    def everything(self) -> None:
        opt, m = self.seen.opt, self.seen.m
        state = [v for p in opt.state for _, v in sorted(opt.state[p].items())]
        self.log.append([show(t) for t in [*m.parameters(), *m.buffers(), *[p.grad for p in m.parameters()], *state, *self.kept]])
        self.log.append([a.copy() for a in self.arrays])
        self.kept = self.kept[-4:]

    def run(self, steps: int, told: list[str] | None = None) -> list[Any]:
        told = [] if told is None else told
        while told.count("call") < steps:
            if self.rnd.random() < 0.6:
                told.append(self.rnd.choice(EVENTS))
                getattr(self, told[-1])()
            for _ in range(self.rnd.choice([1, 3, 6])):
                told.append("call")
                self.call()
            self.seen.fail = 0
            self.everything()
        return self.log


EVENTS = [n for n in vars(World) if not n.startswith("_") and n not in ("floats", "parameter", "call", "everything", "run")]


def show(t: Any) -> Any:
    return t if t is None or isinstance(t, str) else np.array(t.tolist(), np.float64)


def differs(got: Any, want: Any, where: str = "log") -> str:
    """Where two logs first differ, or ''."""
    if isinstance(want, list):
        if len(got) != len(want):
            return f"{where}: {len(got)} entries, not {len(want)}"
        return next((d for n, (g, w) in enumerate(zip(got, want)) if (d := differs(g, w, f"{where}[{n}]"))), "")
    if not isinstance(want, np.ndarray):
        return "" if got == want else f"{where}: {got!r} is not {want!r}"
    scale = max(1e-2, float(np.abs(want).max(initial=0)))
    same = isinstance(got, np.ndarray) and got.shape == want.shape and np.allclose(got, want, 1e-6, 1e-6 * scale)
    return "" if same else f"{where}: {got!r:.100} is not {want!r:.100}"


@pytest.mark.parametrize("mode", ["eager", "default", "replay"])
def test_training_is_pytorchs(mode: str) -> None:
    torch = pytest.importorskip("torch")
    made: list[Any] = []

    def compiled(fn: Any) -> Any:
        options = {"recompile_limit": 10**9, "audit_every": 9}
        made.append(fn if mode == "eager" else graphc.compile(fn, mode=None if mode == "default" else mode, options=options))
        return made[-1]

    for seed in {"eager": range(3), "default": range(10, 14), "replay": range(20, 28)}[mode]:
        want = World(torch, lambda fn: fn, seed).run(24)
        found = differs(World(graphc, compiled, seed).run(24), want)
        assert not found, f"program {seed}, {mode}: {found}"
    assert mode != "replay" or sum(f.explain().replayed for f in made) > 10


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        told: list[str] = []
        World(graphc, lambda fn: fn, int(argument)).run(24, told)
        print(argument, *told)
