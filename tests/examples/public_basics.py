"""Public programs: introductions, old spellings, optimizers of one's own, Gaussian processes."""

# The programs are kept as they were written.
# ruff: noqa: F841, UP008, UP032
from __future__ import annotations

import copy
import io
import math
from collections import OrderedDict
from typing import Any

from public_harness import Program


def transfer(torch: Any) -> list[Any]:
    nn, optim = torch.nn, torch.optim
    lr_scheduler = optim.lr_scheduler

    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(
                OrderedDict([("conv0", nn.Conv2d(3, 4, 3, padding=1)), ("norm0", nn.BatchNorm2d(4)), ("relu0", nn.ReLU())])
            )
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
            self.fc = nn.Linear(4, 10)

        def forward(self, x):
            return self.fc(torch.flatten(self.avgpool(self.features(x)), 1))

    model_conv = torch.fill(Backbone())
    for param in model_conv.parameters():
        param.requires_grad = False
    num_ftrs = model_conv.fc.in_features
    model_conv.fc = nn.Linear(num_ftrs, 2)
    torch.fill(model_conv.fc)
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(model_conv.fc.parameters(), lr=0.1, momentum=0.9)
    sched = lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
    X, Y = torch.randn(24, 3, 8, 8), torch.randint(0, 2, (24,))
    sets = {
        x: torch.utils.data.TensorDataset(X[:16] if x == "train" else X[16:], Y[:16] if x == "train" else Y[16:])
        for x in ["train", "val"]
    }
    loaders = {x: torch.utils.data.DataLoader(sets[x], batch_size=4, shuffle=False, num_workers=0) for x in sets}
    sizes = {x: len(sets[x]) for x in sets}
    best_acc = 0.0
    best = copy.deepcopy(model_conv.state_dict())
    path = io.BytesIO()
    out = []
    for epoch in range(3):
        print(f"Epoch {epoch}/{2}")
        print("-" * 10)
        for phase in ["train", "val"]:
            if phase == "train":
                model_conv.train()
            else:
                model_conv.eval()
            running_loss = 0.0
            running_corrects = 0
            for inputs, labels in loaders[phase]:
                optimizer.zero_grad()
                with torch.set_grad_enabled(phase == "train"):
                    outputs = model_conv(inputs)
                    _, preds = torch.max(outputs, 1)
                    loss = criterion(outputs, labels)
                    if phase == "train":
                        loss.backward()
                        optimizer.step()
                running_loss += loss.item() * inputs.size(0)
                running_corrects += torch.sum(preds == labels.data)
            if phase == "train":
                sched.step()
            epoch_loss = running_loss / sizes[phase]
            epoch_acc = running_corrects.double() / sizes[phase]
            print(f"{phase} Loss: {epoch_loss:.4f} Acc: {epoch_acc:.4f}")
            out += [epoch_loss, epoch_acc]
            if phase == "val" and epoch_acc >= best_acc:
                best_acc = epoch_acc
                path.seek(0)
                torch.save(model_conv.state_dict(), path)
    path.seek(0)
    print(model_conv.load_state_dict(torch.load(path, weights_only=True)))
    print("Best val Acc: {:4f}".format(best_acc))
    print(optimizer)
    print(sum(p.requires_grad for p in model_conv.parameters()))
    return out + [model_conv.fc.weight, model_conv.features.conv0.weight.grad, model_conv.features.norm0.running_mean]


def old_style(torch: Any) -> list[Any]:
    nn, F = torch.nn, torch.nn.functional
    Variable = torch.autograd.Variable
    x = Variable(torch.FloatTensor([[1, 2], [3, 4]]), requires_grad=True)
    y = Variable(torch.zeros(2).long())
    out = [x.data, type(x).__name__, isinstance(x, Variable)]
    N, D_in, H, D_out = 8, 6, 5, 2
    dtype = torch.FloatTensor
    a = torch.randn(N, D_in).type(dtype)
    t = torch.randn(N, D_out).type(dtype)
    w1 = torch.randn(D_in, H).type(dtype)
    w2 = torch.randn(H, D_out).type(dtype)
    lr = 1e-3
    for k in range(3):
        h = a.mm(w1)
        hr = h.clamp(min=0)
        yp = hr.mm(w2)
        loss = (yp - t).pow(2).sum()
        gy = 2.0 * (yp - t)
        gw2 = hr.t().mm(gy)
        gh = gy.mm(w2.t()).clone()
        gh[h < 0] = 0
        gw1 = a.t().mm(gh)
        w1 -= lr * gw1
        w2 -= lr * gw2
        print(k, loss.item())
        out.append(loss)
    v1 = Variable(w1, requires_grad=True)
    v2 = Variable(w2, requires_grad=True)
    for k in range(3):
        yp = a.mm(v1).clamp(min=0).mm(v2)
        loss = (yp - t).pow(2).sum()
        loss.backward()
        v1.data -= lr * v1.grad.data
        v2.data.sub_(v2.grad.data * lr)
        v1.grad.data.zero_()
        v2.grad.data.zero_()
        out.append(loss.data)
    model = torch.nn.Sequential(torch.nn.Linear(D_in, H), torch.nn.ReLU(), torch.nn.Linear(H, D_out))
    torch.fill(model)
    lf = torch.nn.MSELoss(reduction="sum")
    for k in range(3):
        loss = lf(model(Variable(a)), Variable(t))
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= lr * p.grad
        out.append(float(loss))

    class MyReLU(torch.autograd.Function):
        @staticmethod
        def forward(ctx, input):
            ctx.save_for_backward(input)
            return input.clamp(min=0)

        @staticmethod
        def backward(ctx, grad_output):
            (input,) = ctx.saved_tensors
            gi = grad_output.clone()
            gi[input < 0] = 0
            return gi

    class STE(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, bits):
            ctx.mark_non_differentiable()
            ctx.bits = bits
            s = 2**bits - 1
            return torch.round(x.clamp(0, 1) * s) / s

        @staticmethod
        def backward(ctx, g):
            return g, None

    q = torch.rand(3, requires_grad=True)
    MyReLU.apply(q - 0.5).sum().backward()
    g1 = q.grad.clone()
    q.grad = None
    (STE.apply(q, 2) ** 2).sum().backward()
    out += [g1, q.grad]

    class Poly(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Parameter(torch.randn(())) for _ in range(4))

        def forward(self, x):
            return self.a + self.b * x + self.c * x**2 + self.d * x**3

        def string(self):
            return f"y = {self.a.item():.3f} + {self.b.item():.3f} x + {self.c.item():.3f} x^2 + {self.d.item():.3f} x^3"

    xs = torch.linspace(-math.pi, math.pi, 50)
    m = Poly()
    o = torch.optim.SGD(m.parameters(), lr=1e-6)

    @torch.compile
    def pstep():
        l = ((m(xs) - torch.sin(xs)) ** 2).sum()
        o.zero_grad()
        l.backward()
        o.step()
        return l

    out += [pstep().item() for _ in range(4)]
    print("Result:", m.string())
    p = torch.tensor([1, 2, 3])
    xx = xs.unsqueeze(-1).pow(p)
    lin = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Flatten(0, 1))
    torch.fill(lin)
    print(lin[0].bias.item(), lin[0].weight[:, 0].item())
    out.append(lin(xx)[:3])
    mask = torch.ByteTensor([1, 0, 1])
    out += [
        torch.arange(3)[mask.bool()],
        (torch.randn(3) > 0).float() * 0,
        torch.Tensor(2, 3).zero_(),
        torch.Tensor([1, 2]).long(),
        torch.max(x, 1)[1].data.numpy()[0],
        x.data.cpu().numpy(),
        float(x.data[0][1]),
        x.size()[0],
    ]
    print(x, x.grad, mask, torch.Tensor([0.5]), Variable(torch.ones(1)))
    return out


def custom_optim(torch: Any) -> list[Any]:
    nn, F = torch.nn, torch.nn.functional
    Optimizer = torch.optim.Optimizer

    class MySGD(Optimizer):
        def __init__(self, params, lr=1e-3, momentum=0, weight_decay=0):
            if lr < 0.0:
                raise ValueError(f"Invalid learning rate: {lr}")
            super(MySGD, self).__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

        @torch.no_grad()
        def step(self, closure=None):
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is None:
                        continue
                    d_p = p.grad
                    if group["weight_decay"] != 0:
                        d_p = d_p.add(p, alpha=group["weight_decay"])
                    state = self.state[p]
                    if len(state) == 0:
                        state["step"] = 0
                        state["buf"] = torch.clone(d_p).detach()
                    else:
                        state["buf"].mul_(group["momentum"]).add_(d_p)
                    state["step"] += 1
                    p.add_(state["buf"], alpha=-group["lr"])
            return loss

    class Lion(Optimizer):
        def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), wd=0.0):
            super().__init__(params, dict(lr=lr, betas=betas, wd=wd))

        @torch.no_grad()
        def step(self):
            for g in self.param_groups:
                for p in filter(lambda p: p.grad is not None, g["params"]):
                    st = self.state[p]
                    if not st:
                        st["exp_avg"] = torch.zeros_like(p, memory_format=torch.preserve_format)
                    m = st["exp_avg"]
                    b1, b2 = g["betas"]
                    p.data.mul_(1 - g["lr"] * g["wd"])
                    u = m.clone().mul_(b1).add(p.grad, alpha=1 - b1).sign_()
                    p.add_(u, alpha=-g["lr"])
                    m.mul_(b2).add_(p.grad, alpha=1 - b2)

    class SAM(Optimizer):
        def __init__(self, params, base, rho=0.05, **kw):
            super().__init__(params, dict(rho=rho, **kw))
            self.base = base(self.param_groups, **kw)
            self.param_groups = self.base.param_groups

        @torch.no_grad()
        def first_step(self, zero_grad=False):
            n = torch.norm(
                torch.stack([p.grad.norm(p=2) for g in self.param_groups for p in g["params"] if p.grad is not None]), p=2
            )
            for g in self.param_groups:
                scale = g["rho"] / (n + 1e-12)
                for p in g["params"]:
                    self.state[p]["old_p"] = p.data.clone()
                    p.add_(p.grad * scale.to(p))
            if zero_grad:
                self.zero_grad()

        @torch.no_grad()
        def second_step(self, zero_grad=False):
            for g in self.param_groups:
                for p in g["params"]:
                    p.data = self.state[p]["old_p"]
            self.base.step()
            if zero_grad:
                self.zero_grad()

        def step(self, closure=None):
            closure = torch.enable_grad()(closure)
            self.first_step(True)
            closure()
            self.second_step()

    class WarmupCosine(torch.optim.lr_scheduler._LRScheduler):
        def __init__(self, opt, warm, total, last_epoch=-1):
            self.warm, self.total = warm, total
            super().__init__(opt, last_epoch)

        def get_lr(self):
            return [
                b
                * (
                    (self.last_epoch + 1) / self.warm
                    if self.last_epoch < self.warm
                    else 0.5 * (1 + math.cos(math.pi * (self.last_epoch - self.warm) / (self.total - self.warm)))
                )
                for b in self.base_lrs
            ]

    x, y = torch.randn(8, 4), torch.randn(8, 1)
    out = []
    for mk in (
        lambda ps: MySGD(ps, lr=0.05, momentum=0.9, weight_decay=1e-2),
        lambda ps: Lion(ps, lr=1e-2, wd=0.1),
        lambda ps: SAM(ps, torch.optim.SGD, lr=0.05, momentum=0.9),
    ):
        net = torch.fill(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)))
        opt = mk(net.parameters())
        sched = WarmupCosine(opt, 2, 8)

        @torch.compile
        def step(x, y):
            l = F.mse_loss(net(x), y)
            l.backward()
            if isinstance(opt, SAM):
                opt.step(lambda: F.mse_loss(net(x), y).backward())
            else:
                opt.step()
            opt.zero_grad()
            return l

        for _ in range(6):
            out += [step(x, y), opt.param_groups[0]["lr"]]
            sched.step()
        out.append(net[0].weight)
        sd = opt.state_dict()
        opt.load_state_dict(sd)
        print(type(opt).__name__, sorted(sd["state"][0].keys()) if sd["state"] else None, len(opt.state))
    print(opt)
    return out


def gp_regression(torch: Any) -> list[Any]:
    def rbf(a, b, ls, var):
        d = torch.cdist(a / ls, b / ls) ** 2
        return var * torch.exp(-0.5 * d)

    def rbf2(a, b, ls, var):
        a, b = a / ls, b / ls
        d = (a**2).sum(1, True) + (b**2).sum(1) - 2 * a @ b.t()
        return var * (-0.5 * d.clamp_min(0)).exp()

    X = torch.linspace(0, 5, 12, dtype=torch.float64).unsqueeze(-1)
    y = torch.sin(X).squeeze() + 0.1 * torch.randn(12).double()
    Xs = torch.linspace(-1, 6, 9).double().view(-1, 1)
    log = torch.nn.ParameterDict(
        {
            "ls": torch.nn.Parameter(torch.zeros(1).double()),
            "var": torch.nn.Parameter(torch.zeros((), dtype=torch.float64)),
            "noise": torch.nn.Parameter(torch.tensor(-2.0, dtype=torch.double)),
        }
    )
    opt = torch.optim.Adam(log.parameters(), lr=0.1)
    out = []

    def nll():
        K = rbf2(X, X, log["ls"].exp(), log["var"].exp()) + log["noise"].exp() * torch.eye(12, dtype=X.dtype)
        L = torch.linalg.cholesky(K)
        alpha = torch.cholesky_solve(y.unsqueeze(1), L)
        return (0.5 * y.dot(alpha.squeeze()) + L.diagonal().log().sum() + 6 * math.log(2 * math.pi)), L, alpha

    @torch.compile
    def step():
        opt.zero_grad()
        l, _, _ = nll()
        l.backward()
        opt.step()
        return l

    for i in range(6):
        out.append(step().item())
    with torch.no_grad():
        _, L, alpha = nll()
        Ks = rbf(X, Xs, log.ls.exp() if hasattr(log, "ls") else log["ls"].exp(), log["var"].exp())
        mu = Ks.T @ alpha
        v = torch.linalg.solve_triangular(L, Ks, upper=False)
        cov = rbf2(Xs, Xs, log["ls"].exp(), log["var"].exp()) - v.T @ v
        sd = cov.diag().clamp(min=0).sqrt()
        ld = torch.logdet(L @ L.T)
        sl = torch.linalg.slogdet(L @ L.T)
        lower, upper = mu.flatten() - 2 * sd, mu.flatten() + 2 * sd
    print({k: round(v.exp().item(), 4) for k, v in log.items()}, log)
    mvn = torch.distributions.MultivariateNormal(mu.flatten(), cov + 1e-4 * torch.eye(9).double())
    print(sl)
    return out + [mu, sd, ld, sl.logabsdet, mvn.log_prob(torch.zeros(9).double()), upper - lower, mvn.entropy()]


PROGRAMS: dict[str, tuple[Program, float]] = {
    "transfer": (transfer, 0.0001),
    "old_style": (old_style, 0.001),
    "custom_optim": (custom_optim, 0.001),
    "gp_regression": (gp_regression, 0.0001),
}
