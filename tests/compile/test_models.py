"""Training steps of whole models: eager, compiled and replayed alike, and PyTorch's with the same weights."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.compile import replay as compile_replay


def convolutional(t: Any) -> Any:
    n = t.nn
    return n.Sequential(n.Conv2d(3, 8, 3, padding=1), n.BatchNorm2d(8), n.ReLU(), n.MaxPool2d(2), n.Conv2d(8, 12, 3), n.GELU(),
                        n.AdaptiveAvgPool2d(2), n.Flatten(), n.Linear(48, 10))


def transformer(t: Any) -> Any:
    class GPT(t.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tok, self.pos = t.nn.Embedding(17, 16), t.nn.Embedding(12, 16)
            layer = t.nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
            self.blocks = t.nn.ModuleList([layer])
            self.qkv, self.out = t.nn.Linear(16, 48, bias=False), t.nn.Linear(16, 16)
            self.norm, self.head = t.nn.LayerNorm(16), t.nn.Linear(16, 17, bias=False)
            self.head.weight = self.tok.weight
            self.register_buffer("mask", t.tril(t.ones(12, 12)) == 0)

        def forward(self, x: Any) -> Any:
            b, n = x.shape
            h = self.tok(x) + self.pos(t.arange(n))
            for block in self.blocks:
                h = block(h, src_mask=self.mask[:n, :n])
            q, k, v = self.qkv(self.norm(h)).view(b, n, 3, 2, 8).permute(2, 0, 3, 1, 4)
            w = (q @ k.transpose(-2, -1) / 8**0.5).masked_fill(self.mask[:n, :n], float("-inf")).softmax(-1)
            h = h + self.out((w @ v).transpose(1, 2).reshape(b, n, 16))
            return self.head(h).flatten(0, 1)

    return GPT()


def recurrent(t: Any) -> Any:
    class Tagger(t.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.lstm = t.nn.Embedding(17, 8), t.nn.LSTM(8, 12, num_layers=2, batch_first=True)
            self.head = t.nn.Linear(12, 17)

        def forward(self, x: Any) -> Any:
            return self.head(self.lstm(self.embed(x))[0]).flatten(0, 1)

    return Tagger()


def images(r: np.random.Generator, k: int) -> tuple[np.ndarray, np.ndarray]:
    return r.standard_normal((6, 3, 12, 12)).astype(np.float32), r.integers(0, 10, 6)


def text(r: np.random.Generator, k: int) -> tuple[np.ndarray, np.ndarray]:
    n = 12 if k % 3 else 9
    return r.integers(0, 17, (4, n)), r.integers(0, 17, 4 * n)


MODELS: dict[str, tuple[Callable[[Any], Any], Any, Any]] = {
    "convolutional": (convolutional, images, lambda o, p: o.SGD(p, lr=0.05, momentum=0.9, nesterov=True)),
    "transformer": (transformer, text, lambda o, p: o.AdamW(p, lr=0.01, weight_decay=0.1)),
    "recurrent": (recurrent, text, lambda o, p: o.Adam(p, lr=0.01)),
}
STEPS = 14


def train(t: Any, compile: Any, name: str, weights: dict[str, np.ndarray] | None = None) -> tuple[list[float], dict[str, Any], Any]:
    """Losses, final state and the step; one learning rate per step, gradients clipped, odd steps accumulate two batches."""
    make, data, optimizer = MODELS[name]
    t.manual_seed(0)
    net = make(t)
    if weights is not None:
        net.load_state_dict({k: t.tensor(v) for k, v in weights.items()})
    start = {k: np.array(v.tolist(), np.float32 if v.dtype.is_floating_point else None) for k, v in net.state_dict().items()}
    opt = optimizer(t.optim, net.parameters())

    @compile
    def step(x: Any, y: Any) -> Any:
        loss = t.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        t.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
        opt.zero_grad()
        return loss

    r, losses = np.random.default_rng(3), []
    for k in range(STEPS):
        opt.param_groups[0]["lr"] *= 0.95
        x, y = data(r, k)
        losses.append(step(t.tensor(x), t.tensor(y)).item())
    return losses, start, (net, step)


@pytest.mark.parametrize("name", list(MODELS))
def test_models_train_alike(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_replay, "FIRST_AUDITS", 1)
    eager, start, (net, _) = train(graphc, lambda fn: fn, name)
    compiled, _, (other, step) = train(graphc, graphc.compile(fullgraph=True), name)
    replayed, _, (_, again) = train(graphc, graphc.compile(mode="replay"), name)
    np.testing.assert_allclose(compiled, eager, rtol=1e-4)
    np.testing.assert_allclose(replayed, compiled, rtol=1e-6)
    for (k, a), b in zip(net.state_dict().items(), other.state_dict().values()):
        np.testing.assert_allclose(b.tolist(), a.tolist(), rtol=1e-3, atol=1e-4, err_msg=k)
    assert step.explain().plans <= 4 and step.explain().breaks == {}
    assert again.explain().replayed > 2, again.explain().replay_refused
    torch = pytest.importorskip("torch")
    want, _, _ = train(torch, lambda fn: fn, name, start)
    np.testing.assert_allclose(eager, want, rtol=2e-3)
