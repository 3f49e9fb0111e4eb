"""Decoding pickle opcodes without pickle: which opcodes and globals a stream uses, before anything is built.

Opcodes and argument encodings: CPython's ``pickletools.py`` (tests compare the two). The allow-list leaves out what a
checkpoint never needs: INST and OBJ (call a class), EXT1-4 (the copyreg registry), NEWOBJ_EX, PERSID (text), POP, DUP,
out-of-band buffers, and the text opcodes of protocol 0.
"""
from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import CheckpointError

# name -> (opcode byte, how its argument is encoded)
_OPCODES = {
    "PROTO": (0x80, "u1"), "FRAME": (0x95, "u8"), "STOP": (0x2E, ""), "MARK": (0x28, ""),
    "NONE": (0x4E, ""), "NEWTRUE": (0x88, ""), "NEWFALSE": (0x89, ""),
    "BININT": (0x4A, "i4"), "BININT1": (0x4B, "u1"), "BININT2": (0x4D, "u2"), "LONG1": (0x8A, "long1"),
    "LONG4": (0x8B, "long4"), "BINFLOAT": (0x47, "f8"),
    "BINUNICODE": (0x58, "text4"), "SHORT_BINUNICODE": (0x8C, "text1"), "BINUNICODE8": (0x8D, "text8"),
    "BINBYTES": (0x42, "bytes4"), "SHORT_BINBYTES": (0x43, "bytes1"), "BINBYTES8": (0x8E, "bytes8"),
    "BYTEARRAY8": (0x96, "bytes8"), "BINSTRING": (0x54, "bytes4"), "SHORT_BINSTRING": (0x55, "bytes1"),
    "EMPTY_TUPLE": (0x29, ""), "TUPLE": (0x74, ""), "TUPLE1": (0x85, ""), "TUPLE2": (0x86, ""), "TUPLE3": (0x87, ""),
    "EMPTY_LIST": (0x5D, ""), "APPEND": (0x61, ""), "APPENDS": (0x65, ""),
    "EMPTY_DICT": (0x7D, ""), "SETITEM": (0x73, ""), "SETITEMS": (0x75, ""),
    "EMPTY_SET": (0x8F, ""), "ADDITEMS": (0x90, ""), "FROZENSET": (0x91, ""),
    "GLOBAL": (0x63, "lines"), "STACK_GLOBAL": (0x93, ""), "REDUCE": (0x52, ""), "NEWOBJ": (0x81, ""),
    "BUILD": (0x62, ""), "BINPERSID": (0x51, ""),
    "BINGET": (0x68, "u1"), "LONG_BINGET": (0x6A, "u4"), "BINPUT": (0x71, "u1"), "LONG_BINPUT": (0x72, "u4"),
    "MEMOIZE": (0x94, ""),
}
_BY_BYTE = {byte: (name, kind) for name, (byte, kind) in _OPCODES.items()}
# For messages: opcodes that pickle knows and this reader refuses.
_REFUSED = {0x30: "POP", 0x31: "POP_MARK", 0x32: "DUP", 0x46: "FLOAT", 0x49: "INT", 0x4C: "LONG", 0x50: "PERSID",
            0x53: "STRING", 0x56: "UNICODE", 0x64: "DICT", 0x67: "GET", 0x69: "INST", 0x6C: "LIST", 0x6F: "OBJ",
            0x70: "PUT", 0x82: "EXT1", 0x83: "EXT2", 0x84: "EXT4", 0x92: "NEWOBJ_EX", 0x97: "NEXT_BUFFER",
            0x98: "READONLY_BUFFER"}
_FIXED = {"u1": struct.Struct("<B"), "u2": struct.Struct("<H"), "u4": struct.Struct("<I"), "u8": struct.Struct("<Q"),
          "i4": struct.Struct("<i"), "f8": struct.Struct(">d")}
_MAX_PROTOCOL = 5
_MAX_NAME = 1000  # of a global
# Bytes that an opcode's object takes at most, beyond its own data; the rest cost nothing that lasts.
_COST = {"EMPTY_LIST": 88, "EMPTY_DICT": 96, "EMPTY_SET": 224, "FROZENSET": 224, "TUPLE": 72, "TUPLE1": 56,
         "TUPLE2": 64, "TUPLE3": 72, "BININT": 40, "BININT2": 40, "BINFLOAT": 32, "LONG1": 48, "LONG4": 48,
         "SETITEM": 100, "REDUCE": 200, "NEWOBJ": 200, "MARK": 72, "BINPUT": 50, "LONG_BINPUT": 100, "MEMOIZE": 100,
         "GLOBAL": 60}
_TEXT_COST = 64


def decode(data: bytes, start: int = 0) -> Iterator[tuple[str, Any, int]]:
    """``(opcode name, argument, position after it)`` up to and including STOP.

    Raises CheckpointError for an opcode outside the allow-list, a bad argument or a stream without STOP.
    """
    position, size = start, len(data)
    while True:
        if position >= size:
            raise CheckpointError("the pickle stream ends without STOP: truncated")
        byte = data[position]
        found = _BY_BYTE.get(byte)
        if found is None:
            name = _REFUSED.get(byte)
            raise CheckpointError(f"refused: pickle opcode {name}" if name else f"invalid pickle opcode 0x{byte:02x}")
        name, kind = found
        position += 1
        argument = None
        if kind:
            argument, position = _argument(kind, data, position)
        yield name, argument, position
        if name == "STOP":
            return


def _argument(kind: str, data: bytes, at: int) -> tuple[Any, int]:
    fixed = _FIXED.get(kind)
    if fixed is not None:
        if at + fixed.size > len(data):
            raise CheckpointError("the pickle stream is truncated")
        return fixed.unpack_from(data, at)[0], at + fixed.size
    if kind == "lines":
        return _lines(data, at)
    width = int(kind[-1])
    begin = at + width
    length = int.from_bytes(data[at:begin], "little", signed=kind == "long4")
    end = begin + length
    if length < 0 or end > len(data) or begin > len(data):
        raise CheckpointError(f"a pickled string claims {length} bytes, more than the stream has")
    raw = data[begin:end]
    if kind.startswith("text"):
        try:
            return raw.decode("utf-8", "surrogatepass"), end
        except UnicodeDecodeError as error:
            raise CheckpointError(f"a pickled string is not UTF-8: {error}") from None
    return (int.from_bytes(raw, "little", signed=True) if kind.startswith("long") else raw), end


def _lines(data: bytes, at: int) -> tuple[tuple[str, str], int]:
    """The two newline-terminated names of GLOBAL."""
    names = []
    for _ in range(2):
        end = data.find(b"\n", at, at + _MAX_NAME)
        if end < 0:
            raise CheckpointError("a pickled global has no end")
        try:
            names.append(data[at:end].decode())
        except UnicodeDecodeError:
            raise CheckpointError("a pickled global is not UTF-8") from None
        at = end + 1
    return (names[0], names[1]), at


def scan(data: bytes, start: int, budget: int, check_global: Callable[[str, str], Any]) -> int:
    """Check a whole stream before any of it is acted on; returns the position after STOP.

    ``check_global(module, name)`` raises for a global that is refused. Raises CheckpointError for a refused opcode, or
    when the objects would take more than ``budget`` bytes.
    """
    end, cost, first = start, 0, True
    for name, argument, after in decode(data, start):
        end = after
        if first != (name == "PROTO"):
            raise CheckpointError("a pickle stream must begin with PROTO, and only begin with it")
        if first and not 2 <= argument <= _MAX_PROTOCOL:
            raise CheckpointError(f"pickle protocol {argument}; protocols 2 to {_MAX_PROTOCOL} are supported")
        first = False
        if name == "GLOBAL":
            check_global(*argument)
        cost += _COST.get(name, 1)
        if type(argument) in (str, bytes):
            # A Python string takes up to four bytes a character, and appears in both passes.
            cost += _TEXT_COST + (4 if type(argument) is str and not argument.isascii() else 1) * len(argument)
        if cost > budget:
            raise CheckpointError(f"its pickled objects would need more than {budget} bytes of memory; if the file is "
                                  "trusted, pass object_budget=<bytes> to load()")
    return end
