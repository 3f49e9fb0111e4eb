"""Recurrent layers: RNN, LSTM, GRU over sequences, and their cells."""
from __future__ import annotations

import math
import numbers
import warnings
from typing import Any

from .. import ops
from ..ir.recorder import CASTS
from ..ops import recurrent
from ..tensor import Tensor
from . import functional as F
from . import init
from ._packed import PackedSequence, run_packed_direction
from .module import Module
from .parameter import empty_parameter

__all__ = ["GRU", "GRUCell", "LSTM", "LSTMCell", "RNN", "RNNBase", "RNNCell", "RNNCellBase"]

_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


def _check_arguments(input_size: Any, hidden_size: Any, num_layers: int, bias: Any, batch_first: Any, dropout: Any,
                     proj_size: int) -> None:
    if not isinstance(dropout, numbers.Number) or isinstance(dropout, bool) or not 0 <= dropout <= 1:  # type: ignore[operator]
        raise ValueError("dropout should be a number in range [0, 1] representing the probability of an element being "
                         "zeroed")
    if dropout > 0 and num_layers == 1:  # type: ignore[operator]
        warnings.warn("dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
                      f"num_layers greater than 1, but got dropout={dropout} and num_layers={num_layers}",
                      stacklevel=4)
    for name, value, wanted in (("bias", bias, bool), ("batch_first", batch_first, bool),
                                ("input_size", input_size, int), ("hidden_size", hidden_size, int)):
        if not isinstance(value, wanted):
            raise TypeError(f"{name} should be of type {wanted.__name__}, got: {type(value).__name__}")
    for name, value in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
        if value <= 0:
            raise ValueError(f"{name} must be greater than zero")
    if proj_size < 0:
        raise ValueError("proj_size should be a positive integer or zero to disable projections")
    if proj_size >= hidden_size:
        raise ValueError("proj_size has to be smaller than hidden_size")


class RNNBase(Module):
    """Arguments, parameters and checks of the recurrent layers.

    Per layer and direction: ``weight_ih_l{k}`` ``(gates * hidden, input)``, ``weight_hh_l{k}`` ``(gates * hidden,
    hidden)``, ``bias_ih_l{k}``, ``bias_hh_l{k}``, with ``_reverse`` for the second direction and ``weight_hr_l{k}``
    ``(proj, hidden)`` with projections; all start uniform on ``+-1/sqrt(hidden_size)``.

    Raises:
        TypeError, ValueError: arguments of wrong type or value.
    """

    def __init__(self, mode: str, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0,
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        _check_arguments(input_size, hidden_size, num_layers, bias, batch_first, dropout, proj_size)
        if mode not in _GATES:
            raise ValueError("Unrecognized RNN mode: " + mode)
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self._all_weights: list[list[str]] = []
        for layer in range(num_layers):
            for suffix in ("", "_reverse")[: self._directions]:
                self._make_layer(layer, suffix, device, dtype)
        self.reset_parameters()

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def _out_size(self) -> int:
        """Size of what a direction puts out: hidden or, with projections, ``proj_size``."""
        return self.proj_size or self.hidden_size

    def _make_layer(self, layer: int, suffix: str, device: Any, dtype: Any) -> None:
        gates = _GATES[self.mode] * self.hidden_size
        width = self.input_size if layer == 0 else self._out_size * self._directions
        shapes: dict[str, Any] = {"weight_ih": (gates, width), "weight_hh": (gates, self._out_size)}
        if self.bias:
            shapes.update(bias_ih=gates, bias_hh=gates)
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        names = [f"{kind}_l{layer}{suffix}" for kind in shapes]
        for name, shape in zip(names, shapes.values(), strict=True):
            setattr(self, name, empty_parameter(shape, device, dtype))
        self._all_weights.append(names)

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    @property
    def all_weights(self) -> list[list[Any]]:
        """The parameters of each layer and direction."""
        params = self._parameters
        return [[params[n] if n in params else getattr(self, n) for n in names] for names in self._all_weights]

    @property
    def _flat_weights_names(self) -> list[str]:
        return [name for names in self._all_weights for name in names]

    @property
    def _flat_weights(self) -> list[Any]:
        return [w for weights in self.all_weights for w in weights]

    def flatten_parameters(self) -> None:
        """Does nothing: PyTorch packs weights for cuDNN here; the memory plan places them in graphc."""

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.proj_size != 0:
            text += f", proj_size={self.proj_size}"
        if self.num_layers != 1:
            text += f", num_layers={self.num_layers}"
        if self.bias is not True:
            text += f", bias={self.bias}"
        if self.batch_first is not False:
            text += f", batch_first={self.batch_first}"
        if self.dropout != 0:
            text += f", dropout={self.dropout}"
        if self.bidirectional is not False:
            text += f", bidirectional={self.bidirectional}"
        return text

    # ---- checks

    def check_input(self, input: Tensor, batch_sizes: Tensor | None) -> None:
        """dtype, number of dimensions and feature size of ``input`` (packed: two dimensions)."""
        weight = self.all_weights[0][0]
        if input.dtype != weight.dtype and not CASTS:  # inside an autocast block both become its dtype
            raise ValueError(f"RNN input dtype ({input.dtype}) does not match weight dtype ({weight.dtype}). Convert "
                             f"input: input.to({weight.dtype}), or convert model: model.to({input.dtype})")
        expected = 2 if batch_sizes is not None else 3
        if input.dim() != expected:
            raise RuntimeError(f"input must have {expected} dimensions, got {input.dim()}")
        if self.input_size != input.shape[-1]:
            raise RuntimeError(f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got "
                               f"{input.shape[-1]}")

    def _state_shapes(self, batch: int) -> list[tuple[int, int, int]]:
        """Shape of each part of the hidden state."""
        layers = self.num_layers * self._directions
        shapes = [(layers, batch, self._out_size)]
        return shapes + [(layers, batch, self.hidden_size)] if self.mode == "LSTM" else shapes

    def _checked_state(self, hx: tuple[Tensor, ...], batch: int) -> None:
        for i, (tensor, expected) in enumerate(zip(hx, self._state_shapes(batch), strict=True)):
            if tuple(tensor.shape) != expected:
                which = f"Expected hidden[{i}] size" if self.mode == "LSTM" else "Expected hidden size"
                raise RuntimeError(f"{which} {expected}, got {list(tensor.shape)}")

    # ---- running

    def _kernel(self, input: Tensor, hx: tuple[Tensor, ...], weights: list[list[Tensor]], num_layers: int,
                dropout: float, bidirectional: bool, batch_first: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The sequence function of ``mode``; state in and out as a tuple."""
        raise NotImplementedError

    def _run_one(self, x: Tensor, state: tuple[Tensor, ...],
                 weights: list[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One layer, one direction over ``(T, B, I)`` with states ``(B, H)``."""
        out, last = self._kernel(x, tuple(s.unsqueeze(0) for s in state), [weights], 1, 0.0, False, False)
        return out, tuple(s.squeeze(0) for s in last)

    def _run(self, input: Any, hx: tuple[Tensor, ...] | None) -> tuple[Any, tuple[Tensor, ...]]:
        """Padded, unbatched or packed input; ``hx`` as the user gave it, as a tuple."""
        if isinstance(input, PackedSequence):
            return self._run_packed(input, hx)
        if input.dim() not in (2, 3):
            raise ValueError(f"{type(self).__name__}: Expected input to be 2D or 3D, got {input.dim()}D instead")
        batched = input.dim() == 3
        if hx is not None:
            self._check_ranks(hx, batched)
        if not batched:
            input = input.unsqueeze(0 if self.batch_first else 1)
            hx = None if hx is None else tuple(h.unsqueeze(1) for h in hx)
        batch = input.shape[0 if self.batch_first else 1]
        if hx is None:
            hx = self._zero_state(input, batch)
        self.check_input(input, None)
        self._checked_state(hx, batch)
        out, last = self._kernel(input, hx, self.all_weights, self.num_layers, self.dropout, self.bidirectional,
                                 self.batch_first)
        if batched:
            return out, last
        return out.squeeze(0 if self.batch_first else 1), tuple(h.squeeze(1) for h in last)

    def _check_ranks(self, hx: tuple[Tensor, ...], batched: bool) -> None:
        want = 3 if batched else 2
        if all(h.dim() == want for h in hx):
            return
        kind = "batched 3-D" if batched else "unbatched 2-D"
        if self.mode == "LSTM":
            raise RuntimeError(f"For {kind} input, hx and cx should also be {want}-D but got ({hx[0].dim()}-D, "
                               f"{hx[1].dim()}-D) tensors")
        raise RuntimeError(f"For {kind} input, hx should also be {want}-D but got {hx[0].dim()}-D tensor")

    def _zero_state(self, like: Tensor, batch: int) -> tuple[Tensor, ...]:
        return tuple(ops.zeros(s, dtype=like.dtype, device=like.device) for s in self._state_shapes(batch))

    def permute_hidden(self, hx: Any, permutation: Tensor | None) -> Any:
        """The state with its sequences in another order."""
        if permutation is None:
            return hx
        if isinstance(hx, tuple):
            return tuple(h.index_select(1, permutation) for h in hx)
        return hx.index_select(1, permutation)

    def _run_packed(self, packed: PackedSequence,
                    hx: tuple[Tensor, ...] | None) -> tuple[PackedSequence, tuple[Tensor, ...]]:
        data = packed.data
        self.check_input(data, packed.batch_sizes)
        sizes = [int(b) for b in packed.batch_sizes.tolist()]
        hx = self._zero_state(data, sizes[0]) if hx is None else self.permute_hidden(hx, packed.sorted_indices)
        self._checked_state(hx, sizes[0])
        weights, finals = self.all_weights, []
        for layer in range(self.num_layers):
            if layer > 0 and self.dropout > 0:
                data = F.dropout(data, self.dropout, self.training)
            outs = []
            for direction in range(self._directions):
                at = layer * self._directions + direction
                out, last = run_packed_direction(self._run_one, data, sizes, tuple(h[at] for h in hx), weights[at],
                                                 direction == 1)
                outs.append(out)
                finals.append(last)
            data = outs[0] if len(outs) == 1 else ops.cat(outs, dim=-1)
        state = tuple(ops.stack(list(parts)) for parts in zip(*finals, strict=True))
        result = PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
        return result, self.permute_hidden(state, packed.unsorted_indices)


class RNN(RNNBase):
    """``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)`` (or relu) over ``(T, N, I)``, or ``(N, T, I)`` batch first.

    Returns the outputs ``(T, N, D * H)`` and the last state ``(layers * D, N, H)``; packed in, packed out.
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh",
                 bias: bool = True, batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
                 device: Any = None, dtype: Any = None, **unsupported: Any) -> None:
        _refuse(unsupported)
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        super().__init__(f"RNN_{nonlinearity.upper()}", input_size, hidden_size, num_layers, bias, batch_first,
                         dropout, bidirectional, 0, device, dtype)
        self.nonlinearity = nonlinearity

    def _kernel(self, input: Tensor, hx: tuple[Tensor, ...], weights: list[list[Tensor]], num_layers: int,
                dropout: float, bidirectional: bool, batch_first: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        out, h = recurrent.rnn(input, hx[0], weights, num_layers, self.nonlinearity, dropout, self.training,
                               bidirectional, batch_first)
        return out, (h,)

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        out, (h,) = self._run(input, None if hx is None else (hx,))
        return out, h


class GRU(RNNBase):
    """Gated recurrent unit (Cho et al. 2014); shapes as :class:`RNN`."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, device: Any = None,
                 dtype: Any = None, **unsupported: Any) -> None:
        _refuse(unsupported)
        super().__init__("GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0,
                         device, dtype)

    def _kernel(self, input: Tensor, hx: tuple[Tensor, ...], weights: list[list[Tensor]], num_layers: int,
                dropout: float, bidirectional: bool, batch_first: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        out, h = recurrent.gru(input, hx[0], weights, num_layers, dropout, self.training, bidirectional, batch_first)
        return out, (h,)

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        out, (h,) = self._run(input, None if hx is None else (hx,))
        return out, h


class LSTM(RNNBase):
    """Long short-term memory (Hochreiter and Schmidhuber 1997); state is ``(h, c)``, shapes as :class:`RNN`.

    With ``proj_size`` the hidden state is projected (Sak et al. 2014): ``h`` and outputs have that size, ``c`` does
    not.
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0,
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__("LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
                         proj_size, device, dtype)

    def _kernel(self, input: Tensor, hx: tuple[Tensor, ...], weights: list[list[Tensor]], num_layers: int,
                dropout: float, bidirectional: bool, batch_first: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        return recurrent.lstm(input, hx, weights, num_layers, dropout, self.training, bidirectional, batch_first)

    def forward(self, input: Any, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Any, tuple[Tensor, Tensor]]:
        out, (h, c) = self._run(input, None if hx is None else tuple(hx))
        return out, (h, c)


def _refuse(unsupported: dict[str, Any]) -> None:
    if "proj_size" in unsupported:
        raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
    if unsupported:
        raise TypeError(f"RNNBase.__init__() got an unexpected keyword argument '{next(iter(unsupported))}'")


class RNNCellBase(Module):
    """One step of a recurrent layer: ``(N, input)`` and state ``(N, hidden)`` to the next state; N may be absent."""

    nonlinearity: str | None = None

    def __init__(self, input_size: int, hidden_size: int, bias: bool, num_chunks: int, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        gates = num_chunks * hidden_size
        self.weight_ih = empty_parameter((gates, input_size), device, dtype)
        self.weight_hh = empty_parameter((gates, hidden_size), device, dtype)
        self.register_parameter("bias_ih", empty_parameter(gates, device, dtype) if bias else None)
        self.register_parameter("bias_hh", empty_parameter(gates, device, dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values, uniform on ``+-1/sqrt(hidden_size)``."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.bias is not True:
            text += f", bias={self.bias}"
        if self.nonlinearity not in (None, "tanh"):
            text += f", nonlinearity={self.nonlinearity}"
        return text

    def _weights(self) -> tuple[Any, Any, Any, Any]:
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh

    def _checked(self, input: Tensor, hx: tuple[Tensor, ...] | None, parts: int) -> tuple[Tensor, ...]:
        """The state to start from, zeros if none is given; ``ValueError`` for wrong ranks."""
        name = type(self).__name__
        if input.dim() not in (1, 2):
            raise ValueError(f"{name}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        for i, h in enumerate(hx or ()):
            if h.dim() not in (1, 2):
                which = "hidden" if parts == 1 else f"hx[{i}]"
                raise ValueError(f"{name}: Expected {which} to be 1D or 2D, got {h.dim()}D instead")
        if hx is not None:
            return hx
        shape = (*input.shape[:-1], self.hidden_size)
        return (ops.zeros(shape, dtype=input.dtype, device=input.device),) * parts


class RNNCell(RNNCellBase):
    """One step of :class:`RNN`."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh",
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        (h,) = self._checked(input, None if hx is None else (hx,), 1)
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        return recurrent.rnn_cell(input, h, *self._weights(), self.nonlinearity)


class LSTMCell(RNNCellBase):
    """One step of :class:`LSTM`; state and result are ``(h, c)``."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        return recurrent.lstm_cell(input, self._checked(input, hx, 2), *self._weights())


class GRUCell(RNNCellBase):
    """One step of :class:`GRU`."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        (h,) = self._checked(input, None if hx is None else (hx,), 1)
        return recurrent.gru_cell(input, h, *self._weights())
