"""Random numbers: the Philox definition, reproducibility, distributions, errors as PyTorch's, dropout."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.ir.prims.random import philox
from graphc.ir.recorder import counters


@pytest.fixture(autouse=True)
def _seeded():
    graphc.manual_seed(1234)


def philox_block(counter: tuple[int, ...], key: tuple[int, int]) -> list[int]:
    """Philox4x32-10 of the paper in plain Python: the reference the vectorised one is held against."""
    c, k, low = list(counter), list(key), 0xFFFFFFFF
    for _ in range(10):
        a, b = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [b >> 32 ^ c[1] ^ k[0], b & low, a >> 32 ^ c[3] ^ k[1], a & low]
        k = [(k[0] + 0x9E3779B9) & low, (k[1] + 0xBB67AE85) & low]
    return c


# ------------------------------------------------------------------------------------------------------------ the bits
def test_known_answers() -> None:
    ones = 0xFFFFFFFF  # the three vectors of the Random123 distribution
    assert philox_block((0, 0, 0, 0), (0, 0)) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox_block((ones,) * 4, (ones, ones)) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    assert philox_block((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)) == [
        0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]
    assert philox(0, 0, 4).tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@pytest.mark.parametrize("seed, offset", [(0, 0), (1, 7), (2**63 + 5, 2**32 - 2), (2**64 - 1, 2**64 - 2), (12345678901234567, 2**40)])
def test_words_are_the_definition(seed: int, offset: int) -> None:
    want = []
    for i in range(11):
        c = (offset + (i >> 2)) % 2**64
        want.append(philox_block((c & 0xFFFFFFFF, c >> 32, 0, 0), (seed & 0xFFFFFFFF, seed >> 32))[i & 3])
    assert philox(seed, offset, 11).tolist() == want


def test_long_streams_have_no_seams() -> None:
    n = 4 * 8192 * 2 + 13  # more than two of the chunks it works in
    whole = philox(9, 5, n)
    assert whole.dtype == np.uint32 and len(np.unique(whole[:1000])) == 1000
    for at in (4 * 8192, 4 * 8192 * 2, 40000):
        assert philox(9, 5 + at // 4, 8).tolist() == whole[at:at + 8].tolist()


def test_rand_is_the_upper_24_bits() -> None:
    g = graphc.Generator().manual_seed(77)
    x = graphc.rand(10, generator=g)
    assert x.tolist() == [(int(w) >> 8) / 2**24 for w in philox(77, 0, 10)]
    assert graphc.rand(3, generator=g).tolist() == [(int(w) >> 8) / 2**24 for w in philox(77, 3, 3)]  # 10 words: 3 counters


@pytest.mark.parametrize("fn", [graphc.rand, graphc.randn])
@pytest.mark.parametrize("dtype", [graphc.float32, graphc.float64, graphc.bfloat16])
def test_a_shorter_draw_is_a_prefix(fn: Any, dtype: Any) -> None:
    draws = [fn(n, generator=graphc.Generator().manual_seed(3), dtype=dtype).tolist() for n in (5, 100)]
    assert draws[0] == draws[1][:5]


def test_shape_does_not_matter_only_the_flat_index() -> None:
    a = graphc.randn(6, 4, generator=graphc.Generator().manual_seed(3))
    b = graphc.randn(24, generator=graphc.Generator().manual_seed(3))
    assert a.reshape(-1).tolist() == b.tolist()


# ----------------------------------------------------------------------------------------------------------- generators
def test_state_and_seed() -> None:
    g = graphc.Generator()
    g.manual_seed(-1)
    assert g.initial_seed() == 2**64 - 1
    graphc.rand(5, generator=g)
    state = g.get_state()
    assert state.dtype is graphc.uint8 and tuple(state.shape) == (16,)
    a = graphc.rand(5, generator=g).tolist()
    assert graphc.rand(5, generator=g.set_state(state)).tolist() == a
    assert graphc.rand(5, generator=g.set_state(state).clone_state()).tolist() == a
    assert g.seed() == g.initial_seed() != 2**64 - 1


def test_default_generator() -> None:
    graphc.manual_seed(5)
    assert graphc.initial_seed() == 5
    state = graphc.get_rng_state()
    a = graphc.randn(3).tolist()
    graphc.set_rng_state(state)
    assert graphc.randn(3).tolist() == a
    with graphc.random.fork_rng():
        graphc.manual_seed(99)
        graphc.rand(100)
    b = graphc.rand(3).tolist()
    graphc.set_rng_state(state)
    graphc.randn(3)
    assert graphc.rand(3).tolist() == b


def test_generators_are_independent_of_the_default() -> None:
    a = graphc.rand(3).tolist()
    graphc.manual_seed(1234)
    graphc.rand(7, generator=graphc.Generator().manual_seed(0))
    assert graphc.rand(3).tolist() == a


@pytest.mark.parametrize("call, error", [
    (lambda g: g.manual_seed(2**64), ValueError), (lambda g: g.manual_seed(-(2**63) - 1), ValueError), (lambda g: g.manual_seed("a"), ValueError),
    (lambda g: g.set_state(graphc.zeros(16)), TypeError), (lambda g: g.set_state([0] * 16), TypeError),
    (lambda g: g.set_state(graphc.zeros(3, dtype=graphc.uint8)), RuntimeError), (lambda g: graphc.Generator("nonsense"), RuntimeError)])
def test_generator_errors(call: Any, error: type) -> None:
    with pytest.raises(error):
        call(graphc.Generator())


def test_eager_and_compiled_draw_the_same() -> None:
    def step(x):
        return graphc.nn.functional.dropout(x, 0.3) + graphc.rand(4) * graphc.randn(4)

    a = [step(graphc.ones(4)).tolist() for _ in range(3)]
    graphc.manual_seed(1234)
    compiled = graphc.compile(step)
    assert [compiled(graphc.ones(4)).tolist() for _ in range(3)] == a
    assert a[0] != a[1] != a[2]


def test_drawing_never_recompiles() -> None:
    def draw(k: int) -> list:
        return [graphc.rand(3), graphc.normal(float(k), 2.0, (3,)), graphc.randint(0, 5 + k, (4,)), graphc.nn.functional.dropout(graphc.ones(3), 0.1 * k + 0.1),
                graphc.empty(3).uniform_(0, k + 1), graphc.empty(3).exponential_(k + 1.0)]

    [t.tolist() for t in draw(1)]
    built = counters["plans_built"]
    for k in range(2, 5):
        [t.tolist() for t in draw(k)]
    assert counters["plans_built"] == built


# -------------------------------------------------------------------------------------------------------- distributions
def ks(x: np.ndarray, cdf: Any) -> float:
    """Kolmogorov-Smirnov statistic times sqrt(n): above 1.95 with probability 0.001."""
    x = np.sort(x.astype(np.float64).reshape(-1))
    f, n = cdf(x), x.size
    return max(np.abs(f - np.arange(n) / n).max(), np.abs(f - np.arange(1, n + 1) / n).max()) * math.sqrt(n)


def normal_cdf(x: np.ndarray) -> np.ndarray:
    from graphc.ir.prims.special import erfc

    return erfc(-x / math.sqrt(2)) / 2


N = 20000


@pytest.mark.parametrize("dtype", [graphc.float32, graphc.float64])
@pytest.mark.parametrize("name, make, cdf", [
    ("rand", lambda dt: graphc.rand(N, dtype=dt), lambda x: x), ("randn", lambda dt: graphc.randn(N, dtype=dt), normal_cdf),
    ("uniform_", lambda dt: graphc.empty(N, dtype=dt).uniform_(-2, 3), lambda x: (x + 2) / 5),
    ("normal_", lambda dt: graphc.empty(N, dtype=dt).normal_(1, 2), lambda x: normal_cdf((x - 1) / 2)),
    ("exponential_", lambda dt: graphc.empty(N, dtype=dt).exponential_(2), lambda x: 1 - np.exp(-2 * x)),
    ("log_normal_", lambda dt: graphc.empty(N, dtype=dt).log_normal_(0, 1), lambda x: normal_cdf(np.log(x))),
    ("cauchy_", lambda dt: graphc.empty(N, dtype=dt).cauchy_(1, 2), lambda x: 0.5 + np.arctan((x - 1) / 2) / np.pi),
    ("trunc_normal_", lambda dt: graphc.nn.init.trunc_normal_(graphc.empty(N, dtype=dt)),
     lambda x: (normal_cdf(x) - normal_cdf(np.array(-2.0))) / (normal_cdf(np.array(2.0)) - normal_cdf(np.array(-2.0))))])
def test_distribution(name: str, make: Any, cdf: Any, dtype: Any) -> None:
    x = make(dtype)
    assert x.dtype is dtype and ks(x.numpy(), cdf) < 1.95


def test_helper_distributions() -> None:
    from graphc.ops.random import gumbel_value, trunc_normal_value
    from graphc.tensor import wrap

    x = wrap(gumbel_value((N,), graphc.float32, None)).numpy()
    assert ks(x, lambda v: np.exp(-np.exp(-v))) < 1.95
    y = wrap(trunc_normal_value((N,), graphc.float32, -0.5, 1.5, None)).numpy()
    lo, hi = normal_cdf(np.array(-0.5)), normal_cdf(np.array(1.5))
    assert y.min() >= -0.5 and y.max() <= 1.5 and ks(y, lambda v: (normal_cdf(v) - lo) / (hi - lo)) < 1.95


def test_neighbours_are_uncorrelated() -> None:
    for x in (graphc.rand(N).numpy() - 0.5, graphc.randn(N).numpy()):
        for lag in (1, 2, 4):
            assert abs((x[lag:] * x[:-lag]).mean() / x.var()) < 4 / math.sqrt(N)


def test_half_precision_uniform_stays_below_one() -> None:
    for dt in (graphc.float16, graphc.bfloat16):
        x = graphc.rand(200000, dtype=dt)
        assert x.dtype is dt and float(x.max()) < 1 and float(x.min()) == 0


def test_exponential_is_never_zero() -> None:
    x = graphc.empty(1 << 20).exponential_()
    assert float(x.min()) > 0 and bool(graphc.isfinite(x.log()).all())


def test_randint() -> None:
    x = graphc.randint(-3, 4, (7000,)).numpy()
    assert x.dtype == np.int64 and set(x.tolist()) == set(range(-3, 4))
    assert np.abs(np.bincount(x + 3) - 1000).max() < 4 * math.sqrt(1000)
    assert graphc.randint(5, (2, 3)).shape == (2, 3) and graphc.randint(high=5, size=(2,), low=0).shape == (2,)
    assert graphc.randint(0, 256, (9,), dtype=graphc.uint8).dtype is graphc.uint8
    big = graphc.randint(-(2**62), 2**62, (1000,)).numpy()
    assert big.min() < -(2**60) and big.max() > 2**60
    wide = graphc.randint(0, 2**32, (1000,)).numpy()
    assert wide.max() >= 2**31 and wide.min() >= 0
    assert graphc.randint_like(graphc.ones(2), 5).dtype is graphc.float32


def test_random_fills_the_dtypes_range() -> None:
    assert set(graphc.empty(500, dtype=graphc.bool).random_().tolist()) == {False, True}
    x = graphc.empty(5000, dtype=graphc.uint8).random_().numpy()
    assert x.min() == 0 and x.max() == 255
    y = graphc.empty(5000, dtype=graphc.int64).random_().numpy()
    assert y.min() >= 0 and y.max() > 2**62
    z = graphc.empty(5000).random_(3, 6)
    assert set(z.tolist()) == {3.0, 4.0, 5.0}
    assert float(graphc.empty(5000).random_().max()) <= 2**24


def test_randperm() -> None:
    p = graphc.randperm(1000)
    assert p.dtype is graphc.int64 and sorted(p.tolist()) == list(range(1000)) and p.tolist() != list(range(1000))
    assert graphc.randperm(1000).tolist() != p.tolist()
    assert graphc.randperm(0).tolist() == [] and graphc.randperm(5, dtype=graphc.int32).dtype is graphc.int32
    first = [int(graphc.randperm(4)[0]) for _ in range(400)]
    assert np.abs(np.bincount(first, minlength=4) - 100).max() < 40


def test_bernoulli() -> None:
    p = graphc.tensor([0.0, 0.2, 0.5, 1.0]).repeat(5000, 1)
    x = graphc.bernoulli(p)
    mean = x.mean(0).tolist()
    assert x.dtype is graphc.float32 and mean[0] == 0 and mean[3] == 1
    assert abs(mean[1] - 0.2) < 0.025 and abs(mean[2] - 0.5) < 0.03
    assert abs(float(graphc.bernoulli(graphc.empty(9000), 0.3).mean()) - 0.3) < 0.02
    assert graphc.zeros(3, dtype=graphc.int64).bernoulli_(1.0).tolist() == [1, 1, 1]
    assert graphc.zeros(2, 3).bernoulli_(graphc.tensor([0.0, 1.0, 1.0])).tolist() == [[0, 1, 1]] * 2


def test_normal() -> None:
    x = graphc.normal(graphc.tensor([[0.0], [100.0]]), graphc.tensor([0.0, 1.0, 1.0]))
    assert x.shape == (2, 3) and x[0, 0].item() == 0 and x[1, 0].item() == 100
    assert graphc.normal(0.0, graphc.ones(2, dtype=graphc.float64)).dtype is graphc.float64
    assert graphc.normal(2.0, 0.0, (2, 2)).tolist() == [[2, 2], [2, 2]]


def test_multinomial() -> None:
    w = graphc.tensor([0.0, 1.0, 3.0, 0.0, 6.0, 0.0])
    x = graphc.multinomial(w, 10000, replacement=True).numpy()
    assert np.abs(np.bincount(x, minlength=6) / 1000 - [0, 1, 3, 0, 6, 0]).max() < 0.2
    y = graphc.multinomial(w, 3).tolist()
    assert sorted(y) == [1, 2, 4]
    first = np.array([graphc.multinomial(w, 2)[0].item() for _ in range(300)])
    assert abs((first == 4).mean() - 0.6) < 0.1
    z = graphc.multinomial(graphc.tensor([[0.0, 0, 1], [1, 0, 0], [0, 5, 0]]), 2, replacement=True)
    assert z.tolist() == [[2, 2], [0, 0], [1, 1]] and z.dtype is graphc.int64
    assert graphc.multinomial(graphc.tensor([[0.0, 0, 1], [1, 0, 0]]), 1).tolist() == [[2], [0]]


def test_multinomial_of_many_from_many_is_small() -> None:
    n = 50000  # a table of samples times weights would take 20 GB
    x = graphc.multinomial(graphc.ones(n), n, replacement=True).numpy()
    assert x.min() >= 0 and x.max() < n and abs(len(np.unique(x)) / n - (1 - math.exp(-1))) < 0.01


def test_geometric_and_poisson() -> None:
    x = graphc.empty(20000).geometric_(0.25).numpy()
    assert x.min() == 1 and abs(x.mean() - 4) < 0.15 and abs((x == 1).mean() - 0.25) < 0.02
    rates = graphc.tensor([0.0, 1.0, 50.0]).repeat(4000, 1)
    y = graphc.poisson(rates)
    assert y.dtype is graphc.float32 and np.abs(y.mean(0).numpy() - [0, 1, 50]).max() < 0.6
    g = graphc.Generator().manual_seed(1)
    assert graphc.poisson(rates, g).tolist() == graphc.poisson(rates, graphc.Generator().manual_seed(1)).tolist() != graphc.poisson(rates, g).tolist()


# ------------------------------------------------------------------------------------------------------------ arguments
def test_creation_arguments() -> None:
    x = graphc.rand(2, 3, dtype=graphc.float64, requires_grad=True)
    assert x.requires_grad and x.is_leaf and x.dtype is graphc.float64
    assert graphc.randn((2, 3)).shape == graphc.randn(size=(2, 3)).shape == (2, 3)
    assert graphc.rand(()).shape == () and graphc.rand(0, 3).shape == (0, 3)
    out = graphc.empty(3)
    assert graphc.rand(3, out=out) is out and float(out.sum()) != 0
    y = graphc.zeros(2, 2, dtype=graphc.float64)
    assert graphc.rand_like(y).dtype is graphc.randn_like(y).dtype is graphc.float64
    assert graphc.randn_like(y, dtype=graphc.float32).dtype is graphc.float32
    assert y.sum().item() == 0


def test_fillers_write_through_views() -> None:
    x = graphc.zeros(3, 4)
    x[1].uniform_(1, 2)
    x[:, 0].normal_(50, 1)
    assert bool((x[1, 1:] >= 1).all()) and x[0, 1:].tolist() == [0, 0, 0] and bool((x[:, 0] > 40).all())


def test_filling_a_leaf_needs_no_grad() -> None:
    w = graphc.zeros(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf"):
        w.normal_()
    with graphc.no_grad():
        w.normal_()
    assert w.requires_grad and w.is_leaf and float(w.abs().sum()) > 0


ERRORS = """T.randperm(-1)
T.randint(5,5,(2,))
T.randint(0,300,(2,),dtype=T.uint8)
T.randint(-1,3,(2,),dtype=T.uint8)
T.randint(0,3.0,(2,))
T.randint(3)
T.rand(2,dtype=T.int64)
T.rand(2,nonsense=1)
T.rand(-1)
T.randn(2.5)
T.rand_like(T.ones(2).long())
T.bernoulli(T.tensor([2.]))
T.bernoulli(T.tensor([1,0]))
T.zeros(3).bernoulli_(2)
T.normal(0,-1,(2,))
T.normal(0,1)
T.normal(T.zeros(3),T.ones(2))
T.normal(T.zeros(3),-1.0)
T.normal(T.zeros(3).long())
T.multinomial(T.ones(3),4)
T.multinomial(T.ones(3),0)
T.multinomial(T.ones(3).long(),1)
T.multinomial(T.tensor([0.,0.]),1)
T.multinomial(T.tensor([-1.,2.]),1)
T.multinomial(T.tensor([float('nan'),2.]),1)
T.multinomial(T.ones(3,3,3),1)
T.zeros(2).exponential_(-1)
T.zeros(2).exponential_(0)
T.zeros(2).log_normal_(0,-1)
T.zeros(2).cauchy_(0,-1)
T.zeros(2).geometric_(0)
T.zeros(2).uniform_(3,1)
T.zeros(2).normal_(0,-1)
T.zeros(2).long().uniform_()
T.zeros(2).long().normal_()
T.zeros(2).long().exponential_()
T.zeros(2).random_(5,5)
T.zeros(2,dtype=T.uint8).random_(0,300)
F.dropout(T.ones(3).long(),.5)
F.dropout(T.ones(3),1.5)
F.dropout(T.ones(3),-0.1)
F.dropout1d(T.ones(2,3,4,5),.5)
F.dropout2d(T.ones(2),.5)
F.feature_alpha_dropout(T.ones(3),.5,training=True)
T.poisson(T.tensor([-1.]))
T.poisson(T.tensor([1]))""".split("\n")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("code", ERRORS)
def test_errors_are_pytorchs(code: str) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises((RuntimeError, TypeError, ValueError, IndexError)) as theirs:
        eval(code, {"T": torch, "F": torch.nn.functional})
    kind = next(k for k in (TypeError, ValueError, IndexError, RuntimeError) if issubclass(theirs.type, k))
    with pytest.raises(kind):
        eval(code, {"T": graphc, "F": graphc.nn.functional})


# -------------------------------------------------------------------------------------------------------------- dropout
F = graphc.nn.functional


def test_dropout_mask_is_the_uniform_stream() -> None:
    state = graphc.get_rng_state()
    y = F.dropout(graphc.ones(1000), 0.3)
    graphc.set_rng_state(state)
    keep = graphc.rand(1000) >= 0.3
    np.testing.assert_allclose(y.numpy(), keep.numpy() / 0.7, rtol=1e-6)


@pytest.mark.parametrize("dtype", [graphc.float32, graphc.float64, graphc.float16, graphc.bfloat16])
def test_dropout_keeps_the_mean(dtype: Any) -> None:
    y = F.dropout(graphc.ones(100, 200, dtype=dtype), 0.25)
    assert y.dtype is dtype and abs(float(y.float().mean()) - 1) < 0.02
    assert abs(float((y == 0).float().mean()) - 0.25) < 0.02


def test_dropout_gradient_uses_the_same_mask() -> None:
    for fn in (F.dropout, F.dropout2d, lambda t, p: F.alpha_dropout(t, p, training=True)):
        x = graphc.ones(3, 4, 5, 6, requires_grad=True)
        y = fn(x, 0.5)
        (g,) = graphc.autograd.grad((y * 2).sum(), x)
        ratio = float(g.abs().max())
        kept = (g != 0)
        assert 0 < int(kept.sum()) < 360
        if fn is not F.dropout and fn is not F.dropout2d:
            assert bool((y[kept] == y[kept][0]).all()) and ratio > 0
        else:
            assert (g / 2).tolist() == y.tolist()


def test_dropout_saves_no_mask_and_draws_again_in_second_gradient() -> None:
    x = graphc.randn(50, requires_grad=True)
    y = F.dropout(x, 0.5)
    saved = y._read().gfn.ins
    assert saved[0] is None and all(v.aval.size == 1 for v in saved[1:])
    (g,) = graphc.autograd.grad((y * y).sum(), x, create_graph=True)
    (h,) = graphc.autograd.grad(g.sum(), x)
    np.testing.assert_allclose(h.numpy(), 2 * (y.detach() / x.detach()).numpy() ** 2, rtol=1e-5)


def test_dropout_edges() -> None:
    x = graphc.randn(5)
    assert F.dropout(x, 0.0) is x and F.dropout(x, 0.5, training=False) is x
    assert F.dropout(x, 1.0).tolist() == [0] * 5
    assert F.dropout(graphc.zeros(0), 0.5).shape == (0,) and F.dropout(graphc.tensor(2.0), 0.5).item() in (0, 4)
    y = graphc.ones(2000)
    assert F.dropout(y, 0.5, inplace=True) is y and 800 < int((y == 0).sum()) < 1200
    view = graphc.ones(4, 100)
    F.dropout(view[1], 0.5, inplace=True)
    assert view[0].tolist() == [1] * 100 and 0 < int((view[1] == 0).sum()) < 100


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name, shape, draws", [("dropout1d", (4, 5, 6), (4, 5)), ("dropout1d", (5, 6), (5,)), ("dropout2d", (4, 5, 6, 7), (4, 5)),
                                                ("dropout2d", (4, 5, 6), (4, 5)), ("dropout3d", (4, 5, 2, 3, 2), (4, 5)), ("dropout3d", (5, 2, 3, 2), (5,)),
                                                ("feature_alpha_dropout", (4, 5, 6), (4, 5))])
def test_channel_dropout_drops_whole_channels(name: str, shape: tuple[int, ...], draws: tuple[int, ...]) -> None:
    y = getattr(F, name)(graphc.ones(*shape), 0.5, training=True).numpy()
    flat = y.reshape(*draws, -1)
    assert (flat == flat[..., :1]).all() and len(np.unique(flat)) == 2


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    y = F.alpha_dropout(graphc.randn(200000), 0.3, training=True).numpy()
    assert abs(y.mean()) < 0.02 and abs(y.std() - 1) < 0.02
    assert F.alpha_dropout(graphc.ones(3), 1.0, training=True).tolist() == [0, 0, 0]


def test_gumbel_softmax_is_finite_and_hard() -> None:
    y = F.gumbel_softmax(graphc.zeros(5000, 4), hard=True)
    assert bool(graphc.isfinite(y).all()) and y.sum(1).tolist() == pytest.approx([1] * 5000, abs=1e-5)
    assert np.abs(y.mean(0).numpy() - 0.25).max() < 0.03


def test_a_count_that_is_no_integer_spoils_nothing() -> None:
    """It is refused before the generator moves."""
    from graphc.ops._generator import default_generator

    before = default_generator._offset
    with pytest.raises(TypeError):
        default_generator.reserve(2.5)  # type: ignore[arg-type]
    assert default_generator._offset == before and graphc.rand(2).shape == (2,)
