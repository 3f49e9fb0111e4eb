"""Memory of a plan's results: where it stays, and when it must not."""
from __future__ import annotations

import pytest
from cuda_fake import FakeCuda

from graphc.errors import OutOfMemoryError
from graphc.runtime.cuda import buffer as B
from graphc.runtime.cuda import device as D
from graphc.runtime.cuda import driver, results
from graphc.runtime.cuda.interop import Array
from graphc.runtime.cuda.results import Results

BIG = 1 << 20


@pytest.fixture
def stream():
    driver.reset(lambda: FakeCuda(total=16 << 20))
    yield D.current_stream()
    driver.reset()


def arrays(r, stream, values=(), free=()):
    memory = r.take(values, frozenset(free), stream)
    places = [b.ptr for b in memory]
    memory = r.copied_out(memory, stream)
    return places, [Array(b, (b.nbytes,), (1,), None) for b in memory]


def test_a_result_nobody_holds_gives_its_place_to_the_next(stream):
    r = Results(D.get(), [(-1, BIG), (-1, 100)], "result")
    seen = []
    for _ in range(8):
        places, made = arrays(r, stream)
        seen.append(places)
        del made
    assert len({tuple(p) for p in seen[results.OFTEN:]}) == 1


def test_the_one_before_may_still_be_there(stream):
    r = Results(D.get(), [(-1, BIG)], "result")
    before, seen = None, []
    for _ in range(10):
        places, made = arrays(r, stream)
        assert before is None or before[0].buffer.ptr != made[0].buffer.ptr
        before = made
        seen += places
    assert len(set(seen[results.OFTEN + 2:])) == 2


@pytest.mark.parametrize("nbytes", [100, BIG // 4])
def test_what_is_kept_is_left_alone(stream, nbytes):
    """Small results come from one place, so that captured launches stay the same; large ones from new places."""
    r = Results(D.get(), [(-1, nbytes)], "result")
    kept, seen = [], []
    for _ in range(12):
        places, made = arrays(r, stream)
        kept += made
        seen += places
    assert len({a.buffer.ptr for a in kept}) == 12
    assert len(set(seen[-5:])) == (1 if nbytes <= results.SMALL else 5)


def test_a_part_of_a_result_holds_it(stream):
    r = Results(D.get(), [(-1, BIG)], "result")
    for _ in range(6):
        places, made = arrays(r, stream)
        part = made[0].part(0, (8,), (1,), __import__("numpy").dtype("u1"))
        del made
    again, _ = arrays(r, stream)
    assert part.buffer.ptr not in again


def test_memory_given_away_is_taken(stream):
    given = B.empty(BIG)
    r = Results(D.get(), [(0, BIG), (1, BIG)], "result")
    for _ in range(6):
        places, made = arrays(r, stream, [given, None], [0])
        assert places[0] == given.ptr != places[1]
        del made


def test_other_streams_keep_a_result(stream):
    r, other = Results(D.get(), [(-1, BIG)], "result"), D.Stream()
    last = 0
    for _ in range(7):
        places, made = arrays(r, stream)
        assert places[0] != last or made[0].buffer.is_sole()
        made[0].buffer.record_stream(other)
        last = places[0]
        del made
    assert all(not b.is_sole() for b in r.places[0])


def test_reserves_are_given_up_when_memory_runs_out(stream):
    r = Results(D.get(), [(-1, 4 << 20), (-1, 4 << 20)], "result")
    for _ in range(6):
        _, made = arrays(r, stream)
        del made
    assert D.get().memory.stats()["allocated_bytes.all.current"] == 8 << 20
    big = B.empty(12 << 20)
    assert big.nbytes and not any(r.places)
    with pytest.raises(OutOfMemoryError):
        B.empty(8 << 20)
    del big
    for _ in range(2):
        _, made = arrays(r, stream)
    assert made[0].flags.writeable is False, "its plan holds it, too"
