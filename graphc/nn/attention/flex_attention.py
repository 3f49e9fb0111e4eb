"""Attention whose scores and mask are functions of positions (``torch.nn.attention.flex_attention``).

``score_mod(score, batch, head, query_index, key_index)`` and ``mask_mod(batch, head, query_index, key_index)`` are called once,
with index tensors that broadcast against the scores (PyTorch maps them over single numbers): elementwise arithmetic,
comparisons, ``where`` and indexing of captured tensors mean the same. The compiler fuses them with the softmax.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ... import ops
from ...dtypes import float32, float64, int32
from ...tensor import Tensor

__all__ = ["AuxOutput", "AuxRequest", "BlockMask", "and_masks", "create_block_mask", "create_mask", "flex_attention",
           "noop_mask", "or_masks"]
Mask = Callable[[Any, Any, Any, Any], Tensor]


class AuxRequest(NamedTuple):
    """What :func:`flex_attention` shall give besides its result."""

    lse: bool = False
    max_scores: bool = False


class AuxOutput(NamedTuple):
    """What was asked for: logsumexp and largest score of each query, float32 (B, H, L)."""

    lse: Tensor | None = None
    max_scores: Tensor | None = None


def _positions(sizes: tuple[int, int, int, int], device: Any) -> list[Tensor]:
    """Indices along each of four axes, shaped to broadcast."""
    return [ops.arange(n, dtype=int32, device=device).reshape([-1 if i == k else 1 for k in range(4)])
            for i, n in enumerate(sizes)]


def noop_mask(batch: Any, head: Any, token_q: Any, token_kv: Any) -> Tensor:
    """Everything takes part."""
    return ops.ones_like(batch).bool()


def and_masks(*mask_mods: Mask) -> Mask:
    """Where all of them are true."""
    if not all(callable(m) for m in mask_mods):
        raise RuntimeError(f"All inputs should be callable mask_mods: {mask_mods}")

    def both(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Tensor:
        out = noop_mask(b, h, q_idx, kv_idx)
        for m in mask_mods:
            out = out & m(b, h, q_idx, kv_idx)
        return out

    return both


def or_masks(*mask_mods: Mask) -> Mask:
    """Where any of them is true."""
    if not all(callable(m) for m in mask_mods):
        raise RuntimeError(f"All inputs should be callable mask_mods: {mask_mods}")

    def either(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Tensor:
        out = ~noop_mask(b, h, q_idx, kv_idx)
        for m in mask_mods:
            out = out | m(b, h, q_idx, kv_idx)
        return out

    return either


def _scored(mod: Callable[..., Any]) -> bool:
    """Whether the function takes a score first."""
    import inspect

    return len([p for p in inspect.signature(mod).parameters.values() if p.default is p.empty]) == 5


def create_mask(mod_fn: Callable[..., Tensor], B: int | None, H: int | None, Q_LEN: int, KV_LEN: int,
                device: Any = None) -> Tensor:
    """The dense mask (B, H, Q_LEN, KV_LEN): boolean of a ``mask_mod``, of a ``score_mod`` the scores it makes of zeros."""
    sizes = (B or 1, H or 1, Q_LEN, KV_LEN)
    where = _positions(sizes, device)
    if _scored(mod_fn):
        return mod_fn(ops.zeros(sizes, device=device), *where).expand(sizes)
    return mod_fn(*where).expand(sizes)


class BlockMask:
    """A ``mask_mod`` for given lengths, with what PyTorch's kernels read: which blocks of keys each block of queries needs.

    ``kv_num_blocks`` (B, H, rows) and ``kv_indices`` (B, H, rows, columns) list blocks that are needed in part,
    ``full_kv_num_blocks`` and ``full_kv_indices`` those that are needed whole; int32.
    """

    def __init__(self, mask_mod: Mask, blocks: Tensor, whole: Tensor, seq_lengths: tuple[int, int],
                 block_size: tuple[int, int]):
        self.mask_mod, self.seq_lengths, self.BLOCK_SIZE = mask_mod, seq_lengths, block_size
        self._blocks, self._whole = blocks, whole
        self.kv_num_blocks, self.kv_indices = _listed(blocks & ~whole)
        self.full_kv_num_blocks, self.full_kv_indices = _listed(whole)

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, H, queries, keys)."""
        return (*self._blocks.shape[:2], *self.seq_lengths)

    def numel(self) -> int:
        return math.prod(self.shape)

    def to_dense(self) -> Tensor:
        """Which blocks are needed, wholly or in part: (B, H, rows, columns), int32."""
        return self._blocks.to(int32)

    def sparsity(self) -> float:
        """Share of the scores, in per cent, that no needed block holds; blocks at the edges count whole (evaluates)."""
        held = int(self._blocks.sum()) * self.BLOCK_SIZE[0] * self.BLOCK_SIZE[1]
        return 100.0 * (1.0 - held / self.numel())

    def __getitem__(self, index: Any) -> BlockMask:
        """Some batches and heads; axes stay."""
        picks = index if isinstance(index, tuple) else (index,)
        kept = tuple([slice(i, i + 1 or None) if isinstance(i, int) else i for i in picks])
        return BlockMask(self.mask_mod, self._blocks[kept], self._whole[kept], self.seq_lengths, self.BLOCK_SIZE)

    def to(self, device: Any) -> BlockMask:
        """On another device."""
        return BlockMask(self.mask_mod, self._blocks.to(device), self._whole.to(device), self.seq_lengths, self.BLOCK_SIZE)

    def __repr__(self) -> str:
        return f"BlockMask(shape={self.shape}, sparsity={self.sparsity():.2f}%)"


def _listed(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """(number of chosen columns of each row, the columns with the chosen ones first)."""
    order = ops.argsort(chosen.to(int32), -1, True, stable=True)
    return chosen.to(int32).sum(-1).to(int32), order.to(int32)


def create_block_mask(mask_mod: Mask, B: int | None, H: int | None, Q_LEN: int, KV_LEN: int, device: Any = None,
                      BLOCK_SIZE: int | tuple[int, int] = 128, _compile: bool = False, separate_full_blocks: bool = True,
                      **kwargs: Any) -> BlockMask:
    """A :class:`BlockMask` of ``mask_mod``; ``B`` or ``H`` None: the same for all batches or heads."""
    rows, columns = (BLOCK_SIZE, BLOCK_SIZE) if isinstance(BLOCK_SIZE, int) else BLOCK_SIZE
    dense = create_mask(mask_mod, B, H, Q_LEN, KV_LEN, device)
    pad = ops.pad(dense, (0, -KV_LEN % columns, 0, -Q_LEN % rows)) if KV_LEN % columns or Q_LEN % rows else dense
    b, h, q, k = pad.shape
    tiles = pad.reshape(b, h, q // rows, rows, k // columns, columns).transpose(3, 4)
    some, every = tiles.any(-1).any(-1), tiles.all(-1).all(-1)
    whole = every if separate_full_blocks else ops.zeros_like(every)
    return BlockMask(mask_mod, some, whole, (Q_LEN, KV_LEN), (rows, columns))


def _check(query: Tensor, key: Tensor, value: Tensor, block_mask: BlockMask | None, enable_gqa: bool) -> None:
    if not query.ndim == key.ndim == value.ndim == 4:
        raise NotImplementedError("NYI: query, key, and value must be 4D tensors")
    if not query.dtype is key.dtype is value.dtype:
        raise ValueError(f"Expected query, key, and value to have the same dtype, but got query.dtype: {query.dtype}, "
                         f"key.dtype: {key.dtype}, and value.dtype: {value.dtype} instead.")
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(f"Expect query and key/value to have the same embedding dimension but got E={query.shape[-1]} and "
                         f"E={key.shape[-1]}.")
    if not enable_gqa and query.shape[1] != key.shape[1]:
        raise ValueError(f"Expect query and key/value to have the same number of heads but got Hq={query.shape[1]} and "
                         f"Hkv={key.shape[1]}. Try setting enable_gqa=True for GQA.")
    if enable_gqa and query.shape[1] % key.shape[1]:
        raise ValueError(f"Expect number of query heads to be a multiple of kv heads for GQA but got Hq={query.shape[1]} and "
                         f"Hkv={key.shape[1]}.")
    if block_mask is not None and (block_mask.seq_lengths[0] < query.shape[2] or block_mask.seq_lengths[1] < key.shape[2]):
        raise ValueError(f"block_mask was created for block_mask.shape={block_mask.shape} but got q_len={query.shape[2]} and "
                         f"kv_len={key.shape[2]}.")


def flex_attention(query: Tensor, key: Tensor, value: Tensor, score_mod: Callable[..., Tensor] | None = None,
                   block_mask: BlockMask | None = None, scale: float | None = None, enable_gqa: bool = False,
                   return_lse: bool = False, kernel_options: Any = None, *, return_aux: AuxRequest | None = None) -> Any:
    """softmax(score_mod(scale query key^T)) value where ``block_mask`` allows, for query (B, Hq, L, E), key (B, H, S, E) and
    value (B, H, S, Ev).

    Queries without any key give 0. ``return_lse``: (result, logsumexp of each query's scores); ``return_aux``: (result,
    :class:`AuxOutput`). Scores are computed in float32 (float64 for float64 inputs). ValueError for shapes or dtypes that do
    not fit.
    """
    _check(query, key, value, block_mask, enable_gqa)
    where = _positions((*query.shape[:3], key.shape[2]), query.device)
    mask = None if block_mask is None else block_mask.mask_mod(*where)
    if score_mod is None and not return_lse and return_aux is None:
        allowed = None if mask is None else mask.expand((*query.shape[:3], key.shape[2]))
        return ops.scaled_dot_product_attention(query, key, value, allowed, scale=scale, enable_gqa=enable_gqa)
    if enable_gqa and query.shape[1] != key.shape[1]:
        times = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
    wide = float64 if query.dtype is float64 else float32
    scores = (query.to(wide) @ key.to(wide).mT) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if score_mod is not None:
        scores = score_mod(scores, *where).to(wide)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    top = scores.detach().amax(-1, keepdim=True)
    shift = ops.where(top == -math.inf, 0.0, top)
    weights = (scores - shift).exp()
    total = weights.sum(-1, keepdim=True)
    out = ((weights / ops.where(total == 0, 1.0, total)) @ value.to(wide)).to(query.dtype)
    lse = (total.log() + shift).squeeze(-1)
    if return_aux is not None:
        return out, AuxOutput(lse if return_aux.lse else None, top.squeeze(-1) if return_aux.max_scores else None)
    return (out, lse) if return_lse else out
