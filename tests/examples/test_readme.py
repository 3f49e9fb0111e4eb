"""What the README promises is there: its commands, its program, its switches, its files."""
from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from graphc.ir import dump

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALL = "import graphc as t; x = t.ones(3, requires_grad=True); (x * 2 + 1).sum().backward(); print(x.grad)"


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT,
                          env={**os.environ, **env})
    assert done.returncode == 0, done.stderr
    return done


def test_commands() -> None:
    commands = re.search(r"```sh\n(.*?)```", README, re.S)
    assert commands
    lines = [line.split("#")[0].strip() for line in commands[1].splitlines()]
    assert lines == ["pip install -e '.[native]' && python examples/mnist_mlp.py", "pip install -e '.[test,native]' && pytest"]


def test_program(tmp_path: Path) -> None:
    program = re.search(r"```python\n(.*?)```", README, re.S)
    assert program
    script = tmp_path / "program.py"
    script.write_text(program[1])
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    loss, *explained = done.stdout.splitlines()
    assert 1.0 < float(loss) < 5.0  # about ln 10 before any training
    assert explained[:4] == ["calls: 1", "plans built: 1", "recompiled: 0 calls", "graph breaks: 0"]
    assert f"{script}:" in done.stdout  # the graph names the user's lines


@pytest.mark.parametrize("stage", ["trace", "plan", "passes"])
def test_dumps_go_to_stderr(stage: str) -> None:
    done = python(SMALL, GRAPHC_DUMP=stage)
    assert done.stdout == "tensor([2., 2., 2.])\n"
    assert "= mul(" in done.stderr and "<string>:1" in done.stderr


def test_dumps_go_to_files(tmp_path: Path) -> None:
    assert python(SMALL, GRAPHC_DUMP="plan,dot", GRAPHC_DUMP_DIR=str(tmp_path)).stderr == ""
    names = {path.suffix: path for path in tmp_path.iterdir()}
    assert set(names) == {".txt", ".dot"}
    assert names[".dot"].read_text().startswith("digraph")


@pytest.mark.parametrize("switch", ["GRAPHC_VERIFY", "GRAPHC_EAGER"])
def test_switches_change_no_result(switch: str) -> None:
    assert python(SMALL, **{switch: "2"}).stdout == python(SMALL).stdout


def test_names_and_files_exist() -> None:
    for name in ("to_text", "to_dot", "to_networkx"):
        assert name in README and callable(getattr(dump, name))
    config = (ROOT / "graphc" / "config.py").read_text(encoding="utf-8")
    switches = set(re.findall(r"GRAPHC_\w+", README))
    assert switches and all(f'"{switch}"' in config for switch in switches)
    files = set(re.findall(r"(?:examples|docs|tools)/[\w/]+\.\w+", README))
    assert {"examples/mnist_mlp.py", "docs/architecture.md"} <= files
    assert all((ROOT / file).is_file() for file in files)
