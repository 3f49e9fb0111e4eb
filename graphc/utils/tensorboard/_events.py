"""TensorBoard's event files: protocol buffers (``event.proto``, ``summary.proto``) in TFRecord frames.

A frame is the length (8 bytes), its masked CRC-32C, the message, its masked CRC-32C. Numbers are little-endian.
"""
from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np


def _table() -> list[int]:
    """CRC-32C (Castagnoli, reflected polynomial 0x82F63B78) of every byte."""
    out = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        out.append(byte)
    return out


_CRC = _table()


def masked_crc(data: bytes) -> int:
    """CRC-32C rotated and offset, as TFRecord stores it."""
    crc = 0xFFFFFFFF
    for b in data:
        crc = (crc >> 8) ^ _CRC[(crc ^ b) & 255]
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def frame(message: bytes) -> bytes:
    """One record."""
    length = struct.pack("<Q", len(message))
    return b"".join((length, struct.pack("<I", masked_crc(length)), message, struct.pack("<I", masked_crc(message))))


# ------------------------------------------------------------------------------------------------------ protocol buffers
def varint(n: int) -> bytes:
    """Seven bits per byte, the lowest first; negative numbers as 64-bit two's complement."""
    n &= (1 << 64) - 1
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def number(field: int, n: int) -> bytes:
    """An integer field."""
    return varint(field << 3) + varint(n)


def double(field: int, x: float) -> bytes:
    return varint(field << 3 | 1) + struct.pack("<d", x)


def single(field: int, x: float) -> bytes:
    return varint(field << 3 | 5) + struct.pack("<f", x)


def text(field: int, data: bytes | str) -> bytes:
    """A string, bytes or inner message field."""
    raw = data.encode() if isinstance(data, str) else data
    return varint(field << 3 | 2) + varint(len(raw)) + raw


def doubles(field: int, values: Any) -> bytes:
    """A packed list."""
    return text(field, np.asarray(values, "<f8").tobytes())


# -------------------------------------------------------------------------------------------------------------- events
def event(walltime: float, step: int | None = None, *, summary: bytes | None = None, version: str = "") -> bytes:
    """An ``Event`` with a ``Summary``, or the first one of a file with its version."""
    body = double(1, walltime) + (b"" if step is None else number(2, step))
    return body + (text(3, version) if version else b"") + (b"" if summary is None else text(5, summary))


def value(tag: str, body: bytes, plugin: str = "", content: bytes = b"") -> bytes:
    """A ``Summary`` of one ``Summary.Value``; ``plugin`` names what shows it."""
    metadata = text(9, text(1, text(1, plugin) + text(2, content))) if plugin else b""
    return text(1, text(1, tag) + metadata + body)


def scalar(tag: str, x: float) -> bytes:
    return value(tag, single(2, x))


def string_tensor(tag: str, content: str) -> bytes:
    """Text for the plugin of that name: a ``TensorProto`` of one string."""
    tensor = number(1, 7) + text(2, text(2, number(1, 1))) + text(8, content)
    return value(tag, text(8, tensor), "text")


def scalar_tensor(tag: str, x: float, wide: bool) -> bytes:
    """A scalar as a ``TensorProto`` of float or double."""
    raw = struct.pack("<d" if wide else "<f", x)
    tensor = number(1, 2 if wide else 1) + text(2, b"") + text(6 if wide else 5, raw)
    return value(tag, text(8, tensor), "scalars")


def histogram(tag: str, values: np.ndarray, limits: np.ndarray, counts: np.ndarray) -> bytes:
    """A ``HistogramProto``: numbers up to each limit, and the moments."""
    v = values.astype(np.float64).reshape(-1)
    proto = (double(1, v.min()) + double(2, v.max()) + double(3, float(v.size)) + double(4, v.sum()) + double(5, float(v @ v))
             + doubles(6, limits) + doubles(7, counts))
    return value(tag, text(5, proto))


def image(tag: str, pixels: np.ndarray) -> bytes:
    """An ``Image`` of uint8 (height, width, channels)."""
    h, w, c = pixels.shape
    return value(tag, text(4, number(1, h) + number(2, w) + number(3, c) + text(4, png(pixels))))


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of uint8 (height, width, 1 to 4 channels): grey, grey with alpha, RGB, RGBA."""
    h, w, c = pixels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = np.concatenate([np.zeros((h, 1), np.uint8), np.ascontiguousarray(pixels).reshape(h, w * c)], 1)
    header = struct.pack(">IIBBBBB", w, h, 8, {1: 0, 2: 4, 3: 2, 4: 6}[c], 0, 0, 0)
    return b"".join((b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows.tobytes())),
                     chunk(b"IEND", b"")))


def audio(tag: str, samples: np.ndarray, rate: int) -> bytes:
    """An ``Audio`` of samples in -1..1 as 16-bit mono WAV."""
    data = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
    form = struct.pack("<IHHIIHH", 16, 1, 1, rate, rate * 2, 2, 16)
    wav = b"".join((b"RIFF", struct.pack("<I", 36 + len(data)), b"WAVEfmt ", form, b"data", struct.pack("<I", len(data)), data))
    proto = single(1, float(rate)) + number(2, 1) + number(3, samples.size) + text(4, wav) + text(5, "audio/wav")
    return value(tag, text(6, proto))
