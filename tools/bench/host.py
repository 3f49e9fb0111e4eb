"""Host cost: what recording, looking up and flushing a program costs in Python, beside PyTorch, JAX, MLX and tinygrad.

    python tools/bench/host.py [--write]

prints a markdown table; ``--write`` puts it into ``RESULTS.md`` beside this file. Every figure is a median of repeats; those of
the host cost of calls are the least of three processes', taken in turns, since what else a machine does only adds to them. Each
peer runs in its own process and is skipped when it is not installed (other environments: ``GRAPHC_BENCH_PYTHON_JAX`` and so
on, as in compare.py). The program is one training step of the
784-64-10 perceptron, batch 64, cross entropy, SGD, from the same weights; losses of all must agree.
"""
from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import systems  # noqa: E402

ROUNDS = 3
START, END = "<!-- host -->", "<!-- /host -->"

GRAPHC_STEP = """
import json, statistics, sys, time
import numpy as np
import graphc as torch, graphc.nn as nn
from graphc.ir import recorder as R
from graphc.ir.interpret import expand_composites
from graphc.ir.node import Node
r = np.random.default_rng(0)
W = [r.uniform(-.03, .03, s).astype(np.float32) for s in ((64, 784), (64,), (10, 64), (10,))]
net = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
with torch.no_grad():
    for p, w in zip(net.parameters(), W): p.copy_(torch.tensor(w))
opt = torch.optim.SGD(net.parameters(), lr=0.1)
x, y = torch.tensor(r.standard_normal((64, 784)).astype(np.float32)), torch.tensor(r.integers(0, 10, 64))
R.flush()
def step():
    opt.zero_grad(); loss = nn.functional.cross_entropy(net(x), y); loss.backward(); opt.step(); return loss.detach()
losses = [step().item() for _ in range(5)]
pc = time.perf_counter
out = {"losses": losses}
run = torch.compile(step) if COMPILE else step
ts = []
for _ in range(400):
    t = pc(); run().item(); ts.append(pc() - t)
out["step_us"] = statistics.median(ts) * 1e6
R.state.hold += 1
def record():
    t = pc(); loss = step(); t = pc() - t
    reg = R.state.region
    nodes = len(R.region_graph(reg.cursor, ()).nodes)
    live = tuple(v.slot for q in reg.live if (v := q()) is not None and v.region is reg)
    graph = R.region_graph(reg.cursor, live)
    t2 = pc(); R.flush(); t2 = pc() - t2
    return t, nodes, graph, t2
rows = [record() for _ in range(300)]
out["record_us"] = statistics.median(a for a, *_ in rows) * 1e6
out["nodes"] = rows[-1][1]
out["primitives"] = len([n for n in expand_composites(rows[-1][2]).nodes if n.op.kind != "leaf"])
cold = []
for _ in range(15):
    R._Trie.root = Node(None, (), (), (), (), 0); R.state.region = R.Region()
    cold.append(record()[0])
out["cold_us"] = statistics.median(cold) * 1e6
h, many = torch.ones(8), []
for _ in range(4):
    z = h
    with torch.no_grad():
        t = pc()
        for _ in range(1500): z = z * h
        many.append((pc() - t) / 1500 * 1e6)
    R.flush()
out["chain_us"] = many[-1]
with torch.no_grad():
    ts = []
    for _ in range(300):
        z = h + 1; t = pc(); R.flush(); ts.append(pc() - t)
out["flush_us"] = statistics.median(ts) * 1e6
z = h
with torch.no_grad():
    for _ in range(4000): z = z + h
g = R.region_graph(R.state.region.cursor, (z._v.slot,))
ts = []
for _ in range(20):
    g._key = None; t = pc(); hash(g.key()); ts.append(pc() - t)
out["key_ms"], out["key_nodes"] = statistics.median(ts) * 1e3, len(g.nodes)
print(json.dumps(out))
"""

TORCH_STEP = """
import json, statistics, time
import numpy as np, torch, torch.nn as nn
torch.set_num_threads(1)
r = np.random.default_rng(0)
W = [r.uniform(-.03, .03, s).astype(np.float32) for s in ((64, 784), (64,), (10, 64), (10,))]
net = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
with torch.no_grad():
    for p, w in zip(net.parameters(), W): p.copy_(torch.tensor(w))
opt = torch.optim.SGD(net.parameters(), lr=0.1)
x, y = torch.tensor(r.standard_normal((64, 784)).astype(np.float32)), torch.tensor(r.integers(0, 10, 64))
def step():
    opt.zero_grad(); loss = nn.functional.cross_entropy(net(x), y); loss.backward(); opt.step(); return loss.detach()
out = {"losses": [step().item() for _ in range(5)]}
ts = []
for _ in range(400):
    t = time.perf_counter(); step().item(); ts.append(time.perf_counter() - t)
out["step_us"] = statistics.median(ts) * 1e6
print(json.dumps(out))
"""

TINYGRAD_RECORD = """
import json, os, statistics, time
os.environ.setdefault("DEV", "NULL"); os.environ.setdefault("NULL", "1")
from tinygrad import Tensor, nn
from tinygrad.helpers import Context
from tinygrad.nn import optim
class Net:
    def __init__(self): self.a, self.b = nn.Linear(784, 64), nn.Linear(64, 10)
    def __call__(self, x): return self.b(self.a(x).relu())
net = Net(); opt = optim.SGD([net.a.weight, net.a.bias, net.b.weight, net.b.bias], lr=0.1)
x, y = Tensor.empty(64, 784).realize(), Tensor.empty(64, dtype="int64").realize()
ts = []
for _ in range(12):
    t = time.perf_counter()
    with Context(TRAINING=1):
        opt.zero_grad(); loss = net(x).sparse_categorical_crossentropy(y); loss.backward(); opt.step(); loss.realize()
    ts.append(time.perf_counter() - t)
print(json.dumps({"step_us": statistics.median(ts[2:]) * 1e6}))
"""


WORKLOAD = """
import json, statistics, sys, time
sys.path[:0] = [HERE, ROOT]
import systems, workloads
w = workloads.WORKLOADS[NAME]
program = systems.build(SYSTEM, w, workloads.config(w, TINY), workloads.arrays(w, TINY), 1)
inside, clock = [0.0], time.perf_counter
if SYSTEM.startswith("graphc"):  # the time in kernels is measured apart
    from graphc.runtime import pool
    plain = pool.run
    def run(address):
        t = clock(); plain(address); inside[0] += clock() - t
    pool.run = run
def step():
    inside[0] = 0.0
    t = clock(); out = program.step(*program.inputs); program.wait(out); t = clock() - t
    return out, t, t - inside[0]
whole, beyond, losses = [], [], []
for k in range(REPEATS):
    out, t, own = step()
    if k < 5: losses.append(float(program.values(out)[0].reshape(-1)[0]))
    whole.append(t); beyond.append(own)
found = {"whole_us": whole, "beyond_us": beyond}
if SYSTEM.startswith("graphc"):  # the same calls, where kernels take no time and leave the caches as they are
    pool.run = lambda address: None
    found["host_us"] = [step()[1] for _ in range(max(REPEATS, 400))]
print(json.dumps({**{k: statistics.median(v[len(v) // 2:]) * 1e6 for k, v in found.items()}, "losses": losses}))
"""


def workload(system: str, name: str, tiny: bool, repeats: int) -> dict | None:
    """Times of a workload's step in one system, one thread, in a process of its own."""
    python = os.environ.get("GRAPHC_BENCH_PYTHON_" + systems.SYSTEMS.get(system, ("", "graphc"))[1].upper(), sys.executable)
    head = f"HERE, ROOT = {HERE!r}, {os.path.dirname(os.path.dirname(HERE))!r}\n"
    head += f"SYSTEM, NAME, TINY, REPEATS = {system!r}, {name!r}, {tiny}, {repeats}\n"
    with tempfile.TemporaryDirectory() as cache:
        return child(head + WORKLOAD, python, systems.environment(system, 1, cache, False))


def host_rows() -> list[tuple[str, str]]:
    """What a call costs besides its kernels, ours and the peers': of every figure the least of several rounds."""
    rounds = [dict(host_round()) for _ in range(ROUNDS)]
    rows = []
    for title in rounds[0]:
        found = [t for r in rounds if (t := r.get(title)) is not None]
        rows.append((title, f"{min(found):.0f} us" if found else "not installed"))
    return rows


def host_round() -> list[tuple[str, float | None]]:
    """Every host figure in microseconds, None for what is not installed."""
    rows: list[tuple[str, float | None]] = []
    for name, title in (("mlp", "MLP 784-64-10, batch 64, SGD"), ("gpt", "char-GPT, 4 layers, AdamW")):
        for system, how in (("graphc_compile", "compile"), (systems.REPLAY, 'compile(mode="replay")')):
            found = workload(system, name, False, 2000 if name == "mlp" else 60)
            if found:
                rows.append((f"host cost of a call, {title}: graphc, {how}", found["host_us"]))
                rows.append((f"... between kernels, whose data fills the caches ({title}, {how})", found["beyond_us"]))
    reference: list[float] | None = None
    for system in ("torch", "torch_compile", "jax", "mlx", "tinygrad", "graphc_compile", systems.REPLAY):
        title = "graphc, replay" if system == systems.REPLAY else systems.SYSTEMS[system][0]
        found = workload(system, "mlp", True, 60 if system == "tinygrad" else 1000)
        if found:
            reference = reference or found["losses"]
            assert all(abs(a - b) < 1e-4 for a, b in zip(reference, found["losses"])), f"{system}: losses differ"
        rows.append((f"whole step of the MLP at batch 4: {title}", found and found["whole_us"]))
    return rows


def child(code: str, python: str = sys.executable, more: dict[str, str] | None = None) -> dict | None:
    """Run ``code`` in its own process with one thread; its last line is JSON. None when it cannot run."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **(more or {})}
    done = subprocess.run([python, "-c", code], env=env, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "failed", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def import_ms(statement: str) -> float:
    """Median wall time of a fresh interpreter that runs ``statement``, its modules compiled to bytecode as after a first run."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    times = []
    for _ in range(9):
        t = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True, env=env)
        times.append(time.perf_counter() - t)
    return statistics.median(times[1:]) * 1e3


def version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def table() -> str:
    eager = child("COMPILE = False\n" + GRAPHC_STEP)
    compiled = child("COMPILE = True\n" + GRAPHC_STEP)
    torch, tiny = child(TORCH_STEP), child(TINYGRAD_RECORD)
    assert eager and compiled
    if torch:
        assert all(abs(a - b) < 1e-4 for a, b in zip(eager["losses"], torch["losses"])), "losses differ"
    rows = [
        ("record the MLP step, following", f"{eager['record_us']:.0f} us"),
        ("... per recorded node (composites count one)", f"{eager['record_us'] / eager['nodes']:.2f} us ({eager['nodes']} nodes)"),
        ("... per primitive the step consists of", f"{eager['record_us'] / eager['primitives']:.2f} us ({eager['primitives']} primitives)"),
        ("record the MLP step, cold", f"{eager['cold_us']:.0f} us, {eager['cold_us'] / eager['nodes']:.2f} us a node"),
        ("record a chain of multiplications, following", f"{eager['chain_us']:.2f} us an op"),
        ("flush of a cached one-op plan", f"{eager['flush_us']:.1f} us"),
        (f"canonical key of {eager['key_nodes']} nodes, with hash", f"{eager['key_ms']:.2f} ms"),
        ("`import graphc`, fresh process", f"{import_ms('import graphc'):.0f} ms (python {import_ms('pass'):.0f}, "
                                           f"numpy {import_ms('import numpy'):.0f})"),
        ("whole MLP step, graphc eager", f"{eager['step_us']:.0f} us"),
        ("whole MLP step, graphc.compile", f"{compiled['step_us']:.0f} us"),
        ("whole MLP step, PyTorch eager, 1 thread", f"{torch['step_us']:.0f} us" if torch else "not installed"),
        ("whole MLP step, tinygrad, host only (NULL device)", f"{tiny['step_us']:.0f} us" if tiny else "not installed"),
        *host_rows(),
    ]
    cpu = platform.processor() or platform.machine()
    head = (f"Date {time.strftime('%Y-%m-%d')}; {cpu}, {os.cpu_count()} cores, 1 thread used; Python {platform.python_version()} ({os.path.realpath(sys.executable)}), "
            f"numpy {version('numpy')}, torch {version('torch')}, tinygrad {version('tinygrad')}. Losses of the first five steps "
            "agree with PyTorch's to 1e-4.\n")
    return head + "\n| what | median |\n| --- | --- |\n" + "\n".join(f"| {a} | {b} |" for a, b in rows) + "\n"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    args = p.parse_args()
    text = table()
    print(text)
    if args.write:
        path = os.path.join(HERE, "RESULTS.md")
        old = open(path).read() if os.path.exists(path) else "# Measurements\n\n## Host cost\n\n" + START + "\n" + END + "\n"
        before, _, rest = old.partition(START)
        after = rest.partition(END)[2]
        with open(path, "w") as f:
            f.write(f"{before}{START}\n{text}{END}{after}")


if __name__ == "__main__":
    main()
