"""Compiled kernels on disk: object files keyed by a digest of their source, safe against other writers and crashes.

An entry is ``header + payload``; the header holds a magic, the payload's length and a sha256 over key and payload, so a
torn, foreign or damaged file is noticed, deleted and rebuilt. Files appear by ``os.replace`` only, hence a reader
sees a whole entry or none. Nothing here ever fails a program: the first trouble is one warning, then no cache.
"""
from __future__ import annotations

import hashlib
import os
import secrets
import stat
import struct
import sys
import time
import warnings
from pathlib import Path

FORMAT = 1  # part of every key: raise it when the meaning of an entry changes
CAP_BYTES = 512 << 20
_MAGIC = b"GRAPHCK1"
_HEADER = struct.Struct("<8sQ32s")  # magic, payload bytes, sha256(key + payload)
_SUFFIX, _TEMPORARY = ".obj", ".tmp"
_TOUCH_AFTER = 3600.0  # seconds: a hit refreshes the file's age at most this often
_STALE_TEMPORARY = 3600.0  # seconds after which a temporary file belongs to a killed writer
_PRUNE_EVERY = 600.0  # seconds between two prunings of a directory, over all processes


def default_directory() -> Path | None:
    """``GRAPHC_CACHE_DIR``, else ``graphc`` in the user's cache folder; None if there is no home to put it in."""
    named = os.environ.get("GRAPHC_CACHE_DIR")
    if named:
        return Path(os.path.abspath(os.path.expanduser(named)))
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.join("~", "AppData", "Local")
    elif sys.platform == "darwin":
        base = os.path.join("~", "Library", "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    path = os.path.expanduser(base)
    return Path(path) / "graphc" if os.path.isabs(path) else None


def enabled() -> bool:
    """False under ``GRAPHC_NO_CACHE=1``."""
    return os.environ.get("GRAPHC_NO_CACHE", "") in ("", "0", "false", "no")


class KernelCache:
    """Entries of one directory for one tool chain.

    ``stamp`` names everything but the source that decides an object's bytes: library versions, CPU and its features.
    ``directory`` None is a cache that holds nothing. Methods never raise OSError and are safe to call from threads.
    """

    def __init__(self, directory: Path | None, stamp: str, cap: int = CAP_BYTES):
        self.directory = directory
        self.cap = cap
        self._stamp = hashlib.sha256(f"{FORMAT}\0{stamp}\0".encode())
        self._checked = self._noticed = self._pruned = False
        self._readable = self._writable = directory is not None

    def key(self, text: str) -> str:
        """Name of the entry for a source text: 64 hexadecimal digits."""
        digest = self._stamp.copy()
        digest.update(text.encode())
        return digest.hexdigest()

    def get(self, key: str) -> bytes | None:
        """The payload stored under ``key``, or None. A damaged entry is deleted."""
        if not self._usable() or not self._readable:
            return None
        path = self._path(key)
        try:
            with open(path, "rb") as file:
                data, age = file.read(), time.time() - os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return None
        except OSError as error:
            self._notice(f"cannot read {path}: {error}")
            return None
        payload = _unpack(key, data)
        if payload is None:
            self.discard(key)
        elif abs(age) > _TOUCH_AFTER:
            _quietly(os.utime, path)
        return payload

    def put(self, key: str, payload: bytes) -> None:
        """Store an entry; the first one of a process may also prune the directory."""
        if not self._usable() or not self._writable:
            return
        temporary = os.path.join(str(self.directory), f"{key[:16]}.{os.getpid()}.{secrets.token_hex(4)}{_TEMPORARY}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
            with open(descriptor, "wb") as file:
                file.write(_HEADER.pack(_MAGIC, len(payload), _digest(key, payload)) + payload)
            os.replace(temporary, self._path(key))
        except OSError as error:
            self._writable = False
            _quietly(os.unlink, temporary)
            self._notice(f"cannot write {self.directory}: {error}")
            return
        if not self._pruned:
            self._pruned = True
            self._prune_now_and_then()

    def discard(self, key: str) -> None:
        """Remove an entry if it is there."""
        if self.directory is not None:
            _quietly(os.unlink, self._path(key))

    def prune(self) -> None:
        """Delete leftovers of killed writers, and the entries used least recently until ``cap`` bytes are left."""
        now, total, entries = time.time(), 0, []
        try:
            with os.scandir(str(self.directory)) as listing:
                for item in listing:
                    try:
                        facts = item.stat(follow_symlinks=False)
                    except OSError:  # deleted by another process meanwhile
                        continue
                    if item.name.endswith(_TEMPORARY) and now - facts.st_mtime > _STALE_TEMPORARY:
                        _quietly(os.unlink, item.path)
                    elif item.name.endswith(_SUFFIX):
                        total += facts.st_size
                        entries.append((facts.st_mtime, facts.st_size, item.path))
        except OSError:
            return
        entries.sort()
        for _, size, path in entries:
            if total <= self.cap:
                break
            _quietly(os.unlink, path)
            total -= size

    # ----------------------------------------------------------------------------------------------------- internals
    def _path(self, key: str) -> str:
        return os.path.join(str(self.directory), key + _SUFFIX)

    def _prune_now_and_then(self) -> None:
        marker = os.path.join(str(self.directory), "pruned")
        try:
            if time.time() - os.stat(marker).st_mtime < _PRUNE_EVERY:
                return
        except OSError:
            pass
        try:
            with open(marker, "wb"):
                os.utime(marker)
        except OSError:
            return
        self.prune()

    def _usable(self) -> bool:
        """Create and check the directory at first use."""
        if self._checked:
            return self._readable
        self._checked = True
        if self.directory is None:
            self._notice("no home directory to put it in")
            return False
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            reason = _untrusted(self.directory)
        except OSError as error:
            reason = str(error)
        if reason:
            self._readable = self._writable = False
            self._notice(f"{self.directory}: {reason}")
        return self._readable

    def _notice(self, reason: str) -> None:
        if self._noticed:
            return
        self._noticed = True
        try:
            warnings.warn(f"graphc: kernels are not kept on disk: {reason} (GRAPHC_CACHE_DIR names another folder, "
                          "GRAPHC_NO_CACHE=1 silences this)", RuntimeWarning, stacklevel=2)
        except RuntimeWarning:  # warnings turned into errors must not fail a program that runs fine without a cache
            pass


def _untrusted(directory: Path) -> str:
    """Why code in ``directory`` may not be run: it is somebody else's, or others may write to it. Empty if trusted."""
    facts = os.stat(directory)
    if not stat.S_ISDIR(facts.st_mode):
        return "not a directory"
    if os.name != "posix":
        return ""
    if facts.st_uid != os.geteuid():
        return f"belongs to user {facts.st_uid}, refused"
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"other users may write to it (mode {stat.S_IMODE(facts.st_mode):o}), refused"
    return ""


def _digest(key: str, payload: bytes) -> bytes:
    return hashlib.sha256(key.encode() + payload).digest()


def _unpack(key: str, data: bytes) -> bytes | None:
    """Payload of a file's bytes, or None if they are not a whole entry for ``key``."""
    if len(data) < _HEADER.size:
        return None
    magic, length, digest = _HEADER.unpack_from(data)
    payload = data[_HEADER.size:]
    if magic != _MAGIC or length != len(payload) or digest != _digest(key, payload):
        return None
    return payload


def _quietly(call: object, path: str) -> None:
    """Run a file operation whose failure changes nothing: another process was faster, or the disk is read-only."""
    try:
        call(path)  # type: ignore[operator]
    except OSError:
        pass
