"""Softmax over many classes of very different frequency (Grave et al. 2017)."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .. import ops
from ..tensor import Tensor
from . import functional as F
from .container import ModuleList, Sequential
from .linear import Linear
from .module import Module

__all__ = ["AdaptiveLogSoftmaxWithLoss"]


class _ASMoutput(NamedTuple):
    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """Log probability of the target, and the mean loss; classes are sorted by frequency, cut at ``cutoffs``.

    The head scores the classes below the first cutoff and one entry per further cluster; each cluster has a smaller
    projection of its own. Input ``(N, in_features)``, target ``(N,)``, or both without N.

    Raises:
        ValueError: cutoffs that are not unique, increasing, and between 1 and ``n_classes - 1``.
        RuntimeError: shapes that do not fit, or targets out of range.
    """

    head: Linear
    tail: ModuleList

    def __init__(self, in_features: int, n_classes: int, cutoffs: Sequence[int], div_value: float = 4.0,
                 head_bias: bool = False, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        cuts = list(cutoffs)
        if not cuts:
            raise ValueError("cutoffs should be a sequence of length larger than 0")
        if (cuts != sorted(set(cuts)) or cuts[0] <= 0 or cuts[-1] > n_classes - 1
                or any(int(c) != c for c in cuts)):
            raise ValueError("cutoffs should be a sequence of unique, positive integers sorted in an increasing order, "
                             "where each value is between 1 and n_classes-1")
        self.in_features = in_features
        self.n_classes = n_classes
        self.cutoffs = [*cuts, n_classes]
        self.div_value = div_value
        self.head_bias = head_bias
        self.shortlist_size = self.cutoffs[0]
        self.n_clusters = len(self.cutoffs) - 1
        self.head_size = self.shortlist_size + self.n_clusters
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        self.head = Linear(in_features, self.head_size, bias=head_bias, **where)
        self.tail = ModuleList()
        for i in range(self.n_clusters):
            hidden = int(in_features // (div_value ** (i + 1)))
            size = self.cutoffs[i + 1] - self.cutoffs[i]
            self.tail.append(Sequential(Linear(in_features, hidden, bias=False, **where),
                                        Linear(hidden, size, bias=False, **where)))

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        for layer in (self.head, *(layer for pair in self.tail for layer in pair)):
            layer.reset_parameters()

    def forward(self, input_: Tensor, target_: Tensor) -> _ASMoutput:
        self._check(input_, target_)
        batched = target_.dim() == 1
        input = input_ if batched else input_.unsqueeze(0)
        target = target_ if batched else target_.unsqueeze(0)
        # Every row goes through every cluster and the right entry is kept: more arithmetic than picking rows, but no
        # shape depends on values, so one program serves all batches.
        head = F.log_softmax(self.head(input), dim=1)
        shortlist = target.clamp(max=self.shortlist_size - 1).unsqueeze(1)
        output = head.gather(1, shortlist).squeeze(1)
        for i, cluster in enumerate(self.tail):
            low, high = self.cutoffs[i], self.cutoffs[i + 1]
            inside = target.clamp(low, high - 1).sub(low).unsqueeze(1)
            local = F.log_softmax(cluster(input), dim=1).gather(1, inside).squeeze(1)
            output = ops.where((target >= low) & (target < high), local + head[:, self.shortlist_size + i], output)
        loss = (-output).mean()
        return _ASMoutput(output if batched else output.squeeze(0), loss)

    def _check(self, input: Tensor, target: Tensor) -> None:
        if target.dim() > 1:
            raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
        if input.dim() != target.dim() + 1:
            raise RuntimeError(f"{target.dim()}D target tensor expects {target.dim() + 1}D input tensors, but found "
                               f"inputs with size {input.shape}")
        if target.dim() == 1 and input.shape[0] != target.shape[0]:
            raise RuntimeError("Input and target should have the same size in the batch dimension.")
        if bool(((target < 0) | (target >= self.n_classes)).any()):
            raise RuntimeError(f"Target values should be in [0, {self.n_classes - 1}], but values in range "
                               f"[{target.min().item()}, {target.max().item()}] were found. ")

    def log_prob(self, input: Tensor) -> Tensor:
        """Log probabilities of all classes, ``(N, n_classes)``."""
        head = F.log_softmax(self.head(input), dim=1)
        parts = [head[:, : self.shortlist_size]]
        for i, cluster in enumerate(self.tail):
            at = self.shortlist_size + i
            parts.append(F.log_softmax(cluster(input), dim=1) + head[:, at: at + 1])
        return ops.cat(parts, dim=1)

    def predict(self, input: Tensor) -> Tensor:
        """The most probable class of each row; as in PyTorch, the shortlist wins where the head's best is in it."""
        head = self.head(input)
        best = head.argmax(dim=1)
        return ops.where(best < self.shortlist_size, best, self.log_prob(input).argmax(dim=1))
