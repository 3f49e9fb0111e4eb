"""Public programs: meta learning, a random field over words, low-rank layers, ensembles, lazy modules."""

# The programs are kept as they were written.
# ruff: noqa: F841
from __future__ import annotations

import copy
import math
from typing import Any

from public_harness import Program


def maml(torch: Any) -> list[Any]:
    nn, F = torch.nn, torch.nn.functional

    class Meta(nn.Module):
        def __init__(self):
            super().__init__()
            self.vars = nn.ParameterList()
            for s in [(8, 1), (8,), (1, 8), (1,)]:
                self.vars.append(nn.Parameter(torch.randn(*s) * 0.5))

        def forward(self, x, vars=None):
            if vars is None:
                vars = self.vars
            x = F.linear(x, vars[0], vars[1])
            x = torch.tanh(x)
            return F.linear(x, vars[2], vars[3])

        def parameters(self):
            return self.vars

    net = Meta()
    opt = torch.optim.Adam(net.parameters(), lr=1e-2)

    @torch.compile
    def meta_step(xs, ys, xq, yq):
        losses_q = [0 for _ in range(3)]
        for i in range(2):
            loss = F.mse_loss(net(xs[i], None), ys[i])
            grad = torch.autograd.grad(loss, net.parameters(), create_graph=True)
            fast = list(map(lambda p: p[1] - 0.1 * p[0], zip(grad, net.parameters())))
            with torch.no_grad():
                losses_q[0] += F.mse_loss(net(xq[i], net.parameters()), yq[i])
            losses_q[1] += F.mse_loss(net(xq[i], fast), yq[i])
            loss = F.mse_loss(net(xs[i], fast), ys[i])
            grad = torch.autograd.grad(loss, fast, create_graph=True)
            fast = [w - 0.1 * g for w, g in zip(fast, grad)]
            losses_q[2] += F.mse_loss(net(xq[i], fast), yq[i])
        lq = losses_q[-1] / 2
        opt.zero_grad()
        lq.backward()
        opt.step()
        return torch.stack(losses_q).detach()

    out = []
    for s in range(4):
        x = torch.rand(2, 10, 1) * 4 - 2
        ph = torch.rand(2, 1, 1)
        y = torch.sin(x + ph)
        out.append(meta_step(x[:, :5], y[:, :5], x[:, 5:], y[:, 5:]))
        print(s, out[-1].numpy().round(4), [f"{v:.3f}" for v in out[-1]])
    print(net, len(net.vars))
    return out + [list(net.vars)]


def crf(torch: Any) -> list[Any]:
    nn, F = torch.nn, torch.nn.functional
    START, STOP = "<S>", "</S>"

    def argmax(vec):
        _, idx = torch.max(vec, 1)
        return idx.item()

    def log_sum_exp(vec):
        max_score = vec[0, argmax(vec)]
        b = max_score.view(1, -1).expand(1, vec.size()[1])
        return max_score + torch.log(torch.sum(torch.exp(vec - b)))

    class BiLSTM_CRF(nn.Module):
        def __init__(self, V, t2i, E, H):
            super().__init__()
            self.hidden_dim = H
            self.tag_to_ix = t2i
            self.tagset_size = len(t2i)
            self.word_embeds = nn.Embedding(V, E)
            self.lstm = nn.LSTM(E, H // 2, num_layers=1, bidirectional=True)
            self.hidden2tag = nn.Linear(H, self.tagset_size)
            self.transitions = nn.Parameter(torch.randn(self.tagset_size, self.tagset_size))
            self.transitions.data[t2i[START], :] = -10000
            self.transitions.data[:, t2i[STOP]] = -10000
            self.hidden = self.init_hidden()

        def init_hidden(self):
            return (torch.ones(2, 1, self.hidden_dim // 2) * 0.1, torch.ones(2, 1, self.hidden_dim // 2) * -0.1)

        def _forward_alg(self, feats):
            init = torch.full((1, self.tagset_size), -10000.0)
            init[0][self.tag_to_ix[START]] = 0.0
            fv = init
            for feat in feats:
                at = []
                for nt in range(self.tagset_size):
                    em = feat[nt].view(1, -1).expand(1, self.tagset_size)
                    tr = self.transitions[nt].view(1, -1)
                    at.append(log_sum_exp(fv + tr + em).view(1))
                fv = torch.cat(at).view(1, -1)
            return log_sum_exp(fv + self.transitions[self.tag_to_ix[STOP]])

        def _get_lstm_features(self, s):
            self.hidden = self.init_hidden()
            e = self.word_embeds(s).view(len(s), 1, -1)
            o, self.hidden = self.lstm(e, self.hidden)
            return self.hidden2tag(o.view(len(s), self.hidden_dim))

        def _score_sentence(self, feats, tags):
            score = torch.zeros(1)
            tags = torch.cat([torch.tensor([self.tag_to_ix[START]], dtype=torch.long), tags])
            for i, feat in enumerate(feats):
                score = score + self.transitions[tags[i + 1], tags[i]] + feat[tags[i + 1]]
            return score + self.transitions[self.tag_to_ix[STOP], tags[-1]]

        def _viterbi(self, feats):
            bps = []
            iv = torch.full((1, self.tagset_size), -10000.0)
            iv[0][self.tag_to_ix[START]] = 0
            fv = iv
            for feat in feats:
                bt, vv = [], []
                for nt in range(self.tagset_size):
                    v = fv + self.transitions[nt]
                    b = argmax(v)
                    bt.append(b)
                    vv.append(v[0][b].view(1))
                fv = (torch.cat(vv) + feat).view(1, -1)
                bps.append(bt)
            tv = fv + self.transitions[self.tag_to_ix[STOP]]
            b = argmax(tv)
            ps = tv[0][b]
            bp = [b]
            for x in reversed(bps):
                b = x[b]
                bp.append(b)
            start = bp.pop()
            assert start == self.tag_to_ix[START]
            bp.reverse()
            return ps, bp

        def nll(self, s, t):
            f = self._get_lstm_features(s)
            return self._forward_alg(f) - self._score_sentence(f, t)

        def forward(self, s):
            return self._viterbi(self._get_lstm_features(s))

    t2i = {"B": 0, "I": 1, "O": 2, START: 3, STOP: 4}
    data = [("a b c d a".split(), "B I O O B".split()), ("d c b".split(), "B I O".split())]
    w2i = {}
    for s, _ in data:
        for w in s:
            w2i.setdefault(w, len(w2i))
    model = BiLSTM_CRF(len(w2i), t2i, 5, 4)
    keep = model.transitions.detach().clone()
    torch.fill(model)
    with torch.no_grad():
        model.transitions.copy_(keep)
    opt = torch.optim.SGD(model.parameters(), lr=0.05, weight_decay=1e-4)
    out = []
    with torch.no_grad():
        print(model(torch.tensor([w2i[w] for w in data[0][0]], dtype=torch.long)))
    for e in range(2):
        for s, t in data:
            model.zero_grad()
            l = model.nll(torch.tensor([w2i[w] for w in s]), torch.tensor([t2i[x] for x in t], dtype=torch.long))
            l.backward()
            opt.step()
            out.append(l)
    with torch.no_grad():
        sc, path = model(torch.tensor([w2i[w] for w in data[0][0]]))
        print(sc, path)
    return out + [model.transitions]


def lora(torch: Any) -> list[Any]:
    nn, F = torch.nn, torch.nn.functional

    class LoRALayer:
        def __init__(self, r, lora_alpha, lora_dropout, merge_weights):
            self.r, self.lora_alpha, self.merged, self.merge_weights = r, lora_alpha, False, merge_weights
            self.lora_dropout = nn.Dropout(p=lora_dropout) if lora_dropout > 0.0 else (lambda x: x)

    class Linear(nn.Linear, LoRALayer):
        def __init__(
            self,
            in_features,
            out_features,
            r=0,
            lora_alpha=1,
            lora_dropout=0.0,
            fan_in_fan_out=False,
            merge_weights=True,
            **kwargs,
        ):
            nn.Linear.__init__(self, in_features, out_features, **kwargs)
            LoRALayer.__init__(self, r=r, lora_alpha=lora_alpha, lora_dropout=lora_dropout, merge_weights=merge_weights)
            self.fan_in_fan_out = fan_in_fan_out
            if r > 0:
                self.lora_A = nn.Parameter(self.weight.new_zeros((r, in_features)))
                self.lora_B = nn.Parameter(self.weight.new_zeros((out_features, r)))
                self.scaling = self.lora_alpha / self.r
                self.weight.requires_grad = False
            self.reset_parameters()
            if fan_in_fan_out:
                self.weight.data = self.weight.data.transpose(0, 1)

        def reset_parameters(self):
            nn.Linear.reset_parameters(self)
            if hasattr(self, "lora_A"):
                nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
                nn.init.zeros_(self.lora_B)

        def train(self, mode: bool = True):
            def T(w):
                return w.transpose(0, 1) if self.fan_in_fan_out else w

            nn.Linear.train(self, mode)
            if mode:
                if self.merge_weights and self.merged:
                    if self.r > 0:
                        self.weight.data -= T(self.lora_B @ self.lora_A) * self.scaling
                    self.merged = False
            else:
                if self.merge_weights and not self.merged:
                    if self.r > 0:
                        self.weight.data += T(self.lora_B @ self.lora_A) * self.scaling
                    self.merged = True

        def forward(self, x):
            def T(w):
                return w.transpose(0, 1) if self.fan_in_fan_out else w

            if self.r > 0 and not self.merged:
                result = F.linear(x, T(self.weight), bias=self.bias)
                result += (self.lora_dropout(x) @ self.lora_A.transpose(0, 1) @ self.lora_B.transpose(0, 1)) * self.scaling
                return result
            return F.linear(x, T(self.weight), bias=self.bias)

    def mark_only_lora(model):
        for n, p in model.named_parameters():
            if "lora_" not in n:
                p.requires_grad = False

    class LoRAParametrization(nn.Module):
        def __init__(self, i, o, rank=2, alpha=1):
            super().__init__()
            self.A = nn.Parameter(torch.randn(rank, o) * 0.1)
            self.B = nn.Parameter(torch.zeros((i, rank)))
            self.scale = alpha / rank
            self.enabled = True

        def forward(self, W):
            return W + torch.matmul(self.B, self.A).view(W.shape) * self.scale if self.enabled else W

    model = nn.Sequential(
        Linear(6, 8, r=2, lora_alpha=4), nn.Tanh(), Linear(8, 6, r=2, fan_in_fan_out=False), nn.Tanh(), nn.Linear(6, 3)
    )
    torch.fill(model)
    mark_only_lora(model)
    print([n for n, p in model.named_parameters() if p.requires_grad])
    print(model)
    opt = torch.optim.AdamW(filter(lambda p: p.requires_grad, model.parameters()), lr=1e-2)
    x, y = torch.randn(10, 6), torch.randint(0, 3, (10,))

    @torch.compile
    def step():
        opt.zero_grad()
        l = F.cross_entropy(model(x), y)
        l.backward()
        opt.step()
        return l

    ls = [step().item() for _ in range(4)]
    a = model(x)
    model.eval()
    b = model(x)
    model.train()
    c = model(x)
    print((a - b).abs().max() < 1e-5, torch.allclose(a, c, atol=1e-5), model[0].weight.grad is None)
    lin = torch.fill(nn.Linear(4, 3))
    torch.nn.utils.parametrize.register_parametrization(lin, "weight", LoRAParametrization(3, 4))
    print(lin, sorted(lin.state_dict()))
    lin.parametrizations.weight[0].B.data.fill_(0.1)
    w = lin.weight
    lin.parametrizations["weight"][0].enabled = False
    return ls + [a, w, lin.weight, {k: v for k, v in model.state_dict().items() if "lora_" in k}]


def ensembles(torch: Any) -> list[Any]:
    nn, F = torch.nn, torch.nn.functional
    func = torch.func
    functional_call, vmap, grad, stack_module_state = func.functional_call, func.vmap, func.grad, func.stack_module_state

    class MLP(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2, self.fc3 = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            x = x.flatten(1) if x.dim() > 2 else x
            return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))

    models = [MLP() for _ in range(4)]
    torch.fill(nn.ModuleList(models))
    data, target = torch.randn(4, 7, 6), torch.randint(0, 3, (4, 7))
    params, buffers = stack_module_state(models)
    base = copy.deepcopy(models[0])
    base = base.to("meta")

    def fmodel(params, buffers, x):
        return functional_call(base, (params, buffers), (x,))

    p1 = vmap(fmodel)(params, buffers, data)
    p2 = vmap(fmodel, in_dims=(0, 0, None))(params, buffers, data[0])
    print(p1.size(), {k: tuple(v.shape) for k, v in params.items()})
    m = models[0]
    ps = {k: v.detach() for k, v in m.named_parameters()}
    bs = {k: v.detach() for k, v in m.named_buffers()}

    def loss(p, b, x, y):
        return F.cross_entropy(functional_call(m, (p, b), (x.unsqueeze(0),)), y.unsqueeze(0))

    g = vmap(grad(loss), in_dims=(None, None, 0, 0))(ps, bs, data[0], target[0])
    norms = torch.stack([v.flatten(1).norm(2, dim=1) for v in g.values()], 0).norm(2, 0)
    clip = (1.0 / (norms + 1e-6)).clamp(max=1.0)
    dp = {k: torch.einsum("n,n...->...", clip, v) / 7 for k, v in g.items()}
    slow = [
        torch.autograd.grad(F.cross_entropy(m(data[0][i : i + 1]), target[0][i : i + 1]), list(m.parameters()))
        for i in range(7)
    ]
    print([torch.allclose(a, torch.stack(b), atol=1e-5) for a, b in zip(g.values(), zip(*slow))])
    H = func.hessian(lambda w: (torch.tanh(data[0] @ w) ** 2).mean())(torch.ones(6) * 0.1)
    J = func.jacrev(lambda x: functional_call(m, ps, x))(data[0][:1])
    jv = func.jvp(lambda x: m(x), (data[0],), (torch.ones_like(data[0]),))
    vj = func.vjp(m, data[0])
    J2 = func.jacfwd(torch.sin)(torch.arange(3.0))
    opt = torch.optim.SGD(params.values(), lr=0.1)
    out = []

    @torch.compile
    def step(x, y):
        opt.zero_grad()
        l = vmap(lambda p, b, x, y: F.cross_entropy(fmodel(p, b, x), y))(params, buffers, x, y)
        l.sum().backward()
        opt.step()
        return l

    for _ in range(3):
        out.append(step(data, target))
    ntk = torch.einsum(
        "naf,mbf->nmab",
        *[
            (j := vmap(func.jacrev(lambda p, x: functional_call(m, p, x.unsqueeze(0)).squeeze(0)), (None, 0))(ps, data[0]))[
                "fc3.weight"
            ].flatten(2)
        ]
        * 2,
    )
    gv = func.grad_and_value(lambda w: (w**2).sum())(torch.ones(2))
    return [p1, p2, dp, norms, H, J, jv, vj[0], vj[1](torch.ones(7, 3)), J2, ntk, gv] + out


def lazy_odds(torch: Any) -> list[Any]:
    nn, F = torch.nn, torch.nn.functional
    net = nn.Sequential(nn.LazyConv2d(6, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
    print(net)
    x = torch.randn(2, 3, 6, 6)
    net(x)
    print(net, net[4].weight.shape, type(net[4]).__name__)
    torch.fill(net)

    class Custom(nn.Module):
        def __init__(self):
            super().__init__()
            self.pd = nn.ParameterDict({"left": nn.Parameter(torch.ones(2)), "right": torch.zeros(3)})
            self.pl = nn.ParameterList([nn.Parameter(torch.ones(i + 1)) for i in range(3)])
            self.md = nn.ModuleDict([["lrelu", nn.LeakyReLU()], ["prelu", nn.PReLU()]])
            self.register_parameter("none", None)
            self.register_buffer("mask", torch.ones(2), persistent=False)
            self.k = 3
            self.register_buffer("b2", None)

        def extra_repr(self):
            return f"k={self.k}"

        def forward(self, x, act="lrelu"):
            return self.md[act](x * self.pd["left"] + self.pl[1])

    c = Custom()
    print(c, list(c.state_dict()), [n for n, _ in c.named_parameters()], [n for n, _ in c.named_buffers()])
    c.md.update({"elu": nn.ELU()})
    c.pl.append(torch.ones(1))
    del c.md["prelu"]
    print("lrelu" in c.md, list(c.md.keys()), len(c.pl), c.pd.keys(), [tuple(p.shape) for p in c.pl[1:3]])
    out = [c(torch.randn(4, 2)), c(torch.randn(2), act="elu")]
    net2 = copy.deepcopy(c)
    net2.pd["left"].data.fill_(5)
    out.append(c.pd["left"])
    print([(n, type(m).__name__) for n, m in net.named_children()], len(list(net.modules())), net[1:3], net[-1])
    r = net.load_state_dict({k: v for k, v in net.state_dict().items() if "bias" not in k}, strict=False)
    print(r, r.missing_keys)
    for bad in (
        lambda: net.load_state_dict({"x": torch.ones(1)}),
        lambda: c.nothing,
        lambda: net(torch.randn(2, 4, 6, 6)),
        lambda: nn.Linear(2, 3)(torch.ones(4)),
        lambda: torch.ones(2, requires_grad=True).numpy(),
        lambda: nn.Linear(2, 2)(torch.ones(1, 2).double()),
        lambda: torch.cat([torch.ones(2, 2), torch.ones(2)]),
        lambda: torch.ones(2, 3) @ torch.ones(2, 3),
        lambda: torch.ones(3).view(2, 2),
        lambda: torch.ones(2)[5],
        lambda: F.mse_loss(torch.ones(2, requires_grad=True), torch.ones(2)).backward() or torch.ones(1).backward(),
        lambda: torch.zeros(2).item(),
        lambda: bool(torch.ones(2)),
        lambda: torch.stack([torch.ones(1), torch.ones(2)]),
        lambda: nn.Conv2d(3, 4, 3)(torch.ones(1, 2, 5, 5)),
        lambda: nn.BatchNorm1d(3)(torch.ones(1, 3)),
        lambda: torch.optim.SGD([], lr=0.1),
        lambda: torch.optim.Adam(net.parameters(), lr=-1),
        lambda: setattr(c, "pl", 3),
        lambda: nn.Module().forward(),
        lambda: torch.tensor("a"),
        lambda: nn.MultiheadAttention(5, 2),
        lambda: F.softmax(torch.ones(2), dim=1),
    ):
        try:
            bad()
            print("fine")
        except Exception as ex:
            print([k.__name__ for k in type(ex).__mro__ if k.__module__ == "builtins"][0], "|", str(ex).split("\n")[0][:70])
    return out + [net(x)]


PROGRAMS: dict[str, tuple[Program, float]] = {
    "maml": (maml, 0.001),
    "crf": (crf, 0.0001),
    "lora": (lora, 0.0001),
    "ensembles": (ensembles, 0.001),
    "lazy_odds": (lazy_odds, 0.0001),
}
