"""The safetensors layout: agreement with the reference library, and refusal of every malformed header."""
from __future__ import annotations

import json
import random

import numpy as np
import pytest
from _ckpt import dump_safetensors, load_safetensors

from graphc.errors import CheckpointError
from graphc.serialization.dtype_table import TYPES

library = pytest.importorskip("safetensors")
sn = pytest.importorskip("safetensors.numpy")


def sample():
    r = np.random.default_rng(0)
    return {"a.b": r.standard_normal((3, 4)).astype("f4"), "i": np.arange(5), "s": np.array(3.0), 'é"\\x\n': np.ones(3, "c8"),
            "b": np.array([True, False, True]), "e": np.zeros((0, 3), "f2"), "u": np.arange(3, dtype="u2")}


def raw(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def info(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize("metadata", [None, {}, {"k": "v", "é": "\n\u2028"}])
def test_library_reads_ours_and_we_read_theirs(metadata):
    arrays = sample()
    for got in (sn.load(dump_safetensors(arrays, metadata)), load_safetensors(sn.save(arrays, metadata))):
        assert got.keys() == arrays.keys()
        for name, a in arrays.items():
            assert got[name].dtype == a.dtype and got[name].shape == a.shape
            assert got[name].tobytes() == a.tobytes()


@pytest.mark.parametrize("element", [t for t in TYPES if t.code], ids=lambda t: t.name)
def test_every_dtype_bit_exact(element):
    bits = np.random.default_rng(1).integers(0, 256, 6 * element.itemsize, dtype=np.uint8)
    bits = bits & 1 if element.name == "bool" else bits
    a = bits.view(element.np).reshape(2, 3)
    data = dump_safetensors({"x": a})
    got = load_safetensors(data)["x"]
    assert got.dtype == element.np and got.shape == (2, 3) and got.tobytes() == a.tobytes()
    [(name, entry)] = library.deserialize(data)
    assert (name, entry["dtype"], bytes(entry["data"])) == ("x", element.code, a.tobytes())


def test_layouts_are_made_contiguous_and_little_endian():
    a = np.arange(24.0).reshape(2, 3, 4)
    arrays = {"t": a.transpose(2, 0, 1), "s": a[:, ::2, ::-1], "big": a.astype(">f8"), "x": np.broadcast_to(a[:1], (5, 3, 4))}
    got = sn.load(dump_safetensors(arrays))
    for name in arrays:
        assert np.array_equal(got[name], arrays[name])


def test_data_is_aligned_and_deterministic():
    arrays = {"b": np.ones(3, "?"), "h": np.ones(1, "f2"), "d": np.ones(2), "f": np.ones(3, "f4")}
    data = dump_safetensors(arrays)
    assert data == dump_safetensors(dict(reversed(arrays.items())))
    size = int.from_bytes(data[:8], "little")
    assert size % 8 == 0
    for name, entry in json.loads(data[8:8 + size]).items():
        assert entry["data_offsets"][0] % arrays[name].itemsize == 0


def test_bool_bytes_above_one_become_true():
    data = raw({"x": info("BOOL", (3,), (0, 3))}, b"\0\2\xff")
    assert load_safetensors(data)["x"].view(np.uint8).tolist() == [0, 1, 1]


@pytest.mark.parametrize("bad", [
    {1: np.ones(1)}, {"__metadata__": np.ones(1)}, {"x": np.ones(1, complex)}, {"x": np.array(["a"])},
    {"x": np.array([None])}, {"\ud800": np.ones(1)},
], ids=["int name", "reserved name", "complex128", "text", "object", "surrogate"])
def test_writer_refuses(bad):
    with pytest.raises(TypeError):
        dump_safetensors(bad)


def test_writer_refuses_metadata_that_is_not_text():
    with pytest.raises(TypeError, match="str to str"):
        dump_safetensors({"x": np.ones(1)}, {"n": 1})


ok = info()
BAD = {
    "empty file": b"", "short": b"\1\0\0", "length beyond file": raw({}, length=3), "huge length": raw({}, length=2**63),
    "length over limit": raw({}, length=100_000_001), "no json": raw(b""), "not an object": raw(b"[]"), "number": raw(b"1"),
    "null": raw(b"null"), "truncated json": raw(b'{"x":'), "trailing comma": raw(b'{"x":1,}'), "two values": raw(b"{}{}"),
    "not utf-8": raw(b'{"\xff":1}'), "bom": raw(b"\xef\xbb\xbf{}"), "nul": raw(b"{}\0"), "leading nul": raw(b"\0{}"),
    "surrogate": raw(b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
    "control character": raw(b'{"__metadata__":{"a":"\n"}}'),
    "duplicate tensor": raw(b'{"x":%b,"x":%b}' % ((json.dumps(ok).encode(),) * 2), bytes(4)),
    "duplicate key": raw(b'{"x":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
    "duplicate escaped": raw(b'{"x":%b,"\\u0078":%b}' % ((json.dumps(ok).encode(),) * 2), bytes(4)),
    "duplicate metadata": raw(b'{"__metadata__":{"a":"1","a":"2"}}'),
    "metadata list": raw({"__metadata__": []}), "metadata number": raw({"__metadata__": {"a": 1}}),
    "metadata nested": raw({"__metadata__": {"a": {}}}),
    "entry is list": raw({"x": ["F32", [1], [0, 4]]}, bytes(4)), "entry is null": raw({"x": None}),
    "no dtype": raw({"x": {"shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "no shape": raw({"x": {"dtype": "F32", "data_offsets": [0, 4]}}, bytes(4)),
    "no offsets": raw({"x": {"dtype": "F32", "shape": [1]}}, bytes(4)),
    "unknown dtype": raw({"x": info("F31")}, bytes(4)), "dtype number": raw({"x": info(5)}, bytes(4)),
    "sub-byte dtype": raw({"x": info("F4", (2,), (0, 1))}, bytes(1)),
    "shape float": raw({"x": info(shape=(1.0,))}, bytes(4)), "shape negative": raw({"x": info(shape=(-1,))}, bytes(4)),
    "shape bool": raw({"x": info(shape=(True,))}, bytes(4)), "shape text": raw({"x": info(shape=("1",))}, bytes(4)),
    "shape nested": raw({"x": info(shape=([1],))}, bytes(4)),
    "shape too long": raw({"x": info(shape=(1,) * 65)}, bytes(4)),
    "shape overflow": raw({"x": info(shape=(2**32, 2**32))}, bytes(4)),
    "shape overflow with zero": raw({"x": info(shape=(2**63, 2**63, 0), offsets=(0, 0))}),
    "shape beyond 64 bit": raw({"x": info(shape=(2**64, 0), offsets=(0, 0))}),
    "itemsize overflow": raw({"x": info("F64", shape=(2**61,), offsets=(0, 0))}),
    "shape NaN": raw(b'{"x":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', bytes(4)),
    "shape minus zero": raw(b'{"x":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}'),
    "shape exponent": raw(b'{"x":{"dtype":"F32","shape":[1e0],"data_offsets":[0,4]}}', bytes(4)),
    "huge digits": raw(b'{"x":{"dtype":"F32","shape":[%b],"data_offsets":[0,4]}}' % (b"9" * 5000), bytes(4)),
    "offset float": raw({"x": info(offsets=(0.0, 4.0))}, bytes(4)), "one offset": raw({"x": info(offsets=(0,))}, bytes(4)),
    "three offsets": raw({"x": info(offsets=(0, 4, 4))}, bytes(4)),
    "reversed offsets": raw({"x": info(offsets=(4, 0))}, bytes(4)),
    "offset beyond file": raw({"x": info(offsets=(0, 4))}, bytes(3)),
    "offset infinity": raw(b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,Infinity]}}', bytes(4)),
    "size mismatch": raw({"x": info(shape=(2,))}, bytes(4)),
    "hole at start": raw({"x": info(offsets=(4, 8))}, bytes(8)),
    "hole between": raw({"x": ok, "y": info(offsets=(8, 12))}, bytes(12)),
    "overlap": raw({"x": ok, "y": info(offsets=(2, 6))}, bytes(6)), "same place": raw({"x": ok, "y": ok}, bytes(4)),
    "trailing bytes": raw({"x": ok}, bytes(5)), "data without tensors": raw({}, b"abc"),
    "deep nesting": raw(b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "too many tensors": raw(b"{" + b",".join(b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % i
                                             for i in range(200_001)) + b"}"),
    "too many tokens": raw(b'{"x":[' + b"," * 4_000_001 + b"]}"),
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_headers_are_refused(name):
    with pytest.raises(CheckpointError) as error:
        load_safetensors(BAD[name])
    assert "test.ckpt" in str(error.value)
    assert "damaged checkpoint (" not in str(error.value)  # refused by a check, not by the safety net


def test_valid_oddities_are_accepted():
    spaced = raw(b'  { "x" : {"shape":[1], "data_offsets":[0,4],"dtype":"F32", "extra":[1,{"a":null}]} }   ', bytes(4))
    assert load_safetensors(spaced)["x"].shape == (1,)
    assert load_safetensors(raw(b'{"__metadata__":null}')) == {}
    assert load_safetensors(raw({"x": info(shape=(0, 2**60), offsets=(0, 0)), "y": ok}, bytes(4)))["x"].size == 0
    assert load_safetensors(raw({})) == {}


def _verdict(read, data, error):
    try:
        return read(data)
    except error:
        return None


def _agree(data):
    """Accepted by both with equal content, or refused by both."""
    ours = _verdict(load_safetensors, data, CheckpointError)
    theirs = _verdict(library.deserialize, data, library.SafetensorError)
    if theirs is not None and any(0 in e["shape"] and max(e["shape"]) >= 2**60 for _, e in theirs):
        assert ours is None  # NumPy has no such array
        return 0
    assert (ours is None) == (theirs is None), data
    if ours is None:
        return 0
    assert {name: (tuple(e["shape"]), bytes(e["data"])) for name, e in theirs} == {
        name: (a.shape, a.tobytes()) for name, a in ours.items()}
    return 1


_TOKENS = [b'"', b"{", b"}", b"[", b"]", b",", b":", b"0", b"-", b".", b"e", b"1", b"null", b"true", b'"shape"', b"\\u0061",
           b"\\ud800", b"18446744073709551616", b"9223372036854775807", b"4.0", b"-0", b" ", b'"F32"', b'"I64"', b"\0"]


def test_differential_byte_mutants():
    base = dump_safetensors({k: v for k, v in sample().items() if k != "b"}, {"k": "v"})
    size, rng, accepted = int.from_bytes(base[:8], "little"), random.Random(1), 0
    for _ in range(3000):
        data = bytearray(base)
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            at, what = min(rng.randrange(8 + size if rng.random() < 0.9 else len(base)), len(data) - 1), rng.random()
            token = rng.choice(_TOKENS)
            if what < 0.4:
                data[at] ^= 1 << rng.randrange(8)
            elif what < 0.7:
                data[at:at + len(token)] = token
            elif what < 0.85:
                data[at:at] = token
                data[:8] = ((int.from_bytes(data[:8], "little") + len(token)) % 2**64).to_bytes(8, "little")
            elif what < 0.95:
                cut = min(len(data), at + rng.randrange(1, 6))
                data[:8] = max(0, int.from_bytes(data[:8], "little") - (cut - at)).to_bytes(8, "little")
                del data[at:cut]
            else:
                data = data[:max(9, at)]
        accepted += _agree(bytes(data))
    assert accepted > 50  # payload mutants load: the test isn't vacuous


def _mutate_document(doc, rng):
    """Change one value of the header to something near it or far from it, keeping it JSON."""
    name = rng.choice([n for n in doc if n != "__metadata__"])
    entry = doc[name]
    values = [0, 1, 2, 3, 4, 8, 12, -1, 2**31, 2**63, 2**64 - 1, 2**64, 1.5, 4.0, None, True, "4", [], {}]
    what = rng.randrange(7)
    if what == 0:
        entry["dtype"] = rng.choice(["F32", "I64", "U8", "F16", "BF16", "F64", "C64", "F8_E4M3", "BOOL", "f32", "", None, 3])
    elif what == 1 and entry["shape"]:
        entry["shape"][rng.randrange(len(entry["shape"]))] = rng.choice(values)
    elif what == 2:
        entry["data_offsets"][rng.randrange(2)] = rng.choice(values)
    elif what == 3:
        entry["shape"].insert(rng.randrange(len(entry["shape"]) + 1), rng.choice([1, 1, 1, 0, 2]))
    elif what == 4:
        del entry[rng.choice(list(entry))]
    elif what == 5:
        entry["shape"].reverse()
    else:
        doc["__metadata__"] = rng.choice([None, {}, {"a": "b"}, {"a": 1}, [], "x"])


def test_differential_structured_mutants():
    base = dump_safetensors({k: v for k, v in sample().items() if k != "b"}, {"k": "v"})
    size, rng, accepted = int.from_bytes(base[:8], "little"), random.Random(2), 0
    for _ in range(3000):
        doc = json.loads(base[8:8 + size])
        for _ in range(rng.choice([1, 1, 2])):
            if any(isinstance(doc.get(n), dict) and {"dtype", "shape", "data_offsets"} <= doc[n].keys() for n in doc):
                try:
                    _mutate_document(doc, rng)
                except (KeyError, TypeError, AttributeError):  # an entry lost what the second change wanted
                    pass
        accepted += _agree(raw(doc, base[8 + size:]))
    assert accepted > 200
