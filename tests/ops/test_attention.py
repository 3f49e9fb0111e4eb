"""Attention against PyTorch: values, gradients, masks, grouped heads, bad inputs."""
from __future__ import annotations

import numpy as np
import pytest

import graphc
import graphc.nn.functional as GF

torch = pytest.importorskip("torch")
F = torch.nn.functional


def real(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-2, 2, shape).astype(np.float32)


KEEP = np.random.default_rng(3).random((3, 5)) < 0.6
KEEP[:, 0] = True
EMPTY_ROW = KEEP.copy()
EMPTY_ROW[1] = False

CASES = [
    ("plain", (2, 3, 4), (2, 5, 4), (2, 5, 6), None, {}),
    ("two_dims", (3, 4), (5, 4), (5, 2), None, {"scale": 0.3}),
    ("heads", (2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4), None, {}),
    ("causal", (2, 4, 4), (2, 4, 4), (2, 4, 4), None, {"is_causal": True}),
    ("causal_long", (2, 3, 4), (2, 5, 4), (2, 5, 4), None, {"is_causal": True}),
    ("bool_mask", (2, 3, 4), (2, 5, 4), (2, 5, 4), KEEP, {}),
    ("empty_row", (2, 3, 4), (2, 5, 4), (2, 5, 4), EMPTY_ROW, {}),
    ("float_mask", (2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4), real(2, 1, 3, 5), {}),
    ("row_mask", (2, 3, 4), (2, 5, 4), (2, 5, 4), real(5), {}),
    ("broadcast", (4, 3, 4), (1, 5, 4), (1, 5, 4), None, {}),
    ("gqa", (2, 4, 3, 8), (2, 2, 5, 8), (2, 2, 5, 8), None, {"enable_gqa": True}),
    ("gqa_mask", (2, 4, 3, 8), (2, 1, 5, 8), (2, 1, 5, 8), KEEP, {"enable_gqa": True}),
]


@pytest.mark.parametrize("q,k,v,mask,kwargs", [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_value_and_gradient(q, k, v, mask, kwargs):
    sides = []
    for lib, f in ((graphc, GF), (torch, F)):
        ts = [lib.tensor(real(*s, seed=i), requires_grad=True) for i, s in enumerate((q, k, v))]
        m = None if mask is None else lib.tensor(mask, requires_grad=mask.dtype != bool)
        out = f.scaled_dot_product_attention(*ts, m, **kwargs)
        (out * lib.tensor(real(*out.shape, seed=9))).sum().backward()
        sides.append((out, [*ts, m] if mask is not None and mask.dtype != bool else ts))
    (got, gs), (want, ws) = sides
    assert tuple(got.shape) == tuple(want.shape)
    np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=1e-5, atol=1e-6)
    for a, b in zip(gs, ws):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_large_scores_do_not_overflow():
    q = real(2, 3, 4) * 100
    got = GF.scaled_dot_product_attention(*[graphc.tensor(q)] * 3)
    np.testing.assert_allclose(got.numpy(), F.scaled_dot_product_attention(*[torch.tensor(q)] * 3).numpy(), rtol=1e-4)


def test_bfloat16_keeps_dtype():
    q = real(2, 3, 4)
    got = GF.scaled_dot_product_attention(*[graphc.tensor(q).to(graphc.bfloat16)] * 3)
    assert got.dtype is graphc.bfloat16
    want = F.scaled_dot_product_attention(*[torch.tensor(q)] * 3)
    np.testing.assert_allclose(got.to(graphc.float32).numpy(), want.numpy(), atol=3e-2)


def test_second_derivative():
    grads = []
    for lib, f in ((graphc, GF), (torch, F)):
        q, k, v = [lib.tensor(real(2, 3, 4, seed=i).astype(np.float64), requires_grad=True) for i in range(3)]
        if lib is graphc:
            out = f.scaled_dot_product_attention(q, k, v)
        else:
            out = torch.softmax(q @ k.transpose(-2, -1) / 2, -1) @ v
        (g,) = lib.autograd.grad((out ** 2).sum(), q, create_graph=True)
        (g ** 2).sum().backward()
        grads.append([t.grad.numpy() for t in (q, k, v)])
    for a, b in zip(*grads):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


def test_dropout_keeps_the_expectation_and_masked_rows_zero():
    graphc.manual_seed(0)
    q = graphc.tensor(real(200, 3, 4))
    mask = graphc.tensor(EMPTY_ROW[:, :3])
    full = GF.scaled_dot_product_attention(q, q, q, mask)
    dropped = GF.scaled_dot_product_attention(q, q, q, mask, dropout_p=0.3)
    assert not np.allclose(full.numpy(), dropped.numpy())
    assert not dropped.numpy()[:, 1].any()
    np.testing.assert_allclose(full.numpy().mean((0, 1)), dropped.numpy().mean((0, 1)), atol=0.15)


BAD = [
    ("at least 2 dimensional|at least  2|2 dimensional", lambda f, o: f.scaled_dot_product_attention(o(4), o(4), o(4))),
    ("should not be set when is_causal=True",
     lambda f, o: f.scaled_dot_product_attention(o(2, 3, 4), o(2, 3, 4), o(2, 3, 4), o(3, 3), is_causal=True)),
    ("last size", lambda f, o: f.scaled_dot_product_attention(o(2, 3, 4), o(2, 3, 5), o(2, 3, 4))),
    ("same length", lambda f, o: f.scaled_dot_product_attention(o(2, 3, 4), o(2, 3, 4), o(2, 4, 4))),
    ("must match the size", lambda f, o: f.scaled_dot_product_attention(o(2, 4, 3, 8), o(2, 2, 3, 8), o(2, 2, 3, 8))),
    ("must divide the number of heads",
     lambda f, o: f.scaled_dot_product_attention(o(2, 4, 3, 8), o(2, 3, 3, 8), o(2, 3, 3, 8), enable_gqa=True)),
    ("between 0 and 1", lambda f, o: f.scaled_dot_product_attention(o(2, 3, 4), o(2, 3, 4), o(2, 3, 4), dropout_p=1.5)),
    ("broadcast", lambda f, o: f.scaled_dot_product_attention(o(2, 3, 4), o(2, 3, 4), o(2, 3, 4), o(2, 3, 4, 5))),
]


@pytest.mark.parametrize("text,call", BAD, ids=[b[0] for b in BAD])
def test_bad_input_raises_what_torch_raises(text, call):
    with pytest.raises(RuntimeError):
        call(F, torch.ones)
    with pytest.raises(RuntimeError, match=text):
        call(GF, graphc.ones)


def test_dtypes_must_agree():
    q = graphc.ones(2, 3, 4)
    with pytest.raises(RuntimeError, match="same dtype"):
        GF.scaled_dot_product_attention(q, q.to(graphc.float64), q)
    with pytest.raises(RuntimeError, match="Expected attn_mask dtype"):
        GF.scaled_dot_product_attention(q, q, q, graphc.ones(3, 3, dtype=graphc.int64))
