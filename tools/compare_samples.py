"""Compare graphc with PyTorch on PyTorch's own sample inputs: values, dtypes, shapes, gradients.

    python tools/compare_samples.py                   # every function, float64
    python tools/compare_samples.py --dtype int64 --most 15 cat norm nn.functional.pad

Needs PyTorch (its testing package holds the samples). Prints each function that differs with its first differences, names
that are absent, and a summary; functions in KNOWN differ for the reason given and are counted apart.
"""
from __future__ import annotations

import argparse
import signal
import sys
import types
import unittest
import warnings
from typing import Any

import numpy as np

KNOWN = {
    "einsum": "the sample function takes its arguments in another order", "where": "takes its arguments in another order",
    "polygamma": "takes its arguments in another order", "special.polygamma": "takes its arguments in another order",
    "nn.functional.embedding": "takes its arguments in another order",
    "nn.functional.embedding_bag": "takes its arguments in another order",
    "linalg.lstsq": "the sample function drops results", "bfloat16": "NumPy cannot hold PyTorch's result",
    "nn.functional.triplet_margin_with_distance_loss": "the samples hold PyTorch modules",
    "linalg.eig": "eigenvectors have free phases", "linalg.eigh": "eigenvectors have free phases",
    "linalg.pinv": "the gradient depends on which triangle is read", "cholesky_inverse": "only the triangle that is read has a gradient",
    "cholesky_solve": "only the triangle that is read has a gradient",
    "nextafter": "no gradient here, one that raises there", "linalg.matrix_power": "the power 0 has no gradient here",
    "nn.functional.batch_norm": "input without a batch is refused", "nn.functional.pdist": "p = 0 has no gradient here",
    "cdist": "p = 0 has no gradient here", "index_fill": "PyTorch counts a repeated index twice in the gradient to the value",
    "nn.functional.scaled_dot_product_attention": "dropout", "nn.functional.multi_head_attention_forward": "dropout",
    "sgn": "PyTorch's gradient is a ZeroTensor", "zero_": "a leaf that requires grad", "to_sparse": "not planned", "sparse.mm": "not planned",
    "kthvalue": "equal elements may be ordered otherwise", "topk": "equal elements may be ordered otherwise",
    "mode": "any index of the value will do", "sort": "equal elements may be ordered otherwise",
    "argsort": "equal elements may be ordered otherwise", "special.ndtr": "PyTorch's loses digits in the lower tail",
    "lu": "pivots by absolute value", "linalg.lu": "pivots by absolute value", "linalg.lu_factor": "pivots by absolute value",
    "linalg.lu_factor_ex": "pivots by absolute value",
}
RANDOM = ("empty", "bernoulli", "rand", "normal", "multinomial", "dropout", "uniform", "exponential", "cauchy", "geometric",
          "log_normal", "rrelu", "svd_lowrank", "pca_lowrank", "fractional", "poisson", "as_strided")


class Late(Exception):
    """One function took too long."""


def libraries() -> tuple[Any, Any, Any]:
    """PyTorch, graphc, and the list of sample sources."""
    if "expecttest" not in sys.modules:  # PyTorch's testing package imports it for its own test classes only
        stand_in: Any = types.ModuleType("expecttest")
        stand_in.TestCase = unittest.TestCase
        sys.modules["expecttest"] = stand_in
    import torch
    from torch.testing._internal.common_methods_invocations import op_db

    import graphc
    import graphc.fft
    import graphc.linalg
    import graphc.nn.functional
    import graphc.special

    return torch, graphc, op_db


class Comparison:
    """Runs one function in both libraries."""

    def __init__(self, dtype: str, most: int):
        self.torch, self.graphc, self.op_db = libraries()
        self.dtype, self.most = getattr(self.torch, dtype), most
        self.tight = dict(rtol=1e-6, atol=1e-8) if dtype in ("float64", "complex128") else dict(rtol=1e-5, atol=1e-4)

    def convert(self, x: Any, leaves: list[tuple[Any, Any]]) -> Any:
        """PyTorch's arguments as graphc's; tensors that require grad are noted in pairs."""
        torch = self.torch
        if isinstance(x, torch.Tensor):
            t = self.graphc.from_numpy(np.array(x.detach().resolve_conj().resolve_neg().numpy()))
            if x.requires_grad:
                leaves.append((x, t.requires_grad_(True)))
            return t
        if isinstance(x, torch.dtype):
            return getattr(self.graphc, str(x).split(".")[1])
        if isinstance(x, (torch.layout, torch.memory_format)):
            return None
        if isinstance(x, torch.device):
            return "cpu"
        if isinstance(x, dict):
            return {k: self.convert(v, leaves) for k, v in x.items()}
        if isinstance(x, list):
            return [self.convert(v, leaves) for v in x]
        return tuple(self.convert(v, leaves) for v in x) if isinstance(x, tuple) else x

    def flat(self, y: Any) -> list[Any]:
        return [z for q in y for z in self.flat(q)] if isinstance(y, (tuple, list)) else [y]

    def find(self, name: str) -> Any:
        obj: Any = self.graphc
        for part in name.split("."):
            obj = getattr(obj, part, None)
        method = getattr(self.graphc.Tensor, name, None)
        return obj if callable(obj) else method if callable(method) else None

    def unequal(self, want: Any, got: Any) -> str:
        """How two results differ, or nothing."""
        torch, tensor = self.torch, self.graphc.Tensor
        if not isinstance(want, torch.Tensor):
            return f"{got} instead of {want}" if isinstance(want, (int, float)) and want != got else ""
        if not isinstance(got, tensor):
            return "not a tensor"
        if str(want.dtype) != str(got.dtype):
            return f"dtype {got.dtype} instead of {want.dtype}"
        if tuple(want.shape) != tuple(got.shape):
            return f"shape {tuple(got.shape)} instead of {tuple(want.shape)}"
        a, b = want.detach().resolve_conj().resolve_neg().numpy(), got.detach().numpy()
        return "" if np.allclose(a, b, equal_nan=True, **self.tight) else "value"

    def gradients(self, wants: list[Any], gots: list[Any], leaves: list[tuple[Any, Any]]) -> str:
        torch, graphc = self.torch, self.graphc
        pairs = [(w, q) for w, q in zip(wants, gots) if isinstance(w, torch.Tensor) and w.requires_grad]
        if not pairs or not leaves or any(w.is_complex() for w, _ in pairs):
            return ""
        if not all(q.requires_grad for _, q in pairs):
            return "no gradient"
        weights = [np.cos(np.arange(w.numel())).reshape(tuple(w.shape)) for w, _ in pairs]
        theirs = torch.autograd.grad(sum((w * torch.tensor(c)).sum() for (w, _), c in zip(pairs, weights)),
                                     [x for x, _ in leaves], allow_unused=True)
        ours = graphc.autograd.grad(sum((q * graphc.tensor(c)).sum() for (_, q), c in zip(pairs, weights)),
                                    [t for _, t in leaves], allow_unused=True)
        for i, (a, b) in enumerate(zip(theirs, ours)):
            x, y = np.zeros(1) if a is None else a.numpy(), np.zeros(1) if b is None else b.numpy()
            if not np.allclose(x, y, rtol=1e-5, atol=1e-7, equal_nan=True):
                return f"gradient {i}"
        return ""

    def sample(self, op: Any, fn: Any, s: Any) -> str:
        """What is different for one sample; samples that PyTorch itself refuses count as equal."""
        given = (s.input, *s.args)
        try:
            wants = self.flat(op.op(*given, **s.kwargs))
        except Late:
            raise
        except Exception:
            return ""
        leaves: list[tuple[Any, Any]] = []
        try:
            gots = self.flat(fn(*self.convert(given, leaves), **self.convert(s.kwargs, leaves)))
            if len(wants) != len(gots):
                return f"{len(gots)} results instead of {len(wants)}"
            return next(filter(None, map(self.unequal, wants, gots)), "") or self.gradients(wants, gots, leaves)
        except Late:
            raise
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:120]}"

    def function(self, op: Any) -> tuple[int, list[str]] | None:
        """(samples, differences), None when the name is absent."""
        fn = self.find(op.name)
        if fn is None:
            return None
        count, found = 0, []
        signal.alarm(30)
        try:
            grad = op.supports_autograd and self.dtype.is_floating_point
            for i, s in zip(range(self.most), op.sample_inputs("cpu", self.dtype, requires_grad=grad)):
                count += 1
                if text := self.sample(op, fn, s):
                    shapes = [tuple(a.shape) if hasattr(a, "shape") else a for a in (s.input, *s.args)]
                    found.append(f"#{i} {text} | {shapes} {s.kwargs}".replace("\n", " ")[:240])
        except Late:
            found.append("took longer than 30 s")
        except Exception as error:
            found.append(f"samples: {error!r}"[:160])
        finally:
            signal.alarm(0)
        return count, found


def _late(*_: Any) -> None:
    raise Late


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="functions, by PyTorch's name without torch. (default: all)")
    parser.add_argument("--dtype", default="float64", choices=["float64", "float32", "int64", "bool", "complex128"])
    parser.add_argument("--most", type=int, default=40, help="samples per function (default 40)")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _late)
    c = Comparison(options.dtype, options.most)
    absent, known, different, equal, samples = [], [], 0, 0, 0
    for op in c.op_db:
        if (options.names and op.name not in options.names) or any(r in op.name for r in RANDOM) or c.dtype not in op.dtypes:
            continue
        result = c.function(op)
        if result is None:
            absent.append(op.name)
            continue
        samples += result[0]
        if not result[1]:
            equal += 1
        elif op.name in KNOWN and op.name not in options.names:
            known.append(f"{op.name} ({KNOWN[op.name]})")
        else:
            different += 1
            print(f"{op.name}: {len(result[1])} of {result[0]} samples differ")
            print("\n".join("    " + text for text in result[1][:3]))
    print(f"absent: {', '.join(absent)}\nknown differences: {'; '.join(known)}")
    print(f"{equal} functions agree on {samples} samples, {different} differ, {len(known)} for known reasons, "
          f"{len(absent)} are absent")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
