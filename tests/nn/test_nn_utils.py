"""nn.utils: clipping, vectors, weight and spectral norm, parametrizations, functional_call; lazy layers; dropout."""
from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nn_compare import assert_close, compare, floats, load_from_torch, to_graphc, to_numpy  # noqa: E402

import graphc  # noqa: E402
import graphc.nn as nn  # noqa: E402
from graphc.nn import utils  # noqa: E402
from graphc.nn.utils import parametrizations, parametrize, stateless  # noqa: E402


def params(lib, n, scale=1.0):
    out = []
    for i, shape in enumerate([(3, 2), (4,), (2,)]):
        p = n.Parameter(lib.from_numpy(np.ones(shape, np.float32)))
        if i < 2:  # the last one has no gradient
            p.grad = lib.from_numpy((scale * np.arange(1, 1 + np.prod(shape), dtype=np.float32)).reshape(shape).copy())
        out.append(p)
    return out


@pytest.mark.parametrize("norm_type", [2.0, 1.0, float("inf"), 3])
@pytest.mark.parametrize("max_norm", [0.5, 1000.0])
def test_clip_grad_norm(norm_type, max_norm):
    ours, theirs = params(graphc, nn), params(torch, torch.nn)
    total = utils.clip_grad_norm_(iter(ours), max_norm, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(iter(theirs), max_norm, norm_type)
    assert_close(total, expected, "total norm")
    for p, q in zip(ours[:2], theirs[:2]):
        assert_close(p.grad, q.grad, "gradient")
    assert ours[2].grad is None
    assert_close(utils.get_total_norm([p.grad for p in ours[:2]], norm_type),
                 torch.nn.utils.get_total_norm([p.grad for p in theirs[:2]], norm_type), "norm afterwards")


def test_clip_grad_norm_keeps_gradient_objects_and_takes_one_tensor():
    p = params(graphc, nn)[0]
    grad = p.grad
    utils.clip_grad_norm_(p, 0.1)
    assert p.grad is grad and abs(float(grad.norm()) - 0.1) < 1e-4
    assert float(utils.clip_grad_norm_([], 1.0)) == 0.0
    with pytest.warns(UserWarning, match="empty generator"):
        utils.clip_grad_norm_((x for x in ()), 1.0)


def test_clip_grad_norm_reads_nothing_on_the_host(monkeypatch):
    grads = params(graphc, nn)

    def forbidden(self, *args):
        raise AssertionError("a value was read on the host")

    for name in ("item", "tolist", "numpy", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(graphc.Tensor, name, forbidden)
    total = utils.clip_grad_norm_(grads, 1.0)
    utils.clip_grad_value_(grads, 0.5)
    monkeypatch.undo()
    assert float(total) > 1


def test_non_finite_norm():
    p = params(graphc, nn, scale=float("inf"))
    with pytest.raises(RuntimeError, match="The total norm of order 2.0 for gradients from `parameters` is non-finite"):
        utils.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)


def test_clip_grad_value():
    ours, theirs = params(graphc, nn), params(torch, torch.nn)
    utils.clip_grad_value_(ours, 2.5)
    torch.nn.utils.clip_grad_value_(theirs, 2.5)
    for p, q in zip(ours[:2], theirs[:2]):
        assert_close(p.grad, q.grad, "gradient")


def test_vectors():
    layer = nn.Linear(2, 3)
    vector = utils.parameters_to_vector(layer.parameters())
    assert list(vector.shape) == [9]
    vector.sum().backward()
    assert layer.bias.grad.tolist() == [1, 1, 1]
    weight = layer.weight
    utils.vector_to_parameters(graphc.arange(9.0), layer.parameters())
    assert layer.weight is weight and weight.tolist() == [[0, 1], [2, 3], [4, 5]] and layer.bias.tolist() == [6, 7, 8]
    with pytest.raises(TypeError, match="expected torch.Tensor"):
        utils.vector_to_parameters([1], layer.parameters())


# ---- weight norm, spectral norm

LAYERS = {
    "Linear": (lambda n: n.Linear(4, 3), (2, 4)),
    "Conv2d": (lambda n: n.Conv2d(2, 3, 3), (2, 2, 5, 5)),
    "ConvTranspose1d": (lambda n: n.ConvTranspose1d(2, 3, 3), (2, 2, 5)),
}
FORMS = {
    "hook": (lambda lib: lib.nn.utils.weight_norm, lambda lib: lib.nn.utils.spectral_norm),
    "parametrization": (lambda lib: lib.nn.utils.parametrizations.weight_norm,
                        lambda lib: lib.nn.utils.parametrizations.spectral_norm),
}


def both(which, wrap):
    """The layer in both libraries, wrapped, with equal state."""
    make, shape = LAYERS[which]
    theirs, ours = wrap(torch, make(torch.nn)), wrap(graphc, make(nn))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    load_from_torch(ours, theirs)
    assert repr(ours) == repr(theirs)
    return ours, theirs, shape


@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("which", LAYERS)
@pytest.mark.filterwarnings("ignore")
def test_weight_norm(which, form, dim):
    ours, theirs, shape = both(which, lambda lib, m: FORMS[form][0](lib)(m, dim=dim))
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    compare(ours, theirs, (floats(*shape),))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("which", LAYERS)
def test_spectral_norm(which, form):
    ours, theirs, shape = both(which, lambda lib, m: FORMS[form][1](lib)(m))
    compare(ours, theirs, (floats(*shape),))
    ours.zero_grad()
    theirs.zero_grad()
    compare(ours, theirs, (floats(*shape),))
    ours.eval()
    theirs.eval()
    compare(ours, theirs, (floats(*shape, grad=False),))


@pytest.mark.parametrize("form", FORMS)
def test_spectral_norm_bounds_the_largest_singular_value(form):
    layer = FORMS[form][1](graphc)(nn.Linear(6, 5), n_power_iterations=50)
    layer(graphc.ones((1, 6)))
    assert abs(np.linalg.svd(to_numpy(layer.weight), compute_uv=False)[0] - 1) < 1e-3


@pytest.mark.filterwarnings("ignore")
def test_hook_forms_come_off():
    layer = nn.Linear(4, 3)
    before = layer.weight.tolist()
    utils.remove_weight_norm(utils.weight_norm(layer))
    np.testing.assert_allclose(layer.weight.tolist(), before, rtol=1e-6)
    assert isinstance(layer.weight, nn.Parameter) and not layer._forward_pre_hooks
    utils.spectral_norm(layer)
    layer(graphc.ones((1, 4)))
    value = layer.weight.tolist()
    layer.eval()
    layer(graphc.ones((1, 4)))
    utils.remove_spectral_norm(layer)
    assert isinstance(layer.weight, nn.Parameter) and list(layer.state_dict()) == ["bias", "weight"]
    assert len(value) == 3 and not layer._state_dict_hooks
    for remove in (utils.remove_weight_norm, utils.remove_spectral_norm):
        with pytest.raises(ValueError, match="not found in"):
            remove(layer)
    utils.weight_norm(layer)
    with pytest.raises(RuntimeError, match="Cannot register two weight_norm hooks"):
        utils.weight_norm(layer)


# ---- parametrize


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).transpose(-1, -2)

    def right_inverse(self, x):
        return x.triu()


class Double(nn.Module):
    def forward(self, x):
        return x * 2


def test_parametrization_computes_the_weight():
    layer = nn.Linear(3, 3)
    kept = layer.weight
    assert parametrize.register_parametrization(layer, "weight", Symmetric()) is layer
    assert type(layer).__name__ == "ParametrizedLinear" and isinstance(layer, nn.Linear)
    w = to_numpy(layer.weight)
    np.testing.assert_array_equal(w, w.T)
    assert list(layer.state_dict()) == ["bias", "parametrizations.weight.original"]
    assert layer.parametrizations.weight.original is kept and layer.parametrizations.weight[0].training
    layer(graphc.ones((2, 3))).sum().backward()
    assert kept.grad is not None
    with graphc.no_grad():
        layer.weight = graphc.tensor([[1.0, 2, 3], [2, 4, 5], [3, 5, 6]])
    assert layer.weight.tolist() == [[1, 2, 3], [2, 4, 5], [3, 5, 6]]
    assert layer.parametrizations.weight.original.tolist() == [[1, 2, 3], [0, 4, 5], [0, 0, 6]]


def test_parametrizations_compose_and_come_off():
    layer = nn.Linear(2, 2, bias=False)
    start = to_numpy(layer.weight).copy()
    parametrize.register_parametrization(layer, "weight", Double())
    parametrize.register_parametrization(layer, "weight", Double())
    np.testing.assert_allclose(to_numpy(layer.weight), 4 * start, rtol=1e-6)
    assert parametrize.is_parametrized(layer) and parametrize.is_parametrized(layer, "weight")
    assert not parametrize.is_parametrized(layer, "bias") and parametrize.type_before_parametrizations(layer) is nn.Linear
    with pytest.raises(RuntimeError, match="does not implement right_inverse"):
        layer.weight = graphc.ones((2, 2))
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear and isinstance(layer.weight, nn.Parameter)
    np.testing.assert_allclose(to_numpy(layer.weight), 4 * start, rtol=1e-6)
    parametrize.register_parametrization(layer, "weight", Double())
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    np.testing.assert_allclose(to_numpy(layer.weight), 4 * start, rtol=1e-6)
    with pytest.raises(ValueError, match="does not have a parametrization on weight"):
        parametrize.remove_parametrizations(layer, "weight")


def test_parametrization_on_a_buffer_and_two_originals():
    bn = nn.BatchNorm1d(2)
    parametrize.register_parametrization(bn, "running_var", Double())
    assert bn.running_var.tolist() == [2, 2] and "parametrizations.running_var.original" in bn.state_dict()
    layer = parametrizations.weight_norm(nn.Linear(3, 2))
    value = to_numpy(layer.weight)
    with pytest.raises(ValueError, match="Cannot leave unparametrized"):
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    parametrize.remove_parametrizations(layer, "weight")
    np.testing.assert_allclose(to_numpy(layer.weight), value, rtol=1e-6)
    assert isinstance(layer.weight, nn.Parameter)


def test_cached_parametrization_runs_once():
    class Counting(nn.Module):
        runs = 0

        def forward(self, x):
            Counting.runs += 1
            return x * 1

    layer = nn.Linear(2, 2)
    parametrize.register_parametrization(layer, "weight", Counting(), unsafe=True)
    Counting.runs = 0
    with parametrize.cached():
        layer(graphc.ones((1, 2)))
        layer(graphc.ones((1, 2)))
    assert Counting.runs == 1
    layer(graphc.ones((1, 2)))
    assert Counting.runs == 2


def test_parametrization_checks():
    class Narrow(nn.Module):
        def forward(self, x):
            return x[:1]

    class Cast(nn.Module):
        def forward(self, x):
            return x.double()

    for bad, what in ((Narrow(), "shape"), (Cast(), "dtype")):
        with pytest.raises(ValueError, match=f"may not change the {what} of the tensor"):
            parametrize.register_parametrization(nn.Linear(2, 2), "weight", bad)
    with pytest.raises(ValueError, match="does not have a parameter, a buffer, or a parametrized element"):
        parametrize.register_parametrization(nn.Linear(2, 2), "w", Double())
    twice = parametrize.register_parametrization(nn.Linear(2, 2), "weight", Double())
    with pytest.raises(ValueError, match="may not change the shape"):
        parametrize.register_parametrization(twice, "weight", Narrow())


def test_parametrized_copies_but_does_not_pickle():
    import pickle

    layer = parametrize.register_parametrization(nn.Linear(2, 2), "weight", Double())
    twin = copy.deepcopy(layer)
    assert twin.weight.tolist() == layer.weight.tolist()
    assert twin.parametrizations.weight.original is not layer.parametrizations.weight.original
    with pytest.raises(RuntimeError, match="only supported through state_dict"):
        pickle.dumps(layer)


def test_transfer():
    source = parametrize.register_parametrization(nn.Linear(2, 2), "weight", Double())
    target = parametrize.transfer_parametrizations_and_params(source, nn.Linear(2, 2))
    assert target.weight.tolist() == source.weight.tolist() and parametrize.is_parametrized(target, "weight")


# ---- functional_call


def test_functional_call():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    x = to_graphc(floats(4, 2))
    own = net[0].weight
    given = {"0.weight": graphc.zeros((2, 2)).requires_grad_(), "1.running_mean": graphc.ones(2)}
    out = stateless.functional_call(net, given, x)
    assert net[0].weight is own and net[1].running_mean.tolist() == [0, 0]
    np.testing.assert_allclose(to_numpy(out), np.zeros((4, 2)), atol=1e-2)
    assert given["1.running_mean"].tolist() != [1, 1]
    out.sum().backward()
    assert given["0.weight"].grad is not None and own.grad is None
    with pytest.raises(RuntimeError, match="Missing key"):
        stateless.functional_call(net, given, x, strict=True)
    with pytest.raises(RuntimeError, match="Unexpected key.s.: 'nope'"):
        stateless.functional_call(net, {"nope": x}, x, strict=True)


def test_functional_call_with_tied_weights():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    net[1].weight = net[0].weight
    x = graphc.ones((1, 2))
    eye = graphc.eye(2)
    assert stateless.functional_call(net, {"0.weight": eye * 2}, (x,)).tolist() == [[4, 4]]
    with pytest.raises(ValueError, match="multiple values for keys"):
        stateless.functional_call(net, {"0.weight": eye, "1.weight": eye * 3}, (x,))


def test_state_comes_back_after_an_error():
    net = nn.Linear(2, 2)
    own = net.weight
    with pytest.raises(RuntimeError):
        stateless.functional_call(net, {"weight": graphc.ones((2, 3))}, (graphc.ones((1, 2)),))
    assert net.weight is own


def test_skip_init():
    layer = utils.skip_init(nn.Linear, 3, 2, bias=False)
    assert list(layer.weight.shape) == [2, 3] and isinstance(layer.weight, nn.Parameter)


# ---- lazy layers

LAZY = {
    "LazyLinear": ((3,), {}, (2, 5)),
    "LazyConv1d": ((4, 3), {"stride": 2}, (2, 3, 8)),
    "LazyConv2d": ((4, 3, 1, 1), {}, (2, 3, 6, 6)),
    "LazyConv3d": ((2, 2), {"bias": False}, (1, 3, 3, 3, 3)),
    "LazyConvTranspose1d": ((4, 3), {}, (2, 3, 8)),
    "LazyConvTranspose2d": ((4, 3, 2), {}, (2, 3, 4, 4)),
    "LazyConvTranspose3d": ((2, 2), {}, (1, 3, 2, 2, 2)),
    "LazyBatchNorm1d": ((), {}, (4, 3)),
    "LazyBatchNorm2d": ((), {"affine": False}, (4, 3, 2, 2)),
    "LazyBatchNorm3d": ((), {"track_running_stats": False}, (2, 3, 2, 2, 2)),
    "LazyInstanceNorm1d": ((), {}, (2, 3, 4)),
    "LazyInstanceNorm2d": ((), {"affine": True}, (2, 3, 4, 4)),
    "LazyInstanceNorm3d": ((), {}, (1, 3, 2, 2, 2)),
}


@pytest.mark.parametrize("name", LAZY)
def test_lazy_layer(name):
    args, kwargs, shape = LAZY[name]
    ours, theirs = getattr(nn, name)(*args, **kwargs), getattr(torch.nn, name)(*args, **kwargs)
    assert repr(ours) == repr(theirs) and list(ours.state_dict()) == list(theirs.state_dict())
    assert ours.has_uninitialized_params() == theirs.has_uninitialized_params()
    copy.deepcopy(ours)
    x = floats(*shape)
    theirs(x)
    ours(to_graphc(x))
    assert type(ours).__name__ == type(theirs).__name__ == name.replace("Lazy", "")
    assert repr(ours) == repr(theirs) and not ours._forward_pre_hooks and not ours._load_state_dict_pre_hooks
    for attribute in ("in_features", "in_channels", "num_features"):
        assert getattr(ours, attribute, None) == getattr(theirs, attribute, None)
    load_from_torch(ours, theirs)
    compare(ours, theirs, (floats(*shape, seed=3),))


def test_lazy_layer_before_its_first_call():
    layer = nn.LazyLinear(3)
    assert isinstance(layer.weight, nn.UninitializedParameter) and isinstance(layer.weight, nn.Parameter)
    assert repr(layer.weight) == "<UninitializedParameter>"
    with pytest.raises(RuntimeError, match="Can't access the shape of an uninitialized parameter"):
        layer.weight.shape  # noqa: B018
    layer.double()
    layer(graphc.ones((2, 4), dtype=graphc.float64))
    assert layer.weight.dtype == graphc.float64 and list(layer.weight.shape) == [3, 4]
    assert type(layer.weight) is nn.Parameter and layer.weight.requires_grad


def test_lazy_layer_takes_shapes_from_a_state_dict():
    full, lazy = nn.Linear(4, 3), nn.LazyLinear(3)
    lazy.load_state_dict(full.state_dict())
    assert lazy.weight.tolist() == full.weight.tolist()
    out = lazy(graphc.ones((2, 4)))
    assert type(lazy) is nn.Linear and out.tolist() == full(graphc.ones((2, 4))).tolist()
    with pytest.raises(RuntimeError, match=r"Expected 3D .unbatched. or 4D .batched. input to LazyConv2d"):
        nn.LazyConv2d(2, 3)(graphc.ones((2, 2)))


# ---- dropout


@pytest.mark.parametrize("name, shape", [("Dropout", (50, 40)), ("Dropout1d", (50, 40, 3)), ("Dropout2d", (50, 40, 2, 2)),
                                         ("Dropout3d", (20, 20, 2, 2, 2))])
def test_dropout(name, shape):
    graphc.manual_seed(3)
    layer = getattr(nn, name)(0.3)
    assert repr(layer) == repr(getattr(torch.nn, name)(0.3))
    x = graphc.ones(shape).requires_grad_()
    out = layer(x)
    values = to_numpy(out)
    kept = values != 0
    np.testing.assert_allclose(values[kept], 1 / 0.7, rtol=1e-6)
    assert abs(kept.mean() - 0.7) < 0.05
    if name != "Dropout":  # whole channels
        flat = kept.reshape(shape[0] * shape[1], -1)
        assert (flat.all(1) | ~flat.any(1)).all()
    out.sum().backward()
    np.testing.assert_allclose(to_numpy(x.grad), values, rtol=1e-6)
    layer.eval()
    assert to_numpy(layer(x)).min() == 1.0
    assert to_numpy(getattr(nn, name)(1.0)(x)).max() == 0.0
    assert to_numpy(getattr(nn, name)(0.0)(x)).min() == 1.0


@pytest.mark.parametrize("name, shape", [("AlphaDropout", (200, 100)), ("FeatureAlphaDropout", (100, 50, 4))])
def test_alpha_dropout_keeps_mean_and_variance(name, shape):
    graphc.manual_seed(3)
    x = graphc.randn(shape)
    out = to_numpy(getattr(nn, name)(0.2)(x))
    assert abs(out.mean()) < 0.06 and abs(out.std() - 1) < 0.06
    layer = getattr(nn, name)(0.2).eval()
    np.testing.assert_array_equal(to_numpy(layer(x)), to_numpy(x))


def test_rrelu_draws_slopes_in_training():
    graphc.manual_seed(3)
    x = -graphc.ones((50, 50))
    out = to_numpy(nn.RReLU(0.1, 0.4)(x))
    assert -0.4 <= out.min() < -0.38 and -0.12 < out.max() <= -0.1
    np.testing.assert_allclose(to_numpy(nn.RReLU(0.1, 0.4).eval()(x)), -0.25, rtol=1e-6)
