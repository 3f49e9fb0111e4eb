"""Connectionist temporal classification (Graves et al. 2006)."""
from __future__ import annotations

import math
from typing import Any

from ..dtypes import int64
from ..errors import ShapeError
from ..ir import build as P
from ..ir.composites._common import wide
from ..ir.node import Value
from ..ir.optable import OPS
from ..ir.prims.control import scan
from ..ir.recorder import apply, state
from ..ir.tape import alias_value
from ..tensor import Tensor, wrap
from ._common import val
from ._reduction import finish, reduction_name

_IMPOSSIBLE = -1e30  # log-probability of what cannot happen; finite, so that no gradient becomes NaN


def _lengths(x: Any, batch: int, name: str) -> Value:
    """Lengths as an int64 vector: from a tensor, a sequence or one number."""
    if not isinstance(x, Tensor):
        from .creation import tensor

        x = tensor([int(v) for v in x] if isinstance(x, (tuple, list)) else [int(x)])
    v = P.cast(val(x, name), int64)
    if v.aval.size != batch:
        raise ShapeError(f"{name} must be of size batch_size {batch}, got {v.aval.size}")
    return P.reshape(v, (batch,))


def _padded(targets: Value, lengths: Value, batch: int) -> Value:
    """Targets as (N, S). Concatenated ones are cut by ``lengths``, whose values are read."""
    if targets.aval.ndim == 2:
        if targets.aval.shape[0] != batch:
            raise ShapeError(f"targets must have batch_size {batch} rows, got shape {targets.aval.shape}")
        return targets
    if batch == 1:
        return P.reshape(targets, (1, targets.aval.size))
    host = wrap(lengths).tolist()
    if sum(host) != targets.aval.size:
        raise ShapeError(f"concatenated targets must hold sum(target_lengths) = {sum(host)} labels, got "
                         f"{targets.aval.size}")
    longest = max(host, default=0)
    padded = P.pad(targets, (0,), (longest,))
    ends = P.scan("add", lengths, 0)
    at = P.add(P.unsqueeze(P.sub(ends, lengths), 1), P.reshape(P.iota(longest, int64, lengths.aval.device), (1, longest)))
    return P.take(padded, at, 0)


def _step(alpha: Value, emitted: Value, t: Value, skip: Value, lengths: Value) -> tuple[Value, ...]:
    """alpha'(s) = logsumexp(alpha(s), alpha(s-1), alpha(s-2) where allowed) + emitted(s), until the sample's end."""
    def shifted(n: int) -> Value:
        kept = P.narrow(alpha, 1, 0, alpha.aval.shape[1] - n)
        return P.pad(kept, (0, n), (0, 0), _IMPOSSIBLE)

    two = shifted(2) if alpha.aval.shape[1] > 1 else P.full_like(alpha, _IMPOSSIBLE)
    two = P.where(skip, two, P.full_like(alpha, _IMPOSSIBLE))
    paths = P.concat(tuple(P.unsqueeze(p, 0) for p in (alpha, shifted(1), two)), 0)
    new = P.add(apply(OPS["logsumexp"], (paths,), ((0,), False)), emitted)
    return (P.where(P.unsqueeze(P.lt(t, lengths), 1), new, alpha),)


def _forward(logp: Value, targets: Value, in_len: Value, out_len: Value, blank: int) -> Value:
    """Negative log likelihood (N,) of padded targets (N, S) under wide log-probabilities (T, N, C)."""
    steps, batch, _ = logp.aval.shape
    size = targets.aval.shape[1]
    full = 2 * size + 1
    blanks = P.full((batch, size), blank, int64, logp.aval.device)
    pairs = P.concat((P.unsqueeze(blanks, 2), P.unsqueeze(targets, 2)), 2)
    labels = P.concat((P.reshape(pairs, (batch, 2 * size)), P.full((batch, 1), blank, int64, logp.aval.device)), 1)
    position = P.iota_like(labels, 1, int64)
    inside = P.le(position, P.mul(P.unsqueeze(out_len, 1), 2))
    labels = P.where(inside, labels, P.full_like(labels, blank))  # padding may hold anything
    before = P.pad(P.narrow(labels, 1, 0, max(full - 2, 0)), (0, min(2, full)), (0, 0), blank)
    skip = P.bit_and(P.ne(labels, blank), P.ne(labels, before))
    emitted = P.gather(logp, P.expand(P.unsqueeze(labels, 0), (steps, batch, full)), 2)
    first = P.reshape(P.narrow(emitted, 0, 0, 1), (batch, full))
    can_start = P.bit_and(P.lt(position, 2), inside)
    alpha = P.where(can_start, first, P.full_like(first, _IMPOSSIBLE))
    if steps > 1:
        rest = P.narrow(emitted, 0, 1, steps - 1)
        clock = P.add(P.iota(steps - 1, int64, logp.aval.device), 1)
        alpha = scan("ctc", _step, (alpha,), (rest, clock), (skip, in_len))[0]
    last = P.mul(P.unsqueeze(out_len, 1), 2)
    is_end = P.bit_or(P.eq(position, last), P.eq(position, P.sub(last, 1)))
    ends = P.where(is_end, alpha, P.full_like(alpha, _IMPOSSIBLE))
    return P.neg(apply(OPS["logsumexp"], (ends,), ((1,), False)))


def _pytorch_gradient(nll: Value, logp: Value, in_len: Value) -> Value:
    """``nll``, its gradient for ``logp`` increased by exp(logp), as in PyTorch, whose rule assumes probabilities that sum
    to one; log_softmax's own gradient cancels the term."""
    if logp.gfn is None or not state.grad:
        return nll
    steps = P.reshape(P.iota(logp.aval.shape[0], int64, logp.aval.device), (logp.aval.shape[0], 1, 1))
    inside = P.lt(steps, P.reshape(in_len, (1, in_len.aval.size, 1)))
    mass = P.sum(P.where(inside, P.exp(logp), P.zeros_like(logp)), (0, 2))
    return P.add(nll, P.sub(mass, alias_value(mass)))  # adds zero


def ctc_loss(log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any, blank: int = 0,
             reduction: str = "mean", zero_infinity: bool = False) -> Tensor:
    """CTC loss of log-probabilities (T, N, C) or (T, C); targets (N, S), concatenated (sum of lengths,), or (S,).

    ``mean`` divides each loss by its target's length first. A target that cannot be emitted gives infinity, or 0 with
    ``zero_infinity``. RuntimeError for shapes that do not fit and a ``blank`` that is no class."""
    reduction = reduction_name(None, None, reduction)
    x = val(log_probs)
    single = x.aval.ndim == 2
    if single:
        x = P.unsqueeze(x, 1)
    if x.aval.ndim != 3:
        raise ShapeError(f"ctc_loss: log_probs must be (T, N, C) or (T, C), got shape {x.aval.shape}")
    steps, batch, classes = x.aval.shape
    if not 0 <= blank < classes:
        raise ShapeError(f"blank must be in label range 0..{classes - 1}, got {blank}")
    if not steps:
        raise ShapeError("ctc_loss: log_probs must have at least one time step")
    in_len, out_len = _lengths(input_lengths, batch, "input_lengths"), _lengths(target_lengths, batch, "target_lengths")
    t = _padded(P.cast(val(targets, "targets"), int64), out_len, batch)
    logp = wide(x)
    nll = _pytorch_gradient(_forward(logp, t, in_len, out_len, blank), logp, in_len)
    lost = P.gt(nll, -_IMPOSSIBLE / 2)
    nll = P.where(lost, P.full_like(nll, 0.0 if zero_infinity else math.inf), nll)
    if reduction == "mean":
        nll = P.div(nll, P.cast(P.maximum(out_len, 1), nll.aval.dtype))
    return finish(P.cast(P.reshape(nll, ()) if single else nll, x.aval.dtype), reduction)
