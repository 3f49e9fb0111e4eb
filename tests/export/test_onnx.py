"""ONNX export: the table's rows against graphc's own definition, and whole models, run by onnxruntime."""
from __future__ import annotations

import io
import os
import sys
from typing import Any

import numpy as np
import pytest
from export_models import MODELS, leaves

import graphc
from graphc import nn
from graphc.errors import ArgumentError, GraphcError
from graphc.ir.interpret import run_graph
from graphc.ir.node import Graph, GraphBuilder, aval
from graphc.ir.optable import OPS
from graphc.ir.recorder import LEAF


def test_what_needs_no_onnx(monkeypatch: Any, tmp_path: Any) -> None:
    model, x = nn.Linear(2, 2), graphc.ones(1, 2)
    with pytest.raises(NotImplementedError, match="is not there: "):
        graphc.onnx.export(model, (x,))
    with pytest.raises(ArgumentError, match="dynamic_axes"):
        graphc.onnx.export(model, (x,), tmp_path / "m.onnx", dynamic_shapes=({0: "n"},))
    with pytest.raises(ArgumentError, match="opset_version 11"):
        graphc.onnx.export(model, (x,), tmp_path / "m.onnx", opset_version=11)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"graphc\[onnx\]"):
        graphc.onnx.export(model, (x,), tmp_path / "m.onnx")
    assert not os.listdir(tmp_path) and not graphc.onnx.is_in_onnx_export()


def run(data: bytes, inputs: list[np.ndarray]) -> list[np.ndarray]:
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(data, options)
    return session.run(None, {i.name: a for i, a in zip(session.get_inputs(), inputs)})


def exported(model: Any, args: Any, **options: Any) -> bytes:
    pytest.importorskip("onnx")
    f = io.BytesIO()
    graphc.onnx.export(model, args, f, **options)
    return f.getvalue()


# ------------------------------------------------------------------------------------------------------------ single rows
def _rows() -> list[str]:
    from graphc.export.onnx_rows import ROWS

    return sorted({*ROWS, *[k for k, op in OPS.items() if op.is_composite]})


def one_node(name: str, arrays: list[np.ndarray], attrs: Any) -> Graph:
    b = GraphBuilder()
    for a in arrays:
        av = aval(a.shape, graphc.dtypes.from_numpy(a.dtype), graphc.device("cpu"))
        b.add(LEAF, (), (av,), (av,))
    first = b.emit(OPS[name], tuple(range(len(arrays))), attrs)
    return b.graph(tuple(range(first, len(b.avals))))


def narrowed(a: np.ndarray) -> np.ndarray:
    return np.asarray(a, np.float32 if a.dtype == np.float64 else a.dtype)


@pytest.mark.parametrize("name", _rows())
def test_row_against_the_definition(name: str) -> None:
    pytest.importorskip("onnxruntime")
    from graphc.export.onnx_rows import ROWS
    from graphc.export.onnx_writer import UnsupportedOperatorError, to_model
    from graphc.export.program import Program

    done = 0
    for arrays, attrs in OPS[name].samples():
        arrays = [narrowed(np.asarray(a)) for a in arrays]
        if any(d is graphc.float64 for d in attrs) or (attrs and isinstance(attrs[0], Graph)):
            attrs = tuple([graphc.float32 if d is graphc.float64 else d for d in attrs])
        if name == "loop_scan":
            arrays = [np.asarray(a, np.float64) for a in arrays]  # its sample body is of float64
        if arrays[0].size == 0:
            continue
        graph = one_node(name, arrays, attrs)
        avals = [n.avals[0] for n in graph.inputs]
        p = Program(graph, avals, [("input", i) for i in range(len(arrays))], {}, [], None, None, len(graph.outputs))
        try:
            data = to_model(p, None, None, 20 if done else 18).SerializeToString()
        except UnsupportedOperatorError:
            continue
        for got, want in zip(run(data, arrays), run_graph(graph, arrays)):
            want = np.asarray(want)
            assert got.dtype == want.dtype and got.shape == want.shape
            if want.dtype.kind == "f":
                np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
            else:
                assert np.array_equal(got, want)
        done += 1
    assert done or name in ("shl", "shr") or name not in ROWS, "no sample of this row was exported"


# ---------------------------------------------------------------------------------------------------------- whole models
@pytest.mark.parametrize("name", MODELS)
def test_models(name: str) -> None:
    make, example = MODELS[name]
    model, x = make(), example()
    data = exported(model, (x,))
    for _ in range(2):
        x = example()
        want = [a for a in leaves(model(x)) if a.ndim]
        got = run(data, [x.numpy()])
        assert len(got) == len(want)
        for a, b in zip(got, want):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_dynamic_batch(name: str) -> None:
    make, example = MODELS[name]
    model = make()
    data = exported(model, (example(),), input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "n"}, "y": {0: "n"}})
    for n in (1, 3, 30):
        x = graphc.cat([example() for _ in range(15)])[:n]
        for a, b in zip(run(data, [x.numpy()]), [a for a in leaves(model(x)) if a.ndim]):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_dynamic_axes_that_can_not_be() -> None:
    x = graphc.randn(4, 3)
    for axes in ({"x": {1: "n"}}, {"other": [0]}, {"x": [0, 1]}):
        with pytest.raises(ArgumentError, match="axis 0|batch size"):
            exported(nn.ReLU(), (x,), input_names=["x"], dynamic_axes=axes)
    for fn in (lambda x: x * x.shape[0], lambda x: x + graphc.arange(x.shape[0])[:, None]):
        with pytest.raises(GraphcError, match="depends on the batch size"):
            exported(fn, (x,), input_names=["x"], dynamic_axes={"x": [0]})


def test_transformers_and_two_directions() -> None:
    graphc.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2).eval()
    for model, x in ((encoder, graphc.randn(2, 5, 16)), (nn.LSTM(4, 5, bidirectional=True), graphc.randn(6, 2, 4)),
                     (nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.InstanceNorm2d(3), nn.AdaptiveAvgPool2d(3)),
                      graphc.randn(2, 3, 4, 4))):
        for a, b in zip(run(exported(model, (x,)), [x.numpy()]), leaves(model(x))):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


class Many(nn.Module):
    """Ops that a usual model mixes."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.gru = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), nn.GRU(6, 5)
        self.gn = nn.GroupNorm(2, 6)

    def forward(self, x: Any, idx: Any) -> Any:
        y = nn.functional.silu(self.gn(self.up(x)))
        y = nn.functional.avg_pool2d(y, 2) + nn.functional.interpolate(y, scale_factor=0.5)
        rows, _ = self.gru(y.flatten(2).permute(2, 0, 1))
        top, where = rows.topk(2, -1)
        z = rows.clone()
        z[1:3, :, 0] = 7.0
        z = z.flip(0).roll(1, 1).cumsum(0)
        picked = z[idx] + nn.functional.pad(rows, (0, 0, 0, 0, 1, 0))[:-1][idx].softmax(-1).log_softmax(0)
        mask = (picked > 0).any(-1, keepdim=True) & ~picked.isnan().all(-1, keepdim=True)
        return top, where, graphc.where(mask, picked, picked.clamp(-1, 1) ** 2), picked.argmax(-1), (picked % 2.5).round()


def test_many_ops_and_names() -> None:
    onnx = pytest.importorskip("onnx")
    graphc.manual_seed(0)
    model, x, idx = Many().eval(), graphc.randn(2, 4, 3, 3), graphc.tensor([[0, 2], [1, -1]])
    data = exported(model, (x, idx), input_names=["x", "idx"], output_names=["top", "where"], opset_version=19)
    proto = onnx.load_from_string(data)
    assert [i.name for i in proto.graph.input] == ["x", "idx"]
    assert [o.name for o in proto.graph.output][:2] == ["top", "where"]
    assert {"up.weight", "gn.bias", "gru.weight_hh_l0"} <= {t.name for t in proto.graph.initializer}
    assert any("test_onnx.py:" in n.doc_string for n in proto.graph.node)
    got, want = run(data, [x.numpy(), idx.numpy()]), leaves(model(x, idx))
    assert len(got) == 5
    for a, b in zip(got, want):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_errors_name_the_op_and_the_line() -> None:
    pytest.importorskip("onnx")
    unsupported = graphc.onnx.UnsupportedOperatorError
    with pytest.raises(unsupported, match=r"'lgamma' recorded at .*test_onnx\.py:\d+"):
        exported(lambda x: graphc.lgamma(x), (graphc.ones(3),))
    with pytest.raises(unsupported, match="running mul"):
        exported(lambda x: x.cumprod(0), (graphc.ones(3),))
    model = nn.BatchNorm1d(3)
    with pytest.raises(ArgumentError, match=r"model\.eval\(\)"):
        exported(model, (graphc.randn(4, 3),))
    with pytest.raises(RuntimeError, match="input names provided"):
        exported(model.eval(), (graphc.randn(4, 3),), input_names=["a", "b"])
    assert exported(model, graphc.randn(4, 3))  # one tensor needs no tuple


@pytest.mark.parametrize("act", ["ReLU", "GELU", "SiLU", "Mish", "ELU", "Softplus", "Hardswish", "LogSigmoid", "LeakyReLU"])
def test_activations(act: str) -> None:
    model, x = getattr(nn, act)(), graphc.linspace(-4, 4, 33)
    np.testing.assert_allclose(run(exported(model, (x,)), [x.numpy()])[0], model(x).numpy(), rtol=1e-5, atol=2e-6)
