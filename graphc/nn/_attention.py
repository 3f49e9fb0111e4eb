"""``multi_head_attention_forward``: projections, masks and heads around scaled dot-product attention."""
from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

from .. import ops
from ..dtypes import bool_
from ..ops.activation import softmax
from ..ops.attention import scaled_dot_product_attention
from ..ops.matmul import linear
from ..ops.random import dropout
from ..ops.rearrange import pad
from ..tensor import Tensor


def _none_or_dtype(input: Tensor | None) -> Any:
    return None if input is None else input.dtype


def _canonical_mask(mask: Tensor | None, mask_name: str, other_type: Any, other_name: str, target_type: Any,
                    check_other: bool = True) -> Tensor | None:
    """``mask`` as something to add to scores: a boolean one becomes 0 and -inf."""
    if mask is None:
        return None
    is_bool = mask.dtype == bool_
    if not is_bool and not mask.is_floating_point():
        raise AssertionError(f"only bool and floating types of {mask_name} are supported")
    if check_other and other_type is not None and mask.dtype != other_type:
        warnings.warn(f"Support for mismatched {mask_name} and {other_name} is deprecated. Use same type for both "
                      "instead.", stacklevel=3)
    if not is_bool:
        return mask
    return ops.zeros_like(mask, dtype=target_type).masked_fill(mask, float("-inf"))


def _mha_shape_check(query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None,
                     attn_mask: Tensor | None, num_heads: int) -> bool:
    """Whether the inputs have a batch dimension; ``AssertionError`` where ranks do not fit together."""
    if query.dim() not in (2, 3):
        raise AssertionError("query should be unbatched 2D or batched 3D tensor but received "
                             f"{query.dim()}-D query tensor")
    batched = query.dim() == 3
    want, word = (3, "batched (3-D)") if batched else (2, "unbatched (2-D)")
    if key.dim() != want or value.dim() != want:
        raise AssertionError(f"For {word} `query`, expected `key` and `value` to be {want}-D but found {key.dim()}-D "
                             f"and {value.dim()}-D tensors respectively")
    if key_padding_mask is not None and key_padding_mask.dim() != want - 1:
        raise AssertionError(f"For {word} `query`, expected `key_padding_mask` to be `None` or {want - 1}-D but found "
                             f"{key_padding_mask.dim()}-D tensor instead")
    if attn_mask is not None:
        if attn_mask.dim() not in (2, 3):
            raise AssertionError(f"For {word} `query`, expected `attn_mask` to be `None`, 2-D or 3-D but found "
                                 f"{attn_mask.dim()}-D tensor instead")
        if not batched and attn_mask.dim() == 3:
            expected = (num_heads, query.shape[0], key.shape[0])
            if tuple(attn_mask.shape) != expected:
                raise AssertionError(f"Expected `attn_mask` shape to be {expected} but got {tuple(attn_mask.shape)}")
    return batched


def _project_packed(q: Tensor, k: Tensor, v: Tensor, w: Tensor | None,
                    b: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value by one weight ``(3E, E)``: one product for self-attention, two when key is value."""
    if w is None:
        raise AssertionError("use_separate_proj_weight is False but in_proj_weight is None")
    if k is v and q is k:
        proj = linear(q, w, b)
        return proj.chunk(3, dim=-1)
    width = q.shape[-1]
    if k is v:
        w_q, w_kv = w.split([width, 2 * width])
        b_q, b_kv = (None, None) if b is None else b.split([width, 2 * width])
        return (linear(q, w_q, b_q), *linear(k, w_kv, b_kv).chunk(2, dim=-1))
    w_q, w_k, w_v = w.chunk(3)
    b_q, b_k, b_v = (None,) * 3 if b is None else b.chunk(3)
    return linear(q, w_q, b_q), linear(k, w_k, b_k), linear(v, w_v, b_v)


def _spread_attn_mask(mask: Tensor, length: int, source: int, batch: int, heads: int) -> Tensor:
    """``mask`` as ``(N or 1, heads or 1, L, S)``; ``RuntimeError`` for a wrong shape."""
    if mask.dim() == 2:
        if tuple(mask.shape) != (length, source):
            raise RuntimeError(f"The shape of the 2D attn_mask is {mask.shape}, but should be {(length, source)}.")
        return mask.view(1, 1, length, source)
    if mask.dim() == 3:
        expected = (batch * heads, length, source)
        if tuple(mask.shape) != expected:
            raise RuntimeError(f"The shape of the 3D attn_mask is {mask.shape}, but should be {expected}.")
        return mask.reshape(batch, heads, length, source)
    raise RuntimeError(f"attn_mask's dimension {mask.dim()} is not supported")


def _padded(mask: Tensor | None) -> Tensor | None:
    """``mask`` with one more, allowed, source position."""
    return None if mask is None else pad(mask, (0, 1))


def _heads(x: Tensor, static: Tensor | None, name: str, rows: int, head_dim: int) -> Tensor:
    """``(T, N, E)`` as ``(N * heads, T, head_dim)``, or the given static tensor, checked."""
    if static is None:
        return x.reshape(x.shape[0], rows, head_dim).transpose(0, 1)
    if static.shape[0] != rows:
        raise AssertionError(f"expecting {name}.size(0) of {rows}, but got {static.shape[0]}")
    if static.shape[2] != head_dim:
        raise AssertionError(f"expecting {name}.size(2) of {head_dim}, but got {static.shape[2]}")
    return static


def _merge_padding(attn_mask: Tensor | None, padding: Tensor | None, batch: int, source: int) -> Tensor | None:
    """Attention mask plus padding mask ``(N, S)``; broadcasts, so that no mask is written out per head."""
    if padding is None:
        return attn_mask
    if padding.shape[0] != batch:
        raise AssertionError(f"Expected key_padded_mask.shape[0] to be {batch}, but got {padding.shape[0]}")
    if padding.shape[1] != source:
        raise AssertionError(f"Expected key_padded_mask.shape[1] to be {source}, but got {padding.shape[1]}")
    spread = padding.view(batch, 1, 1, source)
    return spread if attn_mask is None else attn_mask + spread


def _attend_with_weights(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, batch: int, dropout_p: float,
                         is_causal: bool) -> tuple[Tensor, Tensor]:
    """Attention of ``(N * heads, T, head_dim)``; returns ``(L, N, E)`` and the weights ``(N, heads, L, S)``."""
    rows, length, head_dim = q.shape
    scores = ops.bmm(q * math.sqrt(1.0 / head_dim), k.transpose(-2, -1)).view(batch, rows // batch, length, -1)
    weights = softmax(scores if mask is None else scores + mask, dim=-1)
    if dropout_p > 0.0:
        weights = dropout(weights, p=dropout_p)
    out = ops.bmm(weights.view(rows, length, -1), v)
    return out.transpose(0, 1).reshape(length, batch, -1), weights


def _attend_fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, batch: int, dropout_p: float,
                  is_causal: bool) -> tuple[Tensor, None]:
    """The same by ``scaled_dot_product_attention``, without the weights."""
    rows, length, head_dim = q.shape
    q, k, v = (t.view(batch, rows // batch, t.shape[1], head_dim) for t in (q, k, v))
    out = scaled_dot_product_attention(q, k, v, mask, dropout_p, is_causal)
    return out.permute(2, 0, 1, 3).reshape(length, batch, -1), None


def _map_kept(fn: Callable[[Tensor], Tensor], query: Tensor, key: Tensor,
              value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``fn`` of all three, the same object where they are the same: self-attention projects them in one product."""
    new_query = fn(query)
    new_key = new_query if key is query else fn(key)
    return new_query, new_key, new_key if value is key else fn(value)


def multi_head_attention_forward(
        query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int,
        in_proj_weight: Tensor | None, in_proj_bias: Tensor | None, bias_k: Tensor | None, bias_v: Tensor | None,
        add_zero_attn: bool, dropout_p: float, out_proj_weight: Tensor, out_proj_bias: Tensor | None,
        training: bool = True, key_padding_mask: Tensor | None = None, need_weights: bool = True,
        attn_mask: Tensor | None = None, use_separate_proj_weight: bool = False,
        q_proj_weight: Tensor | None = None, k_proj_weight: Tensor | None = None,
        v_proj_weight: Tensor | None = None, static_k: Tensor | None = None, static_v: Tensor | None = None,
        average_attn_weights: bool = True, is_causal: bool = False) -> tuple[Tensor, Tensor | None]:
    """Multi-head attention with all tensors given: query ``(L, N, E)``, key and value ``(S, N, E_k)``, ``(S, N, E_v)``.

    Returns the output ``(L, N, E)`` and the weights (see :class:`MultiheadAttention`); without batch, without N.

    Raises:
        AssertionError: ranks, embedding size or static tensors do not fit.
        RuntimeError: an attention mask of the wrong shape, or ``is_causal`` without a mask.
    """
    batched = _mha_shape_check(query, key, value, key_padding_mask, attn_mask, num_heads)
    if not batched:
        query, key, value = _map_kept(lambda t: t.unsqueeze(1), query, key, value)
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    length, batch, embed_dim = query.shape
    _check_sizes(embed_dim, embed_dim_to_check, num_heads, key, value, use_separate_proj_weight)
    if is_causal and attn_mask is None:
        raise RuntimeError("Need attn_mask if specifying the is_causal hint. You may use the Transformer module method "
                           "`generate_square_subsequent_mask` to create this mask.")
    padding = _canonical_mask(key_padding_mask, "key_padding_mask", _none_or_dtype(attn_mask), "attn_mask",
                              query.dtype)
    # The hint replaces the mask only where attention itself can be told; weights and padding need it spelled out.
    is_causal = is_causal and padding is None and not need_weights and bias_k is None and not add_zero_attn
    mask = None if is_causal else _canonical_mask(attn_mask, "attn_mask", None, "", query.dtype, False)
    if mask is not None:
        mask = _spread_attn_mask(mask, length, key.shape[0], batch, num_heads)
    if use_separate_proj_weight:
        weights = (q_proj_weight, k_proj_weight, v_proj_weight)
        q, k, v = _project_separate(query, key, value, weights, in_proj_bias)
    else:
        q, k, v = _project_packed(query, key, value, in_proj_weight, in_proj_bias)
    if bias_k is not None and bias_v is not None:
        if static_k is not None or static_v is not None:
            raise AssertionError(f"bias cannot be added to static {'key' if static_k is not None else 'value'}.")
        k, v = ops.cat([k, bias_k.repeat(1, batch, 1)]), ops.cat([v, bias_v.repeat(1, batch, 1)])
        mask, padding = _padded(mask), _padded(padding)
    rows, head_dim = batch * num_heads, embed_dim // num_heads
    q = _heads(q, None, "", rows, head_dim)
    k = _heads(k, static_k, "static_k", rows, head_dim)
    v = _heads(v, static_v, "static_v", rows, head_dim)
    if add_zero_attn:
        zeros = ops.zeros((rows, 1, head_dim), dtype=k.dtype, device=k.device)
        k, v = ops.cat([k, zeros], dim=1), ops.cat([v, zeros], dim=1)
        mask, padding = _padded(mask), _padded(padding)
    mask = _merge_padding(mask, padding, batch, k.shape[1])
    attend = _attend_with_weights if need_weights else _attend_fused
    out, probabilities = attend(q, k, v, mask, batch, dropout_p if training else 0.0, is_causal)
    out = linear(out, out_proj_weight, out_proj_bias)
    if probabilities is not None and average_attn_weights:
        probabilities = probabilities.mean(dim=1)
    if batched:
        return out, probabilities
    return out.squeeze(1), None if probabilities is None else probabilities.squeeze(0)


def _check_sizes(embed_dim: int, expected: int, num_heads: int, key: Tensor, value: Tensor, separate: bool) -> None:
    if embed_dim != expected:
        raise AssertionError(f"was expecting embedding dimension of {expected}, but got {embed_dim}")
    if embed_dim % num_heads != 0:
        raise AssertionError(f"embed_dim {embed_dim} not divisible by num_heads {num_heads}")
    if separate:
        if key.shape[:2] != value.shape[:2]:
            raise AssertionError(f"key's sequence and batch dims {key.shape[:2]} do not match value's "
                                 f"{value.shape[:2]}")
    elif key.shape != value.shape:
        raise AssertionError(f"key shape {key.shape} does not match value shape {value.shape}")


def _project_separate(query: Tensor, key: Tensor, value: Tensor, weights: tuple[Any, Any, Any],
                      bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value each by a weight of its own; the biases come packed."""
    for weight, name in zip(weights, "qkv", strict=True):
        if weight is None:
            raise AssertionError(f"use_separate_proj_weight is True but {name}_proj_weight is None")
    b_q, b_k, b_v = (None,) * 3 if bias is None else bias.chunk(3)
    return linear(query, weights[0], b_q), linear(key, weights[1], b_k), linear(value, weights[2], b_v)
