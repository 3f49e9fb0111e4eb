"""Weight averages and SWALR against PyTorch."""
from __future__ import annotations

import inspect

import numpy as np
import pytest

import graphc
from graphc.ir.recorder import counters

torch = pytest.importorskip("torch")
LIBRARIES = (graphc, torch)


def model(T, seed: int = 0):
    """Linear and batch norm with given weights in either library."""
    net = T.nn.Sequential(T.nn.Linear(4, 3), T.nn.BatchNorm1d(3), T.nn.Linear(3, 2)).double()
    fill(T, net, seed)
    return net


def fill(T, net, seed: int) -> None:
    r = np.random.default_rng(seed)
    with T.no_grad():
        for t in net.state_dict().values():
            if t.is_floating_point():
                t.copy_(T.tensor(r.uniform(0.5, 2.0, size=tuple(t.shape))))
            else:
                t.fill_(seed)


def arrays(net) -> dict[str, np.ndarray]:
    return {k: np.array(v.detach().numpy()) for k, v in net.state_dict().items()}


def same(ours, theirs) -> None:
    a, b = arrays(ours), arrays(theirs)
    assert list(a) == list(b)
    for k in a:
        np.testing.assert_allclose(a[k], b[k], rtol=1e-12, err_msg=k)
        assert a[k].dtype == b[k].dtype


AVERAGES = {
    "mean": lambda U: {},
    "mean of buffers too": lambda U: {"use_buffers": True},
    "multi mean": lambda U: {"multi_avg_fn": U.get_swa_multi_avg_fn()},
    "ema": lambda U: {"avg_fn": U.get_ema_avg_fn(0.7)},
    "multi ema": lambda U: {"multi_avg_fn": U.get_ema_multi_avg_fn(0.7)},
    "multi ema of buffers too": lambda U: {"multi_avg_fn": U.get_ema_multi_avg_fn(0.7), "use_buffers": True},
    "own function": lambda U: {"avg_fn": lambda a, b, n: a + n * b},
}


@pytest.mark.parametrize("name", AVERAGES)
def test_averages(name: str) -> None:
    nets = []
    for T in LIBRARIES:
        net = model(T)
        average = T.optim.swa_utils.AveragedModel(net, **AVERAGES[name](T.optim.swa_utils))
        for seed in range(1, 6):
            fill(T, net, seed)
            average.update_parameters(net)
        nets.append(average)
        assert average.n_averaged.item() == 5
    same(*nets)


def test_multi_mean_of_integer_buffers() -> None:
    """PyTorch's refuses these (an integer addcdiv): the meaning is that of its function for one tensor."""
    nets = []
    for T, options in ((graphc, {"multi_avg_fn": graphc.optim.swa_utils.get_swa_multi_avg_fn()}), (torch, {})):
        net = model(T)
        average = T.optim.swa_utils.AveragedModel(net, use_buffers=True, **options)
        for seed in (1, 2, 8, 5):
            fill(T, net, seed)
            average.update_parameters(net)
        nets.append(average)
    ours, theirs = (n.module[1].num_batches_tracked.item() for n in nets)
    assert ours == theirs == 3  # 1, (1+2)/2 -> 1, then 3, then 3: each mean is truncated when it is stored


def test_the_average_is_a_copy_that_computes() -> None:
    net = model(graphc)
    average = graphc.optim.swa_utils.AveragedModel(net)
    before = arrays(average.module)
    fill(graphc, net, 3)
    for k, v in arrays(average.module).items():
        np.testing.assert_array_equal(v, before[k])
    average.update_parameters(net)
    x = graphc.randn(5, 4, dtype=graphc.float64)
    assert graphc.equal(average.eval()(x), net.eval()(x))
    assert all(p.requires_grad and p.grad_fn is None for p in average.parameters())


def test_resuming_keeps_the_count() -> None:
    averages = []
    for T in LIBRARIES:
        net = model(T)
        a = T.optim.swa_utils.AveragedModel(net)
        for seed in (1, 2):
            fill(T, net, seed)
            a.update_parameters(net)
        b = T.optim.swa_utils.AveragedModel(model(T, 9))
        b.load_state_dict(a.state_dict())
        fill(T, net, 3)
        b.update_parameters(net)
        assert b.n_averaged.item() == 3 and a.n_averaged.item() == 2
        averages.append(b)
    same(*averages)


def test_averaging_inside_a_compiled_step() -> None:
    net = model(graphc)
    opt = graphc.optim.SGD(net.parameters(), lr=0.1)
    average = graphc.optim.swa_utils.AveragedModel(net, multi_avg_fn=graphc.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    x = graphc.randn(8, 4, dtype=graphc.float64)

    @graphc.compile(fullgraph=True)
    def step():
        opt.zero_grad()
        net(x).square().mean().backward()
        opt.step()
        average.update_parameters(net)

    for _ in range(5):  # the first call copies, later ones average
        step()
    built = counters["plans_built"]
    for _ in range(5):
        step()
    assert counters["plans_built"] == built
    assert average.n_averaged.item() == 10


@pytest.mark.parametrize("batches", ["tensors", "lists"])
def test_update_bn(batches: str) -> None:
    data = np.random.default_rng(0).normal(size=(6, 5, 4))
    nets = []
    for T in LIBRARIES:
        net = model(T, 5).eval()  # five batches counted already, to be forgotten
        loader = [T.tensor(d) if batches == "tensors" else [T.tensor(d), T.tensor(0)] for d in data]
        T.optim.swa_utils.update_bn(loader, net)
        assert not net.training and net[1].momentum == 0.1
        assert net[1].num_batches_tracked.item() == 6
        nets.append(net)
    same(*nets)


def test_update_bn_without_batch_norm_reads_nothing() -> None:
    graphc.optim.swa_utils.update_bn(iter(lambda: pytest.fail("read"), None), graphc.nn.Linear(2, 2))


@pytest.mark.parametrize("options", [{}, {"anneal_strategy": "linear"}, {"anneal_epochs": 0}, {"anneal_epochs": 1},
                                     {"anneal_epochs": 7, "swa_lr": [0.01, 0.3]}], ids=str)
def test_rates(options: dict) -> None:
    rates = []
    for T in LIBRARIES:
        ps = [T.zeros(2, requires_grad=True) for _ in range(2)]
        opt = T.optim.SGD([{"params": ps[:1]}, {"params": ps[1:], "lr": 0.5}], lr=0.2)
        exponential = T.optim.lr_scheduler.ExponentialLR(opt, 0.9)
        sched = T.optim.swa_utils.SWALR(opt, **{"swa_lr": 0.05, **options})
        out = []
        for i in range(30):
            opt.step()
            (exponential if i < 5 else sched).step()
            out.append([g["lr"] for g in opt.param_groups])
        rates.append((out, sched.state_dict()))
    np.testing.assert_allclose(rates[0][0], rates[1][0], rtol=1e-12)
    assert len({tuple(r) for r in rates[0][0]}) > 3
    ours, theirs = ({k: v for k, v in s.items() if k != "_last_lr"} for _, s in rates)
    assert ours == theirs


@pytest.mark.parametrize("make", [
    lambda U, o, m: U.get_ema_avg_fn(1.5), lambda U, o, m: U.get_ema_multi_avg_fn(-0.1),
    lambda U, o, m: U.AveragedModel(m, avg_fn=max, multi_avg_fn=max),
    lambda U, o, m: U.SWALR(o, 0.1, anneal_strategy="cubic"), lambda U, o, m: U.SWALR(o, 0.1, anneal_epochs=-1),
    lambda U, o, m: U.SWALR(o, 0.1, anneal_epochs=2.5), lambda U, o, m: U.SWALR(o, [0.1, 0.2]),
    lambda U, o, m: U.SWALR(m, 0.1),
])
def test_errors_are_pytorchs(make) -> None:
    errors = []
    for T in LIBRARIES:
        net = model(T)
        with pytest.raises(Exception) as info:
            make(T.optim.swa_utils, T.optim.SGD(net.parameters(), lr=0.1), net)
        errors.append(info.value)
    assert type(errors[0]) is type(errors[1])
    assert str(errors[0]) == str(errors[1])


@pytest.mark.parametrize("name", ["AveragedModel", "SWALR", "update_bn", "get_ema_avg_fn", "get_ema_multi_avg_fn",
                                  "get_swa_avg_fn", "get_swa_multi_avg_fn"])
def test_signatures(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(T.optim.swa_utils, name)).parameters for T in LIBRARIES)
    assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()]
