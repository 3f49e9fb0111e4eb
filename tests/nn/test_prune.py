"""Pruning against torch: masks, names, gradients, stacking of methods, removal, refusals."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.utils.prune as ours
from graphc.tensor import to_numpy

torch = pytest.importorskip("torch")
import torch.nn.utils.prune as theirs  # noqa: E402

R = np.random.default_rng(2)
W, B, X = R.standard_normal((4, 6)).astype(np.float32), R.standard_normal(4).astype(np.float32), R.standard_normal((3, 6))
K = R.standard_normal((4, 3, 3, 2)).astype(np.float32)
MASK = (R.random((4, 6)) > 0.4).astype(np.float32)


def linear(m: Any) -> Any:
    net = m.nn.Linear(6, 4)
    net.load_state_dict({"weight": m.tensor(W), "bias": m.tensor(B)})
    return net


METHODS: dict[str, Any] = {
    "identity": lambda p, net, m: p.identity(net, "weight"),
    "l1 share": lambda p, net, m: p.l1_unstructured(net, "weight", 0.3),
    "l1 count": lambda p, net, m: p.l1_unstructured(net, "weight", 5),
    "l1 nothing": lambda p, net, m: p.l1_unstructured(net, "weight", 0),
    "l1 all": lambda p, net, m: p.l1_unstructured(net, "weight", 1.0),
    "l1 scores": lambda p, net, m: p.l1_unstructured(net, "weight", 0.5, importance_scores=m.tensor(W * MASK + 0.01)),
    "ln rows": lambda p, net, m: p.ln_structured(net, "weight", 0.5, n=2, dim=0),
    "ln columns": lambda p, net, m: p.ln_structured(net, "weight", 2, n=1, dim=-1),
    "ln inf": lambda p, net, m: p.ln_structured(net, "weight", 2, n=float("inf"), dim=1),
    "mask": lambda p, net, m: p.custom_from_mask(net, "weight", m.tensor(MASK)),
    "bias": lambda p, net, m: p.l1_unstructured(net, "bias", 2),
    "l1 twice": lambda p, net, m: p.l1_unstructured(p.l1_unstructured(net, "weight", 0.25), "weight", 0.5),
    "l1 then rows": lambda p, net, m: p.ln_structured(p.l1_unstructured(net, "weight", 6), "weight", 1, 2, 0),
    "rows then l1": lambda p, net, m: p.l1_unstructured(p.ln_structured(net, "weight", 1, 2, 0), "weight", 0.5),
    "rows then rows": lambda p, net, m: p.ln_structured(p.ln_structured(net, "weight", 1, 2, 0), "weight", 1, 2, 0),
    "three": lambda p, net, m: p.custom_from_mask(p.l1_unstructured(p.identity(net, "weight"), "weight", 4), "weight",
                                                 m.tensor(MASK)),
}


@pytest.mark.parametrize("name", METHODS)
def test_masks_values_and_gradients(name: str) -> None:
    results = []
    for p, m in ((ours, graphc), (theirs, torch)):
        net = linear(m)
        METHODS[name](p, net, m)
        assert p.is_pruned(net) and p.is_pruned(m.nn.Sequential(net))
        out = net(m.tensor(X, dtype=m.float32))
        out.pow(2).sum().backward()
        which = "bias" if name == "bias" else "weight"
        orig = getattr(net, which + "_orig")
        results.append([sorted(k for k, _ in net.named_parameters()), sorted(net.state_dict()), getattr(net, which + "_mask"), out,
                        orig.grad, getattr(net, which)])
        p.remove(net, which)
        assert not p.is_pruned(net) and not hasattr(net, which + "_mask")
        assert isinstance(getattr(net, which), m.nn.Parameter)
        results[-1] += [sorted(net.state_dict()), getattr(net, which)]
    for a, b in zip(*results):
        if isinstance(a, list):
            assert a == b
        else:
            np.testing.assert_allclose(to_numpy(a.detach()), b.detach().numpy(), rtol=2e-5, atol=2e-6)


def test_over_several_parameters() -> None:
    masks = []
    for p, m in ((ours, graphc), (theirs, torch)):
        conv = m.nn.Conv2d(3, 4, (3, 2))
        conv.load_state_dict({"weight": m.tensor(K), "bias": m.tensor(B)})
        net = linear(m)
        pairs = [(conv, "weight"), (net, "weight"), (net, "bias")]
        p.global_unstructured(pairs, pruning_method=p.L1Unstructured, amount=0.4)
        p.global_unstructured(pairs, pruning_method=p.L1Unstructured, amount=9)
        masks.append([np.asarray(getattr(a, n + "_mask")) for a, n in pairs])
    for a, b in zip(*masks):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("seed", range(3))
def test_random_methods_take_as_many(seed: int) -> None:
    graphc.manual_seed(seed)
    net = ours.random_unstructured(linear(graphc), "weight", 0.25)
    assert int(net.weight_mask.sum()) == 18 and (to_numpy(net.weight_orig.detach()) == W).all()
    ours.random_unstructured(net, "weight", 6)
    assert int(net.weight_mask.sum()) == 12
    net = ours.random_structured(linear(graphc), "weight", 2, dim=1)
    mask = to_numpy(net.weight_mask)
    assert sorted(mask.sum(0)) == [0, 0, 4, 4, 4, 4]
    other = ours.random_unstructured(linear(graphc), "weight", 0.25)
    assert (to_numpy(other.weight_mask) != mask).any()


def test_state_survives_and_training_goes_on() -> None:
    net = ours.l1_unstructured(linear(graphc), "weight", 0.5)
    again = ours.identity(linear(graphc), "weight")
    again.load_state_dict(net.state_dict())
    x = graphc.tensor(X, dtype=graphc.float32)
    assert again(x).tolist() == net(x).tolist()
    optimizer = graphc.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        net(x).pow(2).sum().backward()
        optimizer.step()
    net(x)
    assert int((net.weight == 0).sum()) == 12 and not (to_numpy(net.weight_orig.detach()) == W).all()


@pytest.mark.parametrize("bad", [
    lambda p, net, m: p.l1_unstructured(net, "weight", "half"), lambda p, net, m: p.l1_unstructured(net, "weight", 1.5),
    lambda p, net, m: p.l1_unstructured(net, "weight", -1), lambda p, net, m: p.l1_unstructured(net, "weight", 100),
    lambda p, net, m: p.ln_structured(net, "bias", 1, 2, 0), lambda p, net, m: p.ln_structured(net, "weight", 1, 2, 5),
    lambda p, net, m: p.remove(net, "weight"), lambda p, net, m: p.l1_unstructured(net, "nothing", 1),
    lambda p, net, m: p.l1_unstructured(net, "weight", 1, importance_scores=m.ones(3)),
    lambda p, net, m: p.global_unstructured([(net, "weight")], p.LnStructured, amount=1, n=2)])
def test_refusals(bad: Any) -> None:
    kinds = []
    for p, m in ((ours, graphc), (theirs, torch)):
        with pytest.raises(Exception) as info:
            bad(p, linear(m), m)
        kinds.append(info.type)
    assert kinds[0] is kinds[1]


def test_methods_of_ones_own() -> None:
    class EverySecond(ours.BasePruningMethod):
        def compute_mask(self, t: Any, default_mask: Any) -> Any:
            mask = default_mask.clone()
            mask.view(-1)[::2] = 0
            return mask

    net = linear(graphc)
    EverySecond.apply(net, "weight")
    assert to_numpy(net.weight_mask).reshape(-1).tolist() == [0.0, 1.0] * 12
    container = net._forward_pre_hooks[next(iter(net._forward_pre_hooks))]
    assert isinstance(container, EverySecond)
    EverySecond.apply(net, "weight")
    (container,) = net._forward_pre_hooks.values()
    assert len(container) == 2 and list(container)[0] is container[0]
    assert int(net.weight_mask.sum()) == 6  # every second of those that were left
    assert EverySecond().prune(graphc.ones(4)).tolist() == [0, 1, 0, 1]
