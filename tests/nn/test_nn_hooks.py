"""Hooks of modules, each checked against what PyTorch's do."""
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import graphc  # noqa: E402
import graphc.nn as nn  # noqa: E402
from graphc.nn.modules import module as module_file  # noqa: E402

BOTH = pytest.mark.parametrize("n, t", [(nn, graphc), (torch.nn, torch)], ids=["graphc", "torch"])


def layer(n, t):
    m = n.Linear(2, 2, bias=False)
    with t.no_grad():
        m.weight.copy_(t.tensor([[1.0, 2.0], [3.0, 4.0]]))
    return m


@BOTH
def test_forward_hooks(n, t):
    m, calls = layer(n, t), []
    m.register_forward_pre_hook(lambda mod, args: calls.append("pre") or (args[0] * 2,))
    m.register_forward_hook(lambda mod, args, out: calls.append("post") or out + args[0])
    first = m.register_forward_hook(lambda mod, args, out: calls.append("first"), prepend=True)
    assert m(t.ones(1, 2)).tolist() == [[8.0, 16.0]]
    assert calls == ["pre", "first", "post"]
    first.remove()
    first.remove()
    calls.clear()
    m(t.ones(1, 2))
    assert calls == ["pre", "post"]


@BOTH
def test_single_value_from_pre_hook_becomes_the_argument(n, t):
    m = layer(n, t)
    with m.register_forward_pre_hook(lambda mod, args: args[0] * 0):
        assert m(t.ones(1, 2)).tolist() == [[0.0, 0.0]]
    assert m(t.ones(1, 2)).tolist() == [[3.0, 7.0]]


@BOTH
def test_hooks_with_kwargs(n, t):
    class M(n.Module):
        def forward(self, x, scale=1):
            return x * scale

    m, seen = M(), []
    m.register_forward_pre_hook(lambda mod, a, k: (a, {"scale": k["scale"] + 1}), with_kwargs=True)
    m.register_forward_hook(lambda mod, a, k, out: seen.append(k), with_kwargs=True)
    assert m(3, scale=2) == 9 and seen == [{"scale": 3}]
    m.register_forward_pre_hook(lambda mod, a, k: a, with_kwargs=True)
    with pytest.raises(RuntimeError, match="forward pre-hook must return None or a tuple of"):
        m(3, scale=2)


@BOTH
def test_always_called_hooks_run_after_an_error(n, t):
    class M(n.Module):
        def forward(self, x):
            raise KeyError("inside")

    m, seen = M(), []
    m.register_forward_hook(lambda mod, a, out: seen.append(out), always_call=True)
    m.register_forward_hook(lambda mod, a, out: seen.append("not me"))
    with pytest.raises(KeyError):
        m(1)
    assert seen == [None]


@BOTH
def test_full_backward_hooks(n, t):
    m, seen = layer(n, t), []
    m.register_full_backward_pre_hook(lambda mod, go: seen.append(("pre", go[0].tolist())) or (go[0] * 2,))
    m.register_full_backward_hook(
        lambda mod, gi, go: seen.append(("post", gi[0].tolist(), go[0].tolist())) or (gi[0] + 1,))
    x = t.ones(1, 2)
    x.requires_grad_()
    m(x).sum().backward()
    assert seen == [("pre", [[1.0, 1.0]]), ("post", [[8.0, 12.0]], [[2.0, 2.0]])]
    assert x.grad.tolist() == [[9.0, 13.0]] and m.weight.grad.tolist() == [[2.0, 2.0], [2.0, 2.0]]


@BOTH
def test_full_backward_hook_without_input_gradient(n, t):
    m, seen = layer(n, t), []
    m.register_full_backward_hook(lambda mod, gi, go: seen.append((gi, go[0].tolist())))
    m(t.ones(1, 2)).sum().backward()
    assert seen == [((None,), [[1.0, 1.0]])]


@BOTH
def test_full_backward_hook_sees_every_input_and_output(n, t):
    class M(n.Module):
        def forward(self, x, k, y):
            return x * k, y * 3, "text"

    m, seen = M(), []
    m.register_full_backward_hook(
        lambda mod, gi, go: seen.append([None if g is None else g.tolist() for g in (*gi, *go)]))
    x, y = t.ones(1), t.ones(1)
    x.requires_grad_()
    y.requires_grad_()
    a, b, _ = m(x, 2, y)
    (a + b * 5).sum().backward()
    assert seen == [[[2.0], None, [15.0], [1.0], [5.0], None]]


@BOTH
def test_wrong_number_of_gradients(n, t):
    m = layer(n, t)
    m.register_full_backward_hook(lambda mod, gi, go: (gi[0], gi[0]))
    x = t.ones(1, 2)
    x.requires_grad_()
    with pytest.raises(RuntimeError, match="returned an invalid number of grad_input"):
        m(x).sum().backward()


@pytest.mark.parametrize("where, functions", [(nn, module_file), (torch.nn, torch.nn.modules.module)],
                         ids=["graphc", "torch"])
def test_global_hooks(where, functions):
    seen = []
    handles = [
        functions.register_module_forward_pre_hook(lambda m, a: seen.append("pre " + type(m).__name__)),
        functions.register_module_forward_hook(lambda m, a, o: seen.append("post " + type(m).__name__)),
    ]
    m = where.Sequential(where.Identity())
    m(1)
    for h in handles:
        h.remove()
    m(1)
    assert seen == ["pre Sequential", "pre Identity", "post Identity", "post Sequential"]


@pytest.mark.parametrize("where, functions, lib", [(nn, module_file, graphc),
                                                   (torch.nn, torch.nn.modules.module, torch)], ids=["graphc", "torch"])
def test_registration_hooks(where, functions, lib):
    seen = []
    handles = [
        functions.register_module_parameter_registration_hook(lambda m, k, p: seen.append(("param", k))),
        functions.register_module_buffer_registration_hook(lambda m, k, b: seen.append(("buffer", k))),
        functions.register_module_module_registration_hook(lambda m, k, c: seen.append(("module", k))),
    ]
    m = where.Module()
    m.a = where.Parameter(lib.ones(1))
    m.register_buffer("b", None)
    m.c = where.Identity()
    for h in handles:
        h.remove()
    m.d = where.Identity()
    assert seen == [("param", "a"), ("buffer", "b"), ("module", "c")]


@BOTH
def test_state_dict_hooks(n, t):
    m, seen = n.Sequential(layer(n, t)), []
    m[0].register_state_dict_pre_hook(lambda mod, prefix, keep: seen.append(("pre", prefix, keep)))
    m[0].register_state_dict_post_hook(lambda mod, sd, prefix, meta: sd.update({prefix + "extra": 1}))
    m._register_state_dict_hook(lambda mod, sd, prefix, meta: {"wrapped": list(sd)})
    assert m.state_dict() == {"wrapped": ["0.weight", "0.extra"]}
    assert seen == [("pre", "0.", False)]


@BOTH
def test_load_state_dict_hooks(n, t):
    m, seen = n.Sequential(layer(n, t)), []

    def rename(mod, sd, prefix, meta, strict, missing, unexpected, errors):
        seen.append((type(mod).__name__, prefix))
        if prefix + "old" in sd:
            sd[prefix + "weight"] = sd.pop(prefix + "old")

    m[0].register_load_state_dict_pre_hook(rename)
    m.register_load_state_dict_post_hook(lambda mod, keys: keys.missing_keys.append("made up"))
    with pytest.raises(RuntimeError, match='Missing key.s. in state_dict: "made up"'):
        m.load_state_dict({"0.old": t.zeros(2, 2)})
    assert seen == [("Linear", "0.")] and float(m[0].weight.abs().sum()) == 0
    m[0].register_load_state_dict_post_hook(lambda mod, keys: 1)
    with pytest.raises(AssertionError, match="not expected to return new values"):
        m.load_state_dict({"0.old": t.zeros(2, 2)}, strict=False)


def test_hooks_survive_copies_apart():
    import copy

    m, seen = layer(nn, graphc), []
    handle = m.register_forward_hook(lambda mod, a, o: seen.append(1))
    twin = copy.deepcopy(m)
    handle.remove()
    m(graphc.ones(1, 2))
    assert seen == []
    twin(graphc.ones(1, 2))
    assert seen == [1]
