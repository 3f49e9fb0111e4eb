"""Models that the tests of this folder export."""
from __future__ import annotations

from typing import Any

import numpy as np

import graphc
from graphc import nn


def mlp() -> nn.Module:
    graphc.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def cnn() -> nn.Module:
    graphc.manual_seed(0)
    m = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                      nn.Linear(8 * 4 * 4, 5))
    m(graphc.randn(4, 3, 16, 16))
    return m.eval()


class Block(nn.Module):
    """A GPT block with an embedding in front."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.ln = nn.Embedding(11, 16), nn.LayerNorm(16)
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16))

    def forward(self, idx: Any) -> Any:
        x = self.wte(idx)
        b, t, c = x.shape
        q, k, v = self.qkv(self.ln(x)).view(b, t, 3, 2, 8).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(b, t, c))
        return x + self.mlp(x)


def block() -> nn.Module:
    graphc.manual_seed(0)
    return Block().eval()


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 10, num_layers=2, batch_first=True), nn.Linear(10, 3)

    def forward(self, x: Any) -> Any:
        y, (h, c) = self.lstm(x)
        return {"y": self.head(y), "state": (h, c), "steps": x.shape[1]}


def recurrent() -> nn.Module:
    graphc.manual_seed(0)
    return Recurrent().eval()


def image() -> Any:
    return graphc.randn(4, 3, 16, 16)


MODELS = {"mlp": (mlp, lambda: graphc.randn(5, 8)), "cnn": (cnn, image),
          "gpt": (block, lambda: graphc.randint(0, 11, (3, 7))), "lstm": (recurrent, lambda: graphc.randn(2, 5, 6))}


def leaves(x: Any) -> list[np.ndarray]:
    if isinstance(x, dict):
        return [a for v in x.values() for a in leaves(v)]
    if isinstance(x, (tuple, list)):
        return [a for v in x for a in leaves(v)]
    return [x.detach().numpy()] if isinstance(x, graphc.Tensor) else [np.asarray(x)]
