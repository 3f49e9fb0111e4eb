"""Composable transforms of functions with the names of ``torch.func``."""
from __future__ import annotations

from ._derivatives import grad, grad_and_value, jvp, linearize, value_and_grad, vjp
from ._modules import functional_call, stack_module_state
from ._vmap import vmap

__all__ = ["functional_call", "grad", "grad_and_value", "jvp", "linearize", "stack_module_state", "value_and_grad", "vjp",
           "vmap"]
