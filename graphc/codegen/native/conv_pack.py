"""Copies around a convolution: images into a zero border, filters into blocks of lanes, accumulators into a result.

Sizes and strides are run-time words; only the type, the width of vectors and what is unrolled are part of a kernel's text.
"""
from __future__ import annotations

from functools import cache

from .gemm_kernel import DTYPES, load_values, store_values
from .llvm import Function, lanes, module, scalar_of, vec
from .opcodes import memory_type

# of a copy into a border: strides of image and group, rows and columns of raw planes, rows and columns copied, elements of the
# border's rows and planes, where in a plane the copy begins
COPY_WORDS = ("raw_n", "raw_g", "raw_h", "raw_w", "copy_h", "copy_w", "copy_row", "copy_c", "copy_at")


def scalar_type(name: str) -> str:
    """LLVM's name of float32 or float64."""
    return "double" if name == "float64" else "float"


@cache
def image_kernel(name: str, width: int, known: int) -> tuple[str, str]:
    """(symbol, text): dst[r, z, y, p, x] = src[r, z * sd - lo_d, y * sh - lo_h, x * sw + p - lo_w], 0 outside the image.

    Words: src, dst, count of r, D, H, W, counts of z, y, p, x, lo_d, lo_h, lo_w, sd, sh, sw. ``known``
    is sw if that is 1 or 2 (with 1 or 2 values of p), else 0.
    """
    symbol = f"conv_image_{name}_{width}_{known}"
    f, s, ty = Function(symbol), scalar_type(name), vec(width, scalar_type(name))
    src, dst = f.arg(0, "ptr"), f.arg(1, "ptr")
    rows, d, h, w, dq, hq, phases, wq, lo_d, lo_h, lo_w, ds, hs, step = (f.arg(2 + k) for k in range(14))
    it = vec(width, "i64")
    lo, hi = f.share(f.mul(f.mul(rows, dq), hq))

    def row(t: str) -> None:
        y, r = f.sub(f.mul(f.rem(t, hq), hs), lo_h), f.div(t, hq)
        z, r = f.sub(f.mul(f.rem(r, dq), ds), lo_d), f.div(r, dq)
        inside = f.op("and", "i1", f.cmp("ult", "i64", y, h), f.cmp("ult", "i64", z, d))
        plane = f.add(f.mul(r, d), f.select("i64", inside, z, "0", "i1"))
        limit = f.select("i64", inside, w, "0", "i1")
        at = f.at(s, src, f.mul(f.add(f.mul(plane, h), f.select("i64", inside, y, "0", "i1")), w))

        def phase(p: str) -> None:
            to = f.at(s, dst, f.mul(f.add(f.mul(t, phases), p), wq))
            first = f.sub(p, lo_w)

            def chunk(q: str) -> None:
                x = f.add(q if known else f.mul(q, step), first)
                index = f.op("add", it, f.splat(it, x), f.ramp(it) if known else f.op(
                    "mul", it, f.ramp(it), f.splat(it, step))) if width > 1 else x
                valid = f.cmp("ult", it, index, f.splat(it, limit))
                value = f.load(ty, f.at(s, at, x), valid) if known else f.gather(ty, at, index, valid)
                f.store(ty, value, f.at(s, to, q), f.lane_mask(width, f.sub(wq, q)))

            f.loop("0", wq, chunk, step=width)

        def pairs(q: str) -> None:  # two vectors of neighbours, the even and the odd ones of them
            x, loads = f.sub(f.mul(q, "2"), lo_w), []
            for k in (0, width):
                index = f.op("add", it, f.splat(it, f.add(x, str(k))), f.ramp(it))
                loads.append(f.load(ty, f.at(s, at, f.add(x, str(k))), f.cmp("ult", it, index, f.splat(it, limit))))
            mask = f.lane_mask(width, f.sub(wq, q))
            to = f.at(s, dst, f.add(f.mul(f.mul(t, phases), wq), q))
            for p in (0, 1):
                pick = ", ".join(f"i32 {2 * j + p}" for j in range(width))
                value = f.let(f"shufflevector {ty} {loads[0]}, {ty} {loads[1]}, <{width} x i32> <{pick}>")
                with f.when(f.cmp("slt", "i64", str(p), phases)):
                    f.store(ty, value, f.at(s, to, f.mul(wq, str(p))), mask)

        if known == 2:
            f.loop("0", wq, pairs, step=width)
        else:
            f.loop("0", phases, phase)

    f.loop(lo, hi, row)
    return symbol, module([f])


def zero_scratch(f: Function, base: str, size: str, used: str) -> str:
    """This thread's ``size`` bytes of scratch memory, zero if ``used``: borders stay so from one image to the next."""
    scratch = f.at("i8", base, f.mul(size, "%tid"))
    with f.when(used):
        f.call("llvm.memset.p0.i64", "void", ("ptr", scratch), ("i8", "0"), ("i64", size), ("i1", "false"))
    return scratch


def copy_planes(f: Function, ty: str, src: str, dst: str, count: str, z: dict[str, str]) -> None:
    """Print a copy of ``count`` planes into their borders; ``z`` has the words :data:`COPY_WORDS`."""
    s, width = scalar_of(ty), lanes(ty)
    inside = f.at(s, dst, z["copy_at"])
    whole = f.mul(f.div(z["copy_w"], str(width)), str(width))
    mask = f.lane_mask(width, f.sub(z["copy_w"], whole))

    def channel(c: str) -> None:
        def row(y: str) -> None:
            line = f.at(s, src, f.mul(f.add(f.mul(c, z["raw_h"]), y), z["raw_w"]))
            to = f.at(s, inside, f.add(f.mul(c, z["copy_c"]), f.mul(y, z["copy_row"])))
            f.loop("0", whole, lambda x: f.store(ty, f.load(ty, f.at(s, line, x)), f.at(s, to, x)), step=width)
            f.store(ty, f.load(ty, f.at(s, line, whole), mask), f.at(s, to, whole), mask)

        f.loop("0", z["copy_h"], row)

    f.loop("0", count, channel)


@cache
def channels_kernel(name: str, width: int) -> tuple[str, str]:
    """(symbol, text): dst[g, tile, r, p, lane] = src[g * sg + (tile * block + lane) * sl + r * sr + p]; 0 in lanes too many.

    Words: src, dst, groups, tiles, lanes of a group, R, P, block (a multiple of ``width``), chunk of p that is one task, then
    the strides sg, sl, sr.
    """
    symbol = f"conv_channels_{name}_{width}"
    f, s, ty = Function(symbol), scalar_type(name), vec(width, scalar_type(name))
    src, dst = f.arg(0, "ptr"), f.arg(1, "ptr")
    groups, tiles, count, red, length, block, chunk, sg, sl, sr = (f.arg(2 + k) for k in range(10))
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
            inside = [f.cmp("slt", "i64", f.add(lane, str(j)), count) for j in range(width)]

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


@cache
def convert_kernel(old: str, new: str, width: int) -> tuple[str, str]:
    """(symbol, text): dst[i] = src[i] in another dtype, one of them float32, the other 16 bits. Words: src, dst, count."""
    symbol = f"conv_convert_{old}_{new}_{width}"
    f, ty = Function(symbol), vec(width, "float")
    src, dst, count = f.arg(0, "ptr"), f.arg(1, "ptr"), f.arg(2)
    lo, hi = f.share(count, width)

    def some(i: str) -> None:
        mask = f.lane_mask(width, f.sub(hi, i))
        value = load_values(f, old, ty, f.at(memory_type(DTYPES[old]), src, i), mask)
        store_values(f, new, ty, value, f.at(memory_type(DTYPES[new]), dst, i), mask)

    f.loop(lo, hi, some, step=width)
    return symbol, module([f])
