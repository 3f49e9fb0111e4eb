"""Losses against PyTorch: values, dtypes, gradients of every floating input, reductions, bad inputs."""
from __future__ import annotations

import warnings

import numpy as np
import pytest

import graphc
import graphc.nn.functional as GF
from graphc.errors import DimError, IndexOutOfRangeError
from graphc.ops import loss as L

torch = pytest.importorskip("torch")
F = torch.nn.functional
RNG = np.random.default_rng(0)


def real(*shape, lo=-2.0, hi=2.0):
    return RNG.uniform(lo, hi, shape).astype(np.float32)


def sign(*shape):
    return np.where(RNG.random(shape) < 0.5, -1.0, 1.0).astype(np.float32)


def close(got, want, rtol=2e-5, atol=2e-6):
    assert tuple(got.shape) == tuple(want.shape)
    assert str(got.dtype) == str(want.dtype)
    np.testing.assert_allclose(got.detach().to(graphc.float64).numpy(), want.detach().double().numpy(), rtol=rtol, atol=atol)


def compare(name, arrays, kwargs=None, grads=None, rtol=2e-5, fn=None):
    """Run both libraries on the arrays; compare the result and the gradients of the arrays in ``grads``."""
    kwargs = kwargs or {}
    if grads is None:
        grads = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]
    gs = [graphc.tensor(a, requires_grad=i in grads) for i, a in enumerate(arrays)]
    ts = [torch.tensor(a, requires_grad=i in grads) for i, a in enumerate(arrays)]
    gk = {k: graphc.tensor(v) if isinstance(v, np.ndarray) else v for k, v in kwargs.items()}
    tk = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in kwargs.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got, want = (fn or getattr(L, name))(*gs, **gk), getattr(F, name)(*ts, **tk)
    close(got, want, rtol)
    if not grads:
        return
    w = np.random.default_rng(1).uniform(-1, 1, tuple(got.shape)).astype(np.float32)
    (got * graphc.tensor(w)).sum().backward()
    (want * torch.tensor(w)).sum().backward()
    for i in grads:
        if ts[i].grad is None:
            assert gs[i].grad is None or not np.abs(gs[i].grad.numpy()).any()
        else:
            close(gs[i].grad, ts[i].grad, rtol)


REDUCTIONS = ("mean", "sum", "none")
T4 = np.array([0, 2, -100, 1])


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kwargs", [{}, {"weight": real(3, lo=0.5)}, {"label_smoothing": 0.2},
                                    {"weight": real(3, lo=0.5), "label_smoothing": 0.3}, {"ignore_index": 1}])
def test_cross_entropy(reduction, kwargs):
    targets = np.array([0, 2, 0, 1]) if "ignore_index" in kwargs else T4
    compare("cross_entropy", (real(4, 3), targets), {**kwargs, "reduction": reduction}, grads=[0])


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kwargs", [{}, {"weight": real(3, lo=0.5), "label_smoothing": 0.3}])
def test_cross_entropy_over_images_and_unbatched(reduction, kwargs):
    target = RNG.integers(0, 3, (2, 4, 5))
    target[0, 1, 2] = -100
    compare("cross_entropy", (real(2, 3, 4, 5), target), {**kwargs, "reduction": reduction}, grads=[0])
    compare("cross_entropy", (real(3), np.array(2)), {**kwargs, "reduction": reduction}, grads=[0])


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5), (3,)])
@pytest.mark.parametrize("kwargs", [{}, {"weight": real(3, lo=0.5)}, {"label_smoothing": 0.1}])
def test_cross_entropy_with_probabilities(reduction, shape, kwargs):
    compare("cross_entropy", (real(*shape), real(*shape, lo=0.0, hi=1.0)), {**kwargs, "reduction": reduction})


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kwargs", [{}, {"weight": real(3, lo=0.5)}])
def test_nll_loss(reduction, kwargs):
    compare("nll_loss", (real(4, 3), T4), {**kwargs, "reduction": reduction}, grads=[0])
    compare("nll_loss", (real(2, 3, 2, 2), RNG.integers(0, 3, (2, 2, 2))), {**kwargs, "reduction": reduction}, grads=[0])
    compare("nll_loss", (real(3), np.array(1)), {**kwargs, "reduction": reduction}, grads=[0])


def test_cross_entropy_is_stable_and_handles_edge_batches():
    logits = np.array([[1e4, 0, -1e4], [-1e4, 1e4, 0]], np.float32)
    compare("cross_entropy", (logits, np.array([0, 0])), grads=[0])
    assert np.isnan(L.cross_entropy(graphc.tensor(real(2, 3)), graphc.tensor([-100, -100])).item())
    assert np.isnan(L.cross_entropy(graphc.zeros(0, 3), graphc.zeros(0, dtype=graphc.int64)).item())
    assert L.cross_entropy(graphc.zeros(0, 3), graphc.zeros(0, dtype=graphc.int64), reduction="sum").item() == 0
    compare("cross_entropy", (real(3, 4), np.array([1, 2, 3], np.uint8)), grads=[0])


def test_cross_entropy_second_derivative():
    x, t = real(4, 3), np.array([0, 2, 1, 1])
    grads = []
    for lib, fn in ((graphc, L.cross_entropy), (torch, F.cross_entropy)):
        v = lib.tensor(x, requires_grad=True)
        (g,) = lib.autograd.grad(fn(v, lib.tensor(t)), v, create_graph=True)
        (g ** 2).sum().backward()
        grads.append(v.grad.numpy())
    np.testing.assert_allclose(*grads, rtol=1e-4, atol=1e-6)


def test_cross_entropy_half():
    x = real(8, 5)
    t = RNG.integers(0, 5, 8)
    got = L.cross_entropy(graphc.tensor(x).to(graphc.bfloat16), graphc.tensor(t))
    close(got, F.cross_entropy(torch.tensor(x).bfloat16(), torch.tensor(t)), 1e-2, 1e-2)


def test_out_of_range_target_fails_when_evaluated():
    for bad in (12, -1):
        loss = L.cross_entropy(graphc.tensor(real(3, 4)), graphc.tensor([0, bad, 1]))
        with pytest.raises(IndexOutOfRangeError, match="out of bounds"):
            loss.item()
        with pytest.raises(IndexError):
            L.nll_loss(graphc.tensor(real(3, 4)), graphc.tensor([0, bad, 1])).item()


POSITIVE = real(4, 3, lo=0.05, hi=0.95)
PAIRS = [
    ("mse_loss", (real(4, 3), real(4, 3)), {}), ("mse_loss", (real(4, 3), real(4, 3)), {"weight": POSITIVE}),
    ("l1_loss", (real(4, 3), real(4, 3)), {}), ("l1_loss", (real(4, 3), real(4, 3)), {"weight": POSITIVE}),
    ("smooth_l1_loss", (real(4, 3), real(4, 3)), {"beta": 0.7}), ("smooth_l1_loss", (real(4, 3), real(4, 3)), {"beta": 0.0}),
    ("huber_loss", (real(4, 3), real(4, 3)), {"delta": 0.6}),
    ("huber_loss", (real(4, 3), real(4, 3)), {"delta": 0.6, "weight": POSITIVE}),
    ("binary_cross_entropy", (POSITIVE, real(4, 3, lo=0.0, hi=1.0)), {}),
    ("binary_cross_entropy", (POSITIVE, real(4, 3, lo=0.0, hi=1.0)), {"weight": real(3, lo=0.5)}),
    ("binary_cross_entropy_with_logits", (real(4, 3), real(4, 3, lo=0.0, hi=1.0)), {}),
    ("binary_cross_entropy_with_logits", (real(4, 3), real(4, 3, lo=0.0, hi=1.0)),
     {"weight": real(4, 3, lo=0.5), "pos_weight": real(3, lo=0.5)}),
    ("kl_div", (real(4, 3), POSITIVE), {}), ("kl_div", (real(4, 3), real(4, 3)), {"log_target": True}),
    ("poisson_nll_loss", (real(4, 3), real(4, 3, lo=0.0, hi=5.0)), {"full": True}),
    ("poisson_nll_loss", (POSITIVE, real(4, 3, lo=0.0, hi=5.0)), {"log_input": False}),
    ("gaussian_nll_loss", (real(4, 3), real(4, 3), POSITIVE), {"full": True}),
    ("gaussian_nll_loss", (real(4, 3), real(4, 3), real(4, lo=-0.0, hi=1.0)), {}),
    ("gaussian_nll_loss", (real(4, 3), real(4, 3)), {"var": 0.5}),
    ("hinge_embedding_loss", (real(4, 3), sign(4, 3)), {"margin": 0.7}),
    ("margin_ranking_loss", (real(4), real(4), sign(4)), {"margin": 0.3}),
    ("soft_margin_loss", (real(4, 3), sign(4, 3)), {}),
    ("cosine_embedding_loss", (real(4, 3), real(4, 3), sign(4)), {"margin": 0.1}),
    ("triplet_margin_loss", (real(4, 3), real(4, 3), real(4, 3)), {}),
    ("triplet_margin_loss", (real(4, 3), real(4, 3), real(4, 3)), {"p": 1.5, "swap": True, "margin": 0.4}),
    ("triplet_margin_with_distance_loss", (real(4, 3), real(4, 3), real(4, 3)), {"swap": True}),
    ("multi_margin_loss", (real(4, 3), np.array([0, 2, 1, 1])), {}),
    ("multi_margin_loss", (real(4, 3), np.array([0, 2, 1, 1])), {"p": 2, "margin": 0.5, "weight": real(3, lo=0.5)}),
    ("multi_margin_loss", (real(3), np.array([1])), {}),
    ("multilabel_margin_loss", (real(2, 4), np.array([[3, 0, -1, 1], [-1, 1, 2, 0]])), {}),
    ("multilabel_margin_loss", (real(4), np.array([3, 0, -1, 1])), {}),
    ("multilabel_soft_margin_loss", (real(4, 3), np.round(POSITIVE)), {"weight": real(3, lo=0.5)}),
]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name,arrays,kwargs", PAIRS, ids=[f"{i}-{p[0]}" for i, p in enumerate(PAIRS)])
def test_against_torch(name, arrays, kwargs, reduction):
    grads = [0] if name in ("hinge_embedding_loss", "soft_margin_loss", "multilabel_soft_margin_loss") else None
    if name in ("cosine_embedding_loss", "margin_ranking_loss"):
        grads = [0, 1]
    compare(name, arrays, {**kwargs, "reduction": reduction}, grads)


def test_batchmean_and_legacy_arguments():
    compare("kl_div", (real(4, 3), POSITIVE), {"reduction": "batchmean"})
    for legacy in ({"size_average": False}, {"reduce": False}, {"size_average": True}):
        compare("mse_loss", (real(4, 3), real(4, 3)), legacy)
        compare("cross_entropy", (real(4, 3), T4), legacy, grads=[0])
    with pytest.warns(UserWarning, match="please use reduction='sum' instead"):
        L.mse_loss(graphc.ones(2), graphc.ones(2), size_average=False)


def test_differing_sizes_warn_and_broadcast():
    with pytest.warns(UserWarning, match=r"Using a target size \(torch.Size\(\[4\]\)\) that is different"):
        got = L.mse_loss(graphc.ones(3, 4), graphc.zeros(4))
    assert got.item() == 1.0


def test_extreme_logits_and_probabilities_stay_finite():
    x = np.array([200.0, -200.0, 0.0], np.float32)
    compare("binary_cross_entropy_with_logits", (x, np.array([0.0, 1.0, 0.5], np.float32)))
    compare("binary_cross_entropy", (np.array([0.0, 1.0, 1.0], np.float32), np.array([1.0, 0.0, 1.0], np.float32)), grads=[0])
    compare("kl_div", (real(3), np.zeros(3, np.float32)), grads=[0])


@pytest.mark.parametrize("p", [2.0, 1.0, 3.0, float("inf"), 0.0])
def test_pairwise_distance(p):
    grads = [] if p == 0 else [0, 1]
    arrays = (real(4, 3), real(4, 3))
    got = [lib.tensor(a) for lib in (graphc,) for a in arrays]
    close(L.pairwise_distance(*got, p=p), F.pairwise_distance(*map(torch.tensor, arrays), p=p))
    if grads:
        compare("pairwise_distance", arrays, {"p": p, "keepdim": True}, grads)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_cosine_similarity(dim):
    compare("cosine_similarity", (real(4, 3), real(4, 3)), {"dim": dim})
    compare("cosine_similarity", (real(1, 3), real(4, 1)), {"dim": dim})
    compare("cosine_similarity", (np.zeros((2, 3), np.float32), real(2, 3)), {"dim": dim}, grads=[])


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("form", ["padded", "concatenated", "single"])
@pytest.mark.parametrize("of_logits", [True, False])
def test_ctc_loss(reduction, form, of_logits):
    logits = real(7, 3, 5)
    targets = np.array([[1, 2, 2, 0], [3, 3, 4, 1], [4, 0, 0, 0]])
    lens, ins = [3, 2, 1], [7, 6, 5]
    if form == "single":
        logits, targets, lens, ins = logits[:, 0], targets[0, :3], 3, 7
    elif form == "concatenated":
        targets = np.concatenate([t[:n] for t, n in zip(targets, lens)])
    results, grads = [], []
    for lib, mod, fn in ((graphc, GF, L.ctc_loss), (torch, F, F.ctc_loss)):
        x = lib.tensor(logits, requires_grad=True)
        if not of_logits:
            x = mod.log_softmax(x, -1).detach().requires_grad_()
        out = fn(mod.log_softmax(x, -1) if of_logits else x, lib.tensor(targets), lib.tensor(ins), lib.tensor(lens), reduction=reduction)
        (out * 1.5).sum().backward()
        results.append(out.detach().numpy())
        grads.append(x.grad.numpy())
    np.testing.assert_allclose(*results, rtol=1e-5)
    np.testing.assert_allclose(*grads, rtol=1e-4, atol=1e-6)


def test_ctc_impossible_target():
    x = np.log(np.full((2, 1, 3), 1 / 3, np.float32))
    args = (graphc.tensor(x), graphc.tensor([[1, 1]]), (2,), (2,))  # a repeated label needs three steps
    assert L.ctc_loss(*args).item() == np.inf
    assert L.ctc_loss(*args, zero_infinity=True).item() == 0.0
    with pytest.raises(RuntimeError, match="blank must be in label range"):
        L.ctc_loss(*args, blank=3)


BAD = [
    (ValueError, "Expected input batch_size", lambda f, t: f.cross_entropy(t(real(3, 4)), t(np.array([0, 1])))),
    (RuntimeError, "target dtype to be Long or Byte", lambda f, t: f.cross_entropy(t(real(3, 4)), t(np.zeros(3, np.int32)))),
    (RuntimeError, "target dtype to be Long or Byte", lambda f, t: f.cross_entropy(t(real(3, 4)), t(np.zeros(3, np.float32)))),
    (RuntimeError, "multi-target not supported", lambda f, t: f.cross_entropy(t(real(3, 4)), t(real(3, 5)))),
    (RuntimeError, "either for all 4 classes",
     lambda f, t: f.cross_entropy(t(real(3, 4)), t(np.array([0, 1, 2])), weight=t(np.ones(3, np.float32)))),
    (ValueError, "not a valid value for reduction", lambda f, t: f.mse_loss(t(real(3)), t(real(3)), reduction="avg")),
    (RuntimeError, "label_smoothing must be between",
     lambda f, t: f.cross_entropy(t(real(3, 4)), t(np.array([0, 1, 2])), label_smoothing=1.5)),
    (RuntimeError, "size mismatch", lambda f, t: f.nll_loss(t(real(3, 4, 2, 2)), t(np.zeros((3, 2, 3), int)))),
    (RuntimeError, "not implemented for", lambda f, t: f.cross_entropy(t(np.ones((3, 4), int)), t(np.array([0, 1, 2])))),
    (RuntimeError, "not implemented for", lambda f, t: f.mse_loss(t(np.ones(3, int)), t(np.ones(3, int)))),
    (RuntimeError, "must match the size of tensor b", lambda f, t: f.mse_loss(t(real(3, 4)), t(real(5, 7)))),
    (ValueError, "different to the input size", lambda f, t: f.binary_cross_entropy(t(POSITIVE), t(real(2)))),
    (ValueError, "must be the same as input size", lambda f, t: f.binary_cross_entropy_with_logits(t(real(3)), t(real(2)))),
    (RuntimeError, "negative values for beta", lambda f, t: f.smooth_l1_loss(t(real(3)), t(real(3)), beta=-1)),
    (RuntimeError, "non-positive values for delta", lambda f, t: f.huber_loss(t(real(3)), t(real(3)), delta=0)),
    (ValueError, "only p == 1 and p == 2", lambda f, t: f.multi_margin_loss(t(real(3, 4)), t(np.array([0, 1, 2])), p=3)),
    (ValueError, "margin must be greater than 0",
     lambda f, t: f.triplet_margin_loss(t(real(3, 4)), t(real(3, 4)), t(real(3, 4)), margin=-1)),
    (RuntimeError, "same dimension", lambda f, t: f.margin_ranking_loss(t(real(3, 4)), t(real(3, 4)), t(sign(3)))),
    (IndexError, "Dimension out of range", lambda f, t: f.cosine_similarity(t(real(3, 4)), t(real(3, 4)), 9)),
    (ValueError, "var is of incorrect size", lambda f, t: f.gaussian_nll_loss(t(real(4, 3)), t(real(4, 3)), t(POSITIVE[:2]))),
    (ValueError, "negative entry", lambda f, t: f.gaussian_nll_loss(t(real(4, 3)), t(real(4, 3)), -1.0)),
    (ValueError, "Weights and input must have the same size",
     lambda f, t: f.mse_loss(t(real(4, 3)), t(real(4, 3)), weight=t(real(3)))),
]


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("error,text,call", BAD, ids=[b[1] for b in BAD])
def test_bad_input_raises_what_torch_raises(error, text, call):
    with pytest.raises(error):
        call(F, torch.tensor)
    with pytest.raises(error, match=text):
        call(L, graphc.tensor)


def test_dim_error_type():
    with pytest.raises(DimError):
        L.cosine_similarity(graphc.ones(2, 2), graphc.ones(2, 2), 4)
