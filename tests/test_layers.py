"""Imports run downward only (docs/architecture.md), and ``import graphc`` loads nothing heavy."""
from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import graphc

PACKAGE = Path(graphc.__file__).resolve().parent
FRONT, TOP = 5, 6
LAYERS = [("errors", "dtypes", "device", "config", "_absent"), ("ir",), ("codegen", "runtime"),
          ("tensor", "tensor_hooks", "tensor_info", "tensor_overriding", "tensor_repr", "view_steps", "views", "autograd"), ("ops",)]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}  # nn, optim, compile and the rest: FRONT

# Upward imports still to be removed, as (file, imported module). The list may only shrink: an entry that is no longer
# needed fails the test, and so does an import that is not in it.
DEBTS = {
    ("ir/composites/_common.py", "autograd.engine"),
    ("ir/prims/control.py", "autograd.engine"),
    ("autograd/__init__.py", "func"),
    ("version.py", "__version__"),
}
HEAVY = ("networkx", "triton", "llvmlite", "ml_dtypes", "PIL", "torch", "scipy", "tqdm", "matplotlib", "multiprocessing")
LATER = ("nn", "optim", "utils", "vision", "distributions", "distributed", "export", "onnx", "profiler", "serialization", "func",
         "amp", "cuda", "fft", "linalg", "special", "testing", "sparse", "random", "jit", "codegen.native", "codegen.triton",
         "runtime.cuda", "runtime.jit")  # parts of graphc that load when they are used


def rank(module: str) -> int:
    """The layer of ``module``, a dotted name below the package."""
    return RANK.get(module.split(".")[0], FRONT)


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those in ``if TYPE_CHECKING:``, which never run."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            todo.extend(node.orelse)
        else:
            todo.extend(ast.iter_child_nodes(node))


def exists(package: Path, module: str) -> bool:
    path = package.joinpath(*module.split("."))
    return bool(module) and (path.is_dir() or path.with_suffix(".py").is_file())


def imported(package: Path, file: Path) -> Iterator[tuple[int, str, int]]:
    """(line, what is imported, its layer) of every import in ``file``: also inside functions, also by import_module."""
    name, here = package.name, file.relative_to(package).parts[:-1]
    for node in statements(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [(a.name.split("."), None) for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [name, *here][:len(here) + 2 - node.level] if node.level else []
            base += node.module.split(".") if node.module else []
            targets = [(base, a.name) for a in node.names]
        elif (isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__")
              and node.args and isinstance(node.args[0], ast.Constant)):
            targets = [(str(node.args[0].value).split("."), None)]
        else:
            continue
        for parts, attribute in targets:
            if parts[0] != name:
                continue
            module, line = ".".join(parts[1:]), node.lineno  # type: ignore[attr-defined]
            inner = f"{module}.{attribute}".lstrip(".") if attribute else module
            if exists(package, inner):
                yield line, inner, rank(inner)
            elif module:
                yield line, module, rank(module)
            else:  # a name of the package itself, which imports everything
                yield line, inner or name, TOP


def upward(package: Path) -> dict[tuple[str, str], int]:
    """{(file, module it imports): line} of the imports that point to a higher layer."""
    found = {}
    for file in sorted(package.rglob("*.py")):
        relative = file.relative_to(package)
        own = TOP if relative.as_posix() == "__init__.py" else rank(relative.with_suffix("").as_posix().replace("/", "."))
        for line, module, layer in imported(package, file):
            if layer > own:
                found[relative.as_posix(), module] = line
    return found


def test_imports_run_downward() -> None:
    found = upward(PACKAGE)
    new = [f"graphc/{file}:{found[file, module]} imports graphc.{module}" for file, module in sorted(found.keys() - DEBTS)]
    assert not new, "upward imports:\n" + "\n".join(new)
    assert not DEBTS - found.keys(), f"no longer there, take them off DEBTS: {sorted(DEBTS - found.keys())}"


def test_the_check_sees_every_way_to_import(tmp_path: Path) -> None:
    package = tmp_path / "graphc"
    for folder in ("ir", "ops", "nn"):
        (package / folder).mkdir(parents=True)
        (package / folder / "__init__.py").write_text("")
    (package / "__init__.py").write_text("from . import nn\n")
    (package / "tensor.py").write_text("")
    (package / "nn" / "fine.py").write_text("from ..ops import add\nimport graphc.tensor\nimport numpy\n")
    (package / "ir" / "a.py").write_text("def f():\n    from ..tensor import Tensor\n")
    (package / "ir" / "b.py").write_text("import graphc.nn.fine as x\n")
    (package / "ir" / "c.py").write_text("from .. import ops\n")
    (package / "ir" / "d.py").write_text("from importlib import import_module\nimport_module('graphc.nn')\n")
    (package / "ir" / "e.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..tensor import Tensor\n")
    (package / "ops" / "f.py").write_text("from graphc import Tensor\n")
    (package / "ops" / "g.py").write_text("import graphc\n")
    assert upward(package) == {("ir/a.py", "tensor"): 2, ("ir/b.py", "nn.fine"): 1, ("ir/c.py", "ops"): 1,
                               ("ir/d.py", "nn"): 2, ("ops/f.py", "Tensor"): 1, ("ops/g.py", "graphc"): 1}


def test_import_loads_nothing_heavy() -> None:
    """A step on the CPU needs NumPy only; other libraries load when their part is used."""
    code = "import json, sys, graphc; (graphc.ones(2) + 1).tolist(); print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=PACKAGE.parent)
    assert out.returncode == 0, out.stderr
    loaded = json.loads(out.stdout)
    assert {"graphc", "numpy"} <= set(loaded)
    assert not {name.split(".")[0] for name in loaded} & set(HEAVY)
    assert [name for name in loaded for part in LATER if f"{name}.".startswith(f"graphc.{part}.")] == []
    assert all(exists(PACKAGE, part) for part in LATER)  # else the line above looks for nothing


def test_parts_load_as_attributes() -> None:
    """``import graphc as torch`` alone gives every part, as PyTorch does; what they define pickles by its own module."""
    code = ("import pickle, graphc as torch\n"
            "d = torch.distributions.Normal(0.0, 1.0)\n"
            "assert type(pickle.loads(pickle.dumps(d))) is torch.distributions.Normal\n"
            "for part in ('nn', 'optim', 'utils', 'distributed', 'profiler', 'onnx', 'export', 'vision', 'fft', 'special'):\n"
            "    assert getattr(torch, part).__name__ == 'graphc.' + part, part\n"
            "assert torch.nn.functional.relu and torch.optim.lr_scheduler.StepLR and torch.utils.data.DataLoader\n"
            "try: torch.no_such_part\n"
            "except AttributeError as e: assert 'no_such_part' in str(e)\n"
            "else: raise SystemExit('found no_such_part')\n")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=PACKAGE.parent)
    assert out.returncode == 0, out.stderr


def test_test_files_have_names_of_their_own() -> None:
    """Test folders are no packages: two files of one name would hide each other."""
    names = [f.name for f in Path(__file__).parent.rglob("*.py") if f.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))
