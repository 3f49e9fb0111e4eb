"""``python -m graphc.utils.collect_env``: what to write into a report of a fault."""
from __future__ import annotations

import importlib.metadata
import os
import platform
import sys


def get_pretty_env_info() -> str:
    """Versions of graphc, Python, the system, the processor, libraries and GPUs, one per line."""
    from .. import config
    from ..backends.cpu import get_cpu_capability
    from ..version import __version__

    lines = [f"graphc version: {__version__}", f"Python version: {sys.version.split()[0]} ({platform.architecture()[0]})",
             f"OS: {platform.platform()}",
             f"CPU: {platform.processor() or platform.machine()}, {os.cpu_count()} cores, vectors: {get_cpu_capability()}",
             f"Back end asked for: {config.BACKEND or 'none'}"]
    for name in ("numpy", "llvmlite", "ml_dtypes", "networkx", "triton", "cuda-bindings", "torch"):
        try:
            lines.append(f"{name}: {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"{name}: not installed")
    from ..runtime.cuda import driver

    lines.append(f"GPU: {driver.reason() or 'found'}")
    lines += [f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith("GRAPHC_")]
    return "\n".join(lines)


def main() -> None:
    print(get_pretty_env_info())


if __name__ == "__main__":
    main()
