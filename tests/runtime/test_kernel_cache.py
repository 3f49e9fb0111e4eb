"""The disk cache of objects: whole entries or none, whatever happens to the files, the disk or the other processes."""
from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from graphc.runtime import kernel_cache
from graphc.runtime.kernel_cache import KernelCache

ROOT = str(Path(kernel_cache.__file__).resolve().parents[2])
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions and signals")


@pytest.fixture
def cache(tmp_path: Path) -> KernelCache:
    return KernelCache(tmp_path / "kernels", "llvm 22, some cpu")


def files(cache: KernelCache, suffix: str = ".obj") -> list[Path]:
    assert cache.directory is not None
    return sorted(p for p in cache.directory.iterdir() if p.name.endswith(suffix))


def test_round_trip(cache: KernelCache) -> None:
    key = cache.key("define void @f()")
    assert cache.get(key) is None
    cache.put(key, b"\0object\xff" * 1000)
    assert cache.get(key) == b"\0object\xff" * 1000
    cache.put(key, b"")
    assert cache.get(key) == b""
    cache.discard(key)
    assert cache.get(key) is None
    assert not files(cache, ".tmp")


def test_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that decides an object's bytes changes the key."""
    one = KernelCache(tmp_path, "cpu a")
    keys = {one.key("x"), one.key("y"), KernelCache(tmp_path, "cpu b").key("x"), KernelCache(tmp_path, "cpu a\0").key("x")}
    monkeypatch.setattr(kernel_cache, "FORMAT", kernel_cache.FORMAT + 1)
    keys.add(KernelCache(tmp_path, "cpu a").key("x"))
    assert len(keys) == 5
    assert one.key("x") == one.key("x")


@pytest.mark.parametrize("damage", [
    lambda b: b[:-1], lambda b: b + b"x", lambda b: b[:10], lambda b: b"", lambda b: b"\0" * len(b),
    lambda b: b[:60] + bytes([b[60] ^ 1]) + b[61:], lambda b: b[:20] + bytes([b[20] ^ 1]) + b[21:], lambda b: b"X" + b[1:],
    lambda b: b[:8] + (2 ** 63).to_bytes(8, "little") + b[16:]])
def test_damage_is_noticed_and_removed(cache: KernelCache, damage: object) -> None:
    key = cache.key("text")
    cache.put(key, bytes(range(256)))
    path, = files(cache)
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert cache.get(key) is None
    assert not path.exists()
    cache.put(key, b"again")
    assert cache.get(key) == b"again"


def test_entry_under_another_name(cache: KernelCache) -> None:
    """A whole entry is no good for another key."""
    a, b = cache.key("a"), cache.key("b")
    cache.put(a, b"object of a")
    path, = files(cache)
    path.rename(path.with_name(b + ".obj"))
    assert cache.get(b) is None


@posix
def test_private_directory(cache: KernelCache) -> None:
    cache.put(cache.key("a"), b"1")
    assert cache.directory is not None
    assert cache.directory.stat().st_mode & 0o777 == 0o700
    assert files(cache)[0].stat().st_mode & 0o777 == 0o600


@posix
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_directory_others_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    trusted = KernelCache(tmp_path, "s")
    trusted.put(trusted.key("a"), b"planted")
    tmp_path.chmod(mode)
    cache = KernelCache(tmp_path, "s")
    with pytest.warns(RuntimeWarning, match="other users may write to it") as seen:
        assert cache.get(cache.key("a")) is None
        cache.put(cache.key("b"), b"2")
    assert len(seen) == 1 and len(files(cache)) == 1


@posix
def test_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = KernelCache(tmp_path, "s")
    real = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: real + 1)
    with pytest.warns(RuntimeWarning, match="belongs to user"):
        cache.put(cache.key("a"), b"1")
    assert not files(cache)


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_disk_that_takes_nothing(cache: KernelCache, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """One notice, reads go on, nothing is left behind."""
    cache.put(cache.key("old"), b"old")

    def full(*a: object) -> None:
        raise OSError(code, os.strerror(code))
    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(RuntimeWarning, match="not kept on disk") as seen:
        cache.put(cache.key("a"), b"1")
        cache.put(cache.key("b"), b"2")
    assert len(seen) == 1
    assert cache.get(cache.key("old")) == b"old"
    assert len(files(cache)) == 1 and not files(cache, ".tmp")


def test_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = KernelCache(tmp_path / "file" / "kernels", "s")
    with pytest.warns(RuntimeWarning, match="not kept on disk"):
        assert cache.get(cache.key("a")) is None
    cache.put(cache.key("a"), b"1")
    nowhere = KernelCache(None, "s")
    with pytest.warns(RuntimeWarning, match="no home"):
        assert nowhere.get(nowhere.key("a")) is None


def test_warnings_as_errors_do_not_fail_a_program(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = KernelCache(tmp_path / "file", "s")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put(cache.key("a"), b"1")
        assert cache.get(cache.key("a")) is None


def test_pruning_drops_the_least_recent(cache: KernelCache) -> None:
    keys = [cache.key(str(k)) for k in range(6)]
    for age, key in enumerate(keys):
        cache.put(key, b"x" * 1000)
        os.utime(files(cache)[0].with_name(key + ".obj"), (time.time() - 1e5 + age, time.time() - 1e5 + age))
    assert cache.get(keys[0]) is not None  # now the most recent
    cache.cap = 3200
    cache.prune()
    assert [cache.get(key) is not None for key in keys] == [True, False, False, False, True, True]


def test_pruning_removes_what_killed_writers_left(cache: KernelCache) -> None:
    cache.put(cache.key("a"), b"1")
    old, young = files(cache)[0].with_name("a.1.tmp"), files(cache)[0].with_name("b.2.tmp")
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    cache.prune()
    assert not old.exists() and young.exists() and len(files(cache)) == 1


def test_pruning_while_others_delete(cache: KernelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(5):
        cache.put(cache.key(str(k)), b"x" * 100)
    cache.cap, real = 0, os.unlink

    def twice(path: str) -> None:
        real(path)
        real(path)  # as if another process had been faster
    monkeypatch.setattr(os, "unlink", twice)
    cache.prune()
    assert not files(cache)


def test_first_write_of_a_process_prunes_now_and_then(tmp_path: Path) -> None:
    def leftover() -> Path:
        path = tmp_path / "x.tmp"
        path.write_bytes(b"")
        os.utime(path, (1, 1))
        return path

    def write() -> None:
        cache = KernelCache(tmp_path, "s")
        cache.put(cache.key("a"), b"1")
    path = leftover()
    write()
    assert not path.exists()
    path = leftover()
    write()
    assert path.exists()  # pruned a moment ago
    os.utime(tmp_path / "pruned", (1, 1))
    write()
    assert not path.exists()


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "here"))
    assert kernel_cache.default_directory() == tmp_path / "here"
    monkeypatch.delenv("GRAPHC_CACHE_DIR")
    if sys.platform.startswith("linux"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert kernel_cache.default_directory() == tmp_path / "graphc"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert kernel_cache.default_directory() == tmp_path / ".cache" / "graphc"
    for value, on in (("1", False), ("0", True), ("", True)):
        monkeypatch.setenv("GRAPHC_NO_CACHE", value)
        assert kernel_cache.enabled() is on


WORKER = """
import sys, time
from pathlib import Path
from graphc.runtime.kernel_cache import KernelCache
cache, seed, end = KernelCache(Path(sys.argv[1]), "s", cap=300_000), int(sys.argv[2]), time.time() + float(sys.argv[3])
hits = 0
print("ready", flush=True)
while time.time() < end:
    for k in range(20):
        key = cache.key(str(k))
        found, right = cache.get(key), (b"%d," % k) * (1000 + 500 * k)
        assert found in (None, right), len(found)
        hits += found is not None
        if found is None or (k + seed) % 3 == 0:
            cache.put(key, right)
    seed += 1
    if seed % 5 == 0:
        cache.prune()
    if seed % 7 == 0:
        cache.discard(cache.key(str(seed % 20)))
print(hits)
"""


def start(directory: Path, seed: int, seconds: float) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": ROOT, "PYTHONWARNINGS": "error"}
    return subprocess.Popen([sys.executable, "-c", WORKER, str(directory), str(seed), str(seconds)], env=env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_several_processes(tmp_path: Path) -> None:
    """Writers, readers, pruners and deleters at once: a reader sees the right bytes or nothing."""
    workers = [start(tmp_path, k, 1.5) for k in range(3)]
    for worker in workers:
        out, err = worker.communicate(timeout=60)
        assert worker.returncode == 0 and not err, err
        assert int(out.split()[-1]) > 50
    assert not list(tmp_path.glob("*.tmp"))


@posix
def test_killed_writers(tmp_path: Path) -> None:
    """kill -9 at any moment leaves whole entries and at most temporary files."""
    rng = random.Random(0)
    for k in range(6):
        worker = start(tmp_path, k, 60)
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.002, 0.06))
        worker.send_signal(signal.SIGKILL)
        worker.communicate(timeout=60)
        cache, whole = KernelCache(tmp_path, "s"), 0
        for j in range(20):
            found = cache.get(cache.key(str(j)))
            assert found in (None, (b"%d," % j) * (1000 + 500 * j))
            whole += found is not None
    assert whole > 0
