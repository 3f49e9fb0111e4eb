"""Optimizer steps against torch.optim over several steps, for every flag."""
from __future__ import annotations

import itertools

import numpy as np
import pytest

import graphc
from graphc.ir.recorder import counters, flush
from graphc.ops import optim_steps as S

torch = pytest.importorskip("torch")


def real(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def torch_run(make, steps=4, dtype=None):
    p = torch.nn.Parameter(torch.tensor(real(3, 5)).to(dtype or torch.float32))
    opt = make([p])
    for i in range(steps):
        p.grad = torch.tensor(real(3, 5, seed=i + 1)).to(p.dtype)
        opt.step()
    return p.detach().double().numpy()


SGD = [dict(momentum=m, dampening=d, weight_decay=w, nesterov=n, maximize=x)
       for m, d, w, n, x in itertools.product((0.0, 0.9), (0.0, 0.3), (0.0, 0.1), (False, True), (False, True))
       if not n or (m and not d)]


@pytest.mark.parametrize("kw", SGD, ids=str)
def test_sgd(kw):
    p, buf = graphc.tensor(real(3, 5), requires_grad=True), None
    for i in range(4):
        buf = S.sgd_step(p, graphc.tensor(real(3, 5, seed=i + 1)), buf, lr=0.1, **kw)
    assert (buf is not None) == bool(kw["momentum"])
    assert p.requires_grad and p.is_leaf
    np.testing.assert_allclose(p.detach().numpy(), torch_run(lambda ps: torch.optim.SGD(ps, lr=0.1, **kw)), rtol=2e-6, atol=1e-7)


def run_adam(p, steps, decoupled, amsgrad, maximize, wd, lr=0.02):
    m, v = graphc.zeros_like(p), graphc.zeros_like(p)
    top = graphc.zeros_like(p) if amsgrad else None
    for i in range(steps):
        S.adam_step(p, graphc.tensor(real(3, 5, seed=i + 1)).to(p.dtype), m, v, top, lr=lr, beta1=0.9, beta2=0.999, eps=1e-8,
                    weight_decay=wd, bias_correction1=1 - 0.9 ** (i + 1),
                    bias_correction2_sqrt=(1 - 0.999 ** (i + 1)) ** 0.5, decoupled=decoupled, amsgrad=amsgrad,
                    maximize=maximize)


@pytest.mark.parametrize("decoupled,amsgrad,maximize", list(itertools.product((False, True), repeat=3)))
@pytest.mark.parametrize("wd", [0.0, 0.1])
def test_adam(decoupled, amsgrad, maximize, wd):
    p = graphc.tensor(real(3, 5)).detach()
    run_adam(p, 4, decoupled, amsgrad, maximize, wd)
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    want = torch_run(lambda ps: kind(ps, lr=0.02, weight_decay=wd, amsgrad=amsgrad, maximize=maximize))
    np.testing.assert_allclose(p.numpy(), want, rtol=2e-6, atol=1e-7)


def test_float64_and_bfloat16():
    p = graphc.tensor(real(3, 5)).to(graphc.float64)
    run_adam(p, 4, True, False, False, 0.1)
    want = torch_run(lambda ps: torch.optim.AdamW(ps, lr=0.02, weight_decay=0.1), dtype=torch.float64)
    np.testing.assert_allclose(p.numpy(), want, rtol=1e-12)
    q = graphc.tensor(real(3, 5)).to(graphc.bfloat16)
    run_adam(q, 4, True, False, False, 0.1)
    assert q.dtype is graphc.bfloat16
    np.testing.assert_allclose(q.to(graphc.float32).numpy(), want, atol=2e-2)


def test_a_schedule_builds_no_new_plan():
    p, buf = graphc.tensor(real(3, 5)), None
    g = graphc.tensor(real(3, 5, seed=1))
    built = []
    for lr in (0.1, 0.05, 0.02, 0.01, 0.005):
        buf = S.sgd_step(p, g, buf, lr=lr, momentum=0.9)
        flush("step")
        built.append(counters["plans_built"])
    assert built[2] == built[3] == built[4]


def test_tensor_hyper_parameters_and_shared_slots():
    p, q = graphc.tensor(real(3, 5)), graphc.tensor(real(3, 5))
    g = graphc.tensor(real(3, 5, seed=1))
    S.sgd_step(p, g, None, lr=graphc.tensor(0.1))
    hyper = S.sgd_hyper(S.hyper_dtype(q), lr=0.1)
    S.sgd_apply([q], [g], [None], [hyper], momentum_on=False, decay_on=False)
    np.testing.assert_array_equal(p.numpy(), q.numpy())
    np.testing.assert_allclose(p.numpy(), real(3, 5) - np.float32(0.1) * real(3, 5, seed=1), rtol=1e-6)


def test_amsgrad_needs_its_state():
    p = graphc.zeros(2)
    with pytest.raises(TypeError, match="max_exp_avg_sq"):
        S.adam_step(p, p, p, p, None, lr=1, beta1=0.9, beta2=0.9, eps=1, bias_correction1=1, bias_correction2_sqrt=1, amsgrad=True)


def test_parameters_the_outside_holds_are_read_anew_every_step():
    """Exported buffers are copied when read: blocks of steps must not forget such a copy."""
    p, g = graphc.tensor(real(3, 5)), graphc.tensor(real(3, 5, seed=1))
    ref = p.numpy().copy()
    views = [p.numpy(), g.numpy()]
    for i in range(4):
        views[1][...] = i
        S.sgd_step(p, g, None, lr=0.1)
        ref -= np.float32(0.1) * np.float32(i)
        flush("step")
        np.testing.assert_allclose(views[0], ref, rtol=1e-6)
