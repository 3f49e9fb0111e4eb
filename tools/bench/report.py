"""The tables of ``RESULTS.md`` from measured rows: plain functions of the results dictionary, no measuring here."""
from __future__ import annotations

from typing import Any

import quiet
from systems import SYSTEMS
from workloads import WORKLOADS, Workload

Rows = dict[str, dict[str, dict[str, Any]]]  # workload -> "system/memory" -> measured row


def number(x: float) -> str:
    """Three significant digits."""
    return f"{x:.0f}" if x >= 100 else f"{x:.3g}"


def floor_ms(w: Workload, machine: dict[str, Any]) -> float:
    """The roofline: the larger of least bytes at copy bandwidth and flops at the GEMM rate, in milliseconds."""
    moved, flops = w.cost(w.size)
    return max(moved / machine["gbs"] / 1e6, flops / machine["gflops"] / 1e6)


def cell(row: dict[str, Any] | None, best: float) -> str:
    if row is None:
        return ""
    if "median_ms" not in row:
        return row["status"].split(":")[0]
    text = f"{number(row['median_ms'])} ({number(row['min_ms'])})"
    text += "~" if row.get("waited", 0.0) > quiet.LIMIT else ""
    return f"**{text}**" if row["median_ms"] <= best else text


def grid(head: list[str], body: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(r) + " |" for r in body]) + "\n"


def used(rows: Rows, names: list[str], memory: str) -> list[str]:
    """Systems with a row for some of the workloads, in the order of SYSTEMS."""
    return [s for s in SYSTEMS if any(f"{s}/{memory}" in rows[n] for n in names)]


def step_table(rows: Rows, machine: dict[str, Any], kind: str, memory: str) -> str:
    names = [n for n in WORKLOADS if n in rows and WORKLOADS[n].kind == kind and any(k.endswith("/" + memory) for k in rows[n])]
    if not names:
        return ""
    columns, body = used(rows, names, memory), []
    for n in names:
        found = [rows[n].get(f"{s}/{memory}") for s in columns]
        best = min((r["median_ms"] for r in found if r and "median_ms" in r), default=0.0)
        body.append([WORKLOADS[n].title, number(floor_ms(WORKLOADS[n], machine)), *[cell(r, best) for r in found]])
    return grid(["ms", "floor", *[SYSTEMS[s][0] for s in columns]], body)


def cost_table(names: list[str], machine: dict[str, Any]) -> str:
    body = []
    for n in names:
        w = WORKLOADS[n]
        moved, flops = w.cost(w.size)
        bound = "memory" if moved / machine["gbs"] >= flops / machine["gflops"] else "arithmetic"
        body.append([f"`{n}`", w.title, f"{moved / 1e6:.3g}", f"{flops / 1e9:.3g}" if flops else "-", number(floor_ms(w, machine)), bound,
                     f"{w.tolerance:g}"])
    return grid(["name", "workload", "least MB", "GFLOP", "floor, ms", "bound by", "tolerance"], body)


def other_table(rows: Rows, field: str, scale: float = 1.0) -> str:
    """One figure per workload and system, with default memory settings."""
    names = [n for n in WORKLOADS if n in rows and any(r.get(field) is not None for r in rows[n].values())]
    if not names:
        return ""
    columns = [s for s in used(rows, names, "default") if any(rows[n].get(f"{s}/default", {}).get(field) is not None for n in names)]
    body = []
    for n in names:
        line = [f"`{n}`"]
        for s in columns:
            v = rows[n].get(f"{s}/default", {}).get(field)
            line.append("" if v is None else " / ".join(number(x * scale) for x in (v if isinstance(v, list) else [v])))
        body.append(line)
    return grid(["", *[SYSTEMS[s][0] for s in columns]], body)


def notes(rows: Rows) -> str:
    """Rows without a figure, each with its reason; equal reasons once."""
    reasons: dict[str, list[str]] = {}
    for n in rows:
        for key, r in rows[n].items():
            if r["status"] != "ok":
                reasons.setdefault(f"{SYSTEMS[key.split('/')[0]][0]}: {r['status']}", []).append(f"{n} ({key.split('/')[1]})")
    return "".join(f"- {reason} - {', '.join(where)}\n" for reason, where in sorted(reasons.items()))


def render(results: dict[str, Any]) -> str:
    """The whole section from ``results`` (machine, rows, versions, commands)."""
    m, rows = results["machine"], results["rows"]
    names = [n for n in WORKLOADS if n in rows]
    dates = sorted({r["date"] for n in names for r in rows[n].values()})
    versions = ", ".join(f"{k} {v}" for k, v in sorted(results["versions"].items()))
    parts = [
        f"{m['cpu']}, {m['cores']} cores, {m['vector']}, {m['threads']} threads, {m['system']}; Python {m['python']}; {versions}. "
        f"Measured {dates[0]}{' to ' + dates[-1] if dates[-1] != dates[0] else ''}. Copy out of cache {m['gbs']:.1f} GB/s, float32 GEMM "
        f"{m['gflops']:.0f} GFLOP/s.\n",
        "Every system and workload is a process of its own, the others stopped meanwhile, rounds interleaved; same weights, same data. A "
        "figure is the median step with the minimum in brackets, in milliseconds, bold where the median is the row's lowest; it is given only "
        "when the first losses or outputs agree with PyTorch eager within the tolerance. Floor: the larger of least bytes at copy bandwidth and "
        "flops at the GEMM rate (rows that fit the cache can beat it). Only slices of time in which its threads waited "
        f"for a processor at most {quiet.LIMIT:.0%} of the time count; ~ marks a figure for which there were too few.\n",
        "### Training steps\n", step_table(rows, m, "train", "default"),
        "### Memory-bound kernels, default malloc\n", step_table(rows, m, "kernel", "default"),
        "### Memory-bound kernels, freed memory kept by malloc\n",
        "MALLOC_MMAP_MAX_=0 and a high trim threshold: without page faults on fresh results, which are most of the time above.\n",
        step_table(rows, m, "kernel", "kept"),
        "### First step with empty caches, seconds\n",
        "Time of the first three steps less two median steps (tinygrad and torch.compile also compile in the second), imports excluded.\n",
        other_table(rows, "cold_ms", 1e-3),
        "### The same in a second process, compile caches filled, seconds\n", other_table(rows, "warm_ms", 1e-3),
        "### First step at new batch sizes 48 / 80 / 112, ms\n", other_table(rows, "new_batch_ms"),
        "### Peak resident memory of the process, MB\n", other_table(rows, "rss_mb"),
        "### Least bytes and flops\n", cost_table(names, m),
    ]
    missing = notes(rows)
    if missing:
        parts += ["### Without a figure\n", missing]
    parts += ["### Commands\n", "".join(f"    {c}\n" for c in results["commands"])]
    return "\n".join(parts)
