"""Writing files so that a crash, a full disk or a kill at any moment leaves the previous file whole.

Recipe: write a temporary file in the same folder, fsync it, ``os.replace`` it over the target, fsync the folder.
"""
from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import threading
import time
import zlib
from collections.abc import Iterable
from typing import Any

from .source import is_path

_SUFFIX = ".graphc-tmp"
_NAME = re.compile(r"\.(?P<stem>[0-9a-f]{8})-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<rand>[0-9a-f]{16})"
                   + re.escape(_SUFFIX))
_STALE_SECONDS = 24 * 3600  # for temporaries of other machines, whose processes can't be asked
_active: set[str] = set()  # temporaries this process is writing now
_active_lock = threading.Lock()

Chunks = Iterable[Any]  # bytes-like objects


def write_chunks(f: Any, chunks: Chunks) -> None:
    """Write bytes-like ``chunks`` to ``f``: a path (atomically) or a file-like object with ``write``.

    Raises OSError when the system refuses (the previous file at a path is then intact) and TypeError when ``f`` is
    neither. A path that is a device or a pipe is written directly, since replacing it would destroy it.
    """
    if not is_path(f):
        if not hasattr(f, "write"):
            raise TypeError("expected 'f' to be string, path, or a file-like object with a 'write' attribute, "
                            f"got {type(f).__name__}")
        _write_all(f, chunks)
        return
    path = os.path.realpath(os.fsdecode(f))  # a symbolic link keeps pointing at the new file
    folder = os.path.dirname(path)
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, "this is a folder; a file name is needed to save to", path)
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, "the parent folder does not exist", folder)
    try:
        old_mode: int | None = os.stat(path).st_mode
    except FileNotFoundError:
        old_mode = None
    if old_mode is not None and not stat.S_ISREG(old_mode):
        with open(path, "wb") as device:
            _write_all(device, chunks)
        return
    _replace(path, folder, old_mode, chunks)


def _replace(path: str, folder: str, old_mode: int | None, chunks: Chunks) -> None:
    remove_stale(path)
    temp = os.path.join(folder, _temp_name(path))
    with _active_lock:
        _active.add(temp)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(temp, flags, 0o666)  # the umask applies, as for open(path, "wb")
        with open(descriptor, "wb", buffering=0) as file:
            if old_mode is not None:
                with contextlib.suppress(OSError):  # a private file stays private
                    os.chmod(temp, stat.S_IMODE(old_mode) & 0o777)
            _write_all(file, chunks)
            os.fsync(descriptor)
        os.replace(temp, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temp)
        raise
    finally:
        with _active_lock:
            _active.discard(temp)
    _sync_folder(folder)


def _write_all(file: Any, chunks: Chunks) -> None:
    for chunk in chunks:
        view = memoryview(chunk)
        view = view if view.format == "B" and view.ndim == 1 else view.cast("B")
        done = 0
        while done < len(view):
            part = view[done:done + (1 << 28)]
            wrote = file.write(part)
            if wrote is not None and not 0 < wrote <= len(part):
                raise OSError(errno.EIO, f"write() accepted {wrote} of {len(part)} bytes")
            done += len(part) if wrote is None else wrote


def _sync_folder(folder: str) -> None:
    """Make the rename itself durable, where the system can sync a folder."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _stem(path: str) -> str:
    return f"{zlib.crc32(os.fsencode(os.path.basename(path))):08x}"


def _host() -> str:
    import platform

    return f"{zlib.crc32(platform.node().encode()):08x}"


def _temp_name(path: str) -> str:
    # Short whatever the target's length, so that it always fits the file system's limit on names.
    return f".{_stem(path)}-{_host()}-{os.getpid()}-{os.urandom(8).hex()}{_SUFFIX}"


def remove_stale(path: str) -> None:
    """Delete temporaries that killed processes left behind while saving to ``path``. Never raises."""
    folder = os.path.dirname(path)
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            found = _NAME.fullmatch(name)
            if found and found["stem"] == _stem(path) and _is_stale(os.path.join(folder, name), found):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(folder, name))


def _is_stale(temp: str, found: re.Match[str]) -> bool:
    if found["host"] == _host():
        pid = int(found["pid"])
        if pid == os.getpid():
            with _active_lock:
                return temp not in _active
        if not _alive(pid):
            return True
    with contextlib.suppress(OSError):
        return time.time() - os.stat(temp).st_mtime > _STALE_SECONDS
    return False


def _alive(pid: int) -> bool:
    if os.name == "nt":  # os.kill would end the process there
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
