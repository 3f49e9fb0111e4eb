"""The programs for every framework with PyTorch's API, written once: ``torch`` is the module, PyTorch or graphc."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from workloads import Arrays, Workload, resnet_blocks


def load(torch: Any, net: Any, a: Arrays) -> Any:
    """Copy the handed-over weights into ``net``; every parameter must get one."""
    names = dict(net.named_parameters())
    assert set(names) == {k[2:] for k in a if k.startswith("p.")}, set(names) ^ {k[2:] for k in a if k.startswith("p.")}
    with torch.no_grad():
        for name, p in names.items():
            p.copy_(torch.from_numpy(a["p." + name]))
    return net


def mlp(torch: Any, c: dict[str, Any]) -> Any:
    nn, widths = torch.nn, c["widths"]

    class MLP(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.names = [f"l{i}" for i in range(len(widths) - 1)]
            for i, name in enumerate(self.names):
                setattr(self, name, nn.Linear(widths[i], widths[i + 1]))

        def forward(self, x: Any) -> Any:
            for name in self.names[:-1]:
                x = torch.relu(getattr(self, name)(x))
            return getattr(self, self.names[-1])(x)

    return MLP()


def lenet(torch: Any, c: dict[str, Any]) -> Any:
    nn, F = torch.nn, torch.nn.functional

    class LeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c0, self.c1 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
            self.l0, self.l1, self.l2 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

        def forward(self, x: Any) -> Any:
            x = F.max_pool2d(F.relu(self.c0(x)), 2)
            x = F.max_pool2d(F.relu(self.c1(x)), 2).flatten(1)
            return self.l2(F.relu(self.l1(F.relu(self.l0(x)))))

    return LeNet()


def gpt(torch: Any, c: dict[str, Any]) -> Any:
    nn, F, w, heads, sdpa = torch.nn, torch.nn.functional, c["width"], c["heads"], c["sdpa"]

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln1, self.ln2 = nn.LayerNorm(w), nn.LayerNorm(w)
            self.qkv, self.out = nn.Linear(w, 3 * w), nn.Linear(w, w)
            self.up, self.down = nn.Linear(w, 4 * w), nn.Linear(4 * w, w)

        def forward(self, x: Any, mask: Any) -> Any:
            b, t, _ = x.shape
            q, k, v = self.qkv(self.ln1(x)).view(b, t, 3, heads, w // heads).permute(2, 0, 3, 1, 4).unbind(0)
            if sdpa:
                y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            else:
                att = (q @ k.transpose(-2, -1)) * (1 / math.sqrt(w // heads))
                y = F.softmax(att.masked_fill(mask, -math.inf), dim=-1) @ v
            x = x + self.out(y.transpose(1, 2).reshape(b, t, w))
            return x + self.down(F.gelu(self.up(self.ln2(x))))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tok, self.pos = nn.Embedding(c["vocabulary"], w), nn.Embedding(c["context"], w)
            self.blocks = nn.ModuleList([Block() for _ in range(c["layers"])])
            self.ln, self.head = nn.LayerNorm(w), nn.Linear(w, c["vocabulary"], bias=False)
            t = c["context"]
            self.register_buffer("mask", torch.ones(t, t, dtype=torch.bool).triu(1), persistent=False)
            self.register_buffer("steps", torch.arange(t), persistent=False)

        def forward(self, x: Any) -> Any:
            h = self.tok(x) + self.pos(self.steps)
            for block in self.blocks:
                h = block(h, self.mask)
            return self.head(self.ln(h)).flatten(0, 1)

    return GPT()


def lstm(torch: Any, c: dict[str, Any]) -> Any:
    nn = torch.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.LSTM(c["input"], c["hidden"], batch_first=True), nn.Linear(c["hidden"], 10)

        def forward(self, x: Any) -> Any:
            return self.head(self.rnn(x)[0][:, -1])

    return Net()


def resnet18(torch: Any, c: dict[str, Any]) -> Any:
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, i: int, o: int, stride: int) -> None:
            super().__init__()
            self.c1, self.n1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
            self.c2, self.n2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
            self.short = stride != 1 or i != o
            if self.short:
                self.cs, self.ns = nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o)

        def forward(self, x: Any) -> Any:
            y = self.n2(self.c2(F.relu(self.n1(self.c1(x)))))
            return F.relu(y + (self.ns(self.cs(x)) if self.short else x))

    class ResNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c0, self.n0 = nn.Conv2d(3, c["width"], 3, 1, 1, bias=False), nn.BatchNorm2d(c["width"])
            self.names = []
            for name, i, o, stride in resnet_blocks(c):
                setattr(self, name, Block(i, o, stride))
                self.names.append(name)
            self.head = nn.Linear(8 * c["width"], 10)

        def forward(self, x: Any) -> Any:
            x = F.relu(self.n0(self.c0(x)))
            for name in self.names:
                x = getattr(self, name)(x)
            return self.head(x.mean((2, 3)))

    return ResNet()


MODELS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "mlp": mlp, "mlp_wide": mlp, "lenet": lenet, "gpt": gpt, "gpt_sdpa": gpt, "lstm": lstm, "resnet18": resnet18}


def function(torch: Any, op: str) -> Callable[..., Any]:
    """The memory-bound function ``op`` of tensors, without its gradients."""
    F = torch.nn.functional
    return {
        "gelu": lambda x, g: F.gelu(x) * g,
        "softmax": lambda x: F.softmax(x, dim=-1),
        "layernorm": lambda x, w, b: F.layer_norm(x, (x.shape[-1],), w, b),
        "xent": lambda x, y: F.cross_entropy(x, y),
        "chain": lambda x, y: torch.exp(-torch.abs(x)) * torch.relu(x * 2 + y) + 0.5,
        "bcast_relu": lambda x, b: torch.relu(x + b),
        "permute": lambda x: x.permute(0, 2, 3, 1).contiguous(),
    }[op]


class TorchLike:
    """A workload in PyTorch's API. ``step(*inputs)`` runs one step and returns what must be computed.

    ``whole``: compiles a callable with everything inside (graphc); ``parts``: compiles the forward function and the
    optimizer step, the way torch.compile is used. ``force`` waits for a result that is still pending.
    """

    def __init__(self, torch: Any, w: Workload, c: dict[str, Any], a: Arrays, fused: bool = False,
                 whole: Callable[[Any], Any] | None = None, parts: Callable[[Any], Any] | None = None,
                 force: Callable[[], None] = lambda: None) -> None:
        self.torch, self.force, parts = torch, force, parts or (lambda f: f)
        if w.kind == "train":
            step = self._train(w, c, a, fused, parts)
        elif w.extra["op"] == "adamw":
            step = self._adamw(w, a, fused, parts)
        else:
            step = self._kernel(w, a, parts)
        self.step = whole(step) if whole else step

    def place(self, x: Any) -> Any:
        return self.torch.from_numpy(x).clone()  # memory of the framework's own, as data in a training loop is

    def _train(self, w: Workload, c: dict[str, Any], a: Arrays, fused: bool, parts: Callable[[Any], Any]) -> Callable[..., Any]:
        torch, (name, options) = self.torch, w.optimizer
        net = load(torch, MODELS[w.name](torch, c), a)
        optimizer = getattr(torch.optim, name)(net.parameters(), **options, **({"fused": True} if fused else {}))
        self.inputs = [self.place(a[k]) for k in w.inputs]
        update = parts(optimizer.step)

        @parts
        def loss_of(x: Any, y: Any) -> Any:
            return torch.nn.functional.cross_entropy(net(x), y.flatten())

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = loss_of(x, y)
            loss.backward()
            update()
            return loss.detach()

        return step

    def _adamw(self, w: Workload, a: Arrays, fused: bool, parts: Callable[[Any], Any]) -> Callable[..., Any]:
        torch, names = self.torch, [k[2:] for k in a if k.startswith("p.")]
        weights = [torch.nn.Parameter(self.place(a["p." + n])) for n in names]
        for p, n in zip(weights, names):
            p.grad = self.place(a["g." + n])
        optimizer = torch.optim.AdamW(weights, **w.optimizer[1], **({"fused": True} if fused else {}))
        update, self.inputs = parts(optimizer.step), []

        def step() -> Any:
            update()
            return [p.detach() for p in weights]

        return step

    def _kernel(self, w: Workload, a: Arrays, parts: Callable[[Any], Any]) -> Callable[..., Any]:
        torch, wrt = self.torch, w.extra["wrt"]
        f = parts(function(torch, w.extra["op"]))
        self.inputs = [self.place(a[k]) for k in w.inputs]
        for k, x in zip(w.inputs, self.inputs):
            if k in wrt:
                x.requires_grad_()
        n = len(w.inputs) - (w.inputs[-1] == "dy")
        at = [w.inputs.index(k) for k in wrt]
        if not wrt:
            return f

        def step(*inputs: Any) -> Any:
            y = f(*inputs[:n])
            return [y.detach(), *torch.autograd.grad(y, [inputs[i] for i in at], *inputs[n:])]

        return step

    def wait(self, out: Any) -> None:
        """Return when ``out`` is computed."""
        self.force()

    def values(self, out: Any) -> list[Any]:
        """NumPy arrays of a step's result."""
        return [t.detach().numpy() for t in (out if isinstance(out, (list, tuple)) else [out])]
