"""Slices of evaluated tensors are taken, and parts of them overwritten, in memory: whatever else holds that memory sees what it
saw before, and a loop over places stays one program."""
from __future__ import annotations

import gc
import random
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.ir import recorder

torch = pytest.importorskip("torch")


def plans() -> int:
    return recorder.counters["plans_built"]


def both(program: Any) -> None:
    """The same program in both libraries leaves the same arrays."""
    for k, (a, b) in enumerate(zip(program(torch), program(graphc), strict=True)):
        assert np.array_equal(np.asarray(a.detach().numpy()), np.asarray(b.detach().numpy())), k


def test_minibatches_are_one_program() -> None:
    x, y = graphc.randn(640, 8), graphc.randint(0, 3, (640,))
    net = nn.Linear(8, 3)
    optimizer = graphc.optim.SGD(net.parameters(), lr=0.1)

    def step(xb: Any, yb: Any) -> float:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(xb), yb)
        loss.backward()
        optimizer.step()
        return loss.item()

    order = graphc.randperm(640)
    x.tolist(), y.tolist(), order.tolist()
    for k, batches in enumerate((
            [(x[i:i + 32], y[i:i + 32]) for i in range(0, 640, 32)],
            [(x.narrow(0, i, 32), y.narrow(0, i, 32)) for i in range(0, 640, 32)],
            list(zip(x.split(32), y.split(32))),
            [(x[order[i:i + 32]], y[order[i:i + 32]]) for i in range(0, 640, 32)])):
        step(*batches[0]), step(*batches[1])
        before = plans()
        for batch in batches[2:]:
            step(*batch)
        assert plans() - before <= (1 if k == 3 else 0)  # the first gathering one differs: its indices were pending


def test_results_filled_in_are_one_program() -> None:
    x, history, steps = graphc.randn(4, 4), graphc.zeros(200), graphc.zeros(200, 4)
    before, seen = 0, []
    for i in range(200):
        total = (x * x).sum()
        history[i] = total.item()
        steps[i] = x[i % 4]
        history[i] += 1
        seen.append(total.item() + 1)
        if i == 20:
            before = plans()
    assert plans() - before <= 1
    assert np.allclose(history.numpy(), np.array(seen, np.float32)) and np.array_equal(steps[7].numpy(), x[3].numpy())


def test_tables_filled_in_from_neighbours() -> None:
    def program(lib: Any) -> Any:
        cost = lib.arange(30 * 20).reshape(30, 20) * 7 % 11
        table = lib.zeros(31, 21, dtype=lib.int64)
        for i in range(30):
            for j in range(20):
                table[i + 1, j + 1] = cost[i, j] + lib.min(lib.stack([table[i, j], table[i, j + 1], table[i + 1, j]]))
        return [table]

    both(program)
    before = plans()
    both(program)
    assert plans() - before < 40


HOLDERS = {
    "a value computed from it": lambda lib, x: [x * 2],
    "a slice": lambda lib, x: [x[1:3].clone(), x[1:3]],
    "a slice of a slice": lambda lib, x: [x[1:][0].clone(), x[1:][1]],
    "a copy": lambda lib, x: [x.clone()],
    "a detached handle": lambda lib, x: [x.detach()],
    "a concatenation": lambda lib, x: [lib.cat([x])],
    "what reshape shows": lambda lib, x: [x.reshape(-1), x.reshape(-1).clone()],
    "its transpose": lambda lib, x: [x.T, x.T.contiguous()],
    "a column": lambda lib, x: [x[:, 1], x[:, 1].clone()],
    "NumPy": lambda lib, x: [lib.from_numpy(x.numpy())],
    "a tensor from NumPy's copy": lambda lib, x: [lib.from_numpy(x.numpy().copy())],
    "a parameter": lambda lib, x: [lib.nn.Parameter(x).detach(), lib.nn.Parameter(x.clone()).detach()],
    "a deep copy": lambda lib, x: [__import__("copy").deepcopy(x)],
    "another's data": lambda lib, x: [setattr(t := lib.zeros(4, 3), "data", x) or t],
    "rows": lambda lib, x: list(x),
    "chunks": lambda lib, x: [*x.chunk(2), *x.unbind(1)],
}


@pytest.mark.parametrize("pending", [False, True])
@pytest.mark.parametrize("how", sorted(HOLDERS))
def test_who_else_holds_the_memory(how: str, pending: bool) -> None:
    def program(lib: Any) -> Any:
        x = lib.arange(12.0).reshape(4, 3) + 0.5
        x.tolist()
        out = []
        for k in range(20):
            held = HOLDERS[how](lib, x)
            if not pending:
                [h.tolist() for h in held]
            x[k % 4] = float(k)
            x[k % 3, 1:] += 1
            x[:, k % 3] = lib.full((4,), 2.5 * k)
            x[1:][k % 3] = x[0]
            x[:-1] = x[1:].clone()
            x.view(-1)[k % 12] *= 3
            out += [h.clone() for h in held] + [x.clone()]
        return out

    both(program)


def test_saved_for_backward_stays() -> None:
    x = graphc.ones(3, 3)
    w = graphc.full((3, 3), 2.0).requires_grad_()
    x.tolist(), w.tolist()
    y = x * w
    y.tolist()
    for k in range(12):
        x[k % 3] = 100.0 + k
    y.sum().backward()
    assert w.grad.tolist() == [[1.0] * 3] * 3


@pytest.mark.parametrize("evaluate", [False, True])
def test_parameters_and_data(evaluate: bool) -> None:
    def program(lib: Any) -> Any:
        w = lib.nn.Parameter(lib.arange(12.0).reshape(4, 3))
        out = []
        for k in range(20):
            loss = (w * w).sum()
            if evaluate:
                loss.item()
            with lib.no_grad():
                saved = w.clone()
                w[k % 4] *= 0.5
                w[k % 3].fill_(1.0 + k)
                w[1:3, 1].zero_()
            w.data[k % 2] = -1.0
            w.grad = None
            (w[k % 4] * 3).sum().backward()
            out += [saved, w.detach().clone(), w.grad.clone()]
            assert w.is_leaf and w.requires_grad
        return out

    both(program)


def test_writes_that_need_gradients_are_recorded() -> None:
    def program(lib: Any) -> Any:
        a = lib.arange(4.0).requires_grad_()
        x = lib.zeros(4, 4)
        for k in range(12):
            x[k % 4] = a * k
        x[0, 1:3] += a[:2]
        x.pow(2).sum().backward()
        return [x, a.grad]

    both(program)


def test_memory_that_numpy_shares() -> None:
    def program(lib: Any) -> Any:
        array = np.arange(20, dtype=np.float32).reshape(5, 4)
        x = lib.from_numpy(array)
        out = []
        for k in range(20):
            row, pair = x[k % 5], x[1:3]
            x[k % 5, 2] = 10.0 + k
            array[0, 1] = -k
            out += [row.clone(), pair.clone(), x[k % 4:k % 4 + 2] * 2, lib.from_numpy(array.copy())]
        return out

    both(program)


def test_dtypes_and_refusals() -> None:
    for dtype in ("bool", "uint8", "int8", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64"):
        got = []
        for lib in (torch, graphc):
            x = lib.zeros(3, 4, dtype=getattr(lib, dtype))
            x.tolist()
            for k, value in enumerate((1, 0, True, 2.75, 7)):
                x[k % 3, k % 4] = value
            x[2] = x[0]
            x[1, :2] = lib.tensor([3.5, 1.0])
            got.append(x.tolist())
        assert got[0] == got[1], dtype
    x = graphc.zeros(3, 4, dtype=graphc.uint8)
    x.tolist()
    with pytest.raises(RuntimeError, match="without overflow"):
        x[0, 0] = 300
    with pytest.raises(RuntimeError, match="without overflow"):
        x[0, 0] = float("nan")
    with pytest.raises(RuntimeError):
        x[0] = graphc.zeros(3)
    with pytest.raises(IndexError):
        x[3] = 1
    leaf = graphc.zeros(3).requires_grad_()
    leaf.tolist()
    with pytest.raises(RuntimeError, match="leaf Variable"):
        leaf[0] = 1.0
    assert x.tolist() == [[0] * 4] * 3 and leaf.tolist() == [0.0] * 3


def test_a_value_that_fails_changes_nothing() -> None:
    x, table = graphc.zeros(4), graphc.arange(5.0)
    x.tolist()
    for k in range(12):
        x[k % 4] = float(k)
    before = x.tolist()
    with pytest.raises(IndexError):
        x[1] = graphc.nn.functional.embedding(graphc.tensor([9]), table[:, None]).sum()
        x.tolist()
    x[2] = 50.0
    assert x.tolist() == [*before[:2], 50.0, before[3]]


def test_random_programs_of_views_and_writes() -> None:
    def program(lib: Any, seed: int) -> Any:
        choose, made = random.Random(seed), []
        tensors = [lib.arange(24.0).reshape(4, 6), lib.ones(6, 4), lib.arange(10.0)]
        for step in range(40):
            x = choose.choice(tensors)
            i, j = choose.randrange(x.shape[0]), choose.randrange(x.shape[-1])
            what = choose.randrange(12)
            if what == 0:
                x[i] = float(step)
            elif what == 1:
                x[..., j] += 1
            elif what == 2:
                x[i:] = x[:x.shape[0] - i].clone()
            elif what == 3:
                tensors.append(x[i:])
            elif what == 4:
                tensors.append(x.clone())
            elif what == 5:
                x[i].mul_(0.5)
            elif what == 6:
                made.append(x * 2)
            elif what == 7:
                x[i] = lib.tensor(float(step))
            elif what == 8:
                x.tolist()
            elif what == 9:
                tensors.append(x.reshape(-1))
            elif what == 10:
                x[i] = x[choose.randrange(x.shape[0])]
            else:
                tensors.append(x[i:i + 1] + 1)
            if len(tensors) > 8:
                del tensors[choose.randrange(len(tensors))]
        return [*made, *tensors]

    for seed in range(60):
        both(lambda lib: program(lib, seed))  # noqa: B023
    gc.collect()


def test_no_plan_overwrites_what_a_slice_lies_in() -> None:
    x = graphc.arange(40_000.0).reshape(4, 10_000)
    x.tolist()
    before = x.numpy().copy()
    x = graphc.tensor(before)
    for i in range(4):
        y = (x[i] * 2 + 1).abs_()  # nobody but the program holds the slice
        assert np.array_equal(y.numpy(), before[i] * 2 + 1)
        z = x[i:i + 1].clone().mul_(3)
        assert np.array_equal(z.numpy(), before[i:i + 1] * 3)
    assert np.array_equal(x.numpy(), before)


def test_a_copy_of_a_slice_holds_no_more_than_itself() -> None:
    x = graphc.arange(20_000.0).reshape(4, 5000)
    x.tolist()
    row = x[1]
    copies = [row.clone(), graphc.tensor(row), graphc.zeros(5000).copy_(row), nn.Parameter(row.clone())]
    for copy in copies:
        copy.tolist()
        buffer = copy._read().buffer
        assert not isinstance(buffer.base, np.ndarray) or buffer.base.nbytes == buffer.nbytes
        assert copy.data_ptr() != row.data_ptr()


@pytest.mark.parametrize("before", [False, True])
def test_views_of_memory_that_was_shared(before: bool) -> None:
    """Also when nobody shares it any more by the time they are read."""
    x = graphc.zeros(6, 5)
    x.tolist()
    early = x[0]
    array = x.numpy()
    view = early if before else x[0]
    view.tolist()
    array[0] = 83
    del array
    assert x.sum().item() == 83 * 5 and x[1].tolist() == [0.0] * 5
    assert view.tolist() == [83.0] * 5


def test_threads_fill_rows() -> None:
    import threading

    for _ in range(5):
        x = graphc.zeros(64, 8)
        x[0].tolist()
        failed: list[BaseException] = []

        def fill(first: int, x: Any = x, failed: list[BaseException] = failed) -> None:
            try:
                for i in range(first, 64, 4):
                    x[i] = float(i)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=fill, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed and x[:, 0].tolist() == [float(i) for i in range(64)]
