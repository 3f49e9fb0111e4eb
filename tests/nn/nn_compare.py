"""Builds the same layer in graphc and in PyTorch, gives both the same weights and inputs, and compares everything."""
from __future__ import annotations

from typing import Any

import numpy as np
import torch

import graphc
import graphc.nn as nn

torch.set_num_threads(1)  # the machine is shared, the tensors are tiny

RTOL, ATOL = 1e-4, 1e-5


def to_graphc(t: Any, requires_grad: bool = False) -> Any:
    """A graphc tensor with a torch tensor's values; anything else unchanged, containers mapped."""
    if isinstance(t, torch.Tensor):
        out = graphc.from_numpy(t.detach().numpy().copy())
        return out.requires_grad_() if requires_grad and t.requires_grad else out
    if isinstance(t, (list, tuple)):
        return type(t)(to_graphc(x, requires_grad) for x in t)
    if isinstance(t, dict):
        return {k: to_graphc(v, requires_grad) for k, v in t.items()}
    return t


def to_numpy(t: Any) -> np.ndarray:
    """Values of either library's tensor."""
    return np.asarray(t.detach().numpy())


def flat(out: Any) -> list[Any]:
    """All tensors of a result, in order."""
    if out is None:
        return []
    if isinstance(out, (list, tuple)):
        return [t for x in out for t in flat(x)]
    return [out]


def assert_close(ours: Any, theirs: Any, what: str, rtol: float = RTOL, atol: float = ATOL) -> None:
    """Same structure, shapes, dtypes and values."""
    a, b = flat(ours), flat(theirs)
    assert len(a) == len(b), f"{what}: {len(a)} tensors, torch has {len(b)}"
    for i, (x, y) in enumerate(zip(a, b)):
        assert tuple(x.shape) == tuple(y.shape), f"{what}[{i}]: shape {x.shape}, torch has {y.shape}"
        assert str(x.dtype) == str(y.dtype), f"{what}[{i}]: dtype {x.dtype}, torch has {y.dtype}"
        np.testing.assert_allclose(to_numpy(x), to_numpy(y), rtol=rtol, atol=atol, err_msg=f"{what}[{i}]")


def load_from_torch(ours: Any, theirs: Any) -> None:
    """Give ``ours`` the state of ``theirs``; fails where keys or shapes differ."""
    state = theirs.state_dict()
    assert list(ours.state_dict()) == list(state)
    result = ours.load_state_dict({k: to_graphc(v) for k, v in state.items()})
    assert repr(result) == "<All keys matched successfully>"


def pair_of(name: str, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """``(graphc layer, torch layer)`` with equal weights."""
    kwargs = kwargs or {}
    theirs = getattr(torch.nn, name)(*args, **kwargs)
    ours = getattr(nn, name)(*(to_graphc(a) for a in args), **to_graphc(kwargs))
    assert repr(ours) == repr(theirs)
    load_from_torch(ours, theirs)
    return ours, theirs


def _loss(outputs: list[Any], make: Any) -> Any:
    """A scalar that depends on every floating-point output element differently."""
    total = None
    for t in outputs:
        if not t.dtype.is_floating_point or not t.requires_grad:
            continue
        weights = np.cos(np.arange(t.numel(), dtype=np.float32)).reshape(tuple(t.shape))
        term = (t * make(weights)).sum()
        total = term if total is None else total + term
    return total


def compare(ours: Any, theirs: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any] | None = None, *,
            rtol: float = RTOL, atol: float = ATOL) -> None:
    """Outputs, gradients of inputs and parameters, and buffers afterwards. Inputs are torch tensors."""
    kwargs = kwargs or {}
    mine = to_graphc(inputs, requires_grad=True)
    expected = theirs(*inputs, **kwargs)
    got = ours(*mine, **to_graphc(kwargs))
    assert_close(got, expected, "output", rtol, atol)
    loss = _loss(flat(expected), torch.from_numpy)
    if loss is not None:
        loss.backward()
        _loss(flat(got), graphc.from_numpy).backward()
    for i, (x, y) in enumerate(zip(flat(mine), flat(list(inputs)))):
        if isinstance(y, torch.Tensor) and y.requires_grad and y.grad is not None:
            assert_close(x.grad, y.grad, f"gradient of input {i}", rtol, atol)
    theirs_params = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        q = theirs_params[name]
        assert (p.grad is None) == (q.grad is None), name
        if q.grad is not None:
            assert_close(p.grad, q.grad, f"gradient of {name}", rtol, atol)
    for (name, b), (_, c) in zip(ours.named_buffers(), theirs.named_buffers()):
        assert_close(b, c, f"buffer {name}", rtol, atol)


def compare_both_modes(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: Any, *,
                       rtol: float = RTOL, atol: float = ATOL) -> None:
    """:func:`compare` in training, then in evaluation mode. ``inputs()`` makes the inputs anew."""
    ours, theirs = pair_of(name, args, kwargs)
    compare(ours, theirs, inputs(), rtol=rtol, atol=atol)
    ours.zero_grad()
    theirs.zero_grad()
    ours.eval()
    theirs.eval()
    compare(ours, theirs, inputs(), rtol=rtol, atol=atol)


def floats(*shape: int, seed: int = 0, grad: bool = True, low: float | None = None) -> torch.Tensor:
    """A torch tensor of normal values, or uniform from ``low`` to ``low + 1``."""
    rng = np.random.default_rng(seed + sum(shape))
    values = rng.standard_normal(shape) if low is None else low + rng.random(shape)
    return torch.tensor(values.astype(np.float32), requires_grad=grad)


def ints(high: int, *shape: int, seed: int = 0, low: int = 0) -> torch.Tensor:
    """A torch tensor of integers in ``[low, high)``."""
    return torch.tensor(np.random.default_rng(seed).integers(low, high, shape))
