"""``torch.backends``: switches that programs set and questions they ask; nothing here changes what graphc computes.

Each part is a module, so ``import graphc.backends.cudnn as cudnn`` works and any attribute may be set and read back.
"""
from . import cpu, cuda, cudnn, mkl, mkldnn, mps, openmp, opt_einsum

__all__ = ["cpu", "cuda", "cudnn", "mkl", "mkldnn", "mps", "openmp", "opt_einsum"]
