"""Data for the example programs as NumPy arrays: handwritten digits, words, small colour images in CIFAR-10's files."""
from __future__ import annotations

import argparse
import ast
import glob
import gzip
import os
import pickle
import re
import tempfile
from typing import Any

import numpy as np

SHAPES = ["disc", "ring", "square", "frame", "triangle", "diamond", "plus", "cross", "rows", "columns"]
SMOKE = 48  # images kept by --smoke: three batches of 16


def flags(p: argparse.ArgumentParser, data: str) -> argparse.ArgumentParser:
    """Add ``--data``; ``data`` says what the folder holds."""
    p.add_argument("--data", metavar="FOLDER", help=data)
    return p


def shrink(args: argparse.Namespace, *arrays: np.ndarray) -> list[np.ndarray]:
    """``arrays`` as they are, or with --smoke the first rows, to be seen in two epochs of batches of 16."""
    if not args.smoke:
        return list(arrays)
    args.epochs, args.batch_size = 2, 16
    return [a[:SMOKE] for a in arrays]


def digits(root: str | None) -> tuple[np.ndarray, ...]:
    """Train images, train labels, test images, test labels; images float32 (N, 1, 28, 28) in 0..1, labels int64 (N,).

    The MNIST files of ``root/MNIST/raw`` (plain or .gz), or without ``root`` the 1,797 bundled UCI digits, whose 8x8 pixels
    are enlarged to 24x24 within 28x28; every fifth of them is for testing. Raises SystemExit when files are missing.
    """
    if root:
        kinds = ("images-idx3", "labels-idx1")
        return tuple(_idx(root, f"{part}-{kind}-ubyte") for part in ("train", "t10k") for kind in kinds)
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "optdigits_8x8.csv.gz")
    with gzip.open(path, "rt") as f:
        rows = np.loadtxt(f, delimiter=",", dtype=np.int64)
    images = np.zeros((len(rows), 1, 28, 28), np.float32)
    images[:, 0, 2:26, 2:26] = rows[:, :64].reshape(-1, 8, 8).repeat(3, axis=1).repeat(3, axis=2) / 16
    test = np.arange(len(rows)) % 5 == 0
    return images[~test], rows[~test, 64], images[test], rows[test, 64]


def _idx(root: str, name: str) -> np.ndarray:
    """One file in MNIST's IDX format: two zero bytes, type, number of axes, big-endian sizes, bytes."""
    path = os.path.join(root, "MNIST", "raw", name)
    if os.path.isfile(path + ".gz"):
        with gzip.open(path + ".gz") as f:
            raw = f.read()
    elif os.path.isfile(path):
        with open(path, "rb") as f:
            raw = f.read()
    else:
        raise SystemExit(f"Dataset not found: no {path}")
    shape = np.frombuffer(raw, ">i4", raw[3], 4).tolist()
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)
    return values.astype(np.int64) if len(shape) == 1 else values[:, None].astype(np.float32) / 255


def docstring_words(limit: int) -> list[str]:
    """About ``limit`` words, marks and ``<eos>`` (end of line) of the docstrings in Python's own standard library."""
    words: list[str] = []
    for path in sorted(glob.glob(os.path.join(os.path.dirname(os.__file__), "*.py"))):
        with open(path, encoding="utf-8", errors="ignore") as f:
            tree = ast.parse(f.read())
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                for line in (ast.get_docstring(node) or "").splitlines():
                    words += [w.lower() for w in re.findall(r"[A-Za-z_]+|[.,:;()]", line)] + ["<eos>"]
        if len(words) >= limit:
            break
    return words[:limit]


# ---------------------------------------------------------------------------------------------------- CIFAR-10's files
def cifar(root: str | None) -> tuple[np.ndarray, ...]:
    """Train images, train labels, test images, test labels of ``root/cifar-10-batches-py``; uint8 (N, 3, 32, 32), int64 (N,).

    Where that folder is missing, or without ``root``, pictures of plain shapes are drawn into files of the same format first:
    they are no photographs, and an accuracy on them says nothing about CIFAR-10. Raises OSError or pickle.UnpicklingError for
    missing or unexpected files.
    """
    if root is None:
        with tempfile.TemporaryDirectory() as folder:
            return cifar(folder)
    folder = os.path.join(root, "cifar-10-batches-py")
    if not os.path.isdir(folder):
        draw_shapes(folder)
        print("pictures of shapes drawn into files in CIFAR-10's format; not CIFAR-10 itself")
    train = [_batch(os.path.join(folder, f"data_batch_{i}")) for i in range(1, 6)]
    return (*(np.concatenate(part) for part in zip(*train)), *_batch(os.path.join(folder, "test_batch")))


def _batch(path: str) -> tuple[np.ndarray, np.ndarray]:
    with open(path, "rb") as f:
        batch = Plain(f, encoding="latin1").load()
    return batch["data"].reshape(-1, 3, 32, 32), np.array(batch["labels"], np.int64)


class Plain(pickle.Unpickler):
    """Reads arrays and plain containers and calls nothing else a file may name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")} or name == "_reconstruct" and (
                module in ("numpy.core.multiarray", "numpy._core.multiarray")):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a CIFAR file")


def draw_shapes(folder: str, per_file: int = 84, seed: int = 0) -> None:
    """Write data_batch_1..5, test_batch and batches.meta with ``per_file`` pictures each, as pickles of protocol 2."""
    os.makedirs(folder)
    r = np.random.default_rng(seed)
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        labels = [int(n) for n in r.permutation(np.arange(per_file) % len(SHAPES))]
        data = np.stack([shape(SHAPES[n], r) for n in labels]).reshape(per_file, -1)
        _dump({"batch_label": name, "labels": labels, "data": data}, os.path.join(folder, name))
    meta = {"label_names": SHAPES, "num_cases_per_batch": per_file}
    _dump(meta, os.path.join(folder, "batches.meta"))


def _dump(value: dict[str, Any], path: str) -> None:
    with open(path, "wb") as f:
        pickle.dump(value, f, protocol=2)


def shape(name: str, r: np.random.Generator) -> np.ndarray:
    """One noisy picture (3, 32, 32) uint8: a shape of any colour, place and size on a darker ground."""
    y, x = np.mgrid[0:32, 0:32] - r.uniform(13, 19, (2, 1, 1))
    size = r.uniform(7, 12)
    far, near = np.maximum(abs(x), abs(y)), np.minimum(abs(x), abs(y))
    inside = {"disc": x * x + y * y < size * size, "ring": abs(np.hypot(x, y) - size) < 2, "square": far < size,
              "frame": abs(far - size) < 1.5, "triangle": (abs(x) < (y + size) / 2) & (y < size),
              "diamond": abs(x) + abs(y) < size, "plus": (near < 2) & (far < size),
              "cross": (far - near < 2.5) & (far < size), "rows": (far < size) & (y % 6 < 3),
              "columns": (far < size) & (x % 6 < 3)}[name]
    ground, colour = r.uniform(0, 90, (3, 1, 1)), r.uniform(150, 255, (3, 1, 1))
    return np.clip(np.where(inside, colour, ground) + r.normal(0, 10, (3, 32, 32)), 0, 255).astype(np.uint8)
