"""Orthogonal parametrizations, linear cross entropy, parts of batches on devices, hooks over several tensors, random test data."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.autograd import graph
from graphc.tensor import to_numpy
from graphc.testing import make_tensor

torch = pytest.importorskip("torch")
import torch.nn.utils.parametrizations as theirs  # noqa: E402

import graphc.nn.utils.parametrizations as ours  # noqa: E402

R = np.random.default_rng(12)


def layer(m: Any, rows: int, columns: int) -> Any:
    net = m.nn.Linear(columns, rows, bias=False).double()
    net.load_state_dict({"weight": m.tensor(np.random.default_rng(rows).standard_normal((rows, columns)))})
    return net


@pytest.mark.parametrize("how", ["matrix_exp", "cayley", "householder", None])
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)])
def test_orthogonal_follows_torch(how: str | None, shape: tuple[int, int]) -> None:
    """From the same free matrix and base: same weight, same gradient; a step keeps it orthogonal."""
    free, results = R.standard_normal(shape), []
    x = R.standard_normal((6, shape[1]))
    base: Any = None
    for p, m in ((ours, graphc), (theirs, torch)):
        net = layer(m, *shape)
        p.orthogonal(net, orthogonal_map=how)
        w = np.asarray(net.weight.detach())
        gram = w @ w.T if shape[0] <= shape[1] else w.T @ w
        np.testing.assert_allclose(gram, np.eye(min(shape)), atol=1e-9)
        if shape[0] == shape[1]:  # the start is made orthogonal the same way
            results.append([w])
        else:
            results.append([])
        parametrization = net.parametrizations.weight
        with m.no_grad():
            parametrization.original.copy_(m.tensor(free))
            if base is None:
                base = np.asarray(parametrization[0].base)
            parametrization[0].base.copy_(m.tensor(base))
        (net(m.tensor(x)) ** 3).sum().backward()
        results[-1] += [np.asarray(net.weight.detach()), np.asarray(parametrization.original.grad)]
        assert sorted(net.state_dict()) == ["parametrizations.weight.0.base", "parametrizations.weight.original"]
    for a, b in zip(*results):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def test_orthogonal_without_a_base() -> None:
    net = ours.orthogonal(layer(graphc, 4, 3), orthogonal_map="householder", use_trivialization=False)
    w = np.linalg.qr(R.standard_normal((4, 3)))[0]
    net.weight = graphc.tensor(w)
    np.testing.assert_allclose(to_numpy(net.weight.detach()), w, atol=1e-9)
    other = ours.orthogonal(layer(graphc, 3, 3), orthogonal_map="cayley", use_trivialization=False)
    with pytest.raises(NotImplementedError):
        other.weight = graphc.eye(3, dtype=graphc.float64)


@pytest.mark.parametrize("bad", [
    lambda p, m: p.orthogonal(m.nn.Linear(3, 2), "bias"), lambda p, m: p.orthogonal(m.nn.Linear(3, 2), "none"),
    lambda p, m: p.orthogonal(m.nn.Linear(3, 2), orthogonal_map="svd")])
def test_orthogonal_refuses(bad: Any) -> None:
    for p, m in ((ours, graphc), (theirs, torch)):
        with pytest.raises(ValueError):
            bad(p, m)


X, W, BIAS = R.standard_normal((6, 5)), R.standard_normal((4, 5)), R.standard_normal(4)
WIDE, LABELS, GRID = R.standard_normal((4, 3, 5)), np.array([0, 3, 1, -100, 2, 0]), R.integers(0, 4, (6, 3))


@pytest.mark.parametrize("kwargs", [{}, {"reduction": "none"}, {"reduction": "sum", "label_smoothing": 0.1}, {"ignore_index": 0},
                                    {"weight": np.array([1.0, 2.0, 0.5, 1.5])}])
@pytest.mark.parametrize("between", [False, True])
def test_linear_cross_entropy(kwargs: dict[str, Any], between: bool) -> None:
    results = []
    labels = GRID if between else LABELS if "ignore_index" not in kwargs else np.abs(LABELS) % 4
    for m in (graphc, torch):
        x, w = m.tensor(X, requires_grad=True), m.tensor(WIDE if between else W, requires_grad=True)
        given = {k: m.tensor(v) if isinstance(v, np.ndarray) else v for k, v in kwargs.items()}
        y = m.nn.functional.linear_cross_entropy(x, w, m.tensor(labels), **given)
        y.sum().backward()
        results.append([y.detach(), x.grad, w.grad])
    for a, b in zip(*results):
        np.testing.assert_allclose(to_numpy(a), b.numpy(), rtol=1e-8, atol=1e-10)


def test_linear_cross_entropy_as_a_layer() -> None:
    results = []
    for m in (graphc, torch):
        net = m.nn.LinearCrossEntropyLoss(5, 4, bias=True, label_smoothing=0.1, dtype=m.float64)
        assert [k for k, _ in net.named_parameters()] == ["linear.weight", "linear.bias"]
        net.load_state_dict({"linear.weight": m.tensor(W), "linear.bias": m.tensor(BIAS)})
        results.append(net(m.tensor(X), m.tensor(LABELS)).item())
        assert repr(m.nn.LinearCrossEntropyLoss(5, 4, out_features=(3,))) == repr(torch.nn.LinearCrossEntropyLoss(5, 4, out_features=(3,)))
        grid = m.nn.LinearCrossEntropyLoss(5, 4, out_features=(3,), bias=True)
        assert grid.linear.weight.shape == (12, 5) and grid(m.ones(6, 5), m.tensor(GRID)).shape == ()
        for bad in ({"weight": m.ones(3)}, {"label_smoothing": 2.0}):
            with pytest.raises(RuntimeError):
                m.nn.LinearCrossEntropyLoss(5, 4, **bad)
    assert abs(results[0] - results[1]) < 1e-12


def test_parts_for_devices_and_back() -> None:
    from graphc.nn.parallel import gather, parallel_apply, replicate, scatter

    given = ({"a": graphc.arange(6.0).reshape(3, 2)}, [graphc.arange(3)], "text")
    parts = scatter(given, ["cpu", "cpu"])
    assert len(parts) == 2 and parts[1][0]["a"].tolist() == [[4, 5]] and parts[0][2] == "text" and parts[0][1][0].tolist() == [0, 1]
    whole = gather([p[0] for p in parts], "cpu")
    assert whole["a"].tolist() == given[0]["a"].tolist()
    assert gather([graphc.tensor(1.0), graphc.tensor(2.0)], "cpu").tolist() == [1, 2] and gather([None, None], "cpu") is None
    net = graphc.nn.Linear(2, 1)
    (copy,) = replicate(net, ["cpu"])
    outs = parallel_apply([copy, net], [graphc.ones(2), (graphc.ones(2),)])
    assert outs[0].tolist() == outs[1].tolist()
    with pytest.raises(RuntimeError):
        replicate(net, ["cpu", "cpu"])
    with pytest.raises(AssertionError):
        parallel_apply([net], [])


@pytest.mark.parametrize("mode", ["all", "any"])
def test_a_hook_over_several_tensors(mode: str) -> None:
    calls = []
    for m in (graphc, torch):
        seen: list[Any] = []
        a, b, c = (m.tensor(float(k), requires_grad=True) for k in (1, 2, 3))
        register = graph.register_multi_grad_hook if m is graphc else torch.autograd.graph.register_multi_grad_hook
        handle = register((a, b), lambda g, seen=seen: seen.append([x.item() for x in g] if isinstance(g, (list, tuple)) else 1),
                          mode=mode)
        for _ in range(2):
            (a * b * c).backward()
        handle.remove()
        (a * b).backward()
        calls.append(seen)
    assert calls[0] == calls[1] and len(calls[0]) == 2
    with pytest.raises(ValueError):
        graph.register_multi_grad_hook((a,), print, mode="some")


def test_edges_of_the_gradient_graph() -> None:
    x = graphc.ones(4, requires_grad=True)
    y = x * 2
    edge = graph.get_gradient_edge(y)
    assert edge.node == y.grad_fn and edge.output_nr == 0 and isinstance(y.grad_fn, graph.Node)
    assert graph.get_gradient_edge(y.unbind()[0]).node is not None and graph.get_gradient_edge(x).node.name() == "AccumulateGrad"
    with pytest.raises(RuntimeError):
        graph.get_gradient_edge(graphc.ones(1))
    before = y._version
    graph.increment_version([y])
    assert y._version == before + 1
    with graph.save_on_cpu(), graph.disable_saved_tensors_hooks("no"):
        (x * x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2, 2, 2, 2]
    with pytest.raises(NotImplementedError, match="checkpoint"):
        graph.saved_tensors_hooks(None, None)


def test_the_older_profiler() -> None:
    from graphc.autograd import profiler

    with profiler.profile() as p, profiler.record_function("mine"), profiler.emit_nvtx():
        (graphc.ones(3) + 1).tolist()
    assert "mine" in p.key_averages().table() and profiler.FunctionEvent is graphc.profiler.FunctionEvent
    with profiler.profile(enabled=False) as nothing:
        assert nothing is None
    with pytest.raises(AttributeError):
        profiler.no_such_name  # noqa: B018


@pytest.mark.parametrize("name", ["float32", "float64", "float16", "bfloat16", "int64", "uint8", "bool", "complex64"])
def test_random_test_data(name: str) -> None:
    dt = getattr(graphc, name)
    t = make_tensor(40, 5, device="cpu", dtype=dt)
    assert t.dtype is dt and t.shape == (40, 5)
    want = torch.testing.make_tensor((4000,), device="cpu", dtype=getattr(torch, name))
    mine = make_tensor((4000,), device="cpu", dtype=dt)
    real = (lambda x: x.real) if dt.is_complex else (lambda x: x)
    a, b = (np.asarray(real(x).to(m.float32)) for x, m in ((mine, graphc), (want, torch)))
    assert a.min() >= b.min() - 0.5 and a.max() <= b.max() + 0.5 and abs(a.mean() - b.mean()) < 0.6
    assert not make_tensor(3, 4, device="cpu", dtype=dt, noncontiguous=True).is_contiguous()
    if dt.category < 2:
        assert bool((make_tensor(500, device="cpu", dtype=dt, exclude_zero=True) != 0).all())
        with pytest.raises(ValueError):
            make_tensor(3, device="cpu", dtype=dt, requires_grad=True)
    else:
        assert make_tensor((3,), device="cpu", dtype=dt, requires_grad=True).is_leaf
        small = real(make_tensor(500, device="cpu", dtype=dt, low=0.5, high=1.0)).to(graphc.float32)
        assert float(small.min()) >= 0.5 and float(small.max()) <= 1.0
    with pytest.raises(ValueError):
        make_tensor(3, device="cpu", dtype=dt, low=2, high=1)
