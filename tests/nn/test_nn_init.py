"""Initial values: exact where they are fixed, statistics where they are random, the defaults of layers."""
from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc  # noqa: E402
import graphc.nn as nn  # noqa: E402
from graphc.nn import init  # noqa: E402


def values(t):
    return np.asarray(t.detach().numpy(), np.float64)


def check_uniform(x, low, high):
    n = x.size
    width = high - low
    assert x.min() >= low - 1e-6 and x.max() <= high + 1e-6
    assert abs(x.mean() - (low + high) / 2) < 5 * width / math.sqrt(12 * n)
    assert abs(x.std() - width / math.sqrt(12)) < 5 * width / math.sqrt(n)
    counts = np.histogram(x, 8, (low, high))[0]
    assert abs(counts - n / 8).max() < 6 * math.sqrt(n / 8)


def check_normal(x, mean, std):
    n = x.size
    assert abs(x.mean() - mean) < 5 * std / math.sqrt(n)
    assert abs(x.std() - std) < 5 * std / math.sqrt(2 * n)
    assert abs((np.abs(x - mean) < std).mean() - 0.6827) < 0.03


SHAPES = [(60, 80), (16, 12, 5, 5)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_uniform_and_normal(shape):
    t = graphc.empty(shape)
    assert init.uniform_(t, -2, 3) is t
    check_uniform(values(t), -2, 3)
    check_normal(values(init.normal_(t, 1.0, 0.5)), 1.0, 0.5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_xavier(shape, gain):
    fan_in, fan_out = init._calculate_fan_in_and_fan_out(graphc.empty(shape))
    assert (fan_in, fan_out) == torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))
    std = gain * math.sqrt(2 / (fan_in + fan_out))
    bound = math.sqrt(3) * std
    check_uniform(values(init.xavier_uniform_(graphc.empty(shape), gain)), -bound, bound)
    check_normal(values(init.xavier_normal_(graphc.empty(shape), gain)), 0, std)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("a, mode, nonlinearity", [(0, "fan_in", "leaky_relu"), (0.3, "fan_out", "leaky_relu"),
                                                   (0, "fan_in", "relu"), (0, "fan_out", "linear")])
def test_kaiming(shape, a, mode, nonlinearity):
    fan = torch.nn.init._calculate_correct_fan(torch.empty(shape), mode)
    std = torch.nn.init.calculate_gain(nonlinearity, a) / math.sqrt(fan)
    bound = math.sqrt(3) * std
    check_uniform(values(init.kaiming_uniform_(graphc.empty(shape), a, mode, nonlinearity)), -bound, bound)
    check_normal(values(init.kaiming_normal_(graphc.empty(shape), a, mode, nonlinearity)), 0, std)


@pytest.mark.parametrize("name", ["linear", "conv2d", "conv_transpose3d", "sigmoid", "tanh", "relu", "leaky_relu",
                                  "selu"])
def test_gain(name):
    assert init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
    assert init.calculate_gain("leaky_relu", 0.2) == torch.nn.init.calculate_gain("leaky_relu", 0.2)
    with pytest.raises(ValueError, match="not a valid number"):
        init.calculate_gain("leaky_relu", True)


def test_trunc_normal():
    t = graphc.empty((100, 100))
    assert init.trunc_normal_(t, 1.0, 2.0, 0.0, 2.5) is t
    x = values(t)
    assert x.min() >= 0 and x.max() <= 2.5
    exact, shares = NormalDist(1.0, 2.0), [0.1, 0.3, 0.5, 0.7, 0.9]
    low, high = exact.cdf(0.0), exact.cdf(2.5)
    np.testing.assert_allclose(np.quantile(x, shares), [exact.inv_cdf(low + q * (high - low)) for q in shares],
                               atol=0.06)
    wide = values(init.trunc_normal_(graphc.empty((100, 100)), std=0.02))
    check_normal(wide, 0, 0.02)
    with pytest.warns(UserWarning, match="more than 2 std"):
        init.trunc_normal_(graphc.empty(3), 10.0, 1.0)


@pytest.mark.parametrize("shape", [(4, 4), (3, 6), (6, 3), (4, 2, 3)], ids=str)
def test_orthogonal(shape):
    x = values(init.orthogonal_(graphc.empty(shape), gain=2.0)).reshape(shape[0], -1)
    gram = x @ x.T if x.shape[0] <= x.shape[1] else x.T @ x
    np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-5)


def test_orthogonal_matrices_differ_and_turn_both_ways():
    signs = {round(float(np.linalg.det(values(init.orthogonal_(graphc.empty((3, 3))))))) for _ in range(20)}
    assert signs == {-1, 1}
    with pytest.raises(ValueError, match="2 or more dimensions"):
        init.orthogonal_(graphc.empty(3))


def test_fixed_values():
    assert init.ones_(graphc.empty(3)).tolist() == [1, 1, 1]
    assert init.zeros_(graphc.empty(3)).tolist() == [0, 0, 0]
    assert init.constant_(graphc.empty(2), 0.5).tolist() == [0.5, 0.5]
    assert init.eye_(graphc.empty((2, 3))).tolist() == [[1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("shape, groups", [((4, 2, 3), 1), ((4, 2, 3, 3), 2), ((3, 3, 2, 3, 4), 1), ((6, 2, 5), 3)])
def test_dirac(shape, groups):
    expected = torch.nn.init.dirac_(torch.empty(shape), groups)
    assert init.dirac_(graphc.empty(shape), groups).tolist() == expected.tolist()
    with pytest.raises(ValueError, match="divisible by groups"):
        init.dirac_(graphc.empty((3, 2, 3)), 2)


def test_sparse():
    x = values(init.sparse_(graphc.empty((20, 30)), 0.3, std=0.5))
    assert ((x == 0).sum(0) == 6).all()
    check_normal(x[x != 0], 0, 0.5)
    assert len({tuple(c) for c in (x == 0).T}) > 20  # not the same rows in every column
    with pytest.raises(ValueError, match="2 dimensions"):
        init.sparse_(graphc.empty(3), 0.1)


def test_parameters_are_filled_outside_autograd():
    p = nn.Parameter(graphc.empty((3, 3)))
    for fill in (init.uniform_, init.normal_, init.trunc_normal_, init.xavier_normal_, init.kaiming_uniform_,
                 init.orthogonal_, init.eye_, init.ones_, init.zeros_):
        assert fill(p) is p and p.requires_grad and p.is_leaf and p.grad_fn is None


def test_generator_decides():
    def draw(seed):
        g = graphc.Generator().manual_seed(seed)
        return init.normal_(graphc.empty(5), generator=g).tolist()

    assert draw(1) == draw(1) != draw(2)


def test_old_names_warn():
    with pytest.warns(FutureWarning, match="deprecated in favor of `nn.init.xavier_uniform_`"):
        init.xavier_uniform(graphc.empty((2, 2)))


def test_zero_elements_warn():
    with pytest.warns(UserWarning, match="zero-element tensors is a no-op"):
        init.kaiming_uniform_(graphc.empty((0, 3)))


BOUNDS = {
    "Linear": (lambda: nn.Linear(64, 200), {"weight": 1 / 8, "bias": 1 / 8}),
    "Conv2d": (lambda: nn.Conv2d(4, 64, 4), {"weight": 1 / 8, "bias": 1 / 8}),
    "Conv groups": (lambda: nn.Conv1d(8, 64, 8, groups=4), {"weight": 1 / 4, "bias": 1 / 4}),
    "Bilinear": (lambda: nn.Bilinear(16, 20, 30), {"weight": 1 / 4, "bias": 1 / 4}),
    "LSTM": (lambda: nn.LSTM(10, 25), {"weight_ih_l0": 1 / 5, "bias_hh_l0": 1 / 5}),
    "GRUCell": (lambda: nn.GRUCell(10, 25), {"weight_hh": 1 / 5, "bias_ih": 1 / 5}),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(24, 4), {"in_proj_weight": 1 / 4}),
}


@pytest.mark.parametrize("what", BOUNDS)
def test_layers_start_uniform(what):
    make, bounds = BOUNDS[what]
    layer = make()
    for name, bound in bounds.items():
        x = values(getattr(layer, name))
        assert np.abs(x).max() <= bound + 1e-6 and np.abs(x).max() > 0.9 * bound
        assert abs(x.mean()) < 5 * bound / math.sqrt(3 * x.size)
    layer.reset_parameters() if hasattr(layer, "reset_parameters") else layer._reset_parameters()
    assert not np.array_equal(values(getattr(layer, name)), x)


def test_embedding_starts_normal_with_a_zero_row():
    e = nn.Embedding(100, 50, padding_idx=3)
    x = values(e.weight)
    assert (x[3] == 0).all()
    check_normal(np.delete(x, 3, 0), 0, 1)


def test_fixed_starts():
    assert nn.PReLU(2).weight.tolist() == [0.25, 0.25]
    bn = nn.BatchNorm1d(2)
    assert bn.weight.tolist() == [1, 1] and bn.bias.tolist() == [0, 0]
    assert bn.running_mean.tolist() == [0, 0] and bn.running_var.tolist() == [1, 1] and int(bn.num_batches_tracked) == 0
    assert nn.LayerNorm(2).weight.tolist() == [1, 1]
    m = nn.MultiheadAttention(4, 2)
    assert m.in_proj_bias.tolist() == [0] * 12 and m.out_proj.bias.tolist() == [0] * 4


def test_seed_decides():
    def make(seed):
        graphc.manual_seed(seed)
        return nn.Linear(3, 3).weight.tolist()

    assert make(0) == make(0) != make(1)


def test_device_and_dtype_arguments():
    for layer in (nn.Linear(2, 2, dtype=graphc.float64), nn.Conv1d(2, 2, 1, dtype=graphc.float64, device="cpu"),
                  nn.BatchNorm1d(2, dtype=graphc.float64), nn.LSTM(2, 2, dtype=graphc.float64),
                  nn.Embedding(2, 2, dtype=graphc.float64), nn.LayerNorm(2, dtype=graphc.float64),
                  nn.MultiheadAttention(2, 1, dtype=graphc.float64)):
        assert {str(p.dtype) for p in layer.parameters()} == {"torch.float64"}
