"""``torch.cuda.memory``: what the caching allocator holds. Devices that were not used hold nothing."""
from __future__ import annotations

from collections import OrderedDict
from typing import Any

from ..errors import ArgumentError
from ..runtime.cuda import device as _devices
from ..runtime.cuda import driver as _driver
from ..runtime.cuda.allocator import size_text
from ..runtime.cuda.device import Device


def _device(device: Any) -> Device | None:
    """The device if it was used; a wrong number is an error where there are devices."""
    index = _devices.index_of(device)
    if _driver.started():
        _driver.get().check_index(index)
    return _devices.used(index)


def memory_stats(device: Any = None) -> dict[str, Any]:
    """Counters of the allocator, e.g. ``allocated_bytes.all.peak``; empty for a device that was not used."""
    found = _device(device)
    return OrderedDict() if found is None else OrderedDict(found.memory.stats())


def host_memory_stats() -> dict[str, Any]:
    """The same of page-locked host memory."""
    found = _devices.host_memory_used()
    return OrderedDict() if found is None else OrderedDict(found.stats())


def memory_allocated(device: Any = None) -> int:
    """Bytes in use by tensors and plans."""
    return memory_stats(device).get("allocated_bytes.all.current", 0)


def max_memory_allocated(device: Any = None) -> int:
    """Most bytes ever in use since the start or :func:`reset_peak_memory_stats`."""
    return memory_stats(device).get("allocated_bytes.all.peak", 0)


def memory_reserved(device: Any = None) -> int:
    """Bytes taken from the device: in use and cached."""
    return memory_stats(device).get("reserved_bytes.all.current", 0)


def max_memory_reserved(device: Any = None) -> int:
    """Most bytes ever taken from the device since the start or :func:`reset_peak_memory_stats`."""
    return memory_stats(device).get("reserved_bytes.all.peak", 0)


def reset_peak_memory_stats(device: Any = None) -> None:
    """Peaks start again from what is in use now."""
    found = _device(device)
    if found is not None:
        found.memory.reset_peak()


def reset_max_memory_allocated(device: Any = None) -> None:
    """The same as :func:`reset_peak_memory_stats`."""
    reset_peak_memory_stats(device)


def reset_accumulated_memory_stats(device: Any = None) -> None:
    """Totals of what was ever allocated and freed start again from 0."""
    found = _device(device)
    if found is not None:
        found.memory.reset_totals()


def empty_cache() -> None:
    """Give cached memory of every device, and cached page-locked memory, back to the system."""
    for device in _devices.all_used():
        device.arenas.clear()
        device.give_up_reserves()
        device.memory.empty_cache()
    host = _devices.host_memory_used()
    if host is not None:
        host.empty_cache()


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """(free, total) bytes of a device, whoever uses them."""
    return _devices.get(device).memory_info()


def memory_snapshot(mempool_id: Any = None, include_traces: bool = True) -> list[dict[str, Any]]:
    """Segments of every device with their blocks: address, size, state and purpose."""
    return [{"device": d.index, **segment} for d in _devices.all_used() for segment in d.memory.snapshot()]


def set_per_process_memory_fraction(fraction: float, device: Any = None) -> None:
    """Let this process take at most ``fraction`` (0 to 1) of a device's memory."""
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)):
        raise TypeError("Invalid type for fraction argument, must be `float`")
    if not 0 <= fraction <= 1:
        raise ArgumentError(f"Invalid fraction value: {fraction}. Allowed range: 0~1")
    found = _devices.get(device)
    found.memory.limit = int(fraction * found.properties.total_memory)


_ROWS = (("Allocated memory", "allocated_bytes"), ("Requested memory", "requested_bytes"),
         ("Reserved memory", "reserved_bytes"),
         ("Unused in split blocks", "inactive_split_bytes"), ("Allocations", "allocation"), ("Segments", "segment"))


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """The allocator's counters and the largest holders as text."""
    index, found = _devices.index_of(device), _device(device)
    stats = memory_stats(device)
    lines = [f"CUDA memory of device {index}: {stats.get('num_ooms', 0)} out-of-memory errors, "
             f"{stats.get('num_alloc_retries', 0)} retries", f"{'':24}{'now':>14}{'peak':>14}{'in total':>14}{'freed':>14}"]
    for title, name in _ROWS:
        values = [stats.get(f"{name}.all.{k}", 0) for k in ("current", "peak", "allocated", "freed")]
        shown = [size_text(v) if "bytes" in name else str(v) for v in values]
        lines.append(f"{title:24}" + "".join(f"{v:>14}" for v in shown))
    if found is not None and not abbreviated:
        lines += [f"{size_text(n):>14}  {tag} ({k} blocks)" for n, k, tag in found.memory.holders()[:20]]
    return "\n".join(lines) + "\n"
