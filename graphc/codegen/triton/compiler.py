"""Triton source to GPU machine code, without a GPU and without PyTorch: the only file that touches Triton.

Works with Triton 3.6 up to below 3.11 (tried with 3.6.0, 3.8.0 and 3.9.0). The stages of Triton's compiler are run one by
one here rather than through ``triton.compile``: that skips Triton's own disk cache and its hashing of the whole package
(0.5 to 1.3 s in every process), and lets us call the assembler ourselves: registers and spills are read from its report,
and a failure is one error instead of pages of assembly on stdout.

Compiled kernels are kept in graphc's disk cache by source, argument types, options, versions and target, so that a warm
process imports no Triton. Missing ones are compiled in threads: Triton's passes and the assembler release the GIL.
"""
from __future__ import annotations

import importlib.metadata
import json
import linecache
import os
import re
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from ...errors import CompileError
from ...ir.location import format_location
from ...runtime.kernel_cache import KernelCache, default_directory, enabled
from .printer import Printed, stable

FLOOR, CEILING = (3, 6), (3, 11)
FORMAT = 2  # raise when what is stored or how kernels are compiled changes
# Bytes of shared memory one program may have, by compute capability (CUDA C++ Programming Guide, table of technical
# specifications, minus the 1 KiB the system keeps); CDNA3: 64 KiB of LDS.
SHARED_LIMIT = {80: 166912, 86: 101376, 87: 166912, 89: 101376, 90: 232448, 100: 232448, 103: 232448, 120: 101376}
PROCESSORS = {80: 108, 86: 84, 89: 128, 90: 132, 100: 148, 120: 170}  # streaming multiprocessors of the largest usual part
MAX_THREADS = 16
_HEADER = struct.Struct("<I")  # length of the JSON facts, which the machine code follows


class Target(NamedTuple):
    """What to compile for: ``cuda`` with a compute capability times ten, or ``hip`` with a gfx name."""

    backend: str
    arch: int | str

    @property
    def warp_size(self) -> int:
        """Threads of a warp."""
        return 64 if str(self.arch).startswith("gfx9") else 32

    @property
    def shared_limit(self) -> int:
        """Bytes of shared memory a program may use."""
        return SHARED_LIMIT.get(self.arch, 101376) if isinstance(self.arch, int) else 65536

    @property
    def processors(self) -> int:
        """How many programs of full size run at the same time."""
        return PROCESSORS.get(self.arch, 108) if isinstance(self.arch, int) else 304

    def __str__(self) -> str:
        return f"sm_{self.arch}" if self.backend == "cuda" else str(self.arch)


A100, H100, MI300 = Target("cuda", 80), Target("cuda", 90), Target("hip", "gfx942")


@dataclass(frozen=True)
class Compiled:
    """Machine code of a kernel and what launching it needs; parameters are the run-time arguments, then two scratch pointers.

    ``registers`` and ``spills`` (bytes) are None where the tool chain does not tell. ``shared`` in bytes. ``facts``
    counts instructions of the assembly: loads, stores and how many of them move 16 bytes, asynchronous copies, tensor cores.
    """

    symbol: str
    entry: str
    code: bytes
    warps: int
    ctas: int
    shared: int
    scratch: int
    scratch_align: int
    registers: int | None
    spills: int | None
    facts: dict[str, int]

    def pack(self) -> bytes:
        """As bytes for the disk."""
        head = json.dumps({k: v for k, v in asdict(self).items() if k != "code"}).encode()
        return _HEADER.pack(len(head)) + head + self.code

    @staticmethod
    def unpack(data: bytes) -> Compiled:
        """From the disk. Raises ValueError (and kin) if the bytes are something else."""
        (n,) = _HEADER.unpack_from(data)
        return Compiled(**json.loads(data[4:4 + n]), code=data[4 + n:])


# ------------------------------------------------------------------------------------------------------- availability
def version() -> str:
    """Triton's version without importing it; empty if it is not installed."""
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return ""


def version_pair(text: str) -> tuple[int, int]:
    """The two leading numbers of a version."""
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def reason() -> str:
    """Why kernels cannot be compiled here; empty if they can."""
    have = version()
    if not have:
        return "triton is not installed (pip install 'graphc[cuda]'; it exists for Linux only)"
    if not FLOOR <= version_pair(have) < CEILING:
        return f"triton {have} is not supported (graphc works with {FLOOR[0]}.{FLOOR[1]} up to below {CEILING[0]}.{CEILING[1]})"
    return ""


# ------------------------------------------------------------------------------------------------------------- facts
_PATTERNS = {
    "loads": r"\bld\.global\b", "wide_loads": r"\bld\.global[\w.:]*\.(?:v4\.[bfus]32|v2\.[bfus]64|b128)\b",
    "stores": r"\bst\.global\b", "wide_stores": r"\bst\.global[\w.:]*\.(?:v4\.[bfus]32|v2\.[bfus]64|b128)\b",
    "async": r"\bcp\.async\.c[ag]\.shared\.global\b", "wide_async": r"\bcp\.async\.cg\.shared\.global\b",
    "tma": r"\bcp\.async\.bulk\.tensor\b", "mma": r"\bmma\.sync\b", "wgmma": r"\bwgmma\.mma_async\b",
    "atomics": r"\b(?:atom|red)\.(?:\w+\.)*global\b",
}


def assembly_facts(ptx: str) -> dict[str, int]:
    """Counts of the instructions that decide a kernel's speed."""
    return {name: len(re.findall(p, ptx)) for name, p in _PATTERNS.items()}


# ------------------------------------------------------------------------------------------------------- one kernel
def for_target(source: str, target: Target) -> str:
    """The source as a target's front end takes it: AMD's matrix units compute float32 products as they are."""
    return source if target.backend == "cuda" else source.replace('input_precision="tf32x3"', 'input_precision="ieee"')


def _function(p: Printed, target: Target) -> Any:
    """The decorated function of a module that exists only in memory."""
    name, source = f"<graphc {p.symbol} {target}>", for_target(p.source, target)
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    space: dict[str, Any] = {"__name__": f"graphc_generated_{p.symbol}"}
    exec(compile(source, name, "exec"), space)
    return space[p.symbol]


_PARSING = threading.Lock()  # ast.parse of several threads can fail in CPython 3.11 ("recursion depth mismatch")


def _source(p: Printed, target: Target) -> Any:
    """What Triton's front end takes: function, types, constants, hints."""
    from triton.compiler import ASTSource

    fn = _function(p, target)
    signature = {a.name: a.type for a in p.args} | {name: "constexpr" for name, _ in p.constants}
    at = {name: i for i, name in enumerate(fn.arg_names)}
    hints = {(at[a.name],): [["tt.divisibility", a.divisor]] for a in p.args if a.divisor > 1}
    return ASTSource(fn, {n: signature[n] for n in fn.arg_names}, {(at[n],): v for n, v in p.constants}, hints)


def _assemble(ptx: str, arch: int) -> tuple[bytes, int, int]:
    """(machine code, registers, spilled bytes) from the assembler that comes with Triton."""
    from triton.backends.nvidia.compiler import get_ptxas

    found = get_ptxas(arch)
    target = f"sm_{arch}a" if arch >= 90 else f"sm_{arch}"
    # The level of register allocation is Triton's remedy for a defect of ptxas 13.
    flags = ["-v", "-lineinfo", "--fmad=false", *(["--regAllocOptLevel=2"] if version_pair(found.version) >= (13, 0) else [])]
    with tempfile.TemporaryDirectory(prefix="graphc") as folder:
        source = os.path.join(folder, "k.ptx")
        with open(source, "w") as file:
            file.write(ptx)
        best = _ptxas([found.path, *flags, f"--gpu-name={target}", source], folder)
        if best[2]:  # ptxas spills a few bytes where it aims at more programs per processor: ask for less of that
            again = _ptxas([found.path, *flags, "--register-usage-level=0", f"--gpu-name={target}", source], folder)
            best = min(best, again, key=lambda r: r[2])
    return best


def _ptxas(command: list[str], folder: str) -> tuple[bytes, int, int]:
    out = os.path.join(folder, "k.cubin")
    done = subprocess.run([*command, "-o", out], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ptxas failed with code {done.returncode}: {done.stderr.strip()[:500]}")
    with open(out, "rb") as file:
        code = file.read()
    registers = re.search(r"Used (\d+) registers", done.stderr)
    return code, int(registers[1]) if registers else 0, sum(int(n) for n in re.findall(r"(\d+) bytes spill", done.stderr))


def _compile(p: Printed, target: Target) -> Compiled:
    """Run Triton's stages on one kernel. Raises whatever they raise."""
    from triton._C.libtriton import ir
    from triton.backends.compiler import GPUTarget
    from triton.compiler.compiler import make_backend

    with _PARSING:
        src = _source(p, target)
    gpu = GPUTarget(target.backend, target.arch, target.warp_size)
    backend = make_backend(gpu)
    # Fusing a * b + c would make results depend on what was fused with what; libdevice keeps subnormals, as NumPy does.
    wanted = {"num_warps": p.warps * 32 // target.warp_size or 1, "num_stages": p.stages, "enable_fp_fusion": False,
              "enable_reflect_ftz": False}
    options = backend.parse_options(wanted)
    stages: dict[str, Callable[..., Any]] = {}
    backend.add_stages(stages, options, src.language)
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    with _PARSING:
        module = src.make_ir(gpu, options, backend.get_codegen_implementation(options), backend.get_module_map(), context)
    metadata: dict[str, Any] = {"target": gpu, **options.__dict__}
    registers = spills = None
    text = ""
    for name, stage in list(stages.items())[list(stages).index(src.ext):]:
        if name == "cubin":
            assert isinstance(target.arch, int)
            module, registers, spills = _assemble(text, target.arch)
            break
        module = stage(module, metadata)
        if name in ("ptx", "amdgcn"):
            text = module
    return Compiled(p.symbol, metadata["name"], module, metadata["num_warps"], metadata.get("num_ctas") or 1,
                    metadata["shared"] or 0, metadata.get("global_scratch_size") or 0,
                    metadata.get("global_scratch_align") or 1, registers, spills, assembly_facts(text))


# -------------------------------------------------------------------------------------------------------------- engine
class Compiler:
    """Compiled kernels of this process for one target. Safe to use from several threads."""

    def __init__(self, target: Target, cache: KernelCache | None = None):
        self.target = target
        if cache is None:
            stamp = f"triton {version()} {FORMAT} {target.backend} {target.arch}"
            cache = KernelCache(default_directory() if enabled() else None, stamp)
        self.cache = cache if enabled() else None
        self.compiled = self.reloaded = 0  # counts of kernels, for tests and logs
        self._lock = threading.Lock()
        self._known: dict[str, Compiled] = {}  # by symbol, which is a digest of the source

    def get(self, printed: Iterable[Printed]) -> dict[str, Compiled]:
        """Every kernel by symbol; equal ones are compiled once, missing ones in parallel.

        Raises CompileError naming the kernel and the user's lines where one cannot be compiled or needs more shared
        memory than the target has; the other kernels of the call are kept.
        """
        wanted = {p.symbol: p for p in printed}
        with self._lock:
            missing = [p for p in wanted.values() if p.symbol not in self._known]
            todo = [p for p in missing if not self._reload(p)]
            failures = self._compile(todo) if todo else []
            if failures:
                p, error = failures[0]
                more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
                raise CompileError(f"kernel {p.symbol} cannot be compiled for {self.target}{lines_of(p)}: "
                                   f"{_brief(error)}{more}") from error
            return {s: self._known[s] for s in wanted}

    def _key(self, p: Printed) -> str:
        assert self.cache is not None
        return self.cache.key(repr((p.symbol, stable(p.source), [(a.type, a.divisor) for a in p.args],
                                    p.constants, p.warps, p.stages)))

    def _reload(self, p: Printed) -> bool:
        """Take a kernel from the disk."""
        data = self.cache.get(self._key(p)) if self.cache is not None else None
        if data is None:
            return False
        try:
            self._known[p.symbol] = Compiled.unpack(data)
        except (ValueError, TypeError, KeyError, struct.error):
            return False
        self.reloaded += 1
        return True

    def _compile(self, todo: list[Printed]) -> list[tuple[Printed, BaseException]]:
        """Compile kernels; returns those that failed."""
        if reason():
            raise CompileError(f"GPU kernels are not available: {reason()}")
        import triton  # noqa: F401  (once, before threads race for it)

        failures: list[tuple[Printed, BaseException]] = []
        workers = min(MAX_THREADS, os.cpu_count() or 1, len(todo))
        with ThreadPoolExecutor(workers, thread_name_prefix="graphc-triton") as pool:
            for p, job in [(p, pool.submit(_compile, p, self.target)) for p in todo]:
                try:
                    done = job.result()
                    if done.shared > self.target.shared_limit:
                        raise RuntimeError(f"{done.shared} bytes of shared memory, the device has {self.target.shared_limit}")
                except Exception as error:  # whatever Triton raises: there is no common base
                    failures.append((p, error))
                    continue
                self._known[p.symbol] = done
                self.compiled += 1
                if self.cache is not None:
                    self.cache.put(self._key(p), done.pack())
        return failures


def lines_of(p: Printed) -> str:
    """The user's lines a kernel was recorded at, for messages."""
    stmts = p.kernel.stmts if p.kernel is not None else ()
    lines = dict.fromkeys(format_location(s.loc) for s in stmts if s.loc is not None)
    return f" (recorded at {', '.join(lines)})" if lines else ""


def _brief(error: BaseException) -> str:
    """The end of a cause chain in a line or two: Triton wraps errors in copies of the source."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= 400 else text[:150] + ' ... ' + text[-250:]}"


class _Process:
    lock = threading.Lock()
    compilers: dict[Target, Compiler] = {}


def compiler(target: Target) -> Compiler:
    """This process's compiler for a target."""
    with _Process.lock:
        if target not in _Process.compilers:
            _Process.compilers[target] = Compiler(target)
        return _Process.compilers[target]


__all__ = ["A100", "H100", "MI300", "Compiled", "Compiler", "Target", "assembly_facts", "compiler", "reason", "version"]
