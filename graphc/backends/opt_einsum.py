"""``torch.backends.opt_einsum``: accepted switches; the order of products is graphc's choice."""
from __future__ import annotations

enabled = False
strategy = None


def is_available() -> bool:
    """Whether the package opt_einsum is used: no."""
    return False
