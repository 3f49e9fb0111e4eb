"""Mutated files of every format raise CheckpointError and nothing else: no crash, no hang, no great allocation."""
from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COUNT = int(os.environ.get("GRAPHC_TEST_MUTANTS", "2000"))  # per format; 200000 at night

CHILD = """
import io, json, random, resource, signal, sys
import numpy as np
import _ckpt
from graphc.errors import CheckpointError
from graphc.serialization.records import StorageRecord, TensorRecord
from graphc.serialization.dtype_table import BY_NAME

kind, count, seed_file = sys.argv[1], int(sys.argv[2]), sys.argv[3]
data = open(seed_file, "rb").read()
rng = random.Random(kind)
heads = [(8, min(len(data), 2000)), (max(0, len(data) - 900), len(data))]
words = [b"\\xff" * 8, b"\\0" * 8, b"\\xff\\xff\\xff\\x7f", b"\\x80\\x02", b"PK\\1\\2", b"PK\\3\\4", b"PK\\5\\6", b".", b"R", b"b", b"(t", b"q\\0", b"h\\xff", b"e",
         b"\\x8a\\x09" + b"\\xff" * 8 + b"\\x7f", b"cos\\nsystem\\n", b"]" * 40, b"[[[[", b'"', b",", b"9" * 20, b"{}", b"null", b"1e999", b"-1"]

def mutant():
    m = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 6])):
        low, high = rng.choice(heads) if rng.random() < 0.85 else (0, len(m))
        low, high = min(low, len(m) - 1), min(max(high, low + 1), len(m))
        at, what = rng.randrange(low, max(high, low + 1)), rng.random()
        if what < 0.45:
            m[at] ^= 1 << rng.randrange(8)
        elif what < 0.6:
            m[at] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        elif what < 0.75:
            word = rng.choice(words)
            m[at:at + len(word)] = word
        elif what < 0.82:
            m[at:at] = rng.choice(words)
        elif what < 0.9:
            del m[at:at + rng.randrange(1, 9)]
        elif what < 0.96:
            other = rng.randrange(len(m))
            n = rng.randrange(1, 40)
            m[at:at + n] = m[other:other + n]
        else:
            del m[at:]
        if len(m) < 2:
            break
    return bytes(m)

def alarm(*_):
    raise TimeoutError("a load took more than a second")

signal.signal(signal.SIGALRM, alarm)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = used + (64 << 20) + 4 * len(data)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
out = {"loaded": 0, "refused": 0, "net": 0, "bad": []}
for i in range(count):
    m = mutant()
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        _ckpt.load_any(m)
        out["loaded"] += 1
        if kind == "graphc" and m != data:
            out["bad"].append([i, "a mutant was loaded"])
    except CheckpointError as error:
        out["refused"] += 1
        out["net"] += "damaged checkpoint (" in str(error)
        if "not enough memory" in str(error):
            out["bad"].append([i, str(error)])
        if "TimeoutError" in str(error):
            out["bad"].append([i, str(error)])
    except BaseException as error:
        out["bad"].append([i, repr(error)])
    signal.setitimer(signal.ITIMER_REAL, 0)
print(json.dumps(out))
"""


def seeds():
    import numpy as np
    from _ckpt import dump, dump_safetensors, dump_torch

    obj = {"model": {"w": np.arange(12, dtype="f4").reshape(3, 4), "b": np.ones(3, "f8"), "m": np.array([True, False])},
           "opt": {"lr": 0.1, "steps": [1, 2, (3, None)], "name": "adam", "raw": b"\0\1"}, "epoch": 2**70}
    found = {"graphc": dump(obj), "safetensors": dump_safetensors(obj["model"], {"k": "v"}), "torch zip by graphc": dump_torch(obj)}
    try:
        import io

        import torch
    except ImportError:
        return found
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    state = {"model": net.state_dict(), "t": torch.arange(6).reshape(2, 3).t(), "n": [1, {"a": 2.5}], "np": np.arange(3), "s": {1}}
    for name, options in (("torch zip", {}), ("torch zip 4", {"pickle_protocol": 4}), ("torch legacy", {"_use_new_zipfile_serialization": False})):
        out = io.BytesIO()
        torch.save(state, out, **options)
        found[name] = out.getvalue()
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS and /proc")
@pytest.mark.parametrize("kind", ["graphc", "safetensors", "torch zip", "torch zip 4", "torch legacy", "torch zip by graphc"])
def test_mutants(kind, tmp_path):
    data = seeds().get(kind)
    if data is None:
        pytest.skip("PyTorch is not installed")
    (tmp_path / "seed").write_bytes(data)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, ROOT, os.path.dirname(__file__)])}
    child = subprocess.run([sys.executable, "-c", textwrap.dedent(CHILD), kind, str(COUNT), str(tmp_path / "seed")], env=env,
                           capture_output=True, text=True, timeout=max(120, COUNT // 20))
    assert child.returncode == 0, child.stderr[-2000:]
    out = json.loads(child.stdout)
    assert out["bad"] == []
    assert out["loaded"] + out["refused"] == COUNT and out["refused"] > COUNT // 4
    assert out["net"] <= COUNT // 50, "the readers' own checks should catch nearly everything"
    if kind != "graphc":
        assert out["loaded"] > 0  # payload bytes of safetensors, padding of zip files
