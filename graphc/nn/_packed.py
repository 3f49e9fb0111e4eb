"""Batches of sequences of different lengths without padding: :class:`PackedSequence` and the layers' way through it."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import ops
from ..tensor import Tensor

State = tuple[Tensor, ...]
Run = Callable[[Tensor, State, list[Tensor]], tuple[Tensor, State]]


class _PackedSequence(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_PackedSequence):
    """The elements of a batch of sequences, time step by time step, the longest sequence first.

    ``data`` is ``(sum of lengths, *)``; ``batch_sizes`` ``(longest length,)`` says, on the CPU, how many sequences
    reach each step; ``sorted_indices`` is the order of the sequences and ``unsorted_indices`` its inverse, both
    ``None`` for a batch that was sorted already. Made by :func:`pack_sequence` and :func:`pack_padded_sequence`.
    """

    __slots__ = ()

    def __new__(cls, data: Any, batch_sizes: Tensor | None = None, sorted_indices: Tensor | None = None,
                unsorted_indices: Tensor | None = None) -> PackedSequence:
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        if batch_sizes is None:
            if not (isinstance(data, (list, tuple)) and len(data) == 2):
                raise AssertionError("Expected data to be a list or tuple of length 2")
            data, batch_sizes = data
        elif batch_sizes.device.type != "cpu":
            raise ValueError(
                "batch_sizes should always be on CPU. Instances of PackedSequence should never be created manually. "
                "They should be instantiated by functions like pack_sequence and pack_padded_sequences in "
                "nn.utils.rnn. https://pytorch.org/docs/stable/nn.html#torch.nn.utils.rnn.pack_sequence")
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The same with ``data`` moved or cast; the indices follow the device."""
        data = self.data.to(*args, **kwargs)
        if data is self.data:
            return self
        moved = (None if t is None else t.to(data.device) for t in (self.sorted_indices, self.unsorted_indices))
        return type(self)(data, self.batch_sizes, *moved)

    def cuda(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """On the GPU."""
        return self.to(*args, **kwargs) if args or "device" in kwargs else self.to("cuda", **kwargs)

    def cpu(self) -> PackedSequence:
        """On the CPU."""
        return self.to("cpu")

    def _cast(self, data: Tensor) -> PackedSequence:
        return type(self)(data, self.batch_sizes, self.sorted_indices, self.unsorted_indices)

    def double(self) -> PackedSequence:
        """As float64."""
        return self._cast(self.data.double())

    def float(self) -> PackedSequence:
        """As float32."""
        return self._cast(self.data.float())

    def half(self) -> PackedSequence:
        """As float16."""
        return self._cast(self.data.half())

    def long(self) -> PackedSequence:
        """As int64."""
        return self._cast(self.data.long())

    def int(self) -> PackedSequence:
        """As int32."""
        return self._cast(self.data.int())

    def pin_memory(self) -> PackedSequence:
        """In page-locked memory."""
        pinned = (None if t is None else t.pin_memory() for t in (self.sorted_indices, self.unsorted_indices))
        return type(self)(self.data.pin_memory(), self.batch_sizes, *pinned)

    def is_pinned(self) -> bool:
        """Whether the data is in page-locked memory."""
        return self.data.is_pinned()

    @property
    def is_cuda(self) -> bool:
        """Whether the data is on a GPU."""
        return self.data.is_cuda


def index_tensor(indices: Any, device: Any) -> Tensor:
    """An int64 tensor of host integers on ``device``."""
    return ops.tensor(np.asarray(indices, np.int64), device=device)


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """``q`` with ``q[permutation[i]] == i``."""
    return None if permutation is None else permutation.argsort()


def _segments(batch_sizes: list[int]) -> list[tuple[int, int, int]]:
    """Runs of equal batch size as ``(first row of data, steps, batch)``."""
    runs: list[tuple[int, int, int]] = []
    row = 0
    for size in batch_sizes:
        if runs and runs[-1][2] == size:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1, size)
        else:
            runs.append((row, 1, size))
        row += size
    return runs


def run_packed_direction(run: Run, data: Tensor, batch_sizes: list[int], state: State, weights: list[Tensor],
                         reverse: bool) -> tuple[Tensor, State]:
    """One layer in one direction over packed ``data``.

    Steps of equal batch size go through ``run`` (time, batch, features) together. Forward, the batch shrinks and the
    states of finished sequences are set aside; in reverse it grows, starting from the rows of the initial state.

    Returns the packed output and the final state of every sequence, ``(batch, hidden)`` each.
    """
    segments = _segments(batch_sizes)
    outputs: list[Tensor] = []
    finished: list[State] = []
    initial, current = state, tuple(s[: segments[-1][2] if reverse else segments[0][2]] for s in state)
    for first, steps, batch in reversed(segments) if reverse else segments:
        active = current[0].shape[0]
        if active < batch:
            current = tuple(ops.cat([c, s[active:batch]]) for c, s in zip(current, initial, strict=True))
        elif active > batch:
            finished.append(tuple(c[batch:] for c in current))
            current = tuple(c[:batch] for c in current)
        x = data[first: first + steps * batch].view(steps, batch, -1)
        out, current = run(x.flip(0) if reverse else x, current, weights)
        outputs.append((out.flip(0) if reverse else out).reshape(steps * batch, -1))
    if reverse:
        return ops.cat(outputs[::-1]), current
    parts = [current, *reversed(finished)]  # the sequences that ended last come first
    return ops.cat(outputs), tuple(ops.cat(list(p)) for p in zip(*parts, strict=True))
