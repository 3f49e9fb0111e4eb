"""Batches of sequences of different lengths: padding, packing and back."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ... import ops
from ...tensor import Tensor
from .._packed import PackedSequence, index_tensor, invert_permutation

__all__ = ["PackedSequence", "invert_permutation", "pack_padded_sequence", "pack_sequence", "pad_packed_sequence",
           "pad_sequence", "unpack_sequence", "unpad_sequence"]


def _host_lengths(lengths: Any) -> list[int]:
    return [int(n) for n in (lengths.tolist() if isinstance(lengths, Tensor) else lengths)]


def _check_lengths(lengths: list[int], batch: int, steps: int, enforce_sorted: bool) -> None:
    if len(lengths) != batch:
        raise RuntimeError(f"Expected `len(lengths)` to be equal to batch_size, but got {len(lengths)} "
                           f"(batch_size={batch})")
    if any(n <= 0 for n in lengths):
        raise RuntimeError("Length of all samples has to be greater than 0, but found an element in 'lengths' that is "
                           "<= 0")
    if enforce_sorted and any(a < b for a, b in zip(lengths, lengths[1:], strict=False)):
        raise RuntimeError("`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You can "
                           "pass `enforce_sorted=False` to pack_padded_sequence and/or pack_sequence to sidestep this "
                           "requirement if you do not need ONNX exportability.")
    if max(lengths) > steps:
        raise RuntimeError(f"Expected all lengths to be at most the size of the time dimension, {steps}, but got "
                           f"{max(lengths)}")


def pack_padded_sequence(input: Tensor, lengths: Any, batch_first: bool = False,
                         enforce_sorted: bool = True) -> PackedSequence:
    """Pack ``(T, B, *)`` (or ``(B, T, *)``); ``lengths`` are host integers or a tensor, which is read.

    Raises:
        RuntimeError: lengths that are not positive, too long, too many or, with ``enforce_sorted``, not decreasing.
    """
    steps, batch = (input.shape[1], input.shape[0]) if batch_first else (input.shape[0], input.shape[1])
    sizes = _host_lengths(lengths)
    _check_lengths(sizes, batch, steps, enforce_sorted)
    order = np.arange(batch) if enforce_sorted else np.argsort(-np.asarray(sizes), kind="stable")
    ordered = np.asarray(sizes)[order]
    batch_sizes = (ordered[None, :] > np.arange(ordered[0])[:, None]).sum(1)
    time = np.repeat(np.arange(len(batch_sizes)), batch_sizes)
    sample = order[np.concatenate([np.arange(b) for b in batch_sizes])]
    rows = sample * steps + time if batch_first else time * batch + sample
    flat = input.reshape(steps * batch, *input.shape[2:])
    data = flat.index_select(0, index_tensor(rows, input.device))
    sorted_indices = None if enforce_sorted else index_tensor(order, input.device)
    return PackedSequence(data, index_tensor(batch_sizes, "cpu"), sorted_indices, None)


def _gather_or_pad(rows: Tensor, index: np.ndarray, shape: tuple[int, ...], value: float) -> Tensor:
    """Rows by ``index`` with ``value`` where it is -1, as ``(*shape, *row)``."""
    padding = ops.full((1, *rows.shape[1:]), value, dtype=rows.dtype, device=rows.device)
    index = np.where(index < 0, rows.shape[0], index).reshape(-1)
    picked = ops.cat([rows, padding]).index_select(0, index_tensor(index, rows.device))
    return picked.view(*shape, *rows.shape[1:])


def pad_packed_sequence(sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0,
                        total_length: int | None = None) -> tuple[Tensor, Tensor]:
    """Undo :func:`pack_padded_sequence`: the padded batch in its original order, and the lengths ``(B,)``.

    Raises:
        ValueError: ``total_length`` is shorter than the longest sequence.
    """
    sizes = np.asarray(sequence.batch_sizes.tolist())
    steps, batch = len(sizes), int(sizes[0])
    if total_length is not None:
        if total_length < steps:
            raise ValueError("Expected total_length to be at least the length of the longest sequence in input, but "
                             f"got total_length={total_length} and max sequence length being {steps}")
        steps = total_length
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    column = np.arange(batch)
    index = np.full((steps, batch), -1)
    index[: len(sizes)] = np.where(column[None, :] < sizes[:, None], starts[:, None] + column, -1)
    lengths = (sizes[:, None] > column[None, :]).sum(0)
    if sequence.unsorted_indices is not None:
        order = np.asarray(sequence.unsorted_indices.tolist())
        index, lengths = index[:, order], lengths[order]
    shape = (batch, steps) if batch_first else (steps, batch)
    padded = _gather_or_pad(sequence.data, index.T if batch_first else index, shape, padding_value)
    return padded, index_tensor(lengths, "cpu")


def pad_sequence(sequences: Any, batch_first: bool = False, padding_value: float = 0.0,
                 padding_side: str = "right") -> Tensor:
    """Stack tensors ``(L_i, *)`` into ``(max L, B, *)`` (or ``(B, max L, *)``), padded at one side.

    Raises:
        RuntimeError: ``sequences`` is not iterable or empty, or an unknown ``padding_side``.
    """
    if not isinstance(sequences, Iterable):
        raise RuntimeError("pad_sequence: Expected iterable for input sequences, but got arg of type: "
                           f"{type(sequences)}")
    if padding_side not in ("left", "right"):
        raise RuntimeError(f"Expected padding_side to be one of left or right, but got {padding_side}")
    items = list(sequences)
    if not items:
        raise RuntimeError("received an empty list of sequences")
    lengths = np.asarray([s.shape[0] for s in items])
    steps, batch = int(lengths.max()), len(items)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    time = np.arange(steps)[None, :] - ((steps - lengths)[:, None] if padding_side == "left" else 0)
    index = np.where((time >= 0) & (time < lengths[:, None]), starts[:, None] + time, -1)
    shape = (batch, steps) if batch_first else (steps, batch)
    return _gather_or_pad(ops.cat(items), index if batch_first else index.T, shape, padding_value)


def unpad_sequence(padded_sequences: Tensor, lengths: Any, batch_first: bool = False) -> list[Tensor]:
    """The sequences of a padded batch, each cut to its length."""
    sizes = _host_lengths(lengths)
    return [(padded_sequences[i] if batch_first else padded_sequences[:, i])[:n] for i, n in enumerate(sizes)]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Pack tensors ``(L_i, *)``."""
    lengths = [s.shape[0] for s in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences of a packed batch, in their original order."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
