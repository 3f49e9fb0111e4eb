"""Well-known program shapes run alike under graphc, compiled, and under PyTorch with only their import lines changed."""
from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_examples import losses, run

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# program: (its networks, largest relative difference between PyTorch's losses and ours)
PROGRAMS: dict[str, tuple[tuple[str, ...], float]] = {
    "mnist_cnn": (("Net",), 1e-3),
    "vae": (("VAE",), 1e-4),
}


def theirs(source: str) -> str:
    """``source`` with graphc's import lines, and no others, turned into PyTorch's."""
    source = re.sub(r"^import graphc as torch$", "import torch", source, flags=re.M)
    return re.sub(r"^(\s*)(import|from) graphc\b", r"\1\2 torch", source, flags=re.M)


def weights(shape: tuple[int, ...], r: np.random.Generator) -> np.ndarray:
    """Uniform numbers of the usual size for a weight of ``shape``."""
    bound = 1 / np.sqrt(max(1, int(np.prod(shape[1:])))) if len(shape) > 1 else 0.05
    return r.uniform(-bound, bound, shape).astype(np.float32)


def seeded(torch: Any, network: Callable[..., Any]) -> Callable[..., Any]:
    """``network`` whose weights come from NumPy's generator, and whose dropout is off: the same start in every framework."""

    def build(*args: Any, **kwargs: Any) -> Any:
        net = network(*args, **kwargs)
        r = np.random.default_rng(1)
        with torch.no_grad():
            for name, p in net.named_parameters():
                scale = "norm" in name or "bn" in name
                p.copy_(torch.from_numpy(weights(tuple(p.shape), r) + np.float32(scale and name.endswith("weight"))))
        for module in net.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            elif isinstance(module, (torch.nn.LSTM, torch.nn.MultiheadAttention)):
                module.dropout = 0.0
        return net

    return build


def execute(name: str, framework: str, monkeypatch: pytest.MonkeyPatch, capsys: Any, *flags: str) -> list[float]:
    """The losses ``examples/name.py`` prints with --smoke, from NumPy's weights and noise and with the data in order."""
    source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    source = theirs(source) if framework == "torch" else source
    torch = pytest.importorskip(framework)
    scope: dict[str, Any] = {"__name__": name, "__file__": str(EXAMPLES / f"{name}.py")}
    r = np.random.default_rng(2)

    def normal(*shape: Any, device: Any = None) -> Any:
        return torch.from_numpy(r.normal(size=shape).astype(np.float32))

    with monkeypatch.context() as m:
        m.syspath_prepend(str(EXAMPLES))
        m.setattr(sys, "argv", [name, "--smoke", *flags])
        m.setattr(torch, "randn", normal)
        m.setattr(torch, "randn_like", lambda x: normal(*x.shape))
        exec(compile(source, scope["__file__"], "exec"), scope)
        for network in PROGRAMS[name][0]:
            scope[network] = seeded(torch, scope[network])
        if "DataLoader" in scope:
            loader = scope["DataLoader"]
            scope["DataLoader"] = lambda *args, shuffle=False, **kwargs: loader(*args, **kwargs)
        scope["main"]()
    return losses(capsys.readouterr().out)


@pytest.fixture(autouse=True)
def no_examples_left() -> Iterator[None]:
    """The modules the examples share are imported anew by whoever needs them."""
    yield
    for name in ("_common", "_data"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", PROGRAMS)
def test_follows_pytorch(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ours, reference = (execute(name, framework, monkeypatch, capsys) for framework in ("graphc", "torch"))
    assert len(ours) >= 2 and ours[-1] < ours[0]
    np.testing.assert_allclose(ours, reference, rtol=PROGRAMS[name][1])


@pytest.mark.parametrize("name", PROGRAMS)
def test_compiled_and_eager_print_the_same(name: str) -> None:
    eager, compiled = (run(f"{name}.py", "--smoke", *flag) for flag in ([], ["--compile"]))
    assert eager == compiled
    curve = losses(eager)
    assert all(np.isfinite(curve)) and curve[-1] < curve[0]


@pytest.mark.parametrize("name", PROGRAMS)
def test_only_import_lines_differ(name: str) -> None:
    source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    changed = [(a, b) for a, b in zip(source.splitlines(), theirs(source).splitlines()) if a != b]
    assert changed and all(a.startswith(("import graphc", "from graphc")) for a, _ in changed)
    assert "graphc" not in theirs(source) and len(source.splitlines()) < 150
