"""A small builder of LLVM IR text: one :class:`Function` at a time, values in SSA form as strings.

Types are LLVM's own spelling: ``float``, ``double``, ``i64``, ``ptr``, and vectors from :func:`vec`. Every kernel of the
native back end has the same C signature, ``void kernel(i64* args, i64 tid, i64 nthreads)``: pointers, sizes and
strides come in as 64-bit words, and each of ``nthreads`` threads computes its own share.
"""
from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

KERNEL_PARAMS = "ptr noalias nocapture readonly %args, i64 %tid, i64 %nt"
_FLOATS = {"half": 2, "bfloat": 2, "float": 4, "double": 8}


def vec(width: int, ty: str) -> str:
    """The vector type of ``width`` lanes of ``ty`` (``ty`` itself for width 1)."""
    return ty if width == 1 else f"<{width} x {ty}>"


def lanes(ty: str) -> int:
    """Number of lanes of a type."""
    return int(ty[1:ty.index(" ")]) if ty[0] == "<" else 1


def scalar_of(ty: str) -> str:
    """Element type of a vector type."""
    return ty[ty.index("x") + 2:-1] if ty[0] == "<" else ty


def is_float(ty: str) -> bool:
    """Whether the (element) type is a floating-point type."""
    return scalar_of(ty) in _FLOATS


def byte_size(ty: str) -> int:
    """Bytes of one element in memory."""
    s = scalar_of(ty)
    return 8 if s == "ptr" else _FLOATS[s] if s in _FLOATS else max(1, int(s[1:]) // 8)


def mangle(ty: str) -> str:
    """The suffix LLVM intrinsics use for a type: ``<16 x float>`` is ``v16f32``."""
    s = scalar_of(ty)
    base = {"half": "f16", "bfloat": "bf16", "float": "f32", "double": "f64", "ptr": "p0"}.get(s, s)
    return base if ty[0] != "<" else f"v{lanes(ty)}{base}"


def const(ty: str, value: float | int | bool) -> str:
    """A literal of ``ty``, splatted over a vector type."""
    s = scalar_of(ty)
    if s in ("float", "double"):
        v = float(value)
        if s == "float":
            v = struct.unpack("<f", struct.pack("<f", v))[0] if abs(v) < 3.5e38 or v != v else v
        lit = f"0x{struct.unpack('<Q', struct.pack('<d', v))[0]:016X}"
    elif s == "i1":
        lit = "true" if value else "false"
    else:
        lit = str(int(value))
    return lit if ty[0] != "<" else f"splat ({s} {lit})"


class Function:
    """One LLVM function under construction. Methods append instructions and return the name of their result."""

    def __init__(self, name: str, params: str = KERNEL_PARAMS, ret: str = "void", attributes: str = "nounwind"):
        self.name, self.params, self.ret, self.attributes = name, params, ret, attributes
        self.lines: list[str] = []
        self.block = "entry"
        self.declares: set[str] = set()  # full declare lines of what is called
        self.helpers: set[str] = set()  # names of vmath definitions that are called
        self._n = 0
        self._entry: list[str] = []  # allocas, placed first

    # ------------------------------------------------------------------------------------------------- raw emission
    def fresh(self, hint: str = "") -> str:
        """A name (without sigil) not used yet."""
        self._n += 1
        return f"{hint or 't'}{self._n}"

    def emit(self, text: str) -> None:
        """Append one instruction without a result."""
        self.lines.append("  " + text)

    def let(self, text: str) -> str:
        """Append one instruction; returns its result."""
        r = "%" + self.fresh()
        self.lines.append(f"  {r} = {text}")
        return r

    def label(self, name: str) -> None:
        """Start a basic block."""
        self.lines.append(f"{name}:")
        self.block = name

    def text(self) -> str:
        """The whole definition. Ends with ``ret void`` if nothing else did."""
        if self.ret == "void" and (not self.lines or not self.lines[-1].startswith("  ret")):
            self.emit("ret void")
        body = "\n".join(["entry:", *self._entry, *self.lines])
        return f"define {self.ret} @{self.name}({self.params}) {self.attributes} {{\n{body}\n}}\n"

    # -------------------------------------------------------------------------------------------------- instructions
    def arg(self, k: int, ty: str = "i64") -> str:
        """Word ``k`` of the argument block, as an integer or a ``ptr``."""
        p = self.let(f"getelementptr i64, ptr %args, i64 {k}")
        return self.let(f"load {ty}, ptr {p}, !invariant.load !{{}}")

    def op(self, name: str, ty: str, a: str, b: str, flags: str = "") -> str:
        """A binary instruction, e.g. ``op("fadd", ty, a, b)`` or ``op("add", "i64", a, b, "nsw")``."""
        return self.let(f"{name} {flags + ' ' if flags else ''}{ty} {a}, {b}")

    def add(self, a: str, b: str) -> str:
        """64-bit integer sum."""
        return b if a == "0" else a if b == "0" else self.op("add", "i64", a, b, "nsw")

    def sub(self, a: str, b: str) -> str:
        """64-bit integer difference."""
        return a if b == "0" else self.op("sub", "i64", a, b, "nsw")

    def mul(self, a: str, b: str) -> str:
        """64-bit integer product."""
        return "0" if "0" in (a, b) else b if a == "1" else a if b == "1" else self.op("mul", "i64", a, b, "nsw")

    def div(self, a: str, b: str) -> str:
        """64-bit integer quotient of non-negative numbers."""
        return a if b == "1" else self.op("udiv", "i64", a, b)

    def rem(self, a: str, b: str) -> str:
        """64-bit integer remainder of non-negative numbers."""
        return "0" if b == "1" else self.op("urem", "i64", a, b)

    def min(self, a: str, b: str) -> str:
        """Smaller 64-bit integer (signed)."""
        return self.call("llvm.smin.i64", "i64", ("i64", a), ("i64", b))

    def max(self, a: str, b: str) -> str:
        """Larger 64-bit integer (signed)."""
        return self.call("llvm.smax.i64", "i64", ("i64", a), ("i64", b))

    def ceil_div(self, a: str, b: int | str) -> str:
        """ceil(a / b) of non-negative integers."""
        less = self.sub(str(b), "1") if isinstance(b, str) else str(b - 1)
        return self.div(self.add(a, less), str(b))

    def cmp(self, pred: str, ty: str, a: str, b: str) -> str:
        """Comparison; ``pred`` is an icmp or fcmp predicate (``slt``, ``ogt``, ``une`` ...)."""
        return self.let(f"{'fcmp' if is_float(ty) else 'icmp'} {pred} {ty} {a}, {b}")

    def select(self, ty: str, cond: str, a: str, b: str, cond_ty: str | None = None) -> str:
        """``a`` where ``cond`` else ``b``; lane by lane unless ``cond_ty`` is ``i1``."""
        ct = cond_ty or vec(lanes(ty), "i1")
        return self.let(f"select {ct} {cond}, {ty} {a}, {ty} {b}")

    def cast(self, name: str, src_ty: str, a: str, dst_ty: str) -> str:
        """A conversion instruction: ``fptrunc``, ``sitofp``, ``bitcast``, ``zext`` ..."""
        return a if src_ty == dst_ty else self.let(f"{name} {src_ty} {a} to {dst_ty}")

    def call(self, name: str, ret: str, *args: tuple[str, str], flags: str = "") -> str:
        """Call an external function or intrinsic with (type, value) arguments; declares it."""
        self.declares.add(f"declare {ret} @{name}({', '.join(t for t, _ in args)})")
        text = f"call {flags + ' ' if flags else ''}{ret} @{name}({', '.join(f'{t} {a}' for t, a in args)})"
        if ret == "void":
            self.emit(text)
            return ""
        return self.let(text)

    def math1(self, name: str, ty: str, a: str) -> str:
        """Unary intrinsic of the same type: ``sqrt``, ``fabs``, ``floor``, ``ceil``, ``trunc``, ``rint`` ..."""
        return self.call(f"llvm.{name}.{mangle(ty)}", ty, (ty, a))

    def math2(self, name: str, ty: str, a: str, b: str) -> str:
        """Binary intrinsic of the same type: ``maximum``, ``minimum``, ``copysign``, ``smax`` ..."""
        return self.call(f"llvm.{name}.{mangle(ty)}", ty, (ty, a), (ty, b))

    def fma(self, ty: str, a: str, b: str, c: str) -> str:
        """a * b + c, rounded once."""
        return self.call(f"llvm.fma.{mangle(ty)}", ty, (ty, a), (ty, b), (ty, c))

    def splat(self, ty: str, a: str) -> str:
        """Vector with every lane equal to the scalar ``a``; ``a`` itself for a scalar type."""
        if ty[0] != "<":
            return a
        s = scalar_of(ty)
        one = self.let(f"insertelement {ty} poison, {s} {a}, i64 0")
        return self.let(f"shufflevector {ty} {one}, {ty} poison, <{lanes(ty)} x i32> zeroinitializer")

    def ramp(self, ty: str) -> str:
        """The constant vector 0, 1, 2, ... of an integer vector type."""
        s = scalar_of(ty)
        return "0" if ty[0] != "<" else "<" + ", ".join(f"{s} {k}" for k in range(lanes(ty))) + ">"

    def lane_mask(self, width: int, count: str) -> str:
        """i1 vector: lane number < count (i64, may exceed the width)."""
        t = vec(width, "i64")
        return self.cmp("ult", t, self.ramp(t), self.splat(t, count)) if width > 1 else self.cmp("ult", "i64", "0", count)

    # -------------------------------------------------------------------------------------------------------- memory
    def at(self, ty: str, base: str, index: str) -> str:
        """Address of element ``index`` (i64) of an array of scalars ``ty``."""
        return base if index == "0" else self.let(f"getelementptr inbounds {scalar_of(ty)}, ptr {base}, i64 {index}")

    def load(self, ty: str, address: str, mask: str | None = None, other: str = "zeroinitializer", meta: str = "") -> str:
        """Load a scalar or vector; lanes outside ``mask`` are not touched and give ``other``."""
        align = byte_size(ty)
        if mask is None:
            return self.let(f"load {ty}, ptr {address}, align {align}{meta}")
        m = vec(lanes(ty), "i1")
        self.declares.add(f"declare {ty} @llvm.masked.load.{mangle(ty)}.p0(ptr, {m}, {ty})")
        return self.let(f"call {ty} @llvm.masked.load.{mangle(ty)}.p0(ptr align {align} {address}, {m} {mask}, {ty} {other})"
                        f"{meta}")

    def store(self, ty: str, value: str, address: str, mask: str | None = None, meta: str = "", align: int = 0) -> None:
        """Store a scalar or vector; lanes outside ``mask`` are left alone."""
        align = align or byte_size(scalar_of(ty))
        if mask is None:
            self.emit(f"store {ty} {value}, ptr {address}, align {align}{meta}")
            return
        m = vec(lanes(ty), "i1")
        self.declares.add(f"declare void @llvm.masked.store.{mangle(ty)}.p0({ty}, ptr, {m})")
        self.emit(f"call void @llvm.masked.store.{mangle(ty)}.p0({ty} {value}, ptr align {align} {address}, {m} {mask}){meta}")

    def gather(self, ty: str, base: str, index: str, mask: str | None = None, index_type: str = "i64") -> str:
        """Lane k loads element ``index[k]`` (vector of ``index_type``); masked-off lanes give 0."""
        w = lanes(ty)
        p = self.let(f"getelementptr inbounds {scalar_of(ty)}, ptr {base}, {vec(w, index_type)} {index}")
        pt, m = vec(w, "ptr"), vec(w, "i1")
        self.declares.add(f"declare {ty} @llvm.masked.gather.{mangle(ty)}.v{w}p0({pt}, {m}, {ty})")
        return self.let(f"call {ty} @llvm.masked.gather.{mangle(ty)}.v{w}p0({pt} align {byte_size(ty)} {p}, {m} "
                        f"{mask or const(m, True)}, {ty} zeroinitializer)")

    def scatter(self, ty: str, value: str, base: str, index: str, mask: str | None = None) -> None:
        """Lane k stores to element ``index[k]`` (i64 vector); later lanes win."""
        w = lanes(ty)
        p = self.let(f"getelementptr inbounds {scalar_of(ty)}, ptr {base}, {vec(w, 'i64')} {index}")
        pt, m = vec(w, "ptr"), vec(w, "i1")
        self.declares.add(f"declare void @llvm.masked.scatter.{mangle(ty)}.v{w}p0({ty}, {pt}, {m})")
        self.emit(f"call void @llvm.masked.scatter.{mangle(ty)}.v{w}p0({ty} {value}, {pt} align {byte_size(ty)} {p}, {m} "
                  f"{mask or const(m, True)})")

    def transpose(self, ty: str, rows: Sequence[str]) -> list[str]:
        """Columns of a square tile, given its rows (w vectors of w lanes, w a power of two), in w log2(w) shuffles."""
        w, out, s = lanes(ty), list(rows), 1
        while s < w:
            for i in range(w):
                if i & s:
                    continue
                a, b = out[i], out[i + s]
                low = ", ".join(f"i32 {w + j - s if j & s else j}" for j in range(w))
                high = ", ".join(f"i32 {w + j if j & s else j + s}" for j in range(w))
                out[i] = self.let(f"shufflevector {ty} {a}, {ty} {b}, <{w} x i32> <{low}>")
                out[i + s] = self.let(f"shufflevector {ty} {a}, {ty} {b}, <{w} x i32> <{high}>")
            s *= 2
        return out

    def alloca(self, ty: str, count: int, align: int = 64) -> str:
        """Stack memory, reserved once at function entry."""
        r = "%" + self.fresh("stack")
        self._entry.append(f"  {r} = alloca {ty}, i64 {count}, align {align}")
        return r

    # ------------------------------------------------------------------------------------------------------- control
    def loop(self, lo: str, hi: str, body: Callable[..., Sequence[str] | None], carried: Sequence[tuple[str, str]] = (),
             step: str | int = 1) -> list[str]:
        """``for i in range(lo, hi, step)``: calls ``body(i, *carried)`` once to emit the loop's code.

        ``carried`` are (type, initial value) pairs; ``body`` returns their next values. Returns their values after
        the loop.
        """
        n = self.fresh("")[1:]
        head, inside, done, before = f"head{n}", f"body{n}", f"done{n}", self.block
        self.emit(f"br label %{head}")
        self.label(head)
        phis_at = len(self.lines)
        names = [f"%c{n}_{k}" for k in range(len(carried))]
        i = f"%i{n}"
        more = self.cmp("slt", "i64", i, hi)
        self.emit(f"br i1 {more}, label %{inside}, label %{done}")
        self.label(inside)
        out = list(body(i, *names) or ())
        assert len(out) == len(names), "a loop body returns one value per carried value"
        nxt = self.add(i, str(step))
        self.emit(f"br label %{head}")
        phis = [f"  {i} = phi i64 [{lo}, %{before}], [{nxt}, %{self.block}]"]
        for (ty, init), name, val in zip(carried, names, out):
            phis.append(f"  {name} = phi {ty} [{init}, %{before}], [{val}, %{self.block}]")
        self.lines[phis_at:phis_at] = phis
        self.label(done)
        return names

    @contextmanager
    def when(self, cond: str) -> Iterator[None]:
        """Emit a block that runs only if ``cond`` (i1) holds."""
        n = self.fresh("")[1:]
        self.emit(f"br i1 {cond}, label %then{n}, label %endif{n}")
        self.label(f"then{n}")
        yield
        self.emit(f"br label %endif{n}")
        self.label(f"endif{n}")

    def share(self, total: str, grain: int | str = 1) -> tuple[str, str]:
        """This thread's half-open range of ``total`` items, in multiples of ``grain``, contiguous and balanced."""
        blocks = self.ceil_div(total, grain)
        per = self.ceil_div(self.add(blocks, "0"), "%nt")
        lo = self.min(self.mul(self.mul(per, str(grain)), "%tid"), total)
        hi = self.min(self.add(lo, self.mul(per, str(grain))), total)
        return lo, hi


def module(functions: Sequence[Function], *extra: str) -> str:
    """Join functions and extra text (definitions of helpers) into one module."""
    declares = sorted({d for f in functions for d in f.declares})
    body = "\n".join([*extra, *[f.text() for f in functions]])
    defined = "".join([line for line in body.splitlines() if line.startswith("define")])
    return "\n".join([*[d for d in declares if f"@{d.split('@')[1].split('(')[0]}(" not in defined], body])
