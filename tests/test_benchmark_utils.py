"""utils.benchmark: times that count what is pending, runs, labels, tables."""
from __future__ import annotations

import time
from typing import Any

import pytest

import graphc
from graphc.utils.benchmark import Compare, Measurement, Timer


def test_a_run_of_known_length() -> None:
    m = Timer("time.sleep(0.002)", globals={"time": time}).timeit(5)
    assert m.number_per_run == 5 and len(m.raw_times) == 1 and 0.002 <= m.median < 0.5 and m.mean == m.median and m.iqr == 0


def test_pending_work_is_inside_the_clock() -> None:
    """Recording alone takes microseconds: 20 products of 300 x 300 do not."""
    x = graphc.randn(300, 300)

    def work() -> Any:
        y = x
        for _ in range(20):
            y = y @ x
        return y

    recorded, computed = Timer("work()", globals={"work": work}), Timer("work().sum().item()", globals={"work": work})
    a, b = recorded.timeit(3).median, computed.timeit(3).median
    assert a > b / 4 and Timer("y = work()", globals={"work": work}).timeit(3).raw_times  # a statement keeps its own results


def test_ranges_end_when_enough_time_is_spent() -> None:
    seen: list[int] = []
    m = Timer("x + 1", setup="x = torch.ones(4)").blocked_autorange(lambda n, t: seen.append(n), min_run_time=0.05)
    assert sum(m.raw_times) >= 0.05 and seen == [m.number_per_run] * len(m.raw_times) and m.number_per_run > 1
    quick = Timer("pass").adaptive_autorange(min_run_time=0.002, max_run_time=0.2)
    assert quick.median < 1e-4 and quick.times[0] > 0


def test_threads_are_put_back() -> None:
    before = graphc.get_num_threads()
    seen: list[int] = []
    m = Timer("seen.append(torch.get_num_threads())", globals={"seen": seen}, num_threads=2).timeit(3)
    assert set(seen) == {2} and graphc.get_num_threads() == before and "2 threads" in repr(m)


def test_tables() -> None:
    rows = [Measurement(10, [t * 1e-5 for t in times], "f(x)", "products", size, what, num_threads=n)
            for n, size, what, times in ((1, "small", "ours", [1, 2, 3]), (1, "small", "theirs", [4]), (1, "large", "ours", [50]),
                                         (4, "small", "ours", [1]), (1, "small", "ours", [2, 2]))]
    table = Compare(rows[:3])
    table.extend_results(rows[3:])
    text = str(table)
    lines = text.splitlines()
    assert "[products]" in lines[0] and "ours" in lines[1] and "theirs" in lines[1] and lines[-1] == "Times are in us."
    assert [c.strip() for c in next(x for x in lines if "large" in x).split("|")] == ["large", "50.0", ""]
    (merged,) = Measurement.merge([rows[0], rows[4]])
    assert merged.raw_times == pytest.approx([1e-5, 2e-5, 3e-5, 2e-5, 2e-5]) and len(rows[0].raw_times) == 3
    assert merged.median == pytest.approx(2e-6) and merged.title == "products: small" and merged.iqr >= 0
    table.trim_significant_figures()
    assert "small" in str(table)
    with pytest.raises(ValueError):
        table.extend_results([1])  # type: ignore[list-item]
    with pytest.raises(NotImplementedError):
        Timer(language="c++")
