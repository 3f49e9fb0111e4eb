"""docs/api.md says what is true: it is the generator's output, and the names it marks done exist with PyTorch's signature."""
from __future__ import annotations

import importlib.util
import inspect
import pathlib
import re
import sys
from typing import Any

import pytest

import graphc

ROOT = pathlib.Path(__file__).resolve().parent.parent


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("api_table", ROOT / "tools" / "api_table.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["api_table"] = module
    spec.loader.exec_module(module)
    return module


api = _load()
ROWS = api.rows()
# Parameters of PyTorch whose value means nothing here, with the reason.
EXEMPT = {
    "torch.compile": {"name", "recompile_limit", "isolate_recompiles", "shapes_spec"},  # settings of Dynamo
    "torch.enable_grad": {"orig_func"},  # how PyTorch's decorator finds the function
    "torch.save": {"pickle_module", "_disable_byteorder_record"},  # no pickle module runs: the format is fixed
    "torch.utils.data.random_split": {"generator"},  # the default generator, which None means here
    "torch.nn.Transformer": {"activation"},  # "relu" and the function relu mean the same
    "torch.dtype": {"name", "category", "itemsize", "np_type", "short"},  # dtypes are not made by programs
    "torch.mm": {"out_dtype"}, "torch.bmm": {"out_dtype"}, "torch.addmm": {"out_dtype"}, "torch.baddbmm": {"out_dtype"},  # CUDA
}
VARIADIC = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
EMPTY = inspect.Parameter.empty


def parameters(obj: Any, method: bool = False) -> dict[str, inspect.Parameter] | None:
    """Parameters by name without ``self``; None where Python cannot tell. ``method``: the first one is the tensor itself."""
    try:
        found = dict(inspect.signature(obj).parameters)
    except (ValueError, TypeError):
        return None
    if method and found and next(iter(found.values())).kind not in VARIADIC:
        found.pop(next(iter(found)))
    found.pop("self", None)
    return found


def documented_keywords(theirs: Any, name: str) -> set[str]:
    """Keyword-only parameters in the signatures that the docstring of a built-in function gives."""
    out: set[str] = set()
    for m in re.finditer(r"(?<![\w.])" + re.escape(name) + r"\(([^()]*(?:\([^()]*\)[^()]*)*)\)\s*->", theirs.__doc__ or ""):
        _, star, after = m.group(1).partition("*, ")
        out |= set(re.findall(r"(\w+)\s*(?::[^=,]+)?=", after if star else ""))
    return out


def same_default(a: Any, b: Any) -> bool:
    if a is EMPTY or b is EMPTY:
        return a is b
    for attribute in ("__name__", "name"):  # functions and members of enumerations by their names
        if hasattr(a, attribute) and getattr(a, attribute) == getattr(b, attribute, None):
            return True
    return repr(a) == repr(b) or a == b or str(a).replace("torch.", "") == str(b).replace("torch.", "")


def differences(path: str, ours: Any, theirs: Any, used: tuple[str, ...]) -> list[str]:
    """What a call valid in PyTorch would stumble over: parameters that lack, differ in default or order, or are new and
    required; for built-in functions the documented keyword-only parameters, and the keywords programs pass."""
    method = path.startswith(("Tensor.", "Module.", "Optimizer."))
    mine, want = parameters(ours, method), parameters(theirs, method)
    exempt = EXEMPT.get(path, set())
    if mine is None:
        return []
    mine_open = any(p.kind in VARIADIC for p in mine.values())
    if want is None:
        known = documented_keywords(theirs, path.split(".")[-1])
        known |= {k for k in used if re.search(rf"\b{k}\s*(:[^,]*)?=", theirs.__doc__ or "")}
        return [f"lacks {k}" for k in sorted(known - exempt) if k not in mine and not mine_open]
    out = []
    for key, p in want.items():
        if p.kind in VARIADIC or key in exempt:
            continue
        if key not in mine:
            out += [] if mine_open else [f"lacks {key}={p.default}"]
        elif not same_default(mine[key].default, p.default):
            out.append(f"{key}={mine[key].default!r} instead of {p.default!r}")
    if [k for k in mine if k in want] != [k for k in want if k in mine]:
        out.append(f"order {list(mine)} instead of {list(want)}")
    if not any(p.kind in VARIADIC for p in want.values()):
        out += [f"needs {k}" for k, p in mine.items() if k not in want and k not in exempt and p.default is EMPTY
                and p.kind not in VARIADIC]
    return out


BY_MODULE = "\n## By module\n"


def test_file_is_what_the_generator_writes() -> None:
    written, made = (text.split(BY_MODULE) for text in (api.TABLE.read_text(encoding="utf-8"), api.render(ROWS)))
    assert written[0] == made[0] and len(written) == len(made) == 2, "run: python tools/api_table.py"


def test_modules_have_no_fewer_names_than_the_file_says() -> None:
    text = api.TABLE.read_text(encoding="utf-8").split(BY_MODULE)[1]
    said = {m: (int(n), int(here)) for m, n, here in re.findall(r"^\| `([\w.]+)` \| (\d+) \| (\d+) \|", text, re.M)}
    found = {m: (len(every), len(every) - len(missing)) for m, every, missing in api.modules()}
    assert said.keys() == found.keys() and len(said) > 40
    assert {m: (said[m], found[m]) for m in said if said[m][0] != found[m][0] or said[m][1] > found[m][1]} == {}
    (here, total), = re.findall(r"(\d+) of (\d+) are here", text)
    assert int(here) == sum(n for _, n in said.values()) and int(total) == sum(n for n, _ in said.values())


def test_absent_names_of_modules_are_absent() -> None:
    """The check behind the numbers tells names that are there from those that are not."""
    table = dict((m, (every, missing)) for m, every, missing in api.modules())
    assert "softmax" in table["torch"][0] and "softmax" not in table["torch"][1]
    assert "float8_e5m2" in table["torch"][1] and not hasattr(graphc, "float8_e5m2")


def test_notes_are_about_surveyed_names() -> None:
    names = {r.name for r in ROWS}
    notes = api._lines(api.NOTES)
    assert len({n[0] for n in notes}) == len(notes)
    for name, status, note in notes:
        assert name in names and status in ("partial", "not planned") and note, name


def test_partial_names_exist() -> None:
    for r in ROWS:
        if r.status == "partial":
            assert all(api.resolve(t) is not api.ABSENT for t in api.targets(r.name)), r.name


def test_every_name_has_a_state_and_most_are_done() -> None:
    assert [r.name for r in ROWS if r.status == "missing"] == []
    assert api.share(ROWS, "done") > 95


@pytest.mark.parametrize("category", list(dict.fromkeys(r.category for r in ROWS)))
def test_names_marked_done(category: str) -> None:
    """They resolve, and a call that PyTorch accepts is accepted."""
    wrong = {}
    for r in ROWS:
        for path in api.targets(r.name) if r.category == category and r.status == "done" else ():
            ours = api.resolve(path)
            assert ours is not api.ABSENT, path
            theirs = api.ABSENT if path.startswith("torchvision") else _torch(path)
            if theirs is not api.ABSENT and (found := differences(path, ours, theirs, r.keywords)):
                wrong[path] = found
    assert wrong == {}


def _torch(path: str) -> Any:
    """PyTorch's object, ABSENT without PyTorch."""
    return api.resolve(path, "torch") if importlib.util.find_spec("torch") else api.ABSENT


def test_the_comparison_finds_faults() -> None:
    def theirs(a: int, b: int = 1, *, c: Any = None) -> None: ...
    def lacking(a: int, b: int = 1) -> None: ...
    def other_default(a: int, b: int = 2, *, c: Any = None) -> None: ...
    def other_order(b: int = 1, a: Any = EMPTY, *, c: Any = None) -> None: ...
    def needy(a: int, d: int, b: int = 1, *, c: Any = None) -> None: ...
    def fine(a: int, b: int = 1, *, c: Any = None, more: bool = False) -> None: ...

    for f in (lacking, other_default, other_order, needy):
        assert differences("torch.f", f, theirs, ())
    assert differences("torch.f", fine, theirs, ()) == []
    assert api.resolve("torch.nn.no_such_layer") is api.ABSENT
