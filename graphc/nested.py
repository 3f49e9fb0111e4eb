"""``torch.nested``: batches of different lengths are padded here."""
from __future__ import annotations

from ._absent import absent_function

_INSTEAD = "use nn.utils.rnn.pad_sequence and a mask"

nested_tensor, as_nested_tensor, nested_tensor_from_jagged, to_padded_tensor = [
    absent_function(f"nested.{n}", _INSTEAD)
    for n in ("nested_tensor", "as_nested_tensor", "nested_tensor_from_jagged", "to_padded_tensor")]

__all__ = ["as_nested_tensor", "nested_tensor", "nested_tensor_from_jagged", "to_padded_tensor"]
