"""Calls that once gave other values, dtypes or errors than PyTorch: every line runs on both and must agree, gradients included."""
from __future__ import annotations

import copy
import importlib
import warnings
from typing import Any

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")

LINES = """
x.sum(axis=0)
x.mean(axis=-1, keepdims=True)
torch.max(x, axis=1)
torch.std(x, axis=(0, 1), keepdims=True)
np.mean(x.detach().numpy()) == np.mean(x.detach().numpy())
torch.argmax(x, axis=0)
x.cumsum(axis=1)
torch.cummax(x, axis=0)
torch.tensor([1, 2], dtype=float)
torch.zeros(2, dtype=int)
torch.full((2,), 1, dtype=bool)
torch.arange(3, dtype=float)
torch.tensor([1.5, 0]).to(int)
torch.tensor([1.5, 0]).to(dtype=bool)
torch.ones(2, dtype="float32")
torch.ones(2, dtype=np.float32)
torch.ones(2, dtype=complex)
x.sum(dtype=float)
F.interpolate(x, 2)
torch.logcumsumexp(x, axis=1)
x.count_nonzero(0, 1)
x.nanmean(0, dtype=torch.float64)
torch.nanmean(i)
x.all(dim=())
torch.ones(3, 2, requires_grad=True).std(0)
torch.tensor([[1., 1.], [2., 1.]], requires_grad=True).std(0, unbiased=False)
torch.std_mean(torch.ones(2, 3, requires_grad=True), 1)
F.interpolate(x[None, None], size=(2, 2), mode="bilinear", antialias=True)
F.interpolate(x[None, None], size=(7, 3), mode="bicubic", antialias=True)
F.interpolate(x[None, None], scale_factor=0.6, mode="bicubic", antialias=True, align_corners=True)
F.interpolate(x[None, None], scale_factor=(0.5, 0.7), mode="bilinear", antialias=True, recompute_scale_factor=True)
F.interpolate(x[None, None], size=2, mode="nearest", antialias=True)
F.interpolate(x[None, None], size=0, mode="bilinear")
F.interpolate(x[None], scale_factor=(2, 2), mode="linear")
F.l1_loss(i, i + 1, reduction="sum")
F.l1_loss(x.detach() * 1j, x.detach() * 2)
torch.kron(i, x.detach())
torch.kron(i, torch.tensor(2.5, dtype=torch.float64))
3 << i
7 >> i.abs()
torch.full((2,), 300, dtype=torch.uint8)
torch.full((2,), -1, dtype=torch.uint8)
torch.full((2,), 1e6, dtype=torch.float16)
torch.full((2,), float("inf"), dtype=torch.float16)
torch.full((2,), 1 + 2j, dtype=torch.float32)
torch.zeros(2, dtype=torch.int8).fill_(128)
torch.zeros(2, dtype=torch.int8).masked_fill(torch.tensor([True, False]), -129)
torch.tensor([1, 300], dtype=torch.uint8)
torch.tensor([1, -129], dtype=torch.int8)
torch.tensor(2 ** 63)
torch.tensor([1j, 0j]).bool()
torch.zeros(2, dtype=torch.bool).masked_fill(torch.tensor([True, False]), torch.tensor(1j))
torch.zeros(2).masked_fill(torch.tensor([True, False]), 1j)
np.sin(x.detach())
np.add(i, 1)
np.isnan(x.detach())
torch.cat((x, x), axis=1)
torch.stack((x, x), axis=-1)
x.softmax(axis=0)
x.sort(axis=0)
x.unsqueeze(axis=0)
x.to(torch.int32)
x.long().float()
x.bool()
torch.repeat_interleave(torch.tensor([2, 0, 3]))
""".strip().splitlines()

PROGRAMS = """
y = x * 1; y[...] = 7; out = y
y = x * 1; y.fill_(2); out = (y, y.requires_grad)
s = x[0, 0].detach().requires_grad_(); y = s.sum(); y += 1; out = (y, s, y.is_leaf)
s = x[0, 0].detach().requires_grad_(); y = s.cumsum(0); y.mul_(2); out = (y, s)
y = i.clone(); v = y[0]; v <<= 2; out = y
y = x.detach().clone(); y.as_strided((2, 2), (1, 2)).add_(1); out = y
y = x.detach().clone(); torch.as_strided(y, (3,), (5,)).zero_(); out = y
y = x.detach().clone(); y[1:].as_strided((2, 2), (1, 1)); out = y[1:].as_strided((2, 2), (4, 1), 1).stride()
out = x.detach().as_strided((4,), (4,))
out = x.detach().as_strided((2,), (-1,))
y = x * 1; y.copy_(torch.ones(4)); out = (y, y.requires_grad)
y = x.detach().clone(); u = y.unfold(1, 2, 2); u.mul_(2); y[0] = 3; out = (y, u, u.stride())
y = x.detach().clone(); u = y.unfold(0, 2, 1); y[1] = 3; out = (y, u, u.stride())
y = x.detach().clone(); y.expand(2, 3, 4)[0, 0] = 5; out = y
y = x * 1; z = y.as_strided((2, 3), (4, 1), 1); z.mul_(3); out = (y, z)
a = np.arange(6.0); t = torch.from_numpy(a[::2]); t.add_(10); a[2] = -1; out = (t, a.tolist(), t.stride())
a = np.arange(6.0).reshape(2, 3); t = torch.from_numpy(a.T); t[0] = 9; a[1, 2] = -1; out = (t, a.tolist(), t.stride())
a = np.arange(24.0).reshape(2, 3, 4); t = torch.from_numpy(a[:, 1:, ::2]); t.mul_(2); t[0, 0, 0] = 5; out = (t, a.tolist())
a = np.arange(12).reshape(3, 4); t = torch.from_numpy(a[:, 1]); b = t.numpy(); b[0] = 77; out = (t, a.tolist())
y = x.detach().clone(); d = copy.deepcopy({"a": y, "b": y[1:], "c": [y.t()]}); d["a"][1] = 9; out = (d["b"], d["c"][0], y)
y = x.detach().clone(); d = copy.deepcopy([y[0], y]); d[0].add_(5); out = (d[1], y)
""".strip().splitlines()


def world(T: Any) -> dict[str, Any]:
    r = np.random.default_rng(5)
    return {"torch": T, "F": importlib.import_module(f"{T.__name__}.nn.functional"), "np": np, "copy": copy,
            "x": T.tensor(r.uniform(-2, 2, (3, 4)).tolist(), requires_grad=True), "i": T.tensor([[1, -2, 3], [4, 0, 6]])}


def plain(v: Any) -> Any:
    if hasattr(v, "tolist") and hasattr(v, "requires_grad"):
        return str(v.dtype), tuple(v.shape), v.requires_grad, np.array(v.tolist())
    return [plain(x) for x in v] if isinstance(v, (tuple, list)) else v


def tensors(v: Any) -> list[Any]:
    if isinstance(v, (tuple, list)):
        return [t for x in v for t in tensors(x)]
    return [v] if hasattr(v, "grad_fn") and v.grad_fn is not None else []


def outcome(T: Any, line: str) -> Any:
    ns = world(T)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(line if "out = " in line else f"out = {line}", ns)  # noqa: S102
            result = plain(ns["out"])
            for t in tensors(ns["out"]):
                (t * t).sum().backward(retain_graph=True)
        leaves = [ns[k].grad for k in ("x", "s") if k in ns and ns[k].grad is not None]
        return [result, plain(leaves)]
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        return next(c for c in type(error).__mro__ if c in (RuntimeError, TypeError, ValueError, IndexError))


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return a.shape == b.shape and np.allclose(a, b, 1e-5, 1e-6, equal_nan=True)
    if isinstance(a, (tuple, list)):
        return isinstance(b, (tuple, list)) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return bool(a == b)


@pytest.mark.parametrize("line", LINES + PROGRAMS)
def test_like_pytorch(line: str) -> None:
    got, want = outcome(graphc, line), outcome(torch, line)
    assert same(got, want), f"{got} is not {want}"


def test_views_of_a_shared_array_are_not_snapshots() -> None:
    a = np.zeros((4, 6), np.float32)
    t = graphc.from_numpy(a[::2, 1::2])
    u = t * 1
    a[2, 3] = 5
    assert u.sum().item() == 0 and t[1, 1].item() == 5
    t += 1
    assert a[0, 1] == 1 and a[0, 0] == 0 and a[2, 3] == 6


def test_a_write_through_overlapping_strides_is_refused() -> None:
    with pytest.raises(RuntimeError, match="single memory location"):
        graphc.zeros(4).as_strided((2, 2), (1, 1)).add_(1)


def test_autocast_logsumexp() -> None:
    with graphc.autocast("cpu", dtype=graphc.bfloat16):
        assert graphc.logsumexp(graphc.zeros(2, 4, dtype=graphc.bfloat16), -1).tolist() == pytest.approx([np.log(4)] * 2, rel=1e-2)


@pytest.mark.parametrize("shape", [(0, 2, 5), (0, 2, 5, 4), (0, 2, 5, 4, 3)])
def test_convolution_of_an_empty_batch(shape: tuple[int, ...]) -> None:
    n = len(shape) - 2
    m = getattr(graphc.nn, f"Conv{n}d")(2, 3, 2)
    y = m(graphc.zeros(*shape))
    y.sum().backward()
    assert y.shape == (0, 3, *[d - 1 for d in shape[2:]]) and not m.weight.grad.any()


def test_a_diagonal_chosen_by_a_tensor() -> None:
    """An offset given as a tensor is read; it must not get into the program as an attribute."""
    x = graphc.ones(3)
    np.testing.assert_array_equal(graphc.diagflat(x, graphc.tensor(1)).numpy(), np.diag(np.ones(3), 1))
    with pytest.raises(TypeError):
        graphc.diag_embed(x, offset=1.0)
    assert float(x.sum()) == 3
