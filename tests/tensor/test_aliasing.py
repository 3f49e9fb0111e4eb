"""Views and in-place writes against NumPy's real aliasing: 5,000 random programs, no mismatch."""
from __future__ import annotations

import random

import numpy as np
import pytest

import graphc
from graphc.tensor import to_numpy


class Program:
    """Parallel lists of NumPy arrays (sharing memory) and graphc tensors."""

    def __init__(self, seed: int):
        self.rnd = random.Random(seed)
        shape = tuple(self.rnd.choice([1, 2, 3, 4]) for _ in range(self.rnd.randint(1, 3)))
        base = np.arange(int(np.prod(shape)), dtype=np.float64).reshape(shape)
        self.arrays, self.tensors = [base], [graphc.tensor(base)]

    def add(self, a: np.ndarray, t: graphc.Tensor) -> None:
        self.arrays.append(a)
        self.tensors.append(t)

    def step(self) -> None:
        rnd = self.rnd
        i = rnd.randrange(len(self.arrays))
        a, t = self.arrays[i], self.tensors[i]
        kind = rnd.choice(["narrow", "index", "permute", "flat", "unsqueeze", "add", "mul", "copy", "setitem", "mask", "diagonal",
                           "read", "expand"])
        if kind == "narrow" and a.ndim:
            ax = rnd.randrange(a.ndim)
            start = rnd.randrange(a.shape[ax]) if a.shape[ax] else 0
            length = rnd.randint(0 if rnd.random() < 0.1 else min(1, a.shape[ax] - start), a.shape[ax] - start)
            self.add(np.moveaxis(np.moveaxis(a, ax, 0)[start:start + length], 0, ax), t.narrow(ax, start, length))
        elif kind == "index" and a.ndim:
            index = tuple(slice(rnd.choice([None, 0, 1]), None, rnd.choice([None, 1, 2])) for _ in range(a.ndim))
            if rnd.random() < 0.3 and a.shape[0]:
                index = (rnd.randrange(a.shape[0]), *index[1:])
            self.add(a[(*index, ...)], t[index])
        elif kind == "permute":
            perm = list(range(a.ndim))
            rnd.shuffle(perm)
            self.add(a.transpose(perm), t.permute(perm))
        elif kind == "flat" and a.flags.c_contiguous and a.size and t.is_contiguous():
            self.add(a.reshape(-1), t.view(-1))
        elif kind == "unsqueeze":
            self.add(a[None], t.unsqueeze(0))
        elif kind == "add":
            k = rnd.random()
            a += k
            t += k
        elif kind == "mul":
            k = rnd.random()
            a *= k
            t.mul_(k)
        elif kind == "copy":
            self.copy(a, t)
        elif kind == "setitem" and a.ndim and a.shape[0]:
            j = rnd.randrange(a.shape[0])
            a[j] = 7.0
            t[j] = 7.0
        elif kind == "mask":
            a[a > 3] = -1.0
            t[t > 3] = -1.0
        elif kind == "diagonal" and a.ndim == 2 and a.flags.c_contiguous and t.is_contiguous():
            d = np.einsum("ii->i", a[:min(a.shape), :min(a.shape)])
            d += 1
            t.diagonal().add_(1)
        elif kind == "expand" and a.ndim:
            np.testing.assert_allclose(to_numpy(t.unsqueeze(0).expand(3, *t.shape)), np.broadcast_to(a, (3, *a.shape)))
        elif kind == "read" and rnd.random() < 0.4:
            np.testing.assert_allclose(to_numpy(t), a)

    def copy(self, a: np.ndarray, t: graphc.Tensor) -> None:
        j = self.rnd.randrange(len(self.arrays))
        b, u = self.arrays[j], self.tensors[j]
        try:
            if np.broadcast_shapes(a.shape, b.shape) != a.shape:
                return
        except ValueError:
            return
        a[...] = a + b * 0.5
        t.copy_(t + u * 0.5)

    def check(self) -> None:
        for a, t in zip(self.arrays, self.tensors):
            assert tuple(t.shape) == a.shape
            np.testing.assert_allclose(to_numpy(t), a, rtol=1e-12)


@pytest.mark.parametrize("block", range(10))
def test_random_programs(block: int) -> None:
    for seed in range(block * 500, block * 500 + 500):
        p = Program(seed)
        try:
            for _ in range(p.rnd.randint(3, 16)):
                p.step()
            p.check()
        except Exception as error:
            raise AssertionError(f"program {seed}") from error


def test_the_documented_cases() -> None:
    x = graphc.zeros(4, 4)
    x[1:, ::2] += 1
    y = x.T
    y.mul_(2)
    x.view(-1)[3] = 5
    want = np.zeros((4, 4))
    want[1:, ::2] += 1
    want.T[...] *= 2
    want.reshape(-1)[3] = 5
    assert x.tolist() == want.tolist() and y.tolist() == want.T.tolist()


def test_expanded_writes_are_refused() -> None:
    with pytest.raises(RuntimeError, match="more than one element of the written-to tensor"):
        graphc.zeros(1, 3).expand(2, 3).add_(1)


def test_memory_is_shared_with_numpy_both_ways() -> None:
    t = graphc.ones(4)
    a = t.numpy()
    pending = t * 2
    a[0] = 7
    t.add_(1)
    assert a.tolist() == [8, 2, 2, 2] and t.tolist() == [8, 2, 2, 2] and pending.tolist() == [2, 2, 2, 2]
    b = np.arange(6.0)
    u = graphc.from_numpy(b)
    view = u.view(2, 3)[1]
    view.mul_(10)
    assert b.tolist() == [0, 1, 2, 30, 40, 50]
    b[0] = -1
    assert u[0].item() == -1
    copy = u.clone()
    b[1] = 99
    assert copy[1].item() == 1 and u[1].item() == 99


def test_detached_alias_shares_data_but_not_history() -> None:
    p = graphc.ones(3, requires_grad=True)
    p.data.mul_(3)
    assert p.tolist() == [3, 3, 3] and p.requires_grad and p.is_leaf
    z = graphc.zeros(3).detach()
    z.mul_(p)
    assert z.requires_grad
    z.sum().backward()
    assert p.grad.tolist() == [0, 0, 0]


def test_a_parameter_is_shared_only_while_somebody_holds_its_memory() -> None:
    """Other handles on the same value are no outside holders: once the arrays are gone, steps stay steps."""
    from graphc.ir.recorder import counters, is_exported

    for dt in (graphc.float32, graphc.bfloat16):
        x = graphc.ones(300, 300, dtype=dt)
        keep = [x.detach()]
        a = x.detach().float().numpy() if dt is graphc.bfloat16 else x.detach().numpy()
        if dt is graphc.float32:
            view = a[1:, ::2]
            del a
            view[0, 0] = 7
            assert x[1, 0].item() == 7 and is_exported(x._read()), "a view of the array still lives"
            x.mul_(2)
            assert view[0, 0] == 14
            del view
        for _ in range(3):
            keep.append(x.detach())
            before = counters["flushes"]
            x.add_(1)
            x.mul_(2)
            assert counters["flushes"] == before, "nothing outside makes writes immediate"
            assert keep[0][2, 2].item() == x[2, 2].item()
