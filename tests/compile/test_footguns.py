"""Every known silent failure of TinyJit, mx.compile, jax.jit and torch.compile, shown right under @graphc.compile.

Each program below returns one thing when run eagerly and, with at least one of those compilers, silently another thing
when compiled: a value frozen at the first call, a write lost, a buffer overwritten, a random number repeated.
"""
from __future__ import annotations

import pytest
from footguns import check, footgun, programs_of

pytestmark = pytest.mark.filterwarnings("ignore::graphc.compile.PerformanceNote", "ignore::graphc.compile.RecompileWarning")


# ------------------------------------------------------------------------------------------------ what Python can change
@footgun
def closed_over_float(torch, compile):
    k = 2.0

    @compile
    def f(x):
        return x * k

    out = []
    for k in (2.0, 5.0, -1.0, 5.0):
        out.append(f(torch.ones(3)).tolist())
    return out


@footgun
def closed_over_tensor_replaced(torch, compile):
    w = torch.ones(2)

    @compile
    def f(x):
        return x + w

    out = [f(torch.zeros(2)).tolist()]
    w = torch.full((2,), 5.0)
    out.append(f(torch.zeros(2)).tolist())
    w += 1
    return [*out, f(torch.zeros(2)).tolist()]


SCALE, TABLE = [1.0], {"w": None}


@footgun
def globals_and_containers_change(torch, compile):
    @compile
    def f(x):
        return x * SCALE[0] + TABLE["w"]

    out = []
    for k in range(4):
        SCALE[0], TABLE["w"] = float(k), torch.full((2,), float(k * 10))
        out.append(f(torch.ones(2)).tolist())
        TABLE["w"].add_(1)
        out.append(f(torch.ones(2)).tolist())
    return out


def helper(x):
    return x + 1


@footgun
def global_function_replaced(torch, compile):
    global helper

    @compile
    def f(x):
        return helper(x)

    before, out = helper, []
    try:
        for k in (1.0, 2.0, 3.0):
            out.append(f(torch.zeros(1)).tolist())
            helper = lambda x, k=k: x * 0 + 10 * k
    finally:
        helper = before
    return out


@footgun
def attributes_of_objects_change(torch, compile):
    class Config:
        power, offset = 2, 0.5

    class Model:
        def __init__(self, k):
            self.k = k

        @compile
        def forward(self, x):
            return x**Config.power * self.k + Config.offset

    a, b = Model(1.0), Model(10.0)
    out = [a.forward(torch.full((1,), 3.0)).tolist(), b.forward(torch.full((1,), 3.0)).tolist()]
    Config.power, Config.offset, b.k = 3, 0.0, 100.0
    return [*out, a.forward(torch.full((1,), 3.0)).tolist(), b.forward(torch.full((1,), 3.0)).tolist()]


@footgun
def default_arguments_and_keywords(torch, compile):
    @compile
    def f(x, k=2.0, *rest, flip=False, **named):
        y = x * k + sum(rest) + sum(named.values())
        return -y if flip else y

    x = torch.ones(2)
    return [f(x).tolist(), f(x, 3.0).tolist(), f(x, 3.0, 1, 2).tolist(), f(x, flip=True).tolist(),
            f(x, a=1, b=2).tolist(), f(x, b=5, a=1).tolist(), f(k=7.0, x=x).tolist(), f(x, True).tolist()]


@footgun
def python_scalar_kinds(torch, compile):
    @compile
    def f(x, k):
        return x + k

    out = []
    for k in (1, 1.0, True, 2, 2.5, -0.0, 10**6, float("inf")):
        for x in (torch.ones(2), torch.ones(2, dtype=torch.int64)):
            y = f(x, k)
            out.append([str(y.dtype), y.tolist()])
    return out


@footgun
def python_side_effects_happen_every_call(torch, compile):
    log, count = [], 0

    @compile
    def f(x):
        nonlocal count
        count += 1
        log.append(tuple(x.shape))
        return x * count

    out = [f(torch.ones(2)).tolist() for _ in range(4)]
    return [out, count, log]


@footgun
def printing_prints_every_call(torch, compile):
    import contextlib
    import io

    @compile
    def f(x):
        print("value", (x * 2).sum().item())
        return x

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        for k in range(3):
            f(torch.full((2,), float(k)))
    return text.getvalue()


@footgun
def iterators_advance(torch, compile):
    source = iter(range(1, 100))

    @compile
    def f(x):
        return x * next(source)

    return [f(torch.ones(1)).tolist() for _ in range(5)]


@footgun
def time_and_python_random(torch, compile):
    import random

    rnd = random.Random(3)

    @compile
    def f(x):
        return x + rnd.random()

    return [f(torch.zeros(1, dtype=torch.float64)).tolist() for _ in range(5)]


@footgun
def list_and_dict_containers_mutated(torch, compile):
    kept, table = [], {}

    @compile
    def f(x):
        kept.append(x * 2)
        table[len(kept)] = x + 1
        if len(kept) > 2:
            kept.pop(0)
        return sum(k.sum() for k in kept)

    out = [f(torch.full((2,), float(k))).item() for k in range(5)]
    return [out, [k.tolist() for k in kept], {k: v.tolist() for k, v in table.items()}]


@footgun
def list_arguments_of_changing_length(torch, compile):
    @compile
    def f(xs):
        total = torch.zeros(2)
        for i, x in enumerate(xs):
            total = total + x * i
        xs.append(total)
        return total

    xs = [torch.ones(2)]
    return [[f(xs).tolist(), len(xs)] for _ in range(6)]


# --------------------------------------------------------------------------------------------------------- control flow
@footgun
def data_dependent_branches(torch, compile):
    @compile
    def f(x):
        if x.sum() > 0:
            return x + 10
        return -x if x[0] > -5 else x * 0

    return [f(torch.tensor([v, v])).tolist() for v in (1.0, -1.0, 2.0, -9.0, -2.0, 3.0)]


@footgun
def data_dependent_loop(torch, compile):
    @compile
    def halve(x):
        n = 0
        while x.max() > 1:
            x = x / 2
            n += 1
        return x, n

    return [[halve(torch.tensor([k, 1.0]))[0].tolist(), halve(torch.tensor([k, 1.0]))[1]] for k in (3.0, 100.0, 0.5, 7.0)]


@footgun
def item_in_the_middle(torch, compile):
    @compile
    def f(x):
        y = x * 2
        m = y.max().item()
        z = y / m
        return z * int(z.sum()), m

    return [[v.tolist() if hasattr(v, "tolist") else v for v in f(torch.tensor([1.0, k]))] for k in (2.0, 4.0, 8.0)]


@footgun
def numpy_in_the_middle(torch, compile):
    import numpy as np

    @compile
    def f(x):
        a = (x + 1).numpy()
        a *= 2
        y = torch.from_numpy(np.sort(a)[::-1].copy())
        return y + x

    return [f(torch.tensor([3.0, k, 2.0])).tolist() for k in (1.0, 9.0)]


@footgun
def array_shared_with_numpy(torch, compile):
    import numpy as np

    a = np.zeros(3, np.float32)
    t = torch.from_numpy(a)

    @compile
    def f(x):
        t.add_(x)
        return t * 1

    out = [f(torch.ones(3)).tolist(), a.tolist()]
    a[1] = 50
    return [*out, f(torch.ones(3)).tolist(), a.tolist()]


@footgun
def views_of_memory_shared_with_numpy(torch, compile):
    x = torch.zeros(2, 3)
    a, y, z = x.numpy(), x.T, x[1]
    f = compile(lambda: (y * 1, z + 0))
    out = []
    for k in range(3):
        a[1, k] = k + 5
        out += [[t.tolist() for t in f()], y.tolist(), z.tolist()]
        z.add_(1)
        out.append(a.tolist())
    return out


@footgun
def exception_in_the_middle(torch, compile):
    state, log = torch.zeros(2), []

    @compile
    def f(x, fail):
        state.add_(x)
        log.append("before")
        if fail:
            raise ValueError("stop")
        state.mul_(10)
        log.append("after")
        return state * 1

    out = []
    for fail in (False, True, False, True, True, False):
        try:
            out.append(f(torch.ones(2), fail).tolist())
        except ValueError as error:
            out.append(str(error))
        out.append(state.tolist())
    return [out, log]


@footgun
def exception_caught_inside(torch, compile):
    @compile
    def f(x, w):
        try:
            return x @ w
        except RuntimeError:
            return x * 2

    return [f(torch.ones(2, 3), torch.ones(3, 1)).tolist(), f(torch.ones(2, 3), torch.ones(4, 1)).tolist(),
            f(torch.ones(2, 3), torch.ones(3, 1)).tolist()]


@footgun
def generator_functions(torch, compile):
    @compile
    def f(x):
        for k in range(3):
            x = x + k
            yield x

    out = [[y.tolist() for y in f(torch.zeros(2))]]
    a, b = f(torch.zeros(1)), f(torch.ones(1))
    for _ in range(3):
        out.append([next(a).tolist(), next(b).tolist()])
    return out


@footgun
def generators_consumed_inside(torch, compile):
    def stream():
        x = torch.zeros(2)
        while True:
            x = x + 1
            yield x

    source = stream()

    @compile
    def f(x):
        return x * next(source) + next(source)

    return [f(torch.ones(2)).tolist() for _ in range(4)]


@footgun
def recursion(torch, compile):
    @compile
    def f(x, n):
        return x if n == 0 else f(x * 2, n - 1) + 1

    return [f(torch.ones(1), n).tolist() for n in (0, 3, 1, 6, 3)]


@footgun
def nested_compile(torch, compile):
    state = torch.zeros(2)

    @compile
    def inner(x):
        state.add_(1)
        return x * state

    @compile(fullgraph=True)
    def outer(x):
        return inner(x) + inner(x + 1)

    return [outer(torch.ones(2)).tolist() for _ in range(3)] + [inner(torch.ones(2)).tolist(), state.tolist()]


@footgun
def threads_share_a_function(torch, compile):
    import threading

    weight = torch.full((64,), 3.0)

    @compile
    def f(x, k):
        y = (x * weight).sin() * k
        if k > 1:
            y = y + y.sum()
        return y

    out = {}

    def work(i):
        out[i] = [f(torch.arange(64.0) + i, k).sum().item() for k in (1.0, 2.0, 1.0, 3.0)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    return [out[i] for i in range(4)]


# ---------------------------------------------------------------------------------------------- shapes, dtypes, switches
@footgun
def shapes_change(torch, compile):
    @compile
    def f(x):
        return (x * x.shape[0]).sum(-1) / x.numel() + len(x)

    return [f(torch.ones(*shape)).tolist() for shape in ((2, 3), (3, 2), (1, 3), (2, 3), (4, 1, 2), (1, 1), (2, 0))]


@footgun
def dtypes_change(torch, compile):
    @compile
    def f(x):
        y = x * 2 + 1
        return y / 4 if y.dtype.is_floating_point else y // 4

    out = []
    for dt in (torch.float32, torch.int64, torch.float64, torch.int32, torch.uint8, torch.float16, torch.float32):
        y = f(torch.arange(5).to(dt))
        out.append([str(y.dtype), y.tolist()])
    return out


@footgun
def default_dtype_changes(torch, compile):
    @compile
    def f():
        return torch.zeros(2) + 0.1

    out = [str(f().dtype)]
    torch.set_default_dtype(torch.float64)
    try:
        out += [str(f().dtype), f().tolist()]
    finally:
        torch.set_default_dtype(torch.float32)
    return [*out, str(f().dtype)]


@footgun
def shapeless_reductions(torch, compile):
    @compile
    def mean(x):
        n = 1
        for d in x.shape:
            n *= d
        return x.sum() / n

    return [mean(torch.arange(float(n)).reshape(-1, 2)).item() for n in (2, 4, 8, 4, 10)]


@footgun
def strides_change(torch, compile):
    @compile
    def f(x):
        return (x.reshape(-1) * torch.arange(float(x.numel()))).sum(), x.is_contiguous(), list(x.stride())

    x = torch.arange(12.0).reshape(3, 4)
    cases = (x, x.T, x[:, ::2], x[1:], x.T.contiguous(), x.expand(2, 3, 4), x)
    return [[v.item() if hasattr(v, "item") else v for v in f(c)] for c in cases]


@footgun
def growing_data(torch, compile):
    cache = torch.zeros(0, 2)

    @compile
    def step(x):
        nonlocal cache
        cache = torch.cat([cache, x])
        return cache.mean(0)

    return [step(torch.full((1, 2), float(k))).tolist() for k in range(12)] + [list(cache.shape)]


@footgun
def train_and_eval(torch, compile):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Dropout(1.0))
    run = compile(lambda x: net(x))
    x = torch.arange(12.0).reshape(4, 3)
    out = []
    for mode in (True, False, True, True, False):
        net.train(mode)
        out += [run(x).tolist(), net[0].running_mean.tolist(), net[0].num_batches_tracked.item()]
    return out


@footgun
def grad_mode_switches(torch, compile):
    w = torch.ones(2, requires_grad=True)

    @compile
    def f(x, inner):
        y = x * w
        with torch.set_grad_enabled(inner):
            z = y * w
        return y.requires_grad, z.requires_grad, torch.is_grad_enabled(), z.sum().item()

    out = []
    for outer in (True, False):
        for inner in (True, False):
            with torch.set_grad_enabled(outer):
                out.append(list(f(torch.ones(2), inner)))
    with torch.no_grad():
        g = compile(lambda x: x * w)(torch.ones(2))
    y = compile(torch.no_grad()(lambda x: x * w))(torch.ones(2))
    return [*out, g.requires_grad, y.requires_grad, torch.is_grad_enabled()]


@pytest.mark.parametrize("name", programs_of(__name__))
def test_compiled_is_eager(name: str) -> None:
    check(name)
