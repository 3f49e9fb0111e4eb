"""``torch.onnx``: programs are not exported."""
from __future__ import annotations

from ._absent import absent_function

_INSTEAD = 'save the weights with graphc.save(model.state_dict(), path, format="torch") and export from PyTorch'

export = absent_function("onnx.export", _INSTEAD)
dynamo_export = absent_function("onnx.dynamo_export", _INSTEAD)


def is_in_onnx_export() -> bool:
    """Whether an export is running: never."""
    return False


__all__ = ["dynamo_export", "export", "is_in_onnx_export"]
