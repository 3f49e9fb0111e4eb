"""Reading PyTorch checkpoints (.pt, .pth) without PyTorch and without unpickling.

Zip files of PyTorch 1.6 and later, and the older format of consecutive pickles followed by raw storages. A file is
read in four steps, each of which refuses before the next one does anything: the archive's structure; every opcode and
global of the pickle; a dry run that builds no tensor and checks every size, stride and offset; then the data.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import CheckpointError
from .dtype_table import ElementType, normalise, swap_elements
from .limits import check_depth
from .pickle_globals import StorageRef, resolve, storage_from_id
from .pickle_machine import Machine, Token
from .pickle_ops import scan
from .records import Builder, DryBuilder, StorageRecord
from .source import Source
from .zip_format import TORCHSCRIPT, ZipEntry, read_directory, read_zip_entry

_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # LONG1 of _MAGIC, STOP
_MAX_VERSION = 10  # of the archive layout, as PyTorch's kMaxSupportedFileFormatVersion
_BUDGET = 64 << 20


def read_zip(source: Source, builder: Builder, object_budget: int | None = None) -> Any:
    """The object saved in a zip-format PyTorch file. Raises CheckpointError for anything else."""
    archive = _Archive(source)
    data = archive.read("data.pkl").tobytes()
    budget = object_budget if object_budget is not None else _BUDGET + 4 * source.size
    if scan(data, 0, budget, _check_global) != len(data):
        raise CheckpointError("bytes follow the end of data.pkl")
    loader = _ZipStorages(archive)
    check_depth(Machine(data, 0, DryBuilder(), resolve, loader.find).run(), (Token,))
    loader.load()
    return Machine(data, 0, builder, resolve, loader.find).run()


def _check_global(module: str, name: str) -> None:
    resolve(module, name, DryBuilder())


class _Archive:
    """The records of a checkpoint archive, named without the folder that they all lie in."""

    def __init__(self, source: Source):
        self._source = source
        entries = read_directory(source)
        roots = {name.partition("/")[0] for name in entries}
        if len(roots) != 1 or not all("/" in name for name in entries):
            raise CheckpointError("a zip archive, but not a checkpoint: its entries don't lie in one folder")
        self.entries: dict[str, ZipEntry] = {name.partition("/")[2]: e for name, e in entries.items()}
        if "constants.pkl" in self.entries:
            raise CheckpointError(TORCHSCRIPT)
        if "data.pkl" not in self.entries:
            raise CheckpointError("a zip archive, but not a checkpoint: it has no data.pkl")
        # PyTorch can be told to write no checksums: then all are zero. One damaged checksum never looks like that.
        self._crc = any(e.crc for e in entries.values())
        version = self.read("version").tobytes() if "version" in self.entries else b"1"
        if not version.strip().isdigit() or int(version) > _MAX_VERSION:
            raise CheckpointError(f"archive version {version[:20]!r} is newer than {_MAX_VERSION}")
        order = self.read("byteorder").tobytes() if "byteorder" in self.entries else b"little"
        if order not in (b"little", b"big"):
            raise CheckpointError(f"unknown byte order {order[:20]!r}")
        self.big_endian = order == b"big"

    def read(self, name: str) -> np.ndarray:
        return read_zip_entry(self._source, self.entries[name], self._crc)


class _ZipStorages:
    """Storages by key. ``find`` answers a persistent id without reading; ``load`` then reads what was asked for."""

    def __init__(self, archive: _Archive):
        self._archive = archive
        self._found: dict[str, StorageRecord] = {}

    def find(self, pid: Any) -> StorageRef:
        kind, key, location, numel, _ = storage_from_id(pid, 5)
        nbytes = numel * kind.element.itemsize
        record = self._found.get(key)
        if record is None:
            entry = self._archive.entries.get(f"data/{key}")
            if entry is None or "/" in key:
                raise CheckpointError(f"the storage '{key[:100]}' is missing from the archive")
            if entry.size != nbytes:
                raise CheckpointError(f"the storage '{key[:100]}' should hold {numel} x {kind.element.itemsize} bytes, "
                                      f"its zip entry has {entry.size}")
            record = self._found[key] = StorageRecord(nbytes, None, location, key, element=kind.element)
        elif record.nbytes != nbytes:
            raise CheckpointError(f"the storage '{key[:100]}' is given two sizes")
        return StorageRef(record, kind.element)

    def load(self) -> None:
        for key, record in self._found.items():
            if record.data is None:
                raw = self._archive.read(f"data/{key}")
                assert record.element is not None
                if self._archive.big_endian:
                    swap_elements(raw, record.element)
                normalise(raw, record.element)
                record.data = raw


def read_legacy(source: Source, builder: Builder, object_budget: int | None = None) -> Any:
    """The object saved by PyTorch before 1.6 (or with ``_use_new_zipfile_serialization=False``)."""
    data = source.read(0, source.size)
    budget = object_budget if object_budget is not None else _BUDGET + 4 * source.size
    stream = _Stream(data, budget)
    if stream.plain() != _MAGIC:
        raise CheckpointError("not a PyTorch checkpoint: wrong magic number")
    if stream.plain() != 1001:
        raise CheckpointError("unknown version of the legacy PyTorch format")
    info = stream.plain()
    if type(info) is not dict or info.get("little_endian", info.get(b"little_endian")) is not True:
        raise CheckpointError("a legacy PyTorch checkpoint written on a big-endian machine")
    begin = stream.position
    storages = _LegacyStorages()
    check_depth(stream.run(DryBuilder(), storages.find), (Token,))
    keys = stream.plain()
    storages.load(data, stream.position, keys)
    return Machine(data, begin, builder, resolve, storages.find).run()


class _Stream:
    """Consecutive pickles at the start of ``data``."""

    def __init__(self, data: bytes, budget: int):
        self._data, self._budget, self.position = data, budget, 0

    def run(self, builder: Builder, persistent: Callable[[Any], Any]) -> Any:
        begin = self.position
        self.position = scan(self._data, begin, self._budget, _check_global)
        return Machine(self._data, begin, builder, resolve, persistent).run()

    def plain(self) -> Any:
        """The next pickle, which must not refer to storages."""
        value = self.run(DryBuilder(), _no_storage)
        check_depth(value, (Token,))
        return value


def _no_storage(pid: Any) -> Any:
    raise CheckpointError("refused: a storage where none belongs")


class _LegacyStorages:
    """Storages by key, and the views of them that PyTorch before 0.4 wrote as storages of their own."""

    def __init__(self) -> None:
        self._roots: dict[str, StorageRecord] = {}
        self._views: dict[tuple[str, str], tuple[StorageRecord, int]] = {}

    def find(self, pid: Any) -> StorageRef:
        kind, key, location, numel, view = storage_from_id(pid, 6)
        element = kind.element
        root = self._roots.get(key)
        if root is None:
            root = self._roots[key] = StorageRecord(numel * element.itemsize, None, location, key, element=element)
        elif root.nbytes != numel * element.itemsize:
            raise CheckpointError(f"the storage '{key[:100]}' is given two sizes")
        if view is None:
            return StorageRef(root, element)
        return StorageRef(self._view(root, element, view), element)

    def _view(self, root: StorageRecord, element: ElementType, view: Any) -> StorageRecord:
        if type(view) is not tuple or len(view) != 3 or any(type(n) is not int or n < 0 for n in view[1:]):
            raise CheckpointError("a malformed view of a storage")
        key, offset, numel = view
        begin, nbytes = offset * element.itemsize, numel * element.itemsize
        if begin + nbytes > root.nbytes:
            raise CheckpointError("a view outside its storage")
        found = self._views.get((root.key, str(key)))
        if found is None:
            record = StorageRecord(nbytes, None, root.location, root.key, element=element)
            found = self._views[root.key, str(key)] = (record, begin)
        elif found[0].nbytes != nbytes or found[1] != begin:
            raise CheckpointError("a view of a storage is given two sizes")
        return found[0]

    def load(self, data: bytes, position: int, keys: Any) -> None:
        """Each storage is a 64-bit element count and its bytes, in the order of ``keys``."""
        names = [str(k.decode("ascii") if type(k) is bytes else k) for k in keys] if type(keys) is list else None
        if names is None or len(set(names)) != len(names) or set(names) != self._roots.keys():
            raise CheckpointError("the list of storages does not match the storages in use")
        for name in names:
            record = self._roots[name]
            assert record.element is not None
            count = int.from_bytes(data[position:position + 8], "little", signed=True)
            end = position + 8 + record.nbytes
            if count * record.element.itemsize != record.nbytes or end > len(data):
                raise CheckpointError(f"the storage '{name[:100]}' should hold {record.nbytes} bytes: truncated or "
                                      "damaged")
            record.data = np.frombuffer(data, np.uint8, record.nbytes, position + 8).copy()
            normalise(record.data, record.element)
            position = end
        if position != len(data):
            raise CheckpointError(f"{len(data) - position} bytes follow the last storage")
        for (key, _), (record, begin) in self._views.items():
            whole = self._roots[key].data
            assert whole is not None
            record.data = whole[begin:begin + record.nbytes]
