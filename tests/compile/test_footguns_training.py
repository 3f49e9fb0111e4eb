"""Silent failures of whole training steps: optimizers, schedules, gradients, statistics, hooks, errors half-way."""
from __future__ import annotations

import pytest
from footguns import batch, check, footgun, params, programs_of, small_net

pytestmark = pytest.mark.filterwarnings("ignore::graphc.compile.PerformanceNote", "ignore::graphc.compile.RecompileWarning")


def train(torch, compile, optimizer, steps=6, between=lambda k, opt, net: None, **options):
    """Losses and parameters of a few compiled steps; ``between`` runs after each."""
    net = small_net(torch)
    opt = optimizer(net.parameters(), **options)

    @compile
    def step(x, y):
        opt.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
        return loss

    losses = []
    for k in range(steps):
        losses.append(step(*batch(torch, k)).item())
        between(k, opt, net)
    return [losses, params(net)]


@footgun
def learning_rate_changes(torch, compile):
    def between(k, opt, net):
        opt.param_groups[0]["lr"] = 0.5 / (k + 1)

    return [train(torch, compile, torch.optim.SGD, between=between, lr=0.5, momentum=0.9),
            train(torch, compile, torch.optim.Adam, between=between, lr=0.5)]


@footgun
def scheduler_inside_and_outside(torch, compile):
    out = []
    for inside in (True, False):
        net = small_net(torch)
        opt = torch.optim.AdamW(net.parameters(), lr=0.1)
        sched = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=0.2, total_steps=12)

        @compile
        def step(x, y):
            opt.zero_grad()
            torch.nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
            if inside:
                sched.step()

        for k in range(6):
            step(*batch(torch, k))
            if not inside:
                sched.step()
        out += [params(net), sched.get_last_lr()]
    return out


@footgun
def momentum_and_decay_change(torch, compile):
    def between(k, opt, net):
        group = opt.param_groups[0]
        group["momentum"], group["weight_decay"] = 0.1 * k, 0.01 * (k % 3)

    return train(torch, compile, torch.optim.SGD, between=between, lr=0.1, momentum=0.9)


@footgun
def parameters_frozen_and_thawed(torch, compile):
    def between(k, opt, net):
        net[0].weight.requires_grad_(k % 3 == 0)
        net[2].bias.requires_grad_(k % 2 == 0)

    return train(torch, compile, torch.optim.SGD, between=between, lr=0.3)


@footgun
def gradients_accumulate(torch, compile):
    net = small_net(torch)
    opt = torch.optim.SGD(net.parameters(), lr=0.1)

    @compile
    def micro(x, y, last):
        loss = torch.nn.functional.cross_entropy(net(x), y) / 3
        loss.backward()
        if last:
            torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            opt.step()
            opt.zero_grad()
        return loss

    out = []
    for k in range(9):
        out.append(micro(*batch(torch, k), k % 3 == 2).item())
        out.append([None if p.grad is None else p.grad.tolist() for p in net.parameters()])
    return [out, params(net)]


@footgun
def gradients_set_to_zero_in_place(torch, compile):
    net = small_net(torch)

    @compile
    def step(x, y):
        net.zero_grad(set_to_none=False)
        torch.nn.functional.cross_entropy(net(x), y).backward()

    step(*batch(torch))
    kept = net[0].weight.grad
    step(*batch(torch, 1))
    kept.mul_(2)
    return [kept is net[0].weight.grad, [p.grad.tolist() for p in net.parameters()]]


@footgun
def batch_norm_statistics(torch, compile):
    net = small_net(torch, torch.nn.BatchNorm1d(4))
    opt = torch.optim.SGD(net.parameters(), lr=0.1)

    @compile
    def step(x, y):
        opt.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
        return loss

    out = []
    for k, n in enumerate((4, 4, 6, 4, 6)):
        out.append(step(*batch(torch, k, n)).item())
        out.append([b.tolist() for b in net.buffers()])
    net[1].momentum = None
    step(*batch(torch, 7))
    net.eval()
    x, _ = batch(torch, 9)
    return [*out, [b.tolist() for b in net.buffers()], compile(lambda x: net(x))(x).tolist()]


@footgun
def exponential_moving_average(torch, compile):
    net, decay = small_net(torch), [0.9]
    ema = [p.detach().clone() for p in net.parameters()]
    opt = torch.optim.SGD(net.parameters(), lr=0.2)

    @compile
    def step(x, y):
        opt.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        opt.step()
        with torch.no_grad():
            for e, p in zip(ema, net.parameters()):
                e.lerp_(p, 1 - decay[0])

    for k in range(5):
        decay[0] = 0.9 + 0.01 * k
        step(*batch(torch, k))
    return [[e.tolist() for e in ema], params(net)]


@footgun
def parameter_groups_added(torch, compile):
    def between(k, opt, net):
        if k == 2:
            extra = torch.nn.Parameter(torch.ones(2))
            net.register_parameter("extra", extra)
            extra.grad = torch.ones(2)
            opt.add_param_group({"params": [extra], "lr": 0.01})

    return train(torch, compile, torch.optim.SGD, between=between, lr=0.3)


@footgun
def optimizer_state_loaded(torch, compile):
    saved = []

    def between(k, opt, net):
        if k == 1:
            saved.append((opt.state_dict(), {n: p.clone() for n, p in net.state_dict().items()}))
        if k == 3:
            net.load_state_dict(saved[0][1])
        if k == 4:
            opt.load_state_dict(saved[0][0])

    return train(torch, compile, torch.optim.Adam, between=between, lr=0.1)


@footgun
def weights_tied(torch, compile):
    net = small_net(torch)
    other = torch.nn.Linear(3, 4)
    other.weight = net[0].weight
    opt = torch.optim.SGD([*net.parameters(), other.bias], lr=0.1)
    with torch.no_grad():
        other.bias.zero_()

    @compile
    def step(x, y):
        opt.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x), y) + other(x).pow(2).mean()
        loss.backward()
        opt.step()
        return loss

    return [[step(*batch(torch, k)).item() for k in range(4)], params(net), other.weight.tolist()]


@footgun
def exception_in_a_training_step(torch, compile):
    net = small_net(torch, torch.nn.BatchNorm1d(4))
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    @compile
    def step(x, y, where):
        opt.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x), y)
        if where == 1:
            raise KeyError("after forward")
        loss.backward()
        if where == 2:
            raise KeyError("after backward")
        opt.step()
        if where == 3:
            raise KeyError("after the update")
        return loss

    out = []
    for k, where in enumerate((0, 1, 0, 2, 3, 0)):
        try:
            out.append(step(*batch(torch, k), where).item())
        except KeyError as error:
            out.append(str(error))
        out += [params(net), [b.tolist() for b in net.buffers()],
                [None if p.grad is None else p.grad.tolist() for p in net.parameters()]]
    return out


@footgun
def target_out_of_range(torch, compile):
    net = small_net(torch)
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    @compile
    def step(x, y):
        opt.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
        return loss

    out = []
    for k in range(4):
        x, y = batch(torch, k)
        try:
            out.append(step(x, y + 7 if k == 2 else y).item())
        except IndexError:
            out.append("IndexError")
        out.append(params(net))
    return out


@footgun
def hooks_see_every_call(torch, compile):
    net, seen = small_net(torch), []
    net[0].register_forward_hook(lambda m, a, y: seen.append(tuple(y.shape)))
    net[0].weight.register_hook(lambda g: g * 10)
    step = compile(lambda x, y: torch.nn.functional.cross_entropy(net(x), y).backward())
    for k, n in enumerate((4, 2, 4)):
        step(*batch(torch, k, n))
    handle = net[2].register_forward_hook(lambda m, a, y: y * 0)
    step(*batch(torch))
    handle.remove()
    step(*batch(torch))
    return [seen, [p.grad.tolist() for p in net.parameters()]]


@footgun
def tape_crosses_the_boundary(torch, compile):
    w = torch.tensor([2.0, 3.0], requires_grad=True)
    forward = compile(lambda x: (x * w).sin())
    back = compile(lambda y: y.sum().backward())
    out = []
    for k in range(3):
        h = w * k
        y = forward(h)
        back(y * 2)
        out.append(w.grad.tolist())
    y = forward(w.exp())
    (g,) = torch.autograd.grad(y.sum(), w, create_graph=True)
    compile(lambda g: (g * g).sum().backward())(g)
    return [*out, w.grad.tolist()]


@footgun
def backward_twice_is_refused(torch, compile):
    w = torch.ones(2, requires_grad=True)
    y = compile(lambda: (w * w).exp().sum())()
    back = compile(lambda: y.backward())
    back()
    try:
        back()
    except RuntimeError as error:
        return [str(error)[:45], w.grad.tolist()]
    return ["no error"]


@footgun
def custom_function_runs(torch, compile):
    calls = []

    class Clip(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, limit):
            calls.append(limit)
            ctx.save_for_backward(x)
            ctx.limit = limit
            return x.clamp(-limit, limit)

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * (x.abs() < ctx.limit).to(g.dtype) * 3, None

    x = torch.tensor([0.5, 2.0, -3.0], requires_grad=True)
    step = compile(lambda k: Clip.apply(x, k).sum().backward())
    out = []
    for k in (1.0, 5.0, 1.0, 2.5):
        x.grad = None
        step(k)
        out.append(x.grad.tolist())
    return [out, calls]


@pytest.mark.parametrize("name", programs_of(__name__))
def test_compiled_is_eager(name: str) -> None:
    check(name)
