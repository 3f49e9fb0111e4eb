"""graphc's checkpoint: a safetensors file that also holds a Python object and checksums of every byte.

Layout of ``__metadata__`` (all values are strings, so any safetensors reader can read the tensors):

    graphc.header.sha256   SHA-256 of the 8 length bytes and the header, these 64 digits taken as zeros; comes first
    graphc.format          "1"
    graphc.sha256          JSON object: tensor name -> SHA-256 of its bytes
    graphc.tree            JSON object: "root" and "nodes" (see tree.py) and "tensors", what each tensor node means;
                           or, when that is long, graphc.tree.tensor, the name of a uint8 tensor that holds the text

A tensor is stored once per storage: under its path in the object when it is alone or fills the storage, so
``model.fc.weight`` is found by that name; views of one storage are described in the tree and share memory again.
"""
from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import CheckpointError
from .dtype_table import BY_NAME, ElementType, little_endian_bytes, normalise
from .records import Builder, DryBuilder, StorageRecord, TensorRecord, check_dims, from_array, row_major
from .safetensors_format import Entry, Header, build_header, read_entry, read_header
from .source import Source
from .tree import Decoder, Encoder, Leaf, Path, path_name, render_path

VERSION = 1
_DIGITS = b"0" * 64
_PREFIX = b'{"__metadata__":{"graphc.header.sha256":"'
_MARKS = ("graphc.format", "graphc.header.sha256", "graphc.sha256", "graphc.tree", "graphc.tree.tensor")
_INLINE_TREE = 1 << 20  # a longer tree is stored as a tensor, so that the header stays small


@dataclass(eq=False)
class _Block:
    """One entry of the file: the bytes of a storage, or of the one tensor in it."""

    name: str
    element: ElementType
    shape: tuple[int, ...]
    raw: Any  # bytes-like, little-endian


def write(obj: Any, leaf: Leaf) -> Iterator[Any]:
    """The bytes of a checkpoint of ``obj`` in chunks. ``leaf`` maps tensors to records, anything else to None.

    Raises TypeError (naming the place inside ``obj``) for what can't be saved, before the first chunk.
    """
    encoder = Encoder(leaf)
    root = encoder.encode(obj)
    blocks, described = _place(encoder.tensors)
    text = json.dumps({"root": root, "nodes": encoder.nodes, "tensors": described}, separators=(",", ":"))
    metadata = {"graphc.header.sha256": _DIGITS.decode(), "graphc.format": str(VERSION)}
    if len(text) > _INLINE_TREE:
        name = _unique("graphc.tree", {b.name for b in blocks})
        data = np.frombuffer(text.encode(), np.uint8)
        blocks.append(_Block(name, BY_NAME["uint8"], data.shape, data.data))
        metadata["graphc.tree.tensor"] = name
    else:
        metadata["graphc.tree"] = text
    metadata["graphc.sha256"] = json.dumps({b.name: hashlib.sha256(b.raw).hexdigest() for b in blocks},
                                           separators=(",", ":"))
    order, header = build_header({b.name: (b.element, b.shape) for b in blocks}, metadata)
    at = 8 + len(_PREFIX)
    assert header[8:at] == _PREFIX and header[at:at + 64] == _DIGITS
    digest = hashlib.sha256(header).hexdigest().encode()
    yield header[:at] + digest + header[at + 64:]
    by_name = {b.name: b for b in blocks}
    for name in order:
        yield by_name[name].raw


def _place(tensors: list[tuple[TensorRecord, Path]]) -> tuple[list[_Block], list[list[Any]]]:
    """The blocks to store, and per tensor ``[block, dtype, shape, strides or null, offset, flags, device]``."""
    groups: dict[int, list[int]] = {}
    for i, (record, _) in enumerate(tensors):
        groups.setdefault(id(record.storage), []).append(i)
    blocks: list[_Block] = []
    described: list[list[Any]] = [[] for _ in tensors]
    names: set[str] = {"__metadata__", ""}
    for members in groups.values():
        main = _owner([tensors[i][0] for i in members])
        record, path = tensors[members[main or 0]]
        name = _unique(path_name(path), names)
        names.add(name)
        try:
            # A lone tensor is stored compactly; views keep the storage they share (or need, when they expand it).
            whole = main is not None or (len(members) == 1 and record.nbytes <= record.storage.nbytes)
            block = _tensor_block(name, record) if whole else _storage_block(name, record)
        except TypeError as error:
            raise TypeError(f"{render_path(path)}: {error}") from None
        blocks.append(block)
        for i in members:
            described[i] = _describe(tensors[i][0], name, compact=main is None and whole)
    return blocks, described


def _owner(records: list[TensorRecord]) -> int | None:
    """Which record is its whole storage in order, if any."""
    for i, r in enumerate(records):
        if r.contiguous and r.offset == 0 and r.nbytes == r.storage.nbytes and not (r.conj or r.neg):
            return i
    return None


def _unique(name: str, taken: set[str]) -> str:
    name, number = name or "tensor", 2
    found = name
    while found in taken:
        found, number = f"{name}#{number}", number + 1
    return found


def _tensor_block(name: str, record: TensorRecord) -> _Block:
    element, shape = record.element, record.shape
    raw = little_endian_bytes(record.array())
    if element.code is None:  # complex128: as pairs of float64
        element, shape = BY_NAME["float64"], (*shape, 2)
    return _Block(name, element, shape, raw)


def _storage_block(name: str, record: TensorRecord) -> _Block:
    element, storage = record.element, record.storage
    assert storage.data is not None
    if storage.nbytes % element.itemsize or element.code is None:
        element = BY_NAME["uint8"]
    count = storage.nbytes // element.itemsize
    return _Block(name, element, (count,), little_endian_bytes(storage.data.view(element.np)))


def _describe(record: TensorRecord, name: str, compact: bool) -> list[Any]:
    flags = "r" * record.requires_grad + "p" * record.parameter
    strides = None if compact or record.contiguous else list(record.strides)
    if not compact:
        flags += "c" * record.conj + "n" * record.neg
    return [name, record.element.name, list(record.shape), strides, 0 if compact else record.offset, flags,
            record.storage.location]


def is_container(header: Header) -> bool:
    """Whether a header carries any of graphc's marks: one damaged mark must not make the file look foreign."""
    return header.raw.startswith(_PREFIX) or any(mark in header.metadata for mark in _MARKS)


def read(source: Source, builder: Builder, header: Header | None = None) -> Any:
    """The object saved in ``source``. Every byte is verified; CheckpointError names the damaged tensor."""
    header = header if header is not None else read_header(source)
    _verify_header(source, header)
    digests = _digests(header)
    blocks = {name: _verified(source, header, entry, digests[name]) for name, entry in header.entries.items()}
    text = _tree_text(header, blocks)
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise CheckpointError("the object table is nested too deeply") from None
    except ValueError as error:
        raise CheckpointError(f"the object table is not valid JSON: {str(error)[:200]}") from None
    if not isinstance(document, dict) or not isinstance(document.get("tensors"), list) or "root" not in document:
        raise CheckpointError("the object table lacks its root or its tensors")
    storages: dict[str, StorageRecord] = {}
    records = [_record(row, header, blocks, storages) for row in document["tensors"]]
    blocks.clear()
    nodes: Any = document.get("nodes")
    Decoder(nodes, records, records, DryBuilder()).decode(document["root"])
    as_tensor = {n[1] for n in nodes if n[0] == "tensor"}
    for i in as_tensor:
        records[i].storage.uses += 1
    for node in nodes:  # arrays and bytes keep their storage alive past the building of tensors
        if node[0] != "tensor" and type(node[-1]) is int and node[0] in ("array", "bytes", "bytearray", "rawarray"):
            records[node[-1]].storage.uses += 2
    tensors = [_build(r, builder) if i in as_tensor else None for i, r in enumerate(records)]
    return Decoder(nodes, tensors, records, builder).decode(document["root"])


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _verify_header(source: Source, header: Header) -> None:
    if not header.raw.startswith(_PREFIX):
        raise CheckpointError("damaged header: it carries graphc's marks but does not begin as graphc writes it")
    at = len(_PREFIX)
    stated, blanked = header.raw[at:at + 64], header.raw[:at] + _DIGITS + header.raw[at + 64:]
    if hashlib.sha256(source.read(0, 8) + blanked).hexdigest().encode() != stated:
        raise CheckpointError("damaged header: its SHA-256 does not match")
    version = header.metadata.get("graphc.format")
    if version != str(VERSION):
        raise CheckpointError(f"checkpoint format {version!r:.40}; this graphc reads format {VERSION}: upgrade graphc")


def _digests(header: Header) -> dict[str, str]:
    try:
        digests = json.loads(header.metadata.get("graphc.sha256", "null"))
    except (ValueError, RecursionError):
        digests = None
    if not isinstance(digests, dict) or digests.keys() != header.entries.keys():
        raise CheckpointError("the list of checksums does not match the list of tensors")
    return digests


def _verified(source: Source, header: Header, entry: Entry, digest: Any) -> np.ndarray:
    raw = read_entry(source, header, entry.name)
    if hashlib.sha256(raw.data).hexdigest() != digest:
        raise CheckpointError(f"damaged data: the SHA-256 of tensor '{entry.name[:400]}' does not match")
    return raw


def _tree_text(header: Header, blocks: dict[str, np.ndarray]) -> str:
    if "graphc.tree" in header.metadata:
        return header.metadata["graphc.tree"]
    block = blocks.get(header.metadata.get("graphc.tree.tensor", ""))
    if block is None:
        raise CheckpointError("the object table is missing")
    return block.tobytes().decode("ascii")


def _record(row: Any, header: Header, blocks: dict[str, np.ndarray], storages: dict[str, StorageRecord],
            ) -> TensorRecord:
    if not isinstance(row, list) or len(row) != 7:
        raise CheckpointError("the object table describes a tensor in an unknown way")
    name, dtype, shape, strides, offset, flags, device = row
    if type(name) is not str or name not in blocks or type(flags) is not str or type(device) is not str:
        raise CheckpointError("the object table refers to a tensor that the file doesn't have")
    element = BY_NAME.get(dtype) if type(dtype) is str else None
    if element is None:
        raise CheckpointError(f"the object table names the unknown dtype {dtype!r:.40}")
    storage = storages.get(name)
    if storage is None:
        raw = blocks[name]
        normalise(raw, element if element.name == "complex128" else header.entries[name].element)
        storage = storages[name] = StorageRecord(raw.size, raw, device[:100], name, element=element)
    dims = check_dims(shape, "size")
    steps = row_major(dims) if strides is None else check_dims(strides, "stride")
    record = TensorRecord(storage, element, dims, steps, offset, "r" in flags, "p" in flags, "c" in flags, "n" in flags)
    record.check()
    return record


def _build(record: TensorRecord, builder: Builder) -> Any:
    value = builder.tensor(record)
    return builder.parameter(value, record.requires_grad) if record.parameter else value


def numpy_leaf(obj: Any) -> TensorRecord | None:
    """A leaf function for NumPy-only use: arrays of storable dtypes count as tensors."""
    if isinstance(obj, np.ndarray) and obj.dtype.name in BY_NAME:
        return from_array(obj)
    return obj if isinstance(obj, TensorRecord) else None
