"""The workloads in JAX: one ``jax.jit`` for the whole step, state donated, convolutions in JAX's usual NHWC layout."""
from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from workloads import Arrays, Workload, exchanged, resnet_blocks

State = dict[str, Any]


def cross_entropy(z: Any, y: Any) -> Any:
    picked = jnp.take_along_axis(z, y[:, None], axis=-1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(z, axis=-1) - picked)


def linear(p: State, name: str, x: Any) -> Any:
    y = x @ p[name + ".weight"].T
    return y + p[name + ".bias"] if name + ".bias" in p else y


def layer_norm(x: Any, w: Any, b: Any) -> Any:
    mean = jnp.mean(x, -1, keepdims=True)
    var = jnp.mean(jnp.square(x - mean), -1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(var + 1e-5) * w + b


def conv(p: State, name: str, x: Any, stride: int = 1, pad: int = 0) -> Any:
    y = jax.lax.conv_general_dilated(x, p[name + ".weight"], (stride, stride), [(pad, pad)] * 2,
                                     dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return y + p[name + ".bias"] if name + ".bias" in p else y


def pool(x: Any) -> Any:
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def mlp(c: dict[str, Any], p: State, s: State, x: Any) -> Any:
    n = len(c["widths"]) - 1
    for i in range(n - 1):
        x = jax.nn.relu(linear(p, f"l{i}", x))
    return linear(p, f"l{n - 1}", x), s


def lenet(c: dict[str, Any], p: State, s: State, x: Any) -> Any:
    x = pool(jax.nn.relu(conv(p, "c0", x, pad=2)))
    x = pool(jax.nn.relu(conv(p, "c1", x)))
    x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)  # the handed-over weights expect channels first here
    return linear(p, "l2", jax.nn.relu(linear(p, "l1", jax.nn.relu(linear(p, "l0", x))))), s


def gpt(c: dict[str, Any], p: State, s: State, x: Any) -> Any:
    w, heads = c["width"], c["heads"]
    h = p["tok.weight"][x] + p["pos.weight"]
    b, t = x.shape
    mask = jnp.triu(jnp.ones((t, t), bool), 1)
    for i in range(c["layers"]):
        n = f"blocks.{i}."
        qkv = linear(p, n + "qkv", layer_norm(h, p[n + "ln1.weight"], p[n + "ln1.bias"])).reshape(b, t, 3, heads, w // heads)
        if c["sdpa"]:
            y = jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], is_causal=True)
        else:
            q, k, v = qkv.transpose(2, 0, 3, 1, 4)
            att = (q @ k.swapaxes(-2, -1)) * (1 / math.sqrt(w // heads))
            y = (jax.nn.softmax(jnp.where(mask, -jnp.inf, att), axis=-1) @ v).swapaxes(1, 2)
        h = h + linear(p, n + "out", y.reshape(b, t, w))
        up = jax.nn.gelu(linear(p, n + "up", layer_norm(h, p[n + "ln2.weight"], p[n + "ln2.bias"])), approximate=False)
        h = h + linear(p, n + "down", up)
    return linear(p, "head", layer_norm(h, p["ln.weight"], p["ln.bias"])).reshape(b * t, -1), s


def lstm(c: dict[str, Any], p: State, s: State, x: Any) -> Any:
    inputs = x.swapaxes(0, 1) @ p["rnn.weight_ih_l0"].T + (p["rnn.bias_ih_l0"] + p["rnn.bias_hh_l0"])

    def cell(carry: Any, z: Any) -> Any:
        h, m = carry
        i, f, g, o = jnp.split(z + h @ p["rnn.weight_hh_l0"].T, 4, axis=-1)
        m = jax.nn.sigmoid(f) * m + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (jax.nn.sigmoid(o) * jnp.tanh(m), m), None

    zero = jnp.zeros((x.shape[0], c["hidden"]), jnp.float32)
    (h, _), _ = jax.lax.scan(cell, (zero, zero), inputs)
    return linear(p, "head", h), s


def resnet18(c: dict[str, Any], p: State, s: State, x: Any) -> Any:
    new: State = {}

    def norm(name: str, x: Any) -> Any:
        n = x.size // x.shape[-1]
        mean = jnp.mean(x, (0, 1, 2))
        var = jnp.mean(jnp.square(x - mean), (0, 1, 2))
        new[name + ".mean"] = 0.9 * s[name + ".mean"] + 0.1 * jax.lax.stop_gradient(mean)
        new[name + ".var"] = 0.9 * s[name + ".var"] + 0.1 * jax.lax.stop_gradient(var) * (n / (n - 1))
        return (x - mean) * (jax.lax.rsqrt(var + 1e-5) * p[name + ".weight"]) + p[name + ".bias"]

    x = jax.nn.relu(norm("n0", conv(p, "c0", x, pad=1)))
    for name, i, o, stride in resnet_blocks(c):
        y = jax.nn.relu(norm(name + ".n1", conv(p, name + ".c1", x, stride, 1)))
        y = norm(name + ".n2", conv(p, name + ".c2", y, 1, 1))
        x = jax.nn.relu(y + (norm(name + ".ns", conv(p, name + ".cs", x, stride)) if stride != 1 or i != o else x))
    return linear(p, "head", jnp.mean(x, (1, 2))), new


MODELS: dict[str, Callable[..., Any]] = {
    "mlp": mlp, "mlp_wide": mlp, "lenet": lenet, "gpt": gpt, "gpt_sdpa": gpt, "lstm": lstm, "resnet18": resnet18}


def optimizer_init(name: str, p: State, options: dict[str, float]) -> State:
    def zeros() -> State:
        return {k: jnp.zeros_like(v) for k, v in p.items()}

    if name == "SGD":
        return {"m": zeros()} if options.get("momentum") else {}
    return {"m": zeros(), "v": zeros(), "t": jnp.zeros((), jnp.float32)}


def optimizer_step(name: str, options: dict[str, float], p: State, g: State, o: State) -> tuple[State, State]:
    """SGD with momentum, Adam and AdamW as PyTorch defines them."""
    lr = options["lr"]
    if name == "SGD":
        if "m" not in o:
            return {k: p[k] - lr * g[k] for k in p}, o
        m = {k: options["momentum"] * o["m"][k] + g[k] for k in p}
        return {k: p[k] - lr * m[k] for k in p}, {"m": m}
    b1, b2, eps = 0.9, 0.999, 1e-8
    t = o["t"] + 1
    m = {k: b1 * o["m"][k] + (1 - b1) * g[k] for k in p}
    v = {k: b2 * o["v"][k] + (1 - b2) * jnp.square(g[k]) for k in p}
    c1, c2 = 1 - b1 ** t, jnp.sqrt(1 - b2 ** t)
    shrink = 1 - lr * options.get("weight_decay", 0.0)
    return {k: p[k] * shrink - (lr / c1) * m[k] / (jnp.sqrt(v[k]) / c2 + eps) for k in p}, {"m": m, "v": v, "t": t}


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "gelu": lambda x, g: jax.nn.gelu(x, approximate=False) * g,
    "softmax": lambda x: jax.nn.softmax(x, axis=-1),
    "layernorm": layer_norm,
    "xent": cross_entropy,
    "chain": lambda x, y: jnp.exp(-jnp.abs(x)) * jax.nn.relu(x * 2 + y) + 0.5,
    "bcast_relu": lambda x, b: jax.nn.relu(x + b),
    "permute": lambda x: x.transpose(0, 2, 3, 1),
}


class Program:
    """A workload in JAX; the interface is that of ``torchlike.TorchLike``."""

    def __init__(self, w: Workload, c: dict[str, Any], a: Arrays) -> None:
        self.w, self.c, self.state = w, c, ()
        self.images = w.name in ("lenet", "resnet18")
        if w.kind == "train":
            self._train(a)
        elif w.extra["op"] == "adamw":
            self._adamw(a)
        else:
            self._kernel(a)

    def place(self, x: np.ndarray) -> Any:
        if self.images and x.ndim == 4:
            x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
        return jnp.array(x.astype(np.int32) if x.dtype == np.int64 else x)

    def _train(self, a: Arrays) -> None:
        w, c = self.w, self.c
        model, (name, options) = MODELS[w.name], w.optimizer
        p = {k[2:]: jnp.array(v.transpose(2, 3, 1, 0) if v.ndim == 4 else v) for k, v in a.items() if k.startswith("p.")}
        s: State = {}
        if w.name == "resnet18":
            for k, v in p.items():
                if k.endswith(".bias") and k != "head.bias":
                    s[k[:-5] + ".mean"], s[k[:-5] + ".var"] = jnp.zeros_like(v), jnp.ones_like(v)
        self.state = (p, s, optimizer_init(name, p, options))
        self.inputs = [self.place(a[k]) for k in w.inputs]

        def loss_of(p: State, s: State, x: Any, y: Any) -> Any:
            z, new = model(c, p, s, x)
            return cross_entropy(z, y.reshape(-1)), new

        @partial(jax.jit, donate_argnums=(0, 1, 2))
        def run(p: State, s: State, o: State, x: Any, y: Any) -> Any:
            (loss, s), g = jax.value_and_grad(loss_of, has_aux=True)(p, s, x, y)
            p, o = optimizer_step(name, options, p, g, o)
            return p, s, o, loss

        self.run = run

    def _adamw(self, a: Arrays) -> None:
        p = {k[2:]: jnp.array(v) for k, v in a.items() if k.startswith("p.")}
        g = {k[2:]: jnp.array(v) for k, v in a.items() if k.startswith("g.")}
        self.state, self.inputs = (p, optimizer_init("AdamW", p, {})), [g]
        name, options = self.w.optimizer
        self.names = list(p)

        @partial(jax.jit, donate_argnums=(0, 1))
        def run(p: State, o: State, g: State) -> Any:
            p, o = optimizer_step(name, options, p, g, o)
            return p, o, None

        self.run = run

    def _kernel(self, a: Arrays) -> None:
        w = self.w
        f, wrt = FUNCTIONS[w.extra["op"]], w.extra["wrt"]
        self.inputs = [self.place(a[k]) for k in w.inputs]
        n, at = len(w.inputs) - (w.inputs[-1] == "dy"), [w.inputs.index(k) for k in wrt]

        def both(*inputs: Any) -> Any:
            def of(*xs: Any) -> Any:
                return f(*exchanged(inputs[:n], at, xs))

            y, pull = jax.vjp(of, *[inputs[i] for i in at])
            return (y, *pull(inputs[n] if n < len(inputs) else jnp.ones_like(y)))

        self.run = jax.jit(both if wrt else f)

    def step(self, *inputs: Any) -> Any:
        if not self.state:
            return self.run(*inputs)
        *state, loss = self.run(*self.state, *inputs)
        self.state = tuple(state)
        return loss

    def wait(self, out: Any) -> None:
        jax.block_until_ready((out, self.state))

    def values(self, out: Any) -> list[Any]:
        if out is None:
            out = [self.state[0][k] for k in self.names]
        return [np.asarray(t) for t in (out if isinstance(out, (list, tuple)) else [out])]
