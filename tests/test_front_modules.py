"""Small modules under PyTorch's names: jit, compiler, hub, profiler, accelerator; and names that refuse, saying what to use."""
from __future__ import annotations

import gzip
import hashlib
import json
import os
import time
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import compiler, hub, jit, nn, profiler
from graphc.profiler import ProfilerAction


def test_jit_returns_what_it_is_given() -> None:
    net = nn.Linear(2, 2)
    assert jit.script(net) is net and jit.trace(net, graphc.ones(1, 2)) is net and jit.trace_module(net, {}) is net
    assert jit.freeze(net.eval()) is net and jit.optimize_for_inference(net) is net

    @jit.script
    def f(x: Any) -> Any:
        return x + 1 if x.sum() > 0 else x - 1

    assert f(graphc.ones(1)).item() == 2 and f(-graphc.ones(1)).item() == -2  # both branches: nothing was traced away

    class Scripted(jit.ScriptModule):
        @jit.script_method
        def forward(self, x: Any) -> Any:
            return self.helper(x)

        @jit.ignore
        def helper(self, x: Any) -> Any:
            return x * 2

        @jit.unused
        def other(self) -> int:
            return 1

        @jit.ignore(drop=True)
        def dropped(self) -> int:
            return 2

    assert Scripted()(graphc.ones(1)).item() == 2 and Scripted().other() == 1 and Scripted().dropped() == 2
    assert not jit.is_scripting() and not jit.is_tracing() and jit.annotate(list[int], [1]) == [1]
    assert jit.isinstance([1], list[int]) and not jit.isinstance([1], (dict[str, int], tuple))
    assert jit.wait(jit.fork(lambda a, b=1: a + b, 1, b=3)) == 4
    with pytest.raises(RuntimeError, match="eval mode"):
        jit.freeze(net.train())
    for call in (lambda: jit.save(net, "x"), lambda: jit.load("x")):
        with pytest.raises(NotImplementedError, match="state_dict"):
            call()


def test_compiler_questions() -> None:
    seen = []

    @graphc.compile
    def f(x: Any) -> Any:
        seen.append(compiler.is_compiling())
        return compiler.disable(lambda y: y * 2)(x)

    assert f(graphc.ones(2)).tolist() == [2.0, 2.0] and seen == [True] and not compiler.is_compiling()

    @compiler.disable(recursive=False)
    def g(x: Any) -> Any:
        return x

    assert g(1) == 1 and compiler.list_backends()
    double = compiler.wrap_numpy(lambda a: (np.sort(a)[::-1], a.sum()))
    first, total = double(graphc.tensor([1.0, 3.0, 2.0]))
    assert first.tolist() == [3.0, 2.0, 1.0] and float(total) == 6.0
    with compiler.set_stance("force_eager"):
        pass
    with pytest.raises(RuntimeError):
        compiler.set_stance("sideways")


def test_hub_downloads_and_checks(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    assert hub.get_dir() == str(tmp_path / "home" / "hub")
    net = nn.Linear(3, 2)
    source = tmp_path / "w.pt"
    graphc.save(net.state_dict(), source)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    named = tmp_path / f"net-{digest[:8]}.pt"
    os.rename(source, named)
    state = hub.load_state_dict_from_url(named.as_uri(), check_hash=True, progress=False)
    assert graphc.equal(state["weight"], net.weight)
    named.unlink()
    again = hub.load_state_dict_from_url(named.as_uri(), check_hash=True)  # kept: the source is gone
    assert graphc.equal(again["weight"], net.weight)
    other = tmp_path / "other-00000000.pt"
    graphc.save(net.state_dict(), other)
    with pytest.raises(RuntimeError, match="invalid hash value"):
        hub.load_state_dict_from_url(other.as_uri(), check_hash=True)
    assert sorted(os.listdir(tmp_path / "home" / "hub" / "checkpoints")) == [named.name]
    hub.download_url_to_file(other.as_uri(), str(tmp_path / "copy.pt"))
    assert (tmp_path / "copy.pt").read_bytes() == other.read_bytes()
    hub.set_dir(tmp_path / "elsewhere")
    try:
        assert hub.get_dir() == str(tmp_path / "elsewhere")
    finally:
        hub._dir.clear()
    with pytest.raises(NotImplementedError, match="load_state_dict_from_url"):
        hub.load("pytorch/vision", "resnet18")


def test_profiler_ranges(tmp_path: Any) -> None:
    with profiler.profile(activities=[profiler.ProfilerActivity.CPU]) as p:
        with profiler.record_function("outer"):
            with profiler.record_function("inner"):
                time.sleep(0.02)
            for _ in range(2):
                with profiler.record_function("work"):
                    y = graphc.ones(10) * 2
    with profiler.record_function("outside"):
        y = y + 1
    found = {e.key: e for e in p.key_averages()}
    assert set(found) == {"outer", "inner", "work"} and found["work"].count == 2
    assert found["inner"].cpu_time_total > 15e3 and found["outer"].cpu_time_total >= found["inner"].cpu_time_total
    assert found["outer"].self_cpu_time_total < found["outer"].cpu_time_total
    table = p.key_averages().table(sort_by="self_cuda_time_total", row_limit=2).splitlines()
    assert len(table) == 3 and table[1].startswith("inner")
    p.export_chrome_trace(str(tmp_path / "t.json.gz"))
    with gzip.open(tmp_path / "t.json.gz", "rt") as f:
        assert {e["name"] for e in json.load(f)["traceEvents"]} == set(found)


def test_profiler_computes_what_a_range_recorded() -> None:
    with profiler.profile() as p:
        with profiler.record_function("range"):
            y = graphc.ones(3) + 1
        assert y._v.region is None
    assert len(p.events()) == 1


def test_profiler_schedule(tmp_path: Any) -> None:
    plan = profiler.schedule(wait=1, warmup=1, active=2, repeat=2, skip_first=1)
    names = [plan(i).name for i in range(11)]
    cycle = ["NONE", "WARMUP", "RECORD", "RECORD_AND_SAVE"]
    assert names == ["NONE", *cycle, *cycle, "NONE", "NONE"] and plan(0) is ProfilerAction.NONE
    ready: list[list[str]] = []
    handler = profiler.tensorboard_trace_handler(str(tmp_path / "tb"))

    def on_ready(p: Any) -> None:
        ready.append([e.key for e in p.events()])
        handler(p)

    with profiler.profile(schedule=plan, on_trace_ready=on_ready) as p:
        for i in range(11):
            with profiler.record_function(f"f{i}"):
                pass
            p.step()
    assert ready == [["f3", "ProfilerStep#3", "f4", "ProfilerStep#4"], ["f7", "ProfilerStep#7", "f8", "ProfilerStep#8"]]
    assert len(os.listdir(tmp_path / "tb")) == 2
    with pytest.raises(AssertionError):
        profiler.schedule(wait=-1, warmup=0, active=1)


REFUSED: list[tuple[str, Any]] = [
    ("sparse_coo_tensor", lambda: graphc.sparse_coo_tensor([[0]], [1.0])), ("mm", lambda: graphc.sparse.mm(1, 2)),
    ("nested", lambda: graphc.nested.nested_tensor([])), ("fx", lambda: graphc.fx.symbolic_trace(len)),
    ("GraphModule", lambda: graphc.fx.GraphModule()), ("onnx", lambda: graphc.onnx.export(None)),
    ("to_sparse", lambda: graphc.ones(1).to_sparse()), ("coalesce", lambda: graphc.ones(1).coalesce()),
    ("dequantize", lambda: graphc.ones(1).dequantize()),
]


@pytest.mark.parametrize("name, call", REFUSED, ids=[r[0] for r in REFUSED])
def test_names_that_refuse_say_what_to_use(name: str, call: Any) -> None:
    with pytest.raises(NotImplementedError, match="is not there: ") as refusal:
        call()
    assert len(str(refusal.value)) > 40


def test_devices_that_are_not_there() -> None:
    assert not graphc.xpu.is_available() and graphc.xpu.device_count() == 0
    if not graphc.cuda.is_available():
        assert graphc.accelerator.current_accelerator() is None and graphc.accelerator.device_count() == 0
    with graphc.backends.cuda.sdp_kernel(enable_flash=False):
        pass
    assert graphc.utils.hooks.RemovableHandle is type(nn.Linear(1, 1).register_forward_hook(lambda *a: None))
