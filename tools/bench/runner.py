"""The child process: one system, one workload, commands as JSON lines on stdin, one JSON line of answer each.

    start STEPS  -> import and build times, time of each first step, losses (train) or samples of the outputs (kernel)
    round BUDGET PATIENCE -> slices of step times until BUDGET seconds of them were undisturbed
    batch SIZES  -> time of the first step at each new batch size
    end          -> peak resident memory, versions
"""
from __future__ import annotations

import argparse
import json
import os
import sys
import time
from importlib import metadata
from typing import Any

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(os.path.dirname(HERE))]

import quiet  # noqa: E402
import systems  # noqa: E402
from workloads import WORKLOADS, config  # noqa: E402

clock = time.perf_counter
SAMPLES = 4096


def sample(x: np.ndarray) -> list[float]:
    """At most SAMPLES fixed elements and the mean, in double precision."""
    flat = np.asarray(x).reshape(-1)
    at = np.random.default_rng(0).integers(0, flat.size, min(SAMPLES, flat.size))
    return [*flat[at].astype(float).tolist(), float(flat.mean(dtype=np.float64))]


class Child:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.w = args, WORKLOADS[args.workload]

    def timed(self, inputs: list[Any]) -> tuple[float, Any]:
        t = clock()
        out = self.program.step(*inputs)
        self.program.wait(out)
        return clock() - t, out

    def start(self, steps: int) -> dict[str, Any]:
        w, t0 = self.w, clock()
        with np.load(self.args.data) as f:
            self.arrays = {k: f[k] for k in f.files}
        self.program = systems.build(self.args.system, w, config(w, self.args.tiny), self.arrays, self.args.threads)
        built, times, losses = clock() - t0, [], []
        for _ in range(steps):
            t, out = self.timed(self.program.inputs)
            times.append(t)
            if w.kind == "train":
                losses.append(float(self.program.values(out)[0].reshape(-1)[0]))
        check = {"losses": losses} if w.kind == "train" else {"samples": [sample(v) for v in self.program.values(out)]}
        return {"build_s": built, "times": times, **check}

    def round(self, budget: float, patience: float) -> dict[str, Any]:
        """Slices of steps until ``budget`` seconds of them were quiet, at most ``patience`` times as long."""
        slices: list[quiet.Slice] = []
        inputs, calm = self.program.inputs, 0.0
        self.timed(inputs)  # the other systems have used the caches meanwhile
        end = clock() + patience * budget
        while not slices or calm < budget and clock() < end:
            times: list[float] = []
            t0, before = clock(), quiet.waited()
            while not times or clock() - t0 < quiet.SLICE:
                times.append(self.timed(inputs)[0])
            wall = clock() - t0
            share = (quiet.waited() - before) / wall
            slices.append((share, times))
            calm += wall if share <= quiet.LIMIT else 0.0
        return {"slices": slices}

    def batch(self, sizes: list[int]) -> dict[str, Any]:
        times = []
        for n in sizes:
            inputs = [self.program.place(np.concatenate([self.arrays[k]] * (n // len(self.arrays[k]) + 1))[:n]) for k in self.w.inputs]
            times.append(self.timed(inputs)[0])
        return {"times": times}

    def end(self) -> dict[str, Any]:
        import resource

        versions = {}
        for p in systems.PACKAGES[systems.SYSTEMS[self.args.system][1]]:
            try:
                versions[p] = metadata.version(p)
            except metadata.PackageNotFoundError:
                versions[p] = "not installed"
        return {"rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "versions": versions}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--system", required=True)
    p.add_argument("--workload", required=True)
    p.add_argument("--data", required=True)
    p.add_argument("--threads", type=int, required=True)
    p.add_argument("--tiny", action="store_true")
    args = p.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:args.threads])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to stderr
    child = Child(args)
    for line in sys.stdin:
        name, *values = json.loads(line)
        try:
            out = getattr(child, name)(*values)
        except (ImportError, systems.Skip) as e:
            out = {"skip": str(e).strip().splitlines()[0]}
        except Exception as e:
            import traceback

            traceback.print_exc()
            out = {"failed": f"{type(e).__name__}: {(str(e).strip().splitlines() or [''])[0][:160]}"}
        print(json.dumps(out), file=answers, flush=True)
        if name == "end":
            break


if __name__ == "__main__":
    main()
