"""ONNX models of any batch size, out of models at three sizes.

The models must be equal but for integer vectors (shapes, slice ends, paddings) that are affine in the size: two sizes determine
them, the third one checks it. In the result such a vector is computed from the shape of the first dynamic input.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, GraphcError
from .onnx_writer import to_model
from .program import Program
from .record import record_resized
from .template import REFUSAL

_AWAY = (11, 12, 17)  # added to the example's size: far from the sizes of other axes


def to_dynamic_model(program: Program, model: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any],
                     input_names: Sequence[str] | None, output_names: Sequence[str] | None, opset: int, axes: Any) -> Any:
    """The ONNX model of a program whose inputs in ``axes`` have an axis 0 of any size. ArgumentError, GraphcError."""
    names = [*(input_names or ())]
    names += [f"input_{i}" for i in range(len(names), len(program.in_avals))]
    batch, label = _batch_inputs(names, program, axes)
    size = program.in_avals[batch[0]].shape[0]
    sizes = [size + k for k in _AWAY]
    programs = [record_resized(model, args, kwargs, batch, n, optimise=False) for n in sizes]
    if any(repr(p.sources) != repr(program.sources) for p in programs):
        raise GraphcError(REFUSAL + "; export one file per size")
    protos = [to_model(p, input_names, output_names, opset, one_of_many=True) for p in programs]
    return _merge(protos, sizes, batch, label)


def _batch_inputs(names: list[str], program: Program, axes: Any) -> tuple[list[int], str]:
    """Numbers of the inputs that are dynamic, and the name of their axis."""
    batch: list[int] = []
    label = "batch"
    for name, which in dict(axes).items():
        if name not in names:
            continue  # an output: its axes follow
        if list(which) != [0]:
            raise ArgumentError(f"onnx.export: only axis 0 of an input can be dynamic, not {list(which)} of {name!r}")
        batch.append(names.index(name))
        label = str(which[0]) if isinstance(which, dict) else label
    shapes = [program.in_avals[i].shape for i in batch]
    if not batch or any(not s or s[0] != shapes[0][0] for s in shapes) or shapes[0][0] < 1:
        raise ArgumentError(f"onnx.export: dynamic axes need inputs of one batch size of at least 1, got shapes {shapes} for "
                            f"the inputs named (the inputs are {names})")
    return sorted(batch), label


def _merge(protos: list[Any], sizes: list[int], batch: list[int], label: str) -> Any:
    import onnx

    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    a, b, c = [p.graph for p in protos]
    texts = [[n.SerializeToString(deterministic=True) for n in g.node] for g in (a, b, c)]
    tables = [{t.name: t for t in g.initializer} for g in (a, b, c)]
    if texts[0] != texts[1] or texts[0] != texts[2] or len({tuple(t) for t in tables}) != 1:
        raise GraphcError(REFUSAL + "; export one file per size")
    front: list[Any] = []
    kept: list[Any] = []
    for name, tensor in tables[0].items():
        if len({t[name].SerializeToString(deterministic=True) for t in tables}) == 1:
            kept.append(tensor)
            continue
        low, high, third = [numpy_helper.to_array(t[name]) for t in tables]
        rise = _affine(low, high, third, sizes)
        for suffix, array in (("rise", rise), ("base", low - rise * sizes[0])):
            kept.append(numpy_helper.from_array(np.ascontiguousarray(array), f"{name}.{suffix}"))
        front += [helper.make_node("Mul", ["graphc.batch", f"{name}.rise"], [f"{name}.scaled"]),
                  helper.make_node("Add", [f"{name}.scaled", f"{name}.base"], [name])]
    if front:
        kept.append(numpy_helper.from_array(np.zeros(1, np.int64), "graphc.first"))
        front[:0] = [helper.make_node("Shape", [a.input[batch[0]].name], ["graphc.shape"]),
                     helper.make_node("Gather", ["graphc.shape", "graphc.first"], ["graphc.batch"])]
    out = protos[0]
    nodes = [*front, *a.node]
    for part, items in ((a.node, nodes), (a.initializer, kept)):
        copies = [type(i).FromString(i.SerializeToString()) for i in items]
        del part[:]
        part.extend(copies)
    for first, other in zip((*a.input, *a.output), (*b.input, *b.output)):
        _open(first, other, sizes, label)
    return out


def _affine(low: np.ndarray, high: np.ndarray, third: np.ndarray, sizes: list[int]) -> np.ndarray:
    """The rise per unit of size of an integer vector given at three sizes."""
    if low.dtype == np.int64 and low.ndim == 1 and low.shape == high.shape == third.shape:
        rise = (high - low) // (sizes[1] - sizes[0])
        if all(np.array_equal(low + rise * (n - sizes[0]), v) for n, v in zip(sizes, (low, high, third))):
            return rise
    raise GraphcError(REFUSAL + " (a table of constants has the batch size); export one file per size")


def _open(first: Any, other: Any, sizes: list[int], label: str) -> None:
    """Name the axes whose size differs between two infos of one value."""
    dims = zip(first.type.tensor_type.shape.dim, other.type.tensor_type.shape.dim)
    for i, (d, e) in enumerate(dims):
        if d.dim_value != e.dim_value:
            d.dim_param = label if d.dim_value == sizes[0] else f"{first.name}_axis_{i}"
