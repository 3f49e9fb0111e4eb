"""Jobs of printed kernels."""
from __future__ import annotations

from typing import Any

from ...errors import CompileError
from ...ir.location import format_location
from ..loop_ir import Kernel
from .jobs import Job, kernel_space
from .kernel import print_kernel


def kernel_job(k: Kernel, vector_bits: int) -> Job:
    """The job of a printed kernel. Raises CompileError for a statement the printer does not know."""
    try:
        p = print_kernel(k, vector_bits)
    except NotImplementedError as error:
        raise CompileError(f"kernel {k.name}: no native code for {error}{where(k)}") from error
    slots: list[Any] = [b.slot for b in k.buffers]
    return Job(p.symbol, p.text, [*slots, "err", "scratch"], p.numbers, {k.buffers[b].slot for b in k.reads},
               {k.buffers[b].slot for b in k.writes}, p.scratch, p.work * max(1, len(k.stmts) // 4), p.checks, k,
               spaces=(kernel_space(k, p.leading),), streams=p.streams)


def where(k: Kernel) -> str:
    """The user's lines a kernel was recorded at, for messages."""
    lines = dict.fromkeys(format_location(s.loc) for s in k.stmts if s.loc is not None)
    return f" (recorded at {', '.join(lines)})" if lines else ""
