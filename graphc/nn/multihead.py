"""Multi-head attention as a layer; the computation is in ``_attention.py``."""
from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from . import functional as F
from . import init
from ._attention import _map_kept
from .linear import NonDynamicallyQuantizableLinear
from .module import Module
from .parameter import Parameter, empty_parameter

__all__ = ["MultiheadAttention"]


class MultiheadAttention(Module):
    """Attention of ``num_heads`` heads over projections of query, key and value (Vaswani et al. 2017).

    Query ``(L, N, E)``, key ``(S, N, kdim)``, value ``(S, N, vdim)``; with ``batch_first`` the batch leads; without
    batch two dimensions. Returns the output, shaped as the query, and the attention weights ``(N, L, S)`` averaged
    over heads, ``(N, num_heads, L, S)`` unaveraged, or ``None`` with ``need_weights=False``, which is faster.

    Raises:
        ValueError: ``embed_dim`` or ``num_heads`` not positive.
        AssertionError: ``embed_dim`` not divisible by ``num_heads``.
    """

    in_proj_weight: Parameter | None
    q_proj_weight: Parameter | None
    k_proj_weight: Parameter | None
    v_proj_weight: Parameter | None
    in_proj_bias: Parameter | None
    bias_k: Parameter | None
    bias_v: Parameter | None

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
                 add_bias_kv: bool = False, add_zero_attn: bool = False, kdim: int | None = None,
                 vdim: int | None = None, batch_first: bool = False, device: Any = None, dtype: Any = None) -> None:
        if embed_dim <= 0 or num_heads <= 0:
            raise ValueError("embed_dim and num_heads must be greater than 0, got "
                             f"embed_dim={embed_dim} and num_heads={num_heads} instead")
        super().__init__()
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self._qkv_same_embed_dim = self.kdim == embed_dim and self.vdim == embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.head_dim = embed_dim // num_heads
        if self.head_dim * num_heads != embed_dim:
            raise AssertionError("embed_dim must be divisible by num_heads")
        self._make_parameters(bias, add_bias_kv, {"device": device, "dtype": dtype})
        self.add_zero_attn = add_zero_attn
        self._reset_parameters()

    def _make_parameters(self, bias: bool, add_bias_kv: bool, where: dict[str, Any]) -> None:
        e, same = self.embed_dim, self._qkv_same_embed_dim
        widths = {"q_proj_weight": e, "k_proj_weight": self.kdim, "v_proj_weight": self.vdim}
        if same:  # the order of registration is the order of state_dict
            self.in_proj_weight = empty_parameter((3 * e, e), **where)
        for name, width in widths.items():
            self.register_parameter(name, None if same else empty_parameter((e, width), **where))
        if not same:
            self.register_parameter("in_proj_weight", None)
        self.register_parameter("in_proj_bias", empty_parameter(3 * e, **where) if bias else None)
        self.out_proj = NonDynamicallyQuantizableLinear(e, e, bias=bias, **where)
        if add_bias_kv:
            self.bias_k = empty_parameter((1, 1, e), **where)
            self.bias_v = empty_parameter((1, 1, e), **where)
        else:
            self.bias_k = self.bias_v = None

    def _reset_parameters(self) -> None:
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if weight is not None:
                init.xavier_uniform_(weight)
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)  # type: ignore[arg-type]
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                init.xavier_normal_(bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
                need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
                is_causal: bool = False) -> tuple[Tensor, Tensor | None]:
        """Masks are boolean (true: not allowed) or added to the scores.

        ``key_padding_mask`` is ``(N, S)``, ``attn_mask`` ``(L, S)`` or ``(N * num_heads, L, S)``. ``is_causal``
        promises that ``attn_mask`` is the causal mask.
        """
        swap = self.batch_first and query.dim() == 3
        if swap:
            query, key, value = _map_kept(lambda t: t.transpose(0, 1), query, key, value)
        out, weights = F.multi_head_attention_forward(
            query, key, value, self.embed_dim, self.num_heads, self.in_proj_weight, self.in_proj_bias, self.bias_k,
            self.bias_v, self.add_zero_attn, self.dropout, self.out_proj.weight, self.out_proj.bias,
            training=self.training, key_padding_mask=key_padding_mask, need_weights=need_weights,
            attn_mask=attn_mask, use_separate_proj_weight=not self._qkv_same_embed_dim,
            q_proj_weight=self.q_proj_weight, k_proj_weight=self.k_proj_weight, v_proj_weight=self.v_proj_weight,
            average_attn_weights=average_attn_weights, is_causal=is_causal)
        return (out.transpose(0, 1) if swap else out), weights
