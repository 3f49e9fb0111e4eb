"""autograd.forward_ad against PyTorch's."""
from __future__ import annotations

import numpy as np
import pytest

import graphc
import graphc.autograd.forward_ad as mine

torch = pytest.importorskip("torch")
import torch.autograd.forward_ad as theirs  # noqa: E402

RNG = np.random.default_rng(2)
X, T = RNG.standard_normal((3, 4)), RNG.standard_normal((3, 4))
PAIRS = ((torch, theirs), (graphc, mine))


def same(make):
    want, got = [make(lib, ad) for lib, ad in PAIRS]
    assert len(want) == len(got)
    for u, v in zip(want, got):
        assert (u is None) == (v is None)
        if u is not None:
            np.testing.assert_allclose(v.detach().numpy(), u.detach().numpy(), rtol=1e-9, atol=1e-9)


def test_tangents_of_a_chain_with_two_duals():
    def make(lib, ad):
        with ad.dual_level():
            a = ad.make_dual(lib.tensor(X), lib.tensor(T))
            b = ad.make_dual(lib.tensor(X[0]), lib.tensor(T[1]))
            h = (a * b).sin()
            y = lib.softmax(h @ lib.tensor(X.T), 0)
            return [*ad.unpack_dual(y), *ad.unpack_dual(h), *ad.unpack_dual(a), *ad.unpack_dual(h.detach() * b)]

    same(make)


def test_constants_have_no_tangent():
    def make(lib, ad):
        with ad.dual_level():
            ad.make_dual(lib.tensor(X), lib.tensor(T))
            return ad.unpack_dual(lib.tensor(X) * 2)

    same(make)


def test_a_module_with_dual_weights():
    def make(lib, ad):
        net = lib.nn.Linear(4, 4).double()
        with ad.dual_level():
            del net.weight, net.bias
            net.weight = ad.make_dual(lib.tensor(X[:1].repeat(4, 0)), lib.tensor(T[:1].repeat(4, 0)))
            net.bias = lib.zeros(4, dtype=lib.float64)
            return ad.unpack_dual(net(lib.tensor(X)).tanh())

    same(make)


def test_gradient_of_a_tangent():
    def make(lib, ad):
        x = lib.tensor(X).requires_grad_()
        with ad.dual_level():
            y = ad.unpack_dual((ad.make_dual(x, lib.tensor(T)) ** 3).sum())
            (y.tangent + y.primal).backward()
        return [x.grad]

    same(make)


def test_refuses():
    for lib, ad in PAIRS:
        with pytest.raises(RuntimeError, match="no level exists"):
            ad.make_dual(lib.ones(2), lib.ones(2))
        with pytest.raises(RuntimeError, match="positive number"):
            ad.exit_dual_level()
        with ad.dual_level():
            with pytest.raises(RuntimeError, match="Nested"):
                ad.enter_dual_level()
            with pytest.raises(RuntimeError):
                ad.make_dual(lib.ones(2), lib.ones(3))
            with pytest.raises(ValueError, match="floating point"):
                ad.make_dual(lib.ones(2).long(), lib.ones(2))
        assert ad.unpack_dual(lib.ones(2)).tangent is None
