"""Random programs with state: source text, and a run that logs everything the program can be seen by.

A program is the source of two functions ``f(x, v, k, hp)`` and ``g(...)`` sharing state: a dict ``S`` of tensors, a list
``kept``, two parameters ``w`` and ``b``, an optimizer and the random stream. Variables have a kind, which fixes dtype and
shape: M float (n, 4), V float (4,), Q float (4, 4), s float (), I int (n, 4), J int (4,), B bool (n, 4).
"""
from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np

EXPRESSIONS = {
    "M": ["x", "{M} + {M}", "{M} * {V}", "{M} - {M} * hp", "{M} @ {Q}", "{M}.sin()", "torch.where({B}, {M}, {V})", "{M}.flip(1)",
          "torch.rand_like({M})", "{M}.cumsum(0)", "torch.softmax({M}, 1)", "{M}[:, {J} % 4]", "{I}.float() * 0.1", "{M}.relu()",
          "{M}.sort(1).values", "torch.cat([{M}[1:], {M}[:1]])", "{M}.clone()", "F.dropout({M}, 0.3)", "{M} / (1 + {M}.abs())",
          "{M}.masked_fill({B}, hp)", "F.layer_norm({M}, (4,), {V}, {V})", "{M}.gather(1, {I} % 4)", "x * k", "{M}.exp().clamp(max=9)"],
    "V": ["v", "{M}.mean(0)", "{V} + {V}", "{Q}[1].clone()", "{Q}.T[2] * 1", "{V}.tanh()", "{V} * hp", "{V}.roll(1)", "torch.rand(4)",
          "{J}.float() * 0.01", "{M}.max(0).values", "{Q}.sum({axis})", "b.detach()", "b.detach() * 2", "{V}[{J} % 4]", "{V}.cumsum(0)",
          "torch.stack([{s}, {s}, {V}[1], {s}])", "torch.full((4,), float(hp))", "{V} - k", "{Q} @ {V}", "{V}.where({V} > 0, {s})"],
    "Q": ["{M}.T @ {M} / 8", "{Q}.T * 1", "{Q} * {s}", "torch.outer({V}, {V})", "{Q} @ {Q} * 0.1", "{Q}.reshape(16).flip(0).view(4, 4)",
          "torch.tril({Q})", "w.detach()", "w.detach().T.clone()", "{Q} + {V}[:, None]", "torch.zeros(4, 4)", "{Q}.clamp(-1, hp)",
          "torch.eye(4) * hp"],
    "s": ["{M}.mean()", "{V}.sum()", "{V}[{i}]", "{Q}[{i}, {j}]", "{V}.norm()", "{M}.amax()", "torch.tensor(float(hp))", "{s} * 0.5", "{V}.max()"],
    "I": ["({M} * 3).long()", "{I} + {J}", "{I} % 5", "torch.randint(0, 9, {M}.shape)", "{I}.argsort(1)", "{M}.argmax(1, keepdim=True) + {I}",
          "{B}.long() + k", "{I} ^ {J}", "{I} // 2"],
    "J": ["{I}.sum(0)", "{J} * 2", "{J}.flip(0)", "{V}.argsort()", "torch.randperm(4)", "{J} + k", "torch.arange(4)", "{J}.clone()",
          "{B}.sum(0)", "{J} % 7", "{J}[[1, 0, 3, 3]]"],
    "B": ["{M} > {V}", "{I} % 2 == 0", "torch.rand({M}.shape) > 0.5", "~{B}", "{B} & ({M} < hp)"],
}
VIEWS = {  # variables that share memory with others
    "M": ["{M}[:]", "{M}.view(-1, 4)", "{M}.detach()", "{M}.unsqueeze(0)[0]"],
    "V": ["{Q}[{i}]", "{Q}.T[{i}]", "{Q}.diagonal()", "{M}[0]", "{Q}.reshape(-1)[::4]", "{V}[:]", "{Q}.reshape(16)[3:7]", "b.data", "{Q}[:, {i}]"],
    "Q": ["{Q}.T", "{Q}[:]", "{Q}.reshape(2, 8).view(4, 4)", "w.data", "{Q}.permute(1, 0)"],
    "J": ["{J}[:]", "{I}[-1]"],
    "s": ["{V}[{i}]", "{Q}[{i}, {j}]"],
}
WRITES = ["{M!}.add_({M})", "{M!}[0] = {V}", "{M!}[:, {i}] += hp", "{M!}[{B}] = 0.5", "{Q!}.T.mul_({V})", "{Q!}.diagonal().add_({V})",
          "{Q!}.reshape(-1)[::5] = {s}", "{V!}.copy_({V})", "{V!}[1:] = {V}[:-1] + 1", "{J!}.add_({J} % 100)", "{J!}[{i}] = k", "{V!}.zero_()",
          "{V!}.uniform_()", "{Q!}[0], {Q!}[1] = {Q}[1] * 1, {Q}[0] * 1", "{M!}.clamp_(-2, 2)", "{Q!}.masked_fill_({Q} > 0.5, hp)",
          "torch.add({V} + 0, {V} * 1, out={V!})", "{V!} += {V} * 0.5", "{V!}.lerp_({V} * 1, 0.25)", "{M!}.sub_({V}).mul_(0.5)",
          "{I!}.copy_({I} * 2)", "{J!}.index_add_(0, torch.tensor([0, 0, 2]), {J}[:3] * 1)", "{V!}.scatter_(0, {J}.abs() % 4, {s}.item())",
          "{s!}.mul_(2)", "{M!}[:, 1:3].copy_({M}[:, :2] * 1)", "{Q!}[1:, 1:] = {Q}[:-1, :-1] * hp", "{Q!}.addmm_({M}.T, {M}, alpha=0.1)",
          "x.mul_(hp)", "v.add_(1)", "{V!}.normal_()", "{Q!}.fill_(hp)", "{M!}[-1].neg_()", "{V!}.fmod_(3)", "{Q!}.clamp_(-9, 9)",
          "{V!}.clamp_(-9, 9)", "{J!}.remainder_(1000)"]
STATE = ["S['v0'] = {V}", "S['q0'], S['q1'] = S['q1'], S['q0']", "kept.append({V})", "kept and kept.pop(0)", "S['m'] = {M}",
         "S['v1'] = S['v0']", "S['j'] = {J}", "S['q1'] = {Q}", "S['v0'] = torch.stack(kept).mean(0) if kept else {V}", "S['q0'] = S['q0'].T",
         "S['n'] = S.get('n', 0) + 1", "opt.param_groups[0]['lr'] = 0.1 * hp", "S['v1'] = S['q0'][{i}]", "w.grad = None"]
TRAIN = [["loss = ((({M} @ w) + b).tanh() * {M}).mean()", "if loss.requires_grad: loss.backward()"],
         ["opt.zero_grad()", "loss = F.mse_loss({M} @ w, {M}.detach()) + b.square().sum() * hp", "loss.backward()", "opt.step()"],
         ["(w * {Q}).sum().backward()", "with torch.no_grad():", "    w.sub_(w.grad, alpha=0.1 * hp)"],
         ["opt.zero_grad()", "F.cross_entropy({M} @ w + b, {I}[:, 0] % 4).backward()", "torch.nn.utils.clip_grad_norm_([w, b], 0.5)",
          "opt.step()"],
         ["(gw,) = torch.autograd.grad((({M} @ w).sin() * b).sum(), w, create_graph=True)", "(gw.square().sum() * hp).backward()"]]
HEADS = ["if {s}.item() > {c}:", "if {J}.sum() % 2 == 0:", "if k % 2:", "for k in range(k % 3 + 1):", "with torch.no_grad():",
         "if ({M} > hp).any():", "while {V!}.abs().max() > 4:", "if x.shape[0] > 2:", "if k == 2:", "if S.get('n', 0) > 1:",
         "with torch.enable_grad():", "try:"]
KINDS = "MVQsIJB"


class Writer:
    """Grows the source of one function; knows which variables exist."""

    def __init__(self, rnd: random.Random):
        self.rnd = rnd
        self.lines: list[str] = []
        self.vars = {"M": ["x", "S['m']"], "V": ["v", "S['v0']", "S['v1']"], "Q": ["S['q0']", "S['q1']"], "s": [], "I": [], "J": ["S['j']"],
                     "B": []}
        self.count = 0

    def fill(self, template: str, depth: int = 0) -> str:
        """The template with every ``{K}`` replaced by a variable or an expression of kind K (``{K!}``: a variable)."""

        def one(m: re.Match[str]) -> str:
            kind, only = m[1], m[2]
            if kind in ("i", "j"):
                return str(self.rnd.randrange(4))
            if kind == "axis":
                return str(self.rnd.randrange(2))
            if kind == "c":
                return str(round(self.rnd.uniform(-1, 1), 2))
            names = self.vars[kind]
            if names and (only or depth > 1 or self.rnd.random() < 0.7):
                return self.rnd.choice(names)
            if only:
                return self.new(kind)
            choices = [t for t in EXPRESSIONS[kind] if depth < 2 or t.count("{") <= 1]
            return "(" + self.fill(self.rnd.choice(choices), depth + 1) + ")"

        return re.sub(r"\{(axis|\w)(!?)\}", one, template)

    def new(self, kind: str, view: bool = False) -> str:
        self.count += 1
        name = f"{kind.lower()}{self.count}"
        source = self.fill(self.rnd.choice((VIEWS if view else EXPRESSIONS)[kind]))
        self.pending.append(f"{name} = {source}")
        self.added.append((kind, name))
        return name

    def statement(self, indent: str, depth: int = 0) -> None:
        """Append one statement and the definitions it needs."""
        self.pending: list[str] = []
        self.added: list[tuple[str, str]] = []
        roll = self.rnd.random()
        if roll < 0.25:
            self.new(self.rnd.choice(KINDS))
        elif roll < 0.4:
            self.new(self.rnd.choice("MVVQJs"), view=True)
        elif roll < 0.68:
            self.pending.append(self.fill(self.rnd.choice(WRITES)))
        elif roll < 0.8:
            self.pending.append(self.fill(self.rnd.choice(STATE)))
        elif roll < 0.88:
            filled = [self.fill(t) for t in self.rnd.choice(TRAIN)]
            self.pending += filled
        elif depth == 0:
            self.block(indent)
            return
        self.lines += [indent + line for line in self.pending]
        for kind, name in self.added:
            self.vars[kind].append(name)

    def block(self, indent: str) -> None:
        """A branch, loop or context with statements whose variables end with it."""
        head = self.fill(self.rnd.choice(HEADS))
        self.lines += [indent + line for line in self.pending]
        for kind, name in self.added:
            self.vars[kind].append(name)
        self.lines.append(indent + head)
        if head.startswith("while"):
            self.lines.append(f"{indent}    {head[6:].split('.abs()')[0]}.mul_(0.4)")
            return
        before = {k: list(v) for k, v in self.vars.items()}
        for _ in range(self.rnd.randint(1, 3)):
            self.statement(indent + "    ", 1)
        self.vars = before
        if head == "try:":
            self.lines += [f"{indent}    if k % 2: raise Stop", f"{indent}except Stop:", f"{indent}    S['n'] = S.get('n', 0) + 5"]
        else:
            self.lines.append(f"{indent}    pass")

    def function(self, name: str, statements: int) -> str:
        self.lines = [f"def {name}(x, v, k, hp):"]
        for n in range(statements):
            self.statement("    ")
            if self.rnd.random() < 0.04:
                self.lines.append(f"    if k == {self.rnd.randrange(5)}: raise Stop")
            if n == 1 and self.rnd.random() < 0.1:
                self.lines.append("    hp = float((x * 0).sum()) + hp")
        outs = [self.rnd.choice(self.vars[k]) for k in self.rnd.sample("MVQJIs", 3) if self.vars[k]]
        self.lines.append(f"    return [{', '.join(outs)}]")
        return "\n".join(self.lines)


def source(seed: int) -> str:
    """The program with this number."""
    rnd = random.Random(seed)
    return "\n\n".join([Writer(rnd).function(name, rnd.randint(3, 9)) for name in "fg"]) + "\n"


class Stop(Exception):
    pass


class World:
    """A program's state, the calls made on it, and the log of everything it shows."""

    def __init__(self, torch: Any, compile: Callable[..., Any], seed: int, fresh: bool = False, rows: int = 3,
                 share: bool = True):
        self.rows = rows
        self.torch, self.rnd, self.np = torch, random.Random(seed), np.random.default_rng(seed)
        torch.manual_seed(seed)
        self.state: dict[str, Any] = {"v0": self.floats(4), "v1": self.floats(4), "q0": self.floats(4, 4), "q1": self.floats(4, 4),
                                      "m": self.floats(rows, 4), "j": torch.tensor([3, 1, 4, 1])}
        self.kept: list[Any] = []
        self.arrays = [self.state[self.rnd.choice(["q1", "v1", "m"])].numpy()] if share and self.rnd.random() < 0.3 else []
        self.w, self.b = self.floats(4, 4).requires_grad_(), self.floats(4).requires_grad_()
        optims = torch.optim
        self.opt = self.rnd.choice([lambda p: optims.SGD(p, lr=0.1), lambda p: optims.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
                                    lambda p: optims.Adam(p, lr=0.01)])([self.w, self.b])
        space = {"torch": torch, "F": torch.nn.functional, "S": self.state, "kept": self.kept, "w": self.w, "b": self.b, "opt": self.opt,
                 "Stop": Stop}
        exec(builtin_compile(source(seed), f"<program {seed}>", "exec"), space)
        self.functions = [compile(space["f"]), compile(space["g"])]
        self.log: list[Any] = []
        self.fresh = fresh  # arguments that nothing else holds, of shapes that stay
        self.given: list[Any] = []

    def floats(self, *shape: int) -> Any:
        return self.torch.tensor(self.np.standard_normal(shape).astype(np.float32))

    def argument(self) -> tuple[Any, Any]:
        """x and v: fresh, or something the program already holds."""
        rnd = self.rnd
        if self.fresh:
            return self.floats(self.rows, 4), self.floats(4)
        if rnd.random() < 0.25:
            self.state["m"] = self.floats(rnd.choice([self.rows - 1, self.rows]), 4)
        n = self.state["m"].shape[0]
        x = rnd.choice([lambda: self.floats(n, 4), lambda: self.state["m"], lambda: self.floats(n + 1, 4)[1:]])()
        v = rnd.choice([lambda: self.floats(4), lambda: self.state["v0"], lambda: self.b.data, lambda: self.state["q0"][1]])()
        return x, v

    def call(self, k: int, again: Any = None) -> Any:
        """One call; ``again``: what an earlier call gave back, to do the same with new data."""
        x, v = self.argument()
        hp, fn, k = again or (self.rnd.choice([0.5, 1.5, 0.25, 1]), self.rnd.choice(self.functions), k)
        try:
            out = fn(x, v, k, hp)
        except (Stop, RuntimeError, ValueError, IndexError, TypeError) as error:
            self.log.append((type(error).__name__, str(error).split("\n")[0]))
            out = []
        self.given += out
        self.log.append([self.show(t) for t in out])
        if self.rnd.random() < 0.2:
            self.state["v0"].mul_(0.5)
        if self.rnd.random() < 0.1:
            self.kept.clear()
        for a in self.arrays:
            if self.rnd.random() < 0.3:
                a[0] = a[0] * 0.5 + 1
        return hp, fn, k

    def show(self, t: Any) -> Any:
        if not isinstance(t, self.torch.Tensor):
            return t
        return np.array(t.tolist(), dtype=str(t.dtype).split(".")[-1].replace("bool", "bool_")), t.requires_grad

    def everything(self) -> None:
        """Log all state, also what earlier calls returned."""
        for t in [*self.state.values(), *self.kept, *self.given, self.w, self.b, self.w.grad, self.b.grad]:
            self.log.append(self.show(t))
        self.log.append([a.copy() for a in self.arrays])
        self.stream()

    def stream(self) -> None:
        """Log where the random stream is."""
        self.log.append(self.show(self.torch.rand(2)))

    def run(self, calls: int, repeat: int = 1) -> list[Any]:
        for k in range(calls):
            same = self.call(k)
            for _ in range(repeat - 1):
                self.call(k, same)
            if k % 2:
                self.everything()
        self.everything()
        return self.log


builtin_compile = compile
