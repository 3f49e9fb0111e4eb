"""What the examples share: flags, a progress bar, a loss curve."""
from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from graphc import cuda


def arguments(description: str, **defaults: Any) -> argparse.ArgumentParser:
    """The flags every example takes."""
    p = argparse.ArgumentParser(description=description)
    device = "cuda" if cuda.is_available() else "cpu"
    p.add_argument("--device", default=device, help="cpu or cuda (default: cuda if there is a GPU)")
    p.add_argument("--compile", action="store_true", help="compile the training step as one graph")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--smoke", action="store_true", help="a few steps on a little data, to see that everything runs")
    p.add_argument("--plot", metavar="FILE", help="write a loss curve picture (needs matplotlib)")
    for name, value in defaults.items():
        p.add_argument("--" + name.replace("_", "-"), type=type(value), default=value, help=f"default {value}")
    return p


def progress(items: Iterable[Any], what: str) -> Iterable[Any]:
    """``items`` with a tqdm bar on a terminal, or a plain counter where tqdm is not installed; silent in a pipe."""
    if not sys.stderr.isatty():
        return items
    try:
        from tqdm import tqdm
    except ImportError:
        return counter(items, what)
    return tqdm(items, desc=what, leave=False)


def counter(items: Any, what: str) -> Iterator[Any]:
    """One line that counts, wiped at the end."""
    for i, item in enumerate(items, 1):
        print(f"\r{what}: {i}/{len(items)}", end="", file=sys.stderr, flush=True)
        yield item
    print("\r\033[K", end="", file=sys.stderr, flush=True)


def plot(losses: list[float], path: str | None) -> None:
    """Write a picture of the loss curve to ``path``."""
    if not path:
        return
    try:
        import matplotlib
    except ImportError:
        sys.exit("--plot needs matplotlib: pip install matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.figure(figsize=(6, 3.5))
    plt.plot(losses)
    plt.xlabel("step")
    plt.ylabel("loss")
    plt.tight_layout()
    plt.savefig(path)
    print(f"loss curve written to {path}")
