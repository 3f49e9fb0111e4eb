"""``torch.onnx``: export of inference programs to ONNX files (needs the package ``onnx``: ``pip install 'graphc[onnx]'``)."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ._absent import absent_function
from .errors import ArgumentError

MIN_OPSET, MAX_OPSET = 18, 20  # the operators of export/onnx_rows.py mean the same in these
dynamo_export = absent_function("onnx.dynamo_export", "use graphc.onnx.export(model, args, path)")


class _Exporting:
    """Whether an export runs in this process."""

    now = False


def is_in_onnx_export() -> bool:
    """Whether an export is running."""
    return _Exporting.now


def export(model: Any, args: Any = (), f: Any = None, *, kwargs: Mapping[str, Any] | None = None, export_params: bool = True,
           verbose: bool | None = None, input_names: Sequence[str] | None = None, output_names: Sequence[str] | None = None,
           opset_version: int | None = None, dynamic_axes: Any = None, dynamic_shapes: Any = None, dynamo: bool = False,
           training: Any = None, do_constant_folding: bool = True, keep_initializers_as_inputs: bool = False) -> None:
    """Record ``model(*args, **kwargs)`` and write it to ``f``, a path (atomically) or a binary file object, as ONNX.

    ``args``: example tensors or arrays; a single one needs no tuple. Shapes are those of the examples, but for axis 0 of the
    inputs in ``dynamic_axes`` (``{"x": {0: "batch"}}`` or ``{"x": [0]}``, by input name; outputs follow): it may have any size
    when the program depends on it by shapes only. ``opset_version``: 18 (default) to 20. Names of weights are the module's.
    The model is exported as it is: call ``eval()`` first.

    Raises:
        ImportError: the package ``onnx`` is not there.
        UnsupportedOperatorError: (a NotImplementedError) an op has no ONNX form; names it and the line that recorded it.
        ArgumentError: dynamic axes other than axis 0 of inputs, an opset outside 18 to 20, or a function that writes tensors
            (``train()`` mode).
        GraphcError: the program depends on a dynamic size as a number, or two calls of it differ.
        NotImplementedError: no ``f``.
    """
    if f is None:
        raise NotImplementedError("onnx.export without a file is not there: give a path or a file object as `f` to export to")
    if dynamic_shapes:
        raise ArgumentError("onnx.export: dynamic_shapes is not supported; use dynamic_axes={'x': {0: 'batch'}}")
    opset = MIN_OPSET if opset_version is None else int(opset_version)
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise ArgumentError(f"onnx.export: opset_version {opset} is not supported, use {MIN_OPSET} to {MAX_OPSET}")
    if not export_params or keep_initializers_as_inputs:
        raise ArgumentError("onnx.export: weights are always stored as initializers")
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise ImportError("ONNX export needs the package onnx: pip install 'graphc[onnx]'") from None
    from .export.onnx_dynamic import to_dynamic_model
    from .export.onnx_writer import to_model
    from .export.record import record
    from .serialization.atomic import write_chunks

    _Exporting.now = True
    try:
        given, named = args if isinstance(args, (tuple, list)) else (args,), dict(kwargs or {})
        program = record(model, given, named, optimise=False)
        if dynamic_axes and not program.states:
            proto = to_dynamic_model(program, model, given, named, input_names, output_names, opset, dynamic_axes)
    finally:
        _Exporting.now = False
    if program.states:
        raise ArgumentError(f"onnx.export: the program writes {', '.join(program.states[:3])}; ONNX programs have no state: "
                            "call model.eval() first")
    if not dynamic_axes:
        proto = to_model(program, input_names, output_names, opset)
    if verbose:
        print(program.text)
    if proto.ByteSize() >= 1 << 31:
        raise ArgumentError("onnx.export: models of 2 GB and more do not fit into one ONNX file")
    write_chunks(f, [proto.SerializeToString()])


def __getattr__(name: str) -> Any:
    if name == "UnsupportedOperatorError":
        from .export.onnx_writer import UnsupportedOperatorError

        return UnsupportedOperatorError
    raise AttributeError(f"module 'graphc.onnx' has no attribute {name!r}")


__all__ = ["dynamo_export", "export", "is_in_onnx_export"]
