"""Recurrent layers, cells and packed sequences against PyTorch."""
from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nn_compare import assert_close, compare, floats, pair_of, to_graphc, to_numpy  # noqa: E402

import graphc  # noqa: E402
import graphc.nn as nn  # noqa: E402
from graphc.nn.utils import rnn as packing  # noqa: E402

their_packing = torch.nn.utils.rnn
T, N, I, H = 4, 3, 3, 5
KINDS = ["RNN", "LSTM", "GRU"]


def state(kind, layers, batch, batched=True, width=H):
    shape = (layers, batch, H) if batched else (layers, H)
    h = floats(*shape[:-1], width, seed=5)
    return (h, floats(*shape, seed=6)) if kind == "LSTM" else h


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [
    {}, {"num_layers": 2}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True, "batch_first": True},
    {"bias": False}, {"batch_first": True}], ids=str)
def test_layer(kind, options):
    ours, theirs = pair_of(kind, (I, H), options)
    layers = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    compare(ours, theirs, (floats(T, N, I),))
    batch = T if options.get("batch_first") else N
    ours.zero_grad()
    theirs.zero_grad()
    compare(ours, theirs, (floats(T, N, I), state(kind, layers, batch)))


def test_relu():
    compare(*pair_of("RNN", (I, H), {"nonlinearity": "relu"}), (floats(T, N, I),))
    compare(*pair_of("RNN", (I, H, 1, "relu")), (floats(T, N, I),))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_without_batch(kind, batch_first):
    ours, theirs = pair_of(kind, (I, H), {"batch_first": batch_first})
    compare(ours, theirs, (floats(T, I), state(kind, 1, None, batched=False)))


def test_projection():
    ours, theirs = pair_of("LSTM", (I, H), {"proj_size": 2, "num_layers": 2, "bidirectional": True})
    compare(ours, theirs, (floats(T, N, I),))
    ours.zero_grad()
    theirs.zero_grad()
    compare(ours, theirs, (floats(T, N, I), state("LSTM", 4, N, width=2)))


def test_dropout_between_layers():
    graphc.manual_seed(0)
    ours, theirs = pair_of("GRU", (I, H), {"num_layers": 2, "dropout": 0.5})
    x = floats(T, N, I, grad=False)
    first, second = (to_numpy(ours(to_graphc(x))[0]) for _ in range(2))
    assert not np.allclose(first, second)
    ours.eval()
    theirs.eval()
    compare(ours, theirs, (x,))
    with pytest.warns(UserWarning, match="dropout option adds dropout after all but last"):
        nn.GRU(I, H, dropout=0.5)


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
@pytest.mark.parametrize("bias", [True, False])
def test_cell(kind, bias):
    ours, theirs = pair_of(kind, (I, H), {"bias": bias})
    h = floats(N, H, seed=1)
    compare(ours, theirs, (floats(N, I), (h, floats(N, H, seed=2)) if kind == "LSTMCell" else h))
    compare(ours, theirs, (floats(N, I, grad=False),))
    h = floats(H, seed=1, grad=False)
    compare(ours, theirs, (floats(I, grad=False), (h, h) if kind == "LSTMCell" else h))


def test_cell_relu():
    compare(*pair_of("RNNCell", (I, H), {"nonlinearity": "relu"}), (floats(N, I),))


CALLS = {
    "rank": lambda n, t: n.LSTM(I, H)(t.ones(I)),
    "features": lambda n, t: n.GRU(I, H)(t.ones(T, N, I + 1)),
    "state size": lambda n, t: n.GRU(I, H)(t.ones(T, N, I), t.ones(1, N + 1, H)),
    "lstm state size": lambda n, t: n.LSTM(I, H)(t.ones(T, N, I), (t.ones(1, N, H), t.ones(2, N, H))),
    "state rank": lambda n, t: n.RNN(I, H)(t.ones(T, N, I), t.ones(N, H)),
    "lstm state rank": lambda n, t: n.LSTM(I, H)(t.ones(T, I), (t.ones(1, 1, H), t.ones(1, 1, H))),
    "dtype": lambda n, t: n.LSTM(I, H)(t.ones(T, N, I, dtype=t.float64)),
    "cell rank": lambda n, t: n.GRUCell(I, H)(t.ones(1, 1, I)),
    "cell state rank": lambda n, t: n.RNNCell(I, H)(t.ones(1, I), t.ones(1, 1, H)),
    "lstm cell state rank": lambda n, t: n.LSTMCell(I, H)(t.ones(1, I), (t.ones(1, 1, H), t.ones(1, H))),
    "unsorted": lambda n, t: n.utils.rnn.pack_padded_sequence(t.ones(T, N, I), [2, 4, 1]),
    "zero length": lambda n, t: n.utils.rnn.pack_padded_sequence(t.ones(T, N, I), [4, 1, 0]),
    "count": lambda n, t: n.utils.rnn.pack_padded_sequence(t.ones(T, N, I), [4, 1]),
    "total length": lambda n, t: n.utils.rnn.pad_packed_sequence(
        n.utils.rnn.pack_padded_sequence(t.ones(T, N, I), [4, 2, 1]), total_length=3),
    "pad a number": lambda n, t: n.utils.rnn.pad_sequence(3),
}


@pytest.mark.parametrize("what", CALLS)
def test_errors(what):
    with pytest.raises(Exception) as expected:
        CALLS[what](torch.nn, torch)
    with pytest.raises(type(expected.value)) as got:
        CALLS[what](nn, graphc)
    assert str(got.value) == str(expected.value)


# ---- packing

LENGTHS = {"sorted": [4, 4, 2], "unsorted": [2, 4, 3], "all": [4, 4, 4], "ones": [1, 1, 1], "steps": [4, 2, 1]}


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("which", LENGTHS)
def test_pack_and_pad(which, batch_first):
    lengths = LENGTHS[which]
    x = floats(*((N, T) if batch_first else (T, N)), I)
    y = to_graphc(x, requires_grad=True)
    theirs = their_packing.pack_padded_sequence(x, lengths, batch_first, enforce_sorted=False)
    ours = packing.pack_padded_sequence(y, lengths, batch_first, enforce_sorted=False)
    assert_close(ours.data, theirs.data, "data")
    assert ours.batch_sizes.tolist() == theirs.batch_sizes.tolist()
    # Which of two equal lengths comes first is nobody's promise; each side only has to invert its own order.
    assert ours.sorted_indices[ours.unsorted_indices].tolist() == [0, 1, 2]
    padded, got = packing.pad_packed_sequence(ours, batch_first, padding_value=-1.0, total_length=5)
    padded_t, expected = their_packing.pad_packed_sequence(theirs, batch_first, padding_value=-1.0, total_length=5)
    assert_close(padded, padded_t, "padded")
    assert got.tolist() == expected.tolist()
    (padded * padded).sum().backward()
    (padded_t * padded_t).sum().backward()
    assert_close(y.grad, x.grad, "gradient")


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_pad_sequence(batch_first, side):
    items = [floats(n, 2, seed=n) for n in (3, 1, 4)]
    mine = to_graphc(items, requires_grad=True)
    ours = packing.pad_sequence(mine, batch_first, 7.0, side)
    theirs = their_packing.pad_sequence(items, batch_first, 7.0, side)
    assert_close(ours, theirs, "padded")
    (ours * ours).sum().backward()
    (theirs * theirs).sum().backward()
    for a, b in zip(mine, items):
        assert_close(a.grad, b.grad, "gradient")
    if side == "right":
        back = packing.unpad_sequence(ours, graphc.tensor([3, 1, 4]), batch_first)
        assert [t.tolist() for t in back] == [t.tolist() for t in items]


def test_pack_and_unpack_sequences():
    items = [floats(n, seed=n, grad=False) for n in (2, 4, 1)]
    ours = packing.pack_sequence(to_graphc(items), enforce_sorted=False)
    theirs = their_packing.pack_sequence(items, enforce_sorted=False)
    assert_close(ours.data, theirs.data, "data")
    assert ours.sorted_indices.tolist() == theirs.sorted_indices.tolist()
    assert [t.tolist() for t in packing.unpack_sequence(ours)] == [t.tolist() for t in items]


def test_packed_sequence_object():
    packed = packing.pack_sequence([graphc.ones(2), graphc.ones(1)])
    assert isinstance(packed, tuple) and packed.sorted_indices is None and not packed.is_cuda
    assert packed.double().data.dtype == graphc.float64 and packed.to(graphc.float16).data.dtype == graphc.float16
    assert packed.cpu() is packed or packed.cpu().data.tolist() == packed.data.tolist()
    assert packing.PackedSequence(packed.data, packed.batch_sizes).batch_sizes is packed.batch_sizes
    with pytest.raises(AssertionError, match="list or tuple of length 2"):
        packing.PackedSequence(graphc.ones(2))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"bidirectional": True, "bias": False}],
                         ids=str)
@pytest.mark.parametrize("which", ["unsorted", "steps"])
def test_packed_through_a_layer(kind, options, which):
    ours, theirs = pair_of(kind, (I, H), options)
    lengths = LENGTHS[which]
    layers = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    x, h = floats(T, N, I), state(kind, layers, N)
    y, g = to_graphc(x, requires_grad=True), to_graphc(h, requires_grad=True)

    def run(layer, pack, x, h):
        out, last = layer(pack.pack_padded_sequence(x, lengths, enforce_sorted=False), h)
        padded, _ = pack.pad_packed_sequence(out)
        parts = [padded, *(last if isinstance(last, tuple) else (last,))]
        sum((p * p).sum() for p in parts).backward()
        return parts

    assert_close(run(ours, packing, y, g), run(theirs, their_packing, x, h), "output")
    assert_close(y.grad, x.grad, "gradient of the input")
    for a, b in zip(g if isinstance(g, tuple) else (g,), h if isinstance(h, tuple) else (h,)):
        assert_close(a.grad, b.grad, "gradient of the state")
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters()):
        assert_close(p.grad, q.grad, name)


def test_weights_are_listed_as_in_torch():
    ours, theirs = pair_of("LSTM", (I, H), {"num_layers": 2, "bidirectional": True, "proj_size": 2})
    assert [[list(w.shape) for w in ws] for ws in ours.all_weights] == [
        [list(w.shape) for w in ws] for ws in theirs.all_weights]
    assert ours._flat_weights_names == theirs._flat_weights_names
    ours.flatten_parameters()
    ours.double()
    assert ours.all_weights[0][0].dtype == graphc.float64
