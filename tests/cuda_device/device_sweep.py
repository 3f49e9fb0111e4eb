"""Modules and functions on the simulated device against the host: each must give the same, on the device of its operands.

Run as a script: see device_runner.py.
"""
from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import simulated

import graphc as torch
from graphc import nn
from graphc.nn import functional as F

Case = Callable[[str], list[Any]]
CASES: dict[str, Case] = {}


def module(name: str, make: Callable[[], Any], *inputs: Any, train: bool = True) -> None:
    """Forward and backward of a module: output, gradients of parameters and inputs."""
    def run(where: str) -> list[Any]:
        torch.manual_seed(0)
        m = make().to(where).train(train)
        xs = [x.detach().to(where).requires_grad_(x.is_floating_point()) for x in inputs]
        torch.manual_seed(1)
        out = m(*xs)
        out = out[0] if isinstance(out, tuple) else out
        assert out.device.type == where, out.device
        if out.requires_grad:
            out.float().pow(2).sum().backward()
        return [out.detach(), *[t.grad for t in [*m.parameters(), *xs] if t.grad is not None]]
    CASES[name] = run


def function(name: str, f: Callable[[Any], Any], x: Any) -> None:
    """Results of a function of one tensor."""
    def run(where: str) -> list[Any]:
        torch.manual_seed(2)
        found = f(x.to(where))
        found = [t for t in (found if isinstance(found, (tuple, list)) else [found]) if isinstance(t, torch.Tensor)]
        assert all(t.device.type == where for t in found), [t.device for t in found]
        return found
    CASES[name] = run


def modules() -> None:
    r = torch.randn
    for name in ("ReLU6 ELU SELU GELU SiLU Mish Softplus Hardtanh Hardswish Softshrink Tanhshrink LogSigmoid LeakyReLU PReLU RReLU "
                 "GLU").split():
        module(name, getattr(nn, name), r(4, 6))
    module("Linear", lambda: nn.Linear(6, 3), r(4, 6))
    module("Bilinear", lambda: nn.Bilinear(3, 4, 5), r(2, 3), r(2, 4))
    module("Conv1d", lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), r(2, 4, 9))
    module("Conv2d", lambda: nn.Conv2d(4, 4, 3, groups=2, padding_mode="reflect", padding=1), r(2, 4, 7, 7))
    module("ConvTranspose2d", lambda: nn.ConvTranspose2d(4, 3, 3, 2, 1, 1), r(2, 4, 5, 5))
    for train in (True, False):
        module(f"BatchNorm2d {train}", lambda: nn.BatchNorm2d(4), r(2, 4, 5, 5), train=train)
    module("InstanceNorm2d", lambda: nn.InstanceNorm2d(4, affine=True), r(2, 4, 5, 5))
    module("GroupNorm", lambda: nn.GroupNorm(2, 4), r(2, 4, 5))
    module("LayerNorm", lambda: nn.LayerNorm(6), r(4, 6))
    module("LocalResponseNorm", lambda: nn.LocalResponseNorm(2), r(2, 4, 5, 5))
    module("MaxPool2d", lambda: nn.MaxPool2d(3, 2, 1, return_indices=True), r(2, 3, 8, 8))
    module("AvgPool2d", lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), r(2, 3, 8, 8))
    module("AdaptiveAvgPool2d", lambda: nn.AdaptiveAvgPool2d((3, 5)), r(2, 3, 8, 8))
    module("AdaptiveMaxPool2d", lambda: nn.AdaptiveMaxPool2d((3, 5)), r(2, 3, 8, 8))
    for name in ("RNN", "LSTM", "GRU"):
        module(name, lambda name=name: getattr(nn, name)(3, 4, 2, batch_first=True, bidirectional=True, dropout=0.2), r(2, 5, 3))
    module("MultiheadAttention", lambda: nn.MultiheadAttention(8, 2, batch_first=True), r(2, 5, 8), r(2, 5, 8), r(2, 5, 8))
    module("TransformerEncoder", lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1), r(2, 5, 8))
    module("Embedding", lambda: nn.Embedding(5, 3, padding_idx=0, max_norm=1.0), torch.randint(0, 5, (2, 3)))
    for mode in ("sum", "mean", "max"):
        module(f"EmbeddingBag {mode}", lambda mode=mode: nn.EmbeddingBag(5, 3, mode=mode), torch.randint(0, 5, (6,)),
               torch.tensor([0, 2, 5]))
    for name in ("Dropout", "Dropout2d", "AlphaDropout"):
        module(name, lambda name=name: getattr(nn, name)(0.4), r(2, 3, 8))
    module("Fold", lambda: nn.Fold((4, 4), 2), r(1, 8, 9))
    for name in ("SmoothL1Loss", "HuberLoss", "PoissonNLLLoss", "CosineSimilarity", "PairwiseDistance"):
        module(name, getattr(nn, name), r(3, 4), r(3, 4))
    module("BCEWithLogitsLoss", lambda: nn.BCEWithLogitsLoss(pos_weight=torch.ones(4)), r(3, 4), torch.rand(3, 4))
    module("CrossEntropyLoss", lambda: nn.CrossEntropyLoss(weight=torch.ones(4), label_smoothing=0.1), r(5, 4), torch.arange(5) % 4)
    module("MultiMarginLoss", nn.MultiMarginLoss, r(5, 4), torch.arange(5) % 4)
    module("TripletMarginLoss", nn.TripletMarginLoss, r(3, 4), r(3, 4), r(3, 4))
    module("GaussianNLLLoss", nn.GaussianNLLLoss, r(3, 4), r(3, 4), torch.rand(3, 4) + 0.1)


def functions() -> None:
    x = torch.randn(5, 5)
    spd = x @ x.mT + 5 * torch.eye(5)
    positive = x.abs() * 0.5 + 0.1
    for name in ("acos digamma erfinv exp2 frac i0 lgamma log1p logit round rsqrt sgn sinc nan_to_num prod amax argmin median mode "
                 "norm msort unique nonzero diag trace tril flipud inverse det slogdet matrix_exp cov nanmean aminmax diff "
                 "count_nonzero frexp cummax sort").split():
        more = (0,) if name == "cummax" else ()
        function(name, lambda a, name=name, more=more: getattr(torch, name)(a, *more), positive)
    image = torch.arange(50.0).reshape(1, 2, 5, 5)
    for mode in ("nearest", "bilinear", "bicubic", "area"):
        function(f"interpolate {mode}", lambda a, mode=mode: F.interpolate(a, size=(7, 9), mode=mode), image)
    for mode in ("reflect", "replicate", "circular", "constant"):
        function(f"pad {mode}", lambda a, mode=mode: F.pad(a, (1, 2, 2, 1), mode), image)
    function("grid_sample", lambda a: F.grid_sample(a, F.affine_grid(torch.eye(2, 3, device=a.device)[None], (1, 2, 4, 4))), image)
    function("max_unpool2d", lambda a: F.max_unpool2d(*F.max_pool2d(a, 2, return_indices=True), 2), image[..., :4, :4])
    function("ctc_loss", lambda a: F.ctc_loss(a.reshape(5, 1, 5).log_softmax(-1), torch.tensor([[1, 2]], device=a.device),
                                              torch.tensor([5], device=a.device), torch.tensor([2], device=a.device)), x)
    for name, f in {
        "cholesky": torch.linalg.cholesky, "svdvals": torch.linalg.svdvals, "solve": lambda a: torch.linalg.solve(a, a[0]),
        "lstsq": lambda a: torch.linalg.lstsq(a, a).solution, "rank": torch.linalg.matrix_rank, "pdist": F.pdist,
        "fft": lambda a: torch.fft.fft(a).abs(), "stft": lambda a: torch.stft(a.flatten(), 8, return_complex=True).abs(),
        "zeta": lambda a: torch.special.zeta(a.abs() + 2, a.abs() + 1), "erfcx": torch.special.erfcx, "cdist": lambda a: torch.cdist(a, a),
        "vmap": torch.vmap(lambda v: v * v.sum()), "jacobian": lambda a: torch.func.jacrev(lambda v: v.sin() * v)(a[0]),
        "hessian": lambda a: torch.func.hessian(lambda v: (v**3).sum())(a[0]), "gumbel": F.gumbel_softmax,
        "as_strided": lambda a: torch.as_strided(a, (2, 2), (1, 2)), "roll": lambda a: a.roll(1, 0),
        "multinomial": lambda a: torch.multinomial(a.abs(), 2, True), "histc": torch.histc, "renorm": lambda a: torch.renorm(a, 2, 0, 1.0),
        "scatter_reduce": lambda a: a.scatter_reduce(0, torch.zeros(1, 5, dtype=torch.long, device=a.device), a, "amax"),
        "nanquantile": lambda a: torch.nanquantile(a, 0.3), "quantile": lambda a: torch.quantile(a, torch.tensor([0.1, 0.5]).to(a)),
        "searchsorted": lambda a: torch.searchsorted(a[0].sort()[0], a), "isin": lambda a: torch.isin(a, a[0]),
        "einsum": lambda a: torch.einsum("ij,kj->ik", a, a), "kron": lambda a: torch.kron(a, a),
        "block_diag": lambda a: torch.block_diag(a, a), "meshgrid": lambda a: torch.meshgrid(a[0], a[0], indexing="ij"),
        "gcd": lambda a: torch.gcd((a * 9).long(), a.long()), "nextafter": lambda a: torch.nextafter(a, a + 1),
        "pad_sequence": lambda a: nn.utils.rnn.pad_sequence([a[0], a[0][:3]]),
    }.items():
        function(name, f, spd)


def distributions() -> None:
    d = torch.distributions
    p = torch.randn(3, 5)
    for name, make in {
        "Normal": lambda p: d.Normal(p[0], p[1].abs()), "Bernoulli": lambda p: d.Bernoulli(p[0].sigmoid()),
        "Categorical": lambda p: d.Categorical(logits=p), "Beta": lambda p: d.Beta(p[0].abs() + 0.5, p[1].abs() + 0.5),
        "MultivariateNormal": lambda p: d.MultivariateNormal(p[0], torch.eye(5, device=p.device)),
        "Dirichlet": lambda p: d.Dirichlet(p[0].abs() + 0.5), "Poisson": lambda p: d.Poisson(p[0].abs()),
        "Multinomial": lambda p: d.Multinomial(5, logits=p[0]), "Uniform": lambda p: d.Uniform(-p[0].abs(), p[1].abs()),
        "Mixture": lambda p: d.MixtureSameFamily(d.Categorical(logits=p[0]), d.Normal(p[1], p[2].abs())),
    }.items():
        def both(p: Any, make: Any = make) -> list[Any]:
            found = make(p)
            sample = found.sample()
            return [sample, found.log_prob(sample)]
        function(name, both, p)


def main() -> None:
    simulated.install(kernels="interpreted" in sys.argv)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    modules()
    functions()
    distributions()
    for name, run in CASES.items():
        try:
            want, got = run("cpu"), [t.cpu() for t in run("cuda")]
            assert len(got) == len(want)
            for g, w in zip(got, want):
                torch.testing.assert_close(g, w, rtol=1e-3, atol=1e-4, equal_nan=True)
        except Exception:
            print(f"@@ {name}: {traceback.format_exc()}", flush=True)
    print(f"@@ end {len(CASES)}")


if __name__ == "__main__":
    main()
