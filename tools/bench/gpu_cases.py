"""What ``gpu.py`` measures: each case written once for every framework with PyTorch's API, some also for JAX.

A case makes its data with NumPy from a fixed seed, so that all frameworks compute the same; ``flops`` counts multiply-adds as
two, ``bytes`` what must cross memory at least once. ``targets``: how many times as fast as PyTorch eager and torch.compile
graphc is meant to be (research notes, section 11), and the share of the roofline.
"""
from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torchlike import MODELS, load
from workloads import WORKLOADS

Size = dict[str, Any]
Step = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """One row. ``group``: cases that share a process. ``make(lib, size, rng)`` gives the step to measure; ``kind``: "kernel"
    (outputs are compared) or "train" (losses of the first steps are). ``rate``: "half", "single" or "" for no arithmetic."""

    name: str
    title: str
    group: str
    make: Callable[[Any, Size, np.random.Generator], Step]
    size: Size
    tiny: Size
    cost: Callable[[Size], tuple[float, float]]  # flops, bytes
    kind: str = "kernel"
    rate: str = ""
    tolerance: float = 1e-2  # largest difference over the largest magnitude; for losses relative
    targets: tuple[float | None, float | None, float | None] = (None, None, None)
    jax: Callable[[Any, Any, Size, np.random.Generator], Step] | None = None
    tokens: Callable[[Size], int] | None = None  # samples or tokens of a step, for a rate
    extra: dict[str, Any] = field(default_factory=dict)


def seeded(case: Case) -> np.random.Generator:
    """The same numbers in every framework and process."""
    return np.random.default_rng(zlib.crc32(case.name.encode()))


def noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Uniform numbers of variance 1: products of zeros or ones are faster than they should be."""
    out = rng.random(shape, np.float32)
    out -= 0.5
    out *= math.sqrt(12)
    return out


# ------------------------------------------------------------------------------------------------------------- products
def matmul(lib: Any, s: Size, rng: np.random.Generator) -> Step:
    a, b = lib.tensor(noise(rng, s["m"], s["k"]), s["dtype"]), lib.tensor(noise(rng, s["k"], s["n"]), s["dtype"])
    f = lib.compile(lambda x, y: x @ y)
    return lambda: f(a, b)


def matmul_cost(s: Size) -> tuple[float, float]:
    n = 2 if s["dtype"] != "float32" else 4
    return 2.0 * s["m"] * s["n"] * s["k"], float(n * (s["m"] * s["k"] + s["k"] * s["n"] + s["m"] * s["n"]))


def jax_matmul(jax: Any, jnp: Any, s: Size, rng: np.random.Generator) -> Step:
    a, b = (jnp.asarray(noise(rng, *shape)).astype(s["dtype"]) for shape in ((s["m"], s["k"]), (s["k"], s["n"])))
    f = jax.jit(lambda x, y: jnp.matmul(x, y, precision="highest" if s["dtype"] == "float32" else None))
    return lambda: f(a, b)


def block_layer(lib: Any, s: Size, rng: np.random.Generator) -> Step:
    """The four products of a transformer layer with bias, GELU and residual, forward and backward."""
    T, w, F = lib.T, s["width"], lib.T.nn.functional
    x = lib.tensor(noise(rng, s["tokens"], w), "bfloat16")
    shapes = ((3 * w, w), (w, w), (4 * w, w), (w, 4 * w))
    ws = [lib.tensor(noise(rng, *shape) / math.sqrt(shape[1]), "bfloat16").requires_grad_() for shape in shapes]
    bs = [lib.tensor(noise(rng, shape[0]), "bfloat16").requires_grad_() for shape in shapes]
    x.requires_grad_()
    g = lib.tensor(noise(rng, s["tokens"], w), "bfloat16")

    @lib.compile
    def f(x: Any) -> Any:
        q = F.linear(x, ws[0], bs[0])
        y = x + F.linear(q[:, :w] + q[:, w:2 * w] + q[:, 2 * w:], ws[1], bs[1])
        return y + F.linear(F.gelu(F.linear(y, ws[2], bs[2])), ws[3], bs[3])

    return lib.whole(lambda: T.autograd.grad(f(x), [x, *ws, *bs], g))


# --------------------------------------------------------------------------------------------------------- rows
def rows(fn: str, backward: bool) -> Callable[[Any, Size, np.random.Generator], Step]:
    """Softmax, layer norm or RMS norm over the last axis."""
    def make(lib: Any, s: Size, rng: np.random.Generator) -> Step:
        T, n = lib.T, s["n"]
        F = T.nn.functional
        x = lib.tensor(noise(rng, s["m"], n), s["dtype"])
        w, b = lib.tensor(noise(rng, n), s["dtype"]), lib.tensor(noise(rng, n), s["dtype"])
        call = {"softmax": lambda x, w, b: F.softmax(x, -1), "layer_norm": lambda x, w, b: F.layer_norm(x, (n,), w, b)}[fn]
        f = lib.compile(call)
        if not backward:
            return lambda: f(x, w, b)
        g = lib.tensor(noise(rng, s["m"], n), s["dtype"])
        wanted = [t.requires_grad_() for t in ((x,) if fn == "softmax" else (x, w, b))]
        return lib.whole(lambda: T.autograd.grad(f(x, w, b), wanted, g))
    return make


def rows_cost(passes: int) -> Callable[[Size], tuple[float, float]]:
    return lambda s: (0.0, passes * s["m"] * s["n"] * (2.0 if s["dtype"] == "bfloat16" else 4.0))


def jax_softmax(jax: Any, jnp: Any, s: Size, rng: np.random.Generator) -> Step:
    x = jnp.asarray(noise(rng, s["m"], s["n"])).astype(s["dtype"])
    f = jax.jit(lambda x: jax.nn.softmax(x, -1))
    return lambda: f(x)


def cross_entropy(lib: Any, s: Size, rng: np.random.Generator) -> Step:
    T = lib.T
    x = lib.tensor(noise(rng, s["m"], s["n"]), "bfloat16").requires_grad_()
    y = lib.integers(rng.integers(0, s["n"], s["m"]))
    f = lib.compile(lambda x, y: T.nn.functional.cross_entropy(x.float(), y))
    return lib.whole(lambda: T.autograd.grad(f(x, y), [x]))


# ------------------------------------------------------------------------------------------------------------ attention
def attention(by_hand: bool, backward: bool) -> Callable[[Any, Size, np.random.Generator], Step]:
    def make(lib: Any, s: Size, rng: np.random.Generator) -> Step:
        T, F = lib.T, lib.T.nn.functional
        shape = (s["batch"], s["heads"], s["length"], s["width"])
        q, k, v, g = (lib.tensor(noise(rng, *shape), "bfloat16") for _ in range(4))
        mask = lib.integers(np.triu(np.ones((s["length"], s["length"]), np.int64), 1)).bool()

        def hand(q: Any, k: Any, v: Any) -> Any:
            scores = (q @ k.transpose(-2, -1)) * (1 / math.sqrt(s["width"]))
            return F.softmax(scores.masked_fill(mask, -math.inf), dim=-1) @ v

        f = lib.compile(hand if by_hand else lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True))
        if not backward:
            return lambda: f(q, k, v)
        wanted = [t.requires_grad_() for t in (q, k, v)]
        return lib.whole(lambda: T.autograd.grad(f(q, k, v), wanted, g))
    return make


def attention_cost(passes: float, tensors: int) -> Callable[[Size], tuple[float, float]]:
    """Causal: half of the scores; backward takes two and a half times the products of forward."""
    def cost(s: Size) -> tuple[float, float]:
        per = s["batch"] * s["heads"] * s["length"] * s["width"]
        return passes * 2 * 2 * per * s["length"] / 2, tensors * 2.0 * per
    return cost


# ------------------------------------------------------------------------------------------------------------ optimizer
def adamw(fused: bool) -> Callable[[Any, Size, np.random.Generator], Step]:
    def make(lib: Any, s: Size, rng: np.random.Generator) -> Step:
        T = lib.T
        spec = WORKLOADS["gpt"].make({"layers": s["layers"], "width": s["width"], "heads": 2, "context": s["context"], "batch": 1,
                                      "vocabulary": s["vocabulary"], "sdpa": True}, rng)
        params = [T.nn.Parameter(lib.tensor(v, "float32")) for k, v in spec.items() if k.startswith("p.")]
        for p in params:
            p.grad = lib.tensor(noise(rng, *p.shape), "float32")
        options = {"fused": True} if fused and lib.name != "graphc" and lib.device == "cuda" else {}
        optimizer = T.optim.AdamW(params, lr=1e-3, **options)
        update = lib.compile(optimizer.step)

        def step() -> Any:
            update()
            return [p.detach() for p in params[:3]]
        return step
    return make


def gpt_parameters(s: Size) -> int:
    w = s["width"]
    return 2 * s["vocabulary"] * w + s["context"] * w + s["layers"] * (12 * w * w + 13 * w) + 2 * w


# --------------------------------------------------------------------------------------------------------------- models
def train(model: str, optimizer: str, options: dict[str, float], half: bool) -> Callable[[Any, Size, np.random.Generator], Step]:
    """A training step: forward under autocast if ``half``, cross entropy, backward, optimizer."""
    def make(lib: Any, s: Size, rng: np.random.Generator) -> Step:
        T = lib.T
        data = WORKLOADS[model].make(s, rng)
        net = load(T, MODELS[model](T, s), data).to(lib.device)
        if lib.name != "graphc" and model == "resnet18" and lib.device == "cuda":
            net = net.to(memory_format=T.channels_last)
        opt = getattr(T.optim, optimizer)(net.parameters(), **options)
        x = lib.tensor(data["x"], "float32") if data["x"].dtype == np.float32 else lib.integers(data["x"])
        y = lib.integers(data["y"])

        @lib.compile
        def loss_of(x: Any, y: Any) -> Any:
            return T.nn.functional.cross_entropy(net(x), y.flatten())

        update = lib.compile(opt.step)

        def step() -> Any:
            opt.zero_grad()
            with T.autocast(lib.device, dtype=T.bfloat16, enabled=half):
                loss = loss_of(x, y)
            loss.backward()
            update()
            return loss.detach()
        return lib.whole(step)
    return make


def gpt_cost(s: Size) -> tuple[float, float]:
    tokens = s["batch"] * s["context"]
    products = 6.0 * (gpt_parameters(s) - (s["vocabulary"] + s["context"]) * s["width"])
    return tokens * (products + 6.0 * s["layers"] * s["context"] * s["width"]), 28.0 * gpt_parameters(s)


def model_cost(name: str) -> Callable[[Size], tuple[float, float]]:
    def cost(s: Size) -> tuple[float, float]:
        moved, flops = WORKLOADS[name].cost({**WORKLOADS[name].size, **s})
        return flops, moved
    return cost


def _square(n: int, dtype: str, **more: Any) -> Case:
    return Case(f"matmul_{n}_{dtype}", f"{n}x{n}x{n} product, {dtype}", "matmul", matmul, {"m": n, "n": n, "k": n, "dtype": dtype},
                {"m": 64, "n": 48, "k": 32, "dtype": dtype}, matmul_cost, rate="half" if dtype != "float32" else "single",
                tolerance=2e-2 if dtype != "float32" else 1e-5, jax=jax_matmul, **more)


_GPT = {"layers": 12, "width": 768, "heads": 12, "context": 1024, "batch": 16, "vocabulary": 50304, "sdpa": True}
_TINY_GPT = {"layers": 1, "width": 32, "heads": 2, "context": 16, "batch": 2, "vocabulary": 64, "sdpa": True}
_ATT = {"batch": 32, "heads": 12, "length": 1024, "width": 64}
_ATT128 = {"batch": 4, "heads": 16, "length": 4096, "width": 128}
_TINY_ATT = {"batch": 1, "heads": 2, "length": 16, "width": 16}
_ROWS = {"m": 32768, "n": 1024, "dtype": "bfloat16"}
_TINY_ROWS = {"m": 8, "n": 32, "dtype": "bfloat16"}
CASES: tuple[Case, ...] = (
    _square(8192, "bfloat16", targets=(0.95, 0.97, 0.95)),
    _square(4096, "bfloat16", targets=(0.95, 0.97, 0.90)),
    Case("matmul_gpt_up", "32768x3072x768 product, bfloat16", "matmul", matmul, {"m": 32768, "n": 3072, "k": 768, "dtype": "bfloat16"},
         {"m": 64, "n": 48, "k": 32, "dtype": "bfloat16"}, matmul_cost, rate="half", tolerance=2e-2, jax=jax_matmul,
         targets=(1.0, 1.0, 0.75)),
    _square(4096, "float32", targets=(2.0, 2.0, None)),
    Case("layer_products", "transformer layer's products with bias, GELU, residual; forward + backward, 16384x768", "matmul", block_layer,
         {"tokens": 16384, "width": 768}, {"tokens": 16, "width": 32},
         lambda s: (6.0 * 12 * s["tokens"] * s["width"] ** 2, 2.0 * 60 * s["tokens"] * s["width"]), rate="half", tolerance=4e-2,
         targets=(1.25, 1.05, 0.75)),
    Case("softmax", "softmax 32768x1024, bfloat16", "rows", rows("softmax", False), _ROWS, _TINY_ROWS, rows_cost(2), jax=jax_softmax,
         targets=(1.5, 1.1, 0.92)),
    Case("softmax_long", "softmax 1024x131072, bfloat16", "rows", rows("softmax", False), {**_ROWS, "m": 1024, "n": 131072}, _TINY_ROWS,
         rows_cost(2), jax=jax_softmax, targets=(1.5, 1.2, 0.65)),
    Case("softmax_bwd", "softmax 32768x1024, forward + backward", "rows", rows("softmax", True), _ROWS, _TINY_ROWS, rows_cost(3),
         targets=(2.0, 1.2, 0.85)),
    Case("layer_norm", "layer norm 32768x1024, bfloat16", "rows", rows("layer_norm", False), _ROWS, _TINY_ROWS, rows_cost(2),
         targets=(1.5, 1.1, 0.92)),
    Case("layer_norm_bwd", "layer norm 32768x1024, forward + backward", "rows", rows("layer_norm", True), _ROWS, _TINY_ROWS,
         rows_cost(3), tolerance=2e-2, targets=(2.0, 1.2, 0.85)),
    Case("cross_entropy", "cross entropy 16384x50304, bfloat16, forward + backward", "rows", cross_entropy, {"m": 16384, "n": 50304},
         {"m": 8, "n": 40}, lambda s: (0.0, 2 * 2.0 * s["m"] * s["n"]), targets=(1.3, 1.0, None)),
    Case("attention", "causal attention (32, 12, 1024, 64), forward", "attention", attention(False, False), _ATT, _TINY_ATT,
         attention_cost(1, 4), rate="half", tolerance=2e-2, targets=(1.0, 1.0, 0.45)),
    Case("attention_bwd", "causal attention (32, 12, 1024, 64), forward + backward", "attention", attention(False, True), _ATT,
         _TINY_ATT, attention_cost(3.5, 8), rate="half", tolerance=4e-2, targets=(1.3, 1.3, 0.45)),
    Case("attention_hand", "the same written as products and a softmax", "attention", attention(True, True), _ATT, _TINY_ATT,
         attention_cost(3.5, 8), rate="half", tolerance=4e-2, targets=(1.3, 1.3, 0.45)),
    Case("attention_128", "causal attention (4, 16, 4096, 128), forward + backward", "attention", attention(False, True), _ATT128,
         _TINY_ATT, attention_cost(3.5, 8), rate="half", tolerance=4e-2, targets=(1.3, 1.2, 0.5)),
    Case("adamw", "AdamW, GPT-2's parameters in 149 tensors (PyTorch: fused)", "optimizer", adamw(True),
         {"layers": 12, "width": 768, "context": 1024, "vocabulary": 50304}, {"layers": 1, "width": 16, "context": 8, "vocabulary": 32},
         lambda s: (0.0, 28.0 * gpt_parameters(s)), tolerance=1e-5, targets=(1.15, 1.1, 0.92)),
    Case("gpt2", "GPT-2 small training step, batch 16x1024, bfloat16 autocast, AdamW", "gpt2",
         train("gpt_sdpa", "AdamW", {"lr": 1e-4}, True), _GPT, _TINY_GPT, gpt_cost, "train", "half", 2e-2, (1.8, 1.15, 0.54),
         tokens=lambda s: s["batch"] * s["context"]),
    Case("resnet18", "ResNet-18 CIFAR training step, batch 256, bfloat16 autocast, SGD momentum", "resnet",
         train("resnet18", "SGD", {"lr": 0.05, "momentum": 0.9}, True), {"width": 64, "batch": 256}, {"width": 8, "batch": 2},
         model_cost("resnet18"), "train", "half", 5e-2, (1.3, 1.1, None), tokens=lambda s: s["batch"]),
    Case("resnet18_single", "ResNet-18 CIFAR training step, batch 256, float32, SGD momentum", "resnet",
         train("resnet18", "SGD", {"lr": 0.05, "momentum": 0.9}, False), {"width": 64, "batch": 256}, {"width": 8, "batch": 2},
         model_cost("resnet18"), "train", "single", 1e-2, (1.1, 0.95, None), tokens=lambda s: s["batch"]),
    Case("mlp", "MLP 784-128-10 training step, batch 128, SGD", "small", train("mlp", "SGD", {"lr": 0.1}, False),
         {"widths": (784, 128, 10), "batch": 128}, {"widths": (20, 16, 10), "batch": 4}, model_cost("mlp"), "train", "", 1e-3,
         (15.0, 3.0, None), tokens=lambda s: s["batch"]),
    Case("lenet", "LeNet 28x28 training step, batch 64, SGD momentum", "small", train("lenet", "SGD", {"lr": 0.05, "momentum": 0.9}, False),
         {"batch": 64}, {"batch": 2}, model_cost("lenet"), "train", "", 1e-3, (5.0, 2.0, None), tokens=lambda s: s["batch"]),
    Case("lstm", "LSTM 64-128 training step, sequence 32, batch 32, Adam", "small", train("lstm", "Adam", {"lr": 1e-3}, False),
         {"input": 64, "hidden": 128, "sequence": 32, "batch": 32}, {"input": 8, "hidden": 8, "sequence": 3, "batch": 2},
         model_cost("lstm"), "train", "", 1e-3, (2.0, 1.0, None), tokens=lambda s: s["batch"]),
)
