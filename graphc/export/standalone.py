"""Exported programs without graphc's front end: run this file, or load it by its path.

    python graphc/export/standalone.py model.gcx x.npy mask.npy --out y.npz

    spec = importlib.util.spec_from_file_location("standalone", ".../graphc/export/standalone.py")
    load = importlib.util.module_from_spec(spec); spec.loader.exec_module(load); run = load.load("model.gcx")

``import graphc`` loads tensors, ops and recording; here the packages ``graphc`` and ``graphc.serialization`` are entered into
``sys.modules`` without running their ``__init__``, unless they are there already, so that only the IR, the code generators and
the run time are loaded. A process that did this can't use the front end afterwards.
"""
from __future__ import annotations

import importlib
import os
import sys
import types
from typing import Any

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _bare(name: str, folder: str) -> None:
    """Enter a package without running it."""
    if name not in sys.modules:
        package = types.ModuleType(name)
        package.__path__ = [folder]
        sys.modules[name] = package


def load(f: Any) -> Any:
    """The exported program in a file (see ``graphc.export.load``), as a callable on NumPy arrays."""
    _bare("graphc", _ROOT)
    _bare("graphc.serialization", os.path.join(_ROOT, "serialization"))
    return importlib.import_module("graphc.export.exported").load(f)


def main(argv: list[str]) -> int:
    """Run a program on .npy files; results go to an .npz file (``out_0``, ``out_1``, ...) or are printed."""
    import argparse

    import numpy as np

    parser = argparse.ArgumentParser(description="Run an exported graphc program.")
    parser.add_argument("program")
    parser.add_argument("inputs", nargs="*", help=".npy files, one per positional argument")
    parser.add_argument("--out", help=".npz file for the results")
    args = parser.parse_args(argv)
    result = load(args.program)(*[np.load(p, allow_pickle=False) for p in args.inputs])
    leaves: list[Any] = []
    importlib.import_module("graphc.export.structure").flatten(result, lambda x: isinstance(x, np.ndarray), leaves)
    if args.out:
        np.savez(args.out, **{f"out_{i}": a for i, a in enumerate(leaves)})
    else:
        for a in leaves:
            print(a)
    return 0


if __name__ == "__main__":
    sys.path[:] = [p for p in sys.path if os.path.abspath(p or ".") != os.path.dirname(os.path.abspath(__file__))]
    raise SystemExit(main(sys.argv[1:]))
