"""Programs as people write them for PyTorch run alike here, eagerly, compiled and replayed; so do many one-line idioms."""
from __future__ import annotations

import contextlib
import io
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import public_agents
import public_basics
import public_models
import public_tools
import pytest
from public_harness import Program, differences, execute, same_text

import graphc

PROGRAMS: dict[str, tuple[Program, float]] = {
    **public_models.PROGRAMS, **public_basics.PROGRAMS, **public_agents.PROGRAMS, **public_tools.PROGRAMS}
IDIOMS = (Path(__file__).parent / "public_idioms.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PROGRAMS)
def test_follows_pytorch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    program, rtol = PROGRAMS[name]
    reference = execute(program, "torch")
    for mode, backend in (("compile", ""), ("replay", ""), ("eager", "numpy")):  # kernels of one mode are enough here
        monkeypatch.setattr(graphc.config, "BACKEND", backend)
        assert differences(execute(program, "graphc", mode), reference, rtol) == [], mode


def test_checkpoints_of_compiled_modules_are_plain() -> None:
    net = graphc.nn.Linear(2, 1)
    assert not hasattr(net, "_orig_mod")
    compiled = graphc.compile(net)
    state = compiled._orig_mod.state_dict()
    for k in list(state):
        if k.startswith("_orig_mod."):
            state[k.removeprefix("_orig_mod.")] = state.pop(k)
    assert list(state) == ["weight", "bias"] and graphc.nn.Linear(2, 1).load_state_dict(state).missing_keys == []


def idiom(line: str, torch: Any) -> str:
    """What a line of statements, separated by " ;; ", prints: the last, if it is an expression, its value."""
    r = np.random.RandomState(0)

    def normal(*shape: int) -> Any:
        return torch.from_numpy(r.randn(*shape).astype(np.float32))

    scope = {"torch": torch, "nn": torch.nn, "F": torch.nn.functional, "np": np, "N": normal, "x": normal(3, 4), "y": normal(3, 4),
             "v": normal(5), "i": torch.tensor([2, 0, 1]), "b": torch.tensor([True, False, True]),
             "w": torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True), "L": torch.arange(6).view(2, 3)}
    torch.distributions.Distribution.set_default_validate_args(True)  # tracing by PyTorch, in other tests, turns it off
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            *statements, last = line.split(" ;; ")
            for s in statements:
                exec(s, scope)
            try:
                code = compile(last, "idiom", "eval")
            except SyntaxError:
                exec(last, scope)
            else:
                value = eval(code, scope)
                print((value, tuple(value.shape)) if isinstance(value, torch.Tensor) else value)
        except Exception as error:
            print("raises", next(k.__name__ for k in type(error).__mro__ if k.__module__ == "builtins"))
    return re.sub(r"<\w*Backward\w*>", "<Backward>", out.getvalue().replace("graphc.", "torch."))


@pytest.mark.parametrize("part", range(4))
def test_idioms_print_what_they_print_in_pytorch(part: int) -> None:
    torch = pytest.importorskip("torch")
    lines = [line for line in IDIOMS if line and not line.startswith("#")][part::4]
    assert len(lines) > 50
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pairs = [(line, idiom(line, graphc), idiom(line, torch)) for line in lines]
    assert [(line, ours, theirs) for line, ours, theirs in pairs if not same_text(ours, theirs, 2e-4)] == []
