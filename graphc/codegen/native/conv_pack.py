"""Copies around a convolution: images into a zero border, filters into blocks of lanes, accumulators into a result.

Sizes and strides are run-time words; only the type, the width of vectors and what is unrolled are part of a kernel's text.
"""
from __future__ import annotations

from functools import cache

from .llvm import Function, module, vec


def scalar_type(name: str) -> str:
    """LLVM's name of float32 or float64."""
    return "double" if name == "float64" else "float"


@cache
def image_kernel(name: str, width: int, unit: bool) -> tuple[str, str]:
    """(symbol, text): dst[r, hq, p, q] = src[r, hq * hs - lo_h, q * s + p - lo_w], 0 outside the image.

    Words: src, dst, rows r, H, W, HQ, P, WQ, lo_h, lo_w, hs, s. ``unit`` says that s is 1 (contiguous loads).
    """
    symbol = f"conv_image_{name}_{width}{'' if unit else '_strided'}"
    f, s, ty = Function(symbol), scalar_type(name), vec(width, scalar_type(name))
    src, dst = f.arg(0, "ptr"), f.arg(1, "ptr")
    rows, h, w, hq, phases, wq, lo_h, lo_w, hs, step = (f.arg(2 + k) for k in range(10))
    it = vec(width, "i64")
    lo, hi = f.share(f.mul(rows, hq))

    def row(t: str) -> None:
        y = f.sub(f.mul(f.rem(t, hq), hs), lo_h)
        inside = f.cmp("ult", "i64", y, h)
        limit = f.select("i64", inside, w, "0", "i1")
        at = f.at(s, src, f.mul(f.add(f.mul(f.div(t, hq), h), f.select("i64", inside, y, "0", "i1")), w))

        def phase(p: str) -> None:
            to = f.at(s, dst, f.mul(f.add(f.mul(t, phases), p), wq))
            first = f.sub(p, lo_w)

            def chunk(q: str) -> None:
                x = f.add(f.mul(q, step) if not unit else q, first)
                index = f.op("add", it, f.splat(it, x), f.op("mul", it, f.ramp(it), f.splat(it, step)) if not unit else
                             f.ramp(it)) if width > 1 else x
                valid = f.cmp("ult", it, index, f.splat(it, limit))
                value = f.load(ty, f.at(s, at, x), valid) if unit else f.gather(ty, at, index, valid)
                f.store(ty, value, f.at(s, to, q), f.lane_mask(width, f.sub(wq, q)))

            f.loop("0", wq, chunk, step=width)

        f.loop("0", phases, phase)

    f.loop(lo, hi, row)
    return symbol, module([f])


@cache
def filter_kernel(name: str, width: int, vectors: int) -> tuple[str, str]:
    """(symbol, text): dst[g, tile, r, i, j, lane] from a filter with any strides; lanes beyond the last are 0.

    Words: src, dst, offset, groups, tiles, lanes of a group, R, KH, KW, then the source's strides of group, lane, r, i, j.
    """
    symbol = f"conv_filter_{name}_{width}x{vectors}"
    f, s, ty = Function(symbol), scalar_type(name), vec(width, scalar_type(name))
    src, dst = f.arg(0, "ptr"), f.arg(1, "ptr")
    off, groups, tiles, lanes, red, kh, kw, sg, sl, sr, si, sj = (f.arg(2 + k) for k in range(12))
    it = vec(width, "i64")
    src = f.at(s, src, off)
    lo, hi = f.share(f.mul(f.mul(groups, tiles), red))
    index = f.op("mul", it, f.ramp(it), f.splat(it, sl))
    block = width * vectors

    def one(t: str) -> None:
        tile, r = f.div(t, red), f.rem(t, red)
        g, first = f.div(tile, tiles), f.mul(f.rem(tile, tiles), str(block))
        at = f.at(s, src, f.add(f.add(f.mul(g, sg), f.mul(first, sl)), f.mul(r, sr)))
        to = f.at(s, dst, f.mul(f.mul(t, f.mul(kh, kw)), str(block)))
        masks = [f.lane_mask(width, f.max(f.sub(f.sub(lanes, first), str(v * width)), "0")) for v in range(vectors)]

        def tap(k: str) -> None:
            base = f.at(s, at, f.add(f.mul(f.div(k, kw), si), f.mul(f.rem(k, kw), sj)))
            for v in range(vectors):
                x = f.gather(ty, f.at(s, base, f.mul(sl, str(v * width))), index, masks[v])
                f.store(ty, x, f.at(s, to, f.add(f.mul(k, str(block)), str(v * width))))

        f.loop("0", f.mul(kh, kw), tap)

    f.loop(lo, hi, one)
    return symbol, module([f])
