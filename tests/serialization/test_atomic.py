"""Saving survives kills, full disks and failing writes: the previous file stays, and nothing else is left behind."""
from __future__ import annotations

import errno
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from _ckpt import dump, load

from graphc.serialization import atomic
from graphc.serialization.atomic import write_chunks

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def leftovers(folder):
    return [name for name in os.listdir(folder) if "graphc-tmp" in name]


def run_child(code, *args, **options):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, ROOT, os.path.dirname(__file__)])}
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), *map(str, args)], env=env, **options)


SAVER = """
import sys, numpy as np
from _ckpt import dump
from graphc.serialization.atomic import write_chunks
path = sys.argv[1]
versions = [dump({"step": i, "w": np.full(200_000, i, "f4")}) for i in range(2)]
print("ready", flush=True)
while True:
    for data in versions:
        write_chunks(path, [data[i:i + 65536] for i in range(0, len(data), 65536)])
"""


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_kill_9_during_save_never_loses_the_file(tmp_path):
    path, rng, caught = tmp_path / "model.pt", random.Random(0), 0
    for _ in range(30):
        child = run_child(SAVER, path, stdout=subprocess.PIPE)
        child.stdout.readline()
        deadline = time.monotonic() + 20
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(rng.random() * 0.02)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        caught += bool(leftovers(tmp_path))
        got = load(path.read_bytes())
        assert (got["w"] == got["step"]).all()
    assert caught > 3  # kills did hit the middle of saves
    write_chunks(path, [dump({"w": np.ones(3)})])
    assert os.listdir(tmp_path) == ["model.pt"]  # the next save swept up


@pytest.mark.skipif(os.name == "nt", reason="needs RLIMIT_FSIZE")
@pytest.mark.parametrize("limit", [0, 1, 5000, 65536, 100_000])
def test_full_disk_leaves_the_previous_file(tmp_path, limit):
    path = tmp_path / "model.pt"
    old = dump({"w": np.ones(3)})
    write_chunks(path, [old])
    data = dump({"w": np.zeros(100_000)})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OSError) as error:
            write_chunks(path, [data[:50], data[50:]])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.value.errno == errno.EFBIG
    assert path.read_bytes() == old and os.listdir(tmp_path) == ["model.pt"]


class Broken:
    """Raises at the n-th call of write."""

    def __init__(self, n):
        self.n, self.data = n, b""

    def write(self, chunk):
        self.n -= 1
        if self.n < 0:
            raise OSError(errno.EIO, "broken")
        self.data += bytes(chunk)
        return len(chunk)


def test_a_failing_system_call_at_any_point_leaves_the_previous_file(tmp_path, monkeypatch):
    path = tmp_path / "m"
    write_chunks(path, [b"old"])
    for name in ("open", "fsync", "replace"):
        with monkeypatch.context() as m:
            m.setattr(atomic.os, name, lambda *a, **k: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
            with pytest.raises(OSError, match="full"):
                write_chunks(path, [b"new"])
        assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["m"]


def test_an_error_or_interrupt_while_chunks_are_made_leaves_the_previous_file(tmp_path):
    path = tmp_path / "m"
    write_chunks(path, [b"old"])
    for exception in (ValueError, KeyboardInterrupt, MemoryError):
        def chunks(exception=exception):
            yield b"new"
            raise exception

        with pytest.raises(exception):
            write_chunks(path, chunks())
        assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["m"]


def test_every_failing_write_of_a_file_object_is_reported():
    data = [b"a", b"bc", b"d" * 10]
    for n in range(3):
        with pytest.raises(OSError, match="broken"):
            write_chunks(Broken(n), data)
    whole = Broken(99)
    write_chunks(whole, data)
    assert whole.data == b"".join(data)


def test_short_and_silent_writes():
    class Short:
        data = b""

        def write(self, chunk):
            self.data += bytes(chunk[:3])
            return min(3, len(chunk))

    class Silent(Short):
        def write(self, chunk):  # many objects return None and mean all of it
            self.data += bytes(chunk)

    for f in (Short(), Silent()):
        write_chunks(f, [b"0123456789", np.arange(3, dtype="u1"), memoryview(b"xy"), np.ones(2, "i4").data])
        assert f.data == b"0123456789\0\1\2xy" + np.ones(2, "i4").tobytes()

    class Stuck:
        def write(self, chunk):
            return 0

    with pytest.raises(OSError, match="accepted 0 of 2"):
        write_chunks(Stuck(), [b"ab"])


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.skipif(os.name == "nt", reason="POSIX modes")
def test_mode_follows_umask_and_an_existing_file_keeps_its_own(tmp_path):
    for umask, want in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        before = os.umask(umask)
        try:
            write_chunks(tmp_path / f"{umask:o}", [b"x"])
        finally:
            os.umask(before)
        assert mode(tmp_path / f"{umask:o}") == want
    private = tmp_path / "private"
    private.touch(0o600)
    write_chunks(private, [b"secret"])
    assert mode(private) == 0o600


def test_symbolic_link_keeps_pointing_and_hard_link_keeps_the_old(tmp_path):
    real = tmp_path / "deep" / "real"
    real.parent.mkdir()
    real.write_bytes(b"old")
    (tmp_path / "link").symlink_to(real)
    os.link(real, tmp_path / "backup")
    write_chunks(tmp_path / "link", [b"new"])
    assert (tmp_path / "link").is_symlink() and real.read_bytes() == b"new"
    assert (tmp_path / "backup").read_bytes() == b"old"
    assert not leftovers(tmp_path) and not leftovers(real.parent)


@pytest.mark.skipif(os.name == "nt", reason="needs a FIFO")
def test_devices_and_pipes_are_written_not_replaced(tmp_path):
    write_chunks("/dev/null", [b"x"])
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    child = run_child("import sys; print(open(sys.argv[1], 'rb').read())", fifo, stdout=subprocess.PIPE)
    write_chunks(fifo, [b"ab", b"c"])
    assert child.communicate(timeout=20)[0].strip() == b"b'abc'"
    assert stat.S_ISFIFO(os.stat(fifo).st_mode)


def test_wrong_targets(tmp_path):
    with pytest.raises(IsADirectoryError, match="folder"):
        write_chunks(tmp_path, [b"x"])
    with pytest.raises(FileNotFoundError, match="parent folder"):
        write_chunks(tmp_path / "no" / "file", [b"x"])
    with pytest.raises(TypeError, match="'write' attribute"):
        write_chunks(3, [b"x"])
    with pytest.raises(OSError):
        write_chunks(tmp_path / ("n" * 300), [b"x"])
    write_chunks(tmp_path / ("n" * 255), [b"x"])  # the temporary's name must not be longer than the target's
    assert not leftovers(tmp_path)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions don't bind root")
def test_read_only_folder(tmp_path):
    path = tmp_path / "m"
    write_chunks(path, [b"old"])
    os.chmod(tmp_path, 0o500)
    try:
        with pytest.raises(PermissionError):
            write_chunks(path, [b"new"])
    finally:
        os.chmod(tmp_path, 0o700)
    assert path.read_bytes() == b"old"


def test_only_stale_temporaries_of_this_target_are_removed(tmp_path):
    path = str(tmp_path / "m")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    base = atomic._temp_name(path)
    names = {
        "dead process": (base.replace(f"-{os.getpid()}-", f"-{dead.pid}-"), 0, True),
        "own, forgotten (a restarted container has the same pid)": (atomic._temp_name(path), 0, True),
        "live process": (base.replace(f"-{os.getpid()}-", f"-{os.getppid()}-"), 0, False),
        "other host": (base.replace(atomic._host(), "00000000"), 0, False),
        "other host, old": (base.replace(atomic._host(), "00000001"), 10**6, True),
        "other target": (atomic._temp_name(path + "2"), 0, False),
        "not ours": (".m.tmp", 10**6, False),
    }
    for name, age, _ in names.values():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    write_chunks(path, [b"x"])
    for why, (name, _, removed) in names.items():
        assert (tmp_path / name).exists() != removed, why


def test_threads_saving_to_one_path_never_mix(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    path = tmp_path / "m"
    blobs = [bytes([i]) * 50_000 for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda b: write_chunks(path, [b[:100], b[100:]]), blobs * 4))
    assert path.read_bytes() in blobs and os.listdir(tmp_path) == ["m"]
