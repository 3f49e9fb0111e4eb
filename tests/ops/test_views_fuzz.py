"""Random programs of views, writes through views and gradients: every tensor and every gradient as PyTorch has them.

A program by its number: ``python tests/ops/test_views_fuzz.py 17`` prints it.
"""
from __future__ import annotations

import re
import sys
import warnings
from typing import Any

import numpy as np
import pytest

import graphc

torch = pytest.importorskip("torch")

BLOCK, BLOCKS, STEPS = 60, 5, 14


class Pair:
    """The same tensor on both sides."""

    def __init__(self, ours: Any, theirs: Any):
        self.ours, self.theirs = ours, theirs


def slices(r: np.random.Generator, shape: tuple[int, ...]) -> tuple[Any, ...]:
    out: list[Any] = []
    for d in shape[:int(r.integers(0, len(shape) + 1))]:
        kind = r.integers(0, 4)
        a = int(r.integers(0, max(d, 1)))
        if kind == 0 and d:
            out.append(a - d if r.random() < 0.5 else a)
        elif kind == 1:
            out.append(slice(a, None, int(r.integers(1, 3))))
        elif kind == 2:
            out.append(slice(None, -1 if d > 1 else None))
        else:
            out.append(slice(None))
    if r.random() < 0.2:
        out.append(None)
    if r.random() < 0.2:
        out.append(Ellipsis)
    return tuple(out)


def view_of(r: np.random.Generator, shape: tuple[int, ...], grad: bool) -> str:
    n = len(shape)
    size = int(np.prod(shape))
    choices = [f"[{slices(r, shape)!r}]".replace("Ellipsis", "..."), ".unsqueeze(0)", ".squeeze()", ".detach()", ".view(-1)",
               ".reshape(-1)", ".flatten()"]
    if n:
        d = int(r.integers(-n, n))
        choices += [f".transpose({d}, 0)", f".select({d}, 0)", f".movedim({d}, 0)", f".narrow({d}, 0, {max(shape[d] - 1, 0)})",
                    f".unfold({d}, {int(r.integers(1, max(shape[d], 1) + 1))}, {int(r.integers(1, 3))})"]
        if not grad:  # PyTorch lets nobody write to several views made at once
            choices += [f".chunk(2, {d})[0]", f".unbind({d})[-1]", f".split(2, {d})[0]"]
    if n == 2:
        choices += [".t()", ".T", ".diagonal()", ".mT"]
    if size and size % 2 == 0:
        choices += [".reshape(2, -1)", ".view(-1, 2)"]
    if n:
        choices += [f".expand(2, *{shape})", f".permute({tuple(int(k) for k in r.permutation(n))})"]
    return str(r.choice(np.array(choices, dtype=object)))


def write_to(r: np.random.Generator, shape: tuple[int, ...]) -> str:
    c = round(float(r.uniform(-2, 2)), 2)
    choices = [f".add_({c})", f".mul_({c})", ".zero_()", f".fill_({c})", ".neg_()", f".copy_(T.full({shape}, {c}))",
               f".sub_(T.ones({shape[-1:]}))", f".masked_fill_(T.ones({shape}).cumsum(-1) % 2 == 0, {c})" if shape else ".neg_()",
               f".clamp_(max={c})", f"[{slices(r, shape)!r}] = {c}", f"[{slices(r, shape)!r}] *= {c}"]
    if shape and shape[0]:
        rows = [int(k) for k in r.integers(0, shape[0], 3)]
        choices += [f".index_add_(0, T.tensor({rows}), T.ones({(3, *shape[1:])}))", f".index_fill_(0, T.tensor({rows[:1]}), {c})",
                    f"[T.tensor({rows[:2]})] = {c}", f"[T.arange({shape[0]}) % 2 == 0] = {c}"]
    return str(r.choice(np.array(choices, dtype=object))).replace("Ellipsis", "...")


def statement(r: np.random.Generator, names: list[str], shapes: dict[str, tuple[int, ...]], grad: bool) -> str:
    a = str(r.choice(names))
    kind = r.random()
    new = f"v{len(names)}"
    if kind < 0.45:
        return f"{new} = {a}{view_of(r, shapes[a], grad)}"
    if kind < 0.8:
        return f"{a}{write_to(r, shapes[a])}"
    b = str(r.choice(names))
    other = b if shapes[a] == shapes[b] else "1"  # contiguous: the strides PyTorch keeps decide what a later reshape shares
    return f"{new} = ({a} * {round(float(r.uniform(-2, 2)), 2)} + {other}).contiguous()"


def overlaps(t: Any) -> bool:
    """Whether a tensor of PyTorch's shows an element of its storage twice."""
    at = torch.arange(t.untyped_storage().nbytes() // 4).as_strided(t.shape, t.stride(), t.storage_offset())
    return bool(at.unique().numel() != at.numel())


def run(line: str, names: dict[str, Pair]) -> tuple[str, str]:
    """Run a line on both sides; the error names ('' for none)."""
    errors = []
    for side, T in (("theirs", torch), ("ours", graphc)):
        ns = {k: getattr(p, side) for k, p in names.items()}
        ns["T"] = T
        try:
            exec(line, ns)  # noqa: S102
            errors.append("")
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            errors.append(type(error).__name__)
            if side == "theirs":
                return errors[0], ""
            continue
        name = line.split(" = ")[0]
        if side == "theirs":
            kept = ns.get(name)
        elif name.isidentifier():
            names[name] = Pair(ns[name], kept)
    return errors[0], errors[1]


def close(a: Any, b: Any) -> bool:
    return a.shape == b.shape and np.allclose(np.array(a.detach().tolist()), np.array(b.detach().tolist()), 1e-4, 1e-5)


def program(seed: int, say: Any = None) -> None:
    """Make and run program ``seed``; AssertionError where the two sides part."""
    r = np.random.default_rng(seed)
    start = r.uniform(-2, 2, (3, 4)).astype(np.float32)
    x, xt = graphc.tensor(start, requires_grad=True), torch.tensor(start, requires_grad=True)
    grad = seed % 3 != 0
    names = {"v0": Pair(x * 1 if grad else graphc.tensor(start), xt * 1 if grad else torch.tensor(start))}
    lines: list[str] = []
    for _ in range(STEPS):
        shapes = {k: tuple(p.theirs.shape) for k, p in names.items()}
        line = statement(r, list(names), shapes, grad)
        name = re.match(r"v\d+", line)[0]  # type: ignore[index]
        if name in names and overlaps(names[name].theirs):
            continue  # what a write of an element that is there twice gives is nobody's promise
        theirs, ours = run(line, names)
        if theirs:
            continue  # PyTorch refuses (overlapping memory, multi-output views); graphc may allow it
        lines.append(line)
        if say:
            say(line)
        assert not ours, f"program {seed}: {ours} at {line!r} after {lines}"
        for k, p in names.items():
            assert close(p.ours, p.theirs), f"program {seed}: {k} differs after {lines}\n{p.ours}\n{p.theirs}"
            assert p.ours.requires_grad == p.theirs.requires_grad, f"program {seed}: {k}.requires_grad after {lines}"
    total = [(p.ours * (k + 1)).sum() for k, p in enumerate(names.values()) if p.theirs.requires_grad]
    wanted = [(p.theirs * (k + 1)).sum() for k, p in enumerate(names.values()) if p.theirs.requires_grad]
    if not total:
        return
    try:
        sum(wanted).backward()
    except RuntimeError:
        return  # a value that PyTorch saved was written over; graphc keeps it
    sum(total).backward()
    if xt.grad is not None:
        assert close(x.grad, xt.grad), f"program {seed}: gradient after {lines}\n{x.grad}\n{xt.grad}"


@pytest.mark.parametrize("block", range(BLOCKS))
def test_views_and_writes(block: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(block * BLOCK, (block + 1) * BLOCK):
            program(seed)


if __name__ == "__main__":
    for number in sys.argv[1:]:
        program(int(number), print)
