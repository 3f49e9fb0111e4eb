"""Figures on an NVIDIA GPU, side by side with PyTorch eager, torch.compile and JAX where they are installed. One command:

    python tools/bench/gpu.py                 # correctness, then all figures: less than ten minutes on an H100 or H200
    python tools/bench/gpu.py --only gpt2 --mode max-autotune
    python tools/bench/gpu.py --smoke --out /tmp/r.md    # the same logic on the CPU with tiny sizes

Every group of cases runs in a process of its own, so that a crash costs one group. A figure is the median of at least ten
steps (or groups of short ones) by the device's clock, given only if the outputs, or the losses of the first five steps, agree
with PyTorch eager's within the case's tolerance. The table with device, date and versions goes into RESULTS.md between two
marks. Without a GPU the command says why and ends with status 0.
"""
from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

from gpu_cases import CASES, Case, seeded  # noqa: E402

START, END = "<!-- gpu -->", "<!-- /gpu -->"
SYSTEMS = {"torch": "torch eager", "torch_compile": "torch.compile", "jax": "jax.jit", "graphc": "graphc"}
PACKAGES = ("torch", "triton", "jax", "jaxlib", "numpy", "cuda-bindings")
# Dense peaks of the data sheets, TFLOP/s in 16 bits and in float32 without tensor cores' 19-bit format, and memory in TB/s.
PEAKS = (("H200", 989.0, 67.0, 4.8), ("H100 PCIe", 756.0, 51.0, 2.0), ("H100", 989.0, 67.0, 3.35), ("A100", 312.0, 19.5, 2.04))
CHECKED, SAMPLES, LEAST = 5, 1 << 16, 10
SHARE = {"matmul": 1.0, "rows": 1.0, "attention": 1.2, "optimizer": 0.7, "gpt2": 1.6, "resnet": 1.6, "small": 1.2}


# ------------------------------------------------------------------------------------------------------------ frameworks
class TorchLike:
    """PyTorch or graphc as the cases see it. ``compile``: what is around a function; ``whole``: around a step."""

    def __init__(self, name: str, device: str, mode: str):
        self.name, self.device, self.mode = name.split("_")[0], device, mode
        self.compiled = name == "torch_compile"
        if self.name == "graphc":
            import graphc

            self.T: Any = graphc
        else:
            import torch

            self.T = torch
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    def compile(self, f: Any) -> Any:
        """A function, or an optimizer's step: the way torch.compile is used."""
        if self.name == "graphc":
            return self.T.compile(f, mode=self.mode)
        return self.T.compile(f) if self.compiled else f

    def whole(self, f: Any) -> Any:
        """A step with everything inside: the way graphc.compile is used; inner compiled functions become part of it."""
        return self.T.compile(f, mode=self.mode) if self.name == "graphc" else f

    def tensor(self, a: np.ndarray, dtype: str) -> Any:
        return self.T.from_numpy(a).to(self.device).to(getattr(self.T, dtype)).clone()

    def integers(self, a: np.ndarray) -> Any:
        return self.T.from_numpy(np.asarray(a, np.int64)).to(self.device).clone()

    def numbers(self, out: Any) -> list[np.ndarray]:
        """A fixed sample of every result in float64."""
        outs = list(out) if isinstance(out, (list, tuple)) else [out]
        return [sample(x.detach().float().cpu().numpy()) for x in outs]

    def synchronize(self) -> None:
        if self.device == "cuda":
            self.T.cuda.synchronize()

    def clock(self, step: Any, times: int) -> float:
        """Milliseconds a step, ``times`` of them between two events."""
        if self.device != "cuda":
            return host_clock(step, times)
        start, end = (self.T.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(times):
            step()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / times

    def peak(self, reset: bool = False) -> float:
        """Most bytes of device memory given to tensors since the last reset."""
        if self.device != "cuda":
            return 0.0
        if reset:
            self.T.cuda.reset_peak_memory_stats()
        return float(self.T.cuda.max_memory_allocated())


class Jax:
    """JAX for the cases that have a version for it."""

    name = "jax"

    def __init__(self, device: str):
        import jax
        import jax.numpy as jnp

        self.jax, self.jnp, self.device = jax, jnp, device
        if device == "cuda" and jax.default_backend() not in ("gpu", "cuda"):
            raise ImportError(f"JAX has no GPU back end here ({jax.default_backend()})")

    def numbers(self, out: Any) -> list[np.ndarray]:
        return [sample(np.asarray(x.astype("float32"))) for x in (out if isinstance(out, (list, tuple)) else [out])]

    def synchronize(self) -> None:
        self.jax.effects_barrier()

    def clock(self, step: Any, times: int) -> float:
        t, out = time.perf_counter(), None
        for _ in range(times):
            out = step()
        self.jax.block_until_ready(out)
        return (time.perf_counter() - t) * 1e3 / times

    def peak(self, reset: bool = False) -> float:
        return 0.0


def host_clock(step: Any, times: int) -> float:
    t = time.perf_counter()
    for _ in range(times):
        step()
    return (time.perf_counter() - t) * 1e3 / times


def sample(x: np.ndarray) -> np.ndarray:
    """At most SAMPLES fixed elements in float64."""
    flat = x.reshape(-1)
    if flat.size > SAMPLES:
        flat = flat[np.random.default_rng(0).integers(0, flat.size, SAMPLES)]
    return flat.astype(np.float64)


# -------------------------------------------------------------------------------------------------------------- one case
def build(system: str, case: Case, size: dict[str, Any], device: str, mode: str) -> tuple[Any, Any]:
    """(framework, step). Raises ImportError where the framework or its version of the case is missing."""
    if system == "jax":
        if case.jax is None:
            raise ImportError("no version of this case")
        lib: Any = Jax(device)
        return lib, case.jax(lib.jax, lib.jnp, size, seeded(case))
    lib = TorchLike(system, device, mode)
    return lib, case.make(lib, size, seeded(case))


def difference(got: list[np.ndarray], want: list[np.ndarray]) -> float:
    """The largest difference over the largest magnitude; infinite where shapes or finiteness differ."""
    worst = 0.0
    for g, w in zip(got, want):
        if g.shape != w.shape or not np.all(np.isfinite(g) == np.isfinite(w)):
            return float("inf")
        d = np.abs(g - w)[np.isfinite(w)]
        worst = max(worst, float(d.max(initial=0.0)) / max(float(np.abs(w[np.isfinite(w)]).max(initial=0.0)), 1e-6))
    return worst if len(got) == len(want) else float("inf")


def measured(lib: Any, step: Any, budget: float) -> dict[str, float]:
    """Median milliseconds; short steps in groups, so that the distance between events stays large beside the clock's."""
    once = lib.clock(step, 1)
    once = min(once, lib.clock(step, 1))
    times = max(1, min(50, int(2.0 / max(once, 1e-3))))
    end, found = time.perf_counter() + budget, []
    while len(found) < (LEAST if budget > 0.05 else 2) or time.perf_counter() < end and len(found) < 200:
        found.append(lib.clock(step, times))
        if time.perf_counter() > end + 4 * budget:
            break
    return {"ms": statistics.median(found), "min_ms": min(found), "runs": len(found) * times}


def run_case(case: Case, systems: list[str], args: argparse.Namespace, device: str, deadline: float) -> dict[str, Any]:
    """All systems on one case: PyTorch eager first, whose numbers the others are compared with."""
    size, rows = case.tiny if args.smoke else case.size, {}
    want: list[np.ndarray] | None = None
    for system in systems:
        if time.time() > deadline:
            rows[system] = {"status": "out of time"}
            continue
        try:
            began = time.perf_counter()
            lib, step = build(system, case, size, device, args.mode)
            lib.peak(reset=True)
            first = time.perf_counter()
            got = lib.numbers(step())
            first_s = time.perf_counter() - first
            if case.kind == "train":
                got = [np.concatenate([got[0], *[lib.numbers(step())[0] for _ in range(CHECKED - 1)]])]
            else:
                step()
            row: dict[str, Any] = {"build_s": first - began, "first_s": first_s}
            if system == "torch":
                want = got
            if want is not None:
                row["difference"] = difference(got, want)
                if not row["difference"] <= case.tolerance:
                    rows[system] = {**row, "status": f"WRONG: differs from torch eager by {row['difference']:.1e}"}
                    continue
            lib.synchronize()
            row |= {**measured(lib, step, args.budget), "peak": lib.peak(), "status": "ok"}
            rows[system] = row
        except ImportError as error:
            rows[system] = {"status": f"not here: {error}"}
        except Exception as error:
            rows[system] = {"status": f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"}
        finally:
            step = got = None  # type: ignore[assignment]
            module = sys.modules.get(system.split("_")[0])
            if device == "cuda" and system != "jax" and module is not None:
                module.cuda.empty_cache()  # the next system finds the memory free
    return rows


# ------------------------------------------------------------------------------------------------------------- processes
def child(args: argparse.Namespace) -> None:
    """One group: a line of JSON per case, as soon as it is there."""
    device = "cpu" if args.smoke else "cuda"
    for case in CASES:
        if case.group == args.group and chosen(case, args):
            print("@@ " + json.dumps({"name": case.name, "rows": run_case(case, args.systems.split(","), args, device, args.until)}),
                  flush=True)


def chosen(case: Case, args: argparse.Namespace) -> bool:
    return not args.only or case.name in args.only.split(",") or case.group in args.only.split(",")


def run_group(group: str, args: argparse.Namespace, until: float) -> dict[str, Any]:
    """The rows of a group's process. If it dies, every case it did not finish says so."""
    names = [c.name for c in CASES if c.group == group and chosen(c, args)]
    command = [sys.executable, str(HERE / "gpu.py"), "--child", "--group", group, "--systems", args.systems, "--mode", args.mode,
               "--budget", str(args.budget), "--until", str(until), *(["--only", args.only] if args.only else []),
               *(["--smoke"] if args.smoke else [])]
    threads = {"OMP_NUM_THREADS": "1", "GRAPHC_NUM_THREADS": "1"} if args.smoke else {}
    env = {**os.environ, **threads, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=max(30.0, until - time.time() + 60))
        out, why = done.stdout, f"the process ended with status {done.returncode}: {' '.join(done.stderr.split())[-200:]}"
    except subprocess.TimeoutExpired as error:
        out = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        why = "the process took too long"
    found = {r["name"]: r["rows"] for r in (json.loads(line[3:]) for line in out.splitlines() if line.startswith("@@ "))}
    return {n: found.get(n, {s: {"status": why} for s in args.systems.split(",")}) for n in names}


# --------------------------------------------------------------------------------------------------------------- machine
def reason() -> str:
    """Why nothing can be measured here; empty if it can."""
    import graphc
    from graphc.codegen.triton import compiler
    from graphc.runtime.cuda import driver

    assert graphc
    return driver.reason() or compiler.reason()


def machine(smoke: bool) -> dict[str, Any]:
    """Device, peaks, copy speed by the device's clock, versions."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    found = {"date": datetime.date.today().isoformat(), "versions": versions, "python": platform.python_version()}
    if smoke:
        return {**found, "device": "CPU, tiny sizes", "peak": {"half": 1.0, "single": 1.0, "read": 0.05}}
    import graphc
    from graphc.runtime.cuda import device as D

    p = D.get().properties
    half, single, read = next((f[1:] for f in PEAKS if f[0] in p.name), (0.0, 0.0, 0.0))
    x = graphc.ones(1 << 28, device="cuda")
    copy = graphc.compile(lambda t: t * 1.0000001)
    for _ in range(3):
        copy(x)
    lib = TorchLike("graphc", "cuda", "default")
    ms = min(lib.clock(lambda: copy(x), 5) for _ in range(5))
    return {**found, "device": f"{p.name}, {p.multi_processor_count} processors, CUDA {D.get().driver.version}",
            "peak": {"half": half, "single": single, "read": read or 8 * x.numel() / ms / 1e9}, "copy": 8 * x.numel() / ms / 1e9}


# ---------------------------------------------------------------------------------------------------------------- report
def bound_ms(case: Case, size: dict[str, Any], peak: dict[str, float]) -> float:
    """The roofline: milliseconds that arithmetic at the peak rate or memory at its speed take at least."""
    flops, moved = case.cost(size)
    rate = peak.get(case.rate, 0.0)
    return max(flops / rate / 1e9 if rate else 0.0, moved / peak["read"] / 1e9 if peak["read"] else 0.0)


def number(x: float) -> str:
    return f"{x:.3g}" if x < 1000 else f"{x:,.0f}"


def ratio(rows: dict[str, Any], other: str, target: float | None) -> str:
    """How many times as fast as another system graphc is, with the target in brackets."""
    mine, theirs = rows.get("graphc", {}).get("ms"), rows.get(other, {}).get("ms")
    wanted = "" if target is None else f" ({target:g})"
    return f"{theirs / mine:.2f}{wanted}" if mine and theirs else ""


def table(results: dict[str, Any], args: argparse.Namespace, info: dict[str, Any]) -> list[str]:
    """The rows as Markdown."""
    columns = [s for s in args.systems.split(",") if any(s in rows for rows in results.values())]
    head = ["ms", "roofline", *[SYSTEMS[s] for s in columns], "x eager (goal)", "x torch.compile (goal)", "share of roofline (goal)",
            "rate"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for case in CASES:
        rows = results.get(case.name)
        if rows is None:
            continue
        size = case.tiny if args.smoke else case.size
        floor, mine = bound_ms(case, size, info["peak"]), rows.get("graphc", {}).get("ms")
        cells = [case.title, number(floor)]
        for s in columns:
            row = rows.get(s, {"status": ""})
            cells.append(f"{number(row['ms'])} ({number(row['min_ms'])})" if row["status"] == "ok" else row["status"].split(":")[0])
        goal = "" if case.targets[2] is None else f" ({case.targets[2]:g})"
        cells += [ratio(rows, "torch", case.targets[0]), ratio(rows, "torch_compile", case.targets[1]),
                  f"{floor / mine:.2f}{goal}" if mine and floor else ""]
        per = case.tokens(size) if case.tokens else 0
        flops = case.cost(size)[0]
        cells.append("" if not mine else f"{number(per / mine * 1e3)} a second" if per else
                     f"{number(flops / mine / 1e9)} TFLOP/s" if flops else f"{case.cost(size)[1] / mine / 1e9:.2f} TB/s")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def notes(results: dict[str, Any]) -> list[str]:
    """Memory, first steps and what is missing, in words."""
    lines = []
    for case in CASES:
        rows = results.get(case.name, {})
        mem = [f"{SYSTEMS[s]} {r['peak'] / 2**30:.2f} GiB" for s, r in rows.items() if r.get("peak") and case.kind == "train"]
        first = [f"{SYSTEMS[s]} {r['first_s']:.1f} s" for s, r in rows.items() if r.get("first_s") and s in ("torch_compile", "graphc")]
        if mem:
            lines.append(f"- {case.name}: peak memory {', '.join(mem)}; first step {', '.join(first)}")
    missing: dict[str, list[str]] = {}
    for name, rows in results.items():
        for s, r in rows.items():
            if r["status"] != "ok":
                missing.setdefault(f"{SYSTEMS[s]}: {r['status']}", []).append(name)
    return lines + [f"- {why} - {', '.join(names)}" for why, names in missing.items()]


def render(results: dict[str, Any], args: argparse.Namespace, info: dict[str, Any]) -> str:
    """The whole section."""
    versions = ", ".join(f"{k} {v}" for k, v in info["versions"].items())
    copy = f" A pass over 2 GiB runs at {info['copy']:.2f} TB/s." if "copy" in info else ""
    peak = info["peak"]
    text = [f"{info['device']}; Python {info['python']}; {versions}. Measured {info['date']} by `python tools/bench/gpu.py"
            f"{' --smoke' if args.smoke else ''}`, graphc.compile mode {args.mode}. Roofline: {peak['half']:g} TFLOP/s in 16 bits, "
            f"{peak['single']:g} in float32, {peak['read']:.2f} TB/s.{copy}", "",
            "Median milliseconds a step by the device's clock, the least in brackets; given only where results agree with PyTorch "
            "eager's.", "", *table(results, args, info), ""]
    return "\n".join([*text, *notes(results)])


def write(path: Path, text: str) -> None:
    """Put the section between its marks, at the end of the file if it has none."""
    old = path.read_text() if path.exists() else "# Measurements\n"
    section = f"{START}\n{text}\n{END}"
    if START in old and END in old:
        new = old[:old.index(START)] + section + old[old.index(END) + len(END):]
    else:
        new = old.rstrip("\n") + f"\n\n## On a GPU\n\n{section}\n"
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(new)
    os.replace(temporary, path)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    a = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    a.add_argument("--only", default="", help="cases or groups, separated by commas")
    a.add_argument("--systems", default=",".join(SYSTEMS))
    a.add_argument("--mode", default="default", help="of graphc.compile")
    a.add_argument("--budget", type=float, default=0.5, help="seconds of measuring per figure")
    a.add_argument("--minutes", type=float, default=9.0, help="after which no further figure is begun")
    a.add_argument("--out", default=str(HERE / "RESULTS.md"))
    a.add_argument("--json", default="", help="also write all figures there")
    a.add_argument("--smoke", action="store_true")
    a.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    a.add_argument("--group", default="", help=argparse.SUPPRESS)
    a.add_argument("--until", type=float, default=0.0, help=argparse.SUPPRESS)
    return a.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    if args.child:
        child(args)
        return 0
    if args.smoke:
        args.budget = min(args.budget, 0.01)
    elif why := reason():
        print(f"nothing measured: {why}")
        return 0
    groups = [g for g in dict.fromkeys(c.group for c in CASES) if any(c.group == g and chosen(c, args) for c in CASES)]
    info, began, results = machine(args.smoke), time.time(), {}
    for i, group in enumerate(groups):
        left = began + 60 * args.minutes - time.time()
        share = SHARE[group] / sum(SHARE[g] for g in groups[i:])
        results |= run_group(group, args, time.time() + max(left * share, 5.0))
        write(Path(args.out), render(results, args, info))
        print(f"{group}: {sum(r['status'] == 'ok' for n in results for r in results[n].values())} figures, "
              f"{time.time() - began:.0f} s", flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps({"machine": info, "results": results}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
