"""Collating: a list of samples becomes one batch (``default_collate``), one sample becomes tensors
(``default_convert``). ``default_collate_fn_map`` is a documented registry: element type -> function."""
from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

import numpy as np

from .... import ops
from ....tensor import Tensor, from_array, from_numpy
from . import host

FnMap = dict[Any, Callable[..., Any]]


def _rebuild_mapping(like: Any, items: dict[Any, Any]) -> Any:
    """A mapping of ``like``'s type with these items; a plain dict when the type cannot be built that way."""
    try:
        if isinstance(like, MutableMapping):
            clone = copy.copy(like)  # the type may carry more than its items
            clone.update(items)
            return clone
        return type(like)(items)
    except TypeError:
        return items


def _rebuild_sequence(like: Any, items: list[Any]) -> Any:
    """A sequence of ``like``'s type; tuples become lists as in PyTorch, ranges and the like too."""
    if isinstance(like, tuple):
        return items
    try:
        if isinstance(like, MutableSequence):
            clone = copy.copy(like)
            for i, x in enumerate(items):
                clone[i] = x
            return clone
        return type(like)(items)  # type: ignore[call-arg]
    except TypeError:
        return items


def default_convert(data: Any) -> Any:
    """NumPy arrays and scalars inside ``data`` become tensors (arrays share memory); everything else stays.

    Object and string arrays stay. Tuples become lists, named tuples, lists and mappings keep their type.
    """
    if isinstance(data, Tensor):
        return data
    if isinstance(data, np.ndarray):
        return data if data.dtype.kind in "SUO" else from_numpy(data)
    if isinstance(data, np.generic) and data.dtype.kind not in "SUO":
        return from_array(np.array(data))
    if isinstance(data, Mapping):
        return _rebuild_mapping(data, {key: default_convert(data[key]) for key in data})
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*[default_convert(d) for d in data])
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return _rebuild_sequence(data, [default_convert(d) for d in data])
    return data


_UNSUPPORTED = "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {}"


def collate(batch: Any, *, collate_fn_map: FnMap | None = None) -> Any:
    """Collate by the type of the first element: a function of ``collate_fn_map``, or element by element for mappings
    and sequences. Raises TypeError for other types, RuntimeError for sequences of unequal length."""
    elem = batch[0]
    if collate_fn_map is not None:
        fn = collate_fn_map.get(type(elem))
        if fn is None:
            fn = next((f for kind, f in collate_fn_map.items() if isinstance(elem, kind)), None)
        if fn is not None:
            return fn(batch, collate_fn_map=collate_fn_map)
    if isinstance(elem, Mapping):
        return _rebuild_mapping(elem, {key: collate([d[key] for d in batch], collate_fn_map=collate_fn_map)
                                       for key in elem})
    if isinstance(elem, Sequence):
        if any(len(e) != len(elem) for e in batch):
            raise RuntimeError("each element in list of batch should be of equal size; found lengths "
                               f"{sorted({len(e) for e in batch})}")
        columns = [collate(samples, collate_fn_map=collate_fn_map) for samples in zip(*batch)]
        if isinstance(elem, tuple) and hasattr(elem, "_fields"):
            return type(elem)(*columns)
        return _rebuild_sequence(elem, columns)
    raise TypeError(_UNSUPPORTED.format(type(elem)))


def collate_tensor_fn(batch: Any, *, collate_fn_map: FnMap | None = None) -> Tensor:
    """n tensors of shape S -> one of shape (n, *S). Raises RuntimeError when shapes differ."""
    return host.stack(batch)


def collate_numpy_array_fn(batch: Any, *, collate_fn_map: FnMap | None = None) -> Any:
    """n arrays of shape S -> a tensor of shape (n, *S). Raises TypeError for string and object arrays."""
    if batch[0].dtype.kind in "SUO":
        raise TypeError(_UNSUPPORTED.format(batch[0].dtype))
    return collate([from_numpy(b) for b in batch], collate_fn_map=collate_fn_map)


def collate_numpy_scalar_fn(batch: Any, *, collate_fn_map: FnMap | None = None) -> Tensor:
    """n NumPy scalars -> a tensor of shape (n,) of their dtype."""
    return from_array(np.array(batch))


def collate_float_fn(batch: Any, *, collate_fn_map: FnMap | None = None) -> Tensor:
    """n floats -> a float64 tensor of shape (n,)."""
    return from_array(np.array(batch, dtype=np.float64))


def collate_int_fn(batch: Any, *, collate_fn_map: FnMap | None = None) -> Tensor:
    """n ints (or bools) -> a tensor of shape (n,), int64 (or bool)."""
    arr = np.array(batch)
    if arr.dtype == np.int64 or arr.dtype == np.bool_:
        return from_array(arr)
    return ops.tensor(list(batch))  # ints mixed with floats, or too large: PyTorch's rules


def collate_str_fn(batch: Any, *, collate_fn_map: FnMap | None = None) -> Any:
    """Strings and bytes stay as they are."""
    return batch


default_collate_fn_map: FnMap = {
    Tensor: collate_tensor_fn,
    np.ndarray: collate_numpy_array_fn,
    (np.bool_, np.number, np.object_): collate_numpy_scalar_fn,
    float: collate_float_fn,
    int: collate_int_fn,
    str: collate_str_fn,
    bytes: collate_str_fn,
}


def default_collate(batch: Any) -> Any:
    """Samples to a batch: tensors, arrays and numbers gain a leading batch dimension; strings stay; mappings, named
    tuples and sequences are collated element by element (tuples become lists).

    Raises TypeError for other element types, RuntimeError for tensors or sequences of unequal size.
    """
    return collate(batch, collate_fn_map=default_collate_fn_map)
