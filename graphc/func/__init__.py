"""Composable transforms of functions with the names of ``torch.func``."""
from __future__ import annotations

from ._derivatives import grad, grad_and_value, jvp, linearize, value_and_grad, vjp
from ._jacobians import hessian, jacfwd, jacrev
from ._modules import functional_call, functionalize, replace_all_batch_norm_modules_, stack_module_state
from ._vmap import vmap

__all__ = ["functional_call", "functionalize", "grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp", "linearize",
           "replace_all_batch_norm_modules_", "stack_module_state", "value_and_grad", "vjp", "vmap"]
