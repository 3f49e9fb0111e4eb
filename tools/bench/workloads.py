"""What is measured: sizes, initial weights, data, tolerances and the least bytes and flops of every workload.

No framework is imported here. ``arrays(w, tiny)`` makes weights and data with NumPy from a fixed seed; the same file of
arrays is handed to every system. Weight names and layouts are PyTorch's (``linear.weight`` is ``[out, in]``).
"""
from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Spec = list[tuple[str, tuple[int, ...], float]]  # name, shape, bound of uniform(-b, b); 0: zeros, inf: ones


@dataclass(frozen=True)
class Workload:
    """One row of the table. ``kind`` is "train" (a whole training step) or "kernel" (memory-bound, no optimizer
    unless it is the workload). ``tolerance``: largest accepted |loss - torch| / max(1, |torch|) over the first steps, or
    for kernels the largest difference over the largest magnitude of an output. ``bytes`` counts what must cross memory
    at least once, ``flops`` multiply-adds as two, forward and backward."""

    name: str
    title: str
    kind: str
    size: dict[str, Any]
    tiny: dict[str, Any]
    make: Callable[[dict[str, Any], np.random.Generator], Arrays]
    cost: Callable[[dict[str, Any]], tuple[float, float]]  # size -> (bytes, flops)
    tolerance: float = 1e-4
    optimizer: tuple[str, dict[str, float]] = ("SGD", {"lr": 0.1})
    inputs: tuple[str, ...] = ("x", "y")
    extra: dict[str, Any] = field(default_factory=dict)


def arrays(w: Workload, tiny: bool = False) -> Arrays:
    """Weights (keys ``p.<name>``) and data of ``w``, the same in every process."""
    return w.make(config(w, tiny), np.random.default_rng(zlib.crc32(w.name.encode())))


def config(w: Workload, tiny: bool = False) -> dict[str, Any]:
    return {**w.size, **w.tiny} if tiny else w.size


def _linear(name: str, i: int, o: int, bias: bool = True) -> Spec:
    b = 1 / math.sqrt(i)
    return [(f"{name}.weight", (o, i), b)] + ([(f"{name}.bias", (o,), b)] if bias else [])


def _conv(name: str, i: int, o: int, k: int, bias: bool = True) -> Spec:
    b = 1 / math.sqrt(i * k * k)
    return [(f"{name}.weight", (o, i, k, k), b)] + ([(f"{name}.bias", (o,), b)] if bias else [])


def _norm(name: str, c: int) -> Spec:
    return [(f"{name}.weight", (c,), math.inf), (f"{name}.bias", (c,), 0.0)]


def _fill(spec: Spec, r: np.random.Generator) -> Arrays:
    out: Arrays = {}
    for name, shape, bound in spec:
        if bound == math.inf:
            out["p." + name] = np.ones(shape, np.float32)
        else:
            out["p." + name] = r.uniform(-bound, bound, shape).astype(np.float32) if bound else np.zeros(shape, np.float32)
    return out


def _classes(n: int, shape: tuple[int, ...], k: int, r: np.random.Generator) -> Arrays:
    return {"x": r.standard_normal((n, *shape), np.float32), "y": r.integers(0, k, n)}


# Models ---------------------------------------------------------------------------------------------------------------

def mlp_spec(c: dict[str, Any]) -> Spec:
    w = c["widths"]
    return [row for i in range(len(w) - 1) for row in _linear(f"l{i}", w[i], w[i + 1])]


def _mlp(c: dict[str, Any], r: np.random.Generator) -> Arrays:
    return {**_fill(mlp_spec(c), r), **_classes(c["batch"], (c["widths"][0],), c["widths"][-1], r)}


def lenet_spec(c: dict[str, Any]) -> Spec:
    return _conv("c0", 1, 6, 5) + _conv("c1", 6, 16, 5) + _linear("l0", 400, 120) + _linear("l1", 120, 84) + _linear("l2", 84, 10)


def _lenet(c: dict[str, Any], r: np.random.Generator) -> Arrays:
    return {**_fill(lenet_spec(c), r), **_classes(c["batch"], (1, 28, 28), 10, r)}


def gpt_spec(c: dict[str, Any]) -> Spec:
    w, spec = c["width"], [("tok.weight", (c["vocabulary"], c["width"]), 0.05), ("pos.weight", (c["context"], c["width"]), 0.05)]
    for i in range(c["layers"]):
        b = f"blocks.{i}."
        spec += _norm(b + "ln1", w) + _linear(b + "qkv", w, 3 * w) + _linear(b + "out", w, w)
        spec += _norm(b + "ln2", w) + _linear(b + "up", w, 4 * w) + _linear(b + "down", 4 * w, w)
    return spec + _norm("ln", w) + _linear("head", w, c["vocabulary"], bias=False)


def _gpt(c: dict[str, Any], r: np.random.Generator) -> Arrays:
    text = r.integers(0, c["vocabulary"], (c["batch"], c["context"] + 1))
    return {**_fill(gpt_spec(c), r), "x": text[:, :-1].copy(), "y": text[:, 1:].copy()}


def lstm_spec(c: dict[str, Any]) -> Spec:
    h, i = c["hidden"], c["input"]
    b = 1 / math.sqrt(h)
    return [("rnn.weight_ih_l0", (4 * h, i), b), ("rnn.weight_hh_l0", (4 * h, h), b), ("rnn.bias_ih_l0", (4 * h,), b),
            ("rnn.bias_hh_l0", (4 * h,), b)] + _linear("head", h, 10)


def _lstm(c: dict[str, Any], r: np.random.Generator) -> Arrays:
    return {**_fill(lstm_spec(c), r), **_classes(c["batch"], (c["sequence"], c["input"]), 10, r)}


def exchanged(values: Any, at: list[int], new: Any) -> list[Any]:
    """The values with those ``at`` these places exchanged for ``new`` ones: what a kernel is differentiated in."""
    out = list(values)
    for i, x in zip(at, new):
        out[i] = x
    return out


def resnet_blocks(c: dict[str, Any]) -> list[tuple[str, int, int, int]]:
    """(name, channels in, channels out, stride) of the eight basic blocks."""
    out, last = [], c["width"]
    for stage in range(4):
        for i in range(2):
            wide = c["width"] << stage
            out.append((f"s{stage}_{i}", last, wide, 2 if stage and not i else 1))
            last = wide
    return out


def resnet_spec(c: dict[str, Any]) -> Spec:
    w = c["width"]
    spec = _conv("c0", 3, w, 3, bias=False) + _norm("n0", w)
    for name, i, o, stride in resnet_blocks(c):
        spec += _conv(f"{name}.c1", i, o, 3, False) + _norm(f"{name}.n1", o) + _conv(f"{name}.c2", o, o, 3, False) + _norm(f"{name}.n2", o)
        if stride != 1 or i != o:
            spec += _conv(f"{name}.cs", i, o, 1, False) + _norm(f"{name}.ns", o)
    return spec + _linear("head", 8 * w, 10)


def _resnet(c: dict[str, Any], r: np.random.Generator) -> Arrays:
    return {**_fill(resnet_spec(c), r), **_classes(c["batch"], (3, 32, 32), 10, r)}


# Costs: least bytes and flops ----------------------------------------------------------------------------------------

def _count(spec: Spec) -> int:
    return sum(math.prod(s) for _, s, _ in spec)


def _train_bytes(spec: Spec, state: int) -> float:
    """Weights read forward and by the update, written once; ``state`` floats per weight read and written."""
    return 4.0 * _count(spec) * (3 + 2 * state)


def _mlp_cost(c: dict[str, Any]) -> tuple[float, float]:
    w, b = c["widths"], c["batch"]
    macs = [w[i] * w[i + 1] for i in range(len(w) - 1)]
    return _train_bytes(mlp_spec(c), c["state"]), 2.0 * b * (3 * sum(macs) - macs[0])


def _lenet_cost(c: dict[str, Any]) -> tuple[float, float]:
    first, rest = 28 * 28 * 6 * 25, 10 * 10 * 16 * 6 * 25 + 400 * 120 + 120 * 84 + 84 * 10
    return _train_bytes(lenet_spec(c), 1), 2.0 * c["batch"] * (2 * first + 3 * rest)


def _gpt_cost(c: dict[str, Any]) -> tuple[float, float]:
    w, t = c["width"], c["context"]
    token = c["layers"] * (12 * w * w + 2 * t * w) + w * c["vocabulary"]
    return _train_bytes(gpt_spec(c), 2), 6.0 * c["batch"] * t * token


def _lstm_cost(c: dict[str, Any]) -> tuple[float, float]:
    h, i = c["hidden"], c["input"]
    return _train_bytes(lstm_spec(c), 2), 2.0 * c["batch"] * c["sequence"] * 4 * h * (2 * i + 3 * h)


def _resnet_cost(c: dict[str, Any]) -> tuple[float, float]:
    w, side = c["width"], 32
    first, macs = 32 * 32 * 27 * w, 0
    for _, i, o, stride in resnet_blocks(c):
        side //= stride
        macs += side * side * (9 * i * o + 9 * o * o + (i * o if stride != 1 or i != o else 0))
    return _train_bytes(resnet_spec(c), 1), 2.0 * c["batch"] * (2 * first + 3 * (macs + 80 * w))


# Memory-bound kernels -------------------------------------------------------------------------------------------------

def _normal(*names: str) -> Callable[[dict[str, Any], np.random.Generator], Arrays]:
    """Standard normal arrays; a name's shape is ``size[name]`` or ``size['shape']``."""
    def make(c: dict[str, Any], r: np.random.Generator) -> Arrays:
        return {n: r.standard_normal(c.get(n, c["shape"]), np.float32) for n in names}
    return make


def _xent(c: dict[str, Any], r: np.random.Generator) -> Arrays:
    n, k = c["shape"]
    return {"x": r.standard_normal((n, k), np.float32), "y": r.integers(0, k, n)}


def _adamw(c: dict[str, Any], r: np.random.Generator) -> Arrays:
    out: Arrays = {}
    for i in range(c["tensors"]):
        out[f"p.t{i}"] = r.standard_normal(c["each"], np.float32)
        out[f"g.t{i}"] = r.standard_normal(c["each"], np.float32)
    return out


def _passes(n: float, flops: float = 0.0) -> Callable[[dict[str, Any]], tuple[float, float]]:
    """``n`` float32 passes over ``size['shape']``."""
    return lambda c: (4.0 * n * math.prod(c["shape"]), flops)


def _kernel(name: str, title: str, shape: tuple[int, ...], tiny: tuple[int, ...], passes: float, inputs: tuple[str, ...],
            wrt: tuple[str, ...] = (), tol: float = 1e-5, op: str = "", shapes: int = 0) -> Workload:
    """A pure function of arrays; with ``wrt`` also its gradients there, given ``dy``. The last ``shapes`` inputs are vectors
    of the last axis."""
    names = inputs + (("dy",) if wrt else ())
    vectors = inputs[len(inputs) - shapes:] if shapes else ()
    size = {"shape": shape, **{v: shape[-1:] for v in vectors}}
    small = {"shape": tiny, **{v: tiny[-1:] for v in vectors}}
    return Workload(name, title, "kernel", size, small, _normal(*names), _passes(passes), tol, ("", {}), names,
                    {"op": op or name, "wrt": wrt})


ADAM, ADAMW = ("Adam", {"lr": 1e-3}), ("AdamW", {"lr": 1e-3, "weight_decay": 0.01})
GPT = {"layers": 4, "width": 128, "heads": 4, "context": 64, "batch": 16, "vocabulary": 65}
TINY_GPT = {"layers": 1, "width": 16, "context": 8, "batch": 2}
MATRIX, SMALL = (4096, 1024), (8, 32)

WORKLOADS: dict[str, Workload] = {w.name: w for w in (
    Workload("mlp", "MLP 784-64-10, batch 64, SGD", "train", {"widths": (784, 64, 10), "batch": 64, "state": 0}, {"batch": 4},
             _mlp, _mlp_cost),
    Workload("mlp_wide", "MLP 784-1024-1024-10, batch 256, Adam", "train", {"widths": (784, 1024, 1024, 10), "batch": 256, "state": 2},
             {"widths": (784, 16, 16, 10), "batch": 4}, _mlp, _mlp_cost, 1e-3, ADAM),
    Workload("lenet", "LeNet 28x28, batch 64, SGD momentum", "train", {"batch": 64}, {"batch": 2}, _lenet, _lenet_cost, 1e-4,
             ("SGD", {"lr": 0.05, "momentum": 0.9})),
    Workload("gpt", "char-GPT 4x128, context 64, batch 16, AdamW, attention by hand", "train", {**GPT, "sdpa": False}, TINY_GPT, _gpt,
             _gpt_cost, 1e-3, ADAMW),
    Workload("gpt_sdpa", "the same with scaled_dot_product_attention", "train", {**GPT, "sdpa": True}, TINY_GPT, _gpt, _gpt_cost,
             1e-3, ADAMW),
    Workload("lstm", "LSTM 64-128, sequence 32, batch 32, Adam", "train", {"hidden": 128, "input": 64, "sequence": 32, "batch": 32},
             {"hidden": 8, "sequence": 4, "batch": 2}, _lstm, _lstm_cost, 1e-3, ADAM),
    Workload("resnet18", "ResNet-18 CIFAR, batch 32, SGD momentum", "train", {"width": 64, "batch": 32}, {"width": 4, "batch": 2},
             _resnet, _resnet_cost, 1e-2, ("SGD", {"lr": 0.01, "momentum": 0.9})),
    _kernel("gelu_fwd", "gelu(x) * g, 1e7", (10_000_000,), (500,), 3, ("x", "g"), op="gelu"),
    _kernel("gelu_bwd", "gelu(x) * g, 1e7, forward + backward in x", (10_000_000,), (500,), 5, ("x", "g"), ("x",), op="gelu"),
    _kernel("softmax_fwd", "softmax 4096x1024", MATRIX, SMALL, 2, ("x",), op="softmax"),
    _kernel("softmax_bwd", "softmax 4096x1024, forward + backward", MATRIX, SMALL, 4, ("x",), ("x",), op="softmax"),
    _kernel("layernorm_fwd", "layer norm 4096x1024", MATRIX, SMALL, 2, ("x", "w", "b"), op="layernorm", shapes=2),
    _kernel("layernorm_bwd", "layer norm 4096x1024, forward + backward", MATRIX, SMALL, 4, ("x", "w", "b"), ("x", "w", "b"),
            op="layernorm", shapes=2),
    Workload("xent", "cross entropy 2048x32000, forward + backward", "kernel", {"shape": (2048, 32000)}, {"shape": (4, 50)}, _xent,
             _passes(2), 1e-5, ("", {}), ("x", "y"), {"op": "xent", "wrt": ("x",)}),
    Workload("adamw", "AdamW step, 10 M parameters in 50 tensors", "kernel", {"tensors": 50, "each": 200_000, "shape": (10_000_000,)},
             {"tensors": 3, "each": 100, "shape": (300,)}, _adamw, _passes(7), 1e-5, ADAMW, (), {"op": "adamw"}),
    _kernel("chain_1e6", "exp(-|x|) * relu(2x + y) + 0.5, 1e6", (1_000_000,), (500,), 3, ("x", "y"), op="chain"),
    _kernel("chain_1e7", "exp(-|x|) * relu(2x + y) + 0.5, 1e7", (10_000_000,), (500,), 3, ("x", "y"), op="chain"),
    _kernel("bcast_relu", "relu(x + bias) 4096x1024", MATRIX, SMALL, 2, ("x", "b"), op="bcast_relu", shapes=1),
    _kernel("permute", "permute (0, 2, 3, 1) and copy, 8x64x128x128", (8, 64, 128, 128), (2, 3, 4, 5), 2, ("x",), op="permute"),
)}
