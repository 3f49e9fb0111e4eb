"""``torch.torch_version``: the version as text that compares like a version."""
from __future__ import annotations

import re
from typing import Any

from .version import __version__ as _text


def _parts(text: Any) -> tuple[int, ...]:
    numbers = text if isinstance(text, (tuple, list)) else re.findall(r"\d+", str(text).split("+")[0])
    return tuple(int(n) for n in numbers)


class TorchVersion(str):
    """A string; comparisons with strings and tuples go by release numbers."""

    def _compare(self, other: Any) -> int:
        a, b = _parts(self), _parts(other)
        n = max(len(a), len(b))
        a, b = a + (0,) * (n - len(a)), b + (0,) * (n - len(b))
        return (a > b) - (a < b)

    def __lt__(self, other: Any) -> bool:
        return self._compare(other) < 0

    def __le__(self, other: Any) -> bool:
        return self._compare(other) <= 0

    def __gt__(self, other: Any) -> bool:
        return self._compare(other) > 0

    def __ge__(self, other: Any) -> bool:
        return self._compare(other) >= 0

    def __eq__(self, other: object) -> bool:
        return self._compare(other) == 0

    def __hash__(self) -> int:
        return str.__hash__(self)


__version__ = TorchVersion(_text)
__all__ = ["TorchVersion"]
