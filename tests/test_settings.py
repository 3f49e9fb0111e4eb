"""Switches and questions under ``torch.*``: what they answer, what they refuse, what they change."""
from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest

import graphc
from graphc import settings

HAVE_TORCH = importlib.util.find_spec("torch") is not None


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    default = graphc.get_default_dtype()
    yield
    graphc.set_default_dtype(default)
    graphc.set_anomaly_enabled(False)
    graphc.set_autocast_dtype("cpu", graphc.bfloat16)


def test_all_are_names_of_torch_and_of_graphc() -> None:
    for name in settings.__all__:
        assert getattr(graphc, name) is getattr(settings, name)
    if HAVE_TORCH:
        import torch

        assert [n for n in settings.__all__ if not hasattr(torch, n)] == []


def test_default_type_by_an_old_name() -> None:
    graphc.set_default_tensor_type("torch.DoubleTensor")
    assert graphc.ones(1).dtype is graphc.float64
    graphc.set_default_tensor_type(graphc.FloatTensor)
    assert graphc.ones(1).dtype is graphc.float32
    for bad in ("torch.LongTensor", graphc.IntTensor, 3):
        with pytest.raises(TypeError):
            graphc.set_default_tensor_type(bad)


def test_switches_answer_what_holds() -> None:
    assert graphc.set_flush_denormal(True) is False and graphc.get_deterministic_debug_mode() == 2
    graphc.set_deterministic_debug_mode("warn")
    with pytest.raises(RuntimeError):
        graphc.set_deterministic_debug_mode("maybe")
    graphc.set_num_interop_threads(3)
    assert graphc.get_num_interop_threads() == 3
    with pytest.raises(RuntimeError):
        graphc.set_num_interop_threads(0)
    graphc.set_warn_always(True)
    assert graphc.is_warn_always_enabled()
    graphc.set_warn_always(False)
    assert not graphc.is_deterministic_algorithms_warn_only_enabled() and graphc.is_autocast_cache_enabled()
    assert isinstance(graphc.channels_last, graphc.memory_format) and isinstance(graphc.strided, graphc.layout)
    assert graphc.get_device_module("cpu") is graphc.cpu and graphc.get_device_module(graphc.device("cuda", 0)) is graphc.cuda
    with pytest.raises(RuntimeError):
        graphc.get_device_module("tpu")


def test_anomalies() -> None:
    assert not graphc.is_anomaly_enabled()
    graphc.set_anomaly_enabled(True)
    assert graphc.is_anomaly_enabled() and graphc.is_anomaly_check_nan_enabled()
    x = graphc.zeros(1, requires_grad=True)
    with pytest.raises(RuntimeError):
        (x.sqrt() * 0).sum().backward()
    graphc.set_anomaly_enabled(False)
    (x.sqrt() * 0).sum().backward()


def test_the_dtype_of_autocast() -> None:
    graphc.set_autocast_cpu_dtype(graphc.float16)
    assert graphc.get_autocast_cpu_dtype() is graphc.float16 is graphc.get_autocast_gpu_dtype()
    with graphc.autocast("cpu"):
        assert (graphc.ones(2, 2) @ graphc.ones(2, 2)).dtype is graphc.float16 and graphc.is_autocast_cpu_enabled()
    assert not graphc.is_autocast_cpu_enabled()


CALLS: list[Any] = [
    lambda m: m.cond(m.tensor(True), lambda x: x + 1, lambda x: x - 1, (m.ones(2),)).tolist(),
    lambda m: m.cond(m.tensor([0.0]) > 0, lambda x: x + 1, lambda x: x - 1, [m.ones(2)]).tolist(),
    lambda m: m.cond(False, lambda: m.ones(1), lambda: m.zeros(1)).tolist(),
    lambda m: [m.sym_int(2.9), m.sym_int(-2.9), m.sym_float(3), m.sym_max(2, 3.0), m.sym_min(2, 3.0), m.sym_max(4, 3), m.sym_not(False),
               m.sym_ite(True, 1, 2), m.sym_sum([1, 2, 3])],
]


@pytest.mark.skipif(not HAVE_TORCH, reason="compares with PyTorch")
@pytest.mark.parametrize("call", CALLS)
def test_control_flow_and_sizes(call: Any) -> None:
    import torch

    ours, theirs = call(graphc), call(torch)
    assert ours == theirs
    if isinstance(ours, list):
        assert [type(x) for x in ours] == [type(x) for x in theirs]


def test_branches_and_loops_are_differentiable() -> None:
    x = graphc.tensor(3.0, requires_grad=True)
    graphc.cond(x > 2, lambda v: v * v, lambda v: v, (x,)).backward()
    assert x.grad is not None and x.grad.item() == 6.0
    i, y = graphc.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, v * 2), (graphc.tensor(0), x))
    (g,) = graphc.autograd.grad(y, x)
    assert i.item() == 3 and y.item() == 24.0 and g.item() == 8.0
    for bad in (lambda: graphc.cond(3, len, len), lambda: graphc.cond(graphc.ones(2) > 0, len, len),
                lambda: graphc.cond(True, 1, 2), lambda: graphc.cond(True, len, len, 3),
                lambda: graphc.while_loop(lambda a: True, lambda a: (a, a), (x,))):
        with pytest.raises(RuntimeError):
            bad()
