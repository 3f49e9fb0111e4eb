"""The workloads in tinygrad: a TinyJit over the whole step, its own layers and optimizers."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from tinygrad import Device, Tensor, TinyJit, dtypes, nn
from tinygrad.helpers import Context
from workloads import Arrays, Workload, resnet_blocks

State = dict[str, Any]


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + (x * (1 / math.sqrt(2))).erf())


def linear(p: State, name: str, x: Tensor) -> Tensor:
    return x.linear(p[name + ".weight"].T, p.get(name + ".bias"))


def layer_norm(p: State, name: str, x: Tensor) -> Tensor:
    return x.layernorm(eps=1e-5) * p[name + ".weight"] + p[name + ".bias"]


def conv(p: State, name: str, x: Tensor, stride: int = 1, pad: int = 0) -> Tensor:
    return x.conv2d(p[name + ".weight"], p.get(name + ".bias"), stride=stride, padding=pad)


def mlp(c: dict[str, Any], p: State, s: State, x: Tensor) -> Tensor:
    n = len(c["widths"]) - 1
    for i in range(n - 1):
        x = linear(p, f"l{i}", x).relu()
    return linear(p, f"l{n - 1}", x)


def lenet(c: dict[str, Any], p: State, s: State, x: Tensor) -> Tensor:
    x = conv(p, "c0", x, pad=2).relu().max_pool2d(2)
    x = conv(p, "c1", x).relu().max_pool2d(2).flatten(1)
    return linear(p, "l2", linear(p, "l1", linear(p, "l0", x).relu()).relu())


def gpt(c: dict[str, Any], p: State, s: State, x: Tensor) -> Tensor:
    w, heads, (b, t) = c["width"], c["heads"], x.shape
    h = s["tok"](x) + p["pos.weight"]
    mask = Tensor.ones(t, t, dtype=dtypes.bool).triu(1)
    for i in range(c["layers"]):
        n = f"blocks.{i}."
        q, k, v = linear(p, n + "qkv", layer_norm(p, n + "ln1", h)).reshape(b, t, 3, heads, w // heads).permute(2, 0, 3, 1, 4)
        if c["sdpa"]:
            y = q.scaled_dot_product_attention(k, v, is_causal=True)
        else:
            att = (q @ k.transpose(-2, -1)) * (1 / math.sqrt(w // heads))
            y = att.masked_fill(mask, -math.inf).softmax(-1) @ v
        h = h + linear(p, n + "out", y.transpose(1, 2).reshape(b, t, w))
        h = h + linear(p, n + "down", gelu(linear(p, n + "up", layer_norm(p, n + "ln2", h))))
    return linear(p, "head", layer_norm(p, "ln", h)).reshape(b * t, -1)


def lstm(c: dict[str, Any], p: State, s: State, x: Tensor) -> Tensor:
    h = m = Tensor.zeros(x.shape[0], c["hidden"])
    for t in range(x.shape[1]):
        z = x[:, t].linear(p["rnn.weight_ih_l0"].T, p["rnn.bias_ih_l0"]) + h.linear(p["rnn.weight_hh_l0"].T, p["rnn.bias_hh_l0"])
        i, f, g, o = z.chunk(4, dim=1)
        m = (f.sigmoid() * m + i.sigmoid() * g.tanh()).contiguous()
        h = (o.sigmoid() * m.tanh()).contiguous()
    return linear(p, "head", h)


def resnet18(c: dict[str, Any], p: State, s: State, x: Tensor) -> Tensor:
    x = s["n0"](conv(p, "c0", x, 1, 1)).relu()
    for name, i, o, stride in resnet_blocks(c):
        y = s[name + ".n2"](conv(p, name + ".c2", s[name + ".n1"](conv(p, name + ".c1", x, stride, 1)).relu(), 1, 1))
        x = (y + (s[name + ".ns"](conv(p, name + ".cs", x, stride)) if stride != 1 or i != o else x)).relu()
    return linear(p, "head", x.mean((2, 3)))


MODELS: dict[str, Callable[..., Tensor]] = {
    "mlp": mlp, "mlp_wide": mlp, "lenet": lenet, "gpt": gpt, "gpt_sdpa": gpt, "lstm": lstm, "resnet18": resnet18}

FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "gelu": lambda x, g: gelu(x) * g,
    "softmax": lambda x: x.softmax(-1),
    "layernorm": lambda x, w, b: x.layernorm(eps=1e-5) * w + b,
    "xent": lambda x, y: x.sparse_categorical_crossentropy(y),
    "chain": lambda x, y: (-x.abs()).exp() * (x * 2 + y).relu() + 0.5,
    "bcast_relu": lambda x, b: (x + b).relu(),
    "permute": lambda x: x.permute(0, 2, 3, 1).contiguous(),
}


def optimizer(name: str, params: list[Tensor], options: dict[str, float]) -> Any:
    return getattr(nn.optim, name)(params, **options)


def layers(w: Workload, p: State) -> State:
    """Layer objects that hold state or choose an algorithm: batch norms and the embedding."""
    s: State = {}
    if w.name == "resnet18":
        for k in p:
            if k.endswith(".bias") and k != "head.bias":
                s[k[:-5]] = norm = nn.BatchNorm(p[k].shape[0])
                norm.weight, norm.bias = p[k[:-5] + ".weight"], p[k]
    if w.name.startswith("gpt"):
        s["tok"] = nn.Embedding(*p["tok.weight"].shape)
        s["tok"].weight = p["tok.weight"]
    return s


class Program:
    """A workload in tinygrad; the interface is that of ``torchlike.TorchLike``."""

    def __init__(self, w: Workload, c: dict[str, Any], a: Arrays) -> None:
        self.w = w
        self.inputs = [self.place(a[k]) for k in w.inputs]
        p = {k[2:]: self.place(v) for k, v in a.items() if k.startswith("p.")}
        if w.kind == "train":
            self.step = TinyJit(self._train(c, p))
        elif w.extra["op"] == "adamw":
            self.step = TinyJit(self._adamw(a, p))
        else:
            self.step = TinyJit(self._kernel())

    def place(self, x: np.ndarray) -> Tensor:
        return Tensor(x.astype(np.int32) if x.dtype == np.int64 else x.copy()).contiguous().realize()

    def _train(self, c: dict[str, Any], p: State) -> Callable[..., Any]:
        model, s, (name, options) = MODELS[self.w.name], layers(self.w, p), self.w.optimizer
        update = optimizer(name, list(p.values()), options)

        def step(x: Tensor, y: Tensor) -> Any:
            with Context(TRAINING=1):
                update.zero_grad()
                loss = model(c, p, s, x).sparse_categorical_crossentropy(y.flatten()).backward()
                return loss.realize(*update.schedule_step())

        return step

    def _adamw(self, a: Arrays, p: State) -> Callable[..., Any]:
        for k, q in p.items():
            q.grad = self.place(a["g." + k])
        update = optimizer(self.w.optimizer[0], list(p.values()), self.w.optimizer[1])

        def step() -> Any:
            with Context(TRAINING=1):
                update.step()
            return list(p.values())

        return step

    def _kernel(self) -> Callable[..., Any]:
        w = self.w
        f, wrt = FUNCTIONS[w.extra["op"]], w.extra["wrt"]
        n, at = len(w.inputs) - (w.inputs[-1] == "dy"), [w.inputs.index(k) for k in wrt]

        def step(*inputs: Tensor) -> Any:
            y = f(*inputs[:n])
            if not wrt:
                return y.realize()
            grads = y.gradient(*[inputs[i] for i in at], gradient=inputs[n] if n < len(inputs) else None)
            Tensor.realize(y, *grads)
            return [y, *grads]

        return step

    def wait(self, out: Any) -> None:
        Device[Device.DEFAULT].synchronize()

    def values(self, out: Any) -> list[Any]:
        return [t.numpy() for t in (out if isinstance(out, (list, tuple)) else [out])]
