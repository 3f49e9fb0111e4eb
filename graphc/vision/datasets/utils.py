"""Downloading, checking and unpacking the files of a dataset."""
from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

_CHUNK = 1 << 20


class CorruptFileError(RuntimeError, OSError):
    """A file of a dataset that is truncated or damaged; the message names it."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


def calculate_md5(fpath: Any, chunk_size: int = _CHUNK) -> str:
    """The file's MD5 as hexadecimal digits (a checksum against damage, not against forgery)."""
    import hashlib

    md5 = hashlib.md5(usedforsecurity=False)
    with open(fpath, "rb") as f:
        while chunk := f.read(chunk_size):
            md5.update(chunk)
    return md5.hexdigest()


def check_md5(fpath: Any, md5: str) -> bool:
    """Whether the file has this checksum."""
    return md5 == calculate_md5(fpath)


def check_integrity(fpath: Any, md5: str | None = None) -> bool:
    """Whether the file exists and, if given, has this checksum."""
    return os.path.isfile(fpath) and (md5 is None or check_md5(fpath, md5))


def download_url(url: str, root: Any, filename: Any = None, md5: str | None = None) -> None:
    """Download into ``root`` unless a file with the right checksum is there.

    The file appears under its name only when complete. Raises urllib.error.URLError or OSError when the network fails,
    RuntimeError when the checksum is wrong.
    """
    import urllib.request

    root = os.path.expanduser(root)
    path = os.path.join(root, filename or os.path.basename(url))
    os.makedirs(root, exist_ok=True)
    if check_integrity(path, md5):
        return
    part = f"{path}.part{os.getpid()}"
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "graphc"})
        with urllib.request.urlopen(request, timeout=60) as response, open(part, "wb") as f:
            while chunk := response.read(_CHUNK):
                f.write(chunk)
        if md5 is not None and (got := calculate_md5(part)) != md5:
            raise RuntimeError(f"File not found or corrupted: {url} has MD5 {got}, expected {md5}")
        os.replace(part, path)
    finally:
        if os.path.exists(part):
            os.remove(part)


def download_any(urls: Sequence[str], root: Any, filename: str, md5: str | None, advice: str) -> None:
    """Download from the first URL that works. Raises RuntimeError that tells what each said, and ``advice``."""
    import http.client

    failures = []
    for url in urls:
        try:
            download_url(url, root, filename, md5)
            return
        except (RuntimeError, OSError, http.client.HTTPException) as error:  # URLError is an OSError
            failures.append(f"Tried {url}, got:\n{error}\n")
    raise RuntimeError(f"Error downloading {filename}:\n{''.join(failures)}{advice}")


def extract_archive(from_path: Any, to_path: Any = None) -> str:
    """Unpack a .tar, .tar.gz, .tgz, .zip or .gz file; members that would leave ``to_path`` are refused."""
    name = os.fspath(from_path)
    to_path = os.fspath(to_path) if to_path is not None else os.path.dirname(name)
    if name.endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")):
        import tarfile

        with tarfile.open(name) as tar:
            _refuse_escapes([(m.name, m.isfile() or m.isdir()) for m in tar.getmembers()], to_path, name)
            if hasattr(tarfile, "data_filter"):
                tar.extractall(to_path, filter="data")
            else:
                tar.extractall(to_path)
        return to_path
    if name.endswith(".zip"):
        import zipfile

        with zipfile.ZipFile(name) as z:
            _refuse_escapes([(n, True) for n in z.namelist()], to_path, name)
            z.extractall(to_path)
        return to_path
    if name.endswith(".gz"):
        import gzip
        import shutil

        target = os.path.join(to_path, os.path.basename(name)[:-3])
        with gzip.open(name, "rb") as source, open(target, "wb") as out:
            shutil.copyfileobj(source, out)
        return target
    raise RuntimeError(f"Unknown compression or archive type: {name!r}. Known are .tar, .tar.gz, .tgz, .zip and .gz")


def _refuse_escapes(members: list[tuple[str, bool]], to_path: str, archive: str) -> None:
    base = os.path.realpath(to_path)
    for member, plain in members:
        target = os.path.realpath(os.path.join(base, member))
        if not plain or os.path.commonpath([base, target]) != base:
            raise RuntimeError(f"{archive} is refused: its member {member!r} is a link or would be written outside {base}")


def download_and_extract_archive(url: str, download_root: Any, extract_root: Any = None, filename: Any = None,
                                 md5: str | None = None, remove_finished: bool = False) -> None:
    """Download an archive and unpack it."""
    download_root = os.path.expanduser(download_root)
    filename = filename or os.path.basename(url)
    download_url(url, download_root, filename, md5)
    archive = os.path.join(download_root, filename)
    extract_archive(archive, extract_root or download_root)
    if remove_finished:
        os.remove(archive)
