"""The elementwise halves of LSTM and GRU steps. Gate order is PyTorch's; backward computes the gates again."""
from __future__ import annotations

from typing import Any

from .. import build as P
from ..node import Aval, Value
from ..optable import composite
from ..recorder import apply
from ..samples import draw
from ._common import expansion_vjp
from .activation import sigmoid


def _part(x: Value, k: int, size: int, count: int = 1) -> Value:
    return P.narrow(x, x.aval.ndim - 1, k * size, count * size)


def _join(*parts: Value) -> Value:
    return P.concat(parts, parts[0].aval.ndim - 1)


def _slope(s: Value) -> Value:
    """Derivative of the sigmoid from its value."""
    return P.mul(s, P.sub(1, s))


# ---------------------------------------------------------------------------------------------------------------- LSTM
def _lstm_parts(gates: Value, c: Value) -> tuple[Value, Value, Value, Value, Value]:
    """(i, f, g, o, f * c)."""
    n = c.aval.shape[-1]
    in_forget = sigmoid(_part(gates, 0, n, 2))
    i, f = _part(in_forget, 0, n), _part(in_forget, 1, n)
    return i, f, P.tanh(_part(gates, 2, n)), sigmoid(_part(gates, 3, n)), P.mul(f, c)


def _lstm(at: Any, gates: Value, c: Value) -> tuple[Value, Value]:
    i, _, g, o, kept = _lstm_parts(gates, c)
    new_c = P.add(kept, P.mul(i, g))
    return P.mul(o, P.tanh(new_c)), new_c


def _lstm_backward(at: Any, gates: Value, c: Value, dh: Value, dc: Value) -> tuple[Value, Value]:
    i, f, g, o, kept = _lstm_parts(gates, c)
    t = P.tanh(P.add(kept, P.mul(i, g)))
    d = P.add(dc, P.mul(P.mul(dh, o), P.sub(1, P.mul(t, t))))
    dgates = _join(P.mul(P.mul(d, g), _slope(i)), P.mul(P.mul(d, c), _slope(f)),
                   P.mul(P.mul(d, i), P.sub(1, P.mul(g, g))), P.mul(P.mul(dh, t), _slope(o)))
    return dgates, P.mul(d, f)


_LSTM_BACKWARD = composite(
    "lstm_gates_backward", attrs=(), infer=lambda attrs, gates, c, dh, dc: (gates, c), expand=_lstm_backward,
    vjp=expansion_vjp(_lstm_backward), saves=("ins",), n_out=2,
    samples=lambda: [((draw("g", 2, 12), draw("c", 2, 3), draw("dh", 2, 3), draw("dc", 2, 3)), ())],
    doc="Gradients of lstm_gates for (gates, c).")


def _or_zeros(g: Value | None, like: Value) -> Value:
    return P.zeros_like(like) if g is None else g


def _lstm_vjp(ctx: Any, g: Any) -> tuple[Value, ...]:
    gates, c = ctx.ins
    return tuple(apply(_LSTM_BACKWARD, (gates, c, _or_zeros(g[0], c), _or_zeros(g[1], c))))


composite("lstm_gates", attrs=(), infer=lambda attrs, gates, c: (c, c), expand=_lstm, vjp=_lstm_vjp, saves=("ins",),
          n_out=2, samples=lambda: [((draw("g", 2, 12), draw("c", 2, 3)), ()), ((draw("g", 8), draw("c", 2)), ())],
          doc="(gates (..., 4H) in order i, f, g, o; cell state (..., H)) to the new (hidden state, cell state).")


# ----------------------------------------------------------------------------------------------------------------- GRU
def _gru_parts(x: Value, hidden: Value, h: Value) -> tuple[Value, Value, Value, Value]:
    """(r, z, new, hidden part of new)."""
    n = h.aval.shape[-1]
    rz = sigmoid(P.add(_part(x, 0, n, 2), _part(hidden, 0, n, 2)))
    r, inner = _part(rz, 0, n), _part(hidden, 2, n)
    return r, _part(rz, 1, n), P.tanh(P.add(_part(x, 2, n), P.mul(r, inner))), inner


def _gru(at: Any, x: Value, hidden: Value, h: Value) -> Value:
    _, z, new, _ = _gru_parts(x, hidden, h)
    return P.add(new, P.mul(z, P.sub(h, new)))


def _gru_backward(at: Any, x: Value, hidden: Value, h: Value, g: Value) -> tuple[Value, Value, Value]:
    r, z, new, inner = _gru_parts(x, hidden, h)
    d_new = P.mul(P.mul(g, P.sub(1, z)), P.sub(1, P.mul(new, new)))
    d_r, d_z = P.mul(P.mul(d_new, inner), _slope(r)), P.mul(P.mul(g, P.sub(h, new)), _slope(z))
    return _join(d_r, d_z, d_new), _join(d_r, d_z, P.mul(d_new, r)), P.mul(g, z)


def _gru_sample(*extra: str) -> Any:
    return lambda: [((draw("x", 2, 9), draw("hid", 2, 9), draw("h", 2, 3), *[draw(e, 2, 3) for e in extra]), ())]


_GRU_BACKWARD = composite(
    "gru_gates_backward", attrs=(), infer=lambda attrs, x, hidden, h, g: (x, hidden, h), expand=_gru_backward,
    vjp=expansion_vjp(_gru_backward), saves=("ins",), n_out=3, samples=_gru_sample("g"),
    doc="Gradients of gru_gates for (x, hidden, h).")


def _gru_infer(attrs: Any, x: Aval, hidden: Aval, h: Aval) -> Aval:
    return h


composite("gru_gates", attrs=(), infer=_gru_infer, expand=_gru, saves=("ins",), samples=_gru_sample(),
          vjp=lambda ctx, g: tuple(apply(_GRU_BACKWARD, (*ctx.ins, g))),
          doc="(x (..., 3H), hidden (..., 3H) in order r, z, n; state (..., H)) to the new state.")
