"""Where checkpoint bytes come from: a path or a file-like object behind one small random-access interface."""
from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import CheckpointError, GraphcError


class Source:
    """Random access to ``size`` bytes. ``name`` appears in messages; ``seekable`` is a binary file object."""

    def __init__(self, file: Any, name: str, base: int, size: int):
        self._file, self.name, self._base, self.size = file, name, base, size

    def read_into(self, offset: int, buffer: np.ndarray) -> None:
        """Fill ``buffer`` (1-d uint8) from ``offset``. Raises CheckpointError when the source ends early."""
        self._file.seek(self._base + offset)
        view, done = buffer.data, 0
        while done < len(view):
            if hasattr(self._file, "readinto"):
                got = self._file.readinto(view[done:done + (1 << 30)])
            else:
                chunk = self._file.read(min(len(view) - done, 1 << 24))
                got = len(chunk)
                view[done:done + got] = chunk
            if not got:
                raise CheckpointError(f"the file ends at byte {offset + done}; {len(view) - done} more bytes expected")
            done += got

    def read(self, offset: int, count: int) -> bytes:
        """``count`` bytes from ``offset``; CheckpointError when they aren't all there."""
        if offset < 0 or count < 0 or offset + count > self.size:
            raise CheckpointError(f"the file has {self.size} bytes; bytes {offset} to {offset + count} were expected")
        buffer = np.empty(count, np.uint8)
        self.read_into(offset, buffer)
        return buffer.tobytes()


def is_path(f: Any) -> bool:
    """Whether ``f`` names a file rather than being one."""
    return isinstance(f, (str, os.PathLike))


@contextlib.contextmanager
def open_source(f: Any) -> Iterator[Source]:
    """A :class:`Source` over a path, or over a file-like object from its current position to its end.

    Raises FileNotFoundError, IsADirectoryError or another OSError for a path that can't be opened, and TypeError for
    an object that has no ``read``. A file object is left at its end, as after reading it.
    """
    if is_path(f):
        path = os.fsdecode(f)
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, "this is a folder; a checkpoint is a single file", path)
        with open(path, "rb") as file:
            if file.seekable():
                yield Source(file, path, 0, os.fstat(file.fileno()).st_size)
            else:  # a pipe
                data = file.read()
                yield Source(io.BytesIO(data), path, 0, len(data))
        return
    if not hasattr(f, "read"):
        raise TypeError("expected 'f' to be string, path, or a file-like object with a 'read' attribute, "
                        f"got {type(f).__name__}")
    name = getattr(f, "name", None)
    name = name if isinstance(name, str) else f"<{type(f).__name__}>"
    yield _stream_source(f, name)
    with contextlib.suppress(OSError, AttributeError, ValueError):
        f.seek(0, os.SEEK_END)


def _stream_source(f: Any, name: str) -> Source:
    try:
        base = f.tell()
        end = f.seek(0, os.SEEK_END)
        end = f.tell() if end is None else end
        f.seek(base)
    except (AttributeError, OSError, io.UnsupportedOperation):
        data = f.read()
        if not isinstance(data, (bytes, bytearray)):
            raise TypeError(f"'f' must be opened in binary mode; its read() returned {type(data).__name__}") from None
        return Source(io.BytesIO(data), name, 0, len(data))
    if isinstance(f, io.TextIOBase):
        raise TypeError("'f' must be opened in binary mode ('rb'), not text mode")
    return Source(f, name, base, max(0, end - base))


@contextlib.contextmanager
def damage_means_checkpoint_error(name: str) -> Iterator[None]:
    """Turn whatever a damaged or hostile file provokes into one CheckpointError that names the file.

    The readers check what they read; this is the safety net that keeps the promise for what they overlook.
    OSError (the disk, not the data) and graphc's other errors pass through.
    """
    try:
        yield
    except CheckpointError as error:
        text = str(error)
        if name in text:
            raise
        raise CheckpointError(f"{name}: {text}") from error.__cause__
    except (OSError, GraphcError):
        raise
    except MemoryError as error:
        raise CheckpointError(f"{name}: not enough memory to load this checkpoint") from error
    except Exception as error:
        raise CheckpointError(f"{name}: damaged checkpoint ({type(error).__name__}: {str(error)[:200]})") from error
