"""Hand-written kernels for the primitives that are no loops over their result: which jobs carry out a node."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ...dtypes import complex64, complex128
from ...ir.node import Aval, Node
from . import join, loops, scan, scatter, search, sort
from .jobs import Job, Key, copy_job

_COMPLEX = (complex64, complex128)


def library_jobs(node: Node, ins: Sequence[Aval], outs: Sequence[Aval], in_keys: Sequence[Key | None], out_keys: Sequence[Key],
                 unique: Any, bits: int) -> list[Job] | None:
    """The jobs that compute a node from contiguous inputs, in order; None where only NumPy can.

    ``in_keys`` name the inputs' memory: None stands for an input of zeros, allowed where :func:`zeros_allowed` says so.
    ``unique`` tells buffers of this node from those of others; ``bits`` is the width of vectors.
    """
    row = _ROWS.get(node.op.name)  # type: ignore[union-attr]
    if row is None or any(a.size == 0 for a in outs):
        return None
    return row(node.attrs, ins, outs, in_keys, out_keys, unique, bits)


def zeros_allowed(node: Node, position: int) -> bool:
    """Whether an input may be given as None if it is all zeros: the base of what is combined into."""
    return node.op.name in ("take_put", "scatter") and position == 0  # type: ignore[union-attr]


def _take_put(attrs: Any, ins: Any, outs: Any, keys: Any, out_keys: Any, unique: Any, bits: int) -> list[Job] | None:
    return scatter.take_put_jobs(attrs, ins[0], ins[1], ins[2], keys, out_keys[0], unique, bits)


def _scatter(attrs: Any, ins: Any, outs: Any, keys: Any, out_keys: Any, unique: Any, bits: int) -> list[Job] | None:
    return scatter.scatter_jobs(attrs, ins[0], ins[1], ins[2], keys, out_keys[0], unique, bits)


def _scan(attrs: Any, ins: Any, outs: Any, keys: Any, out_keys: Any, unique: Any, bits: int) -> list[Job] | None:
    return scan.scan_jobs(attrs, ins[0], keys[0], out_keys[0], unique, bits)


def _sort(attrs: Any, ins: Any, outs: Any, keys: Any, out_keys: Any, unique: Any, bits: int) -> list[Job] | None:
    return sort.sort_jobs(attrs[0], attrs[1], None, ins[0], keys[0], out_keys, unique, bits)


def _topk(attrs: Any, ins: Any, outs: Any, keys: Any, out_keys: Any, unique: Any, bits: int) -> list[Job] | None:
    return sort.sort_jobs(attrs[0], attrs[2], attrs[1], ins[0], keys[0], out_keys, unique, bits)


def _search(attrs: Any, ins: Any, outs: Any, keys: Any, out_keys: Any, unique: Any, bits: int) -> list[Job] | None:
    return search.search_jobs(attrs, ins[0], ins[1], keys, out_keys[0], bits)


def _bitcast(attrs: Any, ins: Any, outs: Any, keys: Any, out_keys: Any, unique: Any, bits: int) -> list[Job] | None:
    return [copy_job(out_keys[0], keys[0], outs[0].nbytes)]


def _concat(attrs: Any, ins: Any, outs: Any, keys: Any, out_keys: Any, unique: Any, bits: int) -> list[Job] | None:
    return join.concat_jobs(attrs, ins, outs[0], keys, out_keys[0])


def _slice_set(attrs: Any, ins: Any, outs: Any, keys: Any, out_keys: Any, unique: Any, bits: int) -> list[Job] | None:
    return None if outs[0].dtype in _COMPLEX else loops.slice_set_jobs(attrs, ins[0], ins[1], keys, out_keys[0], bits)


def _contract(attrs: Any, ins: Any, outs: Any, keys: Any, out_keys: Any, unique: Any, bits: int) -> list[Job] | None:
    return loops.contract_jobs(attrs, ins[0], ins[1], outs[0], keys, out_keys[0], bits)


def _overlap(attrs: Any, ins: Any, outs: Any, keys: Any, out_keys: Any, unique: Any, bits: int) -> list[Job] | None:
    return loops.overlap_jobs(attrs, ins[0], outs[0], keys, out_keys[0], bits)


def _integer(name: str, attrs: Any, ins: Any, outs: Any, keys: Any, out_keys: Any, unique: Any, bits: int) -> list[Job] | None:
    return loops.integer_jobs(name, ins, outs[0], keys, out_keys[0], bits)


_Row = Callable[[Any, Sequence[Aval], Sequence[Aval], Sequence[Any], Sequence[Key], Any, int], "list[Job] | None"]
_ROWS: dict[str, _Row] = {
    "take_put": _take_put, "scatter": _scatter, "scan": _scan, "sort": _sort, "topk": _topk, "searchsorted": _search,
    "bitcast": _bitcast, "concat": _concat, "slice_set": _slice_set, "contract": _contract, "overlap_add": _overlap,
    **{name: partial(_integer, name) for name in ("floordiv", "remainder", "fmod", "pow")},
}
