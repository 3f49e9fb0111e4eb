"""``__torch_function__``: the same programs under PyTorch and graphc give the same types, attributes, values and logs."""
from __future__ import annotations

import copy
import io
import operator
import pickle
import subprocess
import sys
from types import FunctionType
from typing import Any

import numpy as np
import pytest
import torch as reference

import graphc
from graphc.tensor_overriding import LOCAL, SWITCH

PROGRAMS: list[Any] = []


def program(fn: Any) -> Any:
    """A function of the framework; what it returns must be equal under both."""
    PROGRAMS.append(fn)
    return fn


@pytest.fixture(autouse=True)
def _off_again() -> Any:
    yield
    assert LOCAL.subclasses and LOCAL.all and not LOCAL.modes
    SWITCH.forget()
    assert not SWITCH.is_on


def plain(x: Any) -> Any:
    """Types by name, tensors by their data."""
    if isinstance(x, (reference.Tensor, graphc.Tensor)):
        t: Any = x
        while type(t).__mro__[-2].__module__.split(".")[0] in ("torch", "graphc") and type(t).__name__ not in ("Tensor", "Parameter"):
            t = t.as_subclass(reference.Tensor if isinstance(t, reference.Tensor) else graphc.Tensor)
        return type(x).__name__, str(t.dtype), np.round(np.asarray(t.detach().tolist(), dtype=float), 5).tolist()
    if isinstance(x, (list, tuple)):
        return [plain(e) for e in x]
    if isinstance(x, dict):
        return {k: plain(v) for k, v in x.items()}
    return x.__name__ if isinstance(x, type) else x


def logged(torch: Any) -> tuple[Any, list[Any]]:
    """A subclass that logs the functions it is asked, and the log."""
    log: list[Any] = []

    class Logged(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = torch.overrides.resolve_name(func) or func.__name__
            log.append((name.replace("functional.", "").replace("special.", ""), [t.__name__ for t in types if t is not torch.Tensor]))
            return super().__torch_function__(func, types, args, kwargs or {})

    return Logged, log


def metadata(torch: Any) -> Any:
    """A subclass with an attribute of its own that results inherit from the first argument that has it."""
    class WithMeta(torch.Tensor):
        meta: Any

        @staticmethod
        def __new__(cls: Any, data: Any, meta: Any = None, **kw: Any) -> Any:
            t = torch.as_tensor(data, **kw).as_subclass(cls)
            t.meta = meta
            return t

        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = super().__torch_function__(func, types, args, kwargs or {})
            if isinstance(out, WithMeta) and "meta" not in out.__dict__:
                flat = [x for a in args for x in (a if isinstance(a, (list, tuple)) else [a])]
                out.meta = next((x.meta for x in flat if isinstance(x, WithMeta)), None)
            return out

    WithMeta.__qualname__ = "WithMeta"
    return WithMeta


# ---------------------------------------------------------------------------------------------------- subclasses: who, what
@program
def operators_log(torch: Any) -> Any:
    cls, log = logged(torch)
    out: list[Any] = []
    f = torch.ones(2, 2).as_subclass(cls)
    n = torch.ones(2, 2, dtype=torch.int64).as_subclass(cls)
    for name in "add sub mul truediv floordiv mod pow matmul lt le gt ge eq ne".split():
        for a, b in ((f, f), (2.0, f), (f, 2.0), (torch.ones(2, 2), f)):
            if name != "matmul" or not isinstance(a, float) and not isinstance(b, float):
                out.append(getattr(operator, name)(a, b))
    for name in "lshift rshift and_ or_ xor".split():
        out += [getattr(operator, name)(a, b) for a, b in ((n, n), (2, n), (n, 2), (torch.ones(2, 2).long(), n))]
    for name in "iadd isub imul itruediv ifloordiv imod ipow".split():
        out.append(getattr(operator, name)(f.clone(), 2.0))
    for name in "iand ior ixor ilshift irshift".split():
        out.append(getattr(operator, name)(n.clone(), 1))
    out += [-f, +f, abs(f), ~n, f == None]  # noqa: E711
    return out, log


@program
def methods_log(torch: Any) -> Any:
    cls, log = logged(torch)
    s = torch.arange(6.0).reshape(2, 3).as_subclass(cls)
    out = [s.sum(), s.mean(0), s.max(1), s.sort(), s.argmax(), s.clone(), s.detach(), s.double(), s.to(torch.float64),
           s.cpu(), s.contiguous(), s.view(3, 2), s.permute(1, 0), s.t(), s.split(1), s.chunk(2), s.unbind(), s.new_zeros(2),
           s.size(), s.dim(), s.numel(), s.stride(), s.tolist(), s[0, 0].item(), s.is_contiguous(), s.element_size(),
           s.is_floating_point(), s.type(), s.exp().log(), s.clamp(1, 2), s.masked_fill(s > 2, 0), s.expand(2, 2, 3),
           s.relu_(), s.add_(1), s.zero_(), s.fill_(2), s.norm(), s.softmax(-1), s.requires_grad_(), s.detach().numpy().tolist()]
    return out, log


@program
def indexing_and_python(torch: Any) -> Any:
    cls, log = logged(torch)
    s = torch.arange(6.0).reshape(2, 3).as_subclass(cls)
    p = torch.arange(6.0).reshape(2, 3)
    out = [s[0], s[:, 1:], s[torch.tensor([0])], s[s > 2], p[(s > 2)], len(s), bool(s[0, 1]), float(s[1, 1]), int(s[1, 2]),
           [1, 2, 3][s[0, 2].long()], 5.0 in s, repr(s), f"{s[0, 1]}"]
    s[0] = 7
    p[0] = s[1]
    s[1, 1:] += 1
    return [x for x in out if not isinstance(x, str)], [x for x in out if isinstance(x, str)], s, p, log


@program
def properties(torch: Any) -> Any:
    cls, log = logged(torch)
    s = torch.ones(2, 3).as_subclass(cls)
    out = [s.shape, str(s.dtype), str(s.device), s.ndim, s.requires_grad, s.grad, s.grad_fn, s.is_leaf, s.data, s.T, s.mT, s.H,
           s.real, s.is_cuda, s.itemsize, s.nbytes, s.output_nr, s.retains_grad]
    s.requires_grad = True
    s.data = torch.zeros(2, 3)
    s.grad = None
    return out, s, log


@program
def functions_log(torch: Any) -> Any:
    cls, log = logged(torch)
    s, p = torch.ones(2, 2).as_subclass(cls), torch.ones(2, 2)
    out = [torch.add(s, p), torch.add(input=p, other=s), torch.stack([p, s]), torch.cat((s, s), 1), torch.where(p > 0, s, p),
           torch.max(s, 0), torch.split(s, 1), torch.einsum("ij,jk->ik", s, p), torch.ones_like(s), torch.allclose(s, p),
           torch.equal(s, p), torch.numel(s), torch.is_floating_point(s), torch.matmul(p, s), torch.broadcast_tensors(s, p),
           torch.add(p, p, out=s), torch.zeros(2), torch.tensor([1.0]), torch.is_tensor(s), torch.as_tensor(s) is s, torch.tensor(
               s.detach().tolist())]
    return out, log


@program
def namespaces(torch: Any) -> Any:
    cls, log = logged(torch)
    F = torch.nn.functional
    s = torch.full((2, 4), 0.5).as_subclass(cls)
    target = torch.tensor([0, 1])
    out = [F.relu(s), F.linear(s, torch.ones(3, 4)), F.cross_entropy(s, target), F.gelu(s), F.layer_norm(s, (4,)),
           F.mse_loss(s, torch.zeros(2, 4)), F.pad(s, (1, 1)), F.conv1d(s[None], torch.ones(1, 2, 2)), F.dropout(s, 0.5, False),
           torch.linalg.norm(s), torch.fft.fft(s).abs(), torch.special.erfc(s)]
    return out, log


@program
def modules(torch: Any) -> Any:
    cls, log = logged(torch)
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.LayerNorm(2), torch.nn.Dropout(0.0),
                              torch.nn.Softmax(-1))
    with torch.no_grad():
        net[0].weight.fill_(0.5)
        net[0].bias.fill_(0.25)
    x = torch.ones(2, 2).as_subclass(cls)
    out = net(x)
    params = [type(p) for p in net.parameters()]
    return type(out), out.detach(), params, log


@program
def families_of_classes(torch: Any) -> Any:
    class A(torch.Tensor):
        pass

    class B(torch.Tensor):
        pass

    class C(A):
        pass

    a, b, c = (torch.ones(2).as_subclass(k) for k in (A, B, C))
    out = [a + c, c + a, torch.stack([a, c]), torch.add(a, torch.ones(2)), type(a.as_subclass(C))]
    for f in (lambda: torch.add(a, b), lambda: a + b, lambda: torch.nn.functional.relu6(Refusing()), lambda: a.add(b),
              lambda: torch.cat([a, b])):
        try:
            out.append(f())
        except TypeError as error:
            out.append(str(error).replace("test_torch_function.", ""))
    return out


class _Never:
    @classmethod
    def take(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return NotImplemented


Refusing = type("Refusing", (), {"__torch_function__": _Never.take})


@program
def order_of_asking(torch: Any) -> Any:
    log: list[Any] = []

    def asked(name: str, answers: bool) -> Any:
        def take(cls: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            log.append((name, cls.__name__, [t.__name__ for t in types]))
            return name if answers else NotImplemented

        return classmethod(take)

    Base = type("Base", (torch.Tensor,), {"__torch_function__": asked("Base", True)})
    Sub = type("Sub", (Base,), {"__torch_function__": asked("Sub", False)})
    Other = type("Other", (), {"__torch_function__": asked("Other", True)})
    b, s, o = torch.ones(1).as_subclass(Base), torch.ones(1).as_subclass(Sub), Other()
    torch.overrides.is_tensor_like(o)
    out = [torch.add(b, s), torch.add(o, b), torch.cat([b, s, b]), torch.add(s, o), torch.mul(torch.ones(1), o), o_add(b, s),
           torch.ones(1) + o, torch.ones(1).mul(o)]
    return out, log


def o_add(a: Any, b: Any) -> Any:
    return a + b


# ------------------------------------------------------------------------------------------- keeping types and attributes
@program
def metadata_travels(torch: Any) -> Any:
    cls = metadata(torch)
    m = cls([[1.0, 2.0], [3.0, 4.0]], meta={"unit": "m"})
    out = [m + 1, 2 * m, m[0], m.T, m.sum(), m.clone(), m.detach(), m > 1, torch.stack([m, m]), torch.cat([torch.ones(1, 2), m]),
           m.to(torch.float64), m.requires_grad_()]
    return [(plain(x), x.meta) for x in out]


@program
def copies(torch: Any) -> Any:
    cls = metadata(torch)
    globals()["WithMeta"] = cls
    m = cls([1.0, 2.0], meta=[1, 2])
    a, b = pickle.loads(pickle.dumps(m)), copy.copy(m)
    f = io.BytesIO()
    torch.save({"m": m.as_subclass(torch.Tensor)}, f)
    f.seek(0)
    return [(type(x), x, x.meta) for x in (a, b)], torch.load(f)["m"]


@program
def saved(torch: Any) -> Any:
    cls = metadata(torch)
    globals()["WithMeta"] = cls
    m = cls([1.0, 2.0], meta={"unit": ["m"], "t": torch.ones(1)})
    f = io.BytesIO()
    torch.save({"m": m, "again": [m], "row": m[:1], "leaf": m.clone().requires_grad_(), "plain": torch.ones(1)}, f)
    f.seek(0)
    out = torch.load(f, weights_only=False)
    out["m"].add_(1)
    return out, out["m"].meta, out["again"][0] is out["m"], out["leaf"].requires_grad


@program
def parameters(torch: Any) -> Any:
    cls = metadata(torch)
    globals()["WithMeta"] = cls
    assert not isinstance(cls([1.0]), torch.nn.Parameter)
    net = torch.nn.Linear(2, 1, bias=False)
    net.weight = torch.nn.Parameter(cls([[1.0, 2.0]], meta="w"))
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    net(torch.ones(3, 2)).sum().backward()
    opt.step()
    w = net.weight
    kinds = [type(w), isinstance(w, torch.nn.Parameter), w.is_leaf, w.requires_grad, len(list(net.parameters()))]
    state = net.state_dict()
    net.load_state_dict(state)
    net.double()
    return kinds, w.detach(), [type(x) for x in state.values()], type(net.weight), str(net.weight.dtype), isinstance(
        net.weight, torch.nn.Parameter), isinstance(torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter)


@program
def storage_is_shared(torch: Any) -> Any:
    class S(torch.Tensor):
        pass

    base = torch.zeros(2, 2)
    s = base.as_subclass(S)
    s.add_(1)
    row = s[0]
    row += 1
    base[1, 1] = 9
    x = torch.zeros(2)
    x.add_(torch.ones(2).as_subclass(S))
    out = torch.empty(2)
    torch.add(torch.ones(2).as_subclass(S), 1, out=out)
    v, i = s.max(0)
    v.zero_()
    return base, s, row, x, out, v, i, s.data_ptr() == base.data_ptr()


@program
def gradients(torch: Any) -> Any:
    cls, log = logged(torch)
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    s = torch.tensor([3.0, 4.0]).as_subclass(cls)
    loss = (w * s).sum()
    kinds = [type(loss), loss.requires_grad, loss.grad_fn is not None]
    loss.backward()
    leaf = torch.tensor([1.0, 2.0]).as_subclass(cls).requires_grad_()
    (leaf * leaf).sum().backward()
    inner = torch.tensor([1.0, 2.0], requires_grad=True)
    through = (inner * 2).as_subclass(cls)
    through.sum().backward()
    of_leaf = inner.as_subclass(cls)
    hooked: list[Any] = []
    s2 = torch.ones(2).as_subclass(cls).requires_grad_()
    s2.register_hook(lambda g: hooked.append(g.tolist()))
    (s2 * 3).sum().backward()
    return kinds, w.grad, leaf.grad, type(leaf), leaf.is_leaf, inner.grad, of_leaf.is_leaf, of_leaf.requires_grad, hooked


@program
def what_runs_programs(torch: Any) -> Any:
    """Custom functions, checkpoints, transforms, autocast and larger modules keep the type as PyTorch does."""
    from importlib import import_module

    checkpoint = import_module(f"{torch.__name__}.utils.checkpoint").checkpoint

    class S(torch.Tensor):
        pass

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return 2 * ctx.saved_tensors[0] * g

    s = torch.tensor([1.0, 2.0]).as_subclass(S)
    q = torch.tensor([1.0, 2.0]).as_subclass(S).requires_grad_()
    out = Square.apply(q)
    out.sum().backward()
    kinds = [type(Square.apply(s)), type(out), type(q.grad), q.grad.tolist()]
    kinds += [type(checkpoint(lambda x: torch.relu(x * 2), q, use_reentrant=False)), type(torch.func.vmap(torch.sin)(s)),
              type(torch.func.grad(lambda x: (x * x).sum())(s)), type(torch.autograd.grad((q * 2).sum(), q)[0])]
    x = torch.ones(1, 3, 4).as_subclass(S)
    kinds += [type(torch.nn.MultiheadAttention(4, 2, batch_first=True)(x, x, x)[0]), type(torch.nn.LSTM(4, 2)(x)[0]),
              type(torch.nn.LSTM(4, 2)(x, (torch.ones(1, 3, 2), torch.ones(1, 3, 2)))[1][0]), type(torch.cat([s, s])),
              type(torch.nn.Embedding(4, 2)(torch.tensor([1]).as_subclass(S))), type(torch.nn.utils.parameters_to_vector([s, s]))]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = torch.matmul(torch.ones(2, 2).as_subclass(S), torch.ones(2, 2))
    with torch.no_grad():
        z = q * 2
    return kinds, type(y), str(y.dtype), type(z), z.requires_grad, [type(S(2, 3)), type(S([1.0])), type(torch.Tensor(s)), type(S(s))]


@program
def foreign_operands(torch: Any) -> Any:
    class S(torch.Tensor):
        pass

    class Unit:
        def __rmul__(self, other: Any) -> Any:
            return "rmul", type(other)

        __radd__ = __rmul__

    class Asked:
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return NotImplemented

        def __radd__(self, other: Any) -> Any:
            return "radd", type(other)

    torch.overrides.is_tensor_like(Asked())
    s, p = torch.ones(1).as_subclass(S), torch.ones(1)
    out = [s * Unit(), p * Unit(), p + Asked(), s.__add__(object()) is NotImplemented]
    p += Asked()
    s *= Unit()
    return out, p, s


@program
def here_and_there(torch: Any) -> Any:
    class P(torch.Tensor):
        pass

    class Called:
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return "called", func.__name__

    class Plain:
        def __torch_function__(self, *args: Any, **kwargs: Any) -> Any:
            return "plain method"

    torch.overrides.is_tensor_like(Called())
    c, w, t = Called(), torch.nn.Parameter(torch.ones(2, 2)), torch.tensor([1, 2])
    out = [torch.add(w, c), torch.nn.functional.linear(w, c), t[c], t[c, None], torch.stack([w, c]), w + c,
           torch.distributions.utils.broadcast_all(c, torch.ones(1)), torch.distributions.utils.broadcast_all(t.as_subclass(P), 1)]
    t[c] = 1
    x = torch.ones(1, 2, 5).as_subclass(P)
    values = torch.max(x, 0)
    out += [type(r) for m in (torch.nn.RNN, torch.nn.GRU) for r in m(5, 5, 2)(x)]
    out += [type(torch.nn.RNNCell(5, 5)(x[0])), values, type(values)(v for v in values).indices, values._replace(values=1).values
            if hasattr(values, "_replace") else 1]
    with pytest.warns(UserWarning, match="plain method is deprecated"):
        out.append(torch.add(Plain(), 1))
    with pytest.warns(DeprecationWarning, match="plain method is deprecated"):
        out.append(torch.overrides.handle_torch_function(print, (Plain(),)))
    return out, t, torch.overrides.handle_torch_function(torch.add, (w, t), t, t)


@program
def training(torch: Any) -> Any:
    class S(torch.Tensor):
        pass

    p = torch.tensor([1.0, 2.0]).as_subclass(S).requires_grad_()
    opt = torch.optim.Adam([p], lr=0.1)
    for _ in range(3):
        opt.zero_grad()
        ((p - 3) ** 2).sum().backward()
        opt.step()
    torch.nn.utils.clip_grad_norm_([p], 0.5)
    return p.detach(), type(p), p.grad


@program
def loaders(torch: Any) -> Any:
    cls = metadata(torch)
    data = [cls([float(i), 1.0], meta=i) for i in range(4)]
    batches = list(torch.utils.data.DataLoader(data, batch_size=2))
    one = torch.utils.data.default_collate([{"x": data[0], "y": 1}, {"x": data[1], "y": 2}])
    return [(b, b.meta) for b in batches], one["x"], one["y"]


@program
def own_arithmetic(torch: Any) -> Any:
    """The subclass of PyTorch's note that answers by a table."""
    handled: dict[Any, Any] = {}

    class SubTensor(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func in handled:
                return handled[func](*args, **(kwargs or {}))
            return super().__torch_function__(func, types, args, kwargs or {})

    handled[torch.mean] = lambda x: -1
    handled[torch.Tensor.mul] = lambda a, b: "mul"
    handled[torch.Tensor.__getitem__] = lambda a, i: ("item", i)
    handled[torch.nn.functional.relu] = lambda x, inplace=False: "relu"
    handled[torch.Tensor.shape.__get__] = lambda x: "shape"
    handled[torch.linalg.det] = lambda x: "det"
    s = torch.ones(2, 2).as_subclass(SubTensor)
    return (torch.mean(s), s.mean(), torch.mul(s, 2), s.mul(2), s * 2, 2 * s, s[1], torch.nn.functional.relu(s),
            torch.nn.ReLU()(s), s.shape, s.ndim, torch.linalg.det(s))


@program
def disabled_by_class(torch: Any) -> Any:
    class Quiet(torch.Tensor):
        __torch_function__ = torch._C._disabled_torch_function_impl

    q = torch.ones(2).as_subclass(Quiet)
    return q + 1, q.sum(), torch.stack([q, q]), type(torch.nn.Parameter(torch.ones(1)) + 1), q, q.add_(1)


@program
def disabled_by_block(torch: Any) -> Any:
    cls, log = logged(torch)
    s = torch.ones(2).as_subclass(cls)
    out = []
    with torch._C.DisableTorchFunctionSubclass():
        out += [s + 1, torch.relu(s), s.shape, torch.overrides.has_torch_function((s,))]
        with torch._C.DisableTorchFunctionSubclass():
            out.append(s * 2)
        out.append(s * 3)
    with torch._C.DisableTorchFunction():
        out.append(s - 1)
    out.append(s + 2)
    return out, log, torch.overrides.has_torch_function((s,)), torch.overrides.has_torch_function_unary(torch.ones(1))


@program
def own_functions_may_ask(torch: Any) -> Any:
    cls, log = logged(torch)

    def double(x: Any) -> Any:
        if torch.overrides.has_torch_function_unary(x):
            return torch.overrides.handle_torch_function(double, (x,), x)
        return x * 2

    s = torch.ones(2).as_subclass(cls)
    return double(s), double(torch.ones(2)), log, torch.overrides.is_tensor_like(s), torch.overrides.is_tensor_like(2)


@program
def one_level_skipped(torch: Any) -> Any:
    log: list[Any] = []

    class Loud(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            log.append(func.__name__)
            return torch.overrides.redispatch_function(func, types, args, kwargs)

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            log.append(("mode", func.__name__))
            with self:
                return torch.overrides.redispatch_function(func, types, args, kwargs)

    def scaled(a: Any, b: Any) -> Any:
        if torch.overrides.has_torch_function((a, b)):
            return torch.overrides.handle_torch_function(scaled, (a, b), a, b)
        return a * b + 1

    x, y = torch.tensor([3.0]).as_subclass(Loud), torch.tensor([4.0]).as_subclass(Loud)
    out = [scaled(x, y), x.shape, torch.relu(x)]
    with Mode():
        out.append(scaled(torch.tensor([3.0]), torch.tensor([4.0])))
    return out, [e for e in log if e != ("mode", "tensor")]


# ------------------------------------------------------------------------------------------------------------------ modes
@program
def modes(torch: Any) -> Any:
    log: list[Any] = []

    class Log(torch.overrides.TorchFunctionMode):
        def __init__(self, name: str):
            super().__init__()
            self.name = name

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            log.append((self.name, torch.overrides.resolve_name(func), [t.__name__ for t in types if t is not torch.Tensor]))
            return func(*args, **(kwargs or {}))

    cls, asked = logged(torch)
    s = torch.ones(2).as_subclass(cls)
    p, net = torch.ones(2), torch.nn.Linear(2, 1)
    out = []
    with Log("a"):
        out += [p + 1, torch.zeros(2), torch.nn.functional.relu(p), s * 2, p.shape]
        with Log("b"):
            out += [torch.add(p, 1), net(p).shape]
        with torch.overrides.BaseTorchFunctionMode(), torch._C.DisableTorchFunctionSubclass():
            out.append(s + 1)
        with torch._C.DisableTorchFunction():
            out.append(p * 5)
    out.append(p + 3)
    return out, log, asked


@program
def mode_changes_results(torch: Any) -> Any:
    class Zero(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.add:
                func = torch.sub
            elif func == torch.Tensor.ndim.__get__:
                return "ndim"
            return func(*args, **(kwargs or {}))

    with Zero():
        out = [torch.add(torch.ones(2), 1), torch.ones(2) + 1, torch.ones(2).ndim]
    return out, torch.add(torch.ones(2), 1)


# ------------------------------------------------------------------------------------- PyTorch's note "Extending torch"
SCALAR = '''
import {name} as torch
import functools
HANDLED_FUNCTIONS = {{}}
class ScalarTensor(object):
    def __init__(self, N, value):
        self._N, self._value = N, value
    def __repr__(self):
        return "ScalarTensor(N={{}}, value={{}})".format(self._N, self._value)
    def tensor(self):
        return self._value * torch.eye(self._N)
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if kwargs is None:
            kwargs = {{}}
        if func not in HANDLED_FUNCTIONS or not all(issubclass(t, (torch.Tensor, ScalarTensor)) for t in types):
            return NotImplemented
        return HANDLED_FUNCTIONS[func](*args, **kwargs)
def implements(torch_function):
    def decorator(func):
        functools.update_wrapper(func, torch_function)
        HANDLED_FUNCTIONS[torch_function] = func
        return func
    return decorator
@implements(torch.mean)
def mean(input):
    return float(input._value) / input._N
def ensure_tensor(data):
    return data.tensor() if isinstance(data, ScalarTensor) else torch.as_tensor(data)
@implements(torch.add)
def add(input, other):
    try:
        if input._N == other._N:
            return ScalarTensor(input._N, input._value + other._value)
        raise ValueError("Shape mismatch!")
    except AttributeError:
        return torch.add(ensure_tensor(input), ensure_tensor(other))
d = ScalarTensor(5, 2)
out = [torch.mean(d), repr(torch.add(d, d)), torch.add(d, torch.ones(5, 5)).tolist()]
for f in (lambda: torch.mul(d, 3), lambda: d + 1, lambda: torch.add(d, ScalarTensor(2, 2))):
    try:
        out.append(f())
    except (TypeError, ValueError) as error:
        out.append(str(error))
'''
LOGGING = '''
import {name} as torch
log = []
class LoggingTensor(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is not torch.Tensor.__repr__:
            log.append(f"func: {{func.__name__}}, args: {{args!r}}, kwargs: {{kwargs or {{}}!r}}")
        if kwargs is None:
            kwargs = {{}}
        return super().__torch_function__(func, types, args, kwargs)
t = LoggingTensor([1.0, 2.0])
out = [repr(t + 1), type(t.sum()).__name__, repr(torch.relu(t)), log]
'''
METADATA = '''
import {name} as torch
class MetadataTensor(object):
    def __init__(self, data, metadata=None, **kwargs):
        self._t = torch.as_tensor(data, **kwargs)
        self._metadata = metadata
    def __repr__(self):
        return "Metadata:\\n{{}}\\n\\ndata:\\n{{}}".format(self._metadata, self._t)
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if kwargs is None:
            kwargs = {{}}
        metadatas = tuple(a._metadata for a in args if hasattr(a, '_metadata'))
        args = [getattr(a, '_t', a) for a in args]
        assert len(metadatas) > 0
        ret = func(*args, **kwargs)
        return MetadataTensor(ret, metadata=metadatas[0])
m = MetadataTensor([[1., 2.], [3., 4.]], metadata={{'owner': 'Ministry of Silly Walks'}})
t = torch.tensor([[1., 2.], [1., 2.]])
out = [repr(torch.add(t, m)), repr(torch.mul(t, m)), repr(torch.nn.functional.relu(m)), repr(t + m), repr(torch.linalg.norm(m))]
'''
SUBTENSOR = '''
import {name} as torch
class SubTensor(torch.Tensor):
    pass
class SubTensor2(torch.Tensor):
    pass
class SubSubTensor(SubTensor):
    pass
s = SubTensor([0])
out = [type(torch.add(s, torch.tensor([1]))).__name__, type(torch.add(SubSubTensor([0]), s)).__name__]
try:
    torch.add(SubTensor([0]), SubTensor2([1]))
except TypeError as error:
    out.append(str(error))
'''


@pytest.mark.parametrize("source", [SCALAR, LOGGING, METADATA, SUBTENSOR], ids=["scalar", "logging", "metadata", "subtensor"])
def test_programs_of_the_note(source: str) -> None:
    results = []
    for name in ("torch", "graphc"):
        scope: dict[str, Any] = {"__name__": "note"}
        exec(compile(source.format(name=name), f"<{name}>", "exec"), scope)
        results.append(scope["out"])
    assert results[0] == results[1]


# -------------------------------------------------------------------------------------------------------- only in graphc
def test_nothing_is_exchanged_before_a_class_overrides() -> None:
    code = """
import graphc, types
before = {n: f.__code__ for n, f in vars(graphc).items() if isinstance(f, types.FunctionType)}
methods = {n: f.__code__ for n, f in vars(graphc.Tensor).items() if isinstance(f, types.FunctionType)}
from graphc.nn.functional import relu
graphc.nn.Linear(2, 2)(graphc.ones(2)).sum().backward()
class P(graphc.nn.Parameter): pass
class Q(graphc.Tensor): __torch_function__ = graphc._C._disabled_torch_function_impl
from graphc.tensor_overriding import SWITCH
assert not SWITCH.is_on and not SWITCH.exchanges and "graphc.overrides" not in __import__("sys").modules
same = lambda: all(vars(graphc)[n].__code__ is c for n, c in before.items()) and \\
    all(vars(graphc.Tensor)[n].__code__ is c for n, c in methods.items())
assert same()
mean, table = graphc.mean, {graphc.mean: 1, graphc.Tensor.add: 2, graphc.Tensor.shape.__get__: 3}
class S(graphc.Tensor): pass
assert SWITCH.is_on and not same()
assert mean is graphc.mean and table == {graphc.mean: 1, graphc.Tensor.add: 2, graphc.Tensor.shape.__get__: 3}
assert type(relu(graphc.ones(2).as_subclass(S))) is S and type(mean(graphc.ones(2).as_subclass(S))) is S
SWITCH.forget()
assert same() and type(graphc.ones(2) + 1) is graphc.Tensor
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_methods_are_not_the_functions() -> None:
    for name in ("add", "clone", "relu", "mean"):
        assert getattr(graphc.Tensor, name) is not getattr(graphc, name)
        assert getattr(graphc.Tensor, name).__qualname__ == f"Tensor.{name}"
        for fn in (getattr(graphc.Tensor, name), getattr(graphc, name)):
            assert pickle.loads(pickle.dumps(fn)) is fn
    assert pickle.loads(pickle.dumps(graphc.remainder)) is graphc.remainder
    assert graphc.Tensor.__add__.__name__ == "__add__" and graphc.Tensor.multiply is not graphc.Tensor.mul


def test_signatures_and_modes_leave_no_trace() -> None:
    import inspect

    before = inspect.signature(graphc.softmax), inspect.signature(graphc.Tensor.sum), graphc.sum.__dict__.copy()
    with graphc.overrides.BaseTorchFunctionMode():
        assert SWITCH.is_on
        assert (inspect.signature(graphc.softmax), inspect.signature(graphc.Tensor.sum)) == before[:2]
    assert not SWITCH.is_on
    assert (inspect.signature(graphc.softmax), inspect.signature(graphc.Tensor.sum), graphc.sum.__dict__) == before
    with pytest.raises(TypeError, match="unexpected keyword"):
        graphc.relu(graphc.ones(1), nothing=1)


def test_foreign_objects_nobody_knew() -> None:
    Late = type("Late", (), {"__torch_function__": classmethod(lambda cls, func, types, args=(), kwargs=None: "late")})
    with pytest.raises(TypeError, match="asked from the next call on"):
        graphc.mean(Late())
    assert graphc.mean(Late()) == "late" and graphc.ones(1) * Late() == "late"


def test_overridable_functions() -> None:
    ours, theirs = graphc.overrides.get_overridable_functions(), reference.overrides.get_overridable_functions()
    have = {id(f) for functions in ours.values() for f in functions}
    for other, module in ((reference, graphc), (reference.nn.functional, graphc.nn.functional), (reference.linalg, graphc.linalg),
                          (reference.fft, graphc.fft), (reference.special, graphc.special), (reference.Tensor, graphc.Tensor)):
        asking = {id(f) for f in theirs[other]}
        missing = [n for n in dir(other) if id(getattr(other, n, None)) in asking and isinstance(getattr(module, n, None), FunctionType)
                   and id(getattr(module, n)) not in have and not n.startswith(("sym_", "_is"))]
        assert not missing, (module, missing)
    assert graphc.overrides.resolve_name(graphc.Tensor.add) == "torch.Tensor.add"
    assert graphc.overrides.resolve_name(graphc.Tensor.shape.__get__) == "torch.Tensor.shape.__get__"
    assert graphc.overrides.resolve_name(graphc.add) == "torch.add" and graphc.overrides.resolve_name(print) is None
    assert graphc.overrides.is_tensor_method_or_property(graphc.Tensor.add)
    assert graphc.overrides.is_tensor_method_or_property(graphc.Tensor.shape.__get__)
    assert not graphc.overrides.is_tensor_method_or_property(graphc.add)
    dummies = graphc.overrides.get_testing_overrides()
    assert dummies[graphc.add](1, 2) == -1 and len(dummies) > 1000


@pytest.mark.parametrize("mode", ["default", "replay"])
def test_compiled_functions_keep_types_and_ask(mode: str) -> None:
    cls, log = logged(graphc)
    f = graphc.compile(lambda x, y: graphc.relu(x * y + 1).sum(0), mode=mode)
    for n in range(8):
        log.clear()
        out = f(graphc.full((3, 3), float(n)).as_subclass(cls), graphc.ones(3))
        assert type(out) is cls and out.tolist() == [3.0 * n + 3] * 3
        assert [e[0].split(".")[-1] for e in log if "__get__" not in e[0]][:4] == ["mul", "add", "relu", "sum"]
    for _ in range(8):
        assert type(f(graphc.ones(3, 3), graphc.ones(3))) is graphc.Tensor
    w = graphc.ones(3).as_subclass(cls)
    g = graphc.compile(lambda x: x * w, mode=mode)
    assert all(type(g(graphc.ones(3))) is cls for _ in range(8))


def test_a_mode_sees_replayed_calls() -> None:
    f = graphc.compile(lambda x: graphc.relu(x * 2), mode="replay")
    for _ in range(12):
        f(graphc.ones(3))
    assert f._replay.replayed
    log: list[str] = []

    class Log(graphc.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            log.append(func.__name__)
            return func(*args, **(kwargs or {}))

    x, replayed = graphc.ones(3), f._replay.replayed
    for _ in range(3):
        log.clear()
        with Log():
            f(x)
        assert log[-2:] == ["mul", "relu"]
    for _ in range(4):
        f(x)
    assert f._replay.replayed > replayed


def test_export_asks_while_it_records() -> None:
    cls, log = logged(graphc)
    net = graphc.nn.Linear(2, 2)
    net.weight = graphc.nn.Parameter(graphc.ones(2, 2).as_subclass(cls))
    log.clear()
    program = graphc.export.export(net, (graphc.ones(3, 2),))
    assert ("torch.nn.linear", ["Logged"]) in log
    assert np.allclose(program.module()(graphc.ones(3, 2)).tolist(), net(graphc.ones(3, 2)).tolist())


def test_deepcopy_keeps_type_and_attributes() -> None:
    cls = metadata(graphc)
    m = cls([1.0, 2.0], meta=[1])
    m.requires_grad_()
    c = copy.deepcopy({"m": m, "again": m})
    assert type(c["m"]) is cls and c["m"] is c["again"] and c["m"].meta == [1] and c["m"].meta is not m.meta
    assert c["m"].requires_grad and c["m"].is_leaf and c["m"].tolist() == [1.0, 2.0]


def test_loading_classes() -> None:
    cls = metadata(graphc)
    f = io.BytesIO()
    with pytest.raises(TypeError, match="inside a function"):
        graphc.save({"m": type("Local", (graphc.Tensor,), {"__qualname__": "f.<locals>.Local"})([1.0])}, f)
    globals()["WithMeta"] = cls
    graphc.save(cls([1.0], meta=1), f)
    f.seek(0)
    plain_one = graphc.load(f, weights_only=True)
    assert type(plain_one) is graphc.Tensor and plain_one.tolist() == [1.0]
    del globals()["WithMeta"]
    f.seek(0)
    with pytest.raises(graphc.errors.CheckpointError, match="import its module first"):
        graphc.load(f)
    f = io.BytesIO()
    graphc.save(cls([1.0], meta=1), f, format="torch")
    f.seek(0)
    assert type(graphc.load(f)) is graphc.Tensor


def test_threads_have_their_own_state() -> None:
    import threading

    cls, _ = logged(graphc)
    s = graphc.ones(2).as_subclass(cls)
    kinds: list[Any] = []
    with graphc._C.DisableTorchFunctionSubclass():
        t = threading.Thread(target=lambda: kinds.append(type(s + 1)))
        t.start()
        t.join()
        kinds.append(type(s + 1))
    assert kinds == [cls, graphc.Tensor]


@pytest.mark.parametrize("fn", PROGRAMS, ids=lambda f: f.__name__)
def test_programs(fn: Any) -> None:
    theirs = plain(fn(reference))
    ours = plain(fn(graphc))
    assert ours == theirs
