"""The caching allocator: pure Python over callables that get and give back large pieces of memory.

Memory is taken from the device in *segments* and handed out in *blocks* of whole 256-byte units. A free block is reused by
the stream it belongs to without waiting for anything: work on one stream runs in order. Best fit: the smallest free block
that is large enough, the lowest address among equals; what is left over becomes a free block, and a block that is given
back is joined with its free neighbours. Small and large requests use different segments, so that a small tensor that lives
long does not keep a large segment in pieces.

:meth:`Allocator.free` may be called from a finalizer at any moment, also while this thread is inside the allocator: it
only appends to a queue, which is emptied where that is safe.
"""
from __future__ import annotations

import gc
import threading
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

from ...errors import OutOfMemoryError

ALIGN = 256
SMALL = 1 << 20  # requests up to this come from small segments
SMALL_SEGMENT = 2 << 20
LARGE_SEGMENT = 32 << 20  # segment for requests up to MIDDLE; larger ones get a segment of their own
MIDDLE = 16 << 20
ROUND_SEGMENT = 2 << 20
KEEP_WHOLE = 1 << 20  # what is left over of a large block is split off only if it is at least this
LISTED = 5  # holders an out-of-memory message names


class Block:
    """A piece of a segment. ``ptr`` and ``nbytes`` (whole units) are fixed while it is in use; ``asked`` is the request."""

    __slots__ = ("ptr", "nbytes", "asked", "tag", "segment", "before", "after", "live", "gone", "users", "number")

    def __init__(self, ptr: int, nbytes: int, segment: Segment | None):
        self.ptr, self.nbytes, self.segment = ptr, nbytes, segment
        self.asked = 0
        self.tag: Any = ""
        self.before: Block | None = None  # neighbours in the segment
        self.after: Block | None = None
        self.live = self.gone = False  # gone: given back, perhaps not yet free
        self.users: set[Any] = set()  # other streams that work with it
        self.number = 0

    def __repr__(self) -> str:
        return f"<Block {self.ptr:#x}, {self.nbytes} bytes, {'live' if self.live else 'free'}>"


class Segment:
    """One piece of memory from the device; ``first`` is its block at the lowest address."""

    __slots__ = ("ptr", "nbytes", "pool", "first")

    def __init__(self, ptr: int, nbytes: int, pool: FreeList):
        self.ptr, self.nbytes, self.pool = ptr, nbytes, pool
        self.first = Block(ptr, nbytes, self)


class FreeList:
    """Free blocks of one stream and kind, ordered by size, then address."""

    __slots__ = ("keys", "blocks", "stream", "small")

    def __init__(self, stream: Hashable, small: bool):
        self.stream, self.small = stream, small
        self.keys: list[tuple[int, int]] = []
        self.blocks: dict[int, Block] = {}  # by address

    def add(self, block: Block) -> None:
        insort(self.keys, (block.nbytes, block.ptr))
        self.blocks[block.ptr] = block

    def remove(self, block: Block) -> None:
        del self.keys[bisect_left(self.keys, (block.nbytes, block.ptr))]
        del self.blocks[block.ptr]

    def best(self, nbytes: int) -> Block | None:
        """The smallest block of at least ``nbytes``."""
        at = bisect_left(self.keys, (nbytes, 0))
        return self.blocks[self.keys[at][1]] if at < len(self.keys) else None


class Count:
    """A running quantity: now, at its highest, and everything ever added and taken away."""

    __slots__ = ("current", "peak", "allocated", "freed")

    def __init__(self) -> None:
        self.current = self.peak = self.allocated = self.freed = 0

    def add(self, n: int) -> None:
        self.current += n
        if n > 0:
            self.allocated += n
            self.peak = max(self.peak, self.current)
        else:
            self.freed -= n


COUNTS = ("allocation", "segment", "allocated_bytes", "reserved_bytes", "requested_bytes", "inactive_split_bytes")


class Allocator:
    """Caching allocator over ``take(nbytes) -> address`` (MemoryError if there is no more) and ``give(address)``.

    ``mark(stream)`` makes a mark in a stream's work and ``passed(mark)`` tells whether it has been reached; they are asked
    only for blocks that :meth:`used_by` gave to other streams. ``settle()`` waits for all work before memory goes back to
    the device. ``info()`` is (free, total) bytes of the device, for messages. ``where`` names the device in messages.
    """

    def __init__(self, take: Callable[[int], int], give: Callable[[int], None], *,
                 mark: Callable[[Any], Any] | None = None, passed: Callable[[Any], bool] | None = None,
                 settle: Callable[[], None] | None = None, info: Callable[[], tuple[int, int]] | None = None,
                 where: str = "CUDA"):
        self.take, self.give, self.mark, self.passed, self.settle, self.info = take, give, mark, passed, settle, info
        self.where = where
        self.limit: int | None = None  # most bytes to reserve
        self.lock = threading.Lock()
        self.returned: deque[Block] = deque()  # given back, not yet looked at
        self.waiting: deque[tuple[list[Any], Block]] = deque()  # until other streams are done with them
        self.pools: dict[tuple[Hashable, bool], FreeList] = {}
        self.segments: dict[int, Segment] = {}
        self.live: dict[int, Block] = {}
        self.counts = {name: Count() for name in COUNTS}
        self.retries = self.failures = self.serial = 0

    # ------------------------------------------------------------------------------------------------------ interface
    def allocate(self, nbytes: int, stream: Hashable = 0, tag: Any = "") -> Block:
        """A block of at least ``nbytes`` for work on ``stream``; ``tag`` says for whom in out-of-memory messages.

        Zero bytes give a block at address 0. Raises OutOfMemoryError, ValueError for a negative size.
        """
        if nbytes < 0:
            raise ValueError(f"cannot allocate {nbytes} bytes")
        if nbytes == 0:
            return Block(0, 0, None)
        size = -(-nbytes // ALIGN) * ALIGN
        block = self._hand_out(size, nbytes, stream, tag)
        if block is None:
            gc.collect()  # tensors in reference cycles give their memory back
            block = self._hand_out(size, nbytes, stream, tag)
        if block is None:
            with self.lock:
                self.failures += 1
                raise OutOfMemoryError(self._complaint(nbytes))
        self._drain()
        return block

    def free(self, block: Block) -> None:
        """Give a block back. Safe in finalizers; ValueError if it was given back before."""
        if block.gone:
            raise ValueError(f"{block} was given back twice")
        if block.segment is not None:
            block.gone = True
            self.returned.append(block)
            self._drain()

    def used_by(self, block: Block, stream: Hashable) -> None:
        """Work on another ``stream`` uses the block: after :meth:`free` it is reused when that work is done."""
        if block.segment is not None and block.segment.pool.stream != stream:
            block.users.add(stream)

    def empty_cache(self) -> None:
        """Give every segment without a live block back to the device."""
        with self.lock:
            self._collect()
            self._release()

    def reset_peak(self) -> None:
        """Peaks start again from what is in use now."""
        with self.lock:
            self._collect()
            for count in self.counts.values():
                count.peak = count.current

    def reset_totals(self) -> None:
        """Everything ever added and taken away starts again from 0."""
        with self.lock:
            self._collect()
            for count in self.counts.values():
                count.allocated = count.freed = 0
            self.retries = self.failures = 0

    def stats(self) -> dict[str, int]:
        """Counters under the names of ``torch.cuda.memory_stats``, e.g. ``allocated_bytes.all.peak``."""
        with self.lock:
            self._collect()
            out = {}
            for name, count in self.counts.items():
                for field in Count.__slots__:
                    out[f"{name}.all.{field}"] = getattr(count, field)
            for field in Count.__slots__:
                out[f"active_bytes.all.{field}"] = out[f"allocated_bytes.all.{field}"]
                out[f"active.all.{field}"] = out[f"allocation.all.{field}"]
            out["num_alloc_retries"], out["num_ooms"] = self.retries, self.failures
            return dict(sorted(out.items()))

    def snapshot(self) -> list[dict[str, Any]]:
        """Segments with their blocks: address, size in bytes, state, what for."""
        with self.lock:
            self._collect()
            out = []
            for segment in sorted(self.segments.values(), key=lambda s: s.ptr):
                blocks = [{"address": b.ptr, "size": b.nbytes, "requested_size": b.asked if b.live else 0,
                           "state": "active_allocated" if b.live else "inactive", "tag": str(b.tag) if b.live else ""}
                          for b in _chain(segment)]
                out.append({"address": segment.ptr, "total_size": segment.nbytes, "stream": segment.pool.stream,
                            "segment_type": "small" if segment.pool.small else "large",
                            "allocated_size": sum(b["size"] for b in blocks if b["state"] != "inactive"),  # type: ignore
                            "blocks": blocks})
            return out

    def holders(self) -> list[tuple[int, int, str]]:
        """(bytes, blocks, tag) of live blocks by tag, largest first."""
        with self.lock:
            self._collect()
            return self._holders()

    # ----------------------------------------------------------------------------------------------------- inside
    def _hand_out(self, size: int, nbytes: int, stream: Hashable, tag: Any) -> Block | None:
        with self.lock:
            self._collect()
            block = self._find(size, stream) or self._grow(size, stream)
            if block is None:
                return None
            self._split(block, size)
            self.serial += 1
            block.live, block.gone, block.asked, block.tag, block.number = True, False, nbytes, tag, self.serial
            self.live[block.ptr] = block
            self._count(allocation=1, allocated_bytes=block.nbytes, requested_bytes=nbytes)
            return block

    def _drain(self) -> None:
        """Look at what was given back, unless somebody else is inside and will do it."""
        while self.returned and self.lock.acquire(blocking=False):
            try:
                self._collect()
            finally:
                self.lock.release()

    # the lock is held in everything below
    def _count(self, **changes: int) -> None:
        for name, n in changes.items():
            self.counts[name].add(n)

    def _collect(self) -> None:
        """Take back what was given back, and what other streams are done with."""
        while self.returned:
            block = self.returned.popleft()
            if block.users and self.mark is not None:
                marks = [self.mark(s) for s in sorted(block.users, key=str)]
                block.users = set()
                self.waiting.append((marks, block))
            else:
                self._take_back(block)
        for _ in range(len(self.waiting)):
            marks, block = self.waiting.popleft()
            assert self.passed is not None
            marks = [m for m in marks if not self.passed(m)]
            if marks:
                self.waiting.append((marks, block))
            else:
                self._take_back(block)

    def _take_back(self, block: Block) -> None:
        """Make a live block free and join it with free neighbours."""
        segment = block.segment
        assert segment is not None
        del self.live[block.ptr]
        self._count(allocation=-1, allocated_bytes=-block.nbytes, requested_bytes=-block.asked)
        block.live, block.tag, block.users = False, "", set()
        pool, inactive = segment.pool, block.nbytes
        for other in (block.before, block.after):
            if other is not None and not other.live:
                pool.remove(other)
                first, second = (other, block) if other is block.before else (block, other)
                block = self._join(first, second)
        if block.nbytes == segment.nbytes:  # a whole free segment is not split any more
            inactive -= block.nbytes
        self._count(inactive_split_bytes=inactive)
        pool.add(block)

    @staticmethod
    def _join(first: Block, second: Block) -> Block:
        first.nbytes += second.nbytes
        first.after = second.after
        if second.after is not None:
            second.after.before = first
        return first

    def _pool(self, size: int, stream: Hashable) -> FreeList:
        key = (stream, size <= SMALL)
        pool = self.pools.get(key)
        if pool is None:
            pool = self.pools[key] = FreeList(*key)
        return pool

    def _find(self, size: int, stream: Hashable) -> Block | None:
        """The best free block, taken out of its list."""
        pool = self._pool(size, stream)
        block = pool.best(size)
        if block is not None:
            pool.remove(block)
            assert block.segment is not None
            if block.nbytes < block.segment.nbytes:
                self._count(inactive_split_bytes=-block.nbytes)
        return block

    def _grow(self, size: int, stream: Hashable) -> Block | None:
        """A block that is a new segment; gives cached memory back to the device if that is needed. None: no memory."""
        pool = self._pool(size, stream)
        if size <= SMALL:
            nbytes = SMALL_SEGMENT
        elif size <= MIDDLE:
            nbytes = LARGE_SEGMENT
        else:
            nbytes = -(-size // ROUND_SEGMENT) * ROUND_SEGMENT
        ptr = self._reserve(nbytes)
        if ptr is None and self.segments:
            self.retries += 1
            self._wait()
            block = self._find(size, stream)  # joined by what other streams held
            if block is not None:
                return block
            self._release()
            ptr = self._reserve(nbytes)
        if ptr is None and nbytes > size:  # a segment of just the size may still fit
            nbytes = size
            ptr = self._reserve(nbytes)
        if ptr is None:
            return None
        if ptr % ALIGN:
            self.give(ptr)
            raise ValueError(f"the device gave memory at {ptr:#x}, which is not aligned to {ALIGN} bytes")
        segment = self.segments[ptr] = Segment(ptr, nbytes, pool)
        self._count(segment=1, reserved_bytes=nbytes)
        return segment.first

    def _reserve(self, nbytes: int) -> int | None:
        if self.limit is not None and self.counts["reserved_bytes"].current + nbytes > self.limit:
            return None
        try:
            return self.take(nbytes)
        except MemoryError:
            return None

    def _split(self, block: Block, size: int) -> None:
        """Leave ``size`` bytes in a block that is about to be used."""
        rest = block.nbytes - size
        segment = block.segment
        assert segment is not None
        if rest < (ALIGN if segment.pool.small else KEEP_WHOLE):
            return
        tail = Block(block.ptr + size, rest, segment)
        tail.before, tail.after = block, block.after
        if block.after is not None:
            block.after.before = tail
        block.after, block.nbytes = tail, size
        segment.pool.add(tail)
        self._count(inactive_split_bytes=rest)

    def _wait(self) -> None:
        """Wait for other streams, then take back what they held."""
        if self.settle is not None and self.waiting:
            self.settle()
        self._collect()

    def _release(self) -> None:
        """Give wholly free segments back."""
        empty = [s for s in self.segments.values() if not s.first.live and s.first.after is None]
        if empty and self.settle is not None:
            self.settle()
        for segment in empty:
            segment.pool.remove(segment.first)
            del self.segments[segment.ptr]
            self._count(segment=-1, reserved_bytes=-segment.nbytes)
            self.give(segment.ptr)

    def _holders(self) -> list[tuple[int, int, str]]:
        held: dict[str, tuple[int, int]] = {}
        for block in self.live.values():
            tag = str(block.tag) or "unnamed"
            nbytes, n = held.get(tag, (0, 0))
            held[tag] = (nbytes + block.nbytes, n + 1)
        return sorted(((nbytes, n, tag) for tag, (nbytes, n) in held.items()), key=lambda x: (-x[0], x[2]))

    def _complaint(self, nbytes: int) -> str:
        """What an out-of-memory error says."""
        used, reserved = self.counts["allocated_bytes"].current, self.counts["reserved_bytes"].current
        text = [f"{self.where} out of memory. Tried to allocate {size_text(nbytes)}."]
        if self.info is not None:
            free, total = self.info()
            text.append(f"The device has {size_text(total)}, of which {size_text(free)} are free.")
        text.append(f"This process holds {size_text(reserved)}: {size_text(used)} in use by {len(self.live)} blocks, "
                    f"{size_text(reserved - used)} cached in pieces that are too small or belong to other streams.")
        if self.limit is not None:
            text.append(f"It may hold {size_text(self.limit)} (set_per_process_memory_fraction).")
        holders = self._holders()
        if holders:
            largest = "; ".join(f"{size_text(n)} {tag}" + (f" ({k} blocks)" if k > 1 else "") for n, k, tag in holders[:LISTED])
            more = f"; and {len(holders) - LISTED} more" if len(holders) > LISTED else ""
            text.append(f"Largest holders: {largest}{more}.")
        return " ".join(text)


def _chain(segment: Segment) -> list[Block]:
    """The blocks of a segment from low to high addresses."""
    out: list[Block] = []
    block: Block | None = segment.first
    while block is not None:
        out.append(block)
        block = block.after
    return out


def check(allocator: Allocator) -> None:
    """Raise AssertionError unless the allocator's books agree with each other. For tests; the caller is alone."""
    with allocator.lock:
        counted = {"allocated_bytes": 0, "reserved_bytes": 0, "inactive_split_bytes": 0, "segment": 0, "allocation": 0}
        free: dict[int, Block] = {}
        for pool in allocator.pools.values():
            assert pool.keys == sorted((b.nbytes, b.ptr) for b in pool.blocks.values()), "free list out of order"
            free.update(pool.blocks)
        for segment in allocator.segments.values():
            counted["segment"] += 1
            counted["reserved_bytes"] += segment.nbytes
            at, before = segment.ptr, None
            for block in _chain(segment):
                assert block.ptr == at and block.nbytes > 0 and block.nbytes % ALIGN == 0, f"{block} is out of place"
                assert block.before is before and block.segment is segment, f"{block} has the wrong neighbour"
                assert block.live == (block.ptr in allocator.live) != (block.ptr in free), f"{block} is in the wrong list"
                assert before is None or before.live or block.live, f"{block} was not joined with {before}"
                counted["allocated_bytes" if block.live else "inactive_split_bytes"] += block.nbytes
                counted["allocation"] += block.live
                at, before = at + block.nbytes, block
            assert at == segment.ptr + segment.nbytes, "blocks do not fill the segment"
            if not segment.first.live and segment.first.after is None:
                counted["inactive_split_bytes"] -= segment.nbytes
        for name, n in counted.items():
            assert allocator.counts[name].current == n, f"{name}: {allocator.counts[name].current} counted, {n} there"


def size_text(nbytes: int) -> str:
    """Bytes for people: 512 bytes, 2.00 KiB, 1.50 GiB."""
    if nbytes < 1024:
        return f"{nbytes} bytes"
    power = min((nbytes.bit_length() - 1) // 10, 4)
    return f"{nbytes / (1 << 10 * power):.2f} {('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"
