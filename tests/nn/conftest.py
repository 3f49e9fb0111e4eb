"""Seeds for every test: both libraries draw initial weights."""
from __future__ import annotations

import pytest

import graphc


@pytest.fixture(autouse=True)
def _seeded():
    graphc.manual_seed(1234)
    try:
        import torch
    except ImportError:
        return
    torch.manual_seed(1234)
