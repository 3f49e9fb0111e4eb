"""Public programs: agents, trainer classes with checkpoints, averaged weights."""

# The programs are kept as they were written.
# ruff: noqa: UP004, UP008
from __future__ import annotations

import json
import math
import os
import random
import tempfile
from collections import deque, namedtuple
from typing import Any

import numpy as np
from public_harness import Program


def actor_critic(torch: Any) -> list[Any]:
    nn, F, optim = torch.nn, torch.nn.functional, torch.optim
    SavedAction = namedtuple("SavedAction", ["log_prob", "value"])

    class Policy(nn.Module):
        def __init__(self):
            super().__init__()
            self.affine1 = nn.Linear(4, 16)
            self.action_head = nn.Linear(16, 2)
            self.value_head = nn.Linear(16, 1)
            self.saved_actions = []
            self.rewards = []

        def forward(self, x):
            x = F.relu(self.affine1(x))
            return F.softmax(self.action_head(x), dim=-1), self.value_head(x)

    model = torch.fill(Policy())
    optimizer = optim.Adam(model.parameters(), lr=3e-2)
    rr = np.random.RandomState(0)
    out = []
    for ep in range(3):
        for t in range(6):
            state = torch.from_numpy(rr.randn(4)).float()
            probs, state_value = model(state)
            m = torch.distributions.Categorical(probs)
            action = torch.tensor(int(rr.rand() > 0.5))
            model.saved_actions.append(SavedAction(m.log_prob(action), state_value))
            model.rewards.append(float(rr.rand()))
        R = 0
        returns = []
        pl = []
        vl = []
        for r in model.rewards[::-1]:
            R = r + 0.99 * R
            returns.insert(0, R)
        returns = torch.tensor(returns)
        returns = (returns - returns.mean()) / (returns.std() + 1e-8)
        for (log_prob, value), R in zip(model.saved_actions, returns):
            advantage = R - value.item()
            pl.append(-log_prob * advantage)
            vl.append(F.smooth_l1_loss(value, torch.tensor([R])))
        optimizer.zero_grad()
        loss = torch.stack(pl).sum() + torch.stack(vl).sum()
        loss.backward()
        optimizer.step()
        del model.rewards[:]
        del model.saved_actions[:]
        out.append(loss.item())
        print(f"{ep=} {loss.item():>8.4f} entropy {m.entropy():.4f}", m)
    return out


def dqn(torch: Any) -> list[Any]:
    nn, F, optim = torch.nn, torch.nn.functional, torch.optim
    Transition = namedtuple("Transition", ("state", "action", "next_state", "reward"))

    class ReplayMemory(object):
        def __init__(self, capacity):
            self.memory = deque([], maxlen=capacity)

        def push(self, *args):
            self.memory.append(Transition(*args))

        def sample(self, n):
            return rnd.sample(self.memory, n)

        def __len__(self):
            return len(self.memory)

    rnd = random.Random(0)
    r = np.random.RandomState(0)

    class DQN(nn.Module):
        def __init__(self, n, a):
            super(DQN, self).__init__()
            self.layer1 = nn.Linear(n, 16)
            self.layer2 = nn.Linear(16, 16)
            self.layer3 = nn.Linear(16, a)

        def forward(self, x):
            x = F.relu(self.layer1(x))
            x = F.relu(self.layer2(x))
            return self.layer3(x)

    device = torch.device(
        "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() and False else "cpu"
    )
    policy_net = torch.fill(DQN(4, 2)).to(device)
    target_net = DQN(4, 2).to(device)
    target_net.load_state_dict(policy_net.state_dict())
    optimizer = optim.AdamW(policy_net.parameters(), lr=1e-3, amsgrad=True)
    memory = ReplayMemory(50)
    TAU = 0.05
    B = 8
    steps_done = 0

    def select_action(state):
        nonlocal steps_done
        eps = 0.05 + (0.9 - 0.05) * math.exp(-1.0 * steps_done / 10)
        steps_done += 1
        if rnd.random() > eps:
            with torch.no_grad():
                return policy_net(state).max(1).indices.view(1, 1)
        return torch.tensor([[rnd.randrange(2)]], device=device, dtype=torch.long)

    def optimize_model():
        if len(memory) < B:
            return
        transitions = memory.sample(B)
        batch = Transition(*zip(*transitions))
        mask = torch.tensor(tuple(map(lambda s: s is not None, batch.next_state)), device=device, dtype=torch.bool)
        nfs = torch.cat([s for s in batch.next_state if s is not None])
        sb, ab, rb = torch.cat(batch.state), torch.cat(batch.action), torch.cat(batch.reward)
        q = policy_net(sb).gather(1, ab)
        nv = torch.zeros(B, device=device)
        with torch.no_grad():
            nv[mask] = target_net(nfs).max(1).values
        expected = (nv * 0.99) + rb
        criterion = nn.SmoothL1Loss()
        loss = criterion(q, expected.unsqueeze(1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_value_(policy_net.parameters(), 100)
        optimizer.step()
        return loss

    optimize_model = torch.compile(optimize_model)
    out = []
    state = torch.tensor(r.randn(4), dtype=torch.float32, device=device).unsqueeze(0)
    for t in range(20):
        action = select_action(state)
        obs = r.randn(4)
        reward = torch.tensor([r.rand()], device=device)
        nxt = None if t % 7 == 6 else torch.tensor(obs, dtype=torch.float32, device=device).unsqueeze(0)
        memory.push(state, action, nxt, reward)
        state = nxt if nxt is not None else torch.tensor(r.randn(4), dtype=torch.float32).unsqueeze(0)
        l = optimize_model()
        out.append(l.item() if l is not None else -1.0)
        tsd = target_net.state_dict()
        psd = policy_net.state_dict()
        for key in psd:
            tsd[key] = psd[key] * TAU + tsd[key] * (1 - TAU)
        target_net.load_state_dict(tsd)
    print(reward.dtype, nxt, action)
    dur = torch.tensor(out, dtype=torch.float)
    means = dur.unfold(0, 5, 1).mean(1).view(-1)
    means = torch.cat((torch.zeros(4), means))
    print(means)
    return out + [target_net.layer3.bias, policy_net.layer1.weight]


def trainer(torch: Any) -> list[Any]:
    nn, F = torch.nn, torch.nn.functional
    Dataset, DataLoader = torch.utils.data.Dataset, torch.utils.data.DataLoader

    class AverageMeter(object):
        def __init__(self, name, fmt=":f"):
            self.name, self.fmt = name, fmt
            self.reset()

        def reset(self):
            self.val = self.avg = self.sum = self.count = 0

        def update(self, val, n=1):
            self.val = val
            self.sum += val * n
            self.count += n
            self.avg = self.sum / self.count

        def __str__(self):
            fmtstr = "{name} {val" + self.fmt + "} ({avg" + self.fmt + "})"
            return fmtstr.format(**self.__dict__)

    class DS(Dataset):
        def __init__(self, n, transform=None):
            self.x = np.random.RandomState(n).randn(n, 4).astype(np.float32)
            self.y = (self.x.sum(1) > 0).astype(np.int64)
            self.transform = transform

        def __len__(self):
            return len(self.x)

        def __getitem__(self, i):
            if torch.is_tensor(i):
                i = i.tolist()
            s = {"x": self.x[i], "y": self.y[i], "name": f"n{i}", "meta": (i, float(i))}
            return self.transform(s) if self.transform else s

    class Module(nn.Module):
        def __init__(self, **hp):
            super().__init__()
            self.hparams = hp
            self.l1 = nn.Linear(4, hp["h"])
            self.out = nn.Linear(hp["h"], 2)
            self.register_buffer("steps", torch.tensor(0))
            self.logged = {}

        def forward(self, x):
            return self.out(torch.relu(self.l1(x)))

        def training_step(self, batch, i):
            loss = F.cross_entropy(self(batch["x"]), batch["y"])
            self.steps += 1
            self.log("train_loss", loss)
            return loss

        def log(self, k, v):
            self.logged[k] = v.detach() if hasattr(v, "detach") else v

        def configure_optimizers(self):
            opt = torch.optim.AdamW(self.parameters(), lr=self.hparams["lr"])
            return [opt], [
                {
                    "scheduler": torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=0.05, total_steps=24, pct_start=0.3),
                    "interval": "step",
                }
            ]

    class EarlyStopping:
        def __init__(self, patience=2, delta=0, path="checkpoint.pt"):
            self.patience, self.counter, self.best, self.early_stop, self.delta, self.path = (
                patience,
                0,
                None,
                False,
                delta,
                path,
            )

        def __call__(self, val_loss, model, opt, sched, epoch):
            score = -val_loss
            if self.best is None or score >= self.best + self.delta:
                self.best = score
                self.counter = 0
                torch.save(
                    {
                        "epoch": epoch,
                        "model_state_dict": model.state_dict(),
                        "optimizer_state_dict": opt.state_dict(),
                        "scheduler": sched.state_dict(),
                        "loss": val_loss,
                        "hp": model.hparams,
                        "rng": torch.get_rng_state(),
                    },
                    self.path,
                )
            else:
                self.counter += 1
                self.early_stop = self.counter >= self.patience

    class Trainer:
        def __init__(self, epochs, ckpt):
            self.epochs, self.ckpt = epochs, ckpt

        def fit(self, m, tl, vl, start=0, resume=None, log=None):
            (opt,), (s,) = m.configure_optimizers()
            sched = s["scheduler"]
            es = EarlyStopping(path=self.ckpt)
            if resume:
                c = torch.load(resume, weights_only=False)
                m.load_state_dict(c["model_state_dict"])
                opt.load_state_dict(c["optimizer_state_dict"])
                sched.load_state_dict(c["scheduler"])
                start = c["epoch"] + 1
                print("resumed", start, type(c["loss"]).__name__, c["hp"])
            meter = AverageMeter("Loss", ":.4e")
            hist = []
            train_step = torch.compile(lambda b, i: m.training_step(b, i))
            for e in range(start, self.epochs):
                m.train()
                meter.reset()
                for i, batch in enumerate(tl):
                    loss = train_step(batch, i)
                    opt.zero_grad()
                    loss.backward()
                    opt.step()
                    sched.step()
                    meter.update(loss.item(), batch["x"].size(0))
                m.eval()
                with torch.no_grad():
                    vl_ = np.mean([F.cross_entropy(m(b["x"]), b["y"]).item() for b in vl])
                hist += [meter.avg, vl_, sched.get_last_lr()[0]]
                print(e, meter, f"{vl_:.4f}", batch["name"], batch["meta"], batch["y"].dtype)
                es(vl_, m, opt, sched, e)
                if es.early_stop:
                    print("Early stopping")
                    break
            return hist, opt

    d = tempfile.mkdtemp()
    path = os.path.join(d, "c.pt")
    tl, vl = DataLoader(DS(20), batch_size=8, shuffle=False, drop_last=False), DataLoader(DS(6), batch_size=3)
    m = torch.fill(Module(h=8, lr=1e-3))
    h1, _ = Trainer(4, path).fit(m, tl, vl)
    a = Module(h=8, lr=1e-3)
    h2, opt = Trainer(8, path).fit(a, tl, vl, resume=path)
    print(
        json.dumps(
            {
                k: v if not isinstance(v, list) else len(v)
                for k, v in opt.state_dict()["param_groups"][0].items()
                if k != "params"
            },
            default=str,
        )
    )
    print(a.steps, sorted(opt.state_dict()["state"][0]), a.logged["train_loss"].dtype)
    return h1 + h2 + [a.out.weight, opt.state_dict()["state"][0]["exp_avg"], opt.state_dict()["state"][0]["step"]]


def swa_ema(torch: Any) -> list[Any]:
    nn, F = torch.nn, torch.nn.functional
    su = torch.optim.swa_utils
    net = torch.fill(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)))
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    swa = su.AveragedModel(net)
    sched = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(opt, T_0=2, T_mult=2)
    swa_s = su.SWALR(opt, anneal_strategy="linear", anneal_epochs=2, swa_lr=0.05)
    ema = su.AveragedModel(net, multi_avg_fn=su.get_ema_multi_avg_fn(0.9), use_buffers=True)
    X, Y = torch.randn(16, 4), torch.randint(0, 2, (16,))
    loader = [(X[i : i + 8], Y[i : i + 8]) for i in (0, 8)]
    out = []
    for e in range(6):
        for i, (x, y) in enumerate(loader):
            opt.zero_grad()
            l = F.cross_entropy(net(x), y)
            l.backward()
            opt.step()
            ema.update_parameters(net)
            (sched.step(e + i / 2) if e < 3 else None)
        if e >= 3:
            swa.update_parameters(net)
            swa_s.step()
        out += [l.item(), opt.param_groups[0]["lr"]]
    su.update_bn(loader, swa)
    swa.eval()
    print(swa.n_averaged, list(swa.state_dict())[:3])
    out += [swa(X), ema.module[0].weight, ema.module[1].running_mean]
    o2 = torch.optim.AdamW(
        [
            {"params": net[0].parameters(), "lr": 1e-3, "name": "a"},
            {"params": [p for n, p in net.named_parameters() if not n.startswith("0.")]},
        ],
        lr=1e-2,
    )
    for mk in (
        lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.1, total_iters=3),
        lambda o: torch.optim.lr_scheduler.SequentialLR(
            o, [torch.optim.lr_scheduler.ConstantLR(o, 0.1, 2), torch.optim.lr_scheduler.ExponentialLR(o, 0.9)], milestones=[2]
        ),
        lambda o: torch.optim.lr_scheduler.CyclicLR(o, 1e-4, 1e-2, step_size_up=2, cycle_momentum=False),
        lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [1, 3], 0.1),
        lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 4, 2.0),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, [lambda e: 0.5**e, lambda e: 1 / (e + 1)]),
        lambda o: torch.optim.lr_scheduler.MultiplicativeLR(o, lambda e: 0.9),
        lambda o: torch.optim.lr_scheduler.ChainedScheduler(
            [torch.optim.lr_scheduler.ConstantLR(o, 0.1, 2), torch.optim.lr_scheduler.ExponentialLR(o, 0.9)]
        ),
    ):
        for g in o2.param_groups:
            g["lr"] = g.get("initial_lr", g["lr"])
        s = mk(o2)
        for _ in range(5):
            o2.step()
            s.step()
            out.append(list(s.get_last_lr()))
        sd = s.state_dict()
        s.load_state_dict(sd)
        print(type(s).__name__, s.last_epoch if hasattr(s, "last_epoch") else "")
    pl = torch.optim.lr_scheduler.ReduceLROnPlateau(
        o2, mode="min", factor=0.5, patience=1, threshold=1e-2, cooldown=1, min_lr=[1e-6, 1e-5]
    )
    for v in (1.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9):
        pl.step(torch.tensor(v))
        out.append([g["lr"] for g in o2.param_groups])
    print(pl.num_bad_epochs, pl.best, o2.param_groups[0]["name"], pl.get_last_lr())
    return out


PROGRAMS: dict[str, tuple[Program, float]] = {
    "actor_critic": (actor_critic, 0.0001),
    "dqn": (dqn, 0.001),
    "trainer": (trainer, 0.001),
    "swa_ema": (swa_ema, 0.001),
}
