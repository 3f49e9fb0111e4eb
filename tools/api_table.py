"""Write docs/api.md: which of PyTorch's names that real programs use work here, ranked by how many programs use them.

    python tools/api_table.py            # writes docs/api.md
    python tools/api_table.py --missing  # prints what resolves to nothing and has no note

``tools/data/api_usage.tsv`` holds the ranking (name, category, number of 66 surveyed public repositories that use it, keyword
arguments seen); ``tools/data/api_notes.tsv`` what cannot be read off the code: names that work in part, and names that are
not planned with what to use instead. A name is done when it resolves here and has no note.
"""
from __future__ import annotations

import argparse
import importlib
import pathlib
from typing import Any, NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
USAGE, NOTES = HERE / "data" / "api_usage.tsv", HERE / "data" / "api_notes.tsv"
PUBLIC = HERE / "data" / "public_names.tsv"  # written by public_names.py
SHOWN = 24  # names that are not here, listed per module
TABLE = HERE.parent / "docs" / "api.md"
ABSENT: Any = object()
SAMPLES = {"Tensor": ("graphc", "Tensor"), "Module": ("graphc.nn", "Module"), "Optimizer": ("graphc.optim", "Optimizer")}


class Row(NamedTuple):
    """One name of the survey and what has become of it."""

    name: str
    category: str
    repos: int
    status: str  # "done", "partial", "not planned" or "missing"
    note: str
    keywords: tuple[str, ...]  # arguments that programs pass by keyword


def _lines(path: pathlib.Path) -> list[list[str]]:
    text = path.read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]


def targets(name: str) -> list[str]:
    """Dotted paths here that must all exist for ``name`` to work."""
    name = name.removesuffix(" (attr)")
    if "|" in name:
        owners, attr = name.rsplit(".", 1)
        return [f"{owner}.{attr}" for owner in owners.split("|")]
    return [name]


def resolve(path: str, torch_name: str = "graphc", vision_name: str = "graphc.vision") -> Any:
    """The object a surveyed path means in a library (the library's own names for torch and torchvision), or ABSENT."""
    head, _, rest = path.partition(".")
    if head in SAMPLES:
        module, cls = SAMPLES[head]
        module = module.replace("graphc", torch_name)
        obj = getattr(importlib.import_module(module), cls)
        names = rest.split(".")
        if head == "Optimizer" and rest == "param_groups":
            parameter = importlib.import_module(f"{torch_name}.nn").Parameter(importlib.import_module(torch_name).zeros(1))
            obj = importlib.import_module(f"{torch_name}.optim").SGD([parameter], lr=0.1)
        elif head == "Module" and rest == "training":
            obj = obj()
    else:
        module = {"torch": torch_name, "torchvision": vision_name}[head]
        obj, names = importlib.import_module(module), rest.split(".")
    for part in names:
        try:
            found = getattr(obj, part, ABSENT)
        except NotImplementedError:  # says what to use instead
            return ABSENT
        if found is ABSENT and isinstance(getattr(obj, "__path__", None), list):
            try:
                found = importlib.import_module(f"{obj.__name__}.{part}")
            except ImportError:
                return ABSENT
        if found is ABSENT:
            return ABSENT
        obj = found
    return obj


def rows() -> list[Row]:
    """The surveyed names in order of use, with their state."""
    notes = {name: (status, note) for name, status, note in _lines(NOTES)}
    out = []
    for name, category, repos, keywords in _lines(USAGE):
        status, note = notes.get(name, ("", ""))
        if not status:
            status = "done" if all(resolve(t) is not ABSENT for t in targets(name)) else "missing"
        out.append(Row(name, category, int(repos), status, note, tuple(keywords.split())))
    return out


def modules() -> list[tuple[str, list[str], list[str]]]:
    """(module, its public names in PyTorch, those of them that are not here)."""
    out = []
    for module, names in _lines(PUBLIC):
        every = names.split()
        head = module.removeprefix("torch.") if module == "torch.Tensor" else module
        out.append((module, every, [n for n in every if resolve(f"{head}.{n}") is ABSENT]))
    return out


def share(table: list[Row], status: str) -> float:
    """Share of all uses (repositories summed over names) that names of this status have, in per cent."""
    return 100.0 * sum(r.repos for r in table if r.status == status) / sum(r.repos for r in table)


def _section(title: str, table: list[Row]) -> list[str]:
    lines = ["", f"## {title}", ""]
    done = [f"`{r.name}` {r.repos}" for r in table if r.status == "done"]
    if done:
        lines.append("Done: " + ", ".join(done) + ".")
    others = [r for r in table if r.status != "done"]
    if others:
        if done:
            lines.append("")
        lines += ["| name | used by | state |", "|---|---|---|"]
        lines += [f"| `{r.name}` | {r.repos} | {r.status}{': ' + r.note if r.note else ''} |" for r in others]
    return lines


def _module_section() -> list[str]:
    found = modules()
    total, absent = (sum(len(m[k]) for m in found) for k in (1, 2))
    lines = ["", "## By module", "",
             f"All public names of PyTorch's modules ({PUBLIC.read_text(encoding='utf-8').splitlines()[0].split()[-1]}), used by "
             "many programs or by none, without those for quantized and sparse tensors, other vendors' kernels and symbolic sizes: "
             f"{total - absent} of {total} are here, some of them to say what to use instead. `tools/public_names.py` writes the "
             "list.", "", "| module | names | here | not here |", "|---|---|---|---|"]
    for module, every, missing in found:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        lines.append(f"| `{module}` | {len(every)} | {len(every) - len(missing)} | "
                     f"{' '.join(f'`{n}`' for n in missing[:SHOWN])}{more} |")
    return lines


def render(table: list[Row]) -> str:
    """The text of docs/api.md."""
    count = {s: sum(r.status == s for r in table) for s in ("done", "partial", "not planned", "missing")}
    lines = ["# PyTorch's names in graphc", "",
             "Names that three or more of 66 surveyed public repositories use, with the number of repositories. `import graphc "
             "as torch` gives them under the same names; torchvision's are under `graphc.vision`. Methods were counted by "
             "attribute name, so names shared with str, list or ndarray are upper bounds. Written by `tools/api_table.py`; "
             "`tests/test_api_table.py` checks it against the code and against PyTorch's signatures.", "",
             f"**{share(table, 'done'):.1f} % of all uses are of names that are done** ({count['done']} of {len(table)} names); "
             f"{share(table, 'partial'):.1f} % work in part ({count['partial']}), "
             f"{share(table, 'not planned'):.1f} % are not planned ({count['not planned']}), "
             f"{share(table, 'missing'):.1f} % are missing ({count['missing']})."]
    for category in dict.fromkeys(r.category for r in table):
        lines += _section(category, [r for r in table if r.category == category])
    lines += _module_section()
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--missing", action="store_true", help="print missing names instead of writing the table")
    table = rows()
    if parser.parse_args().missing:
        for r in table:
            if r.status == "missing":
                print(r.repos, r.name, sep="\t")
        return
    TABLE.write_text(render(table), encoding="utf-8")
    print(f"{TABLE}: {len(table)} names, {share(table, 'done'):.1f} % of uses done")


if __name__ == "__main__":
    main()
