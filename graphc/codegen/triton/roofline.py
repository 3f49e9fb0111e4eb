"""What a plan's launches cost at least: bytes, operations, and the time a device needs for the larger of the two."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ...ir.node import Aval
from ..native.jobs import Cursor
from .printer import Printed

if TYPE_CHECKING:
    from .plan import Launch, Step


@dataclass(frozen=True)
class Device:
    """Peak rates: bytes a second of memory, dense operations a second on tensor cores (16-bit, tf32), float32 elsewhere."""

    bandwidth: float
    half: float
    tf32: float
    plain: float


DEVICES = {  # vendor data sheets: A100 80GB SXM, H100 SXM, H200 SXM
    "A100": Device(2.039e12, 312e12, 156e12, 19.5e12),
    "H100": Device(3.35e12, 989e12, 494.5e12, 67e12),
    "H200": Device(4.8e12, 989e12, 494.5e12, 67e12)}


class Cost(NamedTuple):
    """Bytes to and from memory, operations, seconds at least."""

    nbytes: int
    flops: int
    seconds: float


def rate(p: Printed, device: Device) -> float:
    """Operations a second a kernel can reach."""
    if "tl.dot(" not in p.source:
        return device.plain
    return device.tf32 / 3 if "tf32x3" in p.source else device.half


def key_bytes(key: Any, avals: Sequence[Aval], own: dict[Any, int]) -> int:
    """Bytes of the memory a key names; of one iteration's share of it for a cursor."""
    if isinstance(key, Cursor):
        return abs(key.step)
    return own[key] if key in own else avals[key].nbytes if isinstance(key, int) else 0


def cost(x: Launch, avals: Sequence[Aval], own: dict[Any, int], device: Device) -> Cost:
    """The cost of one launch, every array moved once."""
    k = x.printed.kernel
    keys = dict.fromkeys(x.keys)
    if k is not None and {b.slot for b in k.buffers} >= set(keys):  # a loop kernel knows what it gathers
        nbytes = k.bytes_moved()
    else:
        nbytes = sum(key_bytes(key, avals, own) for key in keys)
    return Cost(nbytes, x.flops, max(nbytes / device.bandwidth, x.flops / rate(x.printed, device)))


def buffers_of(steps: Iterable[Step]) -> dict[Any, int]:
    """Buffers the launches bring along, with their bytes."""
    own: dict[Any, int] = {}
    for s in steps:
        own.update(getattr(s, "own", {}))
        own.update(buffers_of(getattr(s, "body", ())))
    return own


def total(steps: Sequence[Step], avals: Sequence[Aval], device: Device) -> Cost:
    """The cost of a whole plan, loops unrolled."""
    return _total(steps, avals, buffers_of(steps), device)


def _total(steps: Sequence[Step], avals: Sequence[Aval], own: dict[Any, int], device: Device) -> Cost:
    from . import plan

    nbytes, flops, seconds = 0, 0, 0.0
    for s in steps:
        if isinstance(s, plan.Launch):
            c = cost(s, avals, own, device)
        elif isinstance(s, plan.Repeat):
            inner = _total(s.body, avals, own, device)
            c = Cost(s.length * inner.nbytes, s.length * inner.flops, s.length * inner.seconds)
        else:
            moved = 2 * getattr(s, "nbytes", 0)
            c = Cost(moved, 0, moved / device.bandwidth)
        nbytes, flops, seconds = nbytes + c.nbytes, flops + c.flops, seconds + c.seconds
    return Cost(nbytes, flops, seconds)


def text(c: Cost) -> str:
    """A cost for people."""
    return f"{c.nbytes / 1e6:.1f} MB, {c.flops / 1e9:.1f} GFLOP, {c.seconds * 1e6:.1f} us"


__all__ = ["DEVICES", "Cost", "Device", "buffers_of", "cost", "total", "text"]
