"""Saving and loading: ``graphc.save`` and ``graphc.load``.

``save`` writes graphc's own format by default (``container.py``): a safetensors file, written atomically, in which
every byte is covered by a checksum. ``load`` recognises that format, any safetensors file, and PyTorch's .pt/.pth files
of both generations. No code of a file is ever run.
"""
from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from ..errors import CheckpointError
from . import safetensors
from .atomic import write_chunks
from .source import Source, damage_means_checkpoint_error, is_path, open_source

__all__ = ["save", "load", "safetensors", "CheckpointError"]

_FORMATS = ("graphc", "torch", "safetensors")


def save(obj: Any, f: Any, pickle_module: Any = None, pickle_protocol: int = 2,
         _use_new_zipfile_serialization: bool = True, *, format: str = "graphc") -> None:
    """Save ``obj`` to ``f``, a path or a binary file-like object.

    ``obj`` may nest tensors, parameters, NumPy arrays and scalars, numbers of any size, text, bytes, dtypes, devices,
    slices and None in dicts (any plain keys), lists, tuples, sets, OrderedDicts, deques and namespaces. Tensors that
    share memory share it again after loading. Instances of Tensor subclasses keep class and attributes, except in
    the other formats.

    ``format``: "graphc" (checksummed; readable as safetensors), "torch" (a .pt that ``torch.load`` reads) or
    "safetensors" (``obj`` must be a dict of tensors). The other arguments exist for PyTorch's signature; nothing is
    pickled.

    A file at a path is replaced only once its successor is complete and on the disk, so a crash loses nothing.

    Raises:
        TypeError: ``obj`` holds something that is not data, such as a whole Module (save its ``state_dict()``).
        OSError: the system refused; a previous file is intact.
    """
    _refuse_pickle_module(pickle_module)
    if format not in _FORMATS:
        raise ValueError(f"format must be one of {', '.join(_FORMATS)}, not {format!r}")
    if not is_path(f) and not hasattr(f, "write"):
        raise AttributeError("expected 'f' to be string, path, or a file-like object with a 'write' attribute")
    chunks = _chunks(obj, format)
    # The first chunk is made before the file is touched: an object that can't be saved changes nothing.
    write_chunks(f, itertools.chain([next(chunks)], chunks))


def _chunks(obj: Any, format: str) -> Iterator[Any]:
    from .convert import Records

    if format == "safetensors":
        return safetensors.chunks(obj, None)
    if format == "torch":
        from . import torch_writer

        return torch_writer.write(obj, Records())
    from . import container

    return container.write(obj, Records())


def load(f: Any, map_location: Any = None, pickle_module: Any = None, *, weights_only: bool | None = None,
         mmap: bool | None = None, object_budget: int | None = None, **pickle_load_args: Any) -> Any:
    """Load what :func:`save`, ``torch.save`` or the safetensors library wrote to ``f``, a path or binary file object.

    ``map_location`` (None, device, string, dict or callable, as in PyTorch) says where tensors go. ``weights_only=True``
    makes plain tensors of what was saved as instances of Tensor subclasses, whose classes must else be imported already;
    loading never runs code either way. ``mmap`` is accepted for PyTorch's signature: every byte is read and verified.
    ``object_budget`` raises the limit on memory for Python objects (not tensors) of a .pt file, in bytes.

    Raises:
        CheckpointError: (a RuntimeError) the file is damaged, foreign, or asks for code to be run; names the file.
        FileNotFoundError, IsADirectoryError: there is no such file.
    """
    _refuse_pickle_module(pickle_module)
    unknown = set(pickle_load_args) - {"encoding", "errors", "fix_imports"}
    if unknown:
        raise TypeError(f"load() got an unexpected keyword argument '{sorted(unknown)[0]}'")
    if mmap and not is_path(f):
        raise ValueError("f must be a file path in order to use the mmap argument")
    from .convert import TensorBuilder

    builder = TensorBuilder(map_location, weights_only is True)
    with open_source(f) as source, damage_means_checkpoint_error(source.name):
        return _read(source, builder, object_budget)


def _read(source: Source, builder: Any, object_budget: int | None) -> Any:
    from . import container, sniff, torch_format
    from .records import from_array
    from .safetensors_format import as_array, read_entry, read_header

    kind = sniff.kind_of(source)
    if kind == sniff.TORCH_ZIP:
        return torch_format.read_zip(source, builder, object_budget)
    if kind == sniff.TORCH_LEGACY:
        return torch_format.read_legacy(source, builder, object_budget)
    if kind != sniff.SAFETENSORS:
        raise CheckpointError(f"not a checkpoint: {sniff.describe(source)}")
    header = read_header(source)
    if container.is_container(header):
        return container.read(source, builder, header)
    return {name: builder.tensor(from_array(as_array(read_entry(source, header, name), entry)))
            for name, entry in header.entries.items()}


def _refuse_pickle_module(module: Any) -> None:
    if module is not None and getattr(module, "__name__", "") != "pickle":
        raise TypeError(f"pickle_module={module!r}: graphc doesn't pickle, so another pickler can't take over; save "
                        "plain data and tensors")

