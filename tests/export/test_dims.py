"""``dynamic_shapes`` as PyTorch writes it, and ``compiler.is_exporting``."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import compiler, nn
from graphc.errors import ArgumentError
from graphc.export import Dim, dims, export
from graphc.tensor import to_numpy


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Any, pair: Any, scale: float = 1.0) -> Any:
        a, b = pair
        return self.linear(x) * a["left"] + b * scale


graphc.manual_seed(0)
NET = Two()
ARGS = (graphc.randn(5, 4), ({"left": graphc.randn(5, 3)}, graphc.randn(3)))
N = Dim("batch", min=1, max=64)


@pytest.mark.parametrize("shapes", [
    {"x": {0: N}, "pair": ({"left": {0: N}}, None)}, ({0: N}, ({"left": {0: N}}, {})),
    {"x": {0: Dim.AUTO, 1: Dim.STATIC}, "pair": ({"left": (Dim.DYNAMIC, None)}, (None,))},
    {"x": (N, 4), "pair": ({"left": [N, 3]}, None)}])
def test_axis_0_is_dynamic(shapes: Any) -> None:
    program = export(NET, ARGS, {"scale": 2.0}, dynamic_shapes=shapes)
    for n in (5, 2, 9):
        args = (graphc.randn(n, 4), ({"left": graphc.randn(n, 3)}, graphc.randn(3)))
        got = program.module()(*args, scale=2.0)
        np.testing.assert_allclose(to_numpy(got), to_numpy(NET(*args, scale=2.0).detach()), rtol=1e-5, atol=1e-6)


def test_nothing_dynamic() -> None:
    program = export(NET, ARGS, dynamic_shapes={"x": {0: Dim.STATIC}, "pair": None})
    np.testing.assert_allclose(to_numpy(program(*ARGS)), to_numpy(NET(*ARGS).detach()), rtol=1e-5, atol=1e-6)
    with pytest.raises(Exception, match="shape|size"):
        program(graphc.randn(2, 4), ({"left": graphc.randn(2, 3)}, graphc.randn(3)))


@pytest.mark.parametrize("shapes", [
    {"x": {1: N}}, {"y": {0: N}}, {"x": {0: N}, "pair": ({"left": {0: Dim("other")}}, None)}, {"x": 3}])
def test_what_is_refused(shapes: Any) -> None:
    with pytest.raises(ArgumentError, match="dynamic_shapes"):
        export(NET, ARGS, dynamic_shapes=shapes)


def test_names_of_sizes() -> None:
    a, b = dims("rows", "columns", max=7)
    assert (a.__name__, b.name, b.max, repr(a)) == ("rows", "columns", 7, "Dim('rows')")
    with pytest.raises(ArgumentError):
        Dim("not a name")


def test_a_function_knows_that_it_is_exported() -> None:
    seen = []

    def f(x: Any) -> Any:
        seen.append((compiler.is_exporting(), compiler.is_compiling()))
        return x + 1

    f(graphc.ones(2))
    graphc.compile(f)(graphc.ones(2)).tolist()
    export(f, (graphc.ones(2),))
    f(graphc.ones(2))
    assert seen[0] == seen[-1] == (False, False) and seen[1] == (False, True) and set(seen[2:-1]) == {(True, True)}


def test_other_names_of_the_compiler() -> None:
    def f(x: Any) -> Any:
        return x

    assert compiler.nested_compile_region(f) is f and compiler.substitute_in_graph(len)(f) is f
    assert compiler.get_default_backend() in compiler.list_backends() and compiler.save_cache_artifacts() is None
    compiler.set_default_backend("inductor")
    compiler.load_cache_artifacts(b"")
    assert [n for n in compiler.__all__ if not hasattr(compiler, n)] == []
