"""Training steps and memory-bound kernels beside PyTorch, torch.compile, JAX, MLX and tinygrad on the CPU.

    python tools/bench/compare.py [--workloads mlp,gpt] [--systems torch,graphc] [--rounds N] [--quick] [--write]

Each system runs each workload in a process of its own; processes not being timed are stopped. Before timing, the first losses
(or outputs) must agree with PyTorch eager, else the row is marked WRONG and gets no figure. A peer that is not installed is
skipped with the reason. Peers may live in another environment: ``--python-for jax=/opt/peers/bin/python`` (groups: torch, jax, mlx,
tinygrad, numpy, graphc; or ``peers=`` for all but graphc) or ``GRAPHC_BENCH_PYTHON_JAX`` and so on. ``--write`` merges the rows into
``results.json`` and puts the tables into ``RESULTS.md``; ``--render`` only does the latter.
"""
from __future__ import annotations

import argparse
import json
import os
import select
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import quiet  # noqa: E402
import report  # noqa: E402
import systems  # noqa: E402
from workloads import WORKLOADS, Workload, arrays  # noqa: E402

START, END = "<!-- compare -->", "<!-- /compare -->"
STEPS = {"train": 5, "kernel": 3}


class Process:
    """One child; stopped (SIGSTOP) except while a command runs, so that idle thread pools cost the others nothing."""

    def __init__(self, python: str, system: str, w: Workload, data: str, env: dict[str, str], args: argparse.Namespace) -> None:
        command = [python, os.path.join(HERE, "runner.py"), "--system", system, "--workload", w.name, "--data", data,
                   "--threads", str(args.threads)] + (["--tiny"] if args.tiny else [])
        self.log = tempfile.TemporaryFile("w+")
        self.p = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, env={**os.environ, **env})
        self.timeout, self.buffer = args.timeout, b""

    def ask(self, *command: Any) -> dict[str, Any]:
        """The child's answer; a dead or silent child answers {"failed": reason}."""
        assert self.p.stdin and self.p.stdout
        try:
            self.p.send_signal(signal.SIGCONT)
            self.p.stdin.write((json.dumps(command) + "\n").encode())
            self.p.stdin.flush()
        except (OSError, ValueError):
            return {"failed": self.reason("process ended")}
        end = time.monotonic() + self.timeout
        while b"\n" not in self.buffer:
            if not select.select([self.p.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
                self.close()
                return {"failed": f"no answer within {self.timeout:.0f} s"}
            chunk = os.read(self.p.stdout.fileno(), 1 << 20)
            if not chunk:
                self.p.wait()
                return {"failed": self.reason(f"process ended with status {self.p.returncode}")}
            self.buffer += chunk
        line, self.buffer = self.buffer.split(b"\n", 1)
        if command[0] != "end" and self.p.poll() is None:
            self.p.send_signal(signal.SIGSTOP)
        return json.loads(line)

    def reason(self, what: str) -> str:
        self.log.seek(0)
        lines = [x for x in self.log.read().splitlines() if x.strip()]
        return f"{what}, {lines[-1][:160]}" if lines else what

    def close(self) -> None:
        if self.p.poll() is None:
            self.p.kill()
            self.p.wait()
        self.log.close()


def difference(w: Workload, got: dict[str, Any], want: dict[str, Any]) -> float:
    """Largest deviation in the measure ``Workload.tolerance`` is stated in; NaN counts as infinite."""
    if w.kind == "train":
        a, b = np.array(got["losses"]), np.array(want["losses"])
        d = np.abs(a - b) / np.maximum(1, np.abs(b))
    else:
        if len(got["samples"]) != len(want["samples"]):
            return float("inf")
        d = np.array([np.abs(np.subtract(x, y)).max() / max(1e-30, np.abs(y).max()) for x, y in zip(got["samples"], want["samples"])])
    return float(d.max()) if np.isfinite(d).all() else float("inf")


def python_of(system: str, args: argparse.Namespace) -> str:
    group = systems.SYSTEMS[system][1]
    chosen = dict(x.split("=", 1) for x in args.python_for)
    default = chosen.get("peers", sys.executable) if group != "graphc" else sys.executable
    return chosen.get(group) or os.environ.get(f"GRAPHC_BENCH_PYTHON_{group.upper()}") or default


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def started(system: str, w: Workload, data: str, cache: str, kept: bool, args: argparse.Namespace) -> tuple[Process, dict[str, Any]]:
    p = Process(python_of(system, args), system, w, data, systems.environment(system, args.threads, cache, kept), args)
    return p, p.ask("start", STEPS[w.kind])


def failure(answer: dict[str, Any]) -> str:
    return f"skipped: {answer['skip']}" if "skip" in answer else f"failed: {answer['failed']}"


def prepare(system: str, w: Workload, data: str, folder: str, memory: str, want: dict[str, Any] | None,
            args: argparse.Namespace) -> tuple[Process | None, dict[str, Any]]:
    """A process with empty caches (thrown away), one with filled caches (kept for timing), the check of its first steps."""
    row: dict[str, Any] = {"status": "ok", "date": time.strftime("%Y-%m-%d"), "times": []}
    cache = os.path.join(folder, system)
    os.makedirs(cache, exist_ok=True)
    if memory == "default" and not args.one_process:
        p, answer = started(system, w, data, cache, False, args)
        p.close()
        row["cold"] = answer.get("times")
    p, answer = started(system, w, data, cache, memory == "kept", args)
    if "times" not in answer:
        p.close()
        row["status"] = failure(answer)
        return None, row
    if want is None:
        row["status"] = "unchecked: no PyTorch to compare with"
        p.close()
        return None, row
    row["cold" if args.one_process else "warm"], row["difference"] = answer["times"], difference(w, answer, want)
    if not row["difference"] <= w.tolerance:
        p.close()
        row["status"] = f"WRONG: differs from torch eager by {row['difference']:.1e}, tolerance {w.tolerance:g}"
        return None, row
    return p, row


def finish(system: str, w: Workload, p: Process, row: dict[str, Any], memory: str, versions: dict[str, str]) -> None:
    """New batch sizes, peak memory, and the figures of ``row`` from its times."""
    answer = p.ask("end")
    versions |= answer.get("versions", {})
    row["rss_mb"] = answer.get("rss_mb")
    p.close()
    times = row.pop("times")
    if not times:
        return
    median = statistics.median(times)
    row |= {"median_ms": median * 1e3, "min_ms": min(times) * 1e3, "steps": len(times)}
    for kind in ("cold", "warm"):
        first = row.pop(kind, None)
        if first and memory == "default":
            row[kind + "_ms"] = max(first[0], sum(first[:3]) - 2 * median) * 1e3


def interleave(live: dict[str, Process], rows: dict[str, dict[str, Any]], args: argparse.Namespace) -> None:
    """Rounds in turns; of each system's slices of time the quiet ones count."""
    slices: dict[str, list[quiet.Slice]] = {s: [] for s in live}
    for _ in range(args.rounds):
        for s, q in list(live.items()):
            answer = q.ask("round", args.budget, args.patience)
            if "slices" in answer:
                slices[s] += answer["slices"]
            else:
                rows[s]["status"] = failure(answer)
                live.pop(s).close()
    for s in live:
        rows[s]["times"], rows[s]["waited"] = quiet.choose(slices[s])


def measure(w: Workload, memory: str, folder: str, args: argparse.Namespace, versions: dict[str, str]) -> dict[str, dict[str, Any]]:
    """All systems on one workload: prepared one by one, then timed in turns."""
    data = os.path.join(folder, w.name + ".npz")
    if not os.path.exists(data):
        np.savez(data, **arrays(w, args.tiny))
    p, want = started("torch", w, data, os.path.join(folder, "torch"), False, args)
    p.close()
    rows: dict[str, dict[str, Any]] = {}
    live: dict[str, Process] = {}
    for s in args.systems:
        if systems.applies(s, w):
            q, rows[s] = prepare(s, w, data, folder, memory, want if "times" in want else None, args)
            say(f"{w.name} {s} {memory}: {rows[s]['status']}")
            if q:
                live[s] = q
    interleave(live, rows, args)
    for s, q in live.items():
        if w.name == "mlp" and s in systems.NEW_BATCH:
            rows[s]["new_batch_ms"] = [t * 1e3 for t in q.ask("batch", [48, 80, 112]).get("times", [])] or None
        finish(s, w, q, rows[s], memory, versions)
    for r in rows.values():
        for k in ("times", "cold", "warm"):
            r.pop(k, None)
    os.remove(data)
    return {f"{s}/{memory}": r for s, r in rows.items()}


def machine(args: argparse.Namespace) -> dict[str, Any]:
    n = str(args.threads)
    env = {**os.environ, "OMP_NUM_THREADS": n, "OPENBLAS_NUM_THREADS": n, "MKL_NUM_THREADS": n}
    done = subprocess.run([python_of("torch", args), os.path.join(HERE, "machine.py"), n], env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Rows replaced one by one; the machine keeps its best rates, since other load only lowers them."""
    same = old.get("machine", {}).get("cpu") == new["machine"]["cpu"] and old["machine"]["threads"] == new["machine"]["threads"]
    if not same:
        return new
    best = {k: max(old["machine"][k], new["machine"][k]) for k in ("gbs", "gflops")}
    rows = {n: {**old["rows"].get(n, {}), **new["rows"].get(n, {})} for n in WORKLOADS if n in old["rows"] or n in new["rows"]}
    commands = [c for c in old["commands"] if c not in new["commands"]] + new["commands"]
    return {"machine": {**new["machine"], **best}, "versions": {**old["versions"], **new["versions"]}, "commands": commands[-12:], "rows": rows}


def write(results: dict[str, Any]) -> None:
    path = os.path.join(HERE, "RESULTS.md")
    with open(path) as f:
        old = f.read()
    if START not in old:
        old = f"{old.rstrip()}\n\n## Side by side\n\n{START}\n{END}\n"
    before, _, rest = old.partition(START)
    with open(path, "w") as f:
        f.write(f"{before}{START}\n{report.render(results)}{END}{rest.partition(END)[2]}")


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--workloads", default=",".join(WORKLOADS), help="comma-separated names, or train, kernel")
    p.add_argument("--systems", default=",".join(systems.SYSTEMS))
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--budget", type=float, default=0.5, help="seconds of timing per system and round")
    p.add_argument("--patience", type=float, default=6, help="a round may last so many times its budget to find quiet slices")
    p.add_argument("--memory", default="", help="default, kept or both; empty: both for kernels, default for training steps")
    p.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    p.add_argument("--timeout", type=float, default=900, help="seconds to wait for one answer of a child")
    p.add_argument("--python-for", action="append", default=[], metavar="GROUP=PYTHON")
    p.add_argument("--quick", action="store_true", help="two short rounds, no second process")
    p.add_argument("--one-process", action="store_true", help="no second process: first-step times are with empty caches only")
    p.add_argument("--tiny", action="store_true", help="small sizes: exercises the programs, its figures mean nothing")
    p.add_argument("--write", action="store_true", help="merge into results.json and RESULTS.md")
    p.add_argument("--render", action="store_true", help="write RESULTS.md from results.json without measuring")
    args = p.parse_args()
    if args.quick:
        args.rounds, args.budget, args.one_process, args.patience = 2, 0.15, True, 3.0
    names = args.workloads.split(",")
    args.workloads = [n for n in WORKLOADS if n in names or WORKLOADS[n].kind in names]
    args.systems = args.systems.split(",")
    for given, known in ((set(names) - {"train", "kernel"}, WORKLOADS), (args.systems, systems.SYSTEMS)):
        unknown = [x for x in given if x not in known]
        if unknown:
            p.error(f"unknown name {', '.join(unknown)}; known: {', '.join(known)}")
    if args.tiny and args.write:
        p.error("--tiny figures are not written")
    return args


def main() -> None:
    args = arguments()
    store = os.path.join(HERE, "results.json")
    old: dict[str, Any] = {}
    if os.path.exists(store):
        with open(store) as f:
            old = json.load(f)
    if args.render:
        write(old)
        return
    versions: dict[str, str] = {}
    results: dict[str, Any] = {"machine": machine(args), "versions": versions, "rows": {},
                               "commands": ["python tools/bench/compare.py " + shlex.join(sys.argv[1:])]}
    for name in args.workloads:
        w = WORKLOADS[name]
        modes = {"": ["default", "kept"] if w.kind == "kernel" else ["default"], "both": ["default", "kept"]}.get(args.memory, [args.memory])
        with tempfile.TemporaryDirectory(prefix="bench") as folder:
            for memory in modes:
                results["rows"].setdefault(name, {}).update(measure(w, memory, folder, args, versions))
        if args.write:  # after each workload: an interrupted run keeps what it has
            old = merge(old, results)
            with open(store, "w") as f:
                json.dump(old, f, indent=1, sort_keys=True)
            write(old)
    print(report.render(results))


if __name__ == "__main__":
    main()
