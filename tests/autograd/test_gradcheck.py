"""gradcheck finds wrong gradients and accepts right ones; Variable."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as torch


class Wrong(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * x  # half of what it should be


def real(*shape: int):
    return torch.tensor(np.random.default_rng(0).standard_normal(shape), requires_grad=True)


def test_right_and_wrong() -> None:
    assert torch.autograd.gradcheck(lambda a, b: ((a @ b).tanh(), a.sum(0)), (real(2, 3), real(3, 2)))
    assert torch.autograd.gradcheck(torch.sin, real(3))
    assert torch.autograd.gradgradcheck(lambda a, b: (a * b).exp(), (real(3), real(3)))
    with pytest.raises(RuntimeError, match="Jacobian mismatch for output 0 with respect to input 0"):
        torch.autograd.gradcheck(Wrong.apply, (real(2),))
    assert not torch.autograd.gradcheck(Wrong.apply, (real(2),), raise_exception=False)
    with pytest.raises(ValueError, match="at least one input"):
        torch.autograd.gradcheck(torch.sin, (torch.zeros(2, dtype=torch.float64),))


def test_variable() -> None:
    from graphc.autograd import Variable

    x = torch.ones(3)
    v = Variable(x, requires_grad=True)
    assert isinstance(v, torch.Tensor) and isinstance(x, Variable) and v.requires_grad and not x.requires_grad
    x[0] = 5
    assert v[0].item() == 5
    (v * 2).sum().backward()
    assert v.grad.tolist() == [2, 2, 2]
    assert not Variable(x).requires_grad
    with pytest.raises(TypeError, match="has to be a tensor, but got list"):
        Variable([1.0])
