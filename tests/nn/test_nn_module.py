"""Module mechanics: registration, walking, modes, conversions, hooks, copies, errors with PyTorch's texts."""
from __future__ import annotations

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import graphc  # noqa: E402
import graphc.nn as nn  # noqa: E402


def ones(*shape):
    return graphc.ones(shape)


def same_error(ours, theirs, rename=lambda text: text):
    """Both callables raise the same builtin error with the same text."""
    with pytest.raises(Exception) as expected:
        theirs()
    with pytest.raises(type(expected.value)) as got:
        ours()
    assert rename(str(got.value)) == str(expected.value)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.block = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.scale = nn.Parameter(ones(4))
        self.register_buffer("seen", graphc.zeros(2))
        self.register_buffer("scratch", graphc.zeros(2), persistent=False)

    def forward(self, x):
        return self.block(self.first(x)) * self.scale


class TorchNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(3, 4)
        self.block = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
        self.scale = torch.nn.Parameter(torch.ones(4))
        self.register_buffer("seen", torch.zeros(2))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)


def test_walks_match():
    a, b = Net(), TorchNet()
    assert [n for n, _ in a.named_modules()] == [n for n, _ in b.named_modules()]
    assert [n for n, _ in a.named_parameters()] == [n for n, _ in b.named_parameters()]
    assert [n for n, _ in a.named_parameters("p", recurse=False)] == ["p.scale"]
    assert [n for n, _ in a.named_buffers()] == [n for n, _ in b.named_buffers()]
    assert [n for n, _ in a.named_children()] == [n for n, _ in b.named_children()]
    assert len(list(a.modules())) == len(list(b.modules()))
    assert repr(a) == repr(b).replace("TorchNet", "Net")
    assert list(a.state_dict()) == list(b.state_dict())
    assert list(a.state_dict(prefix="x.")) == list(b.state_dict(prefix="x."))
    assert dict(a.state_dict()._metadata) == dict(b.state_dict()._metadata)


def test_shared_members_come_once():
    shared = nn.Linear(2, 2)
    m = nn.ModuleList([shared, shared])
    assert [n for n, _ in m.named_parameters()] == ["0.weight", "0.bias"]
    assert [n for n, _ in m.named_parameters(remove_duplicate=False)] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert len(list(m.modules())) == 2 and len(list(m.modules(remove_duplicate=False))) == 3
    assert [n for n, _ in m.named_children()] == ["0"]


def test_attributes_go_to_the_right_registry():
    m = nn.Module()
    m.a = nn.Parameter(ones(2))
    m.b = nn.Linear(1, 1)
    m.c = nn.Buffer(ones(2), persistent=False)
    m.d = ones(2)
    m.e = 5
    assert list(m._parameters) == ["a"] and list(m._modules) == ["b"] and list(m._buffers) == ["c"]
    assert "d" in m.__dict__ and "a" not in m.__dict__ and m.e == 5
    assert list(m.state_dict()) == ["a", "b.weight", "b.bias"]
    m.a = None
    assert m.a is None and list(m._parameters) == ["a"]
    m.b = nn.Parameter(ones(1))  # another kind takes the name over
    assert list(m._modules) == [] and "b" in m._parameters
    m.c = ones(3)
    assert list(m.c.shape) == [3] and "c" in m._buffers and "c" not in m.state_dict()
    del m.b, m.c, m.e
    assert not hasattr(m, "b") and not hasattr(m, "c") and not hasattr(m, "e")
    assert {"a", "register_buffer", "d"} <= set(dir(m))


def test_a_subclass_attribute_of_the_same_name_is_replaced():
    m = nn.Module()
    m.w = 3
    m.w = nn.Parameter(ones(1))
    assert isinstance(m.w, nn.Parameter) and "w" not in m.__dict__


ERRORS = {
    "parameter before init": lambda n, t: _before_init(n, lambda m: setattr(m, "p", n.Parameter(t.ones(1)))),
    "module before init": lambda n, t: _before_init(n, lambda m: setattr(m, "p", n.Linear(1, 1))),
    "register parameter before init": lambda n, t: _before_init(n, lambda m: m.register_parameter("p", None)),
    "buffer before init": lambda n, t: _before_init(n, lambda m: m.register_buffer("p", None)),
    "tensor for parameter": lambda n, t: setattr(n.Linear(1, 1), "weight", t.ones(1)),
    "number for module": lambda n, t: setattr(n.Sequential(n.ReLU()), "0", 3),
    "number for buffer": lambda n, t: setattr(n.BatchNorm1d(1), "running_mean", 3),
    "parameter with dot": lambda n, t: n.Module().register_parameter("a.b", None),
    "parameter without name": lambda n, t: n.Module().register_parameter("", None),
    "parameter name number": lambda n, t: n.Module().register_parameter(1, None),
    "parameter name taken": lambda n, t: n.Linear(1, 1).register_parameter("in_features", None),
    "parameter not one": lambda n, t: n.Module().register_parameter("p", 3),
    "parameter not a leaf": lambda n, t: n.Module().register_parameter("p", _not_a_leaf(n, t)),
    "buffer with dot": lambda n, t: n.Module().register_buffer("a.b", None),
    "buffer name number": lambda n, t: n.Module().register_buffer(2, None),
    "buffer not a tensor": lambda n, t: n.Module().register_buffer("b", "x"),
    "buffer name taken": lambda n, t: n.Linear(1, 1).register_buffer("weight", None),
    "module with dot": lambda n, t: n.Module().add_module("a.b", None),
    "module without name": lambda n, t: n.Module().add_module("", None),
    "module not one": lambda n, t: n.Module().add_module("m", 3),
    "module name taken": lambda n, t: n.Linear(1, 1).register_module("weight", None),
    "no such attribute": lambda n, t: n.Linear(1, 1).wieght,
    "no forward": lambda n, t: n.Module()(1),
    "positional to Module": lambda n, t: n.Module(1),
    "keyword to Module": lambda n, t: n.Module(a=1),
    "train not bool": lambda n, t: n.Linear(1, 1).train(1),
    "submodule missing": lambda n, t: n.Sequential(n.ReLU()).get_submodule("0.x"),
    "submodule not one": lambda n, t: n.Sequential(n.Linear(1, 1)).get_submodule("0.weight"),
    "parameter missing": lambda n, t: n.Sequential(n.ReLU()).get_parameter("0.x"),
    "parameter is module": lambda n, t: n.Sequential(n.ReLU()).get_parameter("0"),
    "buffer is parameter": lambda n, t: n.Linear(1, 1).get_buffer("weight"),
    "to int": lambda n, t: n.Linear(1, 1).to(t.int64),
    "two kinds of backward hooks": lambda n, t: _two_kinds(n.Linear(1, 1)),
    "state not a mapping": lambda n, t: n.Linear(1, 1).load_state_dict([1]),
    "dropout p": lambda n, t: n.Dropout(1.5),
    "groups": lambda n, t: n.Conv2d(3, 4, 1, groups=2),
    "no groups": lambda n, t: n.Conv2d(3, 4, 1, groups=0),
    "out groups": lambda n, t: n.Conv2d(4, 3, 1, groups=2),
    "strided same": lambda n, t: n.Conv2d(3, 4, 3, stride=2, padding="same"),
    "transposed padding mode": lambda n, t: n.ConvTranspose2d(3, 4, 3, padding_mode="reflect"),
    "batch norm rank": lambda n, t: n.BatchNorm2d(3)(t.ones(2, 3)),
    "batch norm 1d rank": lambda n, t: n.BatchNorm1d(3)(t.ones(3)),
    "instance norm rank": lambda n, t: n.InstanceNorm2d(3)(t.ones(2, 3)),
    "instance norm features": lambda n, t: n.InstanceNorm1d(3, affine=True)(t.ones(2, 4, 5)),
    "group norm": lambda n, t: n.GroupNorm(2, 3),
    "heads": lambda n, t: n.MultiheadAttention(5, 2),
    "no heads": lambda n, t: n.MultiheadAttention(4, 0),
    "padding_idx": lambda n, t: n.Embedding(3, 2, padding_idx=3),
    "embedding weight": lambda n, t: n.Embedding(3, 2, _weight=t.ones(2, 2)),
    "pretrained rank": lambda n, t: n.Embedding.from_pretrained(t.ones(2)),
    "unflatten": lambda n, t: n.Unflatten(1, 3),
    "unflatten element": lambda n, t: n.Unflatten(1, (3, "a")),
    "softmax2d": lambda n, t: n.Softmax2d()(t.ones(2, 2)),
    "hardtanh": lambda n, t: n.Hardtanh(1.0, -1.0),
    "rnn layers": lambda n, t: n.LSTM(2, 3, num_layers=0),
    "rnn size": lambda n, t: n.GRU(2, 0),
    "rnn size type": lambda n, t: n.GRU(2.0, 3),
    "rnn dropout": lambda n, t: n.RNN(2, 3, dropout=2),
    "rnn nonlinearity": lambda n, t: n.RNN(2, 3, nonlinearity="gelu"),
    "rnn proj": lambda n, t: n.LSTM(2, 3, proj_size=3),
    "gru proj": lambda n, t: n.GRU(2, 3, proj_size=2),
    "activation": lambda n, t: n.TransformerEncoderLayer(4, 2, activation="tanh"),
    "multi margin p": lambda n, t: n.MultiMarginLoss(p=3),
    "triplet margin": lambda n, t: n.TripletMarginLoss(margin=0),
    "huber delta": lambda n, t: n.HuberLoss(delta="1"),
    "cutoffs": lambda n, t: n.AdaptiveLogSoftmaxWithLoss(4, 10, [5, 3]),
    "fractional": lambda n, t: n.FractionalMaxPool2d(2),
    "unknown mode": lambda n, t: n.init.kaiming_uniform_(t.ones(2, 2), mode="fan"),
    "unknown gain": lambda n, t: n.init.calculate_gain("gelu"),
    "fan of a vector": lambda n, t: n.init.xavier_uniform_(t.ones(2)),
    "dirac rank": lambda n, t: n.init.dirac_(t.ones(2, 2)),
    "eye rank": lambda n, t: n.init.eye_(t.ones(2)),
}


def _before_init(n, act):
    class Early(n.Module):
        def __init__(self):
            act(self)

    Early()


def _not_a_leaf(n, t):
    class Computed(n.Parameter):
        grad_fn = property(lambda self: "a history")

    return Computed(t.ones(1))


def _two_kinds(module):
    module.register_full_backward_hook(lambda *a: None)
    module.register_backward_hook(lambda *a: None)


@pytest.mark.parametrize("what", ERRORS)
@pytest.mark.filterwarnings("ignore")
def test_errors_have_torchs_type_and_text(what):
    act = ERRORS[what]
    same_error(lambda: act(nn, graphc), lambda: act(torch.nn, torch), lambda s: s.replace("graphc.", "torch."))


def test_set_submodule():
    net = Net()
    net.set_submodule("block.0", nn.Linear(4, 4, bias=False))
    assert net.block[0].bias is None and net.get_submodule("block.0") is net.block[0]
    assert net.get_submodule("") is net
    assert net.get_parameter("block.0.weight") is net.block[0].weight
    assert net.get_buffer("seen") is net.seen
    with pytest.raises(AttributeError, match="has no attribute `x`"):
        net.set_submodule("block.x", nn.ReLU(), strict=True)
    with pytest.raises(ValueError, match="without a target name"):
        net.set_submodule("", nn.ReLU())


def test_train_eval_reach_everything_and_respect_overrides():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Dropout()

        def train(self, mode=True):
            return super().train(False)

    m = nn.Sequential(nn.Dropout(), Frozen(), nn.Sequential(nn.BatchNorm1d(2)))
    assert m.eval() is m and not any(x.training for x in m.modules())
    m.train()
    assert m[0].training and m[2][0].training and not m[1].training and not m[1].inner.training


def test_requires_grad_and_zero_grad():
    net = Net()
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())
    net.requires_grad_()
    net(ones(2, 3)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad(set_to_none=False)
    assert all(float(p.grad.abs().sum()) == 0 for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_apply_goes_children_first():
    net, order = Net(), []
    assert net.apply(lambda m: order.append(type(m).__name__)) is net
    assert order == ["Linear", "Linear", "ReLU", "Sequential", "Net"]


def test_conversions_keep_parameters_and_skip_integers():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = list(net.parameters())
    net(ones(3, 2)).sum().backward()
    net.double()
    assert [p is q for p, q in zip(before, net.parameters())] == [True] * 4
    assert all(p.dtype == graphc.float64 and p.grad.dtype == graphc.float64 for p in net.parameters())
    assert net[1].running_mean.dtype == graphc.float64 and net[1].num_batches_tracked.dtype == graphc.int64
    assert all(isinstance(p, nn.Parameter) and p.requires_grad and p.is_leaf for p in net.parameters())
    net.to(graphc.float32)
    assert net[0].weight.dtype == graphc.float32
    net.half()
    assert net[0].weight.dtype == graphc.float16
    net.bfloat16()
    assert net[0].weight.dtype == graphc.bfloat16
    net.float()
    net.to(dtype=graphc.float64, device="cpu")
    assert net[0].weight.dtype == graphc.float64 and net[0].weight.device.type == "cpu"
    net.to(graphc.zeros(1))
    assert net[0].weight.dtype == graphc.float32
    net.type(graphc.float64).cpu()
    assert net[1].num_batches_tracked.dtype == graphc.float64
    net.to_empty(device="cpu")
    assert list(net[0].weight.shape) == [2, 2]


def test_conversion_keeps_values_and_trains_on():
    layer = nn.Linear(2, 1, bias=False)
    with graphc.no_grad():
        layer.weight.copy_(graphc.tensor([[1.0, 2.0]]))
    layer.double()
    out = layer(graphc.tensor([[3.0, 4.0]], dtype=graphc.float64))
    out.sum().backward()
    assert layer.weight.tolist() == [[1.0, 2.0]] and layer.weight.grad.tolist() == [[3.0, 4.0]]


def test_parameter():
    data = graphc.zeros(3)
    p = nn.Parameter(data)
    assert isinstance(p, graphc.Tensor) and p.requires_grad and p.is_leaf
    with graphc.no_grad():
        p.fill_(2)
    assert data.tolist() == [2, 2, 2]
    assert repr(p).startswith("Parameter containing:\ntensor(") and "requires_grad=True" in repr(p) and str(p) == repr(p)
    assert not nn.Parameter(data, requires_grad=False).requires_grad
    assert nn.Parameter().numel() == 0
    p.note = "mine"
    assert p.note == "mine"
    with pytest.raises(RuntimeError, match="floating point"):
        nn.Parameter(graphc.tensor([1, 2]))
    nn.Parameter(graphc.tensor([1, 2]), requires_grad=False)
    with pytest.raises(TypeError):
        nn.Parameter([1.0])
    assert not isinstance(p * 2, nn.Parameter) and not isinstance(p.data, nn.Parameter)


def test_deepcopy_and_pickle():
    net = Net()
    net.first.weight.tag = 7
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert type(twin.first.weight) is nn.Parameter and twin.first.weight.requires_grad
        assert twin.first.weight is not net.first.weight
        np.testing.assert_array_equal(twin.first.weight.detach().numpy(), net.first.weight.detach().numpy())
        with graphc.no_grad():
            twin.first.weight.zero_()
        assert float(net.first.weight.abs().sum()) > 0
        assert list(twin.state_dict()) == list(net.state_dict())
        assert list(twin(ones(2, 3)).shape) == [2, 4]
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    for twin in (copy.deepcopy(tied), pickle.loads(pickle.dumps(tied))):
        assert twin[0].weight is twin[1].weight


def test_deep_trees_need_no_recursion():
    m = nn.Linear(1, 1)
    for _ in range(1500):
        outer = nn.Module()
        outer.inner = m
        m = outer
    assert len(list(m.modules())) == 1501
    m.eval()
    m.double()
    assert len(m.state_dict()) == 2
    m.load_state_dict(m.state_dict())
    m.apply(lambda x: None)
    m.requires_grad_(False)


def test_calls_without_hooks_run_forward_only():
    class Loud(nn.Module):
        def forward(self, x, *, twice=False):
            return x * 2 if twice else x

    assert Loud()(3) == 3 and Loud()(3, twice=True) == 6


def test_a_dropped_model_is_freed_at_once():
    gc.collect()
    gc.disable()
    try:
        net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.LazyLinear(2), nn.GRU(2, 2))
        net[:3](ones(5, 3)).sum().backward()
        net[0].register_forward_hook(lambda *a: None)
        model, weight = weakref.ref(net), weakref.ref(net[0].weight)
        del net
        assert model() is None and weight() is None
    finally:
        gc.enable()


def test_data_parallel():
    inner = nn.Linear(2, 2)
    m = nn.DataParallel(inner)
    x = ones(1, 2)
    assert m(x).tolist() == inner(x).tolist() and list(m.state_dict()) == ["module.weight", "module.bias"]
    with pytest.raises(ValueError, match="one device"):
        nn.DataParallel(inner, device_ids=[0, 1])


def test_module_paths_of_pytorch():
    from graphc.nn.modules.batchnorm import _BatchNorm
    from graphc.nn.modules.conv import _ConvNd
    from graphc.nn.modules.loss import _Loss
    from graphc.nn.modules.module import Module
    from graphc.nn.modules.utils import _pair

    assert issubclass(nn.BatchNorm2d, _BatchNorm) and issubclass(nn.ConvTranspose1d, _ConvNd)
    assert issubclass(nn.MSELoss, _Loss) and Module is nn.Module and _pair(3) == (3, 3)


def test_all_of_torchs_layers_exist():
    newer = {"LinearCrossEntropyLoss", "LinearCrossEntropyOptions"}  # of PyTorch 2.13
    assert [n for n in torch.nn.modules.__all__ if not hasattr(nn, n) and n not in newer] == []


def test_compile_method_replaces_the_call():
    m = nn.Linear(2, 2)
    x = ones(1, 2)
    expected = m(x).tolist()
    m.compile()
    assert m(x).tolist() == expected
    assert "_compiled_call_impl" not in m.__getstate__()


def test_data_parallel_function_and_attention_backends():
    from graphc.nn.attention import SDPBackend, sdpa_kernel

    layer, x = nn.Linear(2, 2), ones(1, 2)
    assert nn.parallel.data_parallel(layer, x).tolist() == layer(x).tolist()
    q = ones(1, 1, 2, 4)
    expected = nn.functional.scaled_dot_product_attention(q, q, q).tolist()
    for chosen in (SDPBackend.MATH, [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
        with sdpa_kernel(chosen):
            assert nn.functional.scaled_dot_product_attention(q, q, q).tolist() == expected
    with pytest.raises(AssertionError, match="instance of SDPBackend"):
        with sdpa_kernel("flash"):
            pass


def test_functional_names():
    from graphc.nn import functional

    theirs = {n for n in dir(torch.nn.functional) if not n.startswith("_")}
    assert set(functional.__all__) <= theirs
    assert all(callable(getattr(functional, n)) for n in functional.__all__)
    with pytest.raises(AttributeError, match="no attribute 'rleu'"):
        functional.rleu  # noqa: B018


def test_lazy_modules_pickle_before_their_first_call():
    twin = pickle.loads(pickle.dumps(nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())))
    assert twin[0].has_uninitialized_params() and twin[1].has_uninitialized_params()
    assert list(twin(ones(4, 2)).shape) == [4, 3] and type(twin[0]) is nn.Linear
