"""tensor_repr against PyTorch's own printing, character for character."""
from __future__ import annotations

import itertools

import numpy as np
import pytest

from graphc.tensor_repr import get_printoptions, printoptions, set_printoptions, tensor_repr

torch = pytest.importorskip("torch")

DTYPES = ["float32", "float64", "float16", "bfloat16", "int8", "uint8", "int16", "int32", "int64", "bool",
          "complex64", "complex128", "uint32"]
SHAPES = [(), (1,), (5,), (0,), (0, 3), (2, 0, 4), (30,), (2, 3), (3, 1, 4), (2, 2, 2, 3), (1001,), (1000,),
          (40, 40), (3, 400), (7, 7, 30), (2, 1, 3, 200), (1, 1, 1)]


@pytest.fixture(autouse=True)
def _same_options():
    torch.set_printoptions(profile="default")
    set_printoptions(profile="default")
    yield
    torch.set_printoptions(profile="default")
    set_printoptions(profile="default")


def as_numpy(t):
    if t.dtype == torch.bfloat16:
        import ml_dtypes

        return t.detach().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return t.detach().resolve_conj().numpy()


def check(t, **kwargs):
    want = repr(t)
    grad_fn = type(t.grad_fn).__name__ if t.grad_fn is not None else None
    got = tensor_repr(as_numpy(t), dtype_name=str(t.dtype)[6:], requires_grad=t.requires_grad, grad_fn_name=grad_fn,
                      default_dtype=str(torch.get_default_dtype())[6:], **kwargs)
    assert got == want


def values(rng, shape, kind):
    x = rng.standard_normal(shape)
    if kind == "whole":
        return np.round(x * 10)
    if kind == "large":
        return x * 1e9
    if kind == "tiny":
        return x * 1e-6
    if kind == "spread":
        return x * 10.0 ** rng.integers(-6, 6, shape)
    if kind == "special":
        return np.where(rng.random(shape) < 0.3, rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], shape), x)
    if kind == "special_whole":
        return np.where(rng.random(shape) < 0.3, rng.choice([np.nan, np.inf, -np.inf, -0.0], shape), np.round(x * 50))
    if kind == "only_special":
        return rng.choice([np.nan, np.inf, -np.inf, 0.0], shape)
    return x


KINDS = ["normal", "whole", "large", "tiny", "spread", "special", "special_whole", "only_special"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_shapes_and_magnitudes(dtype):
    rng = np.random.default_rng(DTYPES.index(dtype))
    target = getattr(torch, dtype)
    for shape, kind in itertools.product(SHAPES, KINDS):
        raw = np.asarray(values(rng, shape, kind))
        if dtype.startswith("complex"):
            with np.errstate(invalid="ignore"):  # inf * 1j
                raw = raw + 1j * np.asarray(values(rng, shape, kind))
        elif not dtype.startswith(("float", "bfloat")):
            raw = np.nan_to_num(raw, nan=1, posinf=100, neginf=-100)
            raw = np.clip(raw * 7, *((0, 200) if dtype[0] in "ub" else (-120, 120)))
        check(torch.from_numpy(np.asarray(raw)).to(target))


def test_large_integers_and_extremes():
    for dtype in (torch.int64, torch.int32, torch.int8, torch.uint8):
        info = torch.iinfo(dtype)
        check(torch.tensor([info.min, 0, info.max], dtype=dtype))
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        info = torch.finfo(dtype)
        check(torch.tensor([info.min, info.max], dtype=dtype))
        check(torch.tensor([info.tiny, info.eps, 1.0], dtype=dtype))
        check(torch.tensor(info.smallest_normal, dtype=dtype))
    check(torch.tensor([5e-324], dtype=torch.float64))


def test_sci_mode_boundaries():
    for data in ([1.0, 1000.0], [1.0, 1001.0], [1e-4, 2e-4], [0.99e-4], [1e8, 1e8], [1.1e8, 1e8], [1.5, 1000.0],
                 [123456.0], [0.00012], [1e8 + 0.5], [-1e-5, 1.0], [99999999.5]):
        for dtype in (torch.float32, torch.float64):
            check(torch.tensor(data, dtype=dtype))


def test_negative_zero_and_signed_imaginary():
    check(torch.tensor([-0.0, 0.0]))
    check(torch.tensor(-0.0))
    check(torch.tensor([complex(1, -0.0), complex(-0.0, 2), complex(float("nan"), float("inf"))]))
    check(torch.tensor([1 - 2j]).conj())


def test_gradient_suffixes():
    a = torch.randn(3, requires_grad=True, generator=torch.Generator().manual_seed(0))
    check(a)
    check(a + 1)
    check((a * 2).sum())
    check((a * 2).double())
    check(torch.zeros(0, 3, requires_grad=True))
    check(torch.zeros(40, 17, requires_grad=True, dtype=torch.float64).t() * 1)


def test_suffix_wraps_when_line_is_full():
    for n in range(1, 40):
        check(torch.arange(float(n)).double().requires_grad_())
        check(torch.arange(n, dtype=torch.int16))


def test_default_dtype_changes_what_is_omitted():
    torch.set_default_dtype(torch.float64)
    try:
        for dtype in (torch.float32, torch.float64, torch.complex64, torch.complex128, torch.int64):
            check(torch.ones(2, dtype=dtype))
            check(torch.ones(0, 2, dtype=dtype))
    finally:
        torch.set_default_dtype(torch.float32)


def test_meta_and_device():
    t = torch.zeros(2, 3, device="meta")
    assert tensor_repr(None, shape=(2, 3), dtype_name="float32", device="meta") == repr(t)
    t = torch.zeros(2, 3, device="meta", dtype=torch.int64)
    assert tensor_repr(None, shape=[2, 3], dtype_name="int64", device="meta") == repr(t)
    assert tensor_repr(np.ones(2, np.float32), device="cuda:0") == "tensor([1., 1.], device='cuda:0')"
    assert tensor_repr(np.ones(2, np.float32), device="cuda:0", requires_grad=True) == (
        "tensor([1., 1.], device='cuda:0', requires_grad=True)")


def test_prefix_of_subclass():
    class Sub(torch.Tensor):
        pass

    check(torch.zeros(2, 30).as_subclass(Sub), prefix="Sub(")


OPTIONS = [{"precision": 2}, {"precision": 8}, {"precision": 0}, {"threshold": 5}, {"threshold": 5, "edgeitems": 1},
           {"threshold": 5, "edgeitems": 0}, {"linewidth": 20}, {"linewidth": 200}, {"profile": "short"},
           {"profile": "full"}, {"sci_mode": True}, {"sci_mode": False}, {"profile": "short", "precision": 6},
           {"edgeitems": 5, "threshold": 3, "linewidth": 3}, {"linewidth": 120, "sci_mode": True, "precision": 1}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options(options):
    rng = np.random.default_rng(3)
    torch.set_printoptions(**options)
    set_printoptions(**options)
    assert get_printoptions() == {k: v for k, v in vars(torch._tensor_str.PRINT_OPTS).items()}
    for shape in [(), (4,), (13,), (4, 5), (12, 3), (3, 9, 2), (0, 2), (1, 1)]:
        for kind in KINDS:
            x = torch.from_numpy(np.asarray(values(rng, shape, kind)))
            for dtype in (torch.float32, torch.float64):
                check(x.to(dtype))
        check(torch.from_numpy(np.asarray(rng.integers(0, 90, shape))))
        check(torch.from_numpy(np.asarray(rng.standard_normal(shape) + 1j * rng.standard_normal(shape))))


def test_printoptions_context_restores():
    before = get_printoptions()
    with printoptions(precision=1, sci_mode=True):
        assert tensor_repr(np.float32([1.25])) == "tensor([1.2e+00])"
    assert get_printoptions() == before
    with pytest.raises(ZeroDivisionError), printoptions(precision=7):
        raise ZeroDivisionError
    assert get_printoptions() == before


def test_non_contiguous_arrays():
    t = torch.arange(24.0).reshape(2, 3, 4)
    for view in (t.permute(2, 0, 1), t[:, ::2], t.expand(2, 3, 4)[..., :1]):
        check(view)


def test_meta_needs_shape_and_dtype():
    with pytest.raises(ValueError, match="needs both shape and dtype_name"):
        tensor_repr(None, shape=(2,))
