"""graphc.save and graphc.load on Tensors, and graphc.serialization.safetensors."""
from __future__ import annotations

import collections
import io
import os
import pathlib
import pickle
import random
import tarfile
import zipfile

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.device import require
from graphc.errors import CheckpointError, DeviceError
from graphc.serialization import convert, safetensors
from graphc.serialization.convert import view_of
from graphc.tensor import to_numpy


def through(obj, **options):
    f = io.BytesIO()
    graphc.save(obj, f, **{k: v for k, v in options.items() if k == "format"})
    f.seek(0)
    return graphc.load(f, **{k: v for k, v in options.items() if k != "format"})


def bits(t):
    return to_numpy(t).tobytes()


DTYPES = ["float32", "float64", "float16", "bfloat16", "complex64", "complex128", "int8", "uint8", "int16", "int32", "int64",
          "uint32", "bool"]
FORMATS = ["graphc", "torch"]


@pytest.fixture(params=FORMATS)
def format(request):
    return request.param


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype, format):
    t = graphc.tensor([[1, 0, 3], [4, 5, 6]]).to(getattr(graphc, dtype))
    got = through({"t": t, "0d": t[0, 0], "empty": t[:0]}, format=format)
    for name, want in (("t", t), ("0d", t[0, 0]), ("empty", t[:0])):
        assert got[name].dtype is want.dtype and got[name].shape == want.shape and bits(got[name]) == bits(want)


def test_values_pending_in_the_graph_are_evaluated(format):
    x = graphc.ones(3) * 2 + 1
    assert through(x, format=format).tolist() == [3, 3, 3]


def test_result_does_not_alias_the_file_or_the_source(format):
    t = graphc.ones(3)
    f = io.BytesIO()
    graphc.save(t, f, format=format)
    t.fill_(5)
    first, second = (graphc.load(io.BytesIO(f.getvalue())) for _ in range(2))
    first.add_(1)
    assert second.tolist() == [1, 1, 1] and first.tolist() == [2, 2, 2]


def test_views_share_storage_again(format):
    base = graphc.arange(24.0).view(4, 6)
    views = {"base": base, "t": base.t(), "rows": base[1:3], "cols": base[:, 2:5], "steps": base[::2, 1::2], "one": base[2, 3],
             "flat": base.view(-1), "wide": base[0:1].expand(3, 6), "again": base, "cube": base.view(2, 2, 6).permute(2, 0, 1),
             "detached": base.detach()}
    got = through(views, format=format)
    for name, t in views.items():
        assert got[name].tolist() == t.tolist() and got[name].stride() == t.stride()
    assert got["again"] is got["base"]
    got["base"].mul_(-1)
    for name, t in views.items():
        assert got[name].tolist() == (-t).tolist(), name


def test_separate_tensors_stay_separate(format):
    a = graphc.ones(3)
    got = through([a, a.clone(), a.view(3)], format=format)
    got[0].fill_(9)
    assert got[1].tolist() == [1, 1, 1] and got[2].tolist() == [9, 9, 9]


def test_lone_view_is_saved_without_its_storage(format):
    f = io.BytesIO()
    graphc.save(graphc.zeros(100_000)[3:5], f, format=format)
    assert len(f.getvalue()) < 3000


def test_view_of_agrees_with_numpy_strides():
    rng = random.Random(0)
    base = np.arange(360.0, dtype="f4")
    made = 0
    for _ in range(300):
        view, dims = base, rng.choice([(360,), (18, 20), (5, 8, 9), (3, 4, 5, 6)])
        view = view.reshape(dims)
        for _ in range(rng.randrange(1, 4)):
            kind = rng.randrange(4)
            if kind == 0:
                view = view.transpose(rng.sample(range(view.ndim), view.ndim))
            elif kind == 1:
                view = view[tuple(slice(rng.randrange(n), None, rng.choice([1, 1, 2, 3])) if n else slice(None) for n in view.shape) + (...,)]
            elif kind == 2:
                view = view[None] if view.ndim < 6 else view
            elif view.ndim and view.shape[0]:
                view = view[rng.randrange(view.shape[0]), ...]
        shape, strides = view.shape, tuple(s // 4 for s in view.strides)
        offset = (view.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // 4
        if view.size:
            made += 1
            got = view_of(graphc.tensor(base), shape, strides, offset)
            assert got is not None and got.shape == shape and got.tolist() == view.tolist()
    assert made > 250
    assert view_of(graphc.tensor(base), (3, 3), (1, 1), 0) is None  # windows overlap: copied instead


def test_gradient_flags_and_parameters(format):
    p = nn.Parameter(graphc.ones(2))
    q = nn.Parameter(graphc.ones(3), requires_grad=False)
    r = graphc.ones(4, requires_grad=True)
    computed = r * 2
    p, q, r, computed = through([p, q, r, computed], format=format)
    assert isinstance(p, nn.Parameter) and p.requires_grad and p.is_leaf
    assert isinstance(q, nn.Parameter) and not q.requires_grad
    assert type(r) is graphc.Tensor and r.requires_grad and r.is_leaf
    assert computed.requires_grad and computed.is_leaf
    (p * 3).sum().backward()
    assert p.grad.tolist() == [3, 3]


def test_state_dict_of_a_module(tmp_path, format):
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    path = tmp_path / "net.pt"
    graphc.save(net.state_dict(), path, format=format)
    state = graphc.load(path, weights_only=True)
    assert type(state) is collections.OrderedDict and list(state) == list(net.state_dict())
    assert getattr(state, "_metadata", None) == getattr(net.state_dict(), "_metadata", None)
    other = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    other.load_state_dict(state)
    x = graphc.ones(5, 3)
    assert other(x).tolist() == net(x).tolist()


def test_tied_weights_stay_tied(format):
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    got = through(net.state_dict(), format=format)
    got["0.weight"].fill_(7)
    assert got["1.weight"].tolist() == [[7.0] * 3] * 3


def test_torch_values(format):
    values = [graphc.float32, graphc.bool, graphc.device("cpu"), graphc.Size([2, 3]), graphc.ones(2, 3).shape]
    got = through(values, format=format)
    assert got == values and [type(v) for v in got] == [type(v) for v in values]


def test_a_whole_module_is_refused_with_advice(format):
    with pytest.raises(TypeError, match=r"obj\['net'\].*Linear.*state_dict\(\)"):
        graphc.save({"net": nn.Linear(2, 2)}, io.BytesIO(), format=format)


# ------------------------------------------------------------------------------------------------- files and arguments
def test_paths_and_file_objects(tmp_path):
    obj = {"w": graphc.ones(2)}
    for target in (str(tmp_path / "a.pt"), tmp_path / "b.pt", pathlib.PurePath(tmp_path, "c.pt")):
        graphc.save(obj, target)
        assert graphc.load(target)["w"].tolist() == [1, 1]
    with open(tmp_path / "d.pt", "wb") as f:
        graphc.save(obj, f)
    with open(tmp_path / "d.pt", "rb") as f:
        assert graphc.load(f)["w"].tolist() == [1, 1]
    f = io.BytesIO(b"junk" + (tmp_path / "d.pt").read_bytes())
    f.seek(4)
    assert graphc.load(f)["w"].tolist() == [1, 1]


def test_a_stream_that_can_not_seek():
    f = io.BytesIO()
    graphc.save([graphc.ones(2)], f)

    class Pipe:
        def __init__(self, data):
            self.inner = io.BytesIO(data)

        def read(self, n=-1):
            return self.inner.read(n)

    assert graphc.load(Pipe(f.getvalue()))[0].tolist() == [1, 1]


def test_a_file_object_without_readinto():
    class Plain:
        def __init__(self, data):
            inner = io.BytesIO(data)
            self.read, self.seek, self.tell = inner.read, inner.seek, inner.tell

    f = io.BytesIO()
    graphc.save([graphc.ones(2)], f)
    assert graphc.load(Plain(f.getvalue()))[0].tolist() == [1, 1]


def test_wrong_arguments(tmp_path):
    with pytest.raises(AttributeError, match="'write' attribute"):
        graphc.save(1, 3)
    with pytest.raises(TypeError, match="'read' attribute"):
        graphc.load(3)
    with pytest.raises(TypeError, match="'read' attribute"):
        graphc.load(b"bytes are no path")
    with pytest.raises(TypeError, match="unexpected keyword argument 'wieghts_only'"):
        graphc.load(tmp_path / "x", wieghts_only=True)
    with pytest.raises(ValueError, match="file path in order to use the mmap"):
        graphc.load(io.BytesIO(), mmap=True)
    with pytest.raises(ValueError, match="format must be one of"):
        graphc.save(1, tmp_path / "x", format="pickle")
    with pytest.raises(TypeError, match="pickle_module"):
        graphc.save(1, tmp_path / "x", pickle_module=collections)
    with pytest.raises(TypeError, match="map_location"):
        graphc.load(tmp_path / "x", map_location=3.5)
    assert not os.listdir(tmp_path)
    graphc.save(1, tmp_path / "x", pickle, 4, False)
    assert graphc.load(tmp_path / "x", None, pickle, weights_only=False, encoding="latin1") == 1
    (tmp_path / "text").write_text("hello")
    with open(tmp_path / "text") as f, pytest.raises(TypeError, match="binary mode"):
        graphc.load(f)


def test_a_refused_object_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.pt"
    graphc.save([1], path)
    for format in ("graphc", "torch", "safetensors"):
        with pytest.raises(TypeError):
            graphc.save([object()], path, format=format)
    assert graphc.load(path) == [1] and os.listdir(tmp_path) == ["m.pt"]
    f = io.BytesIO()
    with pytest.raises(TypeError):
        graphc.save([object()], f)
    assert f.getvalue() == b""


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        graphc.load(tmp_path / "nothing.pt")
    with pytest.raises(IsADirectoryError):
        graphc.load(tmp_path)
    with pytest.raises(IsADirectoryError):
        graphc.save(1, tmp_path)
    with pytest.raises(FileNotFoundError, match="parent folder"):
        graphc.save(1, tmp_path / "no" / "x.pt")


def archive(*names):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name in names:
            z.writestr(name, "x")
    return out.getvalue()


def tar():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        t.addfile(tarfile.TarInfo("storages"))
    return out.getvalue()


@pytest.mark.parametrize("data, words", [
    (b"", "empty"), (pickle.dumps({"a": 1}), "Python pickle"), (b"<!DOCTYPE html><html>", "HTML"), (b"\n<html>404", "HTML"),
    (b'{"error": "Not found"}', "JSON"), (archive("a/b"), "no data.pkl"), (archive("a", "b/c"), "one folder"), (tar(), "tar archive"),
    (b"\x1f\x8b" + bytes(40), "gzip"), (b"\x89HDF\r\n\x1a\n", "HDF5"), (b"\x93NUMPY\x01\x00", "numpy.load"), (b"GGUF", "GGUF"),
    (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"), (b"hello world, this is text", "text"), (bytes(5000), "bytes 0x00"),
    (b"\x01\x02\xfe\xff" * 9, "no format graphc knows"), (b"PK\x03\x04" + bytes(50), "zip archive"), (b"\xff" * 7, "0xff"),
    (b"\xff\xd8\xff\xe0", "JPEG"), (b"\x7fELF", "program"),
], ids=lambda v: v if isinstance(v, str) else "")
def test_foreign_files_are_named(data, words, tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=words) as error:
        graphc.load(path)
    assert "model.bin" in str(error.value) and isinstance(error.value, RuntimeError)


@pytest.mark.parametrize("format", [*FORMATS, "safetensors"])
def test_truncated_files(format, tmp_path):
    path = tmp_path / "model.pt"
    graphc.save({"w": graphc.arange(100.0), "v": graphc.ones(3)}, path, format=format)
    data = path.read_bytes()
    for keep in (len(data) - 1, len(data) // 2, 100, 9, 3):
        path.write_bytes(data[:keep])
        with pytest.raises(CheckpointError, match="model.pt"):
            graphc.load(path)


def test_a_flipped_weight_names_tensor_and_file(tmp_path):
    path = tmp_path / "model.pt"
    graphc.save({"layer": {"weight": graphc.ones(50)}}, path)
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"model\.pt.*tensor 'layer\.weight'"):
        graphc.load(path)


# ---------------------------------------------------------------------------------------------------------- devices
def test_map_location(format):
    obj = {"w": graphc.ones(2)}
    asked = []

    def keep(storage, location):
        asked.append((storage.nbytes(), location))
        return storage

    for where in (None, "cpu", graphc.device("cpu"), {"cpu": "cpu"}, {"cuda:0": "cpu"}, keep, lambda s, loc: None, lambda s, loc: s.cpu(),
                  lambda s, loc: "cpu"):
        assert through(obj, format=format, map_location=where)["w"].device == graphc.device("cpu")
    assert asked == [(8, "cpu")]


def saved_on_cuda(format):
    f = io.BytesIO()
    records = convert.Records()

    def leaf(obj):
        record = records(obj)
        if record is not None:
            record.storage.location = "cuda:1"
        return record

    from graphc.serialization import container, torch_writer

    for chunk in (container if format == "graphc" else torch_writer).write({"w": graphc.ones(2)}, leaf):
        f.write(chunk)
    return f.getvalue()


def has_gpu():
    try:
        return require("cuda:1") is not None
    except DeviceError:
        return False


@pytest.mark.skipif(has_gpu(), reason="tests what happens without a GPU")
def test_a_file_saved_on_a_gpu(format):
    data = saved_on_cuda(format)
    with pytest.raises(RuntimeError, match="cuda:1.*map_location='cpu'"):
        graphc.load(io.BytesIO(data))
    for where in ("cpu", {"cuda:1": "cpu"}, lambda storage, location: storage):
        assert graphc.load(io.BytesIO(data), map_location=where)["w"].tolist() == [1, 1]
    with pytest.raises(RuntimeError):
        graphc.load(io.BytesIO(data), map_location=lambda storage, location: storage.cuda(0))
    with pytest.raises(RuntimeError):
        graphc.load(io.BytesIO(data), map_location={"cuda:1": "cuda:0"})


def test_expansion_bombs_are_refused():
    from _ckpt import make_zip, pkl, tensor

    assert graphc.load(io.BytesIO(make_zip(pkl(tensor(size=(1000, 2, 3), stride=(0, 1, 1)))))).shape == (1000, 2, 3)
    for size, stride in (((2**31 - 1, 3), (0, 1)), ((2**20, 2**20, 2, 3), (0, 0, 1, 1))):
        with pytest.raises(CheckpointError, match="save the tensor before expanding"):
            graphc.load(io.BytesIO(make_zip(pkl(tensor(size=size, stride=stride)))))


# -------------------------------------------------------------------------------------------------- against PyTorch
def test_pytorch_reads_ours_and_we_read_theirs(tmp_path):
    torch = pytest.importorskip("torch")
    ref = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        torch.save({"model": ref.state_dict(), "dtype": torch.float16, "p": ref[0].weight}, tmp_path / "t.pt", **options)
        got = graphc.load(tmp_path / "t.pt")
        net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        net.load_state_dict(got["model"])
        for name, value in ref.state_dict().items():
            assert bits(net.state_dict()[name]) == value.numpy().tobytes()
        assert got["dtype"] is graphc.float16 and isinstance(got["p"], nn.Parameter)
    graphc.save({"model": net.state_dict(), "p": net[0].weight}, tmp_path / "g.pt", format="torch")
    back = torch.load(tmp_path / "g.pt", weights_only=True)
    ref.load_state_dict(back["model"])
    assert back["p"].requires_grad and torch.equal(back["p"], ref[0].weight)


def test_dtypes_without_counterpart_are_named():
    torch = pytest.importorskip("torch")
    for dtype in (torch.uint16, torch.float8_e4m3fn):
        f = io.BytesIO()
        torch.save({"w": torch.ones(2).to(dtype)}, f)
        f.seek(0)
        with pytest.raises(CheckpointError, match=str(dtype)[6:]):
            graphc.load(f)


# -------------------------------------------------------------------------------------------------------- safetensors
def test_safetensors_functions(tmp_path):
    state = {"a": graphc.arange(6.0).view(2, 3), "b": graphc.ones(2).to(graphc.bfloat16), "m": graphc.tensor([True, False])}
    path = tmp_path / "m.safetensors"
    safetensors.save_file(state, path, metadata={"format": "pt"})
    for got in (safetensors.load_file(path), safetensors.load(path.read_bytes()), safetensors.load(safetensors.save(state)), graphc.load(path)):
        assert got.keys() == state.keys()
        assert all(bits(got[k]) == bits(state[k]) and got[k].dtype is state[k].dtype for k in state)
    graphc.save(state, tmp_path / "n.safetensors", format="safetensors")
    assert graphc.load(tmp_path / "n.safetensors")["a"].tolist() == state["a"].tolist()


def test_safetensors_library_agrees(tmp_path):
    st = pytest.importorskip("safetensors.torch")
    torch = pytest.importorskip("torch")
    state = {"w": torch.randn(3, 4), "h": torch.ones(5).bfloat16(), "i": torch.arange(3)}
    st.save_file(state, tmp_path / "a.safetensors")
    got = graphc.load(tmp_path / "a.safetensors")
    assert all(bits(got[k]) == state[k].view(torch.uint8).numpy().tobytes() for k in state)
    safetensors.save_file(got, tmp_path / "b.safetensors")
    back = st.load_file(tmp_path / "b.safetensors")
    assert all(torch.equal(back[k], state[k]) for k in state)
    graphc.save({"net": got, "step": 3}, tmp_path / "c.pt")  # graphc's own format is a safetensors file too
    assert torch.equal(st.load_file(tmp_path / "c.pt")["net.w"], state["w"])


def test_safe_open(tmp_path):
    path = tmp_path / "m.safetensors"
    w = graphc.arange(24.0).view(4, 6)
    safetensors.save_file({"w": w, "b": graphc.ones(2), "e": graphc.ones(0, 3), "m": graphc.tensor([True, False])}, path, {"k": "v"})
    with safetensors.safe_open(path, framework="pt", device="cpu") as f:
        assert f.keys() == ["b", "e", "m", "w"] and set(f.offset_keys()) == set(f.keys()) and f.metadata() == {"k": "v"}
        assert f.get_tensor("w").tolist() == w.tolist()
        part = f.get_slice("w")
        assert part.get_shape() == [4, 6] and part.get_dtype() == "F32"
        assert part[1:3, ::2].tolist() == w[1:3, ::2].tolist() and part[2].tolist() == w[2].tolist()
        assert f.get_slice("e")[:].shape == (0, 3) and f.get_slice("m")[1:].tolist() == [False]
        with pytest.raises(CheckpointError, match="does not contain tensor x"):
            f.get_tensor("x")
        with pytest.raises(CheckpointError, match="does not contain tensor x"):
            f.get_slice("x")
    with safetensors.safe_open(path, "np") as f:
        assert isinstance(f.get_tensor("w"), np.ndarray) and isinstance(f.get_slice("w")[:1], np.ndarray)
    with pytest.raises(ValueError, match="framework"):
        safetensors.safe_open(path, "jax")
    with pytest.raises(FileNotFoundError):
        safetensors.safe_open(tmp_path / "no", "pt")
    path.write_bytes(b"x")
    with pytest.raises(CheckpointError, match="m.safetensors"):
        safetensors.safe_open(path, "pt")


@pytest.mark.parametrize("bad", [{"x": 1}, [graphc.ones(1)], {"x": [graphc.ones(1)]}, {"x": graphc.ones(1).to(graphc.complex128)}, {1: graphc.ones(1)}])
def test_safetensors_refuses_other_things(bad, tmp_path):
    with pytest.raises(TypeError):
        safetensors.save_file(bad, tmp_path / "x")
    assert not os.listdir(tmp_path)
