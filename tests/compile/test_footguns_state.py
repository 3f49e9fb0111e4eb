"""Silent failures around mutated state: aliases, views, buffers, random numbers, copies of compiled things."""
from __future__ import annotations

import pytest
from footguns import check, footgun, own, programs_of, small_net

import graphc

pytestmark = pytest.mark.filterwarnings("ignore::graphc.compile.PerformanceNote", "ignore::graphc.compile.RecompileWarning")


# ------------------------------------------------------------------------------------------------------------- in-place
@footgun
def in_place_on_inputs(torch, compile):
    @compile
    def f(x):
        x.mul_(2)
        x[0] = -1
        x += 1
        return x.sum()

    x = torch.ones(3)
    return [[f(x).item(), x.tolist()] for _ in range(4)]


@footgun
def aliased_arguments(torch, compile):
    @compile
    def f(a, b):
        a.add_(1)
        y = b * 2
        b.mul_(3)
        return y + a

    x, z = torch.ones(2), torch.full((2,), 10.0)
    out = []
    for a, b in ((x, z), (x, x), (z, x), (x, x[:]), (x.view(2), x), (z, z.flip(0))):
        out += [f(a, b).tolist(), x.tolist(), z.tolist()]
    return out


@footgun
def overlapping_views_as_arguments(torch, compile):
    @compile
    def f(a, b):
        a.add_(b)
        return b.sum()

    base = torch.arange(6.0)
    out = []
    for i, j in ((0, 1), (0, 3), (2, 1), (1, 1)):
        out += [f(base[i:i + 3], base[j:j + 3].clone()).item(), base.tolist()]
    out.append(f(base[:3], base[3:]).item())
    return [*out, base.tolist()]


@footgun
def views_of_inputs_returned(torch, compile):
    @compile
    def f(x):
        return x[1:], x.view(-1), x.T

    x = torch.arange(4.0).reshape(2, 2)
    a, b, c = f(x)
    a.add_(100)
    b[0] = -5
    d, _, _ = f(x)
    c.mul_(2)
    return [x.tolist(), a.tolist(), b.tolist(), c.tolist(), d.tolist()]


@footgun
def input_returned_as_it_is(torch, compile):
    @compile
    def f(x):
        return x, x * 1

    x = torch.ones(2)
    same_, copy = f(x)
    same_.add_(1)
    return [x.tolist(), same_ is x, copy.tolist()]


@footgun
def arguments_aliasing_parameters(torch, compile):
    net = small_net(torch)
    w = net[0].weight

    @compile
    def f(data):
        before = net(torch.ones(1, 3))
        data.mul_(0.5)
        return before, net(torch.ones(1, 3))

    out = []
    for _ in range(3):
        a, b = f(w.data)
        out += [a.tolist(), b.tolist(), w.tolist()]
    a, b = f(w.data[1:3])
    return [*out, a.tolist(), b.tolist(), w.tolist()]


@footgun
def slice_assignment_order(torch, compile):
    @compile
    def f(cache, row, k):
        cache[k] = row
        seen = cache.sum(0)
        cache[k] += row
        return seen, cache * 1

    cache = torch.zeros(3, 2)
    out = []
    for k in (0, 2, 1, 0):
        a, b = f(cache, torch.full((2,), float(k + 1)), k)
        out += [a.tolist(), b.tolist(), cache.tolist()]
    return out


@footgun
def shifted_write_reads_old_values(torch, compile):
    @compile
    def f(x):
        x[1:] = x[:-1] + 1
        x[:-1] += x[1:] * 1
        x.copy_(x.flip(0))
        x[::2], x[1::2] = x[1::2] * 1, x[::2] * 1
        return x.T @ x

    x = torch.arange(16.0).reshape(4, 4)
    return [[f(x / 8 if k == 1 else x).tolist(), x.tolist()] for k in range(3)]


@footgun
def outputs_kept_across_calls(torch, compile):
    total = torch.zeros(3)

    @compile
    def f(x):
        total.add_(x)
        return x * 2, total, total + 0

    kept = [f(torch.full((3,), float(k))) for k in range(5)]
    kept[1][0].add_(1000)
    return [[t.tolist() for t in out] for out in kept]


@footgun
def output_fed_back_as_input(torch, compile):
    @compile
    def f(x, y):
        return y * 2, x + y

    a, b = torch.ones(2), torch.zeros(2)
    for _ in range(6):
        a, b = f(a, b)
    return [a.tolist(), b.tolist()]


@footgun
def out_argument(torch, compile):
    buf = torch.zeros(3)

    @compile
    def f(x):
        torch.add(x, 1, out=buf)
        return torch.mul(buf, 2)

    return [[f(torch.full((3,), float(k))).tolist(), buf.tolist()] for k in range(3)]


@footgun
def data_swapped(torch, compile):
    net = small_net(torch)
    f = compile(lambda x: net(x))
    out = [f(torch.ones(1, 3)).tolist()]
    net[0].weight.data = torch.zeros(4, 3)
    out.append(f(torch.ones(1, 3)).tolist())
    net[0].bias = torch.nn.Parameter(torch.ones(4))
    out.append(f(torch.ones(1, 3)).tolist())
    net[2] = torch.nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        net[2].weight.fill_(0.25)
    out.append(f(torch.ones(1, 3)).tolist())
    net.load_state_dict({k: v * 2 for k, v in net.state_dict().items()})
    return [*out, f(torch.ones(1, 3)).tolist()]


# -------------------------------------------------------------------------------------------------------- random numbers
@own
def random_numbers_differ_per_call(torch, compile):
    f = compile(lambda: torch.rand(4))
    out = [f().tolist() for _ in range(5)]
    assert len({tuple(o) for o in out}) == 5
    torch.manual_seed(3)
    again = [f().tolist(), f().tolist()]
    torch.manual_seed(3)
    assert [f().tolist(), f().tolist()] == again
    return [out, again]


@own
def dropout_differs_per_call(torch, compile):
    drop = torch.nn.Dropout(0.5)
    f = compile(lambda x: drop(x))
    out = [f(torch.ones(64)).tolist() for _ in range(4)]
    assert len({tuple(o) for o in out}) == 4
    drop.p = 0.0
    out.append(f(torch.ones(4)).tolist())
    drop.p = 0.9
    return [*out, f(torch.ones(64)).tolist()]


@own
def generator_state_moves(torch, compile):
    gen = torch.Generator().manual_seed(5)
    f = compile(lambda: torch.randn(3, generator=gen) + torch.rand(3))
    out = [f().tolist(), f().tolist()]
    state = gen.get_state()
    a = f().tolist()
    gen.set_state(state)
    out += [a, torch.randint(100, (5,), generator=gen).tolist(), torch.rand(2).tolist(), torch.randperm(6).tolist()]
    return out


@own
def dropout_masks_agree_in_backward(torch, compile):
    x = torch.ones(50, requires_grad=True)

    @compile
    def f():
        y = torch.nn.functional.dropout(x, 0.4)
        y.sum().backward()
        return y

    out = []
    for _ in range(3):
        x.grad = None
        y = f()
        assert [g for g in x.grad.tolist()] == y.tolist()
        out.append(y.tolist())
    return out


# ------------------------------------------------------------------------------------------------------ copies and files
@footgun
def modules_compiled_in_place(torch, compile):
    net = small_net(torch)
    run = compile(net)
    out = [run(torch.ones(1, 3)).tolist()]
    with torch.no_grad():
        net[0].weight.zero_()
    out.append(run(torch.ones(1, 3)).tolist())
    net.train(False)
    run(torch.ones(1, 3)).sum().backward()
    return [*out, net[2].bias.grad.tolist(), sorted(k.removeprefix("_orig_mod.") for k in run.state_dict())]


@footgun
def copies_of_compiled_modules(torch, compile):
    import copy
    import pickle

    net = small_net(torch)
    net.compile() if compile is not None and torch is graphc else None
    net(torch.ones(1, 3))
    clone, loaded = copy.deepcopy(net), pickle.loads(pickle.dumps(net))
    with torch.no_grad():
        clone[0].weight.zero_()
        net[0].bias.fill_(1.0)
    return [m(torch.ones(1, 3)).tolist() for m in (net, clone, loaded)]


@footgun
def objects_holding_compiled_functions(torch, compile):
    import copy

    class Trainer:
        def __init__(self):
            self.w = torch.ones(2)
            self.run = compile(self.step)

        def step(self, x):
            self.w = self.w * 2
            return x * self.w

    a = Trainer()
    out = [a.run(torch.ones(2)).tolist()]
    b = copy.deepcopy(a)
    out += [b.run(torch.ones(2)).tolist(), b.run(torch.ones(2)).tolist(), a.run(torch.ones(2)).tolist()]
    return [*out, a.w.tolist(), b.w.tolist()]


def pickled_step(x):
    return x * 2


compiled_step = graphc.compile(pickled_step)
decorated = graphc.compile(lambda x: x)


@graphc.compile
def decorated_step(x):
    """Doubles."""
    return x * 2


def test_compiled_functions_pickle_by_name() -> None:
    import pickle

    assert pickle.loads(pickle.dumps(decorated_step)) is decorated_step
    again = pickle.loads(pickle.dumps(compiled_step))
    assert again(graphc.ones(2)).tolist() == [2, 2]
    assert decorated_step.__doc__ == "Doubles." and decorated_step.__name__ == "decorated_step"


def test_methods_are_compiled_once_and_explain_themselves() -> None:
    class Model:
        @graphc.compile
        def forward(self, x):
            return x * 2

    m = Model()
    assert m.forward(graphc.ones(2)).tolist() == [2, 2] and m.forward(graphc.ones(2)).tolist() == [2, 2]
    assert m.forward.explain().calls == 2


def test_a_compiled_module_is_compiled() -> None:
    net = small_net(graphc)
    assert graphc.compile(net) is net
    net(graphc.ones(1, 3)), net(graphc.ones(1, 3))
    assert net._compiled_call_impl.explain().calls == 2


def test_compiling_a_class_leaves_its_instances_alone() -> None:
    class Net(graphc.nn.Linear):
        pass

    make = graphc.compile(Net)
    net = make(2, 3)
    assert type(net) is Net and Net._compiled_call_impl is None and Net(2, 1)(graphc.ones(1, 2)).shape == (1, 1)


@pytest.mark.parametrize("name", programs_of(__name__))
def test_compiled_is_eager(name: str) -> None:
    check(name)
