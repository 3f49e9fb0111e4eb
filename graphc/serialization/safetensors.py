"""The safetensors library's functions for Tensors: ``save_file``, ``load_file``, ``save``, ``load``, ``safe_open``.

Names and arguments follow ``safetensors.torch``; the files are those of ``safetensors_format.py``.
"""
from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..device import require
from ..errors import CheckpointError
from ..tensor import Tensor, from_numpy_copy, to_numpy
from . import safetensors_format as _format
from .atomic import write_chunks
from .source import Source, damage_means_checkpoint_error, open_source

__all__ = ["save_file", "load_file", "save", "load", "safe_open"]


def save_file(tensors: Mapping[str, Tensor], filename: str | os.PathLike[str],
              metadata: Mapping[str, str] | None = None) -> None:
    """Write ``tensors`` to ``filename``, atomically. Tensors that share memory are written one by one.

    Raises TypeError for a value that is no tensor or array, a name that is no string, a dtype without a safetensors
    code (complex128), or ``metadata`` that is not str -> str.
    """
    write_chunks(filename, chunks(tensors, metadata))


def save(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """The bytes that :func:`save_file` would write."""
    return b"".join(chunks(tensors, metadata))


def chunks(tensors: Mapping[str, Any], metadata: Mapping[str, str] | None) -> Iterator[Any]:
    """The file's bytes, in parts; everything that can be wrong with ``tensors`` is raised here, not later."""
    if not isinstance(tensors, Mapping):
        raise TypeError(f"Expected a dict of [str, Tensor] but received {type(tensors).__name__}")
    arrays = {}
    for name, value in tensors.items():
        if not isinstance(value, (Tensor, np.ndarray)):
            raise TypeError(f"Key `{name}` is invalid, expected a Tensor but received {type(value).__name__}")
        arrays[name] = to_numpy(value) if isinstance(value, Tensor) else value
    parts = _format.write_arrays(arrays, metadata)
    return itertools.chain([next(parts)], parts)


def load_file(filename: str | os.PathLike[str], device: Any = "cpu") -> dict[str, Tensor]:
    """Every tensor of a safetensors file. Raises CheckpointError for a damaged file, FileNotFoundError for none."""
    where = require(device)
    with open_source(filename) as source, damage_means_checkpoint_error(source.name):
        return read(source, where)


def load(data: bytes) -> dict[str, Tensor]:
    """Every tensor of a safetensors file given as bytes."""
    with damage_means_checkpoint_error("<bytes>"):
        return read(Source(io.BytesIO(data), "<bytes>", 0, len(data)), require("cpu"))


def read(source: Source, where: Any) -> dict[str, Tensor]:
    """Every tensor of ``source``, on device ``where``."""
    header = _format.read_header(source)
    return {name: _tensor(_format.as_array(_format.read_entry(source, header, name), entry), name, where)
            for name, entry in header.entries.items()}


def _tensor(array: np.ndarray, name: str, where: Any) -> Tensor:
    try:
        result = from_numpy_copy(array)
    except TypeError as error:
        raise CheckpointError(f"tensor '{name[:200]}': dtype {array.dtype} has no counterpart in graphc: {error}"
                              ) from None
    return result if where.type == "cpu" else result.to(where)


class safe_open:
    """Opens a safetensors file for reading tensor by tensor; a context manager.

    ``framework`` chooses what :meth:`get_tensor` returns: "pt" Tensors, "np" NumPy arrays.
    """

    def __init__(self, filename: str | os.PathLike[str], framework: str = "pt", device: Any = "cpu"):
        if framework not in ("pt", "torch", "pytorch", "graphc", "np", "numpy"):
            raise ValueError(f"framework must be 'pt' or 'np', not {framework!r}")
        self._numpy = framework in ("np", "numpy")
        self._where = require(device)
        self._name = os.fspath(filename)
        self._context = open_source(filename)
        self._source = self._context.__enter__()
        try:
            with damage_means_checkpoint_error(self._name):
                self._header = _format.read_header(self._source)
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> safe_open:
        return self

    def __exit__(self, *exc: Any) -> None:
        self._context.__exit__(None, None, None)

    def keys(self) -> list[str]:
        """The tensors' names, sorted."""
        return sorted(self._header.entries)

    def offset_keys(self) -> list[str]:
        """The tensors' names in the order of their data."""
        return sorted(self._header.entries, key=lambda name: self._header.entries[name].start)

    def metadata(self) -> dict[str, str] | None:
        """The ``__metadata__`` of the file, None when it has none."""
        return dict(self._header.metadata) or None

    def get_tensor(self, name: str) -> Any:
        """One tensor. Raises CheckpointError when the file has no such tensor."""
        entry = self._entry(name)
        with damage_means_checkpoint_error(self._name):
            array = _format.as_array(_format.read_entry(self._source, self._header, name), entry)
            return array if self._numpy else _tensor(array, name, self._where)

    def get_slice(self, name: str) -> SafeSlice:
        """A handle that reads only the part of a tensor that it is indexed with."""
        return SafeSlice(self, self._entry(name))

    def _entry(self, name: str) -> _format.Entry:
        entry = self._header.entries.get(name)
        if entry is None:
            raise CheckpointError(f"{self._name}: File does not contain tensor {name}")
        return entry


class SafeSlice:
    """One tensor of an open file, not read yet. Index with ints and slices."""

    def __init__(self, owner: safe_open, entry: _format.Entry):
        self._owner, self._entry = owner, entry

    def get_shape(self) -> list[int]:
        """The tensor's shape."""
        return list(self._entry.shape)

    def get_dtype(self) -> str:
        """The safetensors code of its dtype, such as "F32"."""
        return str(self._entry.element.code)

    def __getitem__(self, index: Any) -> Any:
        entry, owner = self._entry, self._owner
        if entry.end == entry.start:
            array = np.empty(entry.shape, entry.element.np)[index]
        else:
            mapped = np.memmap(owner._name, np.uint8, "r", owner._header.data_start + entry.start,
                               (entry.end - entry.start,))
            array = np.array(mapped.view(entry.element.np).reshape(entry.shape)[index])
        if entry.element.name == "bool":
            array = array.view(np.uint8) != 0
        return array if owner._numpy else _tensor(array, entry.name, owner._where)
