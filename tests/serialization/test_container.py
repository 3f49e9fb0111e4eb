"""graphc's own format: everything round-trips, sharing included, and no flipped byte goes unseen."""
from __future__ import annotations

import argparse
import collections
import enum
import hashlib
import json
import math
import pathlib
import random
import re
import struct
import types

import numpy as np
import pytest
from _ckpt import dump, load

from graphc import dtypes
from graphc.device import device
from graphc.errors import CheckpointError
from graphc.serialization.dtype_table import BY_NAME, TYPES
from graphc.serialization.records import StorageRecord, TensorRecord, from_array


def roundtrip(obj):
    return load(dump(obj))


VALUES = {
    "none": None, "true": True, "false": False, "zero": 0, "negative": -7, "int64": 2**63 - 1, "int64 min": -2**63,
    "beyond": 2**63, "huge": 3**5000, "huge negative": -10**400, "float": 0.1, "minus zero": -0.0, "inf": math.inf,
    "minus inf": -math.inf, "tiny": 5e-324, "text": "hé\n\0\"\\", "surrogate": "\ud800x", "empty": "", "astral": "😀",
    "bytes": b"\0\xff", "no bytes": b"", "long bytes": bytes(range(256)) * 40, "bytearray": bytearray(b"ab"),
    "complex": complex(1, -0.0), "list": [1, [2, []]], "tuple": (1, (2, ()), [3]), "dict": {"a": {"b": 1}},
    "keys": {1: "int", 2.5: "float", (1, ("x", None)): "tuple", None: "none", True * 0 + 9: "nine", b"k": "bytes", -2**70: 1},
    "set": {1, "a", (2, 3)}, "frozenset": frozenset({1, frozenset({2})}), "slice": slice(1, None, -2), "range": range(5, -9, -3),
    "ellipsis": ..., "ordered": collections.OrderedDict(b=1, a=2), "counter": collections.Counter("aab"),
    "deque": collections.deque([1, [2]], 5), "defaultdict": collections.defaultdict(list, {"a": [1]}),
    "dtype": dtypes.bfloat16, "dtypes": list(dtypes.ALL), "device": device("cuda", 3), "cpu": device("cpu"),
    "np dtype": np.dtype(">f4"), "path": pathlib.Path("/a/b c"), "namespace": argparse.Namespace(lr=0.1, sizes=[1, 2]),
    "simple namespace": types.SimpleNamespace(x=1),
    "random state": random.Random(3).getstate(), "np text": np.str_("hé"), "np bytes": np.bytes_(b"x"),
    "np float": np.float32(0.1), "np bool": np.bool_(True), "np complex": np.complex64(1 + 2j), "np date": np.datetime64("2020-02-03"),
}


@pytest.mark.parametrize("name", VALUES)
def test_values(name):
    value = VALUES[name]
    got = roundtrip({"v": value})["v"]
    assert type(got) is type(value) and got == value
    assert repr(got) == repr(value)  # tells -0.0 from 0.0, and orders
    assert type(roundtrip(value)) is type(value)  # as the root


def test_nan_keeps_its_bits():
    for bits in (0x7FF8000000000000, 0xFFF8000000000123, 0x7FF0000000000001):
        nan = struct.unpack(">d", struct.pack(">Q", bits))[0]
        got = roundtrip([nan, complex(nan, 1)])
        assert struct.pack(">d", got[0]) == struct.pack(">d", nan)
        assert math.isnan(got[1].real) and got[1].imag == 1


@pytest.mark.parametrize("element", TYPES, ids=lambda t: t.name)
def test_arrays_of_every_dtype_bit_exact(element):
    bits = np.random.default_rng(1).integers(0, 256, 12 * element.itemsize, dtype=np.uint8)
    bits = bits & 1 if element.name == "bool" else bits
    a = bits.view(element.np)
    for value in (a.reshape(3, 4), a[:1].reshape(()), a[:0].reshape(0, 2), a.reshape(3, 4).T, a[::3]):
        got = roundtrip(value)
        assert got.dtype == value.dtype and got.shape == value.shape and got.tobytes() == value.tobytes()
    scalar = roundtrip({"s": a[0]})["s"]
    assert type(scalar) is type(a[0]) and scalar.tobytes() == a[0].tobytes()


def test_arrays_that_are_no_tensors():
    for value in (np.array(["a", "bcd"]), np.array([b"x", b""]), np.array(["2020-01-01"], "M8[D]"), np.array([], "U5"),
                  np.array([[""]]), np.array(["x" * 3000])):
        got = roundtrip([value])[0]
        assert got.dtype == value.dtype and got.shape == value.shape and np.array_equal(got, value)
    random_state = np.random.RandomState(3).get_state()
    assert repr(roundtrip(random_state)) == repr(random_state)


def test_one_object_stays_one_object():
    inner, array = [1], np.arange(3.0)
    got = roundtrip({"a": inner, "b": (inner, inner), "x": array, "y": [array]})
    assert got["a"] is got["b"][0] is got["b"][1]
    assert got["x"] is got["y"][0]


def test_cycles():
    a: list = [1]
    a.append(a)
    d: dict = {"list": a}
    d["self"] = d
    d["tuple"] = (d, [a])
    got = roundtrip(d)
    assert got["self"] is got and got["list"][1] is got["list"] and got["tuple"][0] is got
    assert got["tuple"][1][0] is got["list"]


@pytest.mark.parametrize("wrap", [lambda x: [x], lambda x: (x,), lambda x: {"k": x}, lambda x: frozenset([x])],
                         ids=["list", "tuple", "dict", "frozenset"])
def test_deep_nesting_needs_no_recursion(wrap):
    value, depth = None, 90 if wrap(1) == frozenset([1]) else 30_000
    for _ in range(depth):
        value = wrap(value)
    got = roundtrip(value)
    for _ in range(depth):
        [got] = got.values() if isinstance(got, dict) else got
    assert got is None


def test_state_dict_metadata_is_kept():
    state = collections.OrderedDict(w=np.ones(2))
    state._metadata = collections.OrderedDict({"": {"version": 2}})
    assert roundtrip(state)._metadata == state._metadata
    assert not hasattr(roundtrip(collections.OrderedDict(w=1)), "_metadata")


def view(storage, shape, strides, offset=0, element="float32", **flags):
    return TensorRecord(storage, BY_NAME[element], shape, strides, offset, **flags)


def make_storage(array):
    return StorageRecord(array.nbytes, array.view(np.uint8), element=BY_NAME[array.dtype.name])


def test_views_of_one_storage_share_memory_again():
    s = make_storage(np.arange(12, dtype="f4"))
    got = roundtrip([view(s, (3, 4), (4, 1)), view(s, (4, 3), (1, 4)), view(s, (2, 2), (8, 2), 1), view(s, (), (), 11)])
    assert np.array_equal(got[1], got[0].T) and np.array_equal(got[2], got[0][::2, 1::2]) and got[3] == 11
    got[0][...] = 7
    assert (got[1] == 7).all() and (got[2] == 7).all() and got[3] == 7
    only_parts = roundtrip([view(s, (2,), (1,), 1), view(s, (2,), (1,), 2)])  # none of them is the whole
    only_parts[0][1] = 99
    assert only_parts[1].tolist() == [99, 3]


def test_a_lone_view_is_stored_without_the_rest_of_its_storage():
    big = make_storage(np.arange(100_000, dtype="f4"))
    data = dump([view(big, (2, 3), (300, 1), 5)])
    assert len(data) < 3000
    assert load(data)[0].tolist() == [[5, 6, 7], [305, 306, 307]]


def test_a_lone_expanded_view_is_not_blown_up():
    data = dump([view(make_storage(np.ones(1, "f4")), (1000, 1000), (0, 0))])
    assert len(data) < 3000
    assert load(data)[0].shape == (1000, 1000) and load(data)[0].strides == (0, 0)


@pytest.mark.parametrize("dtype", ["complex128", "complex64", "bfloat16", "int64"])
def test_sharing_in_every_kind_of_block(dtype):
    element = BY_NAME[dtype]
    s = make_storage(np.arange(6).astype(element.np))
    whole, part = roundtrip([view(s, (2, 3), (3, 1), element=dtype), view(s, (2,), (3,), 1, element=dtype)])
    assert np.shares_memory(whole, part) and part.tolist() == [1, 4]
    a, b = roundtrip([view(s, (2,), (1,), 0, element=dtype), view(s, (2,), (1,), 1, element=dtype)])
    assert np.shares_memory(a, b) and b.tolist() == [1, 2]


def test_other_tools_find_the_weights_by_name():
    sn = pytest.importorskip("safetensors.numpy")
    w = np.arange(6, dtype="f4").reshape(2, 3)
    obj = {"model": collections.OrderedDict({"fc.weight": w, "fc.bias": np.zeros(2)}), "epoch": 3, "extra": [np.ones(1), w]}
    got = sn.load(dump(obj))
    assert set(got) == {"model.fc.weight", "model.fc.bias", "extra.0"}
    assert np.array_equal(got["model.fc.weight"], w)
    assert set(sn.load(dump({"fc.weight": w}))) == {"fc.weight"}
    clash = sn.load(dump({"a.b": w, "a": {"b": np.ones(2)}, "__metadata__": np.ones(3), "": np.ones(4)}))
    assert len(clash) == 4 and {v.shape for v in clash.values()} == {(2, 3), (2,), (3,), (4,)}


def test_a_large_tree_is_stored_beside_the_header():
    sn = pytest.importorskip("safetensors.numpy")
    obj = {"losses": [i / 7 for i in range(100_000)], "w": np.ones(2), "graphc.tree": np.ones(3)}
    data = dump(obj)
    assert int.from_bytes(data[:8], "little") < 5000
    assert load(data)["losses"] == obj["losses"] and len(sn.load(data)) == 3


def test_saving_is_deterministic():
    obj = {"b": np.ones(3), "a": [1, {"x": (1.5, None)}]}
    assert dump(obj) == dump(obj)


# -------------------------------------------------------------------------------------------------------- refusals
class Color(enum.IntEnum):
    RED = 1


class Model:
    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class MyDict(dict):
    pass


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize("value, words", [
    (Model(), "save its state_dict()"), (object(), "can't be saved"), (len, "code can't be saved"), (Model, "code can't be"),
    (lambda: 0, "code can't be"), (Color.RED, "subclass of int"), (MyDict(), "subclass of dict"), (Point(1, 2), "_asdict()"),
    (collections.defaultdict(lambda: 0), "would have to call it"), (np.array([None]), "dtype object"), (iter([]), "can't be saved"),
    (np.zeros(1, [("a", "f4")]), "can't be saved"), (re, "can't be saved"),
], ids=lambda v: type(v).__name__ if not isinstance(v, str) else "")
def test_what_is_not_data_is_refused_with_its_place(value, words):
    with pytest.raises(TypeError) as error:
        dump({"run": [1, {"cfg": value}]})
    assert words in str(error.value) and "obj['run'][1]['cfg']" in str(error.value)


def test_refusal_names_attributes_and_survives_deep_paths():
    with pytest.raises(TypeError, match=re.escape("obj['ns'].model is")):
        dump({"ns": argparse.Namespace(model=Model())})
    value: list = [object()]
    for _ in range(5000):
        value = [value]
    with pytest.raises(TypeError, match=r"\.\.\.\[0\]"):
        dump(value)


def test_keys_too_complex_to_hash_safely_are_refused_on_both_sides():
    key: tuple = ()
    for _ in range(200):
        key = (key,)
    with pytest.raises(ValueError, match="nest"):
        dump({key: 1})
    twice: tuple = ()
    for _ in range(15):  # 2**15 parts when hashed
        twice = (twice, twice)
    with pytest.raises(ValueError, match="parts"):
        dump({"a": {twice: 1}})


# ---------------------------------------------------------------------------------------------------------- damage
def small():
    s = make_storage(np.arange(4, dtype="f4"))
    return {"w": from_array(np.arange(3.0)), "a": view(s, (2, 2), (2, 1)), "b": view(s, (2,), (2,)), "lr": 0.1, "n": [1, "x"]}


def test_every_single_flipped_byte_is_detected():
    data, names = dump(small()), {"w", "a"}
    start = 8 + int.from_bytes(data[:8], "little")
    rng = random.Random(0)
    for i in range(len(data)):
        for flip in {1 << rng.randrange(8), 0x20, 0x80, rng.randrange(1, 256)}:
            bad = bytearray(data)
            bad[i] ^= flip
            with pytest.raises(CheckpointError) as error:
                load(bytes(bad))
            assert "test.ckpt" in str(error.value)
            if i >= start:
                assert any(f"tensor '{n}'" in str(error.value) for n in names)


def test_random_flips_in_a_larger_file():
    rng = random.Random(1)
    data = dump({f"layer{i}": np.random.default_rng(i).standard_normal((9, 11)).astype("f4") for i in range(20)})
    for _ in range(500):
        bad = bytearray(data)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        with pytest.raises(CheckpointError):
            load(bytes(bad))


def test_truncation_and_trailing_bytes_are_detected():
    data = dump(small())
    for cut in range(0, len(data), 7):
        with pytest.raises(CheckpointError):
            load(data[:cut])
    with pytest.raises(CheckpointError, match="trailing"):
        load(data + b"\0")


def forge(data, edit):
    """A file whose header was edited and whose checksums were made right again: a deliberate attack."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    edit(header)
    meta = header["__metadata__"]
    meta["graphc.header.sha256"] = "0" * 64
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    blank = len(text).to_bytes(8, "little") + text
    digest = hashlib.sha256(blank).hexdigest().encode()
    return blank.replace(b"0" * 64, digest, 1) + data[8 + size:]


def edit_tree(change):
    def edit(header):
        tree = json.loads(header["__metadata__"]["graphc.tree"])
        change(tree)
        header["__metadata__"]["graphc.tree"] = json.dumps(tree)
    return edit


def set_nodes(*nodes):
    return edit_tree(lambda tree: tree.update(nodes=list(nodes), root=[0]))


HOSTILE = {
    "version": lambda h: h["__metadata__"].update({"graphc.format": "2"}),
    "no tree": lambda h: h["__metadata__"].pop("graphc.tree"),
    "tree not json": lambda h: h["__metadata__"].update({"graphc.tree": "{"}),
    "tree deep": lambda h: h["__metadata__"].update({"graphc.tree": "[" * 100_000}),
    "tree NaN": lambda h: h["__metadata__"].update({"graphc.tree": '{"root":NaN,"nodes":[],"tensors":[]}'}),
    "tree list": lambda h: h["__metadata__"].update({"graphc.tree": "[]"}),
    "digests": lambda h: h["__metadata__"].update({"graphc.sha256": "{}"}),
    "digests not json": lambda h: h["__metadata__"].update({"graphc.sha256": "["}),
    "no root": edit_tree(lambda t: t.pop("root")), "nodes dict": edit_tree(lambda t: t.update(nodes={})),
    "node number": set_nodes(5), "empty node": set_nodes([]), "unknown kind": set_nodes(["exec", "x"]),
    "dangling": set_nodes(["list", [7]]), "forward tuple": set_nodes(["tuple", [1]], ["tuple"]),
    "self tuple": set_nodes(["tuple", [0]]), "negative": set_nodes(["list", [-1]]), "bool index": set_nodes(["list", [True]]),
    "unknown slot": set_nodes(["list", ["x", "y"]]), "slot dict": set_nodes(["list", {}]), "bad hex": set_nodes(["list", ["i", "zz"]]),
    "bad float": set_nodes(["list", ["f", "00"]]), "tensor index": set_nodes(["tensor", 99]), "tensor text": set_nodes(["tensor", "0"]),
    "tensor nothing": set_nodes(["tensor"]), "odd dict": set_nodes(["dict", 1]), "unhashable": set_nodes(["dict", [1], 1], ["list"]),
    "set of lists": set_nodes(["set", [1]], ["list"]), "frozenset of lists": set_nodes(["frozenset", [1]], ["list"]),
    "size float": set_nodes(["size", 1.5]), "slice": set_nodes(["slice", 1]), "base64": set_nodes(["bytes", "!"]),
    "dtype": set_nodes(["dtype", "float31"]), "dtype list": set_nodes(["dtype", []]), "device": set_nodes(["device", "gpu", None]),
    "device index": set_nodes(["device", "cuda", "x"]), "np object": set_nodes(["npdtype", "O"]),
    "np struct": set_nodes(["npdtype", "f8,f8"]), "np scalar": set_nodes(["scalar", "<f8", "00"]),
    "np text": set_nodes(["scalar", "<U9999999999", ""]), "np shape": set_nodes(["rawarray", "<U1", [-1], ""]),
    "np huge": set_nodes(["rawarray", "<U1", [2**40], ""]), "np empty huge": set_nodes(["rawarray", "<U0", [2**40], ""]),
    "factory": set_nodes(["defaultdict", "os.system"]), "namespace": set_nodes(["namespace", "os"]),
    "namespace attribute": set_nodes(["namespace", "simple", 1, 2]), "deque": set_nodes(["deque", -1]), "deque text": set_nodes(["deque", "9"]),
    "range zero": set_nodes(["range", "0", "1", "0"]), "complex": set_nodes(["complex", ""]),
    "hash bomb": set_nodes(["dict", [61], 1], ["tuple"], *[["tuple", [i], [i]] for i in range(1, 61)]),
    "hash depth": set_nodes(["dict", [100_001], 1], ["tuple"], *[["tuple", [i]] for i in range(1, 100_001)]),
    "hash collisions": set_nodes(["dict", *[x for i in range(2000) for x in (["i", f"{1 + i * (2**61 - 1):x}"], 0)]]),
}
for field, values in {0: ["zz", 1], 1: ["f4", 0, "uint128"], 2: [[-1], [2**63], ["1"], [True], 4, [1] * 70], 3: [[1, 1], [-1], [2**40], ["1"]],
                      4: [-1, 9, 2**70, "0", 1.5], 5: [1], 6: [1]}.items():
    for n, v in enumerate(values):
        HOSTILE[f"tensor field {field} #{n}"] = edit_tree(lambda t, f=field, v=v: t["tensors"][0].__setitem__(f, v))
HOSTILE["tensor row short"] = edit_tree(lambda t: t["tensors"].__setitem__(0, ["w"]))
HOSTILE["tensor zero times huge"] = edit_tree(lambda t: t["tensors"][0].__setitem__(2, [0, 2**61, 2**61]))


@pytest.mark.parametrize("name", HOSTILE)
def test_forged_files_with_right_checksums_are_refused(name):
    data = dump(small())
    load(forge(data, lambda header: None))  # the forgery itself is sound
    with pytest.raises(CheckpointError):
        load(forge(data, HOSTILE[name]))


def test_the_marks_of_the_format_are_redundant():
    # Renaming one mark must not turn a checkpoint into a plain safetensors file that loads unchecked.
    from _ckpt import load_any

    data = dump(small())
    for mark in (b"graphc.format", b"graphc.tree", b"graphc.sha256", b"graphc.header.sha256"):
        bad = data.replace(mark, mark[:-1] + b"_", 1)
        with pytest.raises(CheckpointError):
            load_any(bad)
