"""Environment switches, read once and documented here; ``graphc.config.X`` may be set from Python.

The run time reads three more where it needs them: ``GRAPHC_CACHE_DIR`` (folder of compiled kernels; default: graphc in the
user's cache folder), ``GRAPHC_NO_CACHE=1`` (neither read nor write it) and ``GRAPHC_VECTOR_BITS`` (128, 256 or 512: width of
CPU vectors; default: what the CPU has).
"""
from __future__ import annotations

import os


def _flag(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0", "false", "no")


EAGER = _flag("GRAPHC_EAGER")  # evaluate after every op: for debugging with pdb and for bisection
VERIFY = int(os.environ.get("GRAPHC_VERIFY", "0") or 0)  # 1: check every trace, 2: also after every pass
STRICT = _flag("GRAPHC_STRICT")  # a fallback is an error instead of a warning
DUMP = frozenset(p for p in os.environ.get("GRAPHC_DUMP", "").split(",") if p)  # trace, passes, plan, dot, kernels, src
DUMP_DIR = os.environ.get("GRAPHC_DUMP_DIR", "")  # write dumps there instead of stderr
LOG = frozenset(p for p in os.environ.get("GRAPHC_LOG", "").split(",") if p)  # flush, recompiles, breaks
BACKEND = os.environ.get("GRAPHC_BACKEND", "")  # numpy, native
NODE_CAP = int(os.environ.get("GRAPHC_NODE_CAP", "4096") or 4096)  # pending nodes before a flush
NO_MEMPLAN = _flag("GRAPHC_NO_MEMPLAN")  # every intermediate gets memory of its own
BYTE_CAP = int(os.environ.get("GRAPHC_BYTE_CAP", str(1 << 31)) or (1 << 31))  # pending result bytes before a flush
