"""``torch.hub``: checkpoints from addresses, kept in the folder PyTorch uses. Code from the network is not run."""
from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
import urllib.parse
import urllib.request
from typing import Any, NoReturn

__all__ = ["download_url_to_file", "get_dir", "help", "list", "load", "load_state_dict_from_url", "set_dir"]

_HASH = re.compile(r"-([a-f0-9]{8,})\.")  # file names hold the first digits of their SHA-256: resnet18-f37072fd.pth
_dir: list[str] = []  # documented process-wide setting: the folder given to set_dir


def _get_torch_home() -> str:
    """$TORCH_HOME, else $XDG_CACHE_HOME/torch, else ~/.cache/torch."""
    cache = os.getenv("XDG_CACHE_HOME", "~/.cache")
    return os.path.expanduser(os.getenv("TORCH_HOME", os.path.join(cache, "torch")))


def get_dir() -> str:
    """Folder of downloads: what :func:`set_dir` said, else $TORCH_HOME/hub."""
    return _dir[0] if _dir else os.path.join(_get_torch_home(), "hub")


def set_dir(d: str | os.PathLike[str]) -> None:
    """Set the folder of downloads."""
    _dir[:] = [os.path.expanduser(os.fspath(d))]


def download_url_to_file(url: str, dst: str, hash_prefix: str | None = None, progress: bool = True) -> None:
    """Download to the path ``dst``. The file appears only when it is complete and its SHA-256 starts with ``hash_prefix``.

    Raises RuntimeError for a wrong hash, urllib.error.URLError when the address cannot be read.
    """
    dst = os.path.expanduser(dst)
    request = urllib.request.Request(url, headers={"User-Agent": "graphc.hub"})
    with urllib.request.urlopen(request) as source:
        size = source.headers.get("Content-Length")
        handle, part = tempfile.mkstemp(dir=os.path.dirname(dst) or ".", prefix=os.path.basename(dst) + ".", suffix=".part")
        try:
            digest, done = hashlib.sha256(), 0
            with os.fdopen(handle, "wb") as f:
                while chunk := source.read(1 << 17):
                    f.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    if progress and sys.stderr.isatty():
                        total = f" of {int(size) >> 20}" if size else ""
                        sys.stderr.write(f"\r{os.path.basename(dst)}: {done >> 20}{total} MiB")
            if progress and sys.stderr.isatty():
                sys.stderr.write("\n")
            if hash_prefix is not None and not digest.hexdigest().startswith(hash_prefix):
                raise RuntimeError(f'invalid hash value (expected "{hash_prefix}", got "{digest.hexdigest()}") of {url}')
            shutil.move(part, dst)
        finally:
            if os.path.exists(part):
                os.remove(part)


def load_state_dict_from_url(url: str, model_dir: str | None = None, map_location: Any = None, progress: bool = True,
                             check_hash: bool = False, file_name: str | None = None, weights_only: bool = False) -> Any:
    """The checkpoint at ``url``, downloaded once into ``model_dir`` (default: ``get_dir()/checkpoints``). Loading never runs
    code, whatever ``weights_only`` says."""
    from .serialization import load as load_file

    folder = model_dir if model_dir is not None else os.path.join(get_dir(), "checkpoints")
    os.makedirs(folder, exist_ok=True)
    name = file_name or os.path.basename(urllib.parse.urlparse(url).path)
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        found = _HASH.search(name) if check_hash else None
        download_url_to_file(url, path, found.group(1) if found else None, progress)
    return load_file(path, map_location=map_location)


def _no_code(what: str) -> NoReturn:
    raise NotImplementedError(f"hub.{what} runs code from the network: install the model's package, build it in code and use "
                              "hub.load_state_dict_from_url for its weights")


def load(repo_or_dir: Any, model: Any, *args: Any, source: str = "github", trust_repo: Any = "check",
         force_reload: bool = False, verbose: bool = True, skip_validation: bool = False, **kwargs: Any) -> Any:
    """Not there: see the message."""
    _no_code("load")


def list(github: Any, force_reload: bool = False, skip_validation: bool = False, trust_repo: Any = "check",
         verbose: bool = True) -> Any:
    """Not there: see the message."""
    _no_code("list")


def help(github: Any, model: Any, force_reload: bool = False, skip_validation: bool = False, trust_repo: Any = "check") -> Any:
    """Not there: see the message."""
    _no_code("help")
