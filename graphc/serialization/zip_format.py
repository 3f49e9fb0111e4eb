"""The part of the zip format that PyTorch checkpoints use, read strictly and written plainly.

Only stored (uncompressed) entries: there is then no decompression bomb, and a file can't hold more data than its own
size. Reading accepts one layout: entries that don't overlap, then the central directory, then its end records, and
nothing behind them. Layout: PKWARE APPNOTE.TXT sections 4.3 and 4.5.
"""
from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import CheckpointError
from .source import Source

_EOCD = struct.Struct("<4s4H2LH")
_EOCD64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX32 = 0xFFFFFFFF
_ALLOWED_FLAGS = 0x0808  # sizes in a data descriptor, UTF-8 name
_BAD_PARTS = ("", ".", "..")
TORCHSCRIPT = "a TorchScript archive, which holds code; load it with PyTorch and save its state_dict()"
ALIGNMENT = 64  # of every entry's data, as PyTorch writes it, so that readers can map the file


@dataclass(frozen=True)
class ZipEntry:
    """One stored entry: ``size`` bytes at file offset ``start``."""

    name: str
    start: int
    size: int
    crc: int


def read_directory(source: Source) -> dict[str, ZipEntry]:
    """Every entry by name. Raises CheckpointError for anything but a plain, consistent archive of stored entries."""
    count, size, offset = _end_records(source)
    if size > source.size or count * _CENTRAL.size > size:
        raise CheckpointError("damaged zip archive: its directory is larger than the file")
    raw = source.read(offset, size)
    entries: dict[str, ZipEntry] = {}
    extents: list[tuple[int, int]] = []
    position = 0
    for _ in range(count):
        entry, header, position = _central_entry(source, raw, position)
        if entry.name in entries:
            raise CheckpointError(f"zip archive: two entries are named {entry.name[:100]!r}")
        entries[entry.name] = entry
        extents.append((header, entry.start + entry.size))
    if position != size:
        raise CheckpointError("damaged zip archive: bytes left over in its directory")
    end = 0
    for first, last in sorted(extents):
        if first < end:
            raise CheckpointError("zip archive: its entries overlap")
        end = last
    if end > offset:
        raise CheckpointError("zip archive: an entry reaches into the directory")
    return entries


def read_zip_entry(source: Source, entry: ZipEntry, check: bool = True) -> np.ndarray:
    """The bytes of ``entry`` (uint8, owned); CheckpointError when its CRC-32 doesn't match and ``check`` is set."""
    raw = np.empty(entry.size, np.uint8)
    source.read_into(entry.start, raw)
    if check and zlib.crc32(raw.data) != entry.crc:
        raise CheckpointError(f"damaged data: the CRC-32 of '{entry.name[:200]}' does not match")
    return raw


def _end_records(source: Source) -> tuple[int, int, int]:
    """(number of entries, size and offset of the central directory)."""
    if source.size < _EOCD.size:
        raise CheckpointError("truncated zip archive")
    at = source.size - _EOCD.size
    sig, disk, cd_disk, here, count, size, offset, comment = _EOCD.unpack(source.read(at, _EOCD.size))
    if sig != b"PK\5\6" or comment:
        raise CheckpointError("truncated or damaged zip archive: it does not end with an end-of-directory record")
    fields = [disk, cd_disk, here, count, size, offset]
    end = at
    if at >= _LOCATOR.size and source.read(at - _LOCATOR.size, 4) == b"PK\6\7":
        end, fields = _end_records_64(source, at - _LOCATOR.size, fields)
    disk, cd_disk, here, count, size, offset = fields
    if disk or cd_disk or here != count:
        raise CheckpointError("zip archive split over several disks")
    if offset + size != end:
        raise CheckpointError("damaged zip archive: its directory is not where its end record says")
    return count, size, offset


def _end_records_64(source: Source, at: int, narrow: list[int]) -> tuple[int, list[int]]:
    _, disk, start, disks = _LOCATOR.unpack(source.read(at, _LOCATOR.size))
    if disk or disks > 1 or start + _EOCD64.size != at:
        raise CheckpointError("damaged zip archive: its 64-bit end record is not where its locator says")
    sig, record, _, _, *wide = _EOCD64.unpack(source.read(start, _EOCD64.size))
    if sig != b"PK\6\6" or record != _EOCD64.size - 12:
        raise CheckpointError("damaged zip archive: bad 64-bit end record")
    limits = [0xFFFF] * 4 + [_MAX32] * 2
    if any(n not in (w, m) for n, w, m in zip(narrow, wide, limits)):
        raise CheckpointError("damaged zip archive: its two end records disagree")
    return start, wide


def _central_entry(source: Source, raw: bytes, at: int) -> tuple[ZipEntry, int, int]:
    """(entry, offset of its local header, position of the next directory entry)."""
    if at + _CENTRAL.size > len(raw):
        raise CheckpointError("damaged zip archive: its directory ends early")
    (sig, _, _, flags, method, _, _, crc, packed, size, n_name, n_extra, n_comment, disk, _, _, header,
     ) = _CENTRAL.unpack_from(raw, at)
    if sig != b"PK\1\2":
        raise CheckpointError("damaged zip archive: bad directory entry")
    at += _CENTRAL.size
    next_at = at + n_name + n_extra + n_comment
    if next_at > len(raw):
        raise CheckpointError("damaged zip archive: its directory ends early")
    raw_name, extra = raw[at:at + n_name], raw[at + n_name:at + n_name + n_extra]
    name = _name(raw_name)
    size, packed, header = _wide(extra, [size, packed, header])
    if method and "/code/" in name:
        raise CheckpointError(TORCHSCRIPT)
    if method or packed != size:
        raise CheckpointError(f"zip entry '{name}' is compressed; checkpoints are stored uncompressed, and a "
                              "compressed one could unpack to any size")
    if flags & ~_ALLOWED_FLAGS or disk:
        raise CheckpointError(f"zip entry '{name}' is encrypted or uses features that checkpoints don't")
    start = _local_start(source, header, raw_name, flags, crc, size)
    if start + size > source.size:
        raise CheckpointError(f"zip entry '{name}' claims {size} bytes, which the file doesn't have: truncated")
    return ZipEntry(name, start, size, crc), header, next_at


def _name(raw: bytes) -> str:
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        name = raw.decode("cp437")
    parts = name.split("/")
    if "\0" in name or "\\" in name or any(part in _BAD_PARTS for part in parts) or len(name) > 4096:
        raise CheckpointError(f"zip entry with a suspicious name: {name[:100]!r}")
    return name


def _wide(extra: bytes, values: list[int]) -> list[int]:
    """Replace the 32-bit fields that say "see the zip64 extra" by their 64-bit values."""
    if _MAX32 not in values:
        return values
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        at += 4
        if kind == 1:
            wanted = sum(v == _MAX32 for v in values)
            if length < 8 * wanted or at + length > len(extra):
                break
            fresh = iter(struct.unpack_from(f"<{wanted}Q", extra, at))
            return [next(fresh) if v == _MAX32 else v for v in values]
        at += length
    raise CheckpointError("damaged zip archive: 64-bit sizes are missing")


def _local_start(source: Source, header: int, name: bytes, flags: int, crc: int, size: int) -> int:
    """Where the data of an entry starts; its local header must agree with the directory."""
    fixed = source.read(header, _LOCAL.size)
    sig, _, local_flags, method, _, _, local_crc, packed, local_size, n_name, n_extra = _LOCAL.unpack(fixed)
    if sig != b"PK\3\4" or method or source.read(header + _LOCAL.size, n_name) != name:
        raise CheckpointError("damaged zip archive: a local header disagrees with the directory")
    if local_flags & 8 != flags & 8 or local_flags & ~_ALLOWED_FLAGS:
        raise CheckpointError("damaged zip archive: a local header disagrees with the directory")
    extra = source.read(header + _LOCAL.size + n_name, n_extra)
    if not flags & 8:
        local_size, packed, _ = _wide(extra, [local_size, packed, 0])
        if (local_crc, local_size, packed) != (crc, size, size):
            raise CheckpointError("damaged zip archive: a local header disagrees with the directory")
    return header + _LOCAL.size + n_name + n_extra


def write_zip(entries: Iterable[tuple[str, Any]]) -> Iterator[Any]:
    """The bytes of an archive of stored ``(name, bytes-like)`` entries, in chunks; each entry's data is aligned."""
    directory: list[bytes] = []
    position = 0
    for name, data in entries:
        local, central, view = _entry_headers(name.encode(), memoryview(data).cast("B"), position)
        directory.append(central)
        yield local
        yield view
        position += len(local) + len(view)
    size, count = sum(map(len, directory)), len(directory)
    yield from directory
    end = position + size
    # The 64-bit records are always written, as PyTorch does; readers that don't need them skip them.
    yield _EOCD64.pack(b"PK\6\6", _EOCD64.size - 12, 45, 45, 0, 0, count, count, size, position)
    yield _LOCATOR.pack(b"PK\6\7", 0, end, 1)
    yield _EOCD.pack(b"PK\5\6", 0, 0, min(count, 0xFFFF), min(count, 0xFFFF), min(size, _MAX32),
                     min(position, _MAX32), 0)


def _entry_headers(name: bytes, view: memoryview, position: int) -> tuple[bytes, bytes, memoryview]:
    """(local header with padding, directory entry, data)."""
    size, crc = len(view), zlib.crc32(view)
    big, far = size >= _MAX32, position >= _MAX32
    wide = struct.pack("<2H2Q", 1, 16, size, size) if big else b""
    padding = -(position + _LOCAL.size + len(name) + len(wide) + 4) % ALIGNMENT
    extra = wide + struct.pack("<2H", 0x4246, padding) + b"Z" * padding  # "FB": PyTorch's padding field
    short = min(size, _MAX32)
    local = _LOCAL.pack(b"PK\3\4", 45, 0x0800, 0, 0, 0x21, crc, short, short, len(name), len(extra)) + name + extra
    values = ([size, size] if big else []) + ([position] if far else [])
    wide = struct.pack(f"<2H{len(values)}Q", 1, 8 * len(values), *values) if values else b""
    central = _CENTRAL.pack(b"PK\1\2", 45, 45, 0x0800, 0, 0, 0x21, crc, short, short, len(name), len(wide), 0, 0, 0, 0,
                            min(position, _MAX32)) + name + wide
    return local, central, view
