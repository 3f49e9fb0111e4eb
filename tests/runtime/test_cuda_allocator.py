"""The caching allocator against a model device: random programs of requests, returns, other streams and full memory."""
from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.errors import OutOfMemoryError
from graphc.runtime.cuda import allocator as A
from graphc.runtime.cuda.allocator import ALIGN, Allocator, check, size_text

MiB = 1 << 20


class Memory:
    """A device with ``total`` bytes and streams whose work advances when told."""

    def __init__(self, total=1 << 40):
        self.total, self.at, self.held = total, 1 << 20, {}
        self.done = set()
        self.marks = 0
        self.log = []

    def take(self, nbytes):
        self.log.append(("take", nbytes))
        if sum(self.held.values()) + nbytes > self.total:
            raise MemoryError
        ptr, self.at = self.at, self.at + nbytes + 4096
        self.held[ptr] = nbytes
        self.at = -(-self.at // 512) * 512
        return ptr

    def give(self, ptr):
        self.log.append(("give", self.held.pop(ptr)))

    def mark(self, stream):
        self.marks += 1
        return self.marks, stream

    def passed(self, mark):
        return mark in self.done or "all" in self.done

    def settle(self):
        self.log.append(("settle",))
        self.done.add("all")

    def info(self):
        return self.total - sum(self.held.values()), self.total


def allocator(total=1 << 40):
    m = Memory(total)
    return m, Allocator(m.take, m.give, mark=m.mark, passed=m.passed, settle=m.settle, info=m.info)


sizes = st.one_of(st.integers(1, 5000), st.integers(1, 3 * MiB), st.integers(1, 80 * MiB),
                  st.sampled_from([1, 255, 256, 257, MiB, MiB + 1, 16 * MiB, 16 * MiB + 1, 32 * MiB]))
steps = st.lists(st.tuples(st.sampled_from("aaaafffuedrp"), sizes, st.integers(0, 2), st.integers(0, 10 ** 6)), max_size=60)


@settings(max_examples=150, deadline=None)
@given(steps, st.sampled_from([1 << 40, 256 * MiB, 96 * MiB]))
def test_random_programs(program, total):
    m, al = allocator(total)
    live, expect, asked = [], 0, 0
    for kind, size, stream, pick in program:
        if kind == "a":
            try:
                block = al.allocate(size, stream, "t")
            except OutOfMemoryError:
                assert total < 1 << 40
            else:
                assert block.ptr % ALIGN == 0 and block.nbytes >= size and block.nbytes % ALIGN == 0
                assert block.segment.pool.stream == stream
                assert all(block.ptr + block.nbytes <= b.ptr or b.ptr + b.nbytes <= block.ptr for b in live), "overlap"
                assert any(p <= block.ptr and block.ptr + block.nbytes <= p + n for p, n in m.held.items()), "outside"
                live.append(block)
        elif live and kind == "f":
            al.free(live.pop(pick % len(live)))
        elif live and kind == "u":
            al.used_by(live[pick % len(live)], stream)
        elif kind == "e":
            al.empty_cache()
        elif kind == "d":
            m.done.update((k, s) for k in range(m.marks + 1) for s in range(3))
        elif kind == "r":
            al.reset_peak()
        check(al)
        stats = al.stats()
        expect = sum(b.nbytes for b in live) + sum(b.nbytes for _, b in al.waiting)
        asked = sum(b.asked for b in live) + sum(b.asked for _, b in al.waiting)
        assert stats["allocated_bytes.all.current"] == expect and stats["requested_bytes.all.current"] == asked
        assert stats["reserved_bytes.all.current"] == sum(m.held.values()) <= total
        assert stats["allocated_bytes.all.peak"] >= expect and stats["reserved_bytes.all.peak"] >= sum(m.held.values())
        assert stats["allocated_bytes.all.allocated"] - stats["allocated_bytes.all.freed"] == expect
    for block in live:
        al.free(block)
    m.done.add("all")
    al.empty_cache()
    assert not m.held and al.stats()["reserved_bytes.all.current"] == 0 and al.stats()["inactive_split_bytes.all.current"] == 0


def test_reuse_takes_nothing_new_and_best_fit_is_the_smallest_at_the_lowest_address():
    m, al = allocator()
    blocks = [al.allocate(n, 0) for n in (4096, 512, 8192, 512, 2048, 512)]
    assert [e[0] for e in m.log] == ["take"]
    for k in (0, 2, 4):
        al.free(blocks[k])
    assert al.allocate(1500, 0).ptr == blocks[4].ptr
    assert al.allocate(4000, 0).ptr == blocks[0].ptr
    assert al.allocate(4097, 0).ptr == blocks[2].ptr
    assert len(m.log) == 1
    check(al)


def test_equal_sizes_lowest_address_first():
    _, al = allocator()
    blocks = [al.allocate(1024, 0) for _ in range(6)]
    for k in (4, 0, 2):
        al.free(blocks[k])
    assert [al.allocate(1024, 0).ptr for _ in range(3)] == [blocks[0].ptr, blocks[2].ptr, blocks[4].ptr]


def test_neighbours_join_in_any_order():
    for order in ([0, 1, 2], [2, 1, 0], [0, 2, 1], [1, 0, 2]):
        m, al = allocator()
        blocks = [al.allocate(1024, 0) for _ in range(3)]
        for k in order:
            al.free(blocks[k])
        check(al)
        assert al.stats()["inactive_split_bytes.all.current"] == 0
        al.empty_cache()
        assert not m.held


def test_streams_do_not_share_free_blocks():
    m, al = allocator()
    a = al.allocate(1024, "a")
    al.free(a)
    assert al.allocate(1024, "b").ptr != a.ptr and len(m.held) == 2
    assert al.allocate(1024, "a").ptr == a.ptr


def test_another_streams_work_delays_reuse():
    m, al = allocator()
    a = al.allocate(1024, "a")
    al.used_by(a, "b")
    al.used_by(a, "a")  # its own stream: nothing to wait for
    at = a.ptr
    al.free(a)
    assert m.marks == 1 and al.stats()["allocated_bytes.all.current"] == 1024
    assert al.allocate(1024, "a").ptr != at
    with pytest.raises(ValueError, match="twice"):
        al.free(a)
    m.done.add((1, "b"))
    assert al.allocate(1024, "a").ptr == at


def test_small_and_large_live_apart_and_large_ones_are_shared():
    m, al = allocator()
    al.allocate(100, 0)
    x = al.allocate(10 * MiB, 0)
    y = al.allocate(10 * MiB, 0)
    assert sorted(m.held.values()) == [A.SMALL_SEGMENT, A.LARGE_SEGMENT] and y.ptr == x.ptr + 10 * MiB
    z = al.allocate(100 * MiB + 1, 0)
    assert max(m.held.values()) == 102 * MiB and z.nbytes == 100 * MiB + 256
    check(al)


def test_little_that_is_left_of_a_large_block_stays_with_it():
    _, al = allocator()
    a = al.allocate(20 * MiB - 3 * ALIGN, 0)
    assert a.nbytes == 20 * MiB and a.asked == 20 * MiB - 3 * ALIGN
    b = al.allocate(20 * MiB + MiB, 0)
    assert b.nbytes == 21 * MiB and b.segment.nbytes == 22 * MiB
    assert al.stats()["inactive_split_bytes.all.current"] == MiB
    check(al)


def test_full_memory_gives_cached_segments_back_first():
    m, al = allocator(100 * MiB)
    a, b = al.allocate(40 * MiB, 0), al.allocate(40 * MiB, 1)
    al.free(a)
    al.used_by(b, 0)
    al.free(b)  # stream 0 may still be using it: the allocator has to wait
    c = al.allocate(90 * MiB, 0)
    assert c.nbytes == 90 * MiB and ("settle",) in m.log and al.stats()["num_alloc_retries"] == 1
    assert al.stats()["num_ooms"] == 0
    check(al)


def test_out_of_memory_names_the_largest_holders_and_totals():
    m, al = allocator(64 * MiB)
    keep = [al.allocate(9 * MiB, 0, "activations of conv1"), al.allocate(9 * MiB, 0, "activations of conv1"),
            al.allocate(20 * MiB, 1, "weights"), al.allocate(100, 0)]
    with pytest.raises(OutOfMemoryError) as error:
        al.allocate(50 * MiB, 0, "too much")
    text = str(error.value)
    assert "out of memory. Tried to allocate 50.00 MiB" in text and "The device has 64.00 MiB" in text
    assert "weights" in text and "18.00 MiB activations of conv1 (2 blocks)" in text
    assert text.index("weights") < text.index("conv1") < text.index("unnamed") and "in use by 4 blocks" in text
    assert al.stats()["num_ooms"] == 1 and len(keep) == 4
    check(al)
    assert al.allocate(1000, 0).ptr  # the allocator goes on working


def test_garbage_in_cycles_is_collected_before_giving_up():
    class Holder:
        def __del__(self):
            al.free(self.block)

    _, al = allocator(64 * MiB)
    holder = Holder()
    holder.block, holder.self = al.allocate(40 * MiB, 0), holder
    del holder
    assert al.allocate(50 * MiB, 0).nbytes == 50 * MiB


def test_segment_of_just_the_size_when_a_whole_one_does_not_fit():
    _, al = allocator(20 * MiB)
    assert al.allocate(2 * MiB, 0).segment.nbytes == 2 * MiB


def test_limit_and_zero_and_wrong_sizes():
    _, al = allocator()
    al.limit = 10 * MiB
    zero = al.allocate(0, 0)
    assert zero.ptr == 0 and zero.nbytes == 0
    al.free(zero)
    with pytest.raises(ValueError, match="-1"):
        al.allocate(-1, 0)
    with pytest.raises(OutOfMemoryError, match="may hold 10.00 MiB"):
        al.allocate(11 * MiB, 0)
    a = al.allocate(10 * MiB, 0)
    al.free(a)
    with pytest.raises(ValueError, match="twice"):
        al.free(a)


def test_misaligned_device_memory_is_refused_and_given_back():
    given_back = []
    al = Allocator(lambda n: 100, given_back.append)
    with pytest.raises(ValueError, match="aligned"):
        al.allocate(10)
    assert given_back == [100]


def test_finalizers_inside_the_allocator_do_not_deadlock_or_corrupt():
    """A finalizer runs wherever Python allocates: here in the middle of taking memory from the device."""
    m, al = allocator()
    victims = [al.allocate(1024, 0) for _ in range(20)]

    def take(nbytes):
        while victims:
            al.free(victims.pop())
        return m.take(nbytes)

    al.take = take
    al.allocate(64 * MiB, 0)
    assert not victims
    check(al)
    assert al.stats()["allocation.all.current"] == 1


def test_threads():
    m, al = allocator()
    errors = []

    def work(stream):
        try:
            held = []
            for k in range(300):
                held.append(al.allocate(1 + (k * 7919 * (stream + 1)) % (3 * MiB), stream))
                if k % 3:
                    al.free(held.pop(k % len(held)))
            for b in held:
                al.free(b)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    check(al)
    assert al.stats()["allocated_bytes.all.current"] == 0
    al.empty_cache()
    assert not m.held


def test_snapshot_and_reset():
    _, al = allocator()
    a, b = al.allocate(1000, 7, "x"), al.allocate(3 * MiB, 7, "y")
    snap = al.snapshot()
    assert [s["segment_type"] for s in snap] == ["small", "large"] and all(s["stream"] == 7 for s in snap)
    assert snap[0]["blocks"][0] == {"address": a.ptr, "size": 1024, "requested_size": 1000, "state": "active_allocated",
                                    "tag": "x"}
    assert all(sum(x["size"] for x in s["blocks"]) == s["total_size"] for s in snap)
    al.free(b)
    assert al.stats()["allocated_bytes.all.peak"] == 3 * MiB + 1024
    al.reset_peak()
    assert al.stats()["allocated_bytes.all.peak"] == 1024
    al.reset_totals()
    assert al.stats()["allocated_bytes.all.allocated"] == 0
    assert al.holders() == [(1024, 1, "x")]


@pytest.mark.parametrize("n, text", [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.00 KiB"), (3 << 29, "1.50 GiB"),
                                     (1 << 52, "4096.00 TiB")])
def test_size_text(n, text):
    assert size_text(n) == text
