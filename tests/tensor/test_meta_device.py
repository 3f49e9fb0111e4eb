"""Tensors on the meta device: shapes and dtypes without data, as programs use them to build large models."""
from __future__ import annotations

from typing import Any

import pytest

import graphc
from graphc import nn


def test_modules_are_built_without_data() -> None:
    with graphc.device("meta"):
        net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Embedding(4, 2), nn.Conv2d(1, 2, 3), nn.LSTM(2, 2))
    assert all(t.is_meta and t.device.type == "meta" for t in net.state_dict().values())
    assert net[0].weight.shape == (3, 2) and net[0](graphc.ones(5, 2, device="meta")).shape == (5, 3)
    assert repr(graphc.zeros(2, 3, device="meta", dtype=graphc.int64)) == \
        "tensor(..., device='meta', size=(2, 3), dtype=torch.int64)"
    assert graphc.empty(10**5, 10**5, 100, device="meta").sum(0).shape == (10**5, 100)


def test_data_comes_with_a_checkpoint_or_to_empty() -> None:
    net = nn.Linear(2, 2, device="meta")
    net.load_state_dict({"weight": graphc.ones(2, 2), "bias": graphc.zeros(2)}, assign=True)
    assert net(graphc.ones(1, 2)).tolist() == [[2.0, 2.0]] and isinstance(net.weight, nn.Parameter) and net.weight.requires_grad
    net = nn.Linear(2, 2, device="meta").to_empty(device="cpu")
    nn.init.ones_(net.weight), nn.init.zeros_(net.bias)
    assert net(graphc.ones(1, 2)).tolist() == [[2.0, 2.0]]


def test_ensembles_call_a_module_without_data() -> None:
    base = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).to("meta")
    stacked = {k: graphc.ones(4, *p.shape) for k, p in base.named_parameters()}
    call = graphc.func.vmap(lambda p, x: graphc.func.functional_call(base, p, (x,)))
    assert call(stacked, graphc.ones(4, 3, 2)).tolist() == [[[3.0, 3.0]] * 3] * 4


def test_other_work_of_the_same_program_is_done() -> None:
    x, y = graphc.ones(3, requires_grad=True), graphc.ones(2, device="meta")
    z = y * 2
    (x * 2).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2, 2, 2] and z.is_meta
    w = nn.Parameter(graphc.empty(2, 3, device="meta"))
    (w * 2).sum().backward()
    assert w.grad is not None and w.grad.is_meta and w.grad.shape == (2, 3)
    y[0] = 5
    assert y.add_(1).shape == (2,)


@pytest.mark.parametrize("read", [lambda t: t.tolist(), lambda t: t.cpu(), lambda t: t.sum().item(), lambda t: bool((t > 0).all()),
                                  lambda t: nn.Linear(2, 2, device="meta").to("cpu"), lambda t: graphc.ones(2).copy_(t)])
def test_reading_is_refused(read: Any) -> None:
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        read(graphc.ones(2, device="meta"))


def test_what_it_may_not_meet() -> None:
    with pytest.raises(RuntimeError, match="same device"):
        graphc.ones(2, device="meta") + graphc.ones(2)
    with pytest.raises(TypeError):
        graphc.ones(2, device="meta").numpy()
