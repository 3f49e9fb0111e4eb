"""Learning-rate schedulers give PyTorch's rates, momenta, state dicts, warnings and errors."""
from __future__ import annotations

import copy
import inspect
import pickle
import warnings

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")


class Decay:
    """A callable object with state to save."""

    def __init__(self, rate: float):
        self.rate = rate

    def __call__(self, x: float) -> float:
        return 1 / (1 + self.rate * x)


SCHEDULERS = {
    "step": lambda L, o: L.StepLR(o, 7, 0.5), "multistep": lambda L, o: L.MultiStepLR(o, [5, 9, 9, 30], 0.3),
    "exponential": lambda L, o: L.ExponentialLR(o, 0.95), "cosine": lambda L, o: L.CosineAnnealingLR(o, 20, 0.01),
    "linear": lambda L, o: L.LinearLR(o, 0.2, 1.0, 15), "linear down": lambda L, o: L.LinearLR(o, 1.0, 0.0, 40),
    "constant": lambda L, o: L.ConstantLR(o, 0.5, 8), "polynomial": lambda L, o: L.PolynomialLR(o, 30, 2.0),
    "lambda": lambda L, o: L.LambdaLR(o, lambda e: 1 / (e + 1)), "lambda object": lambda L, o: L.LambdaLR(o, Decay(0.3)),
    "lambdas": lambda L, o: L.LambdaLR(o, [lambda e: 0.9**e, lambda e: 1 / (e + 1)]),
    "multiplicative": lambda L, o: L.MultiplicativeLR(o, lambda e: 0.97),
    "onecycle": lambda L, o: L.OneCycleLR(o, 0.7, total_steps=100),
    "onecycle lists": lambda L, o: L.OneCycleLR(o, [0.7, 0.1], epochs=10, steps_per_epoch=12, pct_start=0.5, base_momentum=[0.7, 0.8]),
    "onecycle 3": lambda L, o: L.OneCycleLR(o, 0.7, total_steps=100, three_phase=True, anneal_strategy="linear"),
    "onecycle still": lambda L, o: L.OneCycleLR(o, 0.7, total_steps=100, cycle_momentum=False, div_factor=4, final_div_factor=10),
    "cyclic": lambda L, o: L.CyclicLR(o, 0.01, [0.5, 0.3], 9), "cyclic 2": lambda L, o: L.CyclicLR(o, 0.01, 0.5, 9, 4, "triangular2"),
    "cyclic exp": lambda L, o: L.CyclicLR(o, 0.01, 0.5, 9, mode="exp_range", gamma=0.99),
    "cyclic fn": lambda L, o: L.CyclicLR(o, 0.01, 0.5, 9, scale_fn=lambda x: 0.9**x, scale_mode="iterations", cycle_momentum=False),
    "cyclic object": lambda L, o: L.CyclicLR(o, 0.01, 0.5, 9, scale_fn=Decay(0.2)),
    "restarts": lambda L, o: L.CosineAnnealingWarmRestarts(o, 7, 2, 0.001), "restarts 1": lambda L, o: L.CosineAnnealingWarmRestarts(o, 13),
    "sequential": lambda L, o: L.SequentialLR(o, [L.LinearLR(o, 0.1, 1.0, 10), L.CosineAnnealingLR(o, 50)], [10]),
    "sequential 3": lambda L, o: L.SequentialLR(o, [L.ConstantLR(o, 0.1, 5), L.ExponentialLR(o, 0.9), L.StepLR(o, 3)], [5, 20]),
    "sequential restarts": lambda L, o: L.SequentialLR(o, [L.ConstantLR(o, 0.1, 5), L.CosineAnnealingWarmRestarts(o, 9)], [5]),
    "nested": lambda L, o: L.SequentialLR(o, [L.SequentialLR(o, [L.ConstantLR(o, 0.1, 5), L.StepLR(o, 4)], [8]), L.ExponentialLR(o, 0.9)], [30]),
    "chained": lambda L, o: L.ChainedScheduler([L.ConstantLR(o, 0.1, 5), L.ExponentialLR(o, 0.9)]),
    "chained of sequential": lambda L, o: L.ChainedScheduler([L.SequentialLR(o, [L.ConstantLR(o, 0.1, 5), L.StepLR(o, 4)], [8]), L.MultiplicativeLR(o, lambda e: 0.99)], o),
}
every_schedule = pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS.keys())
quiet = pytest.mark.filterwarnings("ignore::UserWarning")


def optimizer(T, name: str = "SGD", lr=0.3):
    ps = [T.zeros(2, requires_grad=True), T.zeros(3, requires_grad=True)]
    groups = [{"params": ps[:1], "lr": lr}, {"params": ps[1:], "lr": 0.05}]
    return T.optim.SGD(groups, momentum=0.9) if name == "SGD" else getattr(T.optim, name)(groups)


def driven(opt) -> list[float]:
    """What schedulers change, as floats."""
    return [float(x) for g in opt.param_groups for x in (g["lr"], g["momentum"] if "momentum" in g else g["betas"][0])]


def drive(opt, sched, n: int) -> list[list[float]]:
    out = [driven(opt)]
    for _ in range(n):
        opt.step()
        sched.step()
        assert sched.get_last_lr() == [g["lr"] for g in opt.param_groups]
        out.append(driven(opt))
    return out


@quiet
@pytest.mark.parametrize("name", ["SGD", "Adam"])
@every_schedule
def test_hundred_steps(make, name: str) -> None:
    rates = []
    for T in (graphc, torch):
        opt = optimizer(T, name)
        rates.append(drive(opt, make(T.optim.lr_scheduler, opt), 100))
    np.testing.assert_allclose(rates[0], rates[1], rtol=1e-12, atol=1e-15)
    assert len({tuple(r) for r in rates[0]}) > 1


@quiet
@every_schedule
def test_state_dict_layout_and_resuming(make) -> None:
    ours, theirs = optimizer(graphc), optimizer(torch)
    a, b = make(graphc.optim.lr_scheduler, ours), make(torch.optim.lr_scheduler, theirs)
    drive(ours, a, 7)
    drive(theirs, b, 7)

    def keys(sd):
        return {k for k in sd if k != "_scale_fn_ref"}, [keys(s) for s in sd.get("_schedulers", [])]

    assert keys(a.state_dict()) == keys(b.state_dict())
    fresh = optimizer(graphc)
    c = make(graphc.optim.lr_scheduler, fresh)
    # from torch's own state: only Python numbers are inside
    c.load_state_dict(pickle.loads(pickle.dumps(copy.copy(b.state_dict()))))
    fresh.load_state_dict({"state": {}, "param_groups": theirs.state_dict()["param_groups"]})
    np.testing.assert_allclose(drive(fresh, c, 40), drive(theirs, b, 40), rtol=1e-12, atol=1e-15)


def test_callable_objects_are_restored() -> None:
    opt = optimizer(graphc)
    sched = graphc.optim.lr_scheduler.LambdaLR(opt, Decay(0.3))
    sd = sched.state_dict()
    other = graphc.optim.lr_scheduler.LambdaLR(optimizer(graphc), Decay(9.0))
    other.load_state_dict(sd)
    assert other.lr_lambdas[0].rate == 0.3 and sd["lr_lambdas"] == [{"rate": 0.3}] * 2
    plain = graphc.optim.lr_scheduler.LambdaLR(opt, lambda e: 1.0)
    assert plain.state_dict()["lr_lambdas"] == [None, None]


@quiet
@pytest.mark.parametrize("name", [n for n in SCHEDULERS if "chained" not in n and "sequential" not in n and "nested" not in n])
def test_jumping_to_an_epoch(name: str) -> None:
    rates = []
    for T in (graphc, torch):
        opt = optimizer(T)
        sched = SCHEDULERS[name](T.optim.lr_scheduler, opt)
        out = []
        for epoch in (3, 11, 0, 29, 30):
            sched.step(epoch)
            out.append(driven(opt))
        rates.append(out)
    np.testing.assert_allclose(rates[0], rates[1], rtol=1e-12, atol=1e-15)


def test_warm_restarts_at_fractional_epochs() -> None:
    rates = []
    for T in (graphc, torch):
        opt = optimizer(T)
        sched = T.optim.lr_scheduler.CosineAnnealingWarmRestarts(opt, 3, 2)
        rates.append([(sched.step(i / 4), driven(opt))[1] for i in range(80)])
    np.testing.assert_allclose(rates[0], rates[1], rtol=1e-12)


@quiet
@pytest.mark.parametrize("name", ["cosine", "linear", "exponential", "polynomial", "step"])
def test_resuming_with_last_epoch(name: str) -> None:
    cls = {"cosine": ("CosineAnnealingLR", (20,)), "linear": ("LinearLR", ()), "exponential": ("ExponentialLR", (0.9,)),
           "polynomial": ("PolynomialLR", (30,)), "step": ("StepLR", (4,))}[name]
    rates = []
    for T in (graphc, torch):
        opt = optimizer(T)
        for g in opt.param_groups:
            g["initial_lr"] = 0.4
        rates.append(drive(opt, getattr(T.optim.lr_scheduler, cls[0])(opt, *cls[1], last_epoch=9), 15))
    np.testing.assert_allclose(rates[0], rates[1], rtol=1e-12, atol=1e-15)


@quiet
@pytest.mark.parametrize("name", ["step", "cosine", "linear", "onecycle", "restarts", "sequential"])
def test_tensor_rates_are_filled_in_place(name: str) -> None:
    rates = []
    for T in (graphc, torch):
        lr = T.tensor(0.3, dtype=T.float64)
        opt = optimizer(T, lr=lr)
        sched = SCHEDULERS[name](T.optim.lr_scheduler, opt)
        rates.append([(opt.step(), sched.step(), driven(opt))[2] for _ in range(12)])
        assert opt.param_groups[0]["lr"] is lr
        last = sched.get_last_lr()[0]
        assert last is not lr and float(last) == float(lr)
    np.testing.assert_allclose(rates[0], rates[1], rtol=1e-12)


@pytest.mark.parametrize("options", [dict(), dict(mode="max"), dict(min_lr=[0.01, 0.02]), dict(threshold=0.3), dict(mode="max", threshold_mode="abs", threshold=0.1),
                                     dict(threshold_mode="abs", cooldown=3, min_lr=0.001, factor=0.7)], ids=str)
def test_plateau(options: dict) -> None:
    metrics = np.abs(np.sin(np.arange(100) / 5)) + 1 / (1 + np.arange(100))
    rates, states = [], []
    for T in (graphc, torch):
        opt = optimizer(T)
        sched = T.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=4, **options)
        rates.append([(sched.step(T.tensor(m)), sched.get_last_lr())[1] for m in metrics[:60]])
        again = T.optim.lr_scheduler.ReduceLROnPlateau(opt)
        again.load_state_dict(sched.state_dict())
        rates[-1] += [(again.step(m), driven(opt)[::2])[1] for m in metrics[60:]]
        states.append(again.state_dict())
    np.testing.assert_allclose(rates[0], rates[1], rtol=1e-12)
    assert len({tuple(r) for r in rates[0]}) > 2
    assert states[0] == states[1]


def test_a_group_added_later() -> None:
    opt = optimizer(graphc)
    sched = graphc.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=0, min_lr=0.01)
    listed = graphc.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=0, min_lr=[0.01, 0.02])
    opt.add_param_group({"params": [graphc.zeros(1, requires_grad=True)], "lr": 1.0})
    for _ in range(2):
        sched.step(1.0)
    assert opt.param_groups[2]["lr"] == pytest.approx(0.1) and sched.min_lrs == [0.01] * 3
    listed.step(1.0)
    with pytest.raises(RuntimeError, match=r"The number of param groups in the `optimizer` \(3\) differs from when"):
        listed.step(1.0)


@pytest.mark.parametrize("name", ["LRScheduler", "StepLR", "MultiStepLR", "ConstantLR", "LinearLR", "ExponentialLR", "PolynomialLR",
                                  "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "OneCycleLR", "CyclicLR", "ReduceLROnPlateau",
                                  "LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler"])
def test_signatures(name: str) -> None:
    def shown(cls, method):
        return [(p.name, p.kind, p.default) for p in inspect.signature(getattr(cls, method)).parameters.values()]

    ours, theirs = getattr(graphc.optim.lr_scheduler, name), getattr(torch.optim.lr_scheduler, name)
    assert shown(ours, "__init__") == shown(theirs, "__init__")
    assert shown(ours, "step") == shown(theirs, "step")


# ------------------------------------------------------------------------------------------------------------- warnings
def caught(fn) -> list[tuple[type, str]]:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        fn()
    return [(w.category, str(w.message)) for w in seen]


def wrong_order(T) -> None:
    opt = optimizer(T)
    sched = T.optim.lr_scheduler.StepLR(opt, 3)
    sched.step()
    opt.step()
    sched.step()


def right_order(T) -> None:
    opt = optimizer(T)
    sched = T.optim.lr_scheduler.StepLR(opt, 3)
    opt.step()
    sched.step()
    sched.step()


def overridden(T) -> None:
    opt = optimizer(T)
    sched = T.optim.lr_scheduler.StepLR(opt, 3)
    opt.step = lambda: None
    sched.step()


def with_epoch(T) -> None:
    opt = optimizer(T)
    sched = T.optim.lr_scheduler.StepLR(opt, 3)
    opt.step()
    sched.step(4)


def plateau_epoch(T) -> None:
    T.optim.lr_scheduler.ReduceLROnPlateau(optimizer(T)).step(1.0, 3)


def get_lr(T) -> None:
    T.optim.lr_scheduler.StepLR(optimizer(T), 3).get_lr()


@pytest.mark.parametrize("case,n", [(wrong_order, 1), (right_order, 0), (overridden, 1), (with_epoch, 1), (plateau_epoch, 1), (get_lr, 1)])
def test_warnings_are_pytorchs(case, n: int) -> None:
    ours, theirs = caught(lambda: case(graphc)), caught(lambda: case(torch))
    assert ours == theirs
    assert len(ours) == n


# --------------------------------------------------------------------------------------------------------------- errors
ERRORS = {
    "not an optimizer": lambda L, o: L.StepLR(3, 1), "cyclic optimizer": lambda L, o: L.CyclicLR(3, 1, 1),
    "onecycle optimizer": lambda L, o: L.OneCycleLR("x", 1), "plateau optimizer": lambda L, o: L.ReduceLROnPlateau(None),
    "resume": lambda L, o: L.StepLR(o, 1, last_epoch=3), "constant": lambda L, o: L.ConstantLR(o, 1.5),
    "linear start": lambda L, o: L.LinearLR(o, 0.0), "linear end": lambda L, o: L.LinearLR(o, 0.5, 2.0),
    "lambdas": lambda L, o: L.LambdaLR(o, [lambda e: 1.0]), "multiplicative": lambda L, o: L.MultiplicativeLR(o, [1, 2]),
    "T_0": lambda L, o: L.CosineAnnealingWarmRestarts(o, 0), "T_0 float": lambda L, o: L.CosineAnnealingWarmRestarts(o, 1.5),
    "T_mult": lambda L, o: L.CosineAnnealingWarmRestarts(o, 1, 0), "eta_min": lambda L, o: L.CosineAnnealingWarmRestarts(o, 1, 1, "0"),
    "negative epoch": lambda L, o: L.CosineAnnealingWarmRestarts(o, 1).step(-1),
    "no length": lambda L, o: L.OneCycleLR(o, 0.1), "total_steps": lambda L, o: L.OneCycleLR(o, 0.1, total_steps=-1),
    "total_steps float": lambda L, o: L.OneCycleLR(o, 0.1, total_steps=2.5), "epochs": lambda L, o: L.OneCycleLR(o, 0.1, epochs=0, steps_per_epoch=3),
    "steps_per_epoch": lambda L, o: L.OneCycleLR(o, 0.1, epochs=2, steps_per_epoch=-3),
    "pct_start": lambda L, o: L.OneCycleLR(o, 0.1, total_steps=5, pct_start=1.5), "pct_start int": lambda L, o: L.OneCycleLR(o, 0.1, total_steps=5, pct_start=1),
    "anneal": lambda L, o: L.OneCycleLR(o, 0.1, total_steps=5, anneal_strategy="exp"), "max_lr list": lambda L, o: L.OneCycleLR(o, [0.1], total_steps=5),
    "cyclic list": lambda L, o: L.CyclicLR(o, 0.1, [0.2, 0.3, 0.4]), "cyclic mode": lambda L, o: L.CyclicLR(o, 0.1, 0.2, mode="square"),
    "factor": lambda L, o: L.ReduceLROnPlateau(o, factor=1.0), "mode": lambda L, o: L.ReduceLROnPlateau(o, mode="mean"),
    "threshold mode": lambda L, o: L.ReduceLROnPlateau(o, threshold_mode="log"), "min_lrs": lambda L, o: L.ReduceLROnPlateau(o, min_lr=[0.1]),
    "sequential none": lambda L, o: L.SequentialLR(o, [], []), "chained none": lambda L, o: L.ChainedScheduler([]),
    "milestones": lambda L, o: L.SequentialLR(o, [L.StepLR(o, 1), L.StepLR(o, 2)], []),
    "sequential plateau": lambda L, o: L.SequentialLR(o, [L.ReduceLROnPlateau(o), L.StepLR(o, 2)], [3]),
    "chained plateau": lambda L, o: L.ChainedScheduler([L.StepLR(o, 2), L.ReduceLROnPlateau(o)]),
    "sequential type": lambda L, o: L.SequentialLR(o, [L.StepLR(o, 1), 3], [2]), "chained type": lambda L, o: L.ChainedScheduler([L.StepLR(o, 1), 3]),
}


@pytest.mark.parametrize("make", ERRORS.values(), ids=ERRORS.keys())
def test_errors_are_pytorchs(make) -> None:
    errors = []
    for T in (graphc, torch):
        with pytest.raises(Exception) as info:
            make(T.optim.lr_scheduler, optimizer(T))
        errors.append(info.value)
    assert isinstance(errors[0], type(errors[1])), errors
    assert str(errors[0]) == str(errors[1])


def test_schedulers_of_another_optimizer() -> None:
    for T in (graphc, torch):
        L, o = T.optim.lr_scheduler, optimizer(T)
        for make in (lambda: L.SequentialLR(o, [L.StepLR(o, 1), L.StepLR(optimizer(T), 1)], [2]),
                     lambda: L.ChainedScheduler([L.StepLR(o, 1), L.StepLR(optimizer(T), 1)])):
            with pytest.raises(ValueError, match="expects all schedulers to belong to the same optimizer, but got scheduler StepLR at index 1"):
                make()


@quiet
def test_one_cycle_ends() -> None:
    for T in (graphc, torch):
        opt = optimizer(T)
        sched = T.optim.lr_scheduler.OneCycleLR(opt, 0.1, total_steps=3)
        for _ in range(3):
            sched.step()
        with pytest.raises(ValueError, match=r"Tried to step 4 times. The specified number of total steps is 3"):
            sched.step()


def test_momentum_cycle_needs_momentum() -> None:
    for T in (graphc, torch):
        opt = T.optim.Adagrad([T.zeros(1, requires_grad=True)])
        for make in (lambda: T.optim.lr_scheduler.OneCycleLR(opt, 0.1, 5), lambda: T.optim.lr_scheduler.CyclicLR(opt, 0.1, 0.2)):
            with pytest.raises(ValueError, match="optimizer must support momentum or beta1 with `cycle_momentum` option enabled"):
                make()
