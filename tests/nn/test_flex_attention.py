"""Attention by score and mask functions against torch's, and its gradients against the formula."""
from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.nn.attention import flex_attention as ours
from graphc.tensor import to_numpy

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.nn.attention import flex_attention as theirs
R = np.random.default_rng(3)
Q, K, V = (R.standard_normal((2, 4, n, 8)).astype(np.float32) for n in (12, 15, 15))
TABLE, DOCS = R.standard_normal((4, 12, 15)).astype(np.float32), np.array([[0] * 5 + [1] * 10, [0] * 9 + [1] * 6])


def causal(b: Any, h: Any, q: Any, k: Any) -> Any:
    return q >= k


def window(b: Any, h: Any, q: Any, k: Any) -> Any:
    return (q - k).abs() <= 3


SCORES: dict[str, Any] = {
    "none": lambda m: None,
    "distance": lambda m: lambda s, b, h, q, k: s - 0.1 * (q - k).abs(),
    "alibi": lambda m: lambda s, b, h, q, k: s + (k - q) * m.exp2(-((h + 1) * 2.0)),
    "causal": lambda m: lambda s, b, h, q, k: m.where(q >= k, s, -float("inf")),
    "cap": lambda m: lambda s, b, h, q, k: 5.0 * m.tanh(s / 5.0),
    "table": lambda m: (lambda t: lambda s, b, h, q, k: s + t[h, q, k])(m.tensor(TABLE)),
    "batches": lambda m: lambda s, b, h, q, k: s * (b + 1) - h,
}
MASKS: dict[str, Any] = {
    "none": lambda f, m: None, "causal": lambda f, m: causal, "window": lambda f, m: f.and_masks(causal, window),
    "either": lambda f, m: f.or_masks(window, lambda b, h, q, k: k < 2),
    "documents": lambda f, m: (lambda d: lambda b, h, q, k: d[b, q] == d[b, k])(m.tensor(DOCS)),
    "heads": lambda f, m: lambda b, h, q, k: (q >= k) | (h == 1),
    "rows without keys": lambda f, m: lambda b, h, q, k: (k < 4) & (q > 2),
}


def call(f: Any, m: Any, score: str, mask: str, **kwargs: Any) -> Any:
    mod = MASKS[mask](f, m)
    block = None if mod is None else f.create_block_mask(mod, 2, 4, 12, 15, device="cpu", BLOCK_SIZE=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return f.flex_attention(m.tensor(Q), m.tensor(K), m.tensor(V), SCORES[score](m), block, **kwargs)


PAIRS = [(s, "none") for s in SCORES] + [("none", k) for k in MASKS] + [("distance", "documents"), ("cap", "rows without keys")]


@pytest.mark.parametrize(("score", "mask"), PAIRS)
def test_values(score: str, mask: str) -> None:
    for kwargs in ({}, {"scale": 0.3, "return_lse": True}):
        got, want = call(ours, graphc, score, mask, **kwargs), call(theirs, torch, score, mask, **kwargs)
        for a, b in zip(*[x if isinstance(x, tuple) else (x,) for x in (got, want)]):
            assert tuple(a.shape) == tuple(b.shape) and str(a.dtype) == str(b.dtype)
            np.testing.assert_allclose(to_numpy(a), b.numpy(), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(("score", "mask"), [("alibi", "none"), ("cap", "window"), ("table", "documents"), ("none", "causal"),
                                             ("distance", "rows without keys")])
def test_gradients(score: str, mask: str) -> None:
    def formula(q: Any, k: Any, v: Any) -> Any:
        s = q @ k.mT / math.sqrt(8)
        where = [torch.arange(n).reshape([-1 if i == d else 1 for d in range(4)]) for i, n in enumerate((2, 4, 12, 15))]
        mod, allowed = SCORES[score](torch), MASKS[mask](theirs, torch)
        s = s if mod is None else mod(s, *where)
        if allowed is None:
            return torch.softmax(s, -1) @ v
        ok = allowed(*where).expand(s.shape)
        return torch.nan_to_num(torch.softmax(s.masked_fill(~ok, -1e30), -1)) * ok @ v

    grads = []
    for m in (graphc, torch):
        leaves = [m.tensor(x, requires_grad=True) for x in (Q, K, V)]
        if m is graphc:
            mod = MASKS[mask](ours, m)
            block = None if mod is None else ours.create_block_mask(mod, None, None if mask != "heads" else 4, 12, 15)
            y = ours.flex_attention(*leaves, SCORES[score](m), block)
        else:
            y = formula(*leaves)
        (y * m.tensor(np.cos(np.arange(y.numel(), dtype=np.float32)).reshape(tuple(y.shape)))).sum().backward()
        grads.append([np.asarray(t.grad) for t in leaves])
    for a, b in zip(*grads):
        np.testing.assert_allclose(a, b, rtol=3e-4, atol=3e-5)


@pytest.mark.parametrize("mask", [k for k in MASKS if k != "none"])
@pytest.mark.parametrize("size", [4, 8, (3, 5), 128])
def test_block_masks(mask: str, size: Any) -> None:
    a, b = (f.create_block_mask(MASKS[mask](f, m), 2, 4, 12, 15, device="cpu", BLOCK_SIZE=size)
            for f, m in ((ours, graphc), (theirs, torch)))
    assert a.shape == tuple(b.shape) and abs(a.sparsity() - float(b.sparsity())) < 1e-4 and a.numel() == b.numel()
    for name in ("kv_num_blocks", "full_kv_num_blocks"):
        np.testing.assert_array_equal(to_numpy(getattr(a, name)), getattr(b, name).numpy())
    np.testing.assert_array_equal(to_numpy(a.to_dense()), b.to_dense().numpy())
    for name in ("kv", "full_kv"):  # columns that are not needed may come in any order
        counts, mine, want = (np.asarray(x) for x in (getattr(a, f"{name}_num_blocks"), getattr(a, f"{name}_indices"),
                                                      getattr(b, f"{name}_indices")))
        for at in np.ndindex(*counts.shape):
            np.testing.assert_array_equal(mine[at][:counts[at]], want[at][:counts[at]])
    dense, wanted = (np.asarray(f.create_mask(MASKS[mask](f, m), 2, 4, 12, 15, device="cpu")) for f, m in (
        (ours, graphc), (theirs, torch)))
    np.testing.assert_array_equal(dense, wanted)
    part = a[0]
    assert part.shape == (1, 4, 12, 15) and part.to("cpu").to_dense().tolist() == a.to_dense()[:1].tolist()


def test_groups_of_heads_and_what_else_is_asked_for() -> None:
    k, v = K[:, :2], V[:, :2]
    got, want = (f.flex_attention(m.tensor(Q), m.tensor(k), m.tensor(v), SCORES["distance"](m), enable_gqa=True)
                 for f, m in ((ours, graphc), (theirs, torch)))
    np.testing.assert_allclose(to_numpy(got), want.numpy(), rtol=2e-4, atol=2e-5)
    plain = ours.flex_attention(*[graphc.tensor(x) for x in (Q, k, v)], enable_gqa=True)
    _, aux = ours.flex_attention(*[graphc.tensor(x) for x in (Q, k, v)], enable_gqa=True,
                                 return_aux=ours.AuxRequest(lse=True, max_scores=True))
    scores = (Q @ np.repeat(k, 2, 1).swapaxes(-1, -2)) / math.sqrt(8)
    np.testing.assert_allclose(to_numpy(aux.max_scores), scores.max(-1), rtol=1e-5)
    np.testing.assert_allclose(to_numpy(aux.lse), np.log(np.exp(scores).sum(-1)), rtol=1e-5)
    assert plain.shape == (2, 4, 12, 8) and ours.flex_attention(*[graphc.tensor(x).half() for x in (Q, K, V)]).dtype is graphc.float16


@pytest.mark.parametrize("bad", [
    lambda f, m: f.flex_attention(m.ones(2, 3, 4), m.ones(2, 3, 4), m.ones(2, 3, 4)),
    lambda f, m: f.flex_attention(m.ones(1, 2, 4, 8), m.ones(1, 2, 4, 6), m.ones(1, 2, 4, 8)),
    lambda f, m: f.flex_attention(m.ones(1, 4, 4, 8), m.ones(1, 2, 4, 8), m.ones(1, 2, 4, 8)),
    lambda f, m: f.flex_attention(m.ones(1, 3, 4, 8), m.ones(1, 2, 4, 8), m.ones(1, 2, 4, 8), enable_gqa=True),
    lambda f, m: f.and_masks(causal, 3), lambda f, m: f.or_masks(3)])
def test_refusals(bad: Any) -> None:
    kinds = []
    for f, m in ((ours, graphc), (theirs, torch)):
        with pytest.raises(Exception) as info:
            bad(f, m)
        kinds.append(info.type)
    assert kinds[0] is kinds[1]
