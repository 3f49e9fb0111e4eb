"""Write tools/data/public_names.tsv: the public names of PyTorch's modules, for the second table of docs/api.md.

    python tools/public_names.py        # needs PyTorch; run it when the version compared with changes

A module's names are its ``__all__``, else what it defines; of ``torch`` and ``torch.Tensor`` functions and methods with a
docstring or a Python definition. Left out, as kinds that graphc's tensors are not: quantized and sparse ones, other vendors'
kernels (cuDNN, MIOpen, MKL-DNN, FBGEMM), symbolic sizes, and views as copies.
"""
from __future__ import annotations

import importlib
import inspect
import pathlib
import re
import types
import typing
from typing import Any

OUT = pathlib.Path(__file__).resolve().parent / "data" / "public_names.tsv"
MODULES = """torch torch.Tensor torch.nn torch.nn.functional torch.nn.init torch.nn.utils torch.nn.utils.rnn torch.nn.utils.prune
torch.nn.utils.parametrize torch.nn.utils.parametrizations torch.nn.parallel torch.nn.attention torch.nn.attention.flex_attention
torch.optim torch.optim.lr_scheduler torch.optim.swa_utils torch.autograd torch.autograd.functional torch.autograd.forward_ad
torch.autograd.graph torch.autograd.profiler torch.func torch.linalg torch.fft torch.special torch.signal.windows
torch.distributions torch.distributions.constraints torch.distributions.transforms torch.utils.data torch.utils.checkpoint
torch.utils.tensorboard torch.utils.benchmark torch.utils.dlpack torch.amp torch.random torch.compiler torch.export torch.onnx torch.profiler
torch.jit torch.hub torch.testing torch.futures torch.overrides torch.library torch.multiprocessing torch.distributed
torch.cuda torch.cpu torch.mps torch.accelerator torch.backends.cuda torch.backends.cudnn torch.fx torch.nested""".split()
KINDS = re.compile(r"quant|qu?int|q_scale|q_zero|q_per|qscheme|int_repr|sparse|cudnn|miopen|mkldnn|fbgemm|mps_|vulkan|mtia|maia|ipu|xla|hpu|"
                   r"_copy$|^sym_|^batch_norm_|^(smm|hsmm|hspmm|dsmm|spmm|saddmm|sspaddmm|ccol|crow|col_ind|row_ind|coalesce|is_coal)")


INNER = set("""bit chalf classproperty eig get_file_path import_ir_module import_ir_module_from_buffer lstsq matrix_rank
merge_type_from_type_comment parse_ir parse_schema parse_type_comment prepare_multiprocessing_environment solve symeig
profiler_allow_cudagraph_cupti_lazy_reinit_cuda12 thread_safe_generator unify_type_list""".split())  # of torch: inner or removed


def _own(module: Any, obj: Any) -> bool:
    """Whether a name without ``__all__`` belongs to the module: no imported module, alias of typing or foreign object."""
    if isinstance(obj, types.ModuleType) or getattr(obj, "__module__", "") in ("typing", "collections.abc"):
        return False
    if isinstance(obj, (bool, int, float, str, tuple, list, dict, re.Pattern)) or obj is typing.Any:
        return False
    return str(getattr(obj, "__module__", None) or module.__name__).startswith("torch")


def names(path: str) -> list[str]:
    """The public names of a module or class."""
    module = importlib.import_module("torch") if path == "torch.Tensor" else importlib.import_module(path)
    if path == "torch.Tensor":
        found = [n for n in dir(module.Tensor) if getattr(module.Tensor, n, None) is not None]
    elif path == "torch":
        found = [n for n in dir(module) if inspect.isroutine(getattr(module, n)) and _own(module, getattr(module, n))
                 and (getattr(module, n).__doc__ or inspect.isfunction(getattr(module, n)))]
        found += ["Generator", "Size", "Stream", "Event", "Tensor", "device", "dtype", "finfo", "iinfo", "layout", "memory_format"]
        found += [n for n in dir(module) if isinstance(getattr(module, n), module.dtype) and not re.search(r"bits|\dx\d|int[1-7]$", n)]
    else:
        found = list(getattr(module, "__all__", None) or [n for n in dir(module) if _own(module, getattr(module, n))])
    if path in ("torch", "torch.Tensor"):
        found = [n for n in found if n not in INNER]
    return sorted({n for n in found if not n.startswith("_") and not KINDS.search(n) and getattr(
        module.Tensor if path == "torch.Tensor" else module, n, None) is not None})


def main() -> None:
    import torch

    lines = [f"# module	names of PyTorch {torch.__version__.split('+')[0]}"]
    for path in MODULES:
        try:
            lines.append(f"{path}\t{' '.join(names(path))}")
        except ImportError:  # needs a package that is not there: its names by hand
            lines.append(f"{path}\tSummaryWriter")
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{OUT}: {sum(len(line.split()) - 1 for line in lines[1:])} names")


if __name__ == "__main__":
    main()
