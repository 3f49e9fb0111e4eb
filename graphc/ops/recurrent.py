"""Recurrent layers over time: RNN, LSTM, GRU, and their single steps.

A layer's input projection ``x @ w_ih.T`` is one contraction over all time steps; only the part that depends on the
state runs in the loop (``loop_scan``, a node with a sub-graph, so a sequence is not unrolled). Gate order and formulas
are PyTorch's: LSTM (i, f, g, o), GRU (r, z, n).
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import ArgumentError, ShapeError
from ..ir import build as P
from ..ir.node import Value
from ..ir.optable import OPS
from ..ir.prims.control import scan
from ..ir.recorder import apply
from ..tensor import Tensor, wrap
from ._common import products, val

States = tuple[Value, ...]
Weights = Sequence[Sequence[Tensor]]


def _linear(x: Value, w: Value) -> Value:
    """``x @ w.T`` over x's last axis."""
    return P.contract(x, w, ((), ()), ((x.aval.ndim - 1,), (1,)))


# --------------------------------------------------------------------------------------------------- one step, by Values
def _rnn_step(nonlinearity: str) -> Callable[..., States]:
    act = P.tanh if nonlinearity == "tanh" else lambda v: apply(OPS["relu"], (v,))

    def step(h: Value, x: Value, w_hh: Value) -> States:
        new = act(P.add(x, _linear(h, w_hh)))
        return new, new

    return step


def _lstm_step(h: Value, c: Value, x: Value, w_hh: Value, *w_hr: Value) -> States:
    """``x`` is the projected input with both biases added."""
    new_h, new_c = apply(OPS["lstm_gates"], (P.add(x, _linear(h, w_hh)), c))
    if w_hr:
        new_h = _linear(new_h, w_hr[0])
    return new_h, new_c, new_h


def _gru_step(h: Value, x: Value, w_hh: Value, *b_hh: Value) -> States:
    """``x`` is the projected input with its own bias only: the reset gate scales the hidden part with its bias."""
    hidden = _linear(h, w_hh)
    if b_hh:
        hidden = P.add(hidden, b_hh[0])
    out = apply(OPS["gru_gates"], (x, hidden, h))
    return out, out


# ------------------------------------------------------------------------------------------------------------- sequences
class _Cell:
    """How one kind of layer treats its weights: the loop's key and step, what is added to the projection, the consts."""

    def __init__(self, key: Any, step: Callable[..., States], gates: int, n_state: int, hidden_bias_inside: bool = False):
        self.key, self.step, self.gates, self.n_state = key, step, gates, n_state
        self.hidden_bias_inside = hidden_bias_inside

    def run(self, x: Value, states: States, weights: Sequence[Value], reverse: bool) -> tuple[Value, States]:
        """(outputs (T, B, H), final states) of one layer in one direction over x (T, B, I)."""
        x, w_ih, w_hh, *rest = products(x, *weights)
        states = products(*states)
        biases, proj = rest[:2] if len(rest) >= 2 else [], rest[-1:] if len(rest) % 2 else []
        projected = _linear(x, w_ih)
        consts = [w_hh, *proj]
        if biases:
            inside = self.hidden_bias_inside
            projected = P.add(projected, biases[0] if inside else P.add(biases[0], biases[1]))
            if inside:
                consts.append(biases[1])
        out = scan((self.key, len(consts)), self.step, states, (projected,), consts, reverse=reverse)
        return out[self.n_state], tuple(out[:self.n_state])


def _check_sequence(x: Value, states: States, directions: int, layers: int, weights: Weights) -> None:
    if x.aval.ndim != 3:
        raise ShapeError(f"input must have 3 dimensions (time, batch, features), got {x.aval.ndim}")
    if x.aval.shape[0] == 0:
        raise ShapeError("Expected sequence length to be larger than 0 in RNN")
    if len(weights) != layers * directions:
        raise ArgumentError(f"expected weights for {layers} layers x {directions} directions, got {len(weights)}")
    width = weights[0][0].shape[1]
    if x.aval.shape[2] != width:
        raise ShapeError(f"input.size(-1) must be equal to input_size. Expected {width}, got {x.aval.shape[2]}")
    for s in states:
        want = (layers * directions, x.aval.shape[1])
        if s.aval.ndim != 3 or s.aval.shape[:2] != want:
            raise ShapeError(f"Expected hidden size ({want[0]}, {want[1]}, H), got {list(s.aval.shape)}")


def _dropout(x: Value, p: float) -> Value:
    from .random import dropout

    return val(dropout(wrap(x), p, True))


def _sequence(cell: _Cell, input: Tensor, states: Sequence[Tensor], weights: Weights, num_layers: int, dropout: float,
              training: bool, bidirectional: bool, batch_first: bool) -> tuple[Value, list[Value]]:
    """(outputs, stacked final states (layers * directions, B, ...))."""
    x = val(input)
    if batch_first and x.aval.ndim == 3:
        x = P.transpose(x, 0, 1)
    firsts = tuple([val(s, "hx") for s in states])
    directions = 2 if bidirectional else 1
    _check_sequence(x, firsts, directions, num_layers, weights)
    finals: list[list[Value]] = [[] for _ in firsts]
    for layer in range(num_layers):
        outs = []
        for d in range(directions):
            k = layer * directions + d
            begin = tuple([P.reshape(P.narrow(s, 0, k, 1), s.aval.shape[1:]) for s in firsts])
            y, end = cell.run(x, begin, [val(w, "weight") for w in weights[k]], d == 1)
            outs.append(y)
            for group, e in zip(finals, end):
                group.append(P.unsqueeze(e, 0))
        x = P.concat(tuple(outs), 2)
        if dropout and training and layer < num_layers - 1:
            x = _dropout(x, dropout)
    return P.transpose(x, 0, 1) if batch_first else x, [P.concat(tuple(f), 0) for f in finals]


def rnn(input: Tensor, h0: Tensor, weights: Weights, num_layers: int, nonlinearity: str, dropout: float, training: bool,
        bidirectional: bool, batch_first: bool = False) -> tuple[Tensor, Tensor]:
    """Elman RNN over (T, B, I) from h0 (L*D, B, H); ``weights`` holds [w_ih, w_hh(, b_ih, b_hh)] per layer and direction.
    Returns (outputs (T, B, D*H), final states (L*D, B, H)). ValueError for an unknown nonlinearity."""
    cell = _Cell(("rnn", _known(nonlinearity)), _rnn_step(nonlinearity), 1, 1)
    out, (hn,) = _sequence(cell, input, (h0,), weights, num_layers, dropout, training, bidirectional, batch_first)
    return wrap(out), wrap(hn)


def lstm(input: Tensor, hx: Sequence[Tensor], weights: Weights, num_layers: int, dropout: float, training: bool,
         bidirectional: bool, batch_first: bool = False) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """LSTM over (T, B, I) from (h0 (L*D, B, H or P), c0 (L*D, B, H)); ``weights`` holds [w_ih, w_hh(, b_ih, b_hh)(,
    w_hr)] per layer and direction, w_hr (P, H) projecting the hidden state. Returns (outputs, (hn, cn))."""
    cell = _Cell("lstm", _lstm_step, 4, 2)
    out, (hn, cn) = _sequence(cell, input, hx, weights, num_layers, dropout, training, bidirectional, batch_first)
    return wrap(out), (wrap(hn), wrap(cn))


def gru(input: Tensor, h0: Tensor, weights: Weights, num_layers: int, dropout: float, training: bool,
        bidirectional: bool, batch_first: bool = False) -> tuple[Tensor, Tensor]:
    """GRU over (T, B, I) from h0 (L*D, B, H); weights as in :func:`rnn`. Returns (outputs, final states)."""
    cell = _Cell("gru", _gru_step, 3, 1, True)
    out, (hn,) = _sequence(cell, input, (h0,), weights, num_layers, dropout, training, bidirectional, batch_first)
    return wrap(out), wrap(hn)


# ----------------------------------------------------------------------------------------------------------------- cells
def _known(nonlinearity: str) -> str:
    if nonlinearity not in ("tanh", "relu"):
        raise ArgumentError(f"Unknown nonlinearity: {nonlinearity}")
    return nonlinearity


def _project(x: Tensor, w: Tensor, *biases: Tensor | None) -> Value:
    v, wv = val(x), val(w, "w_ih")
    if v.aval.ndim not in (1, 2) or v.aval.shape[-1] != wv.aval.shape[1]:
        raise ShapeError(f"input has inconsistent input_size: got {list(v.aval.shape)}, expected {wv.aval.shape[1]}")
    out = _linear(v, wv)
    for b in biases:
        if b is not None:
            out = P.add(out, val(b, "bias"))
    return out


def _state(h: Tensor, x: Tensor, w_hh: Tensor) -> Value:
    v = val(h, "hx")
    if v.aval.ndim != x.dim() or v.aval.shape[-1] != w_hh.shape[1] or v.aval.shape[:-1] != tuple(x.shape)[:-1]:
        raise ShapeError(f"hidden has inconsistent hidden_size or batch: got {list(v.aval.shape)} for input "
                         f"{list(x.shape)} and hidden_size {w_hh.shape[1]}")
    return v


def rnn_cell(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None,
             b_hh: Tensor | None = None, nonlinearity: str = "tanh") -> Tensor:
    """``act(x @ w_ih.T + b_ih + h @ w_hh.T + b_hh)`` for (B, I) or (I,)."""
    step = _rnn_step(_known(nonlinearity))
    return wrap(step(_state(hx, input, w_hh), _project(input, w_ih, b_ih, b_hh), val(w_hh))[0])


def rnn_tanh_cell(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None,
                  b_hh: Tensor | None = None) -> Tensor:
    """:func:`rnn_cell` with tanh."""
    return rnn_cell(input, hx, w_ih, w_hh, b_ih, b_hh, "tanh")


def rnn_relu_cell(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None,
                  b_hh: Tensor | None = None) -> Tensor:
    """:func:`rnn_cell` with relu."""
    return rnn_cell(input, hx, w_ih, w_hh, b_ih, b_hh, "relu")


def lstm_cell(input: Tensor, hx: Sequence[Tensor], w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None,
              b_hh: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One LSTM step from (h, c); returns the new (h, c)."""
    h, c = _state(hx[0], input, w_hh), _state(hx[1], input, w_hh)
    new_h, new_c, _ = _lstm_step(h, c, _project(input, w_ih, b_ih, b_hh), val(w_hh))
    return wrap(new_h), wrap(new_c)


def gru_cell(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None,
             b_hh: Tensor | None = None) -> Tensor:
    """One GRU step."""
    extra = () if b_hh is None else (val(b_hh, "b_hh"),)
    return wrap(_gru_step(_state(hx, input, w_hh), _project(input, w_ih, b_ih), val(w_hh), *extra)[0])
