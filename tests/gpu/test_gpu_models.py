"""Training through the public API on a real device: losses and weights against the same in float64 on NumPy.

Needs a GPU, its driver, cuda-bindings and Triton; skipped with the reason elsewhere.
"""
from __future__ import annotations

import math

import numpy as np
import pytest
from gpu_device import WHY, some

pytestmark = pytest.mark.skipif(bool(WHY), reason=WHY or "-")

import graphc
from graphc import config, nn
from graphc.nn import functional as F


class Attention(nn.Module):
    """Two blocks of causal attention over letters; attention by the library function or by hand."""

    def __init__(self, by_hand: bool, width: int = 32, heads: int = 2):
        super().__init__()
        self.by_hand, self.heads = by_hand, heads
        self.tok, self.head = nn.Embedding(40, width), nn.Linear(width, 40, bias=False)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.qkv = nn.ModuleList([nn.Linear(width, 3 * width) for _ in range(2)])
        self.out = nn.ModuleList([nn.Linear(width, width) for _ in range(2)])

    def forward(self, x):
        h = self.tok(x)
        b, t, w = h.shape
        for norm, qkv, out in zip(self.norms, self.qkv, self.out):
            q, k, v = qkv(norm(h)).view(b, t, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
            if self.by_hand:
                mask = graphc.ones(t, t, dtype=graphc.bool, device=x.device).triu(1)
                y = F.softmax((q @ k.mT / math.sqrt(w // self.heads)).masked_fill(mask, -math.inf), -1) @ v
            else:
                y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            h = h + out(y.transpose(1, 2).reshape(b, t, w))
        return self.head(h).flatten(0, 1)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 10)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


class Residual(nn.Module):
    """Convolutions with batch norm and a shortcut, as in ResNet."""

    def __init__(self):
        super().__init__()
        self.c0, self.n0 = nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
        self.c1, self.n1 = nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.cs, self.head = nn.Conv2d(8, 16, 1, 2, bias=False), nn.Linear(16, 10)

    def forward(self, x):
        x = F.relu(self.n0(self.c0(x)))
        return self.head(F.relu(self.n1(self.c1(x)) + self.cs(x)).mean((2, 3)))


def lenet():
    return nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.AvgPool2d(2),
                         nn.Flatten(), nn.Linear(64, 10))


def mlp():
    return nn.Sequential(nn.Linear(20, 33), nn.GELU(), nn.Linear(33, 17), nn.Tanh(), nn.Dropout(0.0), nn.Linear(17, 10))


def letters(n: int):
    r = np.random.default_rng(2)
    return r.integers(0, 40, (n, 12)), r.integers(0, 40, (n, 12))


def examples(*shape: int):
    def make(n: int):
        r = np.random.default_rng(2)
        return r.standard_normal((n, *shape)), r.integers(0, 10, n)
    return make


MODELS = {"mlp": (mlp, examples(20)), "lenet": (lenet, examples(1, 16, 16)), "attention": (lambda: Attention(False), letters),
          "attention_by_hand": (lambda: Attention(True), letters), "lstm": (Recurrent, examples(5, 8)),
          "residual": (Residual, examples(3, 8, 8))}
OPTIMIZERS = {"sgd": lambda p: graphc.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3), "adamw": lambda p: graphc.optim.AdamW(p, lr=1e-2),
              "adagrad": lambda p: graphc.optim.Adagrad(p, lr=0.05)}


def trained(model: str, optimizer: str, where: str, dt, mode: str | None = None, steps: int = 4, half: bool = False):
    """Losses, and weights afterwards, as float64."""
    make, data = MODELS[model]
    graphc.manual_seed(0)
    net = make().to(dt).to(where)
    opt = OPTIMIZERS[optimizer](net.parameters())
    x, y = data(some(16, 3))
    x = graphc.from_numpy(x).to(where)
    x = x.to(dt) if x.dtype.is_floating_point else x
    y = graphc.from_numpy(y).flatten().to(where)

    def step(x, y):
        opt.zero_grad()
        with graphc.autocast("cuda", dtype=graphc.bfloat16, enabled=half):
            loss = F.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
        return loss.detach()

    run = step if mode is None else graphc.compile(step, mode=mode)
    losses = [run(x, y).item() for _ in range(steps)]
    return np.array(losses), [p.detach().cpu().double().numpy() for p in net.parameters()]


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS)[:some(3, 1)])
@pytest.mark.parametrize("model", list(MODELS))
def test_training(model: str, optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 on the device, in float64 on NumPy; weights may differ where Adam turns rounding into steps."""
    got, weights = trained(model, optimizer, "cuda", graphc.float32)
    monkeypatch.setattr(config, "BACKEND", "numpy")
    want, exact = trained(model, optimizer, "cpu", graphc.float64)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)
    far = sum(int((np.abs(a - b) > 2e-3 + 2e-3 * np.abs(b)).sum()) for a, b in zip(weights, exact))
    assert far <= 0.01 * sum(a.size for a in weights) and want[-1] < want[0]


@pytest.mark.parametrize("mode", ["default", "max-autotune", "replay"])
@pytest.mark.parametrize("model", ["mlp", "attention", "residual"][:some(3, 1)])
def test_compiled_training(model: str, mode: str) -> None:
    """graphc.compile changes nothing but the time; measured block sizes may round otherwise."""
    plain, a = trained(model, "sgd", "cuda", graphc.float32)
    compiled, b = trained(model, "sgd", "cuda", graphc.float32, mode)
    np.testing.assert_allclose(compiled, plain, rtol=1e-4, atol=1e-4)
    for x, y in zip(a, b):
        np.testing.assert_allclose(x, y, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("model", ["mlp", "attention", "attention_by_hand", "residual"][:some(4, 2)])
def test_training_in_bfloat16(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under autocast: losses near those in float64, weights in float32."""
    got, _ = trained(model, "sgd", "cuda", graphc.float32, half=True)
    monkeypatch.setattr(config, "BACKEND", "numpy")
    want, _ = trained(model, "sgd", "cpu", graphc.float64)
    np.testing.assert_allclose(got, want, rtol=0.05, atol=0.05)


def test_the_same_bits_twice() -> None:
    """Nothing depends on the order in which programs of a kernel run."""
    for model in list(MODELS)[:some(6, 2)]:
        first, a = trained(model, "adamw", "cuda", graphc.float32)
        second, b = trained(model, "adamw", "cuda", graphc.float32)
        assert np.array_equal(first, second) and all(np.array_equal(x, y) for x, y in zip(a, b)), model


def test_results_on_the_device_do_not_fill_the_hosts_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled step stays one program where a hundredth of its results would make one on the host full."""
    from graphc.ir import recorder

    monkeypatch.setattr(config, "BYTE_CAP", 1 << 18)
    plans = {}
    for where in ("cpu", "cuda"):
        x = graphc.ones(64, 64, device=where)

        def step(x):
            for k in range(40):
                x = x * (1 + 1 / (k + 2)) - 0.25
            return x.sum()

        run, before = graphc.compile(step), recorder.counters["flushes"]
        assert run(x).isfinite().item()
        plans[where] = recorder.counters["flushes"] - before
    assert plans["cuda"] < plans["cpu"], plans


def test_eager_programs() -> None:
    """Outside of training: indexing, sorting, in-place writes, reads in between."""
    r = np.random.default_rng(0)
    for where in ("cuda",):
        x = r.standard_normal((some(300, 9), 40))
        t = graphc.from_numpy(x).to(where)
        rows = t[t.sum(1) > 0]
        want = x[x.sum(1) > 0]
        np.testing.assert_allclose(rows.cpu().numpy(), want)
        values, at = t.sort(1, descending=True)
        np.testing.assert_allclose(values.cpu().numpy(), -np.sort(-x, 1))
        np.testing.assert_allclose(t.gather(1, at).cpu().numpy(), values.cpu().numpy())
        t[2:5] *= 2
        t[:, 3] = 1.0
        x[2:5] *= 2
        x[:, 3] = 1.0
        np.testing.assert_allclose(t.cpu().numpy(), x)
        np.testing.assert_allclose(t.cumsum(0).cpu().numpy(), x.cumsum(0), rtol=1e-10, atol=1e-10)
        assert t.argmax().item() == x.argmax() and abs(t.std().item() - x.std(ddof=1)) < 1e-9
