"""The safetensors layout by hand: 8-byte little-endian header length, JSON header, tensor bytes.

Format: https://github.com/huggingface/safetensors#format. Reading is as strict as the reference implementation and
stricter in three points: a JSON key given twice is refused, since readers disagree on which one counts; so are shapes
that NumPy can't hold (only empty ones, such as [0, 2**63]) and headers of more than MAX_TENSORS tensors.
"""
from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import CheckpointError
from .dtype_table import BY_CODE, ElementType, little_endian_bytes, normalise, of_array
from .records import MAX_DIMS, product, representable
from .source import Source

MAX_HEADER = 100_000_000  # the reference implementation's limit
MAX_TENSORS = 200_000  # keeps parsing a hostile header below half a second
_MAX_TOKENS = 4_000_000  # JSON punctuation: bounds what json.loads may allocate
_INTEGER = re.compile(r"0|[1-9][0-9]{0,19}")
_SUB_BYTE = ("F4", "F6_E2M3", "F6_E3M2")


@dataclass(frozen=True)
class Entry:
    """One tensor of a header; ``start`` and ``end`` are byte offsets into the data section."""

    name: str
    element: ElementType
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """A validated header. ``raw`` is its JSON text as stored, ``data_start`` the file offset of the data section."""

    entries: dict[str, Entry]
    metadata: dict[str, str]
    raw: bytes
    data_start: int


def read_header(source: Source) -> Header:
    """Read and validate the header of ``source``; CheckpointError says what is wrong with it."""
    if source.size < 8:
        raise CheckpointError(f"a safetensors file has at least 8 bytes, this one {source.size}: truncated or empty")
    length = int.from_bytes(source.read(0, 8), "little")
    if length > MAX_HEADER:
        raise CheckpointError(f"the header claims {length} bytes; at most {MAX_HEADER} are allowed")
    if 8 + length > source.size:
        raise CheckpointError(f"the header claims {length} bytes, but only {source.size - 8} follow: truncated")
    raw = source.read(8, length)
    document = _parse(raw)
    metadata = _metadata(document.pop("__metadata__", None))
    entries = {name: _entry(name, info) for name, info in document.items()}
    _check_layout(entries.values(), source.size - 8 - length)
    return Header(entries, metadata, raw, 8 + length)


def read_entry(source: Source, header: Header, name: str) -> np.ndarray:
    """The bytes of one tensor, as stored (uint8, owned)."""
    entry = header.entries[name]
    raw = np.empty(entry.end - entry.start, np.uint8)
    source.read_into(header.data_start + entry.start, raw)
    return raw


def as_array(raw: np.ndarray, entry: Entry) -> np.ndarray:
    """``raw`` from :func:`read_entry` as an array of the entry's dtype and shape; reuses its memory."""
    normalise(raw, entry.element)
    return raw.view(entry.element.np).reshape(entry.shape)


def read_arrays(source: Source) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Every tensor, in the order of the data, and the metadata."""
    header = read_header(source)
    arrays = {name: as_array(read_entry(source, header, name), entry) for name, entry in header.entries.items()}
    return arrays, header.metadata


def write_arrays(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> Iterator[Any]:
    """The file's bytes, in chunks. Raises TypeError for names, metadata or dtypes that the format can't hold."""
    order, header = build_header({name: (of_array(a), a.shape) for name, a in arrays.items()}, metadata)
    yield header
    for name in order:
        yield little_endian_bytes(arrays[name])


def build_header(specs: Mapping[str, tuple[ElementType, tuple[int, ...]]],
                 metadata: Mapping[str, str] | None) -> tuple[list[str], bytes]:
    """The order of the tensors in the data section, and length + JSON as bytes, padded to 8.

    Wider elements come first and the data starts at a multiple of 8, so every tensor is aligned without gaps.
    """
    if len(specs) > MAX_TENSORS:
        raise ValueError(f"a file holds at most {MAX_TENSORS} tensors, not {len(specs)}")
    document: dict[str, Any] = {}
    if metadata is not None:
        for key, value in metadata.items():
            if not isinstance(key, str) or not isinstance(value, str):
                raise TypeError("safetensors metadata must map str to str, "
                                f"got {type(key).__name__}: {type(value).__name__} for {key!r}")
        document["__metadata__"] = dict(metadata)
    for name in specs:
        if not isinstance(name, str) or name == "__metadata__":
            raise TypeError(f"tensor names must be strings other than '__metadata__', got {name!r}")
    order = sorted(specs, key=lambda name: (-specs[name][0].itemsize, name))
    position = 0
    for name in order:
        element, shape = specs[name]
        if element.code is None:
            raise TypeError(f"tensor '{name}': safetensors has no dtype for {element.name}")
        end = position + product(shape) * element.itemsize
        document[name] = {"dtype": element.code, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    try:
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise TypeError(f"names and metadata must be valid Unicode: {error}") from None
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise ValueError(f"the header would need {len(text)} bytes; at most {MAX_HEADER} are allowed")
    return order, len(text).to_bytes(8, "little") + text


class _Duplicate(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise _Duplicate(f"the key {twice[:100]!r} is given twice")
    return found


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{text[:40]} is not an unsigned 64-bit integer")
    return int(text)


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def parse_json(text: str) -> Any:
    """Strict JSON of unsigned integers: no duplicate keys, NaN or Infinity. Raises CheckpointError."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_int=_integer, parse_constant=_refuse_constant)
    except RecursionError:
        raise CheckpointError("the header is nested too deeply") from None
    except ValueError as error:
        raise CheckpointError(f"the header is not valid JSON: {str(error)[:200]}") from None


def _parse(raw: bytes) -> dict[str, Any]:
    if raw.count(b'"data_offsets"') > MAX_TENSORS:
        raise CheckpointError(f"the header lists more than {MAX_TENSORS} tensors")
    if sum(raw.count(mark) for mark in (b",", b"[", b"{", b":")) > _MAX_TOKENS:
        raise CheckpointError(f"the header holds more than {_MAX_TOKENS} JSON tokens")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"the header is not UTF-8: {error}") from None
    if not text.lstrip(" \t\r\n").startswith("{"):
        raise CheckpointError(f"the header must be a JSON object, it starts with {text[:20]!r}")
    document = parse_json(text)
    if "\\u" in text:  # only escapes can smuggle half a surrogate pair past the UTF-8 check
        try:
            json.dumps(document, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise CheckpointError("the header holds an unpaired surrogate") from None
    return document


def _metadata(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise CheckpointError("__metadata__ must map strings to strings")
    return value


def _entry(name: str, info: Any) -> Entry:
    where = f"tensor '{name[:200]}'"
    if not isinstance(info, dict):
        raise CheckpointError(f"{where}: its header entry must be an object, not {type(info).__name__}")
    for key in ("dtype", "shape", "data_offsets"):
        if key not in info:
            raise CheckpointError(f"{where}: '{key}' is missing")
    code, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
    element = BY_CODE.get(code) if isinstance(code, str) else None
    if element is None:
        why = "sub-byte dtypes aren't supported" if code in _SUB_BYTE else "unknown dtype"
        raise CheckpointError(f"{where}: {why}: {str(code)[:40]!r}")
    if not _is_u64_list(shape) or len(shape) > MAX_DIMS:
        raise CheckpointError(f"{where}: shape must be a list of at most {MAX_DIMS} unsigned integers")
    if not _is_u64_list(offsets) or len(offsets) != 2:
        raise CheckpointError(f"{where}: data_offsets must be two unsigned integers")
    start, end = offsets
    if not representable(shape, element.itemsize):
        raise CheckpointError(f"{where}: the product of shape {shape} overflows")
    need = product(shape) * element.itemsize
    if end - start != need:
        raise CheckpointError(f"{where}: shape {shape} of {element.name} needs {need} bytes, its data_offsets "
                              f"[{start}, {end}] give {end - start}")
    return Entry(name, element, tuple(shape), start, end)


def _is_u64_list(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 1 << 64 for v in value)


def _check_layout(entries: Iterable[Entry], available: int) -> None:
    """The data section must be covered exactly once: no hole, no overlap, nothing left over."""
    position = 0
    for entry in sorted(entries, key=lambda e: (e.start, e.end)):
        if entry.start != position:
            problem = "overlaps the one before it" if entry.start < position else "leaves a hole before it"
            raise CheckpointError(f"tensor '{entry.name[:200]}' starts at byte {entry.start} of the data and {problem} "
                                  f"(expected {position})")
        position = entry.end
    if position != available:
        raise CheckpointError(f"the header describes {position} bytes of data, the file holds {available}: "
                              + ("truncated" if position > available else "trailing bytes"))
