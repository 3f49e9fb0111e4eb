"""Programs with tensors on a device, each against the same on the host. Run as a script with ``interpreted`` or ``refused`` for a
simulated device (see device_runner.py), or ``real`` (see tests/gpu/test_gpu_tensors.py)."""
from __future__ import annotations

import copy
import io
import pickle
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import simulated

import graphc as torch
from graphc import nn
from graphc.codegen.triton import compiler
from graphc.codegen.triton.compiler import Target
from graphc.nn import functional as F
from graphc.runtime.cuda import device as devices
from graphc.runtime.cuda.allocator import check

REAL = "real" in sys.argv
KERNELS = "refused" not in sys.argv
FAKE: list[Any] = []  # the simulated device
SIMULATED = ("errors", "out_of_memory", "saving_and_copying", "two_devices", "optimizer_state", "a_cuda_error_in_a_plan",
             "a_kernel_that_cannot_be_compiled")  # programs that need two devices, little memory, or a device that can be broken
SAME_DEVICE = "Expected all tensors to be on the same device"


def fails(kind: Any, words: str, fn: Callable[[], Any]) -> None:
    """``fn`` raises ``kind`` with ``words`` in its message."""
    try:
        fn()
    except kind as error:
        assert words in str(error), str(error)
        return
    raise AssertionError(f"no error with {words!r}")


def equal(got: Any, want: Any, tol: float = 0.0) -> None:
    """Device results equal the host's, and are on the device."""
    for g, w in zip(got if isinstance(got, tuple) else (got,), want if isinstance(want, tuple) else (want,), strict=True):
        assert g.device.type == "cuda" and w.device.type == "cpu", (g.device, w.device)
        assert g.dtype is w.dtype and g.shape == w.shape, (g.dtype, g.shape, w.dtype, w.shape)
        torch.testing.assert_close(g.cpu(), w, rtol=tol, atol=tol)


def pair(*shape: int) -> tuple[Any, Any]:
    x = torch.randn(*shape)
    return x, x.cuda()


# ------------------------------------------------------------------------------------------------------------- tensors
def case_arithmetic() -> None:
    x, y = pair(4, 5)
    assert y.is_cuda and not y.is_cpu and y.get_device() == 0 and str(y.device) == "cuda:0" and y.type() == "torch.cuda.FloatTensor"
    for f in (lambda t: t * 2 + 1, lambda t: (t.sin() * t).sum(0), lambda t: t @ t.T, lambda t: t.softmax(-1),
              lambda t: t.max(1).values, lambda t: t.argmax(0), lambda t: t.cumsum(1), lambda t: t.sort(1)[0],
              lambda t: t.T.reshape(2, 10), lambda t: (t > 0).any(1), lambda t: t.half().float(), lambda t: t.long(),
              lambda t: t.view(torch.int32), lambda t: t.topk(2)[1], lambda t: torch.cat([t, t], 1), lambda t: t[:0],
              lambda t: t.std(), lambda t: torch.linalg.norm(t), lambda t: t[0, 0].expand(3), lambda t: t.to(torch.bfloat16)):
        equal(f(y), f(x), 1e-5)
    assert abs(y.sum().item() - x.sum().item()) < 1e-5 and y.tolist() == x.tolist() and repr(y[0]).endswith("device='cuda:0')")
    assert len(y) == 4 and [len(row) for row in y] == [5] * 4 and f"{y[0, 0]:.3f}" == f"{x[0, 0]:.3f}"
    assert int(torch.tensor(3, device="cuda")) == 3 and [5, 6, 7][torch.tensor(2, device="cuda")] == 7


def case_results_that_are_views() -> None:
    """A transposed product, the product itself and what follows it are results of one program."""
    a, b = pair(40, 24)
    x, y = pair(24, 36)
    def both(p: Any, q: Any) -> Any:
        r = p @ q
        return r.T, r.relu(), r[3:5], r.reshape(-1)[5:9], r.view(20, 72)
    equal(both(b, y), both(a, x), 1e-5)
    def no_whole(p: Any, q: Any) -> Any:
        r = p @ q
        return r.T, r.relu()
    equal(no_whole(b, y), no_whole(a, x), 1e-5)


def case_numbers_of_the_host() -> None:
    y = torch.ones(3, device="cuda")
    assert (y * torch.tensor(2.0)).tolist() == [2, 2, 2] and (torch.tensor(2.0) - y).device.type == "cuda"
    w = torch.tensor(2.0, requires_grad=True)
    ((w * 3) * y).sum().backward()
    assert w.grad.device.type == "cpu" and w.grad.item() == 9
    z = torch.tensor([5.0], device="cuda")
    assert z.item() == 5 and float(z) == 5 and bool(z == 5)
    c = y * (1 + 2j)
    assert c.device.type == "cuda" and c.tolist() == [1 + 2j] * 3


def case_host_and_device_in_one_program() -> None:
    """Values go back and forth within a region; the host's parts need nothing but what they use."""
    x = torch.randn(6)
    y = x.cuda() * 2
    z = (y.cpu() + 1).cuda() * y
    w = x.exp() + z.cpu()
    want = (x * 2 + 1) * (x * 2)
    assert np.allclose(z.tolist(), want.tolist(), atol=1e-6) and np.allclose(w.numpy(), (x.exp() + want).numpy(), atol=1e-5)
    s = torch.tensor(1.5)
    t = (s * 2 + 1) * torch.ones(2, device="cuda")  # a number computed on the host
    assert t.tolist() == [4, 4] and (s * 2 + 1).item() == 4


def case_indexing() -> None:
    x, y = pair(5, 4)
    i, m = torch.tensor([0, 2]), torch.tensor([True, False, True, True, False])
    for f in (lambda t: t[i], lambda t: t[m], lambda t: t[1], lambda t: t[:, 1:3], lambda t: t[t > 0], lambda t: t[i.to(t.device)],
              lambda t: t[0, 1], lambda t: t[m.to(t.device)], lambda t: t.nonzero(), lambda t: torch.where(t > 0),
              lambda t: torch.masked_select(t, t > 0), lambda t: t[[0, 1], [1, 2]], lambda t: t.flip(0)[..., None],
              lambda t: torch.unique(t, return_inverse=True, return_counts=True), lambda t: t.index_select(1, i.to(t.device)),
              lambda t: torch.bincount((t.abs() * 3).long().flatten()), lambda t: torch.isin(t, t[0]), lambda t: torch.histc(t),
              lambda t: torch.repeat_interleave(t, torch.tensor([1, 2, 1, 0, 1]), dim=0), lambda t: torch.argwhere(t > 0),
              lambda t: t.gather(1, torch.zeros(5, 2, dtype=torch.long, device=t.device)), lambda t: t.take(i.to(t.device)),
              lambda t: t.scatter(1, torch.zeros(5, 1, dtype=torch.long, device=t.device), 3.0),
              lambda t: t.index_fill(0, i.to(t.device), 1.0), lambda t: t.index_add(0, i.to(t.device), t[:2]),
              lambda t: F.one_hot(i.to(t.device)), lambda t: torch.combinations(t[0]), lambda t: F.pad(t[None], (1, 1), "reflect")):
        equal(f(y), f(x))
    for g in (lambda t: t.__setitem__(0, 1.0), lambda t: t.__setitem__(slice(1, 3), torch.ones(4, device=t.device)),
              lambda t: t.__setitem__(t > 0, 0.5), lambda t: t.__setitem__((2, 3), torch.tensor(5.0)), lambda t: t[1].mul_(2),
              lambda t: t.T[1].add_(1), lambda t: t.view(-1)[3:7].zero_(), lambda t: t.__setitem__(i, 7.0),
              lambda t: t.masked_fill_(t > 1, 2.0), lambda t: t.__setitem__((slice(None), 0), torch.arange(5.0))):
        g(x)
        g(y)
        equal(y, x)


def case_in_place_and_views() -> None:
    x, y = pair(5, 4)
    view = y[1:3]
    y.add_(1)
    equal(view, (x + 1)[1:3])
    view.zero_()
    assert y[1:3].sum().item() == 0 and y.data_ptr() + 16 == y[1:].data_ptr()
    y.copy_(x)
    equal(y, x)
    x.copy_(y * 2)  # host from device
    equal(y * 2, x)
    before = y.clone()
    y.mul_(0)
    assert before.abs().sum().item() > 0 and y.abs().sum().item() == 0
    z = torch.empty(3, device="cuda")
    for fill in (z.normal_, z.uniform_, z.zero_, z.bernoulli_, z.exponential_, z.random_):
        assert fill() is z and z.device.type == "cuda" and z.isfinite().all().item()
    p = nn.Parameter(torch.ones(2, device="cuda"))
    p.data = torch.zeros(2, device="cuda")
    assert p.tolist() == [0, 0] and p.requires_grad


def case_factories() -> None:
    for name in "zeros ones empty rand randn".split():
        assert getattr(torch, name)(2, 3, device="cuda").device == torch.device("cuda:0")
    one = torch.ones(2, device="cuda")
    for t in (torch.eye(3, device="cuda"), torch.linspace(0, 1, 5, device="cuda"), torch.tensor([1, 2], device="cuda"),
              torch.randint(0, 5, (3,), device="cuda"), torch.randperm(5, device="cuda"), torch.zeros_like(one), torch.rand_like(one),
              torch.tril_indices(3, 3, device="cuda"), torch.normal(0.0, 1.0, (3,), device="cuda"), torch.hann_window(4, device="cuda"),
              one.new_zeros(3), one.new_tensor([1.0]), torch.scalar_tensor(2, device="cuda"), torch.bernoulli(one / 2),
              torch.multinomial(one, 2), torch.normal(one, 1.0), torch.asarray(np.ones(3), device="cuda"), torch.poisson(one),
              torch.as_tensor([1.0], device="cuda"), torch.complex(one, one), torch.full((2,), 3.0, device="cuda"),
              torch.meshgrid(one, one, indexing="ij")[0], torch.cuda.FloatTensor([1.0]), torch.arange(2, 9, 3, device="cuda")):
        assert t.device.type == "cuda" and t.cpu().numel() == t.numel()
    with torch.device("cuda"):
        layer = nn.Linear(2, 2)
        assert torch.ones(2).is_cuda and layer.weight.is_cuda and torch.tensor([1]).is_cuda and torch.randn(2).is_cuda
    torch.set_default_device("cuda")
    assert torch.randn(2).is_cuda and torch.get_default_device().type == "cuda"
    torch.set_default_device(None)
    assert not torch.ones(2).is_cuda


def case_the_same_random_numbers() -> None:
    for make in (lambda d: torch.randn(9, device=d), lambda d: torch.rand(2, 3, device=d), lambda d: torch.randint(9, (5,), device=d),
                 lambda d: torch.randperm(7, device=d), lambda d: torch.empty(4, device=d).normal_(1, 2),
                 lambda d: F.dropout(torch.ones(20, device=d), 0.5), lambda d: torch.bernoulli(torch.full((9,), 0.3, device=d)),
                 lambda d: nn.Linear(3, 2, device=d).weight.detach(), lambda d: torch.multinomial(torch.ones(6, device=d), 3)):
        torch.manual_seed(3)
        want = make("cpu")
        torch.manual_seed(3)
        equal(make("cuda"), want, 1e-6)
    g, h = torch.Generator(device="cuda").manual_seed(5), torch.Generator().manual_seed(5)
    assert g.device.type == "cuda"
    equal(torch.randn(4, generator=g, device="cuda"), torch.randn(4, generator=h), 1e-6)
    torch.cuda.manual_seed_all(1)
    state = torch.cuda.get_rng_state()
    a = torch.rand(3, device="cuda").tolist()
    torch.cuda.set_rng_state(state)
    assert torch.rand(3, device="cuda").tolist() == a


# -------------------------------------------------------------------------------------------------------------- errors
def case_errors() -> None:
    a, b = torch.ones(3), torch.ones(3, device="cuda")
    for f in (lambda: a + b, lambda: torch.ones(2, 2) @ torch.ones(2, 2, device="cuda"), lambda: torch.cat([a, b]),
              lambda: nn.Linear(3, 2).cuda()(a), lambda: F.embedding(torch.tensor([1]), torch.ones(3, 2, device="cuda")),
              lambda: b.index_select(0, torch.tensor([1])), lambda: b.gather(0, torch.tensor([1])), lambda: F.mse_loss(b, a),
              lambda: F.cross_entropy(torch.ones(3, 2, device="cuda"), torch.tensor([0, 1, 1])), lambda: torch.where(b > 0, a, b),
              lambda: torch.ones(3, device="cuda:1") + b, lambda: F.conv2d(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 2, 2).cuda()),
              lambda: F.layer_norm(b, (3,), weight=a), lambda: F.batch_norm(torch.ones(2, 3).cuda(), a, a, training=False),
              lambda: b.scatter_(0, torch.tensor([0]), b), lambda: torch.stack([a, b]), lambda: torch.dot(a, b)):
        fails(RuntimeError, SAME_DEVICE, f)
    fails(RuntimeError, "cuda:1 and cuda:0", lambda: torch.ones(3, device="cuda:1") + b)
    for f in (b.numpy, lambda: np.asarray(b)):
        fails(TypeError, "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory", f)
    assert b.numpy(force=True).tolist() == [1, 1, 1]
    fails(RuntimeError, "invalid device ordinal", lambda: torch.ones(2, device="cuda:7"))
    fails(RuntimeError, "invalid device ordinal", lambda: b.cuda(7))
    fails(RuntimeError, "indices should be either on", lambda: a[torch.tensor([0]).cuda()])
    fails(RuntimeError, "cannot pin 'torch.cuda.FloatTensor'", b.pin_memory)
    fails(AttributeError, "Can't get __cuda_array_interface__ on non-CUDA tensor", lambda: a.__cuda_array_interface__)


def case_index_errors_are_seen_when_something_is_read() -> None:
    table = torch.randn(5, 2, device="cuda")
    wrong = torch.tensor([1, 9], device="cuda")
    fails(IndexError, "device_programs.py", lambda: (table[wrong] * 2).tolist())
    assert (table[wrong % 5] * 2).shape == (2, 2) and table.isfinite().all().item()
    out = table[wrong] + 1
    fails(IndexError, "", torch.cuda.synchronize if KERNELS else out.tolist)
    assert (table + 1).isfinite().all().item()


def case_a_failing_step_changes_nothing() -> None:
    w = nn.Parameter(torch.ones(4, 4, device="cuda"))
    opt = torch.optim.SGD([w], lr=0.1)

    @torch.compile
    def step(m: Any) -> Any:
        loss = (w * 2).sum() + torch.linalg.cholesky(m).sum()
        opt.zero_grad()
        loss.backward()
        opt.step()
        return loss

    good = torch.eye(2, device="cuda")
    bad = -good
    torch.cuda.synchronize()
    assert step(good).item() == 34 and abs(w[0, 0].item() - 0.8) < 1e-6
    for _ in range(2):
        fails(torch.linalg.LinAlgError, "not positive-definite", lambda: step(bad).item())
        assert abs(w[0, 0].item() - 0.8) < 1e-6
    assert abs(step(good).item() - 27.6) < 1e-5
    kept = good * 3  # in one region with what fails
    fails(torch.linalg.LinAlgError, "not positive-definite", lambda: torch.linalg.cholesky(bad * 2).tolist())
    assert kept.sum().item() == 6


def case_out_of_memory() -> None:
    x = torch.ones(1 << 14, device="cuda")
    fails(torch.cuda.OutOfMemoryError, "CUDA out of memory", lambda: x.expand(1 << 13, 1 << 14).add(1).tolist())
    assert x.sum().item() == 1 << 14
    x.add_(1)
    assert x[:2].tolist() == [2, 2]


# ------------------------------------------------------------------------------------------------------ copies and files
def case_saving_and_copying() -> None:
    b = torch.randn(3, 4, device="cuda")
    def file(x: Any) -> io.BytesIO:
        f = io.BytesIO()
        torch.save(x, f)
        f.seek(0)
        return f
    saved = {"a": b, "v": b[1], "p": nn.Parameter(b), "n": 3}
    d = torch.load(file(saved))
    assert d["a"].device == b.device and torch.equal(d["a"], b) and isinstance(d["p"], nn.Parameter) and d["p"].is_cuda
    d["a"][1] = 0
    assert d["v"].abs().sum().item() == 0, "tensors that shared memory share it again"
    assert all(not t.is_cuda for t in list(torch.load(file(saved), map_location="cpu").values())[:3])
    assert str(torch.load(file(saved), map_location={"cuda:0": "cuda:1"})["a"].device) == "cuda:1"
    assert str(torch.load(file(saved), map_location=lambda s, where: s.cuda(1))["a"].device) == "cuda:1"
    assert torch.load(file(torch.randn(3)), map_location="cuda").is_cuda
    for c in (copy.deepcopy(b), copy.copy(b), pickle.loads(pickle.dumps(b)), b.clone(), b.to("cuda", copy=True)):
        assert c.device == b.device and torch.equal(c, b)
    p = pickle.loads(pickle.dumps(nn.Linear(2, 2).cuda()))
    assert p.weight.is_cuda and p.weight.requires_grad


def case_exchange_with_other_libraries() -> None:
    b = torch.arange(6.0, device="cuda")
    c = torch.from_dlpack(b)
    assert c.is_cuda and c.data_ptr() == b.data_ptr() and torch.equal(b, c)
    b.add_(1)
    assert c.tolist() == [1, 2, 3, 4, 5, 6]
    c[0] = 10.0
    assert b[0].item() == 10 and (b * 1)[0].item() == 10
    facts = b.__cuda_array_interface__
    assert facts["shape"] == (6,) and facts["data"][0] == b.data_ptr() and facts["typestr"] == "<f4"
    other = type("Other", (), {"__cuda_array_interface__": facts, "keep": b})()
    d = torch.as_tensor(other, device="cuda")
    assert d.data_ptr() == b.data_ptr() and torch.equal(d, b) and torch.equal(torch.tensor(other), b)
    m = torch.arange(12.0, device="cuda").reshape(3, 4)
    assert torch.equal(torch.from_dlpack(m.T), m.T) and torch.equal(torch.from_dlpack(m[1]), m[1])
    assert m.__dlpack_device__() == (2, 0) and torch.ones(1).__dlpack_device__() == (1, 0)


def case_two_devices() -> None:
    a = torch.arange(4.0, device="cuda:1")
    b = a.to("cuda:0")
    assert b.tolist() == [0, 1, 2, 3] and str(b.device) == "cuda:0" and (b + a.cuda(0)).tolist() == [0, 2, 4, 6]
    with torch.cuda.device(1):
        assert str(torch.ones(1, device="cuda").device) == "cuda:1" and str(torch.ones(1).cuda().device) == "cuda:1"
    x = ((a * 2).to("cuda:0") + 1).to("cuda:1") * a
    assert x.tolist() == [0, 3, 10, 21] and x.get_device() == 1


def case_pinned_memory_and_loader() -> None:
    x = torch.randn(3)
    p = x.pin_memory()
    assert p.is_pinned() and not x.is_pinned() and p.pin_memory() is p
    q = p.to("cuda", non_blocking=True)
    p.add_(1)
    assert torch.equal(q.cpu(), x) and torch.equal(p, x + 1)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(6, 2), torch.arange(6)), 3, pin_memory=True)
    for a, b in loader:
        assert a.is_pinned() and b.is_pinned() and a.cuda(non_blocking=True).is_cuda
    assert p.numpy().shape == (3,)
    assert torch.zeros(3, pin_memory=True).is_pinned() and torch.tensor([1.0], pin_memory=True).is_pinned()


# ----------------------------------------------------------------------------------------------------------- training
def train(make: Callable[[], Any], data: Callable[[], tuple[Any, Any]], optimizer: Callable[[Any], Any], loss: Any, steps: int,
          compiled: bool, where: str) -> tuple[list[float], list[Any]]:
    torch.manual_seed(0)
    net = make().to(where)
    opt = optimizer(net.parameters())
    x, y = data()

    def step(a: Any, b: Any) -> Any:
        out = loss(net(a), b)
        opt.zero_grad()
        out.backward()
        opt.step()
        return out

    run = torch.compile(step) if compiled else step
    losses = [run(x.to(where), y.to(where)).item() for _ in range(steps)]
    if where == "cuda":
        assert all(p.is_cuda and p.grad.is_cuda for p in net.parameters())
    return losses, [p.detach().cpu() for p in net.parameters()]


def same_training(make: Any, data: Any, optimizer: Any, loss: Any = F.cross_entropy, steps: int = 3, tol: float = 2e-4,
                  compiled: bool = False) -> None:
    """Losses and parameters after some steps agree with the host's. Programs are built once, then repeat."""
    (got, params), (want, host) = (train(make, data, optimizer, loss, steps, compiled, d) for d in ("cuda", "cpu"))
    assert np.allclose(got, want, rtol=tol, atol=tol), (got, want)
    for a, b in zip(params, host):
        loose = (a - b).abs() > tol + tol * b.abs()
        assert loose.sum().item() <= 2 and (a - b).abs().max().item() < 0.02, (a - b).abs().max()


def images() -> tuple[Any, Any]:
    torch.manual_seed(1)
    return torch.randn(4, 1, 12, 12), torch.tensor([0, 1, 2, 1])


def vectors() -> tuple[Any, Any]:
    torch.manual_seed(1)
    return torch.randn(8, 6), torch.tensor([0, 1, 2, 1, 0, 2, 2, 1])


def mlp() -> Any:
    return nn.Sequential(nn.Linear(6, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def case_train_mlp() -> None:
    for optimizer in (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), lambda p: torch.optim.AdamW(p, lr=0.01),
                      lambda p: torch.optim.RMSprop(p, lr=0.01), lambda p: torch.optim.Adagrad(p, lr=0.01)):
        same_training(mlp, vectors, optimizer)


def case_train_lenet() -> None:
    def lenet() -> Any:
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1), nn.Tanh(),
                             nn.AvgPool2d(2), nn.Flatten(), nn.Linear(32, 3))

    same_training(lenet, images, lambda p: torch.optim.Adam(p, lr=0.01), steps=2)


class GPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(11, 16), nn.Embedding(8, 16)
        self.norm, self.qkv, self.out = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 11)

    def forward(self, idx: Any) -> Any:
        b, t = idx.shape
        x = self.embed(idx) + self.place(torch.arange(t, device=idx.device))
        q, k, v = [h.view(b, t, 2, 8).transpose(1, 2) for h in self.qkv(self.norm(x)).split(16, 2)]
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, 16)
        x = x + self.out(a)
        return self.head(x + self.mlp(x))


def words() -> tuple[Any, Any]:
    torch.manual_seed(1)
    return torch.randint(0, 11, (2, 8)), torch.randint(0, 11, (2, 8))


def words_loss(out: Any, y: Any) -> Any:
    return F.cross_entropy(out.reshape(-1, out.shape[-1]), y.reshape(-1))


def case_train_gpt() -> None:
    same_training(GPT, words, lambda p: torch.optim.SGD(p, lr=0.5), words_loss, 2)


def case_train_gpt_compiled() -> None:
    same_training(GPT, words, lambda p: torch.optim.SGD(p, lr=0.5), words_loss, 2, compiled=True)


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm, self.head = nn.Embedding(11, 6), nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 11)

    def forward(self, idx: Any) -> Any:
        return self.head(self.lstm(self.embed(idx))[0])


def case_train_lstm() -> None:
    same_training(Tagger, words, lambda p: torch.optim.SGD(p, lr=0.5), words_loss, 2)


def case_optimizer_state() -> None:
    net = mlp().cuda()
    opt = torch.optim.AdamW(net.parameters(), lr=0.01)
    x, y = (t.cuda() for t in vectors())
    F.cross_entropy(net(x), y).backward()
    opt.step()
    assert all(v.is_cuda for s in opt.state.values() for k, v in s.items() if k != "step")
    again = torch.optim.AdamW(net.parameters(), lr=0.01)
    again.load_state_dict(copy.deepcopy(opt.state_dict()))
    host = torch.optim.AdamW(mlp().parameters(), lr=0.01)
    host.load_state_dict(opt.state_dict())
    assert not any(v.is_cuda for s in host.state.values() for v in s.values())
    assert all(v.is_cuda for s in again.state.values() for k, v in s.items() if k != "step")
    net.cpu()
    assert all(not t.is_cuda for t in net.state_dict().values())
    other = mlp().to("cuda:1")
    other.load_state_dict(net.state_dict())
    assert all(t.get_device() == 1 for t in other.state_dict().values())
    assert torch.equal(other[0].weight.cpu(), net[0].weight) and float(nn.utils.clip_grad_norm_(other.parameters(), 1.0)) == 0


def case_results_take_memory_nobody_needs() -> None:
    """A training step writes parameters and moments where they were; what others still hold or read is left alone."""
    net = mlp().cuda()
    opt = torch.optim.Adam(net.parameters(), lr=0.01)
    x, y = (t.cuda() for t in vectors())
    def places() -> list[int]:
        return [t.data_ptr() for p in net.parameters() for t in (p, opt.state[p]["exp_avg"], opt.state[p]["exp_avg_sq"])]
    seen = []
    for _ in range(4):
        loss = F.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        seen.append(places())
    assert not KERNELS or seen[1] == seen[2] == seen[3]
    kept = [p.detach().clone() for p in net.parameters()]
    before = [p.tolist() for p in kept]
    F.cross_entropy(net(x), y).backward()
    opt.step()
    assert [p.tolist() for p in kept] == before and any(p.tolist() != b for p, b in zip(net.parameters(), before))
    for f in (lambda a, b: a.sub_(a @ b * 0.01), lambda a, b: a.add_(a.T), lambda a, b: a.mul_(a.sum(0)).add_(b), lambda a, b: a.tanh_(),
              lambda a, b: a.add_(a.flip(0)), lambda a, b: a.cumsum_(1), lambda a, b: a[1:].add_(a[:-1]), lambda a, b: a.div_(a.norm())):
        torch.manual_seed(0)
        a, b = torch.randn(40, 40), torch.randn(40, 40)
        c, d = a.cuda(), b.cuda()
        torch.cuda.synchronize()
        f(a, b)
        f(c, d)
        equal(c, a, 1e-4)


def case_results_that_are_kept_stay() -> None:
    """Plans that run often write to the same places again, but never over what somebody holds."""
    for n in (5, 17000):  # copied out of one place; in new places
        kept, want = [], []
        x = torch.arange(float(n), device="cuda")
        for k in range(7):
            y = x * k + 1
            kept.append(y)
            want.append([1, k + 1, (n - 1) * k + 1])
            held = y[1:3] if k % 2 else None
            assert held is None or held.tolist() == [k + 1, 2 * k + 1]
        assert [[y[0].item(), y[1].item(), y[-1].item()] for y in kept] == want
        for k in range(4):
            y = x * k + 1
            assert y[1].item() == k + 1  # nobody holds the one before
        del kept, y
    full = torch.cuda.memory_allocated()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated() < full or not KERNELS


def case_a_kernel_that_cannot_be_compiled() -> None:
    """One warning that names the kernel and the user's line; the numbers come from the host."""
    from graphc import config

    compilers, strict = compiler._Process.compilers, config.STRICT
    before = compilers[Target("cuda", 90)]
    compilers[Target("cuda", 90)] = simulated.Refusing()  # type: ignore[assignment]
    config.STRICT = False
    try:
        x = torch.ones(3, device="cuda")
        x.tolist()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            y = (x * 5 + 7).sin()
            assert abs(y.sum().item() - 3 * np.sin(12)) < 1e-5 and y.is_cuda
        text = str(seen[0].message)
        assert len(seen) == 1 and "kernel " in text and "device_programs.py" in text and "runs on the host instead" in text, text
        config.STRICT = True
        fails(torch.CompileError if hasattr(torch, "CompileError") else RuntimeError, "cannot be compiled here",
              lambda: (x * 5 + 8).cos().tolist())
    finally:
        compilers[Target("cuda", 90)], config.STRICT = before, strict


def case_mixed_precision() -> None:
    def losses(where: str) -> list[float]:
        torch.manual_seed(0)
        net = nn.Linear(4, 4).to(where)
        opt, scaler = torch.optim.SGD(net.parameters(), lr=0.1), torch.amp.GradScaler(where, init_scale=256.0)
        x, out = torch.randn(5, 4).to(where), []
        for _ in range(3):
            with torch.autocast(where, dtype=torch.bfloat16):
                y = net(x)
                assert y.dtype is torch.bfloat16
                loss = y.float().pow(2).mean()
            opt.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(opt)
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            scaler.step(opt)
            scaler.update()
            out.append(loss.item())
        assert scaler.get_scale() == 256.0
        return out

    assert np.allclose(losses("cuda"), losses("cpu"), atol=0.01)
    with torch.autocast("cuda"):
        assert (torch.ones(2, 2, device="cuda") @ torch.ones(2, 2, device="cuda")).dtype is torch.float16


def case_compiled_and_replayed() -> None:
    def losses(where: str, **options: Any) -> list[float]:
        torch.manual_seed(0)
        net = mlp().to(where)
        opt = torch.optim.Adam(net.parameters(), lr=0.01)
        x, y = (t.to(where) for t in vectors())

        @torch.compile(**options)
        def step(a: Any, b: Any) -> Any:
            loss = F.cross_entropy(net(a), b)
            opt.zero_grad()
            loss.backward()
            opt.step()
            return loss

        return [step(x, y).item() for _ in range(6)]

    want = losses("cpu")
    assert np.allclose(losses("cuda"), want, atol=1e-4) and np.allclose(losses("cuda", mode="replay"), want, atol=1e-4)
    f = torch.compile(lambda t: (t * 2).sum(), fullgraph=True)
    assert f(torch.ones(3, device="cuda")).item() == 6 and f(torch.ones(3)).item() == 6


def case_gradients() -> None:
    a = torch.randn(3, 4, dtype=torch.float64)
    def grads(x: Any) -> Any:
        w = x.clone().requires_grad_()
        (y,) = torch.autograd.grad((w.sin() @ w.T).logsumexp(1).sum(), w, create_graph=True)
        (z,) = torch.autograd.grad(y.pow(2).sum(), w)
        return y.detach(), z
    equal(grads(a.cuda()), grads(a), 1e-9)
    def f(x: Any) -> Any:
        return (x * x).sum()
    equal(torch.func.vmap(torch.func.grad(f))(a.cuda()), torch.func.vmap(torch.func.grad(f))(a), 1e-9)
    x = torch.randn(3, 4)
    from graphc.utils.checkpoint import checkpoint
    w = x.cuda().requires_grad_()
    checkpoint(lambda t: t.sin().exp(), w, use_reentrant=False).sum().backward()
    equal(w.grad, x.sin().exp() * x.cos(), 1e-6)


def case_memory_comes_back() -> None:
    import gc

    gc.collect()
    torch.cuda.synchronize()
    start = torch.cuda.memory_allocated()
    x = torch.randn(1000, device="cuda")
    for _ in range(5):
        x = x * 1.5 + 1
        x.sum().item()
    assert start + 4000 <= torch.cuda.memory_allocated() <= start + (64 << 10) and torch.cuda.max_memory_allocated() >= 4000
    del x
    gc.collect()
    assert torch.cuda.memory_allocated() <= start + (48 << 10)
    for d in devices.all_used():
        check(d.memory)
    free, total = torch.cuda.mem_get_info()
    assert 0 < free <= total and "Allocated memory" in torch.cuda.memory_summary()
    torch.cuda.empty_cache()


def case_threads() -> None:
    """Each records its own programs; plans, scalars and results of one plan are used by one at a time."""
    import threading

    x = torch.randn(12, 12)
    y, wrong = x.cuda(), []
    torch.cuda.synchronize()

    def work(k: int) -> None:
        for i in range(4):
            if abs((y * k + i).relu().sum().item() - (x * k + i).relu().sum().item()) > 1e-2:
                wrong.append((k, i))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong, wrong
    pending, found = y * 3, []
    reader = threading.Thread(target=lambda: found.append(pending.sum().item()))
    reader.start()
    reader.join()
    assert abs(found[0] - x.sum().item() * 3) < 1e-3


def case_streams_and_events() -> None:
    x = torch.randn(50, device="cuda")
    s = torch.cuda.Stream()
    with torch.cuda.stream(s):
        y = x * 2
        y = y + 1
        torch.cuda.current_stream().synchronize()
    assert np.allclose(y.tolist(), (x * 2 + 1).tolist())
    torch.cuda.current_stream().wait_stream(s)
    z = y + 1
    y.record_stream(torch.cuda.current_stream())
    assert np.allclose(z.tolist(), (x * 2 + 2).tolist()) and torch.get_device_module() is torch.cuda
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    (x * 2).tolist()
    end.record()
    torch.cuda.synchronize()
    assert start.elapsed_time(end) >= 0


def case_a_cuda_error_in_a_plan() -> None:
    """Named by kernel and line; what does not need the device goes on. Last, since the device is lost."""
    if not KERNELS:
        return
    x = torch.ones(3, device="cuda")
    host = torch.ones(2) * 3
    torch.cuda.synchronize()
    FAKE[0].fail["cuLaunchKernel"] = [700]
    fails(RuntimeError, "CUDA_ERROR_ILLEGAL_ADDRESS", lambda: (x * 11).tolist())
    assert host.tolist() == [3, 3]
    FAKE[0].fail["cuLaunchKernel"] = [700]
    fails(RuntimeError, "device_programs.py", lambda: (x * 12 + 1).tolist())
    FAKE[0].fail.clear()


def main() -> None:
    if not REAL:
        FAKE.append(simulated.install(kernels=KERNELS, devices=2))
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message=".*this program runs on the host instead")
    warnings.filterwarnings("ignore", category=torch.PerformanceNote if hasattr(torch, "PerformanceNote") else ImportWarning)
    for name, case in [(n[5:], f) for n, f in globals().items() if n.startswith("case_") and not (REAL and n[5:] in SIMULATED)]:
        try:
            torch.manual_seed(0)
            case()
            print(f"@@ {name} ok", flush=True)
        except Exception:
            print(f"@@ {name} {traceback.format_exc()}", flush=True)
    print("@@ end ok")


if __name__ == "__main__":
    main()
