"""Reading what PyTorch writes: bit-exact, with sharing, for every dtype, protocol and both file layouts."""
from __future__ import annotations

import collections
import io
import pickle
import pickletools
import random
import warnings

import numpy as np
import pytest
from _ckpt import call, load_legacy, load_zip, make_zip, number, pkl, ref, source, storage_id, tensor, text

from graphc import dtypes
from graphc.device import device
from graphc.errors import CheckpointError
from graphc.serialization.pickle_ops import decode, scan
from graphc.serialization.zip_format import read_directory

torch = pytest.importorskip("torch")

LAYOUTS = {"zip": {}, "zip protocol 3": {"pickle_protocol": 3}, "zip protocol 4": {"pickle_protocol": 4},
           "zip protocol 5": {"pickle_protocol": 5}, "legacy": {"_use_new_zipfile_serialization": False},
           "legacy protocol 4": {"_use_new_zipfile_serialization": False, "pickle_protocol": 4}}
DTYPES = ["float32", "float64", "float16", "bfloat16", "complex64", "complex128", "int8", "uint8", "int16", "int32",
          "int64", "bool", "uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz",
          "float8_e5m2fnuz", "float8_e8m0fnu"]


def saved(obj, **options):
    out = io.BytesIO()
    torch.save(obj, out, **options)
    return out.getvalue()


def read(data):
    return load_zip(data) if data[:2] == b"PK" else load_legacy(data)


def bits(t):
    return t.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.fixture(params=LAYOUTS, ids=str)
def layout(request):
    return LAYOUTS[request.param]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_bit_exact(dtype, layout):
    wanted = getattr(torch, dtype)
    raw = torch.randint(0, 256, (24 * wanted.itemsize,), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    t = (raw & 1 if dtype == "bool" else raw).view(wanted)
    obj = {"all": t, "2d": t.reshape(4, 6), "0d": t[3].clone(), "empty": t[:0].reshape(0, 3).clone(), "t": t.reshape(4, 6).t(),
           "step": t[1::5], "middle": t.reshape(2, 3, 4)[1, :, 1:3]}
    got = read(saved(obj, **layout))
    for name, value in obj.items():
        assert got[name].shape == tuple(value.shape) and got[name].dtype.name == dtype
        assert got[name].tobytes() == bits(value)


def test_views_share_memory_as_before(layout):
    base = torch.arange(12.0).reshape(3, 4)
    views = [base, base.t(), base[1:], base[:, ::2], base.flatten()[5], base.expand(2, 3, 4), base.unfold(1, 2, 1), base]
    got = read(saved({"v": views, "other": base.clone()}, **layout))
    for value, array in zip(views, got["v"]):
        assert np.array_equal(value.numpy(), array)
        if value.dim():
            assert tuple(s // 4 for s in array.strides) == value.stride()
    got["v"][0][...] = -1
    assert all((a == -1).all() for a in got["v"]) and not (got["other"] == -1).any()
    assert got["v"][0] is got["v"][7]


def test_training_state(layout):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.LSTM(4, 2))
    opt = torch.optim.Adam(net.parameters(), betas=(0.8, 0.9))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 10)
    net(torch.randn(5, 3))[0].sum().backward()
    opt.step()
    schedule.step()
    state = {"model": net.state_dict(), "opt": opt.state_dict(), "sched": schedule.state_dict(), "epoch": 3, "best": 0.5,
             "rng": torch.get_rng_state()}
    got = read(saved(state, **layout))
    assert type(got["model"]) is collections.OrderedDict and list(got["model"]) == list(state["model"])
    assert got["model"]._metadata == state["model"]._metadata
    for name, value in state["model"].items():
        assert got["model"][name].tobytes() == bits(value)
    assert got["opt"]["param_groups"] == state["opt"]["param_groups"]
    for i, slot in state["opt"]["state"].items():
        for name, value in slot.items():
            assert got["opt"]["state"][i][name].tobytes() == bits(value)
    assert got["rng"].tobytes() == bits(state["rng"]) and got["sched"] == state["sched"] and got["best"] == 0.5


def test_tied_parameters_stay_tied(layout):
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    net[1].weight = net[0].weight
    got = read(saved(net.state_dict(), **layout))
    assert np.shares_memory(got["0.weight"], got["1.weight"])
    params = read(saved(list(net.parameters()), **layout))
    assert len(params) == 3


PLAIN = {
    "numbers": [1, -1, 255, 256, 65536, 2**31, -2**31, 2**100, -10**300, 0.1, float("inf"), True, None],
    "text": ["", "hé", "\n\\", "😀", "x" * 70_000], "bytes": [b"", b"\0\xff", b"y" * 300], "bytearray": bytearray(b"\0\xff"),
    "nested": {"a": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)], 5: {None: {}}, (1, (2,)): 1.5}, "set": {1, "a", (2,)},
    "frozenset": frozenset([1, 2]), "complex": 1 - 2j, "range": range(1, 9, 2), "slice": slice(1, None, 2),
    "counter": collections.Counter("aab"), "ordered": collections.OrderedDict(b=1, a=2), "many": list(range(3000)),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_values(name, layout):
    got = read(saved(PLAIN[name], **layout))
    assert type(got) is type(PLAIN[name]) and got == PLAIN[name] and repr(got) == repr(PLAIN[name])


def test_torch_values(layout):
    got = read(saved([torch.float32, torch.bool, torch.bfloat16, torch.device("cpu"), torch.device("cuda", 1),
                      torch.Size([2, 3])], **layout))
    assert got == [dtypes.float32, dtypes.bool_, dtypes.bfloat16, device("cpu"), device("cuda", 1), (2, 3)]


def test_numpy_values(layout):
    values = [np.float32(0.1), np.float64(2), np.bool_(True), np.int8(-3), np.complex128(1j), np.str_("hé"), np.arange(6).reshape(2, 3),
              np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(3, dtype=">i4"), np.array(["a", "bc"]), np.array(2.5),
              np.zeros((0, 3)), np.dtype("f4"), np.dtype(">i2"), np.dtype("U7"), np.array([True, False])]
    got = read(saved(values, **layout))
    for value, back in zip(values, got):
        assert type(back) is type(value) and np.array_equal(back, value)
        if not isinstance(value, np.dtype):
            assert back.dtype.newbyteorder("=") == value.dtype.newbyteorder("=") and back.shape == value.shape


def test_cycles_and_identity(layout):
    a: list = [1]
    a.append(a)
    t = torch.ones(2)
    got = read(saved({"a": a, "b": a, "t": t, "u": [t]}, **layout))
    assert got["a"][1] is got["a"] is got["b"] and got["t"] is got["u"][0]


def test_parameters_and_tensors_with_attributes(layout):
    p = torch.nn.Parameter(torch.ones(2))
    q = torch.nn.Parameter(torch.ones(3), requires_grad=False)
    q.tag = "kept by PyTorch, dropped here"
    t = torch.ones(4)
    t.tag = 1
    got = read(saved([p, q, t, torch.ones(5, requires_grad=True)], **layout))
    assert [a.shape for a in got] == [(2,), (3,), (4,), (5,)]


def test_conjugate_and_negative_bits_are_applied(layout):
    z = torch.tensor([1 + 2j, 3 - 4j])
    got = read(saved([z.conj(), z.clone().conj().imag, z], **layout))
    assert got[0].tolist() == [1 - 2j, 3 + 4j] and got[1].tolist() == [-2, 4] and got[2].tolist() == [1 + 2j, 3 - 4j]


def test_checksums_switched_off_by_the_writer():
    torch.serialization.set_crc32_options(False)
    try:
        data = saved({"a": torch.arange(3)})
    finally:
        torch.serialization.set_crc32_options(True)
    assert load_zip(data)["a"].tolist() == [0, 1, 2]


def test_flipped_weight_byte_is_detected_where_torch_loads_it():
    data = bytearray(saved({"w": torch.full((1000,), 3.0)}))
    at = read_directory(source(bytes(data)))["archive/data/0"].start + 1234
    data[at] ^= 1
    assert torch.load(io.BytesIO(bytes(data)))["w"].sum() != 3000
    with pytest.raises(CheckpointError, match="CRC-32 of 'archive/data/0'"):
        load_zip(bytes(data))


FOREIGN = {
    "module": lambda: torch.nn.Linear(2, 2), "nested module": lambda: {"m": [torch.nn.ReLU()]},
    "sparse": lambda: torch.ones(2).to_sparse(), "meta": lambda: torch.ones(2, device="meta"),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    "storage": lambda: torch.ones(2).untyped_storage(), "class": lambda: torch.float64.__class__,
    "nested tensor": lambda: torch.nested.nested_tensor([torch.ones(2)]),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_not_plain_tensors_is_refused_with_advice(name, layout):
    with pytest.raises(CheckpointError) as error:
        read(saved(FOREIGN[name](), **layout))
    assert "test.ckpt" in str(error.value) and ("refused" in str(error.value) or "storage" in str(error.value))


def test_torchscript_archives_are_refused():
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch deprecates TorchScript
        torch.jit.save(torch.jit.script(torch.nn.ReLU()), out)
    with pytest.raises(CheckpointError, match="TorchScript"):
        load_zip(out.getvalue())


# --------------------------------------------------------------- layouts that today's torch no longer writes by itself
def test_archive_without_the_newer_records():
    # PyTorch 1.6 wrote data.pkl, data/* and version in a folder "archive".
    data = make_zip(pkl(tensor()), [("0", np.arange(4, dtype="f4").tobytes())])
    assert load_zip(data).tolist() == [0, 1, 2, 3]
    assert torch.load(io.BytesIO(data)).tolist() == [0, 1, 2, 3]


def test_rebuild_tensor_of_older_versions():
    args = storage_id() + number(1) + b"(" + number(3) + b"t" + b"(" + number(1) + b"t"
    data = make_zip(pkl(call("torch._utils", "_rebuild_tensor", args)), [("0", np.arange(4, dtype="f4").tobytes())])
    assert load_zip(data).tolist() == [1, 2, 3]


def test_cuda_storages():
    data = make_zip(pkl(tensor(storage_id(module="torch.cuda", location="cuda:0"))))
    assert load_zip(data).tolist() == [0] * 4


def test_big_endian_files_are_swapped():
    raw = np.arange(4, dtype=">f4").tobytes()
    data = make_zip(pkl(tensor()), [("0", raw)], extra=[("archive/byteorder", "big")])
    assert load_zip(data).tolist() == [0, 1, 2, 3]
    z = np.array([1 + 2j, 3 - 4j], ">c8")
    pickle_ = pkl(tensor(storage_id(kind="ComplexFloatStorage", numel=2), size=(2,)))
    assert load_zip(make_zip(pickle_, [("0", z.tobytes())], extra=[("archive/byteorder", "big")])).tolist() == z.tolist()


def test_python_2_strings():
    raw = b"\x80\x02}U\x01aU\x02\xff\x00s."
    assert load_zip(make_zip(raw)) == {"a": b"\xff\0"}
    order = ref("collections", "OrderedDict") + b"(]](" + text("k") + number(1) + b"eatR"
    assert load_zip(make_zip(pkl(order))) == collections.OrderedDict(k=1)


def legacy(main, keys, storages):
    head = b"".join(pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    tail = b"".join(len(s).to_bytes(8, "little") + s.tobytes() for s in storages)
    return head + main + pickle.dumps(keys, 2) + tail


def legacy_id(key, numel, view=b"N"):
    return b"(" + text("storage") + ref("torch", "FloatStorage") + text(key) + text("cpu") + number(numel) + view + b"tQ"


def test_legacy_storage_views():
    view = b"(" + text("v") + number(2) + number(3) + b"t"
    main = pkl(b"](", tensor(legacy_id("7", 6), size=(6,)), tensor(legacy_id("7", 6, view), size=(3,)), b"e")
    got = load_legacy(legacy(main, ["7"], [np.arange(6, dtype="f4")]))
    assert got[1].tolist() == [2, 3, 4] and np.shares_memory(got[0], got[1])


@pytest.mark.parametrize("change", ["no keys", "other key", "twice", "short", "long", "numel", "view outside", "magic", "version",
                                    "endian"])
def test_damaged_legacy_files(change):
    a = np.arange(6, dtype="f4")
    view = b"(" + text("v") + number(2) + number(9) + b"t"
    main = pkl(tensor(legacy_id("7", 6, view if change == "view outside" else b"N"), size=(6,)))
    keys = {"no keys": [], "other key": ["8"], "twice": ["7", "7"]}.get(change, ["7"])
    data = legacy(main, keys, [a[:5] if change == "numel" else a])
    data = data[:-1] if change == "short" else data + b"\0" if change == "long" else data
    if change in ("magic", "version", "endian"):
        old, new = {"magic": (b"\xfc\x9c", b"\xfc\x9d"), "version": (b"\xe9\x03", b"\xea\x03"),
                    "endian": (b"little_endian", b"little_Endian")}[change]
        assert data.count(old) >= 1
        data = data.replace(old, new, 1)
    with pytest.raises(CheckpointError):
        load_legacy(data)


# ----------------------------------------------------------------------------------------- the decoder against CPython
def test_opcodes_agree_with_pickletools():
    rng = random.Random(0)

    def value(depth=0):
        kind = rng.randrange(11 if depth < 4 else 7)
        if kind == 0:
            return rng.choice([None, True, False])
        if kind == 1:
            return rng.choice([1, -1]) * rng.getrandbits(rng.choice([3, 8, 16, 31, 32, 64, 3000]))
        if kind == 2:
            return rng.random()
        if kind in (3, 4):
            return "é" * rng.choice([0, 1, 200, 300])
        if kind in (5, 6):
            return bytes(rng.randrange(300)) if kind == 5 else bytearray(3)
        items = [value(depth + 1) for _ in range(rng.randrange(5))]
        return [items, tuple(items), {str(i): v for i, v in enumerate(items)}, {1, 2}][kind - 7]

    seen = set()
    for i in range(300):
        data = pickle.dumps(value(), 2 + i % 4)
        want = [(op.name, arg) for op, arg, _ in pickletools.genops(data)]
        for (name, argument), (ours, arg, _) in zip(want, decode(data), strict=True):
            seen.add(name)
            assert name == ours
            if name == "GLOBAL":
                assert argument == " ".join(arg)
            elif name not in ("MEMOIZE",):
                assert argument == arg or bytes(argument) == bytes(arg)
        assert scan(data, 0, 1 << 30, lambda module, name: None) == len(data)
    assert len(seen) > 30


def test_object_budget_can_be_raised():
    data = make_zip(pickle.dumps(list(range(10**6, 10**6 + 300_000)), 2))
    with pytest.raises(CheckpointError, match="object_budget"):
        load_zip(data, object_budget=1 << 20)
    assert len(load_zip(data, object_budget=1 << 30)) == 300_000
