"""default_collate and default_convert against PyTorch's."""
from collections import OrderedDict, UserDict, namedtuple

import numpy as np
import pytest

import graphc
from graphc.utils.data import default_collate, default_convert
from graphc.utils.data._utils.collate import collate, default_collate_fn_map

torch = pytest.importorskip("torch")
reference = pytest.importorskip("torch.utils.data")
Point = namedtuple("Point", "x y")


def same(ours, theirs):
    """Equal structure, types, dtypes and values."""
    if isinstance(theirs, torch.Tensor):
        assert isinstance(ours, graphc.Tensor)
        assert str(ours.dtype) == str(theirs.dtype)
        assert tuple(ours.shape) == tuple(theirs.shape)
        assert ours.tolist() == theirs.tolist()
    elif isinstance(theirs, dict) or hasattr(theirs, "keys"):
        assert type(ours) is type(theirs) and list(ours) == list(theirs)
        for k in theirs:
            same(ours[k], theirs[k])
    elif isinstance(theirs, (list, tuple)):
        assert type(ours) is type(theirs) and len(ours) == len(theirs)
        for a, b in zip(ours, theirs):
            same(a, b)
    else:
        assert type(ours) is type(theirs) and (ours is theirs or ours == theirs)


BATCHES = {
    "ints": [1, 2, 3], "floats": [1.5, 2.5], "bools": [True, False], "mixed numbers": [1, 2.5], "strings": ["a", "bc"],
    "bytes": [b"a", b"b"], "arrays": [np.arange(3), np.arange(3, 6)],
    "float16 arrays": [np.ones((2, 2), np.float16), np.zeros((2, 2), np.float16)],
    "zero-dim arrays": [np.array(3), np.array(4)], "numpy scalars": [np.float32(1), np.float32(2)],
    "numpy bools": [np.bool_(True), np.bool_(False)], "tuples": [(1, 2.0), (3, 4.0)], "lists": [[1, 2], [3, 4]],
    "dicts": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}], "nested": [{"a": (np.arange(2), [1, "s"])}] * 2,
    "named tuples": [Point(1, 2.0), Point(3, 4.0)], "ordered dict": [OrderedDict(b=1, a=2)] * 2,
    "user dict": [UserDict(a=1)] * 2, "empty array": [np.zeros((0, 3), np.float32)] * 2, "ranges": [range(3), range(3)],
    "one": [5],
}


@pytest.mark.parametrize("name", BATCHES)
def test_collate_like_torch(name):
    same(default_collate(BATCHES[name]), reference.default_collate(BATCHES[name]))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int64", "uint8", "bool", "complex64"])
def test_collate_tensors(dtype):
    ours = [graphc.tensor([[1, 0], [2, i]]).to(getattr(graphc, dtype)) for i in range(3)]
    theirs = [torch.tensor([[1, 0], [2, i]]).to(getattr(torch, dtype)) for i in range(3)]
    out = default_collate(ours)
    assert str(out.dtype) == f"torch.{dtype}"
    same(out, torch.stack(theirs))


def test_collate_views_pending_and_gradients():
    base = graphc.arange(12).reshape(4, 3)
    assert default_collate([base[2], base[0], base[:, 1][1:4]]).tolist() == [[6, 7, 8], [0, 1, 2], [4, 7, 10]]
    pending = [base[i] * 2 + 1 for i in range(4)]
    assert default_collate(pending).tolist() == (base * 2 + 1).tolist()
    w = graphc.ones(3, requires_grad=True)
    out = default_collate([w * 2, w * 3])
    out.sum().backward()
    assert w.grad.tolist() == [5, 5, 5]


def test_collated_batch_is_a_copy():
    x = graphc.zeros(2, 3)
    batch = default_collate([x[0], x[1]])
    batch.add_(1)
    assert x.sum().item() == 0


def test_collate_sees_in_place_writes():
    x = graphc.zeros(2, 3)
    rows = [x[0], x[1]]
    x.add_(1)
    assert default_collate(rows).tolist() == [[1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize("batch,error", [
    ([object(), object()], TypeError), ([None], TypeError), ([np.array(["a"]), np.array(["b"])], TypeError),
    ([np.array([None])], TypeError), ([[1, 2], [1]], RuntimeError), ([(1,), (1, 2)], RuntimeError),
    ([np.zeros(2), np.zeros(3)], RuntimeError),
])
def test_collate_errors_like_torch(batch, error):
    with pytest.raises(error):
        reference.default_collate(batch)
    with pytest.raises(error):
        default_collate(batch)


def test_collate_error_names_sizes():
    with pytest.raises(RuntimeError, match=r"equal size.*\[3\].*\[2\]"):
        default_collate([graphc.zeros(3), graphc.zeros(2)])


def test_custom_collate_map():
    class Mark:
        pass

    fns = {**default_collate_fn_map, Mark: lambda batch, *, collate_fn_map: len(batch)}
    assert collate([(Mark(), 1), (Mark(), 2)], collate_fn_map=fns)[0] == 2
    with pytest.raises(TypeError):
        default_collate([Mark()])


@pytest.mark.parametrize("data", [
    0, 1.5, "s", b"s", None, np.arange(3), np.float32(2), [np.arange(2), "a"], (np.arange(2), 1), {"a": np.zeros(2)},
    Point(np.array(0), 1), np.array(["a"]), range(3), OrderedDict(a=np.arange(2)),
])
def test_convert_like_torch(data):
    same(default_convert(data), reference.default_convert(data))


def test_convert_keeps_tensors_and_shares_arrays():
    t = graphc.ones(2)
    assert default_convert(t) is t
    arr = np.zeros(3, np.float32)
    out = default_convert(arr)
    arr[0] = 7
    assert out.tolist() == [7, 0, 0]
