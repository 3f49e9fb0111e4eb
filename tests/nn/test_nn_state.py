"""state_dict and load_state_dict: contents, errors with PyTorch's text, assign, extra state, prefixes."""
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from nn_compare import to_graphc  # noqa: E402

import graphc  # noqa: E402
import graphc.nn as nn  # noqa: E402


def nets(n):
    return n.Sequential(n.Linear(2, 3), n.Sequential(n.BatchNorm1d(3), n.Linear(3, 1, bias=False)))


def change(state, kind, zeros):
    if kind == "missing":
        del state["0.weight"], state["1.0.running_mean"]
    elif kind == "unexpected":
        state["0.extra"] = zeros(1)
        state["1.2.weight"] = zeros(1)
        state["other"] = zeros(1)
    elif kind == "size":
        state["0.weight"] = zeros(3, 3)
        state["1.1.weight"] = zeros(3)
    elif kind == "type":
        state["0.bias"] = [1.0, 2.0, 3.0]
    elif kind == "all":
        for k in ("missing", "unexpected", "type"):
            change(state, k, zeros)
        state["1.1.weight"] = zeros(7)
    return state


@pytest.mark.parametrize("kind", ["missing", "unexpected", "size", "type", "all"])
def test_mismatches_read_as_in_torch(kind):
    theirs, ours = nets(torch.nn), nets(nn)
    with pytest.raises(RuntimeError) as expected:
        theirs.load_state_dict(change(theirs.state_dict(), kind, torch.zeros))
    with pytest.raises(RuntimeError) as got:
        ours.load_state_dict(change(ours.state_dict(), kind, graphc.zeros))
    assert str(got.value) == str(expected.value)


@pytest.mark.parametrize("kind", ["missing", "unexpected"])
def test_not_strict_returns_the_keys(kind):
    theirs, ours = nets(torch.nn), nets(nn)
    expected = theirs.load_state_dict(change(theirs.state_dict(), kind, torch.zeros), strict=False)
    got = ours.load_state_dict(change(ours.state_dict(), kind, graphc.zeros), strict=False)
    assert got.missing_keys == expected.missing_keys and got.unexpected_keys == expected.unexpected_keys
    assert repr(got) == repr(expected) and tuple(got) == tuple(expected)


def test_sizes_are_errors_even_if_not_strict():
    ours = nets(nn)
    with pytest.raises(RuntimeError, match="size mismatch for 0.weight"):
        ours.load_state_dict(change(ours.state_dict(), "size", graphc.zeros), strict=False)


def test_load_copies_and_keeps_parameters():
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    weight = b.weight
    assert repr(b.load_state_dict(a.state_dict())) == "<All keys matched successfully>"
    assert b.weight is weight and b.weight.tolist() == a.weight.tolist() and b.weight.requires_grad
    with graphc.no_grad():
        a.weight.zero_()
    assert b.weight.tolist() != a.weight.tolist()


def test_load_casts_to_the_modules_dtype():
    m = nn.Linear(1, 1)
    m.load_state_dict({"weight": graphc.ones((1, 1), dtype=graphc.float64), "bias": graphc.ones(1)})
    assert m.weight.dtype == graphc.float32 and m.weight.tolist() == [[1.0]]


def test_state_dict_shares_storage_and_is_detached():
    m = nn.Linear(1, 1)
    state = m.state_dict()
    with graphc.no_grad():
        m.weight.fill_(7)
    assert state["weight"].tolist() == [[7.0]] and not state["weight"].requires_grad
    assert m.state_dict(keep_vars=True)["weight"] is m.weight


def test_assign_takes_the_tensors():
    m = nn.Linear(1, 1)
    m.bias.requires_grad_(False)
    given = {"weight": graphc.ones((1, 1), dtype=graphc.float64), "bias": nn.Parameter(graphc.ones(1))}
    m.load_state_dict(given, assign=True)
    assert m.weight.dtype == graphc.float64 and isinstance(m.weight, nn.Parameter) and m.weight.requires_grad
    assert m.bias is given["bias"] and not m.bias.requires_grad


def test_scalar_from_early_checkpoints():
    m = nn.Module()
    m.p = nn.Parameter(graphc.tensor(1.0))
    m.load_state_dict({"p": graphc.tensor([3.0])})
    assert float(m.p) == 3.0


class WithExtra(nn.Module):
    def __init__(self):
        super().__init__()
        self.note = "new"

    def get_extra_state(self):
        return {"note": self.note}

    def set_extra_state(self, state):
        self.note = state["note"]


def test_extra_state():
    a = nn.Sequential(WithExtra())
    a[0].note = "old"
    state = a.state_dict()
    assert dict(state) == {"0._extra_state": {"note": "old"}}
    b = nn.Sequential(WithExtra())
    b.load_state_dict(state)
    assert b[0].note == "old"
    with pytest.raises(RuntimeError, match='Missing key.s. in state_dict: "0._extra_state"'):
        b.load_state_dict({})
    with pytest.raises(RuntimeError, match='Unexpected key.s. in state_dict: "0._extra_state"'):
        nn.Sequential(nn.ReLU()).load_state_dict(state)


def test_batch_norm_without_counter_loads():
    m = nn.BatchNorm1d(2)
    state = {k: v for k, v in m.state_dict().items() if k != "num_batches_tracked"}
    m.load_state_dict(state)  # a plain dict carries no version: taken as an old checkpoint
    versioned = m.state_dict()
    del versioned["num_batches_tracked"]
    with pytest.raises(RuntimeError, match="num_batches_tracked"):
        m.load_state_dict(versioned)


def test_positional_arguments_warn():
    with pytest.warns(FutureWarning):
        assert list(nn.Linear(1, 1).state_dict({}, "x.")) == ["x.weight", "x.bias"]


def test_consume_prefix():
    from graphc.nn.modules.utils import consume_prefix_in_state_dict_if_present

    state = nn.DataParallel(nn.BatchNorm1d(2)).state_dict()
    consume_prefix_in_state_dict_if_present(state, "module.")
    nn.BatchNorm1d(2).load_state_dict(state)
    theirs = torch.nn.DataParallel(torch.nn.BatchNorm1d(2)).state_dict()
    torch.nn.modules.utils.consume_prefix_in_state_dict_if_present(theirs, "module.")
    assert set(state._metadata) == set(theirs._metadata)


def test_checkpoint_of_torch_goes_in_and_out():
    theirs, ours = nets(torch.nn), nets(nn)
    ours.load_state_dict({k: to_graphc(v) for k, v in theirs.state_dict().items()})
    back = {k: torch.from_numpy(v.numpy().copy()) for k, v in ours.state_dict().items()}
    theirs.load_state_dict(back)
