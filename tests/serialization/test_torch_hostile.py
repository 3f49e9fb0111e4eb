"""Hostile .pt files: refused before anything runs or is allocated, by a check and not by the safety net."""
from __future__ import annotations

import builtins
import os
import pickle
import struct
import subprocess
import zipfile

import pytest
from _ckpt import (
    call,
    ints,
    load_legacy,
    load_zip,
    make_zip,
    number,
    pkl,
    raw_checkpoint,
    raw_zip,
    ref,
    storage_id,
    tensor,
    text,
)

from graphc.errors import CheckpointError

ONE = b"(" + text("touch /tmp/owned") + b"t"


def reduce(module, name, args=ONE):
    return pkl(ref(module, name) + args + b"R")


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/owned",)


class Evil2:
    def __reduce__(self):
        return builtins.eval, ("1", {})


# Globals that run code, read files or reach something that does: public proofs of concept and their neighbours.
GLOBALS = ["os system", "posix system", "nt system", "subprocess Popen", "subprocess check_output", "builtins eval", "builtins exec",
           "__builtin__ eval", "builtins getattr", "builtins open", "builtins __import__", "builtins compile", "builtins print",
           "builtins type", "builtins object", "builtins dict", "builtins memoryview", "builtins setattr", "builtins globals",
           "builtins breakpoint", "operator attrgetter", "operator methodcaller", "functools partial", "importlib import_module",
           "pickle loads", "_pickle loads", "marshal loads", "types FunctionType", "types CodeType", "ctypes CDLL", "socket socket",
           "shutil rmtree", "webbrowser open", "pty spawn", "runpy run_path", "code interact", "pdb run", "timeit timeit",
           "torch load", "torch.serialization load", "torch.hub load", "torch.jit load", "torch._utils _rebuild_wrapper_subclass",
           "torch._utils _import_dotted_name", "torch.storage _load_from_bytes", "torch._dynamo.guards GuardBuilder.get",
           "torch.utils.collect_env run", "torch.testing._internal.common_utils run_tests", "numpy.testing._private.utils runstring",
           "numpy load", "numpy memmap", "numpy.core.multiarray fromfile", "numpy.f2py.crackfortran getlincoef", "numpy float64",
           "graphc.serialization load", "collections namedtuple", "collections defaultdict", "collections UserDict", "copyreg _reconstructor",
           "copyreg add_extension", "__main__ Net", "torch.nn.modules.linear Linear", "os.path.__class__ x", " ", "torch .FloatStorage",
           "torch __class__", "torch.cuda __dict__", "torch FooStorage", "builtins set.__class__", "_codecs decode", "torch.nn.parameter Parameter",
           "torch Tensor", "numpy ndarray"]

OK = tensor()
HUGE = b"\x8a\x09" + (1 << 63).to_bytes(9, "little")
PICKLES = {f"global {g}": reduce(*g.split(" ", 1)) for g in GLOBALS}
PICKLES |= {f"stack global {g}": pkl(b"\x8c" + bytes([len(m)]) + m.encode() + b"\x8c" + bytes([len(n)]) + n.encode() + b"\x93" + ONE + b"R")
            for g in ("os system", "builtins eval", "torch load") for m, n in [g.split()]}
PICKLES |= {
    "pickled os.system": pickle.dumps(Evil(), 2), "pickled os.system, protocol 4": pickle.dumps(Evil(), 4),
    "pickled eval": pickle.dumps({"w": [1, Evil2()]}, 2),
    "INST": pkl(b"(" + text("x") + b"ios\nsystem\n"), "OBJ": pkl(b"(" + ref("os", "system") + text("x") + b"o"),
    "EXT1": pkl(b"\x82\x01"), "EXT2": pkl(b"\x83\x01\x00"), "EXT4": pkl(b"\x84\x01\x00\x00\x00"),
    "PERSID text": pkl(b"Pstorage\n"), "NEWOBJ": pkl(ref("collections", "OrderedDict") + b")\x81"),
    "NEWOBJ_EX": pkl(ref("collections", "OrderedDict") + b")}\x92"), "NEXT_BUFFER": pkl(b"\x97"), "READONLY_BUFFER": pkl(b"]\x98"),
    "POP": pkl(b"NN0"), "POP_MARK": pkl(b"N(N1"), "DUP": pkl(b"]2"), "text int": pkl(b"I1\n"), "text get": pkl(b"]p0\n"),
    "text string": pkl(b"S'x'\n"), "LIST": pkl(b"(l"), "DICT": pkl(b"(d"), "unknown opcode": pkl(b"\xff"), "zero opcode": pkl(b"\0"),
    "BUILD on list": pkl(b"]}b"), "BUILD on dict": pkl(b"}" + b"}" + text("__class__") + number(1) + b"sb"),
    "BUILD on OrderedDict": pkl(ref("collections", "OrderedDict") + b")R}" + text("items") + number(1) + b"sb"),
    "BUILD on OrderedDict, more": pkl(ref("collections", "OrderedDict") + b")R}(" + text("_metadata") + b"N" + text("x") + b"Nub"),
    "BUILD on OrderedDict, slots": pkl(ref("collections", "OrderedDict") + b")RN}\x86b"),
    "BUILD on tensor": pkl(OK, b"}b"), "BUILD on function": pkl(ref("torch._utils", "_rebuild_tensor_v2") + b"}b"),
    "BUILD with nothing": pkl(b"b"), "SETITEM on tensor": pkl(OK, number(0), number(1), b"s"), "SETITEM on list": pkl(b"]", number(0), b"Ns"),
    "APPEND to dict": pkl(b"}Na"), "APPEND to set": pkl(b"\x8fNa"), "ADDITEMS to list": pkl(b"](N\x90"),
    "SETITEMS odd": pkl(b"}(Nu"), "unhashable key": pkl(b"}]Ns"), "unhashable member": pkl(b"\x8f(]\x90"),
    "calls a string": pkl(text("os.system"), ONE, b"R"), "calls a dtype": pkl(ref("torch", "float32") + b")R"),
    "calls a storage class": pkl(ref("torch", "FloatStorage") + number(10) + b"\x85R"), "calls a tensor": pkl(OK, b")R"),
    "arguments not a tuple": pkl(ref("collections", "OrderedDict") + b"]R"),
    "function as value": pkl(ref("torch._utils", "_rebuild_tensor_v2")), "storage class as value": pkl(b"]" + ref("torch", "FloatStorage") + b"a"),
    "storage as value": pkl(storage_id()), "storage as key": pkl(b"}" + storage_id() + b"Ns"),
    "empty stack": pkl(b""), "two objects": pkl(b"NN"), "open mark": pkl(b"(N"), "mark closed twice": pkl(b"(t" + b"t"), "stack underflow": pkl(b"N\x86"),
    "reduce underflow": pkl(b")R"), "persid underflow": pkl(b"Q"), "no STOP": pkl(b"N")[:-1], "no PROTO": b"N.", "two PROTO": b"\x80\x02\x80\x02N.",
    "protocol 0": b"\x80\x00N.", "protocol 9": b"\x80\x09N.", "bytes after STOP": pkl(b"N") + b"N.", "empty": b"",
    "memo missing": pkl(b"h\x05"), "memo of nothing": pkl(b"q\x00"), "memo long missing": pkl(b"j\xff\xff\xff\xff"),
    "string beyond end": pkl(b"X\xff\xff\xff\x7fab"), "string of 2**63": pkl(b"\x8d" + b"\xff" * 8), "bytes of 2**60": pkl(b"\x8e" + (1 << 60).to_bytes(8, "little")),
    "bytearray of 2**60": pkl(b"\x96" + (1 << 60).to_bytes(8, "little")), "negative long": pkl(b"\x8b\xff\xff\xff\xff"),
    "not utf-8": pkl(b"X\x01\0\0\0\xff"), "global without end": pkl(b"cos"), "global of a million": pkl(b"c" + b"a" * 10**6 + b"\nx\n"),
    "frame lies": b"\x80\x04\x95" + b"\xff" * 8 + b"N", "truncated int": b"\x80\x02J\1",
    # bombs
    "memo bomb as key": pkl(b"}" + b")q\0" + b"".join(b"h%c" % (i - 1) + b"h%c" % (i - 1) + b"\x86q%c" % i for i in range(1, 70)) + b"Ns"),
    "deep tuple as key": pkl(b"})" + b"\x85" * 200_000 + b"Ns"), "deep lists": pkl(b"]" * 5000 + b"a" * 4999),
    "deep tuples": pkl(b")" + b"\x85" * 5000), "deep dicts": pkl((b"}" + text("k")) * 2000 + b"N" + b"s" * 2000),
    "many empty dicts": pkl(b"(" + b"}" * 4_000_000 + b"t"),
    "many marks": pkl(b"(" * 4_000_000 + b"t" * 4_000_000),
    "colliding keys": pkl(b"}(" + b"".join(b"\x8a\x0f" + (1 + i * (2**61 - 1)).to_bytes(15, "little") + b"N" for i in range(3000)) + b"u"),
    "bytearray(n)": pkl(call("__builtin__", "bytearray", number(2**31 - 1))), "bytes(n)": pkl(call("builtins", "bytes", number(2**31 - 1))),
    "bytearray of list": pkl(call("__builtin__", "bytearray", b"]")), "encode elsewhere": pkl(call("_codecs", "encode", text("x") + text("rot13"))),
    "encode not latin": pkl(call("_codecs", "encode", text("\u20ac") + text("latin1"))), "range of floats": pkl(call("__builtin__", "xrange", b"G" + bytes(8))),
    "range step 0": pkl(call("__builtin__", "xrange", number(0) + number(1) + number(0))), "complex text": pkl(call("__builtin__", "complex", text("1"))),
    "set of list of lists": pkl(call("__builtin__", "set", b"]]a")), "set of text": pkl(call("__builtin__", "set", text("ab"))),
    "counter of list": pkl(call("collections", "Counter", b"]")), "ordered of triple": pkl(call("collections", "OrderedDict", b"](NNNta")),
    "ordered of text": pkl(call("collections", "OrderedDict", text("ab"))), "slice of 4": pkl(call("__builtin__", "slice", b"NNNN")),
    # tensors
    "stride outside": pkl(tensor(stride=(2,))), "offset outside": pkl(tensor(offset=1)), "offset negative": pkl(tensor(offset=-1)),
    "size negative": pkl(tensor(size=(-1,))), "stride negative": pkl(tensor(stride=(-1,), offset=3)), "size huge": pkl(tensor(size=(HUGE,))),
    "size overflow": pkl(tensor(size=(HUGE, HUGE), stride=(0, 0))), "sizes that wrap to 4": pkl(tensor(size=(b"\x8a\x09\x04" + bytes(7) + b"\x01",))),
    "empty but huge": pkl(tensor(size=(0, HUGE, HUGE), stride=(0, 0, 0))), "expanded beyond 2**63": pkl(tensor(size=(2**31 - 1,) * 3, stride=(0, 0, 0))),
    "offset of empty": pkl(tensor(offset=5, size=(0,))), "size bool": pkl(tensor(size=(b"\x88",))), "size float": pkl(tensor(size=(b"G" + struct.pack(">d", 4.0),))),
    "size text": pkl(tensor(size=(text("4"),))), "strides missing": pkl(tensor(stride=())), "65 dimensions": pkl(tensor(size=(1,) * 65, stride=(1,) * 65)),
    "offset float": pkl(tensor(offset=b"G" + bytes(8))), "offset huge": pkl(tensor(offset=HUGE)), "no storage": pkl(tensor(storage=b"N")),
    "arity": pkl(call("torch._utils", "_rebuild_tensor_v2", b"NN")), "metadata list": pkl(tensor(extra=b"]")), "metadata unknown": pkl(tensor(extra=b"}" + text("x") + b"Ns")),
    "v3 without dtype": pkl(tensor(function="_rebuild_tensor_v3", extra=b"N")), "v3 dtype text": pkl(tensor(function="_rebuild_tensor_v3", extra=text("float32"))),
    "v3 wider dtype": pkl(tensor(function="_rebuild_tensor_v3", extra=ref("torch", "float64"))),
    "parameter of list": pkl(call("torch._utils", "_rebuild_parameter", b"]\x88N")), "parameter of nothing": pkl(call("torch._utils", "_rebuild_parameter", b"")),
    "from type of os": pkl(call("torch._tensor", "_rebuild_from_type_v2", ref("collections", "OrderedDict") + ref("torch", "Tensor") + b")N")),
    "from type subclass": pkl(call("torch._tensor", "_rebuild_from_type_v2", ref("torch._utils", "_rebuild_tensor_v2") + ref("torch", "Size") + b")N")),
    "from type args list": pkl(call("torch._tensor", "_rebuild_from_type_v2", ref("torch._utils", "_rebuild_tensor_v2") + ref("torch", "Tensor") + b"]N")),
    "storage missing": pkl(tensor(storage_id("9"))), "storage larger": pkl(tensor(storage_id(numel=5))), "storage smaller": pkl(tensor(storage_id(numel=3), size=(3,))),
    "storage negative": pkl(tensor(storage_id(numel=-4))), "storage path": pkl(tensor(storage_id("../data/0"))), "storage key empty": pkl(tensor(storage_id(""))),
    "storage key as number": pkl(b"(" + text("storage") + ref("torch", "FloatStorage") + b"G" + bytes(8) + text("cpu") + number(4) + b"tQ"),
    "storage id short": pkl(b"(" + text("storage") + ref("torch", "FloatStorage") + b"tQ"), "storage id text": pkl(text("storage") + b"Q"),
    "storage id module": pkl(b"(" + text("module") + ref("torch", "FloatStorage") + text("0") + text("cpu") + number(4) + b"tQ"),
    "storage class text": pkl(b"(" + text("storage") + text("FloatStorage") + text("0") + text("cpu") + number(4) + b"tQ"),
    "storage two sizes": pkl(b"]", tensor(), b"a", tensor(storage_id(kind="DoubleStorage")), b"a"),
    "storage numel huge": pkl(b"(" + text("storage") + ref("torch", "FloatStorage") + text("0") + text("cpu") + HUGE + b"tQ"),
    "location list": pkl(b"(" + text("storage") + ref("torch", "FloatStorage") + text("0") + b"]" + number(4) + b"tQ"),
    "size of text": pkl(call("torch", "Size", text("ab"))), "size negative alone": pkl(call("torch", "Size", ints(-1))), "device list": pkl(call("torch", "device", b"]")),
    "device unknown": pkl(call("torch", "device", text("gpu9"))), "device negative": pkl(call("torch", "device", text("cuda") + number(-1))),
    # numpy
    "dtype object": pkl(call("numpy", "dtype", text("O8") + b"\x89\x88")), "dtype void": pkl(call("numpy", "dtype", text("V8") + b"\x89\x88")),
    "dtype struct": pkl(call("numpy", "dtype", text("i4,f8") + b"\x89\x88")), "dtype huge": pkl(call("numpy", "dtype", text("S9999999999") + b"\x89\x88")),
    "dtype class": pkl(call("numpy", "dtype", ref("torch", "float32"))), "dtype nonsense": pkl(call("numpy", "dtype", text("i16") + b"\x89\x88")),
    "dtype state object": pkl(call("numpy", "dtype", text("f8") + b"\x89\x88"), b"(" + number(3) + text("|") + b"NN]" + number(-1) + number(-1) + number(63) + b"tb"),
    "dtype state fields": pkl(call("numpy", "dtype", text("f8") + b"\x89\x88"), b"(" + number(3) + text("<") + b"N})" + number(-1) + number(-1) + number(0) + b"tb"),
    "scalar short": pkl(call("numpy.core.multiarray", "scalar", call("numpy", "dtype", text("f8") + b"\x89\x88") + text("x"))),
    "scalar of object": pkl(call("numpy.core.multiarray", "scalar", ref("collections", "OrderedDict") + text("x"))),
    "array subclass": pkl(call("numpy.core.multiarray", "_reconstruct", ref("collections", "OrderedDict") + ints(0) + text("b"))),
    "array of given shape": pkl(call("numpy.core.multiarray", "_reconstruct", ref("numpy", "ndarray") + ints(2**31 - 1) + text("b"))),
    "array state short": pkl(call("numpy.core.multiarray", "_reconstruct", ref("numpy", "ndarray") + ints(0) + text("b")), b"(NtB" + bytes(4) + b"b"),
    "array shape lies": pkl(call("numpy.core.multiarray", "_reconstruct", ref("numpy", "ndarray") + ints(0) + text("b")), b"(" + number(1) + ints(99)
                            + call("numpy", "dtype", text("f8") + b"\x89\x88") + b"\x89" + text("x") + b"tb"),
    "array shape huge": pkl(call("numpy.core.multiarray", "_reconstruct", ref("numpy", "ndarray") + ints(0) + text("b")), b"(" + number(1) + ints(0, HUGE)
                            + call("numpy", "dtype", text("f8") + b"\x89\x88") + b"\x89" + text("") + b"tb"),
    "frombuffer lies": pkl(call("numpy.core.numeric", "_frombuffer", text("x") + call("numpy", "dtype", text("f8") + b"\x89\x88") + ints(9) + text("C"))),
}

GOOD = pkl(OK)
ENTRY = (b"a/data.pkl", GOOD, {})
STORE = (b"a/data/0", bytes(16), {})
ARCHIVES = {
    "compressed": make_zip(GOOD, method=zipfile.ZIP_DEFLATED), "bomb": make_zip(GOOD, [("0", bytes(1 << 24))], method=zipfile.ZIP_DEFLATED),
    "bzip2": make_zip(GOOD, method=zipfile.ZIP_BZIP2), "compressed by directory only": raw_zip([ENTRY, (b"a/data/0", bytes(16), {"packed": 15})]),
    "no data.pkl": raw_zip([STORE]), "empty archive": raw_zip([]), "no folder": raw_zip([(b"data.pkl", GOOD, {}), (b"data/0", bytes(16), {})]),
    "two folders": raw_zip([ENTRY, (b"b/data/0", bytes(16), {})]), "duplicate entry": raw_zip([ENTRY, STORE, STORE]),
    "two data.pkl": raw_zip([ENTRY, ENTRY, STORE]), "dot dot": raw_zip([ENTRY, (b"a/../../etc/x", b"", {})]), "absolute": raw_zip([ENTRY, (b"/a/x", b"", {})]),
    "backslash": raw_zip([ENTRY, (b"a\\..\\x", b"", {})]), "nul in name": raw_zip([ENTRY, (b"a/x\0y", b"", {})]), "folder entry": raw_zip([ENTRY, (b"a/x/", b"", {})]),
    "empty name": raw_zip([ENTRY, (b"", b"", {})]), "names disagree": raw_zip([ENTRY, (b"a/data/0", bytes(16), {"local_name": b"a/data/1"})]),
    "overlapping": raw_zip([ENTRY, STORE, (b"a/data/1", b"", {"offset": 3})]), "same bytes twice": raw_zip([ENTRY, STORE, (b"a/data/0", bytes(16), {"offset": 0})]),
    "wrong crc": raw_zip([ENTRY, (b"a/data/0", bytes(16), {"crc": 5})]), "wrong crc of pickle": raw_zip([(b"a/data.pkl", GOOD, {"crc": 5}), STORE]),
    "size beyond file": raw_zip([ENTRY, (b"a/data/0", bytes(16), {"size": 10**6, "packed": 10**6})]),
    "size into directory": raw_zip([ENTRY, (b"a/data/0", bytes(16), {"size": 20, "packed": 20})]),
    "local size lies": raw_zip([ENTRY, (b"a/data/0", bytes(16), {"local_size": 15})]), "encrypted": raw_zip([ENTRY, (b"a/data/0", bytes(16), {"flags": 1})]),
    "strange flags": raw_zip([ENTRY, (b"a/data/0", bytes(16), {"flags": 0x2000})]), "offset beyond file": raw_zip([ENTRY, (b"a/data/0", bytes(16), {"offset": 10**6})]),
    "64-bit size missing": raw_zip([ENTRY, (b"a/data/0", bytes(16), {"size": 0xFFFFFFFF, "packed": 0xFFFFFFFF})]),
    "comment": raw_checkpoint(GOOD, comment=b"hello"), "count too small": raw_checkpoint(GOOD, count=1), "count too large": raw_checkpoint(GOOD, count=3),
    "count huge": raw_checkpoint(GOOD, count=65535), "directory size": raw_checkpoint(GOOD, size=5), "directory offset": raw_checkpoint(GOOD, offset=5),
    "directory huge": raw_checkpoint(GOOD, size=0xFFFFFFF0), "second disk": raw_checkpoint(GOOD, disk=1), "truncated": raw_checkpoint(GOOD)[:-1],
    "leading bytes": b"x" + raw_checkpoint(GOOD), "trailing bytes": raw_checkpoint(GOOD) + b"x", "only an end record": raw_zip([])[-22:],
    "false 64-bit locator": raw_zip([])[:-22] + b"PK\6\7" + bytes(16) + raw_zip([])[-22:], "version 99": make_zip(GOOD, extra=[("archive/byteorder", "little")]).replace(b"3\n", b"99"),
    "byte order": make_zip(GOOD, extra=[("archive/byteorder", "middle")]), "nothing": b"", "four bytes": b"PK\3\4",
}


@pytest.fixture
def canary(monkeypatch):
    """Fails the test when anything that a pickle might reach for is called."""
    def alarm(*args, **kwargs):
        raise AssertionError("code from the file was run")

    for owner, name in ((os, "system"), (os, "popen"), (subprocess, "Popen"), (builtins, "eval"), (builtins, "exec"), (pickle, "loads"), (pickle, "load"),
                        (pickle, "Unpickler")):
        monkeypatch.setattr(owner, name, alarm)


def refused(load, data):
    with pytest.raises(CheckpointError) as error:
        load(data)
    assert "test.ckpt" in str(error.value) and len(str(error.value)) < 1000
    assert "damaged checkpoint (" not in str(error.value), "only the safety net caught this"


def test_the_corpus_is_sound():
    assert len(PICKLES) + len(ARCHIVES) >= 60
    assert load_zip(make_zip(GOOD)).tolist() == load_zip(raw_checkpoint(GOOD)).tolist() == [0] * 4
    assert load_legacy(legacy(GOOD)).tolist() == [0] * 4


@pytest.mark.parametrize("name", PICKLES)
def test_hostile_pickles_in_an_archive(name, canary):
    refused(load_zip, make_zip(PICKLES[name]))


def legacy(pickle_):
    head = b"".join(b"\x80\x02" + x + b"." for x in (b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19", b"M\xe9\x03", b"}" + text("little_endian") + b"\x88s"))
    main = pickle_.replace(b"tQ", b"NtQ")  # a storage id has a sixth field there
    return head + main + pkl(b"]" + text("0") + b"a") + (4).to_bytes(8, "little") + bytes(16)


@pytest.mark.parametrize("name", PICKLES)
def test_hostile_pickles_in_the_legacy_layout(name, canary):
    refused(load_legacy, legacy(PICKLES[name]))


@pytest.mark.parametrize("name", ARCHIVES)
def test_hostile_archives(name, canary):
    refused(load_zip, ARCHIVES[name])


def test_globals_are_refused_before_anything_is_built(canary, monkeypatch):
    # The refusal comes from the scan: no machine is ever made, though the bad global is the last thing in the stream.
    from graphc.serialization import torch_format

    monkeypatch.setattr(torch_format, "Machine", lambda *a: pytest.fail("the stream was run"))
    refused(load_zip, make_zip(pkl(b"]", OK, b"a", ref("os", "system"), b"a")))


def test_refusal_names_the_global_and_the_remedy():
    with pytest.raises(CheckpointError, match=r"'os\.system'.*runs no code from a file"):
        load_zip(make_zip(PICKLES["pickled os.system"].replace(b"posix", b"os")))
    with pytest.raises(CheckpointError, match=r"'__main__\.Net'.*state_dict"):
        load_zip(make_zip(PICKLES["global __main__ Net"]))
