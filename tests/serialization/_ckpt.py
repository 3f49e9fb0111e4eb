"""Helpers shared by the checkpoint tests: bytes in and out at the NumPy level, and a pickle assembler."""
from __future__ import annotations

import io
import struct
import zipfile
import zlib

from graphc.serialization import container, sniff, torch_format, torch_writer
from graphc.serialization.records import Builder
from graphc.serialization.safetensors_format import read_arrays, write_arrays
from graphc.serialization.source import Source, damage_means_checkpoint_error


def source(data, name="test.ckpt"):
    return Source(io.BytesIO(data), name, 0, len(data))


def dump(obj):
    return b"".join(map(bytes, container.write(obj, container.numpy_leaf)))


def dump_torch(obj):
    return b"".join(map(bytes, torch_writer.write(obj, container.numpy_leaf)))


def dump_safetensors(arrays, metadata=None):
    return b"".join(map(bytes, write_arrays(arrays, metadata)))


def _guarded(read, data, *args):
    src = source(data)
    with damage_means_checkpoint_error(src.name):
        return read(src, *args)


def load(data):
    return _guarded(container.read, data, Builder())


def load_safetensors(data):
    return _guarded(read_arrays, data)[0]


def load_zip(data, **options):
    return _guarded(lambda s: torch_format.read_zip(s, Builder(), **options), data)


def load_legacy(data):
    return _guarded(torch_format.read_legacy, data, Builder())


def load_any(data):
    """As graphc.load, with NumPy arrays instead of Tensors."""
    from graphc.serialization import _read

    return _guarded(lambda s: _read(s, Builder(), None), data)


def kind(data):
    return sniff.kind_of(source(data))


# ------------------------------------------------------------------------------------------------- pickle assembler
def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value):
    return b"J" + struct.pack("<i", value)


def ref(module, name):
    return f"c{module}\n{name}\n".encode()


def pkl(*parts):
    return b"\x80\x02" + b"".join(parts) + b"."


def call(module, name, args):
    """``module.name(*args)`` with ``args`` already assembled."""
    return ref(module, name) + b"(" + args + b"tR"


def storage_id(key="0", numel=4, kind="FloatStorage", location="cpu", module="torch"):
    return b"(" + text("storage") + ref(module, kind) + text(key) + text(location) + number(numel) + b"tQ"


def ints(*values):
    return b"(" + b"".join(v if isinstance(v, bytes) else number(v) for v in values) + b"t"


def tensor(storage=None, offset=0, size=(4,), stride=(1,), extra=b"", function="_rebuild_tensor_v2"):
    offset = offset if isinstance(offset, bytes) else number(offset)
    hooks = ref("collections", "OrderedDict") + b")R"
    return call("torch._utils", function,
                (storage or storage_id()) + offset + ints(*size) + ints(*stride) + b"\x89" + hooks + extra)


def make_zip(pickle, storages=(("0", b"\0" * 16),), root="archive", extra=(), method=zipfile.ZIP_STORED):
    """A .pt archive by Python's zipfile around a hand-made pickle."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as z:
        z.writestr(f"{root}/data.pkl", pickle)
        for key, data in storages:
            z.writestr(f"{root}/data/{key}", data)
        z.writestr(f"{root}/version", "3\n")
        for name, data in extra:
            z.writestr(name, data)
    return out.getvalue()


def raw_entry(name, data, at, **over):
    """(local header + data, directory entry) of a zip entry with any field overridden."""
    f = {"crc": zlib.crc32(data), "size": len(data), "packed": len(data), "flags": 0, "method": 0, "offset": at,
         "local_name": name, "local_size": None, **over}
    size = f["size"] if f["local_size"] is None else f["local_size"]
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, f["flags"], f["method"], 0, 0x21, f["crc"], f["packed"], size,
                        len(f["local_name"]), 0) + f["local_name"] + data
    central = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, f["flags"], f["method"], 0, 0x21, f["crc"], f["packed"],
                          f["size"], len(name), 0, 0, 0, 0, 0, f["offset"]) + name
    return local, central


def raw_zip(entries, **end):
    """A zip file of ``(name, data, overrides)``; ``end`` overrides fields of the end record."""
    body, directory = b"", b""
    for name, data, over in entries:
        local, central = raw_entry(name, data, len(body), **over)
        body += local
        directory += central
    f = {"count": len(entries), "size": len(directory), "offset": len(body), "disk": 0, "comment": b"", **end}
    return body + directory + struct.pack("<4s4H2LH", b"PK\5\6", f["disk"], f["disk"], f["count"], f["count"],
                                          f["size"], f["offset"], len(f["comment"])) + f["comment"]


def raw_checkpoint(pickle, **end):
    """The plainest acceptable archive: data.pkl and one storage of 16 bytes."""
    return raw_zip([(b"a/data.pkl", pickle, {}), (b"a/data/0", b"\0" * 16, {})], **end)
