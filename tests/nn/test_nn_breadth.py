"""Layers, functions and optimizers that programs use now and then, against torch."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.tensor import to_numpy

torch = pytest.importorskip("torch")
R = np.random.default_rng(3)
X1, X2, X3 = R.standard_normal((2, 3, 9)), R.standard_normal((2, 3, 9, 8)), R.standard_normal((2, 2, 6, 7, 8))
U2, U3 = R.uniform(0, 1, (2, 3, 2)), R.uniform(0, 1, (2, 2, 3))


def numbers(t: Any) -> np.ndarray:
    return to_numpy(t.detach()) if isinstance(t, graphc.Tensor) else t.detach().numpy()


def unpool(m: Any, n: int, x: Any, **options: Any) -> Any:
    F = m.nn.functional
    y, i = getattr(F, f"max_pool{n}d")(x, 2, options.get("stride"), return_indices=True)
    return getattr(F, f"max_unpool{n}d")(y, i, 2, **options)


CASES: list[tuple[str, Any, tuple[np.ndarray, ...]]] = [
    ("max_unpool1d", lambda m, x: unpool(m, 1, x), (X1,)),
    ("max_unpool1d size", lambda m, x: unpool(m, 1, x, output_size=(2, 3, 9)), (X1,)),
    ("max_unpool2d stride", lambda m, x: unpool(m, 2, x, stride=2, output_size=(9, 8)), (X2,)),
    ("max_unpool3d", lambda m, x: unpool(m, 3, x), (X3[:, :, :, :6],)),
    ("MaxUnpool3d", lambda m, x: m.nn.MaxUnpool3d(2)(*m.nn.MaxPool3d(2, return_indices=True)(x)), (X3[:, :, :, :6],)),
    ("lp_pool3d", lambda m, x: m.nn.functional.lp_pool3d(x, 2.0, 2), (X3,)),
    ("LPPool3d", lambda m, x: m.nn.LPPool3d(3, (2, 1, 3), 2, True)(x.abs()), (X3,)),
    ("fractional 2d", lambda m, x: m.nn.functional.fractional_max_pool2d(x, 2, (4, 5), _random_samples=m.tensor(U2)), (X2,)),
    ("fractional 2d ratio", lambda m, x: m.nn.functional.fractional_max_pool2d(x[0], (3, 2), output_ratio=(0.5, 0.5),
                                                                               _random_samples=m.tensor(U2[:1])), (X2,)),
    ("fractional 3d", lambda m, x: m.nn.functional.fractional_max_pool3d(x, 2, (3, 4, 1), _random_samples=m.tensor(U3)), (X3,)),
    ("FractionalMaxPool2d", lambda m, x: m.nn.FractionalMaxPool2d(3, output_size=(2, 3), _random_samples=m.tensor(U2))(x), (X2,)),
    ("max_pool2d_with_indices", lambda m, x: m.nn.functional.max_pool2d_with_indices(x, 3, 2)[0], (X2,)),
    ("adaptive_max_pool1d_with_indices", lambda m, x: m.nn.functional.adaptive_max_pool1d_with_indices(x, 4)[0], (X1,)),
    ("upsample_bilinear", lambda m, x: m.nn.functional.upsample_bilinear(x, scale_factor=2), (X2,)),
    ("upsample_nearest", lambda m, x: m.nn.functional.upsample_nearest(x, (12, 11)), (X2,)),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name, fn, arrays", CASES, ids=[c[0] for c in CASES])
def test_values_and_gradients(name: str, fn: Any, arrays: tuple[np.ndarray, ...]) -> None:
    results = []
    for m in (torch, graphc):
        leaves = [m.tensor(a, requires_grad=True) for a in arrays]
        y = fn(m, *leaves)
        (y * m.tensor(np.cos(np.arange(y.numel())).reshape(tuple(y.shape)))).sum().backward()
        results.append((numbers(y), [numbers(t.grad) for t in leaves]))
    (want, want_grads), (got, grads) = results
    assert got.shape == want.shape and got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)
    for g, w in zip(grads, want_grads):
        np.testing.assert_allclose(g, w, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("n, x, out, u", [(2, X2, (4, 5), U2), (3, X3, (3, 4, 2), U3)])
def test_indices_of_random_windows(n: int, x: np.ndarray, out: Any, u: np.ndarray) -> None:
    found = [getattr(m.nn.functional, f"fractional_max_pool{n}d")(m.tensor(x), 2, out, return_indices=True,
                                                                   _random_samples=m.tensor(u))[1] for m in (torch, graphc)]
    np.testing.assert_array_equal(numbers(found[1]), numbers(found[0]))
    y = getattr(nn.functional, f"fractional_max_pool{n}d")(graphc.tensor(x), 2, out)
    assert tuple(y.shape) == (*x.shape[:2], *out) and np.isin(to_numpy(y), x).all()


@pytest.mark.parametrize("call", [
    lambda m: unpool(m, 1, m.ones(1, 1, 4), output_size=(1, 1, 9)), lambda m: m.nn.functional.fractional_max_pool2d(m.ones(1, 4, 4), 2),
    lambda m: m.nn.functional.fractional_max_pool2d(m.ones(1, 4, 4), 3, (4, 4)),
    lambda m: m.nn.functional.max_unpool2d(m.ones(1, 1, 2, 2), m.zeros(1, 1, 2, 1, dtype=m.int64), 2),
    lambda m: m.optim.Muon([m.ones(3, requires_grad=True)]), lambda m: m.optim.Adafactor([m.ones(1, requires_grad=True)], d=0.5),
    lambda m: m.optim.Muon([m.ones(2, 2, requires_grad=True)], adjust_lr_fn="mine")])
def test_errors(call: Any) -> None:
    with pytest.raises(Exception) as theirs:
        call(torch)
    with pytest.raises(theirs.type):
        call(graphc)


@pytest.mark.parametrize("layer", ["Conv1d", "Conv2d", "ConvTranspose2d", "Linear"])
@pytest.mark.parametrize("bias", [True, False])
def test_fused_batch_normalisation(layer: str, bias: bool) -> None:
    graphc.manual_seed(1)
    if layer == "Linear":
        net, bn, x = nn.Linear(4, 5, bias=bias), nn.BatchNorm1d(5), graphc.randn(6, 4)
    else:
        net = getattr(nn, layer)(3, 5, 3, bias=bias)
        bn = getattr(nn, f"BatchNorm{layer[-2]}d")(5)
        x = graphc.randn(2, 3, *[7] * int(layer[-2]))
    with graphc.no_grad():
        for t in (bn.weight, bn.bias, bn.running_mean, bn.running_var):
            t.copy_(graphc.rand(5) + 0.5)
    net.eval(), bn.eval()
    if layer == "Linear":
        fused = nn.utils.fuse_linear_bn_eval(net, bn)
    else:
        fused = nn.utils.fuse_conv_bn_eval(net, bn, transpose="Transpose" in layer)
    np.testing.assert_allclose(numbers(fused(x)), numbers(bn(net(x))), rtol=1e-4, atol=1e-5)
    assert fused.bias is not None and fused is not net
    with pytest.raises(AssertionError):
        nn.utils.fuse_conv_bn_eval(net.train(), bn)


OPTIMIZERS: list[tuple[str, dict[str, Any], float]] = [
    ("Adafactor", {}, 2e-5), ("Adafactor", {"lr": 0.3, "weight_decay": 0.1, "d": 1.5, "beta2_decay": -0.5}, 2e-5),
    ("Adafactor", {"eps": (1e-6, 0.02), "maximize": True}, 2e-5), ("Muon", {"lr": 0.05}, 3e-2),
    ("Muon", {"lr": 0.3, "nesterov": False, "adjust_lr_fn": "match_rms_adamw", "weight_decay": 0.0}, 3e-2)]


@pytest.mark.parametrize("name, options, tolerance", OPTIMIZERS)
def test_optimizers(name: str, options: dict[str, Any], tolerance: float) -> None:
    """Five steps from the same start; PyTorch's Muon works in bfloat16, so it agrees less."""
    shapes = [(6, 4), (3, 5)] if name == "Muon" else [(6, 4), (5,), (2, 3, 4)]
    starts = [R.standard_normal(s).astype(np.float32) for s in shapes]
    ends = []
    for m in (torch, graphc):
        leaves = [m.tensor(a, requires_grad=True) for a in starts]
        opt = getattr(m.optim, name)(leaves, **options)
        for k in range(5):
            opt.zero_grad()
            sum(((t * (k + 1)).sin() * t).sum() for t in leaves).backward()
            opt.step()
        ends.append([numbers(t) for t in leaves])
        opt.load_state_dict(opt.state_dict())
    for got, want, start in zip(ends[1], ends[0], starts):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
        assert np.abs(got - start).max() > 2 * tolerance


def test_arguments_found_missing() -> None:
    a = graphc.tensor([1.0, 2.0])
    copied, shared = graphc.asarray(a, copy=True), graphc.asarray(a)
    a[0] = 5.0
    assert copied.tolist() == [1.0, 2.0] and shared.tolist() == [5.0, 2.0]
    a[0] = 1.0
    assert graphc.asarray([1, 2], requires_grad=False).dtype is graphc.int64
    assert graphc.asarray([1.0], requires_grad=True).requires_grad
    with pytest.raises(ValueError):
        graphc.asarray([1.0], copy=False)
    assert graphc.from_dlpack(np.ones(2), copy=True).tolist() == [1.0, 1.0]
    low, high = graphc.empty(0), graphc.empty(0)
    found = graphc.aminmax(a, out=(low, high))
    assert found.min is low and (low.item(), high.item()) == (1.0, 2.0)
    out = graphc.empty(0)
    assert graphc.nanmean(graphc.tensor([1.0, float("nan")]), out=out) is out and out.item() == 1.0
    e = graphc.eye(3)
    assert graphc.cross(e[0], e[1], out=out).tolist() == [0.0, 0.0, 1.0]
    assert a.split(split_size=1)[1].tolist() == [2.0]
