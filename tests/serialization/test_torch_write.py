"""Files written for PyTorch: ``torch.load(weights_only=True)`` reads them, and so do graphc and Python's zipfile."""
from __future__ import annotations

import collections
import io
import pickletools
import zipfile

import numpy as np
import pytest
from _ckpt import dump_torch, load_zip, source

from graphc import dtypes
from graphc.device import device
from graphc.serialization.dtype_table import BY_NAME, TYPES
from graphc.serialization.records import StorageRecord, TensorRecord, from_array
from graphc.serialization.zip_format import ALIGNMENT, read_directory

torch = pytest.importorskip("torch")


def by_torch(obj, **options):
    return torch.load(io.BytesIO(dump_torch(obj)), weights_only=True, **options)


def view(storage, shape, strides, offset=0, **flags):
    return TensorRecord(storage, BY_NAME["float32"], shape, strides, offset, **flags)


@pytest.mark.parametrize("element", TYPES, ids=lambda t: t.name)
def test_every_dtype_bit_exact(element):
    bits = np.random.default_rng(1).integers(0, 256, 6 * element.itemsize, dtype=np.uint8)
    a = (bits & 1 if element.name == "bool" else bits).view(element.np)
    obj = {"a": a.reshape(2, 3), "0d": a[:1].reshape(()), "empty": a[:0].reshape(0, 3), "t": a.reshape(2, 3).T}
    for got in (by_torch(obj), load_zip(dump_torch(obj))):
        for name, value in obj.items():
            t = got[name]
            assert tuple(t.shape) == value.shape and str(t.dtype).removeprefix("torch.") == element.name
            raw = t.contiguous().reshape(-1).view(torch.uint8).numpy() if isinstance(t, torch.Tensor) else t
            assert raw.tobytes() == value.tobytes()


def test_sharing_and_strides():
    s = StorageRecord(48, np.arange(12, dtype="f4").view(np.uint8))
    got = by_torch([view(s, (3, 4), (4, 1)), view(s, (4, 3), (1, 4)), view(s, (2,), (2,), 5)])
    assert got[0].data_ptr() == got[1].data_ptr() and got[1].stride() == (1, 4) and got[2].tolist() == [5, 7]
    got[0].fill_(3)
    assert (got[1] == 3).all() and (got[2] == 3).all()


def test_lone_view_is_compact_and_lone_expansion_stays_small():
    big = StorageRecord(400_000, np.arange(100_000, dtype="f4").view(np.uint8))
    data = dump_torch(view(big, (2, 2), (300, 1), 5))
    assert len(data) < 2000
    assert torch.load(io.BytesIO(data)).tolist() == [[5, 6], [305, 306]]
    one = StorageRecord(4, np.ones(1, "f4").view(np.uint8))
    data = dump_torch(view(one, (1000, 1000), (0, 0)))
    assert len(data) < 2000 and torch.load(io.BytesIO(data)).sum() == 1e6


def test_flags():
    p = from_array(np.ones(2, "f4"), parameter=True, requires_grad=True)
    q = from_array(np.ones(2, "f4"), parameter=True)
    r = from_array(np.ones(2, "f4"), requires_grad=True)
    c = from_array(np.array([1 + 2j, 3]), conj=True)
    p, q, r, c = by_torch([p, q, r, c])
    assert isinstance(p, torch.nn.Parameter) and p.requires_grad
    assert isinstance(q, torch.nn.Parameter) and not q.requires_grad
    assert type(r) is torch.Tensor and r.requires_grad
    assert c.tolist() == [1 - 2j, 3]


VALUES = {
    "numbers": [0, 255, 256, -1, 2**31 - 1, 2**31, -2**31, -2**31 - 1, 2**63, -2**63, 10**500, 0.1, -0.0, float("inf"), True, False, None],
    "text": ["", "é", "\ud800", "😀" * 100], "bytes": [b"", bytes(range(256))], "bytearray": [bytearray(b"\0\xff")],
    "complex": [1 - 2j], "tuples": [(), (1,), (1, (2, (3, [4])))], "dict": {1: 2, "a": {None: 1.5}, (1, 2): 3}, "set": {1, "a"},
    "ordered": collections.OrderedDict(b=1, a=collections.OrderedDict()), "counter": collections.Counter("aab"),
    "long list": list(range(2501)), "long dict": {i: str(i) for i in range(2501)}, "list": [[], [1], [[2]]],
}


@pytest.mark.parametrize("name", VALUES)
def test_values(name):
    for got in (by_torch(VALUES[name]), load_zip(dump_torch(VALUES[name]))):
        assert type(got) is type(VALUES[name]) and got == VALUES[name] and repr(got) == repr(VALUES[name])


def test_torch_values():
    got = by_torch([dtypes.float32, dtypes.bool_, device("cpu"), device("cuda", 1)])
    assert got == [torch.float32, torch.bool, torch.device("cpu"), torch.device("cuda", 1)]


def test_identity_cycles_depth_and_metadata():
    a: list = [1]
    a.append(a)
    state = collections.OrderedDict(w=np.ones(1))
    state._metadata = collections.OrderedDict({"": {"version": 1}})
    deep: list = []
    for _ in range(900):
        deep = [deep]
    got = by_torch({"a": a, "b": a, "s": state, "deep": deep, "t": (a,)})
    assert got["a"][1] is got["a"] is got["b"] is got["t"][0]
    assert got["s"]._metadata == state._metadata
    for _ in range(900):
        [got["deep"]] = got["deep"]
    very: list = []
    for _ in range(100_000):
        very = [very]
    dump_torch(very)  # printing needs no recursion


def test_cycle_through_a_tuple_is_refused():
    a: list = []
    t = (a,)
    a.append(t)
    with pytest.raises(ValueError, match="itself through a tuple"):
        dump_torch(t)


@pytest.mark.parametrize("value, words", [
    (np.float32(1), "NumPy data"), (np.array(["a"]), "NumPy data"), (frozenset(), "can't be saved"), (range(3), "can't be saved"),
    (slice(1), "can't be saved"), (object(), "can't be saved"), (print, "code"), (2**3000, "255 bytes"),
], ids=lambda v: v if isinstance(v, str) else type(v).__name__)
def test_what_torch_would_refuse_is_refused_here(value, words):
    with pytest.raises(TypeError, match=words):
        dump_torch({"x": [value]})


def test_the_archive_is_aligned_standard_and_deterministic():
    obj = {f"w{i}": np.arange(i) for i in range(5)}
    data = dump_torch(obj)
    assert data == dump_torch(obj)
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        assert z.testzip() is None
        pickletools.dis(z.read("archive/data.pkl"), io.StringIO())  # checks stack and memo use
        assert z.read("archive/data/3") == np.arange(3).tobytes()
    assert all(e.start % ALIGNMENT == 0 for e in read_directory(source(data)).values())


def test_memory_mapped_by_torch(tmp_path):
    path = tmp_path / "w.pt"
    path.write_bytes(dump_torch({"w": np.arange(1000.0)}))
    assert torch.load(path, mmap=True)["w"].tolist() == list(range(1000))


def test_sizes_beyond_4_gib_use_the_64_bit_fields(monkeypatch):
    # The limit is lowered instead of writing 4 GiB.
    from graphc.serialization import zip_format

    monkeypatch.setattr(zip_format, "_MAX32", 2000)
    data = dump_torch({"a": np.arange(1000, dtype="u1"), "b": np.arange(600), "c": np.ones(3)})
    got = load_zip(data)
    assert got["b"].tolist() == list(range(600)) and got["c"].tolist() == [1, 1, 1]
