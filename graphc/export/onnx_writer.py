"""Writing a recorded graph as an ONNX model, by the rows of ``onnx_rows.py``. Needs the package ``onnx`` (extra ``onnx``)."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import GraphcError
from ..ir.interpret import run_node
from ..ir.location import format_location
from ..ir.node import Graph, Node
from ..ir.optable import Prim
from ..ir.passes.expand import expand_composites, expand_where
from ..ir.recorder import LEAF, SCALAR, scalar_buffer
from .onnx_rows import ROWS
from .program import Program

_FOLD = 1 << 20  # elements of a constant that is computed at export time


class UnsupportedOperatorError(GraphcError, NotImplementedError):
    """An op of the program has no ONNX form; the message names it and the line that recorded it."""


def _expands(node: Node) -> bool:
    """Whether a composite has no row of its own for these operands."""
    floats = bool(node.in_avals) and node.in_avals[0].dtype.is_floating_point and node.in_avals[0].ndim > 0
    name = node.op.name  # type: ignore[union-attr]
    return name not in ROWS or not floats or name == "linear" and node.in_avals[1].ndim != 2


class Writer:
    """Collects ONNX nodes and initializers. Names are unique over the model, bodies of loops included."""

    def __init__(self, weights: dict[str, np.ndarray], one_of_many: bool = False):
        import onnx

        self.one_of_many = one_of_many  # of models at several sizes: nothing may depend on which numbers are equal

        self.onnx: Any = onnx
        self.weights = weights
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self.taken: set[str] = set(weights)
        self.known: dict[tuple[Any, ...], str] = {}  # constants by their bytes
        self.node: Node | None = None

    # ------------------------------------------------------------------------------------------------ for the rows
    def fresh(self, hint: str) -> str:
        """A name nothing has yet."""
        name, k = hint, 1
        while name in self.taken:
            name, k = f"{hint}_{k}", k + 1
        self.taken.add(name)
        return name

    def emit(self, op_type: str, inputs: Sequence[str], n_out: int = 1, **attributes: Any) -> Any:
        """Append a node; the name of its output, or the names."""
        outs = [self.fresh(f"{op_type}_{len(self.taken)}") for _ in range(n_out)]
        where = "" if self.node is None or self.node.loc is None else format_location(self.node.loc)
        self.nodes.append(self.onnx.helper.make_node(op_type, list(inputs), outs, name=outs[0], doc_string=where, **attributes))
        return outs[0] if n_out == 1 else outs

    def constant(self, array: np.ndarray) -> str:
        """The name of an initializer that holds ``array``; equal ones are shared."""
        key: tuple[Any, ...] = (array.dtype.name, array.shape, array.tobytes())
        if self.one_of_many:
            key = (*key, len(self.known))
        name = self.known.get(key)
        if name is None:
            name = self.known[key] = self.fresh(f"constant_{len(self.known)}")
            self.initializers[name] = self.tensor(array, name)
        return name

    def tensor(self, array: np.ndarray, name: str) -> Any:
        return self.onnx.helper.make_tensor(name, self.type_of(array.dtype), array.shape,
                                            np.ascontiguousarray(array).tobytes(), raw=True)

    def integers(self, values: Sequence[int]) -> str:
        return self.constant(np.asarray(values, np.int64))

    def type_of(self, dt: np.dtype) -> int:
        """ONNX's number of an element type."""
        proto = self.onnx.TensorProto
        return int(getattr(proto, {"float32": "FLOAT", "float64": "DOUBLE"}.get(dt.name, dt.name.upper())))

    def cast(self, name: str, dt: np.dtype) -> str:
        return self.emit("Cast", [name], to=self.type_of(dt))

    def reshape(self, name: str, shape: Sequence[int], have: Sequence[int] | None = None) -> str:
        """``name`` under another shape; ``have`` is its present one, if known."""
        if have is not None and tuple(have) == tuple(shape):
            return name
        return self.emit("Reshape", [name, self.integers(shape)], allowzero=int(0 in shape))

    def transpose(self, name: str, perm: Sequence[int]) -> str:
        return name if tuple(perm) == tuple(range(len(perm))) else self.emit("Transpose", [name], perm=list(perm))

    def cut(self, name: str, shape: Sequence[int], starts: Sequence[int], stops: Sequence[int], steps: Sequence[int]) -> str:
        """A normalised slice of ``name``; whole axes are left out."""
        axes = [i for i, d in enumerate(shape) if (starts[i], stops[i], steps[i]) != (0, d, 1)]
        if not axes:
            return name
        ends = [stops[i] if steps[i] > 0 or stops[i] >= 0 else -(1 << 62) for i in axes]
        return self.emit("Slice", [name, self.integers([starts[i] for i in axes]), self.integers(ends), self.integers(axes),
                                   self.integers([steps[i] for i in axes])])

    def refuse(self, node: Node, why: str) -> None:
        """Raise for a node that ONNX can't say."""
        raise UnsupportedOperatorError(f"ONNX export: op '{node.op.name}' recorded at {format_location(node.loc)} can't be "  # type: ignore[union-attr]
                                       f"exported: {why}")

    def info(self, name: str, av: Any, inner: bool = False) -> Any:
        """Name, dtype and shape of a value; in the body of a loop the shape is left open in a model of many sizes."""
        shape = None if inner and self.one_of_many else list(av.shape)
        return self.onnx.helper.make_tensor_value_info(name, self.type_of(av.dtype.np), shape)

    # --------------------------------------------------------------------------------------------------- whole graphs
    def write(self, graph: Graph, inputs: dict[int, str], numbers: dict[int, np.ndarray]) -> list[str]:
        """Write ``graph`` given the names of its leaves and the values of its numbers; the names of its outputs."""
        names: dict[int, str] = dict(inputs)
        fixed: dict[int, np.ndarray] = dict(numbers)
        for node in graph.nodes:
            if node.op is LEAF or node.op is SCALAR:
                continue
            self.node = node
            if not self._folded(node, fixed):
                outs = self._row(node, [self._name(s, names, fixed) for s in node.ins])
                names.update({node.slot + k: name for k, name in enumerate(outs)})
        return [self._name(s, names, fixed) for s in graph.outputs]

    def _name(self, slot: int, names: dict[int, str], fixed: dict[int, np.ndarray]) -> str:
        if slot not in names:
            names[slot] = self.constant(fixed[slot])
        return names[slot]

    def _folded(self, node: Node, fixed: dict[int, np.ndarray]) -> bool:
        """Compute a node of constants at once, but for broadcasting, which would only make them large."""
        if not isinstance(node.op, Prim) or node.op.kind in ("random", "control") or node.op.name == "expand":
            return False
        if any(s not in fixed for s in node.ins) or sum(a.size for a in node.avals) > _FOLD:
            return False
        with np.errstate(all="ignore"):
            fixed.update(enumerate(run_node(node, [fixed[s] for s in node.ins]), node.slot))
        return True

    def _row(self, node: Node, ins: list[str]) -> list[str]:
        assert node.op is not None
        if any(a.dtype.is_complex for a in (*node.avals, *node.in_avals)):
            self.refuse(node, "complex numbers")
        fn = ROWS.get(node.op.name)
        if fn is None:
            self.refuse(node, "random numbers; export in eval() mode" if node.op.kind == "random" else
                        "it has no ONNX form here (graphc.export.onnx_rows lists the ops that have)")
        out = fn(self, node, ins)  # type: ignore[misc]
        return [out] if isinstance(out, str) else list(out)

    def subgraph(self, body: Graph, n_carry: int, n_xs: int, consts: list[str]) -> Any:
        """A loop's body as an ONNX graph of (carries, xs); ``consts`` are names outside."""
        graph = expand_composites(body)
        outer, self.nodes, at = self.nodes, [], self.node
        names: dict[int, str] = {}
        given = []
        for i, leaf in enumerate(graph.inputs):
            if i < n_carry + n_xs:
                names[leaf.slot] = self.fresh(f"step_{len(self.taken)}")
                given.append(self.info(names[leaf.slot], leaf.avals[0], True))
            else:
                names[leaf.slot] = consts[i - n_carry - n_xs]
        if not n_xs:
            given.append(self.onnx.helper.make_tensor_value_info(self.fresh("count"), self.onnx.TensorProto.INT64, []))
        outs = [self.emit("Identity", [name]) for name in self.write(graph, names, {})]
        avals = graph.slot_avals()
        made = self.onnx.helper.make_graph(self.nodes, self.fresh("body"), given,
                                           [self.info(o, avals[s], True) for o, s in zip(outs, graph.outputs)])
        self.nodes, self.node = outer, at
        return made


def to_model(program: Program, input_names: Sequence[str] | None, output_names: Sequence[str] | None, opset: int, *,
             one_of_many: bool = False) -> Any:
    """The ONNX ModelProto of a program. Unnamed inputs and outputs are ``input_i`` and ``output_i``."""
    graph = expand_where(program.graph, _expands)
    w = Writer(program.weights, one_of_many)
    avals = graph.slot_avals()
    n_in, n_out = len(program.in_avals), program.n_results
    ins = _names("input", input_names, n_in, w)
    outs = _names("output", output_names, n_out, w)
    names: dict[int, str] = {}
    numbers: dict[int, np.ndarray] = {}
    for node, (kind, what) in zip(graph.inputs, program.sources):
        if kind == "number":
            numbers[node.slot] = scalar_buffer(what, node.avals[0].dtype)
        else:
            names[node.slot] = ins[what] if kind == "input" else what
    made = w.write(graph, names, numbers)
    w.node = None
    for name, out in zip(made, outs):
        w.nodes.append(w.onnx.helper.make_node("Identity", [name], [out], name=out))
    used = {i for n in w.nodes for i in _reads(n)}
    initializers = [w.tensor(a, k) for k, a in program.weights.items() if k in used] + \
        [t for k, t in w.initializers.items() if k in used]
    body = w.onnx.helper.make_graph(w.nodes, "graphc", [w.info(k, a) for k, a in zip(ins, program.in_avals)],
                                    [w.info(k, avals[s]) for k, s in zip(outs, graph.outputs)], initializers)
    return w.onnx.helper.make_model(body, producer_name="graphc", ir_version=10,
                                    opset_imports=[w.onnx.helper.make_opsetid("", opset)])


def _reads(node: Any) -> list[str]:
    """Names a node reads, those in the bodies of its loops included."""
    out, todo = [], [node]
    while todo:
        n = todo.pop()
        out += list(n.input)
        todo += [m for a in n.attribute if a.HasField("g") for m in a.g.node]
        out += [o.name for a in n.attribute if a.HasField("g") for o in a.g.output]
    return out


def _names(hint: str, given: Sequence[str] | None, count: int, w: Writer) -> list[str]:
    if given is not None and len(given) > count:
        raise RuntimeError(f"number of {hint} names provided ({len(given)}) exceeded number of {hint}s ({count})")
    out = []
    for i in range(count):
        if given is not None and i < len(given):
            if given[i] in w.taken:
                raise RuntimeError(f"the {hint} name {given[i]!r} is taken")
            w.taken.add(given[i])
            out.append(str(given[i]))
        else:
            out.append(w.fresh(f"{hint}_{i}"))
    return out
