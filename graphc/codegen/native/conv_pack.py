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
def channels_kernel(name: str, width: int) -> tuple[str, str]:
    """(symbol, text): dst[g, tile, r, p, lane] = src[g * sg + (tile * block + lane) * sl + r * sr + p]; 0 in lanes too many.

    Words: src, dst, groups, tiles, lanes of a group, R, P, block (a multiple of ``width``), chunk of p that is one task, then
    the strides sg, sl, sr.
    """
    symbol = f"conv_channels_{name}_{width}"
    f, s, ty = Function(symbol), scalar_type(name), vec(width, scalar_type(name))
    src, dst = f.arg(0, "ptr"), f.arg(1, "ptr")
    groups, tiles, lanes, red, length, block, chunk, sg, sl, sr = (f.arg(2 + k) for k in range(10))
    chunks = f.ceil_div(length, chunk)
    lo, hi = f.share(f.mul(f.mul(f.mul(groups, tiles), red), chunks))

    def one(t: str) -> None:
        p_lo, t = f.mul(f.rem(t, chunks), chunk), f.div(t, chunks)
        p_hi = f.min(f.add(p_lo, chunk), length)
        tile, t = f.rem(t, tiles), f.div(t, tiles)  # the innermost: the source is read in its order
        r, g = f.rem(t, red), f.div(t, red)
        first = f.mul(tile, block)
        base = f.at(s, src, f.add(f.mul(g, sg), f.mul(r, sr)))
        to = f.at(s, dst, f.mul(f.mul(f.add(f.mul(f.add(f.mul(g, tiles), tile), red), r), length), block))

        def vector(v: str) -> None:
            lane = f.add(first, v)
            rows = [f.mul(f.add(lane, str(j)), sl) for j in range(width)]
            inside = [f.cmp("slt", "i64", f.add(lane, str(j)), lanes) for j in range(width)]

            def square(p: str) -> None:
                rest = f.sub(p_hi, p)
                masks = [f.lane_mask(width, f.select("i64", ok, rest, "0", "i1")) for ok in inside]
                out = [f.load(ty, f.at(s, base, f.add(row, p)), mask) for row, mask in zip(rows, masks)]
                out = f.transpose(ty, out) if width > 1 else out
                places = [f.at(s, to, f.add(f.mul(f.add(p, str(j)), block), v)) for j in range(width)]
                whole = f.cmp("sge", "i64", rest, str(width))
                with f.when(whole):
                    for x, place in zip(out, places):
                        f.store(ty, x, place)
                with f.when(f.op("xor", "i1", whole, "true")):
                    for j, (x, place) in enumerate(zip(out, places)):
                        with f.when(f.cmp("sgt", "i64", rest, str(j))):
                            f.store(ty, x, place)

            f.loop(p_lo, p_hi, square, step=width)

        f.loop("0", block, vector, step=width)

    f.loop(lo, hi, one)
    return symbol, module([f])
