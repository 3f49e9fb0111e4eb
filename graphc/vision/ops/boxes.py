"""Boxes (x1, y1, x2, y2): areas, overlaps, conversion, suppression of overlapping ones."""
from __future__ import annotations

from typing import Any

import numpy as np

from ... import ops as T
from ...tensor import Tensor, from_array, to_numpy

__all__ = ["batched_nms", "box_area", "box_convert", "box_iou", "clip_boxes_to_image", "generalized_box_iou", "nms",
           "remove_small_boxes"]


def box_area(boxes: Tensor) -> Tensor:
    """Areas of boxes (N, 4)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Areas of intersections and unions, (N, M)."""
    low = T.maximum(a[:, None, :2], b[None, :, :2])
    high = T.minimum(a[:, None, 2:], b[None, :, 2:])
    size = (high - low).clamp(min=0)
    inter = size[..., 0] * size[..., 1]
    return inter, box_area(a)[:, None] + box_area(b)[None] - inter


def box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of every pair, (N, M)."""
    inter, union = _overlap(boxes1, boxes2)
    return inter / union


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """IoU minus the empty share of the smallest box around both (Rezatofighi et al. 2019)."""
    inter, union = _overlap(boxes1, boxes2)
    low = T.minimum(boxes1[:, None, :2], boxes2[None, :, :2])
    high = T.maximum(boxes1[:, None, 2:], boxes2[None, :, 2:])
    size = (high - low).clamp(min=0)
    around = size[..., 0] * size[..., 1]
    return inter / union - (around - union) / around


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the boxes kept, best score first: a box goes when it overlaps a better kept one by more than
    ``iou_threshold``. Decided on the host."""
    order = np.argsort(-to_numpy(scores.detach()), kind="stable")
    iou = to_numpy(box_iou(boxes.detach(), boxes.detach()))
    gone = np.zeros(len(order), bool)
    kept = []
    for i in order:
        if not gone[i]:
            kept.append(i)
            gone |= iou[i] > iou_threshold
    return from_array(np.array(kept, np.int64), dev=boxes.device)


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """:func:`nms` within each class of ``idxs``: classes are moved apart first."""
    if boxes.numel() == 0:
        return from_array(np.zeros(0, np.int64), dev=boxes.device)
    apart = idxs.to(boxes.dtype) * (boxes.max() + 1)
    return nms(boxes + apart[:, None], scores, iou_threshold)


def remove_small_boxes(boxes: Tensor, min_size: float) -> Tensor:
    """Indices of boxes whose sides are both at least ``min_size``."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    return T.logical_and(width >= min_size, height >= min_size).nonzero()[:, 0]


def clip_boxes_to_image(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes cut at the image's edges; ``size`` is (height, width)."""
    height, width = size
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return T.stack((x, y), boxes.ndim).reshape(tuple(boxes.shape))


def box_convert(boxes: Tensor, in_fmt: str, out_fmt: str) -> Tensor:
    """Between "xyxy" (corners), "xywh" (corner and size) and "cxcywh" (centre and size)."""
    if in_fmt not in ("xyxy", "xywh", "cxcywh") or out_fmt not in ("xyxy", "xywh", "cxcywh"):
        raise ValueError(f"Unsupported Bounding Box Conversions for given in_fmt {in_fmt} and out_fmt {out_fmt}")
    if in_fmt == out_fmt:
        return boxes.clone()
    a, b, c, d = boxes.unbind(-1)
    if in_fmt == "xywh":
        c, d = a + c, b + d
    elif in_fmt == "cxcywh":
        a, b, c, d = a - 0.5 * c, b - 0.5 * d, a + 0.5 * c, b + 0.5 * d
    parts: Any = (a, b, c, d)
    if out_fmt == "xywh":
        parts = (a, b, c - a, d - b)
    elif out_fmt == "cxcywh":
        parts = ((a + c) / 2, (b + d) / 2, c - a, d - b)
    return T.stack(parts, -1)
