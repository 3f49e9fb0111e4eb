"""Workloads in MLX: ``mx.compile`` of the whole step over the state it updates, on MLX's CPU device."""
from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from systems import Skip
from workloads import Arrays, Workload, exchanged

State = dict[str, Any]


def cross_entropy(z: Any, y: Any) -> Any:
    picked = mx.take_along_axis(z, y[:, None], axis=-1)[:, 0]
    return mx.mean(mx.logsumexp(z, axis=-1) - picked)


def linear(p: State, name: str, x: Any) -> Any:
    y = x @ p[name + ".weight"].T
    return y + p[name + ".bias"] if name + ".bias" in p else y


def layer_norm(x: Any, w: Any, b: Any) -> Any:
    return mx.fast.layer_norm(x, w, b, 1e-5)


def mlp(c: dict[str, Any], p: State, x: Any) -> Any:
    n = len(c["widths"]) - 1
    for i in range(n - 1):
        x = nn.relu(linear(p, f"l{i}", x))
    return linear(p, f"l{n - 1}", x)


def gpt(c: dict[str, Any], p: State, x: Any) -> Any:
    w, heads = c["width"], c["heads"]
    h = p["tok.weight"][x] + p["pos.weight"]
    b, t = x.shape
    mask = mx.triu(mx.ones((t, t), mx.bool_), 1)
    for i in range(c["layers"]):
        n = f"blocks.{i}."
        qkv = linear(p, n + "qkv", layer_norm(h, p[n + "ln1.weight"], p[n + "ln1.bias"])).reshape(b, t, 3, heads, w // heads)
        q, k, v = (qkv[:, :, j].swapaxes(1, 2) for j in range(3))
        att = (q @ k.swapaxes(-2, -1)) * (1 / math.sqrt(w // heads))
        y = (mx.softmax(mx.where(mask, -math.inf, att), axis=-1) @ v).swapaxes(1, 2)
        h = h + linear(p, n + "out", y.reshape(b, t, w))
        h = h + linear(p, n + "down", nn.gelu(linear(p, n + "up", layer_norm(h, p[n + "ln2.weight"], p[n + "ln2.bias"]))))
    return linear(p, "head", layer_norm(h, p["ln.weight"], p["ln.bias"])).reshape(b * t, -1)


MODELS: dict[str, Callable[..., Any]] = {"mlp": mlp, "mlp_wide": mlp, "gpt": gpt}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "gelu": lambda x, g: nn.gelu(x) * g,
    "softmax": lambda x: mx.softmax(x, axis=-1),
    "layernorm": layer_norm,
    "xent": cross_entropy,
    "chain": lambda x, y: mx.exp(-mx.abs(x)) * nn.relu(x * 2 + y) + 0.5,
    "bcast_relu": lambda x, b: nn.relu(x + b),
    "permute": lambda x: mx.contiguous(x.transpose(0, 2, 3, 1)),
}


def moments(name: str, p: State) -> State:
    """The optimizer's state before the first step."""
    return {} if name == "SGD" else {"t": mx.array(0.0), **{f"{m}.{k}": mx.zeros_like(v) for k, v in p.items() for m in "mv"}}


def update(name: str, options: dict[str, float], p: State, g: State, o: State) -> None:
    """SGD, Adam and AdamW as PyTorch defines them, written into ``p`` and ``o``."""
    lr = options["lr"]
    if name == "SGD":
        p.update({k: p[k] - lr * g[k] for k in p})
        return
    b1, b2, eps, shrink = 0.9, 0.999, 1e-8, 1 - lr * options.get("weight_decay", 0.0)
    o["t"] = o["t"] + 1
    c1, c2 = 1 - b1 ** o["t"], mx.sqrt(1 - b2 ** o["t"])
    for k in p:
        o["m." + k] = b1 * o["m." + k] + (1 - b1) * g[k]
        o["v." + k] = b2 * o["v." + k] + (1 - b2) * mx.square(g[k])
        p[k] = p[k] * shrink - (lr / c1) * o["m." + k] / (mx.sqrt(o["v." + k]) / c2 + eps)


class Program:
    """A workload in MLX; the interface is that of ``torchlike.TorchLike``."""

    def __init__(self, w: Workload, c: dict[str, Any], a: Arrays) -> None:
        mx.set_default_device(mx.cpu)
        if w.kind == "train" and w.name not in MODELS or w.optimizer[1].get("momentum"):
            raise Skip("not written for MLX")
        self.inputs = [self.place(a[k]) for k in w.inputs]
        self.p = {k[2:]: self.place(v) for k, v in a.items() if k.startswith("p.")}
        self.state: list[State] = []
        if w.kind == "train" or w.extra["op"] == "adamw":
            self._train(w, c, {k[2:]: self.place(v) for k, v in a.items() if k.startswith("g.")})
        else:
            self._kernel(w)

    def place(self, x: np.ndarray) -> Any:
        return mx.array(x.astype(np.int32) if x.dtype == np.int64 else x)

    def _train(self, w: Workload, c: dict[str, Any], grads: State) -> None:
        p, (name, options) = self.p, w.optimizer
        self.state = [p, moments(name, p)]
        loss_and_grad = mx.value_and_grad(lambda p, x, y: cross_entropy(MODELS[w.name](c, p, x), y.reshape(-1)))

        @partial(mx.compile, inputs=self.state, outputs=self.state)
        def step(*inputs: Any) -> Any:
            loss, g = loss_and_grad(p, *inputs) if inputs else (None, grads)
            update(name, options, p, g, self.state[1])
            return list(p.values()) if loss is None else loss

        self.step = step

    def _kernel(self, w: Workload) -> None:
        f, wrt = FUNCTIONS[w.extra["op"]], w.extra["wrt"]
        n, at = len(w.inputs) - (w.inputs[-1] == "dy"), [w.inputs.index(k) for k in wrt]

        def both(*inputs: Any) -> Any:
            def of(*xs: Any) -> Any:
                return [f(*exchanged(inputs[:n], at, xs))]

            y, grads = mx.vjp(of, [inputs[i] for i in at], [inputs[n] if n < len(inputs) else mx.array(1.0)])
            return [*y, *grads]

        self.step = mx.compile(both if wrt else f)

    def wait(self, out: Any) -> None:
        mx.eval(out, self.state)

    def values(self, out: Any) -> list[Any]:
        return [np.array(t) for t in (out if isinstance(out, (list, tuple)) else [out])]
