"""Mixed precision inside compiled steps: dtypes, gradients, overflow handled on the device, equal to PyTorch's scaler."""
from __future__ import annotations

import numpy as np
import pytest
from footguns import batch, params, small_net

import graphc
import graphc.nn as nn
from graphc.amp import GradScaler, autocast, custom_bwd, custom_fwd, get_autocast_dtype, is_autocast_enabled

F = nn.functional
X, W = graphc.arange(12.0).reshape(3, 4) / 10, graphc.arange(8.0).reshape(2, 4) / 10
OPERATIONS = {
    "linear": (lambda t: t.nn.functional.linear(t.ones(2, 4), t.ones(3, 4), t.ones(3)), "bfloat16"),
    "matmul": (lambda t: t.ones(2, 4) @ t.ones(4, 3), "bfloat16"),
    "bmm": (lambda t: t.bmm(t.ones(2, 2, 4), t.ones(2, 4, 3)), "bfloat16"),
    "einsum": (lambda t: t.einsum("ij,kj->ik", t.ones(2, 4), t.ones(3, 4)), "bfloat16"),
    "conv2d": (lambda t: t.nn.functional.conv2d(t.ones(1, 2, 5, 5), t.ones(3, 2, 3, 3)), "bfloat16"),
    "attention": (lambda t: t.nn.functional.scaled_dot_product_attention(*[t.ones(1, 2, 3, 4)] * 3), "bfloat16"),
    "add": (lambda t: t.ones(2) + t.ones(2), "float32"),
    "mixed add": (lambda t: t.ones(2) + t.ones(2, dtype=t.bfloat16), "float32"),
    "relu of 16 bit": (lambda t: t.ones(2, dtype=t.bfloat16).relu(), "bfloat16"),
    "double stays": (lambda t: t.nn.functional.linear(t.ones(2, 4).double(), t.ones(3, 4).double()), "float64"),
    "integers stay": (lambda t: t.ones(2, 4).long() @ t.ones(4, 3).long(), "int64"),
    "cross_entropy": (lambda t: t.nn.functional.cross_entropy(t.ones(2, 4, dtype=t.bfloat16), t.tensor([0, 1])), "float32"),
}


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_dtypes_inside_a_block(name: str) -> None:
    torch = pytest.importorskip("torch")
    program, want = OPERATIONS[name]
    for compiled in (lambda fn: fn, graphc.compile):
        with autocast("cpu"):
            got = compiled(lambda: program(graphc))()
        assert got.dtype.name == want
    if name not in ("integers stay", "double stays"):
        with torch.autocast("cpu"):
            assert str(program(torch).dtype) == f"torch.{want}"
    assert program(graphc).dtype.name == ("float32" if want == "bfloat16" and name != "relu of 16 bit" else
                                          "bfloat16" if name in ("relu of 16 bit", "cross_entropy") else want)


def test_blocks_nest_and_end() -> None:
    assert not is_autocast_enabled("cpu") and get_autocast_dtype("cpu") is graphc.bfloat16
    with autocast("cpu", dtype=graphc.float16):
        assert F.linear(X, W).dtype is graphc.float16 and get_autocast_dtype("cpu") is graphc.float16
        with autocast("cpu", enabled=False):
            assert F.linear(X, W).dtype is graphc.float32 and not is_autocast_enabled("cpu")
        with autocast("cuda"):
            assert F.linear(X, W).dtype is graphc.float16, "blocks of another device change nothing here"
        assert F.linear(X, W).dtype is graphc.float16
    with pytest.raises(KeyError), autocast("cpu"):
        raise KeyError
    assert F.linear(X, W).dtype is graphc.float32 and not graphc.ir.recorder.CASTS
    assert autocast("cpu")(lambda: F.linear(X, W))().dtype is graphc.bfloat16
    with pytest.raises(RuntimeError, match="unsupported autocast device_type 'tpu'"):
        autocast("tpu")


def test_other_threads_are_not_in_the_block() -> None:
    import threading

    seen = []
    with autocast("cpu"):
        thread = threading.Thread(target=lambda: seen.append(F.linear(X, W).dtype))
        thread.start()
        thread.join()
    assert seen == [graphc.float32]


@pytest.mark.parametrize("inside", [False, True])
def test_gradients_come_back_in_the_dtype_of_the_leaf(inside: bool) -> None:
    """``inside``: backward is called within the block, and meets nodes recorded before it."""
    w = W.clone().requires_grad_()
    plain = F.linear(X, w)
    with autocast("cpu"):
        h = F.linear(X, w)
        loss = (h.softmax(1) * graphc.arange(2.0)).sum() + (plain * plain).sum()
        assert loss.dtype is graphc.float32
        if inside:
            loss.backward()
    if not inside:
        loss.backward()
    ref = W.clone().requires_grad_()
    h = F.linear(X, ref)
    ((h.softmax(1) * graphc.arange(2.0)).sum() + (h * h).sum()).backward()
    assert w.grad.dtype is graphc.float32
    np.testing.assert_allclose(w.grad.tolist(), ref.grad.tolist(), rtol=0.02, atol=0.02)


def test_custom_functions_choose_their_dtype() -> None:
    class Double(graphc.autograd.Function):
        @staticmethod
        @custom_fwd(device_type="cpu", cast_inputs=graphc.float32)
        def forward(ctx, x):
            seen.append((x.dtype, is_autocast_enabled("cpu")))
            return x * 2

        @staticmethod
        @custom_bwd(device_type="cpu")
        def backward(ctx, g):
            return g * 2

    seen: list = []
    with autocast("cpu"):
        Double.apply(graphc.ones(2, dtype=graphc.bfloat16))
    assert seen == [(graphc.float32, False)]


def test_a_compiled_mixed_step_is_one_program() -> None:
    net = small_net(graphc)
    opt = graphc.optim.Adam(net.parameters(), lr=0.05)

    @graphc.compile(fullgraph=True)
    def step(x, y):
        opt.zero_grad()
        with autocast("cpu"):
            loss = F.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
        return loss.detach()

    losses = [step(*batch(graphc)).item() for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0] and step.explain().breaks == {} and step.explain().plans <= 2
    assert all(p.dtype is graphc.float32 for p in net.parameters())


# --------------------------------------------------------------------------------------------------------------- scaling
def scaled_training(torch, compile, make, poison, **options):
    """Parameters, scales and step counts of ten steps, in some of which a gradient is infinite."""
    net = small_net(torch)
    opt = make(torch.optim)(net.parameters())
    scaler = torch.amp.GradScaler("cpu", **options)

    @compile
    def step(x, y, factor):
        opt.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x), y) * factor
        scaler.scale(loss).backward()
        scaler.unscale_(opt)
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.7)
        scaler.step(opt)
        scaler.update()

    out = []
    for k in range(10):
        step(*batch(torch, k), float("inf") if k in poison else 1.0)
        out += [params(net), scaler.get_scale()]
    return [out, scaler.state_dict()]


MAKES = {
    "sgd": lambda o: lambda p: o.SGD(p, lr=0.1),
    "momentum": lambda o: lambda p: o.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam": lambda o: lambda p: o.Adam(p, lr=0.05),
    "adamw": lambda o: lambda p: o.AdamW(p, lr=0.05, amsgrad=True),
    "rmsprop": lambda o: lambda p: o.RMSprop(p, lr=0.05, momentum=0.5),
    "nadam": lambda o: lambda p: o.NAdam(p, lr=0.05),
}


@pytest.mark.parametrize("name", list(MAKES))
@pytest.mark.parametrize("poison", [(), (0,), (0, 1, 5), (3, 4, 9)])
def test_skipped_steps_are_pytorchs(name: str, poison: tuple[int, ...]) -> None:
    from footguns import never, same

    torch = pytest.importorskip("torch")
    options = dict(init_scale=1024.0, growth_interval=3)
    want = scaled_training(torch, never, MAKES[name], poison, **options)
    same(scaled_training(graphc, never, MAKES[name], poison, **options), want, "eager", rtol=2e-3)
    compile = graphc.compile(fullgraph=True)
    same(scaled_training(graphc, compile, MAKES[name], poison, **options), want, "compiled", rtol=2e-3)


def test_scaler_refuses_calls_out_of_order() -> None:
    net = small_net(graphc)
    opt, scaler = graphc.optim.SGD(net.parameters(), lr=0.1), GradScaler("cpu")
    with pytest.raises(AssertionError, match="_scale is None"):
        scaler.unscale_(opt)
    scaler.scale(net(graphc.ones(1, 3)).sum()).backward()
    with pytest.raises(AssertionError, match="No inf checks were recorded"):
        scaler.update()
    scaler.unscale_(opt)
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.unscale_(opt)
    scaler.step(opt)
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.step(opt)
    scaler.update()
    assert scaler.state_dict()["_growth_tracker"] == 1
    other = GradScaler("cpu")
    other.load_state_dict(scaler.state_dict())
    assert other.get_scale() == scaler.get_scale() == 65536.0
    scaler.update(128.0)
    assert scaler.get_scale() == 128.0


def test_a_disabled_scaler_does_nothing() -> None:
    net = small_net(graphc)
    opt, scaler = graphc.optim.SGD(net.parameters(), lr=0.1), GradScaler(enabled=False)
    x = net(graphc.ones(1, 3)).sum()
    assert scaler.scale(x) is x and scaler.state_dict() == {} and scaler.get_scale() == 1.0
    x.backward()
    before = params(net)
    scaler.step(opt)
    scaler.update()
    assert params(net) != before


def test_a_scaler_for_an_absent_gpu_is_switched_off() -> None:
    if graphc.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.warns(UserWarning, match="CUDA is not available"):
        assert not GradScaler().is_enabled()


def test_scaling_takes_nested_outputs() -> None:
    scaler = GradScaler("cpu", init_scale=4.0)
    a, (b,) = scaler.scale((graphc.ones(2), [graphc.ones(1, dtype=graphc.bfloat16)]))
    assert a.tolist() == [4, 4] and b.tolist() == [4] and b.dtype is graphc.bfloat16
    with pytest.raises(ValueError, match="outputs must be"):
        scaler.scale(3)


def low(t):
    """A product's result, which the next product meets as a 16-bit operand."""
    return t.nn.functional.linear(t.ones(2, 4), t.ones(4, 4))


MIXED = {
    "matmul": lambda t: low(t) @ t.ones(4, 3),
    "mv": lambda t: low(t) @ t.ones(4),
    "einsum": lambda t: t.einsum("ij,jk->ik", low(t), t.ones(4, 3)),
    "addmm": lambda t: t.addmm(t.ones(2, 3), low(t), t.ones(4, 3)),
    "baddbmm": lambda t: t.baddbmm(t.ones(1, 2, 3), low(t)[None], t.ones(1, 4, 3)),
    "conv": lambda t: t.nn.functional.conv1d(low(t)[None], t.ones(3, 2, 3), t.ones(3)),
    "conv_transpose": lambda t: t.nn.functional.conv_transpose1d(low(t)[None], t.ones(2, 3, 3), t.ones(3)),
    "attention": lambda t: t.nn.functional.scaled_dot_product_attention(low(t)[None, None], t.ones(1, 1, 2, 4), t.ones(1, 1, 2, 4)),
    "layers": lambda t: t.nn.MultiheadAttention(4, 2)(low(t)[None], low(t)[None], low(t)[None])[0],
    "lstm": lambda t: t.nn.LSTM(4, 3, num_layers=2, bidirectional=True)(low(t)[None])[0],
    "gru": lambda t: t.nn.GRU(4, 3)(t.ones(2, 1, 4))[0],
}


@pytest.mark.parametrize("name", list(MIXED))
def test_products_take_operands_of_two_dtypes(name: str) -> None:
    torch = pytest.importorskip("torch")
    for compiled in (lambda fn: fn, graphc.compile):
        with autocast("cpu"):
            got = compiled(lambda: MIXED[name](graphc))()
        assert got.dtype is graphc.bfloat16 and got.tolist()
    with torch.autocast("cpu"):
        want = MIXED[name](torch)
    assert name == "gru" or str(want.dtype) == "torch.bfloat16", "PyTorch's CPU GRU stays in float32"
    assert tuple(want.shape) == tuple(got.shape)
