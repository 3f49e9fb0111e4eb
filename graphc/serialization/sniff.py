"""Telling checkpoint formats apart, and saying what a foreign file looks like."""
from __future__ import annotations

from .source import Source
from .torch_format import LEGACY_MAGIC

SAFETENSORS, TORCH_ZIP, TORCH_LEGACY = "safetensors", "torch zip", "torch legacy"

_SIGNATURES = (
    (b"\x1f\x8b", "a gzip-compressed file; decompress it first"),
    (b"BZh", "a bzip2-compressed file; decompress it first"),
    (b"\xfd7zXZ", "an xz-compressed file; decompress it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd-compressed file; decompress it first"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras or PyTables)"),
    (b"\x93NUMPY", "a NumPy .npy file; load it with numpy.load"),
    (b"GGUF", "a GGUF file (llama.cpp)"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a program"),
    (b"version https://git-lfs", "a Git LFS pointer: the real file was not downloaded (git lfs pull)"),
    (b"ustar", "a tar archive"),
)


def kind_of(source: Source) -> str | None:
    """SAFETENSORS, TORCH_ZIP, TORCH_LEGACY, or None for anything else."""
    head = source.read(0, min(source.size, 64))
    if len(head) >= 9 and head[8:9] in (b"{", b" ") and int.from_bytes(head[:8], "little") < 1 << 40:
        return SAFETENSORS
    if head[:1] == b"\x80" and LEGACY_MAGIC in head[:32]:
        return TORCH_LEGACY
    if head.startswith(b"PK\3\4"):
        return TORCH_ZIP
    return None


def describe(source: Source) -> str:
    """What a file that is no checkpoint looks like, for the error message."""
    if source.size == 0:
        return "the file is empty"
    head = source.read(0, min(source.size, 512))
    for signature, meaning in _SIGNATURES:
        if head.startswith(signature) or (signature == b"ustar" and head[257:262] == signature):
            return f"it looks like {meaning}"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        return "it looks like an HTML or XML page: a download that returned an error or login page?"
    if text.startswith((b"{", b"[")):
        return "it looks like JSON text"
    if head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5":
        return "it looks like a Python pickle, which could run any code; graphc doesn't unpickle"
    if len(set(head)) == 1:
        return f"it consists of bytes 0x{head[0]:02x}: an interrupted copy?"
    if b"graphc." in head or b'"__metadata__"' in head:
        return "it looks like a graphc checkpoint whose first bytes are damaged"
    if all(32 <= b < 127 or b in b"\t\r\n" for b in head):
        return f"it looks like text, starting {head[:30].decode()!r}"
    return f"it starts with bytes {head[:8].hex(' ')}, no format graphc knows"
