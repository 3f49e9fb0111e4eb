"""Sequential, ModuleList, ModuleDict, ParameterList, ParameterDict: the same script on both libraries."""
from __future__ import annotations

from collections import OrderedDict

import pytest

torch = pytest.importorskip("torch")

import graphc  # noqa: E402
import graphc.nn as nn  # noqa: E402


def sequential(n, t):
    m = n.Sequential(n.Linear(2, 3), n.ReLU())
    m.append(n.Tanh()).extend([n.Sigmoid(), n.Identity()])
    m.insert(1, n.Dropout())
    m.insert(-1, n.GELU())
    log = [repr(m), len(m), [type(x).__name__ for x in m], repr(m[1:3]), repr(m[-1]), "0" in dir(m)]
    m[0] = n.Linear(4, 4)
    del m[1]
    del m[0:2]
    log += [repr(m), list(m._modules), type(m.pop(0)).__name__, repr(m)]
    named = n.Sequential(OrderedDict([("a", n.ReLU()), ("b", n.Tanh())]))
    log += [repr(named), repr(named[1]), type(named.a).__name__, repr(named[:1])]
    log += [repr(m + n.Sequential(n.ELU())), repr(n.Sequential(n.ReLU()) * 3), repr(2 * n.Sequential(n.ReLU()))]
    m += n.Sequential(n.ELU())
    m *= 2
    return [*log, repr(m)]


def module_list(n, t):
    m = n.ModuleList([n.Linear(1, 1) for _ in range(3)])
    m.append(n.ReLU()).extend([n.ReLU(), n.Tanh()])
    m.insert(1, n.GELU())
    log = [repr(m), len(m), repr(m[1:]), repr(m[-1]), repr(n.ModuleList()), [k for k, _ in m.named_parameters()]]
    m[0] = n.ELU()
    del m[2]
    del m[-2:]
    m += [n.SELU()]
    return [*log, repr(m), repr(m.pop(1)), repr(m + [n.ReLU()]), n.ReLU() in list(m)]


def module_dict(n, t):
    m = n.ModuleDict({"a": n.ReLU(), "b": n.Tanh()})
    m["c"] = n.Linear(1, 1)
    m.update([("d", n.ELU()), ("a", n.GELU())])
    m.update(n.ModuleDict({"e": n.SELU()}))
    log = [repr(m), len(m), list(m), list(m.keys()), [type(v).__name__ for v in m.values()], "b" in m, "z" in m]
    log += [[k for k, _ in m.items()], repr(m.pop("b")), repr(m["c"])]
    del m["d"]
    log.append(repr(m))
    m.clear()
    return [*log, len(m), repr(m)]


def parameter_list(n, t):
    m = n.ParameterList([n.Parameter(t.ones(2)), t.zeros(2, 3)])
    m.append(t.ones(1)).extend([n.Parameter(t.ones(3))])
    m += ["text"]
    m[0] = t.zeros(4)
    log = [repr(m), len(m), [k for k, _ in m.named_parameters()], m[-2].shape[0], len(m[1:3]), list(m[1].shape)]
    return [*log, all(isinstance(p, n.Parameter) for p in m[:4]), m[4], list(m.state_dict())]


def parameter_dict(n, t):
    m = n.ParameterDict({"b": t.ones(2), "a": n.Parameter(t.zeros(1, 2))})
    m["z"] = t.ones(3)
    m.update([("k", t.ones(1))])
    log = [repr(m), len(m), list(m), list(reversed(m)), "a" in m, [k for k, _ in m.named_parameters()]]
    log += [list(m.copy()), list(m.get("z").shape), m.get("none"), m.setdefault("z").shape[0], list(m.pop("k").shape)]
    log += [list(m | {"new": t.ones(1)}), m.popitem()[0], list(m.fromkeys(["q"], 3).items())]
    del m["a"]
    log.append(list(m.keys()))
    m.clear()
    return [*log, len(m)]


@pytest.mark.parametrize("script", [sequential, module_list, module_dict, parameter_list, parameter_dict])
def test_script(script):
    assert script(nn, graphc) == script(torch.nn, torch)


ERRORS = {
    "sequential index": lambda n, t: n.Sequential(n.ReLU())[3],
    "sequential insert": lambda n, t: n.Sequential(n.ReLU()).insert(5, n.ReLU()),
    "sequential add": lambda n, t: n.Sequential() + [1],
    "sequential times": lambda n, t: n.Sequential() * 0,
    "list index": lambda n, t: n.ModuleList()[0],
    "list extend": lambda n, t: n.ModuleList().extend(3),
    "list append": lambda n, t: n.ModuleList().append(3),
    "list call": lambda n, t: n.ModuleList()(3),
    "dict update": lambda n, t: n.ModuleDict().update(3),
    "dict pair": lambda n, t: n.ModuleDict().update([(1, 2, 3)]),
    "dict element": lambda n, t: n.ModuleDict().update([3]),
    "dict key": lambda n, t: n.ModuleDict()["a"],
    "parameter list index": lambda n, t: n.ParameterList()[0],
    "parameter list extend": lambda n, t: n.ParameterList().extend(t.ones(1)),
    "parameter list call": lambda n, t: n.ParameterList()(1),
    "parameter dict call": lambda n, t: n.ParameterDict()(1),
}


@pytest.mark.parametrize("what", ERRORS)
def test_errors(what):
    with pytest.raises(Exception) as expected:
        ERRORS[what](torch.nn, torch)
    with pytest.raises(type(expected.value)) as got:
        ERRORS[what](nn, graphc)
    same = str(got.value).replace("graphc.nn.container", "torch.nn.modules.container")
    assert same == str(expected.value)


def test_sequential_runs_in_order():
    m = nn.Sequential(nn.Identity(), nn.Flatten(0))
    assert m(graphc.ones((2, 3))).tolist() == [1.0] * 6


def test_parameters_of_containers_train():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.scales = nn.ParameterList([nn.Parameter(graphc.ones(2)) for _ in range(2)])
            self.shifts = nn.ParameterDict({"a": nn.Parameter(graphc.zeros(2))})

        def forward(self, x):
            for s in self.scales:
                x = x * s
            return x + self.shifts["a"]

    net = Net()
    net(graphc.ones(2)).sum().backward()
    assert all(p.grad.tolist() == [1.0, 1.0] for p in net.parameters())
    assert list(net.state_dict()) == ["scales.0", "scales.1", "shifts.a"]
