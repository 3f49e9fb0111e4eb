"""Custom ops: calls, kernels by device, gradients, transforms and compiled functions, the older ways, refusals."""
from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import library
from graphc.tensor import to_numpy

X = np.random.default_rng(4).standard_normal((3, 4))


@library.custom_op("tests::scaled_sin", mutates_args=())
def scaled_sin(x: graphc.Tensor, scale: float = 2.0) -> graphc.Tensor:
    return graphc.sin(x) * scale


@scaled_sin.register_fake
def _(x: Any, scale: float = 2.0) -> Any:
    return graphc.empty_like(x)


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    x, ctx.scale = inputs
    ctx.save_for_backward(x)


def _backward(ctx: Any, grad: Any) -> Any:
    assert ctx.needs_input_grad[0]
    (x,) = ctx.saved_tensors
    return grad * graphc.cos(x) * ctx.scale, None


scaled_sin.register_autograd(_backward, setup_context=_setup)


def test_values_gradients_and_names() -> None:
    x = graphc.tensor(X, requires_grad=True)
    y = graphc.ops.tests.scaled_sin(x, scale=3.0)
    y.sum().backward()
    np.testing.assert_allclose(to_numpy(y.detach()), 3 * np.sin(X))
    np.testing.assert_allclose(to_numpy(x.grad), 3 * np.cos(X))
    assert graphc.ops.tests.scaled_sin.default is scaled_sin and "tests::scaled_sin" in repr(scaled_sin)
    assert not scaled_sin(graphc.tensor(X)).requires_grad
    assert library.opcheck(scaled_sin, (x,))["test_autograd_registration"] == "SUCCESS"
    assert graphc.autograd.gradcheck(scaled_sin, (x,)) and graphc.autograd.gradgradcheck(scaled_sin, (x,))


def test_inside_compiled_functions_and_transforms() -> None:
    x = graphc.tensor(X)
    step = graphc.compile(lambda t: scaled_sin(t).sum(0))
    np.testing.assert_allclose(to_numpy(step(x)), 2 * np.sin(X).sum(0))
    np.testing.assert_allclose(to_numpy(graphc.vmap(scaled_sin)(x)), 2 * np.sin(X))
    np.testing.assert_allclose(to_numpy(graphc.func.vmap(graphc.func.grad(lambda r: scaled_sin(r).sum()))(x)), 2 * np.cos(X))


def test_several_results_and_keywords() -> None:
    @library.custom_op("tests::split_sign", mutates_args=())
    def split_sign(x: Any, y: Any, *, bias: float = 0.0) -> Any:
        return x.clamp(min=0) + bias, y * 2

    def setup(ctx: Any, inputs: Any, keyword_only_inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])
        assert keyword_only_inputs == {"bias": 1.0} and len(output) == 2

    split_sign.register_autograd(lambda ctx, a, b: (a * (ctx.saved_tensors[0] > 0), b * 2), setup_context=setup)
    x, y = graphc.tensor(X, requires_grad=True), graphc.tensor(X, requires_grad=True)
    a, b = split_sign(x, y, bias=1.0)
    (a.sum() + 3 * b.sum()).backward()
    np.testing.assert_allclose(to_numpy(x.grad), (X > 0).astype(float))
    np.testing.assert_allclose(to_numpy(y.grad), np.full_like(X, 6.0))


def test_kernels_by_device() -> None:
    @library.custom_op("tests::where_am_i", mutates_args=(), device_types="cuda")
    def where_am_i(x: Any) -> Any:
        return x * 0 + 1

    with pytest.raises(NotImplementedError, match="cpu"):
        where_am_i(graphc.ones(1))
    library.register_kernel("tests::where_am_i", "cpu")(lambda x: x * 0 + 2)
    assert where_am_i(graphc.ones(1)).item() == 2 and library.get_kernel(where_am_i, "CUDA") is not library.get_kernel(
        where_am_i, "CPU")


def test_ops_that_write_their_arguments() -> None:
    @library.custom_op("tests::fill_two", mutates_args={"x"})
    def fill_two(x: Any) -> None:
        x.fill_(2.0)

    x = graphc.zeros(3)
    assert fill_two(x) is None and x.tolist() == [2, 2, 2]
    with pytest.raises(RuntimeError, match="non-functional"):
        fill_two.register_autograd(lambda ctx: None)


def test_the_older_ways() -> None:
    library.define("tests::older", "(Tensor x) -> Tensor")
    library.impl("tests::older", "default", lambda x: x + 1)
    assert graphc.ops.tests.older(graphc.zeros(1)).item() == 1
    lib = library.Library("tests", "FRAGMENT")
    assert lib.define("oldest(Tensor x) -> Tensor") == "oldest"
    lib.impl("oldest", lambda x: x + 2, "CPU")
    lib.impl("oldest", lambda x: None, "Meta")
    library.register_fake("tests::oldest")(lambda x: x)
    assert graphc.ops.tests.oldest(graphc.zeros(1)).item() == 2
    library.register_autograd("tests::oldest", lambda ctx, g: g * 5)
    x = graphc.zeros(1, requires_grad=True)
    graphc.ops.tests.oldest(x).backward()
    assert x.grad is not None and x.grad.item() == 5


def test_refusals() -> None:
    @library.custom_op("tests::no_formula", mutates_args=())
    def no_formula(x: Any) -> Any:
        return x * 2

    x = graphc.ones(1, requires_grad=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        no_formula(x).backward()
    no_formula.register_autograd(lambda ctx, g: (g, g))
    with pytest.raises(RuntimeError, match="2 gradients for 1"):
        no_formula(x).backward()
    for bad in (lambda: library.custom_op("nonamespace", lambda x: x, mutates_args=()), lambda: library.Library("a", "B")):
        with pytest.raises(ValueError):
            bad()
    for bad in (lambda: library.register_fake("tests::nothing", len), lambda: library.custom_op("add::x", len, mutates_args=()),
                lambda: library.opcheck("tests::nothing", ())):
        with pytest.raises(RuntimeError):
            bad()
    with pytest.raises(TypeError):
        scaled_sin()


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="compares with PyTorch")
def test_schemas_follow_torch() -> None:
    import torch

    def theirs(x: torch.Tensor, n: int, p: float = 0.5) -> torch.Tensor: ...  # type: ignore[empty-body]
    def mine(x: graphc.Tensor, n: int, p: float = 0.5) -> graphc.Tensor: ...  # type: ignore[empty-body]

    theirs.__annotations__ = {"x": torch.Tensor, "n": int, "p": float, "return": torch.Tensor}
    want = torch.library.infer_schema(theirs, mutates_args=())
    assert library.infer_schema(mine, mutates_args=()).replace("int n", "SymInt n") == want


def test_gradcheck_by_either_name() -> None:
    """Importing the module of that name does not hide the function."""
    import sys

    from graphc.autograd.gradcheck import gradcheck

    x = graphc.tensor(X, requires_grad=True)
    for check in (gradcheck, graphc.autograd.gradcheck, sys.modules["graphc.autograd.gradcheck"]):
        assert check(scaled_sin, (x,))
