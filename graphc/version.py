"""``graphc.version``: what this build is."""
from . import __version__

__all__ = ["__version__", "cuda", "hip"]
cuda = None  # no CUDA run time is compiled in
hip = None
