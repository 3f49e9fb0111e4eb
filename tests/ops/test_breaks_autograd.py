"""Programs that once gave wrong gradients or no error: hooks, custom functions, modes, anomalies, deep derivatives."""
from __future__ import annotations

from typing import Any

import pytest

import graphc as torch


def leaf(*numbers: float, dtype: Any = torch.float32) -> Any:
    return torch.tensor(numbers, dtype=dtype, requires_grad=True)


def test_set_grad_enabled_as_a_decorator_is_for_the_function_only() -> None:
    @torch.set_grad_enabled(False)
    def f(x: Any) -> Any:
        return x * 2

    x = leaf(1.0)
    assert torch.is_grad_enabled() and not f(x).requires_grad and torch.is_grad_enabled()
    with torch.no_grad():
        @torch.set_grad_enabled(True)
        def g(x: Any) -> Any:
            return x * 2

        assert not torch.is_grad_enabled() and g(x).requires_grad


def test_retained_gradients_are_what_hooks_made_of_them() -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    y.retain_grad()
    y.register_hook(lambda g: g * 5)
    (y * 3).sum().backward()
    assert y.grad.tolist() == [15.0, 15.0] and x.grad.tolist() == [30.0, 30.0]


@pytest.mark.parametrize("where", ["leaf", "result"])
def test_hooks_must_keep_the_shape(where: str) -> None:
    x = leaf(1.0, 2.0, 3.0)
    y = x * 2
    (x if where == "leaf" else y).register_hook(lambda g: g[:2])
    with pytest.raises(RuntimeError, match="changed the size"):
        y.sum().backward()


class Doubles(torch.autograd.Function):
    result: Any = None

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x * 2

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return Doubles.result(g)


@pytest.mark.parametrize(("result", "want"), [
    (lambda g: g * 2, [2.0, 2.0, 2.0]), (lambda g: (g * 2).expand(4, 3), [8.0, 8.0, 8.0]),
    (lambda g: g[:1], RuntimeError), (lambda g: g.sum(), RuntimeError), (lambda g: g.double(), [1.0, 1.0, 1.0]),
    (lambda g: None, None)])
def test_gradients_of_a_custom_function_fit_its_inputs(result: Any, want: Any) -> None:
    Doubles.result = result
    x = leaf(1.0, 2.0, 3.0)
    y = Doubles.apply(x).sum()
    if want is RuntimeError:
        with pytest.raises(RuntimeError, match="invalid gradient at index 0"):
            y.backward()
        return
    y.backward()
    assert (x.grad is None) if want is None else (x.grad.tolist() == want and x.grad.dtype is x.dtype)


def test_dirty_inputs_are_outputs() -> None:
    class InPlace(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.mark_dirty(x)
            return x.mul_(3)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 10

    x = leaf(1.0, 2.0)
    z = x * 1
    y = InPlace.apply(z)
    assert y is z and z.tolist() == [3.0, 6.0]
    (z * 2).sum().backward()
    assert x.grad.tolist() == [20.0, 20.0]


def test_anomalies_name_the_operation_and_its_line() -> None:
    x = leaf(0.0, 1.0)
    y = ((x * 0).sqrt() * 0).sum()
    with torch.autograd.detect_anomaly(), pytest.raises(RuntimeError, match=r"SqrtBackward0.*nan.*test_breaks_autograd\.py"):
        y.backward()
    with torch.autograd.set_detect_anomaly(True):
        assert torch.autograd.is_anomaly_enabled()
        x.grad = None
        (x * 2).sum().backward()
        assert x.grad.tolist() == [2.0, 2.0]
    assert not torch.autograd.is_anomaly_enabled()


def test_batched_cotangents() -> None:
    x = leaf(1.0, 2.0)
    rows, = torch.autograd.grad(x ** 2, x, torch.eye(2), is_grads_batched=True)
    assert rows.tolist() == [[2.0, 0.0], [0.0, 4.0]]


def test_cotangents_are_tensors() -> None:
    with pytest.raises(TypeError):
        (leaf(1.0, 2.0) * 2).backward(1.0)


def test_fourth_derivative_of_lgamma() -> None:
    from scipy.special import polygamma

    x = leaf(0.3, 1.7, -0.4, -3.3, 25.0, dtype=torch.float64)
    y = torch.lgamma(x)
    for _ in range(4):
        y, = torch.autograd.grad(y.sum(), x, create_graph=True)
    want = torch.tensor([polygamma(3, v) for v in (0.3, 1.7, 25.0)], dtype=torch.float64)
    assert torch.allclose(y[torch.tensor([0, 1, 4])], want, rtol=1e-10)
    step = 1e-4  # below zero SciPy has no polygamma: against differences of the third derivative

    def third(v: float) -> float:
        t = leaf(v, dtype=torch.float64)
        d = torch.lgamma(t)
        for _ in range(3):
            d, = torch.autograd.grad(d.sum(), t, create_graph=True)
        return float(d)

    for k, v in ((2, -0.4), (3, -3.3)):
        assert float(y[k]) == pytest.approx((third(v + step) - third(v - step)) / (2 * step), rel=1e-5)
