"""The CUDA run time on the stand-in driver, with streams that run late and with streams that run at once.

With GRAPHC_TEST_STUB set (by test_cuda_bindings.py) the same programs go through cuda-bindings into a stand-in library.
"""
from __future__ import annotations

import os

import pytest

pytest.register_assert_rewrite("cuda_suite")

from cuda_fake import FakeCuda
from cuda_suite import *  # noqa: F403
from cuda_suite import AXPY, THREADS, B, D, Kit, LaunchList, Pointer, axpy_list, check, floats, got, np, put
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.runtime.cuda import driver

STUB = "GRAPHC_TEST_STUB" in os.environ


@pytest.fixture(params=["library"] if STUB else ["late", "at once"])
def kit(request, monkeypatch):
    monkeypatch.setattr(B, "PIECE", 1 << 16)
    if STUB:
        driver.reset()
        assert not driver.reason()
        yield Kit(b"FAKE")
    else:
        fake = FakeCuda(eager=request.param == "at once")
        driver.reset(lambda: fake)
        yield Kit(b"FAKE", fake)
    driver.reset()


def test_clusters(kit):
    launches, n = LaunchList(D.get()), 200
    launches.add(kit.function("axpy"), (1,), THREADS, AXPY, (Pointer(0), Pointer(1), 2.0, n, 0, 0), ctas=2)
    y, x = put(floats(n)), put(floats(n, 1))
    launches.run(D.current_stream(), (y.ptr, x.ptr))
    assert np.array_equal(got(y, n), floats(n) + 2 * floats(n, 1))
    assert kit.function("axpy").parameter_sizes() == [8, 8, 4, 4, 8, 8]


steps = st.lists(st.tuples(st.sampled_from("nnaaaffss"), st.integers(0, 2), st.integers(0, 5), st.integers(0, 5)), min_size=12, max_size=60)


@settings(max_examples=80, deadline=None)
@given(steps, st.randoms(use_true_random=False))
def test_random_work_on_three_streams(program, random):
    """Buffers made, added, freed and read on three streams that advance at random: as NumPy, and the books agree."""
    if STUB:
        driver.reset()
    else:
        fake = FakeCuda()
        driver.reset(lambda: fake)
    kit, n = Kit(b"FAKE"), 700
    streams = [D.Stream() for _ in range(3)]
    launches = axpy_list(kit, n)
    live = []  # [buffer, what it must hold, streams that used it since]

    def enter(item, stream):
        for other in item[2]:
            if other != stream:
                stream.wait_stream(other)
        item[0].record_stream(stream)
        item[2] = {stream} | item[2]

    for k, (what, s, i, j) in enumerate(program):
        stream = streams[s]
        if what == "n":
            source = floats(n, k)
            live.append([put(source, stream), source, {stream}])
        elif live and what == "a":
            y, x = live[i % len(live)], live[j % len(live)]
            if y is not x:
                enter(y, stream)
                enter(x, stream)
                launches.run(stream, (y[0].ptr, x[0].ptr), (1 + k % 2,))
                y[1] = y[1] + (1 + k % 2) * x[1]
        elif live and what == "f":
            item = y = x = None  # names keep memory, too
            del live[i % len(live)]
        elif live and what == "r":
            item = live[i % len(live)]
            enter(item, stream)
            assert np.array_equal(got(item[0], n, stream=stream), item[1])
        elif not STUB and what == "s":
            for queue in random.sample(list(fake.streams.values()), min(2, len(fake.streams))):
                for _ in range(random.randrange(4)):
                    if queue.ops:
                        fake.step(queue)
        check(D.get().memory)
        check(D.host_memory()) if D.host_memory_used() else None
    for item in live:
        enter(item, streams[0])
        assert np.array_equal(got(item[0], n, stream=streams[0]), item[1])
    item = y = x = None
    live.clear()
    D.get().synchronize()
    assert D.get().memory.stats()["allocated_bytes.all.current"] == 0
    driver.reset()
