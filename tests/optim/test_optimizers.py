"""Optimizers follow PyTorch: trajectories, signatures, state dicts, parameter groups, hooks, error texts."""
from __future__ import annotations

import copy
import inspect
import pickle
import warnings

import numpy as np
import pytest

import graphc
from graphc.ir.recorder import counters

torch = pytest.importorskip("torch")

NAMES = ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "Rprop", "ASGD"]
CASES = [
    ("SGD", dict(lr=0.1)), ("SGD", dict(lr=0.1, weight_decay=0.2)), ("SGD", dict(lr=0.1, momentum=0.9)),
    ("SGD", dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1)),
    ("SGD", dict(lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.1)), ("SGD", dict(lr=0.1, momentum=0.5, maximize=True)),
    ("Adam", dict(lr=0.05)), ("Adam", dict(lr=0.05, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-4)),
    ("Adam", dict(lr=0.05, amsgrad=True)), ("Adam", dict(lr=0.05, maximize=True)),
    ("Adam", dict(lr=0.05, weight_decay=0.3, decoupled_weight_decay=True)),
    ("AdamW", dict(lr=0.05)), ("AdamW", dict(lr=0.05, weight_decay=0.3, amsgrad=True)),
    ("RMSprop", dict(lr=0.02)), ("RMSprop", dict(lr=0.02, centered=True)), ("RMSprop", dict(lr=0.02, momentum=0.9)),
    ("RMSprop", dict(lr=0.02, momentum=0.9, centered=True, weight_decay=0.1, alpha=0.9, maximize=True)),
    ("Adagrad", dict(lr=0.1)), ("Adagrad", dict(lr=0.1, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.2)),
    ("Adagrad", dict(lr=0.1, maximize=True)), ("Adadelta", dict(lr=0.5)),
    ("Adadelta", dict(lr=0.5, rho=0.7, weight_decay=0.1, maximize=True)),
    ("Adamax", dict(lr=0.05)), ("Adamax", dict(lr=0.05, weight_decay=0.1, maximize=True)),
    ("NAdam", dict(lr=0.05, weight_decay=0.1)), ("NAdam", dict(lr=0.05, momentum_decay=0.1, maximize=True)),
    ("NAdam", dict(lr=0.05, weight_decay=0.1, decoupled_weight_decay=True)),
    ("RAdam", dict(lr=0.05, weight_decay=0.1)), ("RAdam", dict(lr=0.05, maximize=True)),
    ("RAdam", dict(lr=0.05, weight_decay=0.1, decoupled_weight_decay=True, betas=(0.8, 0.9))),
    ("Rprop", dict(lr=0.05)), ("Rprop", dict(lr=0.1, etas=(0.4, 1.5), step_sizes=(0.01, 0.3), maximize=True)),
    ("ASGD", dict(lr=0.1)), ("ASGD", dict(lr=0.1, lambd=0.1, alpha=0.5, t0=3, weight_decay=0.1)),
    ("ASGD", dict(lr=0.1, maximize=True)),
]


def start(T, dtype: str = "float64"):
    r = np.random.default_rng(0)
    return [T.tensor(r.normal(size=s)).to(getattr(T, dtype)).requires_grad_(True) for s in ((3, 4), (5,), ())]


def loss_of(params, i: int = 0):
    return sum(((p * 0.7).sin() * (1 + 0.1 * i) + (0.3 * p + 0.1 * i).cos() * p).sum() for p in params)


def run(opt, params, steps: int) -> None:
    for i in range(steps):
        opt.zero_grad()
        loss_of(params, i).backward()
        opt.step()


def assert_same(ours, theirs, rtol: float, atol: float = 0.0) -> None:
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x.detach().numpy(), y.detach().numpy(), rtol=rtol, atol=atol)


def to_graphc(x):
    """Torch's state dict with graphc's tensors."""
    if isinstance(x, torch.Tensor):
        return graphc.tensor(x.detach().numpy().copy())
    if isinstance(x, dict):
        return {k: to_graphc(v) for k, v in x.items()}
    return [to_graphc(v) for v in x] if isinstance(x, list) else x


def same_error(make) -> None:
    """``make(T)`` fails with the same built-in error type and text for graphc and torch."""
    errors = []
    for T in (graphc, torch):
        with pytest.raises(Exception) as info:
            make(T)
        errors.append(info.value)
    ours, theirs = errors
    assert isinstance(ours, type(theirs)), (ours, theirs)
    assert str(ours) == str(theirs)


# ------------------------------------------------------------------------------------------------------- trajectories
@pytest.mark.parametrize("dtype,tol", [("float64", 1e-9), ("float32", 1e-5)])
@pytest.mark.parametrize("name,options", CASES, ids=str)
def test_trajectory(name: str, options: dict, dtype: str, tol: float) -> None:
    ours, theirs = start(graphc, dtype), start(torch, dtype)
    run(getattr(graphc.optim, name)(ours, **options), ours, 10)
    run(getattr(torch.optim, name)(theirs, **options), theirs, 10)
    assert_same(ours, theirs, tol, tol)
    assert all(abs(p - q).max().item() > 1e-3 for p, q in zip(ours, start(graphc, dtype)))


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_parameters_stay_bfloat16(name: str) -> None:
    ours, theirs = start(graphc, "bfloat16"), start(torch, "bfloat16")
    opt = getattr(graphc.optim, name)(ours)
    run(opt, ours, 3)
    run(getattr(torch.optim, name)(theirs), theirs, 3)
    for x, y in zip(ours, theirs):
        assert x.dtype is graphc.bfloat16
        np.testing.assert_allclose(x.detach().float().numpy(), y.detach().float().numpy(), rtol=0.05, atol=0.05)
    assert all(t.dtype is graphc.bfloat16 for s in opt.state.values() for k, t in s.items()
               if t is not None and k not in ("step", "eta", "mu", "mu_product"))


@pytest.mark.parametrize("name", NAMES)
def test_a_tensor_rate_and_a_group_without_gradient(name: str) -> None:
    ours, theirs = start(graphc), start(torch)
    a = getattr(graphc.optim, name)(ours, lr=graphc.tensor(0.05, dtype=graphc.float64))
    b = getattr(torch.optim, name)(theirs, lr=torch.tensor(0.05, dtype=torch.float64))
    for opt, ps in ((a, ours), (b, theirs)):
        for i in range(4):
            opt.zero_grad()
            loss_of(ps[:2], i).backward()
            opt.step()
            opt.param_groups[0]["lr"].fill_(0.05 / (i + 2))
    assert_same(ours, theirs, 1e-6)
    assert ours[2].grad is None


def test_tensor_betas() -> None:
    ours, theirs = start(graphc), start(torch)
    run(graphc.optim.Adam(ours, betas=(graphc.tensor(0.8), graphc.tensor([0.95]))), ours, 5)
    run(torch.optim.Adam(theirs, betas=(torch.tensor(0.8), torch.tensor([0.95]))), theirs, 5)
    assert_same(ours, theirs, 1e-5)


@pytest.mark.parametrize("options", [dict(lr=0.3), dict(lr=0.5, max_iter=7, history_size=3), dict(line_search_fn="strong_wolfe"),
                                     dict(line_search_fn="strong_wolfe", max_iter=30, max_eval=12),
                                     dict(lr=5.0, line_search_fn="strong_wolfe")], ids=str)
def test_lbfgs(options: dict) -> None:
    def rosenbrock(T):
        p, q = T.tensor([-1.2, 1.0, 0.5], dtype=T.float64), T.tensor(0.3, dtype=T.float64)
        ps = [p.requires_grad_(True), q.requires_grad_(True)]
        opt = T.optim.LBFGS(ps, **options)

        def closure():
            opt.zero_grad()
            x = T.cat([ps[0], ps[1].reshape(1)])
            loss = (10 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()
            loss.backward()
            return loss

        losses = [opt.step(closure).item() for _ in range(3)]
        state = opt.state[ps[0]]
        return ps, losses, (state["func_evals"], state["n_iter"]), opt

    ours, losses, counts, a = rosenbrock(graphc)
    theirs, losses_t, counts_t, b = rosenbrock(torch)
    assert counts == counts_t
    np.testing.assert_allclose(losses, losses_t, rtol=1e-6, atol=1e-12)
    assert_same(ours, theirs, 1e-6)
    assert set(a.state_dict()["state"][0]) | {"al"} == set(b.state_dict()["state"][0]) | {"al"}


def test_lbfgs_resumes_from_torchs_state() -> None:
    def closure_of(opt, ps):
        def closure():
            opt.zero_grad()
            loss = sum((p**4 + 0.5 * (p - 1) ** 2).sum() for p in ps)
            loss.backward()
            return loss

        return closure

    theirs = start(torch)
    b = torch.optim.LBFGS(theirs, lr=0.1, max_iter=4)
    b.step(closure_of(b, theirs))
    ours = [graphc.tensor(p.detach().numpy().copy()).requires_grad_(True) for p in theirs]
    a = graphc.optim.LBFGS(ours, lr=0.1, max_iter=4)
    a.load_state_dict(to_graphc(b.state_dict()))
    a.step(closure_of(a, ours))
    b.step(closure_of(b, theirs))
    assert_same(ours, theirs, 1e-7)


# --------------------------------------------------------------------------------------------------------- interface
@pytest.mark.parametrize("name", [*NAMES, "LBFGS"])
def test_signature_and_groups_are_pytorchs(name: str) -> None:
    def shown(cls):
        return [(p.name, p.kind, p.default) for p in inspect.signature(cls.__init__).parameters.values()]

    ours, theirs = getattr(graphc.optim, name), getattr(torch.optim, name)
    assert shown(ours) == shown(theirs)
    a, b = ours(start(graphc)), theirs(start(torch))
    assert repr(a) == repr(b)
    assert list(a.defaults) == list(b.defaults)
    assert a.state_dict()["param_groups"] == b.state_dict()["param_groups"]


def test_repr_of_several_groups() -> None:
    texts = []
    for T in (graphc, torch):
        ps = start(T)
        texts.append(repr(T.optim.SGD([{"params": ps[:1], "lr": 0.5}, {"params": ps[1], "momentum": 0.3}], lr=0.1)))
    assert texts[0] == texts[1]


def test_named_parameters_and_groups() -> None:
    shown = []
    for T in (graphc, torch):
        net = T.nn.Sequential(T.nn.Linear(2, 3), T.nn.Linear(3, 1))
        opt = T.optim.SGD(net.named_parameters(), lr=0.1)
        opt.add_param_group({"params": [("extra", T.nn.Parameter(T.zeros(2)))], "lr": 1})
        shown.append(opt.state_dict())
    assert shown[0] == shown[1]
    assert shown[0]["param_groups"][1]["param_names"] == ["extra"]


def test_groups_step_with_their_own_options() -> None:
    ps = start(graphc)
    opt = graphc.optim.SGD([{"params": ps[:1], "lr": 0.5}, {"params": ps[1:]}], lr=0.1)
    before = [np.array(p.tolist()) for p in ps]
    sum(p.sum() for p in ps).backward()
    opt.step()
    for p, old, lr in zip(ps, before, (0.5, 0.1, 0.1)):
        np.testing.assert_allclose(p.tolist(), old - lr)


def test_closure_runs_with_gradients_and_its_loss_comes_back() -> None:
    ps = start(graphc)
    opt = graphc.optim.Adam(ps)

    def closure():
        opt.zero_grad()
        loss = loss_of(ps)
        loss.backward()
        return loss

    with graphc.no_grad():
        first, second = opt.step(closure), opt.step(closure)
        assert not graphc.is_grad_enabled()
    assert second.item() < first.item()


def test_zero_grad() -> None:
    ps = start(graphc)
    opt = graphc.optim.SGD(ps, lr=0.1)
    loss_of(ps).backward()
    held = ps[0].grad
    opt.zero_grad(set_to_none=False)
    assert ps[0].grad is held
    assert all(not p.grad.requires_grad and p.grad.abs().sum().item() == 0 for p in ps)
    opt.zero_grad()
    assert all(p.grad is None for p in ps)


def test_a_users_subclass_that_overrides_step() -> None:
    def make(T):
        class Signs(T.optim.Optimizer):
            def __init__(self, params, lr):
                super().__init__(params, dict(lr=lr))

            @T.no_grad()
            def step(self, closure=None):
                for group in self.param_groups:
                    for p in group["params"]:
                        self.state[p]["n"] = self.state[p].get("n", 0) + 1
                        p.add_(p.grad.sign(), alpha=-group["lr"])

        ps = start(T)
        opt = Signs(ps, 0.01)
        seen = []
        opt.register_step_pre_hook(lambda o, a, k: seen.append("pre"))
        opt.register_step_post_hook(lambda o, a, k: seen.append("post"))
        sched = T.optim.lr_scheduler.StepLR(opt, 2)
        for i in range(4):
            opt.zero_grad()
            loss_of(ps, i).backward()
            opt.step()
            sched.step()
        return ps, seen, opt

    ours, seen, opt = make(graphc)
    theirs, seen_t, opt_t = make(torch)
    assert seen == seen_t == ["pre", "post"] * 4
    assert opt.state_dict() == opt_t.state_dict()
    assert_same(ours, theirs, 1e-12)


def test_the_base_class_cannot_step() -> None:
    p = start(graphc)
    opt = graphc.optim.Optimizer(p, {"lr": 0.1})
    loss_of(p).backward()
    with pytest.raises(NotImplementedError):
        opt.step()


# --------------------------------------------------------------------------------------------------------------- hooks
def test_step_hooks_order_and_replaced_arguments() -> None:
    from graphc.optim import optimizer as module

    ps = start(graphc)
    opt = graphc.optim.SGD(ps, lr=0.1)
    loss_of(ps).backward()
    seen: list = []
    handles = [module.register_optimizer_step_pre_hook(lambda o, a, k: seen.append("global pre")),
               module.register_optimizer_step_post_hook(lambda o, a, k: seen.append("global post")),
               opt.register_step_pre_hook(lambda o, a, k: ((o, lambda: seen.append("closure")), {})),
               opt.register_step_post_hook(lambda o, a, k: seen.append(len(a)))]
    opt.step()
    assert seen == ["global pre", "closure", 2, "global post"]
    for h in handles:
        h.remove()
    opt.step()
    assert len(seen) == 4
    opt.register_step_pre_hook(lambda o, a, k: 5)
    with pytest.raises(RuntimeError, match="must return None or a tuple of"):
        opt.step()


def test_state_dict_hooks() -> None:
    opt = graphc.optim.SGD(start(graphc), lr=0.1)
    seen: list = []
    opt.register_state_dict_pre_hook(lambda o: seen.append("a"))
    opt.register_state_dict_pre_hook(lambda o: seen.append("b"), prepend=True)
    opt.register_state_dict_post_hook(lambda o, sd: {**sd, "extra": 1})
    opt.register_load_state_dict_pre_hook(lambda o, sd: seen.append(sd.pop("extra")))
    opt.register_load_state_dict_post_hook(lambda o: seen.append("after"))
    sd = opt.state_dict()
    opt.load_state_dict(sd)
    assert seen == ["b", "a", 1, "after"]
    assert sd["extra"] == 1  # the hook worked on a copy


# --------------------------------------------------------------------------------------------------------- state dicts
@pytest.mark.parametrize("how", ["dict", "pickle", "deepcopy"])
@pytest.mark.parametrize("name,options", [(n, {}) for n in NAMES] + [("SGD", dict(momentum=0.9)), ("Adam", dict(amsgrad=True)),
                                                                     ("RMSprop", dict(momentum=0.5, centered=True))], ids=str)
def test_state_dict_resumes(name: str, options: dict, how: str) -> None:
    p1 = start(graphc)
    a = getattr(graphc.optim, name)(p1, **options)
    run(a, p1, 3)
    if how == "deepcopy":
        p2, b = copy.deepcopy((p1, a))
    else:
        p2 = [p.detach().clone().requires_grad_(True) for p in p1]
        b = getattr(graphc.optim, name)(p2, lr=77.0)
        sd = a.state_dict()
        b.load_state_dict(pickle.loads(pickle.dumps(sd)) if how == "pickle" else sd)
    run(a, p1, 3)
    run(b, p2, 3)
    assert [p.tolist() for p in p1] == [p.tolist() for p in p2]


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_layout_and_loading_torchs(name: str) -> None:
    options = dict(momentum=0.9) if name in ("SGD", "RMSprop") else {}
    ours, theirs = start(graphc), start(torch)
    a, b = getattr(graphc.optim, name)(ours, **options), getattr(torch.optim, name)(theirs, **options)
    run(a, ours, 2)
    run(b, theirs, 2)
    sa, sb = a.state_dict(), b.state_dict()
    assert sa["param_groups"] == sb["param_groups"]
    assert list(sa["state"]) == list(sb["state"])
    for i in sb["state"]:
        assert set(sa["state"][i]) == set(sb["state"][i])
        for k, v in sb["state"][i].items():
            u = sa["state"][i][k]
            assert (str(u.dtype), tuple(u.shape)) == (str(v.dtype), tuple(v.shape)), k
            np.testing.assert_allclose(u.numpy(), v.numpy(), rtol=1e-6)
    fresh = [graphc.tensor(p.detach().numpy().copy()).requires_grad_(True) for p in theirs]
    c = getattr(graphc.optim, name)(fresh)
    c.load_state_dict(to_graphc(sb))
    run(c, fresh, 3)
    run(b, theirs, 3)
    assert_same(fresh, theirs, 1e-9)


def test_loading_casts_state_and_fills_in_old_checkpoints() -> None:
    ps = start(graphc, "float32")
    opt = graphc.optim.AdamW(ps, lr=0.1)
    old = {"state": {0: {"step": 7, "exp_avg": graphc.ones(3, 4, dtype=graphc.float64), "exp_avg_sq": graphc.ones(3, 4)}},
           "param_groups": [{"lr": 0.2, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False,
                             "params": [0, 1, 2]}]}
    opt.load_state_dict(old)
    assert opt.state[ps[0]]["exp_avg"].dtype is graphc.float32
    assert opt.param_groups[0]["lr"] == 0.2 and opt.param_groups[0]["decoupled_weight_decay"] is True
    loss_of(ps).backward()
    opt.step()
    assert opt.state[ps[0]]["step"].item() == 8 and opt.state[ps[1]]["step"].item() == 1
    assert old["state"][0]["step"] == 7 and old["state"][0]["exp_avg"].sum().item() == 12


def test_loaded_state_does_not_share_memory() -> None:
    ps = start(graphc)
    a = graphc.optim.Adam(ps)
    run(a, ps, 1)
    b = graphc.optim.Adam(start(graphc))
    sd = a.state_dict()
    b.load_state_dict(sd)
    before = sd["state"][0]["exp_avg"].tolist()
    run(b, b.param_groups[0]["params"], 1)
    assert sd["state"][0]["exp_avg"].tolist() == before and sd["state"][0]["step"].item() == 1


def test_writing_the_shown_step_count_counts() -> None:
    ps = start(graphc)
    opt = graphc.optim.Adam(ps)
    run(opt, ps, 2)
    state = opt.state[ps[0]]
    state["step"] += 5
    opt.state[ps[1]]["step"].fill_(40)
    opt.state[ps[2]]["step"] = 9
    run(opt, ps, 1)
    assert [opt.state[p]["step"].item() for p in ps] == [8, 41, 10]


# ---------------------------------------------------------------------------------------------------------- compilation
@pytest.mark.parametrize("name", NAMES)
def test_steps_never_recompile_nor_read(name: str) -> None:
    ps = start(graphc, "float32")
    opt = getattr(graphc.optim, name)(ps, **(dict(momentum=0.9) if name == "SGD" else {}))

    def one(i: int) -> None:
        opt.param_groups[0]["lr"] = 0.01 / (i + 1)
        opt.zero_grad()
        (loss_of(ps, 0)).backward()
        opt.step()

    for i in range(8):  # RAdam changes its formula at step 6
        one(i)
    built, flushes = counters["plans_built"], counters["flushes"]
    for i in range(8, 12):
        one(i)
    assert counters["plans_built"] == built
    assert counters["flushes"] == flushes + 4


def test_a_compiled_step_has_no_graph_break() -> None:
    ps = start(graphc, "float32")
    opt = graphc.optim.NAdam(ps, lr=0.01)

    @graphc.compile(fullgraph=True)
    def train():
        opt.zero_grad()
        loss = loss_of(ps)
        loss.backward()
        opt.step()
        return loss

    losses = [train().item() for _ in range(4)]
    assert losses == sorted(losses, reverse=True) and losses[0] > losses[-1]
    assert opt.state[ps[0]]["step"].item() == 4


# --------------------------------------------------------------------------------------------------------------- errors
ERRORS = [
    ("lr", lambda T, p: T.optim.SGD(p, lr=-1)), ("momentum", lambda T, p: T.optim.SGD(p, momentum=-0.5)),
    ("decay", lambda T, p: T.optim.SGD(p, weight_decay=-0.5)), ("nesterov", lambda T, p: T.optim.SGD(p, nesterov=True)),
    ("nesterov damp", lambda T, p: T.optim.SGD(p, nesterov=True, momentum=0.5, dampening=0.1)),
    ("fused diff", lambda T, p: T.optim.SGD(p, fused=True, differentiable=True)),
    ("fused foreach", lambda T, p: T.optim.SGD(p, fused=True, foreach=True)),
    ("two lrs", lambda T, p: T.optim.SGD(p, lr=T.tensor([0.1, 0.2]))),
    ("adam lr", lambda T, p: T.optim.Adam(p, lr=-0.1)), ("adam eps", lambda T, p: T.optim.Adam(p, eps=-1)),
    ("beta1", lambda T, p: T.optim.Adam(p, betas=(1.5, 0.9))), ("beta2", lambda T, p: T.optim.AdamW(p, betas=(0.5, 1.0))),
    ("adam decay", lambda T, p: T.optim.AdamW(p, weight_decay=-1)), ("mixed betas", lambda T, p: T.optim.Adam(p, betas=(T.tensor(0.5), 0.9))),
    ("foreach lr", lambda T, p: T.optim.Adam(p, lr=T.tensor(0.1), foreach=True)),
    ("foreach betas", lambda T, p: T.optim.Adam(p, betas=(T.tensor(0.1), T.tensor(0.2)), foreach=True)),
    ("big beta", lambda T, p: T.optim.Adam(p, lr=T.tensor(0.1), betas=(T.tensor(0.5), 0.9))),
    *[(f"{n} lr", lambda T, p, n=n: getattr(T.optim, n)(p, lr=-0.5)) for n in [*NAMES, "LBFGS"]],
    *[(f"{n} decay", lambda T, p, n=n: getattr(T.optim, n)(p, weight_decay=-0.5)) for n in NAMES if n != "Rprop"],
    *[(f"{n} eps", lambda T, p, n=n: getattr(T.optim, n)(p, eps=-0.5)) for n in ("RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam")],
    *[(f"{n} beta", lambda T, p, n=n: getattr(T.optim, n)(p, betas=(0.9, -1))) for n in ("Adamax", "NAdam", "RAdam")],
    ("alpha", lambda T, p: T.optim.RMSprop(p, alpha=-1)), ("rms momentum", lambda T, p: T.optim.RMSprop(p, momentum=-1)),
    ("lr_decay", lambda T, p: T.optim.Adagrad(p, lr_decay=-1)), ("rho", lambda T, p: T.optim.Adadelta(p, rho=1.5)),
    ("initial", lambda T, p: T.optim.Adagrad(p, initial_accumulator_value=-1)),
    ("momentum_decay", lambda T, p: T.optim.NAdam(p, momentum_decay=-1)), ("etas", lambda T, p: T.optim.Rprop(p, etas=(1.1, 1.2))),
    ("groups of lbfgs", lambda T, p: T.optim.LBFGS([{"params": p[:1]}, {"params": p[1:]}])),
    ("empty", lambda T, p: T.optim.SGD([])), ("tensor", lambda T, p: T.optim.SGD(p[2])),
    ("no tensors", lambda T, p: T.optim.SGD([1, 2])), ("strings", lambda T, p: T.optim.SGD(["weight"])),
    ("non-leaf", lambda T, p: T.optim.SGD([p[0] * 2])), ("set", lambda T, p: T.optim.SGD([{"params": set(p)}])),
    ("group type", lambda T, p: T.optim.SGD(p).add_param_group(p)),
    ("twice", lambda T, p: T.optim.SGD([{"params": p}, {"params": p[:1]}])),
    ("some names", lambda T, p: T.optim.SGD([("a", p[0]), p[1]])),
    ("named group", lambda T, p: T.optim.SGD(p[:1]).add_param_group({"params": [("a", p[1])]})),
    ("more groups", lambda T, p: T.optim.SGD(p).load_state_dict({"state": {}, "param_groups": [{"params": []}] * 2})),
    ("more params", lambda T, p: T.optim.SGD(p).load_state_dict({"state": {}, "param_groups": [{"params": [0]}]})),
]


@pytest.mark.parametrize("make", [e[1] for e in ERRORS], ids=[e[0] for e in ERRORS])
def test_errors_are_pytorchs(make) -> None:
    same_error(lambda T: make(T, start(T, "float32")))


def test_required_option_is_asked_for() -> None:
    from torch.optim.optimizer import required as required_t

    from graphc.optim.optimizer import required

    same_error(lambda T: T.optim.Optimizer(start(T), {"lr": required if T is graphc else required_t}))


def test_unknown_line_search() -> None:
    def make(T):
        p = start(T)
        opt = T.optim.LBFGS(p, line_search_fn="golden")

        def closure():
            opt.zero_grad()
            loss = loss_of(p)
            loss.backward()
            return loss

        opt.step(closure)

    same_error(make)


def test_duplicates_inside_a_group_warn() -> None:
    p = start(graphc)
    with pytest.warns(UserWarning, match="contains a parameter group with duplicate parameters"):
        graphc.optim.SGD([p[0], p[0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graphc.optim.SGD(p)


def test_complex_parameters_are_refused() -> None:
    p = graphc.ones(2, dtype=graphc.complex64).requires_grad_(True)
    opt = graphc.optim.RMSprop([p])
    p.grad = graphc.ones(2, dtype=graphc.complex64)
    with pytest.raises(RuntimeError, match="real parameters, got one of dtype"):
        opt.step()
