"""Each example runs as a user runs it: alike with and without --compile, and with clear messages for bad flags."""
from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = sorted(f.name for f in (ROOT / "examples").glob("[a-z]*.py"))
SHORT = {name: ["--smoke"] for name in ("mnist_mlp.py", "regression.py", "char_gpt.py")}  # the others: test_programs.py


def run(name: str, *flags: str, ok: bool = True, cwd: Path = ROOT, block: str = "") -> str:
    """Output of ``examples/name``; ``block`` names a module made impossible to import."""
    script = str(ROOT / "examples" / name)
    start = [script]
    if block:
        code = f"import sys, runpy; sys.modules[{block!r}] = None; sys.path.insert(0, {str(ROOT / 'examples')!r}); " \
               f"sys.argv[0] = {script!r}; runpy.run_path({script!r}, run_name='__main__')"
        start = ["-c", code]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, *start, *flags], capture_output=True, text=True, timeout=300, cwd=cwd, env=env)
    assert (done.returncode == 0) is ok, done.stdout + done.stderr
    return done.stdout if ok else done.stdout + done.stderr


def losses(text: str) -> list[float]:
    return [float(x) for x in re.findall(r"loss (\d+\.\d+)", text)]


@pytest.mark.parametrize("name", SHORT)
def test_compiled_and_eager_print_the_same(name: str, tmp_path: Path) -> None:
    extra = ["--save", str(tmp_path / "w.pt")] if name == "regression.py" else []
    eager, compiled = (run(name, *SHORT[name], *extra, *flag) for flag in ([], ["--compile"]))
    assert eager == compiled
    assert losses(eager) and all(np.isfinite(losses(eager)))


@pytest.mark.parametrize("name", SHORT)
def test_the_seed_decides(name: str, tmp_path: Path) -> None:
    extra = ["--save", str(tmp_path / "w.pt")] if name == "regression.py" else []
    assert losses(run(name, *SHORT[name], *extra)) != losses(run(name, *SHORT[name], *extra, "--seed", "1"))


@pytest.mark.parametrize("name", PROGRAMS)
def test_smoke_takes_seconds(name: str, tmp_path: Path) -> None:
    """Any working directory will do, nothing needs to be there, and what is printed are finite numbers."""
    start = time.monotonic()
    text = run(name, "--smoke", "--seed", "3", cwd=tmp_path)
    assert time.monotonic() - start < 60
    values = [float(x) for x in re.findall(r"(?<![\w.])-?\d+\.\d+(?![\w.])", text)]
    assert values and np.isfinite(values).all() and "nan" not in text


def test_readme_lists_every_program() -> None:
    listed = re.findall(r"^\| `(\w+\.py)`", (ROOT / "examples" / "README.md").read_text(encoding="utf-8"), re.M)
    assert sorted(listed) == PROGRAMS and len(PROGRAMS) >= 10


@pytest.mark.parametrize("flag", [[], ["--compile"]], ids=["eager", "compile"])
def test_digits_reach_95_percent(flag: list[str]) -> None:
    lines = run("mnist_mlp.py", *flag).splitlines()
    found = re.fullmatch(r"test accuracy: (\d+\.\d\d)%", lines[-1])
    assert found and float(found[1]) >= 95.0, lines[-1]
    curve = losses("\n".join(lines))
    assert len(curve) == 15 and curve[-1] < curve[0] / 10


def test_regression_learns_and_saves(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    text = run("regression.py", "--epochs", "8", "--save", str(path))
    curve = losses(text)
    assert curve[-1] < curve[0] / 2
    assert text.splitlines()[-1] == f"saved to {path}, loaded back: outputs equal"
    assert path.stat().st_size > 0


def test_gpt_learns_and_samples() -> None:
    flags = ["--width", "32", "--layers", "1", "--context", "16", "--batch-size", "8", "--lr", "0.01"]
    text = run("char_gpt.py", *flags, "--steps", "100", "--sample", "12")
    first, last = losses(text)
    assert last < first - 0.3
    assert len(text.split(f"loss {last:.6f}\n", 1)[1]) == 12 + 2  # the starting character, the sample, a newline


def write_mnist(root: Path, images: int = 64) -> None:
    """Files in MNIST's format: digit d is a bright row d, so that a network can tell them apart."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        labels = (np.arange(images) % 10).astype(np.uint8)
        pixels = np.zeros((images, 28, 28), np.uint8)
        pixels[np.arange(images), 2 * labels] = 255
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, images, 28, 28) + pixels.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, images) + labels.tobytes())


def test_digits_from_mnist_files(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="MNIST items are Pillow images")
    write_mnist(tmp_path)
    text = run("mnist_mlp.py", "--data", str(tmp_path), "--epochs", "6", cwd=tmp_path)
    assert text.splitlines()[-1] == "test accuracy: 100.00%"


def test_missing_mnist_files(tmp_path: Path) -> None:
    assert "Dataset not found" in run("mnist_mlp.py", "--data", str(tmp_path), ok=False)


def test_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "curve.png"
    run("regression.py", "--epochs", "1", "--plot", str(path))
    assert path.read_bytes().startswith(b"\x89PNG")


def test_plot_without_matplotlib(tmp_path: Path) -> None:
    text = run("regression.py", "--epochs", "1", "--plot", str(tmp_path / "c.png"), ok=False, block="matplotlib")
    assert text.splitlines()[-1] == "--plot needs matplotlib: pip install matplotlib"


def test_without_optional_packages() -> None:
    """The README's first command has the core dependencies only."""
    for module in ("PIL", "tqdm"):
        assert losses(run("mnist_mlp.py", "--epochs", "1", block=module))


def test_counter_replaces_tqdm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    from _common import progress

    assert list(progress(["a", "b"], "epoch 1")) == ["a", "b"]
    assert "epoch 1: 2/2" in capsys.readouterr().err
