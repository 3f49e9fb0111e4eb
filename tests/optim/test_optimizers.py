"""Optimizers and schedulers follow PyTorch's trajectories from the same start."""
from __future__ import annotations

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")

CASES = [
    ("SGD", dict(lr=0.1)), ("SGD", dict(lr=0.1, momentum=0.9)), ("SGD", dict(lr=0.1, momentum=0.9, nesterov=True)),
    ("SGD", dict(lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.1)), ("SGD", dict(lr=0.1, maximize=True)),
    ("Adam", dict(lr=0.05)), ("Adam", dict(lr=0.05, weight_decay=0.1, betas=(0.8, 0.95))), ("Adam", dict(lr=0.05, amsgrad=True)),
    ("Adam", dict(lr=0.05, maximize=True)), ("AdamW", dict(lr=0.05)), ("AdamW", dict(lr=0.05, weight_decay=0.3, amsgrad=True)),
    ("RMSprop", dict(lr=0.02)), ("RMSprop", dict(lr=0.02, momentum=0.9, centered=True, weight_decay=0.1)),
    ("Adagrad", dict(lr=0.1)), ("Adagrad", dict(lr=0.1, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.2)),
    ("Adadelta", dict(lr=0.5)), ("Adadelta", dict(lr=0.5, weight_decay=0.1)), ("Adamax", dict(lr=0.05, weight_decay=0.1)),
    ("NAdam", dict(lr=0.05)), ("NAdam", dict(lr=0.05, weight_decay=0.1, decoupled_weight_decay=True)),
    ("RAdam", dict(lr=0.05)), ("RAdam", dict(lr=0.05, weight_decay=0.1)),
]


def start(T, dtype: str):
    r = np.random.default_rng(0)
    return [T.tensor(r.normal(size=s)).to(getattr(T, dtype)).requires_grad_(True) for s in ((3, 4), (5,), ())]


def run(T, opt, params, steps: int) -> None:
    for i in range(steps):
        opt.zero_grad()
        loss = sum(((p * 0.7).sin() * (1 + 0.1 * i) + 0.3 * p * p).sum() for p in params)
        loss.backward()
        opt.step()


@pytest.mark.parametrize("dtype,tol", [("float64", 1e-9), ("float32", 2e-5)])
@pytest.mark.parametrize("name,options", CASES, ids=str)
def test_trajectory(name: str, options: dict, dtype: str, tol: float) -> None:
    ours, theirs = start(graphc, dtype), start(torch, dtype)
    a = getattr(graphc.optim, name)(ours, **options)
    b = getattr(torch.optim, name)(theirs, **options)
    run(graphc, a, ours, 12)
    run(torch, b, theirs, 12)
    for x, y in zip(ours, theirs):
        np.testing.assert_allclose(x.detach().numpy(), y.detach().numpy(), rtol=tol, atol=tol)


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "Adagrad"])
def test_state_dict_resumes(name: str) -> None:
    options = dict(lr=0.05, momentum=0.9) if name == "SGD" else dict(lr=0.05)
    p1, p2 = start(graphc, "float64"), start(graphc, "float64")
    a = getattr(graphc.optim, name)(p1, **options)
    run(graphc, a, p1, 5)
    b = getattr(graphc.optim, name)(p2, **options)
    with graphc.no_grad():
        for x, y in zip(p2, p1):
            x.copy_(y)
    b.load_state_dict(a.state_dict())
    run(graphc, a, p1, 5)
    run(graphc, b, p2, 5)
    for x, y in zip(p1, p2):
        assert x.tolist() == y.tolist()


def test_state_dict_layout_is_pytorchs() -> None:
    ours, theirs = start(graphc, "float64"), start(torch, "float64")
    a, b = graphc.optim.Adam(ours, lr=0.1), torch.optim.Adam(theirs, lr=0.1)
    run(graphc, a, ours, 2)
    run(torch, b, theirs, 2)
    sa, sb = a.state_dict(), b.state_dict()
    assert sa["state"].keys() == sb["state"].keys()
    assert sa["state"][0].keys() == sb["state"][0].keys()
    assert sa["state"][0]["step"].item() == sb["state"][0]["step"].item() == 2
    assert set(sb["param_groups"][0]) == set(sa["param_groups"][0])
    converted = {"state": {k: {n: graphc.tensor(v.numpy()) for n, v in s.items()} for k, s in sb["state"].items()},
                 "param_groups": sb["param_groups"]}
    a.load_state_dict(converted)
    run(graphc, a, ours, 3)
    run(torch, b, theirs, 3)
    for x, y in zip(ours, theirs):
        np.testing.assert_allclose(x.detach().numpy(), y.detach().numpy(), rtol=1e-9)


@pytest.mark.parametrize("make,text", [
    (lambda T, p: T.optim.SGD(p, lr=-1), "Invalid learning rate: -1"),
    (lambda T, p: T.optim.Adam(p, betas=(1.5, 0.9)), "Invalid beta parameter at index 0: 1.5"),
    (lambda T, p: T.optim.SGD(p, lr=0.1, nesterov=True), "Nesterov momentum requires a momentum and zero dampening"),
    (lambda T, p: T.optim.SGD([], lr=0.1), "optimizer got an empty parameter list"),
    (lambda T, p: T.optim.SGD([{"params": p}, {"params": p}], lr=0.1), "some parameters appear in more than one parameter group"),
])
def test_errors_have_pytorchs_text(make, text: str) -> None:
    for T in (graphc, torch):
        with pytest.raises(ValueError, match=text):
            make(T, start(T, "float32"))


def test_groups_and_hooks() -> None:
    ps = start(graphc, "float64")
    opt = graphc.optim.SGD([{"params": ps[:1], "lr": 0.5}, {"params": ps[1:]}], lr=0.1)
    seen = []
    handle = opt.register_step_post_hook(lambda o, a, k: seen.append(o))
    before = [p.tolist() for p in ps]
    sum(p.sum() for p in ps).backward()
    opt.step()
    assert seen == [opt]
    np.testing.assert_allclose(np.array(before[0]) - 0.5, ps[0].tolist())
    np.testing.assert_allclose(np.array(before[1]) - 0.1, ps[1].tolist())
    handle.remove()
    opt.step(lambda: sum((p * p).sum() for p in ps))
    assert len(seen) == 1


SCHEDULERS = [
    lambda L, o: L.StepLR(o, 7, 0.5), lambda L, o: L.MultiStepLR(o, [5, 9, 9, 30], 0.3), lambda L, o: L.ExponentialLR(o, 0.95),
    lambda L, o: L.CosineAnnealingLR(o, 20, 0.01), lambda L, o: L.LinearLR(o, 0.2, 1.0, 15), lambda L, o: L.ConstantLR(o, 0.5, 8),
    lambda L, o: L.PolynomialLR(o, 30, 2.0), lambda L, o: L.LambdaLR(o, lambda e: 1 / (e + 1)), lambda L, o: L.MultiplicativeLR(o, lambda e: 0.97),
    lambda L, o: L.OneCycleLR(o, 0.7, total_steps=100), lambda L, o: L.OneCycleLR(o, 0.7, total_steps=100, three_phase=True, anneal_strategy="linear"),
    lambda L, o: L.CyclicLR(o, 0.01, 0.5, 9, 4, "triangular2"), lambda L, o: L.CyclicLR(o, 0.01, 0.5, 9, mode="exp_range", gamma=0.99),
    lambda L, o: L.CosineAnnealingWarmRestarts(o, 7, 2, 0.001),
    lambda L, o: L.SequentialLR(o, [L.LinearLR(o, 0.1, 1.0, 10), L.CosineAnnealingLR(o, 50)], [10]),
    lambda L, o: L.SequentialLR(o, [L.ConstantLR(o, 0.1, 5), L.ExponentialLR(o, 0.9), L.StepLR(o, 3)], [5, 20]),
    lambda L, o: L.ChainedScheduler([L.ConstantLR(o, 0.1, 5), L.ExponentialLR(o, 0.9)]),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", SCHEDULERS)
def test_schedule(make) -> None:
    rates = []
    for T in (graphc, torch):
        opt = T.optim.SGD(start(T, "float64"), lr=0.3, momentum=0.9)
        sched = make(T.optim.lr_scheduler, opt)
        out = [(opt.param_groups[0]["lr"], opt.param_groups[0]["momentum"])]
        for _ in range(99):
            opt.step()
            sched.step()
            out.append((opt.param_groups[0]["lr"], opt.param_groups[0]["momentum"]))
            assert sched.get_last_lr() == [opt.param_groups[0]["lr"]]
        rates.append(out)
    np.testing.assert_allclose(rates[0], rates[1], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("options", [dict(), dict(mode="max", threshold_mode="abs", threshold=0.1, cooldown=3, min_lr=0.001)])
def test_plateau(options: dict) -> None:
    metrics = np.abs(np.sin(np.arange(100) / 5)) + 1 / (1 + np.arange(100))
    rates = []
    for T in (graphc, torch):
        opt = T.optim.SGD(start(T, "float64"), lr=0.3)
        sched = T.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=4, **options)
        rates.append([(sched.step(m), opt.param_groups[0]["lr"])[1] for m in metrics])
    np.testing.assert_allclose(rates[0], rates[1], rtol=1e-12)


def test_schedule_state_dict_resumes() -> None:
    opt = graphc.optim.SGD(start(graphc, "float64"), lr=0.3)
    a = graphc.optim.lr_scheduler.CosineAnnealingLR(opt, 20)
    for _ in range(7):
        a.step()
    state, lr = a.state_dict(), opt.param_groups[0]["lr"]
    opt2 = graphc.optim.SGD(start(graphc, "float64"), lr=0.3)
    b = graphc.optim.lr_scheduler.CosineAnnealingLR(opt2, 20)
    b.load_state_dict(state)
    opt2.param_groups[0]["lr"] = lr
    for _ in range(10):
        a.step()
        b.step()
        assert a.get_last_lr() == b.get_last_lr()
