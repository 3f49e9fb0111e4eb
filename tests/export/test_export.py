"""graphc.export: programs in one file, run with and without the front end."""
from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from export_models import MODELS, leaves, mlp

import graphc
from graphc import nn
from graphc.errors import (
    ArgumentError,
    ArgumentTypeError,
    CheckpointError,
    DTypeError,
    GraphBreakError,
    GraphcError,
    ShapeError,
)

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(graphc.__file__)))


def check(got: Any, want: Any, tol: float = 1e-6) -> None:
    a, b = leaves(got), leaves(want)
    assert len(a) == len(b)
    for x, y in zip(a, b):
        assert x.dtype == y.dtype and x.shape == y.shape
        np.testing.assert_allclose(x, y, rtol=tol, atol=tol)


@pytest.mark.parametrize("name", MODELS)
def test_file_gives_what_the_module_gives(name: str, tmp_path: Any) -> None:
    make, example = MODELS[name]
    model, x = make(), example()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    path = tmp_path / "m.gcx"
    graphc.export(model, (x,), path)
    run = graphc.export.load(path)
    for _ in range(2):
        x = example()
        want = model(x)
        check(run(x.numpy()), want)
        got = run(x)
        check(got, want)
        assert isinstance(next(iter(got.values())) if isinstance(got, dict) else got, graphc.Tensor)
    for k, v in model.state_dict().items():  # exporting leaves the model as it was
        assert (v == before[k]).all()
    assert set(before) - {k for k in before if "num_batches" in k} == set(run.state_dict)


@pytest.mark.parametrize("name", MODELS)
def test_dynamic_batch(name: str, tmp_path: Any) -> None:
    make, example = MODELS[name]
    model, x = make(), example()
    path = tmp_path / "m.gcx"
    graphc.export.export(model, (x,), path=path, dynamic_batch=True)
    run = graphc.export.load(path)
    for n in (1, 2, x.shape[0], 9):
        x = graphc.cat([example() for _ in range(9)])[:n]
        check(run(x.numpy()), model(x), 1e-5)
    with pytest.raises(ShapeError, match="input 0 has shape"):
        run(np.zeros((3, *x.shape[1:-1], x.shape[-1] + 1), x.numpy().dtype))


def test_batch_as_a_number_is_refused() -> None:
    with pytest.raises(GraphcError, match="dynamic_batch: the program depends on the batch size"):
        graphc.export.export(lambda x: (x * x.shape[0]).sin(), (graphc.randn(4, 3),), dynamic_batch=True)


def test_training_step_keeps_its_state(tmp_path: Any) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
    opt = graphc.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x: Any, t: Any) -> Any:
        opt.zero_grad()
        loss = nn.functional.cross_entropy(model(x), t)
        loss.backward()
        opt.step()
        return loss

    x, t = graphc.randn(6, 8), graphc.randint(0, 4, (6,))
    step(x, t)
    program = graphc.export.export(step, (x, t))
    program.save(tmp_path / "step.gcx")
    run = graphc.export.load(tmp_path / "step.gcx")
    for k in range(6):
        x, t = graphc.randn(6, 8), graphc.randint(0, 4, (6,))
        check(run(x.numpy(), t.numpy()), step(x, t), 1e-5)
        if k == 2:  # saved in the middle, it goes on from there
            run.save(tmp_path / "later.gcx")
            run = graphc.export.load(tmp_path / "later.gcx")
    got = list(run.state_dict.values())
    for p in model.parameters():
        assert any(a.shape == p.shape and np.allclose(a, p.detach().numpy(), atol=1e-5) for a in got)


def test_what_changes_from_call_to_call_is_refused() -> None:
    drop = nn.Dropout(0.5)
    with pytest.raises(GraphcError, match=r"test_export\.py:\d+ that changes from call to call"):
        graphc.export.export(lambda x: drop(x), (graphc.randn(3, 3),))
    seen: list[int] = []
    x3 = graphc.randn(3)

    def counting(x: Any) -> Any:
        seen.append(1)
        return x * 2 if len(seen) == 1 else x + 2

    with pytest.raises(GraphcError, match="different programs"):
        graphc.export.export(counting, (graphc.randn(3),))
    model = nn.Linear(3, 3)

    def accumulating(x: Any) -> Any:
        model(x).sum().backward()
        return model.weight.grad * 1

    with pytest.raises(GraphcError):
        graphc.export.export(accumulating, (graphc.randn(2, 3),))
    noise = np.random.default_rng(0)
    with pytest.raises(GraphcError, match="another one on every call"):
        graphc.export.export(lambda x: x + graphc.from_numpy(noise.random(3)), (graphc.randn(3),))
    run = graphc.export.export(lambda x: x + graphc.from_numpy(np.eye(3, dtype="f4")) @ graphc.tensor([1.0, 2, 3]), (x3,))
    assert list(run(np.ones(3, np.float32))) == [2, 3, 4]
    kept = [graphc.zeros(3)]

    def rebinding(x: Any) -> Any:  # a Python variable that is bound anew is no write the program could make
        kept[0] = kept[0] * 2
        return kept[0] + x

    with pytest.raises(GraphcError, match="another one on every call"):
        graphc.export.export(rebinding, (x3,))
    calls = [0.0]

    def counting_up(x: Any) -> Any:
        calls[0] += 1
        return x * calls[0]

    with pytest.raises(GraphcError, match="step count"):
        graphc.export.export(counting_up, (x3,))
    with pytest.raises(GraphcError, match="step count"):  # also when the function reaches what can't be searched
        graphc.export.export(lambda x, _=(k for k in "ab"): counting_up(x), (x3,))


@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
def test_adam_counts_its_steps(kind: str, tmp_path: Any) -> None:
    model = nn.Linear(3, 3)
    opt = getattr(graphc.optim, kind)(model.parameters(), lr=0.05, weight_decay=0.1)

    def step(x: Any) -> Any:
        opt.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        opt.step()
        return loss, model.weight

    x = graphc.randn(2, 3)
    step(x)
    run = graphc.export(step, (x,), tmp_path / "a.gcx")
    run = graphc.export.load(tmp_path / "a.gcx")
    for k in range(8):
        x = graphc.randn(2, 3)
        got = run(x.numpy())
        check(got, step(x), 1e-5)
        got[1][:] = 7  # a result is the caller's own
        if k == 3:
            run.save(tmp_path / "b.gcx")
            run = graphc.export.load(tmp_path / "b.gcx")


def test_host_reads_and_wrong_arguments() -> None:
    with pytest.raises(GraphBreakError, match=r"test_export\.py"):
        graphc.export.export(lambda x: x * 2 if x.sum() > 0 else x, (graphc.randn(3),))
    assert float(graphc.ones(2).sum()) == 2  # recording works on after the error
    with pytest.raises(ArgumentTypeError, match="module or a function"):
        graphc.export.export(3, ())
    run = graphc.export.export(lambda x, scale, flag: {"a": x[1] * scale[0], "b": x[0] if flag else None},
                               ([graphc.ones(2), graphc.ones(3)], (graphc.ones(3),), True))
    got = run([np.ones(2, np.float32), np.full(3, 2, np.float32)], (np.full(3, 5, np.float32),), True)
    assert list(got["a"]) == [10, 10, 10] and list(got["b"]) == [1, 1]
    with pytest.raises(ArgumentTypeError, match="called with"):
        run([np.ones(2, np.float32), np.ones(3, np.float32)], (np.ones(3, np.float32),), False)
    with pytest.raises(DTypeError, match="input 1 must be float32, got float64"):
        run([np.ones(2, np.float32), np.ones(3)], (np.ones(3, np.float32),), True)
    with pytest.raises(ShapeError, match="dynamic_batch=True"):
        run([np.ones(2, np.float32), np.ones(4, np.float32)], (np.ones(3, np.float32),), True)


def test_keyword_arguments() -> None:
    def f(a: Any, *, b: Any, c: Any = None) -> Any:
        return a * 2 + b - c

    one, two, three = (np.full(2, k, np.float32) for k in (1, 2, 3))
    for program in (graphc.export.export(f, (one,), {"c": three, "b": two}),
                    graphc.export(f, (one,), kwargs={"b": two, "c": three}, dynamic_batch=True)):
        assert list(program(three, b=one, c=two)) == list(program(three, c=two, b=one)) == [5, 5]
        with pytest.raises(ArgumentTypeError, match="called with"):
            program(one, two, three)
    assert list(program(np.ones(5, np.float32), b=np.ones(5, np.float32), c=np.zeros(5, np.float32))) == [3] * 5
    with pytest.raises(ShapeError, match="batch size 4, another input 5"):
        program(np.ones(5, np.float32), b=np.ones(4, np.float32), c=np.zeros(5, np.float32))
    with pytest.raises(ArgumentError, match="dynamic_batch"):
        graphc.export(f, (one,), kwargs={"b": two, "c": three}, dynamic_batch=[3])


CHILD = """
import importlib.util, sys, numpy as np
spec = importlib.util.spec_from_file_location("standalone", sys.argv[1])
m = importlib.util.module_from_spec(spec); spec.loader.exec_module(m)
run = m.load(sys.argv[2])
np.save(sys.argv[4], run(np.load(sys.argv[3])))
loaded = sorted(k for k in sys.modules if k.startswith("graphc."))
front = [k for k in loaded if k.split(".")[1] in ("tensor", "nn", "ops", "optim", "autograd", "compile", "views")]
assert "graphc.codegen.plan" in loaded, loaded
print("front:", front)
"""


@pytest.mark.parametrize("name", ["cnn", "gpt"])
def test_runs_without_the_front_end(name: str, tmp_path: Any) -> None:
    make, example = MODELS[name]
    model, x = make(), example()
    graphc.export(model, (x,), tmp_path / "m.gcx")
    np.save(tmp_path / "x.npy", x.numpy())
    script = os.path.join(ROOT, "graphc", "export", "standalone.py")
    out = subprocess.run([sys.executable, "-c", CHILD, script, tmp_path / "m.gcx", tmp_path / "x.npy", tmp_path / "y.npy"],
                         capture_output=True, text=True, cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    assert out.stdout.strip() == "front: []"
    check(np.load(tmp_path / "y.npy"), model(x))
    if name == "gpt":
        return
    done = subprocess.run([sys.executable, script, tmp_path / "m.gcx", tmp_path / "x.npy", "--out", tmp_path / "y.npz"],
                          capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    check(np.load(tmp_path / "y.npz")["out_0"], model(x))


def test_every_damaged_byte_is_noticed(tmp_path: Any) -> None:
    path = tmp_path / "m.gcx"
    graphc.export(mlp(), (graphc.randn(2, 8),), path)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in [*rng.integers(0, len(data), 60), 0, 8, len(data) - 1]:
        bad = bytearray(data)
        bad[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        with pytest.raises(CheckpointError):
            graphc.export.load(path)
    for cut in (0, 7, 100, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(CheckpointError):
            graphc.export.load(path)
    graphc.save({"a": graphc.ones(2)}, path)
    with pytest.raises(CheckpointError, match="not an exported program"):
        graphc.export.load(path)
    with pytest.raises(FileNotFoundError):
        graphc.export.load(tmp_path / "none")


def forged(tmp_path: Any, **changes: Any) -> Any:
    """A file with right checksums whose description was changed."""
    from graphc.serialization import container
    from graphc.serialization.records import Builder
    from graphc.serialization.source import open_source

    path = tmp_path / "forged.gcx"
    graphc.export(mlp(), (graphc.randn(2, 8),), path)
    with open_source(path) as source:
        obj = container.read(source, Builder())
    for key, value in changes.items():
        obj[key] = value(obj[key]) if callable(value) else value
    path.write_bytes(b"".join(map(bytes, container.write(obj, container.numpy_leaf))))
    return path


@pytest.mark.parametrize("change, message", [
    ({"graphc.export": 2}, "version 2"), ({"graphc.export": "x"}, "version"),
    ({"graph": "nonsense"}, "parse"), ({"graph": lambda t: t.replace("maximum", "os_system")}, "unknown op"),
    ({"graph": "%0: f32[4] = leaf()\n%1: f32[9] = slice(%0) [(0,), (9,), (1,)]\nreturn %1"}, "slice"),
    ({"graph": "%0: f32[4] = leaf()\n%1: f32[4] = permute(%0) [(-1,)]\nreturn %1"}, "permutation"),
    ({"graph": "%0: f32[4] = leaf()\n%1: f32[4] = where(%0, %0, %0)\nreturn %1"}, "not bool"),
    ({"graph": "%0: f32[4] = leaf()\n%1: f64[4] = cast(%0) ['<f64>']\n%2: f32[8] = concat(%0, %1) [0]\nreturn %2"}, "dtypes"),
    ({"graph": "%0: f32[4] = leaf()\n%1: f32[] = const() [b'abc', '<f32>']\nreturn %1"}, "constant"),
    ({"graph": "%0: f32[4] = leaf()\n%1: f32[2] = reduce(%0) ['add', (0,)]\nreturn %1"}, "rule gives"),
    ({"graph": "%0: f32[4] = leaf()\n%1: f32[4] = relu(%0)\nreturn %1"}, "exported program|parse|bound|binds"),
    ({"sources": lambda s: s[:-1]}, "binds"), ({"sources": lambda s: [["weight", "gone"], *s[1:]]}, "does not fit"),
    ({"weights": {}}, "does not fit"), ({"inputs": ["f32[3,8]"]}, "does not fit"), ({"results": 2}, "outputs"),
    ({"batch": [0]}, "dynamic batch"), ({"out_spec": 5}, "damaged description"), ({"weights": None}, "damaged"),
])
def test_files_that_lie_are_refused(change: dict[str, Any], message: str, tmp_path: Any) -> None:
    path = forged(tmp_path, **change)
    with pytest.raises((CheckpointError, GraphcError), match=message) as error:
        graphc.export.load(path)(np.zeros((2, 8), np.float32))
    if "out_spec" not in change:
        assert isinstance(error.value, CheckpointError) and "forged.gcx" in str(error.value)


def test_a_failed_save_leaves_the_old_file(tmp_path: Any) -> None:
    path = tmp_path / "m.gcx"
    program = graphc.export(mlp(), (graphc.randn(2, 8),), path)
    data = path.read_bytes()
    program._program.in_spec = object()
    with pytest.raises(TypeError):
        program.save(path)
    assert path.read_bytes() == data and os.listdir(tmp_path) == ["m.gcx"]


def test_graph_text_names_the_lines() -> None:
    program = graphc.export.export(mlp(), (graphc.randn(2, 8),))
    assert "contract" in program.graph and "test_export.py" in program.graph
    assert repr(program).startswith("<ExportedProgram: 11 nodes, 4 weights")


def deep(x: Any) -> Any:
    for _ in range(300):
        x = (x * 1.01).sin()
    return x


def test_long_programs_are_one_graph(monkeypatch: Any) -> None:
    x = graphc.randn(3)
    monkeypatch.setattr(graphc.config, "NODE_CAP", 100)
    want = deep(x).numpy()  # recorded in several regions
    program = graphc.export.export(deep, (x,))
    assert graphc.config.NODE_CAP == 100 and program.graph.count(" = sin(") == 300
    np.testing.assert_allclose(program(x.numpy()), want, rtol=1e-6)
    monkeypatch.setattr(graphc.config, "EAGER", True)
    np.testing.assert_allclose(graphc.export.export(deep, (x,))(x.numpy()), want, rtol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_files_with_other_numbers_never_crash(name: str) -> None:
    """Right checksums around a graph whose numbers were changed: refused, or a program that runs or says what is wrong."""
    import io
    import random
    import re

    from graphc.serialization import container
    from graphc.serialization.records import Builder
    from graphc.serialization.source import open_source

    make, example = MODELS[name]
    x, f, rng = example(), io.BytesIO(), random.Random(name)
    graphc.export.export(make(), (x,)).save(f)
    f.seek(0)
    with open_source(f) as source:
        obj = container.read(source, Builder())
    lines = obj["graph"].split("\n")
    refused = 0
    for _ in range(60):
        bad, k = list(lines), rng.randrange(len(lines))
        found = rng.choice(list(re.finditer(r"-?\d+", lines[k])))
        new = rng.choice([int(found.group()) + 1, int(found.group()) - 1, 0, -1, 7, 1 << 40])
        bad[k] = lines[k][:found.start()] + str(new) + lines[k][found.end():]
        obj["graph"] = "\n".join(bad)
        try:
            program = graphc.export.load(io.BytesIO(b"".join(map(bytes, container.write(obj, container.numpy_leaf)))))
        except CheckpointError:
            refused += 1
            continue
        try:
            program(x.numpy())
        except GraphcError:
            pass
    assert refused > 30
