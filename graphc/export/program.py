"""An exported program as data, and its checks. Needs only the graph IR."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..dtypes import dtype
from ..ir.dump import to_text
from ..ir.node import Aval, Graph

# Where an input of the graph comes from: ("input", i), ("weight", name), ("number", x), or ("rate", (formula, lr, beta1,
# beta2, t)): a number that an Adam optimizer computes from its step count t, which is one more at every call.
Source = tuple[str, Any]
RATES: dict[str, Callable[[float, float, float, float], float]] = {
    "adam lr": lambda lr, b1, b2, t: lr / (1 - b1 ** t),
    "bias 2": lambda lr, b1, b2, t: (1 - b2 ** t) ** 0.5,
}


@dataclass
class Program:
    """A graph of primitives with what its inputs are bound to. The graph's outputs are the results, then the new values of
    the weights ``states`` (names), which replace the old ones at the end of a call."""

    graph: Graph
    in_avals: list[Aval]  # of the flat arguments
    sources: list[Source]  # one per input of the graph
    weights: dict[str, np.ndarray]
    states: list[str]
    in_spec: Any  # see structure.py: [positional, keyword]
    out_spec: Any
    n_results: int
    sizes: dict[int, Graph] = field(default_factory=dict)  # dynamic batch: two graphs at two sizes
    batch: list[int] = field(default_factory=list)  # arguments whose axis 0 is the batch

    @property
    def text(self) -> str:
        """The graph as text, one node a line."""
        return to_text(self.graph)


def aval_of(array: np.ndarray) -> tuple[tuple[int, ...], dtype]:
    """Shape and graphc dtype of an array. TypeError for a dtype graphc has not."""
    from ..dtypes import from_numpy

    return array.shape, from_numpy(array.dtype)
