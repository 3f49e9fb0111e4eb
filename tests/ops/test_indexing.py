"""Indexing against PyTorch: every form of ``t[...]`` read and written, gather and scatter, masks, embeddings, diagonals.

A case is a line of Python run once with graphc and once with torch as ``T``: values, dtypes, shapes and gradients must
agree, or both sides must raise errors of the same type.
"""
from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")

ERRORS = (RuntimeError, TypeError, ValueError, IndexError, AssertionError, NotImplementedError)
KINDS = (IndexError, TypeError, ValueError, AssertionError, RuntimeError)


def data(tag: str, *shape: int) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(tag.encode())).uniform(-2, 2, shape)


def as_np(t: Any) -> np.ndarray:
    return np.array(t.tolist()).reshape(tuple(t.shape))


def same(a: Any, b: Any, what: str) -> None:
    if isinstance(b, (tuple, list)):
        assert len(a) == len(b), what
        for x, y in zip(a, b):
            same(x, y, what)
    elif isinstance(b, torch.Tensor):
        assert str(a.dtype) == str(b.dtype), f"{what}: {a.dtype} is not {b.dtype}"
        assert tuple(a.shape) == tuple(b.shape), f"{what}: {tuple(a.shape)} is not {tuple(b.shape)}"
        np.testing.assert_allclose(as_np(a), as_np(b), rtol=1e-12, atol=1e-12, err_msg=what)
    else:
        assert a == b, what


def run(code: str, lib: Any, inputs: list[Any]) -> Any:
    """The value of an expression, or of ``t`` after statements; x, y, z are the inputs, ``t`` starts as a copy of x."""
    env = {"T": lib, "F": lib.nn.functional, "np": np, **dict(zip("xyz", inputs))}
    if code.startswith("t["):
        env["t"] = inputs[0] * 1
        exec(code, env)
        return env["t"]
    return eval(code, env)


def compare(code: str, *arrays: np.ndarray, grad: bool = True) -> None:
    sides = []
    for lib in (graphc, torch):
        inputs = [lib.tensor(a) for a in arrays]
        sides.append([t.requires_grad_(grad and t.is_floating_point()) for t in inputs])
    ours, theirs = sides
    try:
        want = run(code, torch, theirs)
    except ERRORS as error:
        with pytest.raises(next(k for k in KINDS if isinstance(error, k))):
            got = run(code, graphc, ours)
            for t in got if isinstance(got, tuple) else (got,):
                t.tolist()
        return
    got = run(code, graphc, ours)
    same(got, want, code)
    a, b = (got[0], want[0]) if isinstance(want, (tuple, list)) else (got, want)
    if not (isinstance(b, torch.Tensor) and b.requires_grad):
        return
    seed = np.random.default_rng(1).uniform(0.5, 1.5, tuple(b.shape))
    try:
        b.backward(torch.tensor(seed))
    except RuntimeError:  # PyTorch has no gradient for a source larger than the index
        return
    if not a.requires_grad:  # an overwritten tensor: no history here, a history of zeros there
        assert all(q.grad is None or not q.grad.any() for q in theirs), code
        return
    a.backward(graphc.tensor(seed))
    for k, (p, q) in enumerate(zip(ours, theirs)):
        if p.grad is None:
            assert q.grad is None or not q.grad.any(), f"{code}: no gradient for input {k}"
        elif q.grad is not None:
            same(p.grad, q.grad, f"gradient of input {k} of {code}")


X = data("x", 3, 4, 5)

READS = """1 -1 : 1: ::2 1:3:2 ... ...,1 1,... None None,1 :,None,1:2 1,:,2 1,2,3 -1,-1,-1 :,1:3,::2 5:9 2:1 -2: [0,2] [[0,2]] [[0],[2]]
[0,2],[1,3] [0,2],:,[1,3] :,[0,2],[1,3] :,[0,2] ...,[0,-1] [0,2],...,[1,3] [[0],[2]],[1,3] 1,:,[0,2] [0,2],1,[1,3] :,1,[0,2] [0,2],1:3,[1,3]
[0,2],None,[1,3] None,[0,2] :,[0,2],None,[1,3] [True,False,True] True False None,True True,[0,2] [0,2],True
T.tensor(1) T.tensor(1),:,[0,2] :,T.tensor(1),[0,2] T.tensor([1,0]),T.tensor(2) T.tensor(1),T.tensor(2) T.tensor(1),:,T.tensor(2) T.tensor([]).long()
[] x>0 x[:,:,0]>0 x[0]>0 :,x[0]>0 :,x[0,:,0]>0 ...,x[0,0]>0 [0,2],x[0,:,0]>5 1,x[1,:,0]>0 x[:,0,0]>-9,[0,1,2] T.tensor(True) T.tensor(False)
T.tensor(True),1 x>9 np.array([0,2]) np.int64(1) np.array([True,False,True]) range(2) (0,1),(1,2) T.tensor([[0,2],[1,1]]),:,T.tensor([0,1])
T.tensor([-1,-3]) T.tensor([0,1],dtype=T.int32) :,T.tensor([[0],[1]]),T.tensor([[0,1,2]]) T.arange(3),T.arange(3),T.arange(3)
[0,2],:,T.tensor(1) T.tensor(0),:,[0,1],1 [T.tensor(0),T.tensor(2)] T.tensor([0,1]),None,T.tensor(1) 3 -4 0,0,0,0 ::-1 ::0 1.0 'a' [3] [0,1],[5,0]
:,[4] [0,1],[0,1,2] T.tensor([0.5]) x[:2]>0 T.tensor([-4]) [0,1],[0,1],[0,1],[0,1] ...,... T.tensor([1,0,1],dtype=T.uint8)""".split()


@pytest.mark.parametrize("index", READS)
def test_read(index: str) -> None:
    compare(f"x[{index}]", X)


@pytest.mark.parametrize("index", ["0", "()", "...", "None", "True", "False", "T.tensor(True)", "x>0", "None,None", "...,None", ":", "[0]", "0,0"])
def test_read_zero_dim(index: str) -> None:
    compare(f"x[{index}]", np.array(1.5))


@pytest.mark.parametrize("index", [":0", "0", "[]", ":,[0]", ":,[0,1,0]", "x>0", ":,:0", "[0]", "...,None", ":,None,[0]"])
def test_read_empty(index: str) -> None:
    compare(f"x[{index}]", np.zeros((0, 3)))


WRITES = """1 -1 : 1: ::2 ... ...,1 None :,None,1:2 1,:,2 1,2,3 [0,2] [0,2],[1,3] [0,2],:,[1,3] :,[0,2],[1,3] :,[0,2] 1,:,[0,2] [0,2],1,[1,3]
[True,False,True] True False T.tensor(1) T.tensor(1),:,[0,2] x>0 x[:,:,0]>0 :,x[0]>0 :,x[0,:,0]>0 ...,x[0,0]>0 [0,2],x[0,:,0]>5 T.tensor(True)
T.tensor(False) x>9 [[0],[2]],[1,3] x[:,0,0]>0,1 5:9 [] 3 ::-1 [7] x[:2]>0 T.tensor([-1,0]) [0,1],:,T.tensor(2)""".split()


@pytest.mark.parametrize("index", WRITES)
def test_write(index: str) -> None:
    for value in ("5.0", "True", "T.tensor(2.5, dtype=T.float64)", "y[0]", "y[0, 0]", "y[:, 0, :1]", "T.ones(1, 1, 1, 1)", "T.arange(5)", "[1, 2]"):
        if index in ("T.tensor(True)", "T.tensor(False)") and value.startswith("T."):
            continue  # through a zero-dim mask graphc converts the value's dtype, PyTorch refuses
        compare(f"t[{index}] = {value}", X, data("y", 3, 4, 5))


def test_write_of_a_masks_own_elements() -> None:
    compare("t[x > 0] += 1", X)
    compare("t[x > 0] = x[x > 0] * 2", X)
    compare("t[x > 0] = x[x > 1]", X)
    compare("t[[0, 2]] *= 3", X)


def test_repeated_writes() -> None:
    compare("t[[1, 1, 1]] = y", X, data("y", 3, 4, 5), grad=False)  # the last one wins on both sides
    compare("t[[1, 1, 0]] += 1", X)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int64", "uint8", "bool"])
def test_dtypes(dtype: str) -> None:
    for code in ("x[[0, 2], 1:]", "x[x > 1]", "x[1]", "x.gather(0, T.tensor([[0, 2]]))", "T.zeros_like(x).scatter_(1, T.tensor([[0], [1]]), x)",
                 "x.index_select(1, T.tensor([1]))", "x.masked_fill(x > 1, 1)", "x.nonzero()", "x.tril()", "T.where(x > 1, x, 0)"):
        compare(f"(lambda x: {code})(x.to(T.{dtype}))", np.array([[0, 1, 2], [3, 0, 1], [2, 2, 0]]), grad=False)


DIM = """x.gather(1,T.tensor([[[0,1]],[[3,2]]]))
x.gather(0,T.tensor([[[2,0,1,1,0]]]))
x.gather(-1,x.argsort(-1))
x.gather(1,T.tensor([[[4]]]))
x.gather(1,T.tensor([[[-1]]]))
x.gather(1,T.tensor([0]))
x.gather(3,T.tensor([[[0]]]))
x.gather(1,T.tensor([[[0.5]]]))
x.gather(1,T.zeros(9,1,1).long())
T.gather(x,1,T.zeros(3,0,5).long())
x.index_select(1,T.tensor([3,0,0]))
x.index_select(0,T.tensor(1))
x.index_select(0,T.tensor([[1]]))
x.index_select(0,T.tensor([3]))
x.index_select(5,T.tensor([0]))
x.index_add(1,T.tensor([0,0,3]),y[:,:3])
x.index_add(1,T.tensor([0,0,3]),y[:,:3],alpha=2.5)
x.index_add(1,T.tensor([0,0]),y)
x.index_copy(0,T.tensor([2,0]),y[:2])
x.index_copy(0,T.tensor([2,0]),y)
x.index_fill(2,T.tensor([0,4]),3.0)
x.index_fill(2,T.tensor([0,4]),y[0,0,0])
x.index_fill(2,T.tensor([9]),3.0)
x.index_reduce(1,T.tensor([0,0,3]),y[:,:3],'prod')
x.index_reduce(1,T.tensor([0,0,3]),y[:,:3],'amax',include_self=False)
x.index_reduce(1,T.tensor([0,0,3]),y[:,:3],'mean')
x.take(T.tensor([[0,-1],[7,7]]))
x.take(T.tensor([60]))
x.put(T.tensor([1,3]),y[0,0,:2])
x.put(T.tensor([1,1]),y[0,0,:2],accumulate=True)
T.take_along_dim(x,x.argmax(1,keepdim=True),1)
T.take_along_dim(x,T.tensor([5,0,0]))
T.take_along_dim(x,T.tensor([[[0],[1]]]),1)
x.scatter(1,T.tensor([[[0,1]],[[3,2]]]),y[:2,:1,:2])
x.scatter(1,T.tensor([[[0,1]],[[3,2]]]),y)
x.scatter(1,T.tensor([[[0,1]],[[3,2]]]),7.0)
x.scatter(1,T.tensor([[[0,1]],[[3,2]]]),value=7.0)
x.scatter(1,T.tensor([[[0,1]],[[3,2]]]),y,reduce='add')
x.scatter(1,T.tensor([[[4]]]),y)
x.scatter(1,T.tensor([[[0]]]),y.float())
x.scatter(1,T.tensor([]).long(),y)
x.scatter(1,T.zeros(4,1,1).long(),y)
x.scatter_add(0,T.tensor([[[0,1,1],[2,2,2]],[[0,0,0],[1,1,0]]]),y[:2,:2,:3])
x.scatter_add(2,T.zeros(3,4,5).long(),y)
x.scatter_reduce(0,T.tensor([[[0,1,1],[2,2,2]],[[0,0,0],[1,1,0]]]),y[:2,:2,:3],'sum')
x.scatter_reduce(0,T.tensor([[[0,1,1],[2,2,2]],[[0,0,0],[1,1,0]]]),y[:2,:2,:3],'mean')
x.scatter_reduce(0,T.tensor([[[0,1,1],[2,2,2]],[[0,0,0],[1,1,0]]]),y[:2,:2,:3],'mean',include_self=False)
x.scatter_reduce(0,T.tensor([[[0,1,1],[2,2,2]],[[0,0,0],[1,1,0]]]),y[:2,:2,:3],'prod')
x.scatter_reduce(0,T.tensor([[[0,1,1],[2,2,2]],[[0,0,0],[1,1,0]]]),y[:2,:2,:3],'prod',include_self=False)
x.scatter_reduce(0,T.tensor([[[0,1,1],[2,2,2]],[[0,0,0],[1,1,0]]]),y[:2,:2,:3],'amax')
x.scatter_reduce(0,T.tensor([[[0,1,1],[2,2,2]],[[0,0,0],[1,1,0]]]),y[:2,:2,:3],'amin',include_self=False)
x.scatter_reduce(0,T.tensor([[[0,1,1],[2,2,2]],[[0,0,0],[1,1,0]]]),y[:2,:2,:3].round(),'amax')
x.round().scatter_reduce(1,T.zeros(3,4,5).long(),y.round(),'amin')
x.round().scatter_reduce(1,T.zeros(3,4,5).long(),y.round(),'prod')
x.scatter_reduce(0,T.tensor([[[0]]]),y,'max')
x.index_put((T.tensor([0,0]),T.tensor([1,1])),y[0,:2],accumulate=True)
x.index_put((T.tensor([0,2]),),y[0])
x.index_put((x>0,),T.tensor(1.0,dtype=T.float64))
x.index_put((T.tensor([0]),),y.float())
T.unravel_index(T.tensor([[0,17],[59,3]]),(3,4,5))""".split("\n")


@pytest.mark.parametrize("code", DIM)
def test_along_a_dimension(code: str) -> None:
    compare(code, X, data("y", 3, 4, 5))


@pytest.mark.parametrize("code", """x.scatter_(1,T.tensor([[0,1]]),y) x.scatter_add_(0,T.tensor([[0,1]]),y) x.index_add_(0,T.tensor([0,0]),y[:2])
x.index_fill_(1,T.tensor([0]),2.0) x.index_copy_(0,T.tensor([1]),y[:1]) x.masked_fill_(x>0,0.0) x.masked_scatter_(x>0,y) x.tril_() x.triu_(1)
x.put_(T.tensor([0]),y[0,:1]) x.index_put_((T.tensor([0,0]),),y[0],accumulate=True) x.scatter_reduce_(0,T.tensor([[0,0]]),y,'amax')
x[1:].index_fill_(0,T.tensor([0]),9.0)""".split())
def test_in_place(code: str) -> None:
    outs = []
    for lib in (graphc, torch):
        x, y = lib.tensor(data("x", 3, 4)), lib.tensor(data("y", 3, 4))
        result = eval(code, {"T": lib, "x": x, "y": y})
        outs.append((x, result))
    same(outs[0], outs[1], code)


@pytest.mark.parametrize("code", """T.where(x>0,x,y) T.where(x>0,1.0,0.0) T.where(x>0,1,0) T.where(x>0,x,0) T.where(x>0) T.where(x[0]>0,x,y[:,:1]) x.where(x>0,y)
T.where(x,x,y) T.where(x>0,x.float(),y) x.masked_fill(x>0,-1.0) x.masked_fill(x[0]>0,y[0,0,0]) x.masked_fill(x>0,y[0,0]) x.masked_fill(x,1.0)
x.long().masked_fill(x>0,1.5) x.masked_select(x>0) x.masked_select(x[0,0]>0) x[0,0].masked_select(x>0) x.masked_select(x) x.masked_scatter(x>0,y)
x.masked_scatter(x[0]>0,y) x.masked_scatter(x>0,y[0,0]) (x>0).nonzero() x.nonzero(as_tuple=True) x[0,0,0].nonzero() x[0,0,0].nonzero(as_tuple=True)
T.argwhere(x>1) T.nonzero(x>9) T.nonzero(T.zeros(0,3)) T.nonzero(T.tensor(0.0))""".split())
def test_masks(code: str) -> None:
    compare(code, X, data("y", 3, 4, 5))


DIAGONAL = """x.tril() x.tril(-1) x.triu(2) T.tril(x[0,0]) x.diagonal() x.diagonal(1) x.diagonal(-2,1,2) x.diagonal(0,-1,0) x.diagonal(9) x.diagonal(0,1,1)
x.diagonal(2,2,0) T.diag(x[0]) T.diag(x[0],-1) T.diag(x[0,0]) T.diag(x[0,0],2) T.diag(x[0,0],-1) T.diag(x) T.diag_embed(x) T.diag_embed(x,1) T.diag_embed(x,-2,0,2)
T.diag_embed(x,1,2,0) T.diag_embed(x,0,1,1) T.diagflat(x[0]) T.diagflat(x[0,0],-1) T.tril_indices(3,4) T.tril_indices(3,4,1) T.triu_indices(4,3,-1)
T.triu_indices(2,2,dtype=T.int32) T.tril_indices(-1,2) x.transpose(0,2).diagonal() x[:,1:,::2].diagonal(1,1,2)""".split()


@pytest.mark.parametrize("code", DIAGONAL)
def test_triangles_and_diagonals(code: str) -> None:
    compare(code, X)


@pytest.mark.parametrize("view", ["diagonal()", "diagonal(1)", "diagonal(-1, 1, 2)", "diagonal(0, 2, 0)", "transpose(0, 1).diagonal(1)", "[:, 1:].diagonal(0, 1, 2)"])
def test_diagonal_is_a_view(view: str) -> None:
    outs = []
    for lib in (graphc, torch):
        x = lib.tensor(X)
        d = eval(f"x{view if view[0] == '[' else '.' + view}", {"x": x})
        d.mul_(2)
        x[0] += 1
        outs.append((x, d))
    same(outs[0], outs[1], view)


EMBED = """F.embedding(x,y) F.embedding(x[0],y,padding_idx=2) F.embedding(x,y,padding_idx=-1) F.embedding(x,y,scale_grad_by_freq=True) F.embedding(x[0,0],y)
F.embedding(x+9,y) F.embedding(x-1,y) F.embedding(x.double(),y) F.embedding(x,y,padding_idx=9) F.embedding_bag(x,y) F.embedding_bag(x,y,mode='sum')
F.embedding_bag(x,y,mode='max') F.embedding_bag(x[0],y,T.tensor([0,2])) F.embedding_bag(x[0],y,T.tensor([0,2,2]),mode='sum')
F.embedding_bag(x[0],y,T.tensor([0,2,3]),include_last_offset=True) F.embedding_bag(x[0],y,T.tensor([0,1]),mode='max')
F.embedding_bag(x,y,padding_idx=1) F.embedding_bag(x,y,mode='sum',per_sample_weights=z) F.embedding_bag(x,y,per_sample_weights=z)
F.embedding_bag(x[0],y) F.embedding_bag(x,y,T.tensor([0])) F.embedding_bag(x[0],y,T.tensor([1])) F.one_hot(x) F.one_hot(x,6) F.one_hot(x,2) F.one_hot(x-1,6)
F.one_hot(x.int()) F.one_hot(x[0,0])""".split()


@pytest.mark.parametrize("code", EMBED)
def test_embeddings(code: str) -> None:
    compare(code, np.array([[0, 2, 1], [3, 1, 1]]), data("w", 4, 3), data("p", 2, 3))


def test_embedding_max_norm_rescales_the_rows_used() -> None:
    outs = []
    for lib in (graphc, torch):
        w = lib.tensor(data("w", 4, 3) * 3)
        outs.append((lib.nn.functional.embedding(lib.tensor([0, 2, 2]), w, max_norm=1.0), w))
    np.testing.assert_allclose(as_np(outs[0][0]), as_np(outs[1][0]), rtol=1e-6)
    np.testing.assert_allclose(as_np(outs[0][1]), as_np(outs[1][1]), rtol=1e-6)


def test_error_texts() -> None:
    x = graphc.zeros(3, 4)
    for index, text in [((0, 0, 0), "too many indices for tensor of dimension 2"), (5, "index 5 is out of bounds for dimension 0 with size 3"),
                        ((0, -5), "index -5 is out of bounds for dimension 1 with size 4"), (([0], [4]), "index 4 is out of bounds for dimension 1 with size 4"),
                        (([0, 1], [0, 1, 2]), "shape mismatch")]:
        with pytest.raises(IndexError, match=text):
            x[index].tolist()
    with pytest.raises(ValueError, match="step must be greater than zero"):
        x[::-1]
    with pytest.raises(IndexError, match="shape of the mask"):
        x[graphc.zeros(2, 4) > 0]
    with pytest.raises(TypeError, match="can't assign a list"):
        x[0] = [1, 2, 3, 4]
    with pytest.raises(RuntimeError, match="cannot be broadcast to indexing result"):
        x[[0, 1]] = graphc.zeros(3)


def test_basic_indices_alias_and_advanced_ones_copy() -> None:
    x = graphc.zeros(3, 4)
    x[1:, None, ::2].fill_(1)
    x[[0]].fill_(9)
    x[0][1] = 5
    assert x.tolist() == [[0, 5, 0, 0], [1, 0, 1, 0], [1, 0, 1, 0]]


def test_a_mask_with_a_scalar_reads_nothing() -> None:
    from graphc.ir.recorder import counters

    x = graphc.tensor(X)
    before = counters["flushes"]
    x[x > 0] = 0.0
    x[:, x[0, :, 0] < 0] = 1.0
    x[x[:, :, 0] == 1] = graphc.arange(5.0, dtype=graphc.float64)
    assert counters["flushes"] == before
    y = torch.tensor(X)
    y[y > 0] = 0.0
    y[:, y[0, :, 0] < 0] = 1.0
    y[y[:, :, 0] == 1] = torch.arange(5.0, dtype=torch.float64)
    same(x, y, "masked writes")


def test_second_gradient_through_indexing() -> None:
    outs = []
    for lib in (graphc, torch):
        x = lib.tensor(data("s", 4, 3), requires_grad=True)
        y = (x[[0, 2, 2]] ** 3).sum() + (x.gather(1, lib.tensor([[0, 0], [1, 2]])) ** 3).prod()
        (g,) = lib.autograd.grad(y, x, create_graph=True)
        (h,) = lib.autograd.grad((g * g).sum(), x)
        outs.append((g, h))
    same(outs[0], outs[1], "second gradient")


def test_out() -> None:
    x = graphc.tensor(X)
    out = graphc.zeros(2, 4, 5, dtype=graphc.float64)
    assert graphc.index_select(x, 0, graphc.tensor([2, 0]), out=out) is out
    same(out, torch.tensor(X).index_select(0, torch.tensor([2, 0])), "out")
