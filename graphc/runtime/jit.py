"""LLVM IR text to callable machine code in this process, through llvmlite (loaded at first use only).

One kernel is one module, one object and one entry of the disk cache. Missing kernels are compiled in parallel threads.
Measured on the 24 kernels of an MLP's training step (LLVM 22, AVX-512, one thread): LLVM's own O2 takes 31 ms a kernel,
the pass list below 12.7 ms, and the step is as fast; loading a cached object takes 0.15 ms.
"""
from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import CompileError
from . import threads
from .kernel_cache import KernelCache, default_directory, enabled

LLVM_FLOOR = 22  # the kernels' text uses masked intrinsics without an alignment operand
# Kernels are vectorised, unrolled and inlined where they want it; what is left is cleaning up, and the code generator does
# its own common subexpressions and loop invariants. Adding GVN and loop rotation costs 20 % and gains nothing.
PASSES = ("global_dead_code_eliminate", "always_inliner", "global_dead_code_eliminate", "sroa", "instruction_combine",
          "simplify_cfg")
CODEGEN_LEVEL = 2

_Symbols = tuple[str, ...]
# What LLVM calls to round to bfloat16 on x86 without AVX512-BF16; C's run-time library has it only since GCC 13. The
# double is first rounded to odd, so that rounding twice equals rounding once.
_TO_BFLOAT16 = ("__truncsfbf2", "__truncdfbf2")
_TO_BFLOAT16_TEXT = """
declare double @llvm.fabs.f64(double)
define bfloat @__truncsfbf2(float %x) {
  %b = bitcast float %x to i32
  %magnitude = and i32 %b, 2147483647
  %nan = icmp ugt i32 %magnitude, 2139095040
  %top = lshr i32 %b, 16
  %quiet = or i32 %top, 64
  %odd = and i32 %top, 1
  %half = add i32 %odd, 32767
  %up = add i32 %b, %half
  %near = lshr i32 %up, 16
  %r32 = select i1 %nan, i32 %quiet, i32 %near
  %r16 = trunc i32 %r32 to i16
  %r = bitcast i16 %r16 to bfloat
  ret bfloat %r
}
define bfloat @__truncdfbf2(double %x) {
  %f = fptrunc double %x to float
  %back = fpext float %f to double
  %inexact = fcmp one double %back, %x
  %size = call double @llvm.fabs.f64(double %x)
  %size2 = call double @llvm.fabs.f64(double %back)
  %above = fcmp ogt double %size2, %size
  %b = bitcast float %f to i32
  %less = sext i1 %above to i32
  %toward0 = add i32 %b, %less
  %odd = or i32 %toward0, 1
  %to_odd = select i1 %inexact, i32 %odd, i32 %b
  %g = bitcast i32 %to_odd to float
  %r = call bfloat @__truncsfbf2(float %g)
  ret bfloat %r
}
"""


class _Host:
    """What is known about llvmlite and this machine, found once."""

    def __init__(self) -> None:
        try:
            import llvmlite.binding as llvm
        except ModuleNotFoundError:
            raise ImportError("llvmlite is not installed (pip install llvmlite)") from None
        if llvm.llvm_version_info[0] < LLVM_FLOOR:
            raise ImportError(f"llvmlite is built on LLVM {llvm.llvm_version_info[0]}, {LLVM_FLOOR} or newer is needed")
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self.llvm: Any = llvm
        self.triple: str = llvm.get_process_triple()
        self.cpu: str = llvm.get_host_cpu_name()
        self.features: dict[str, bool] = dict(llvm.get_host_cpu_features())
        self.feature_text = ",".join(("+" if on else "-") + name for name, on in sorted(self.features.items()))

    def machine(self) -> Any:
        """A target machine for this CPU; one serves one thread at a time."""
        target = self.llvm.Target.from_default_triple()
        return target.create_target_machine(cpu=self.cpu, features=self.feature_text, opt=CODEGEN_LEVEL, jit=True)

    def stamp(self) -> str:
        """Everything but the source that decides an object's bytes."""
        import llvmlite
        version = ".".join(map(str, self.llvm.llvm_version_info))
        return "\0".join((llvmlite.__version__, version, self.triple, self.cpu, self.feature_text, repr(PASSES),
                          str(CODEGEN_LEVEL)))


class _Process:
    """The engine and host of this process, created at first use."""
    lock = threading.RLock()  # also held around fork, so that a child never inherits a compiler at work
    host: _Host | None = None
    engine: Engine | None = None
    reason: str | None = None


def available() -> bool:
    """Whether kernels can be compiled here; :func:`reason` says why not."""
    if _Process.host is None and _Process.reason is None:
        try:
            _host()
        except CompileError:
            pass
    return _Process.host is not None


def reason() -> str:
    """Why :func:`available` is False; empty if it is True."""
    return "" if available() else _Process.reason or ""


def vector_bits() -> int:
    """Width of the vectors kernels should use: 512, 256 or 128 bits. ``GRAPHC_VECTOR_BITS`` overrides it."""
    forced = os.environ.get("GRAPHC_VECTOR_BITS", "")
    if forced:
        if forced not in ("128", "256", "512"):
            raise CompileError(f"GRAPHC_VECTOR_BITS={forced}: expected 128, 256 or 512")
        return int(forced)
    features = _host().features
    if all(features.get(name) for name in ("avx512f", "avx512bw", "avx512dq", "avx512vl")):
        return 512
    return 256 if features.get("avx2") and features.get("fma") else 128


def features() -> Mapping[str, bool]:
    """LLVM's names of the CPU's features and whether this machine has them."""
    return _host().features


def triple() -> str:
    """LLVM's name of this machine and system, e.g. ``x86_64-unknown-linux-gnu``."""
    return _host().triple


def engine() -> Engine:
    """The process's engine. Raises CompileError where :func:`available` is False."""
    with _Process.lock:
        if _Process.engine is None:
            _Process.engine = Engine(_host())
        return _Process.engine


def _host() -> _Host:
    host = _Process.host
    if host is not None:
        return host
    with _Process.lock:
        if _Process.host is None and _Process.reason is None:
            try:
                _Process.host = _Host()
            except (ImportError, OSError, RuntimeError, AttributeError) as error:
                _Process.reason = str(error)
        if _Process.host is None:
            raise CompileError(f"native kernels are not available: {_Process.reason}")
        return _Process.host


class Engine:
    """Loaded kernels of this process. Loaded code is never freed: threads and plans hold its addresses."""

    def __init__(self, host: _Host, cache: KernelCache | None = None):
        self._host = host
        self._lock = _Process.lock
        self._jit = host.llvm.create_lljit_compiler(suppress_errors=True)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._jit))  # threads may still run its code while Python exits
        self._machines: list[Any] = []
        self._loaded: dict[tuple[str, str], int] = {}  # (symbol, text) -> address
        self._libraries = 0
        if cache is None:
            cache = KernelCache(default_directory() if enabled() else None, host.stamp())
        self.cache = cache if enabled() else None
        self.compiled = self.reloaded = 0  # counts of kernels, for tests and logs
        self._imports: dict[str, int] = {}
        if host.triple.startswith("x86_64") and not host.features.get("avx512bf16"):
            self._imports = self.library(_TO_BFLOAT16_TEXT, _TO_BFLOAT16)

    def functions(self, modules: Mapping[str, str]) -> dict[str, int]:
        """Addresses of kernels: symbol -> LLVM text that defines it gives symbol -> address.

        A text is self-contained and may define helpers, which stay private to it. Kernels already loaded are returned
        at once, those in the disk cache are loaded, the rest are compiled in up to ``get_num_threads()`` threads.
        Raises CompileError, naming the symbol, if a text is not valid, does not define its symbol or calls something
        that does not exist; the other kernels of the call stay loaded.
        """
        loaded = self._loaded
        missing = [item for item in modules.items() if item not in loaded]
        if missing:
            with self._lock:
                self._load([((symbol,), text) for symbol, text in missing if (symbol, text) not in loaded])
        return {symbol: loaded[symbol, text] for symbol, text in modules.items()}

    def library(self, text: str, symbols: tuple[str, ...]) -> dict[str, int]:
        """Addresses of several functions of one text; otherwise like :func:`functions`."""
        with self._lock:
            if any((symbol, text) not in self._loaded for symbol in symbols):
                self._load([(symbols, text)])
        return {symbol: self._loaded[symbol, text] for symbol in symbols}

    def _load(self, items: list[tuple[_Symbols, str]]) -> None:
        todo: list[tuple[_Symbols, str, str]] = []
        for symbols, text in items:
            key = self.cache.key(f"{' '.join(symbols)}\0{text}") if self.cache else ""
            stored = self.cache.get(key) if self.cache else None
            if stored is not None and self._link_stored(symbols, text, key, stored):
                self.reloaded += 1
            else:
                todo.append((symbols, text, key))
        first: CompileError | None = None
        for (symbols, text, key), result in zip(todo, self._compile_all(todo)):
            try:
                if not isinstance(result, bytes):
                    raise CompileError(f"kernel {symbols[0]}: {result}") from result
                self._link(symbols, text, result)
            except CompileError as error:
                first = first or error
                continue
            self.compiled += 1
            if self.cache:
                self.cache.put(key, result)
        if first:
            raise first

    # ------------------------------------------------------------------------------------------------------- compile
    def _compile_all(self, todo: list[tuple[_Symbols, str, str]]) -> list[bytes | Exception]:
        """Objects (or what went wrong), in order; large texts are started first."""
        results: list[bytes | Exception] = [b""] * len(todo)
        order = iter(sorted(range(len(todo)), key=lambda i: -len(todo[i][1])))  # next() on it is atomic

        def work() -> None:
            try:  # taken off the list while in use: Ctrl-C may leave a thread behind that is still compiling
                machine = self._machines.pop()
            except IndexError:
                machine = self._host.machine()
            for i in order:
                try:
                    results[i] = _compile(self._host.llvm, machine, todo[i][0], todo[i][1])
                except (RuntimeError, NameError, ValueError) as error:
                    results[i] = error
            self._machines.append(machine)

        helpers = [threading.Thread(target=work, daemon=True) for _ in range(1, min(threads.get_num_threads(), len(todo)))]
        for helper in helpers:
            helper.start()
        if todo:
            work()
        for helper in helpers:
            helper.join()
        return results

    # ---------------------------------------------------------------------------------------------------------- link
    def _link(self, symbols: _Symbols, text: str, image: bytes) -> None:
        """Load an object; its symbols are private to it, so names never clash."""
        self._libraries += 1
        builder = self._host.llvm.JITLibraryBuilder().add_object_img(image).add_current_process()
        for symbol in symbols:
            builder.export_symbol(symbol)
        for name, address in self._imports.items():
            builder.import_symbol(name, address)
        try:
            tracker = builder.link(self._jit, f"kernel{self._libraries}")
        except RuntimeError as error:
            calls = sorted(set(re.findall(r"^declare .*?@([\w.$]+)\(", text, re.MULTILINE)))
            outside = ", ".join(name for name in calls if not name.startswith("llvm.")) or "nothing"
            raise CompileError(f"kernel {symbols[0]} cannot be loaded (it calls {outside}): {error}") from error
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(tracker))  # dropping it would unload the code
        self._loaded.update({(symbol, text): tracker[symbol] for symbol in symbols})

    def _link_stored(self, symbols: _Symbols, text: str, key: str, image: bytes) -> bool:
        try:
            self._link(symbols, text, image)
        except CompileError:  # whole, but not for this process: build it anew
            if self.cache:
                self.cache.discard(key)
            return False
        return True


def _unlocked(llvm: Any, name: str) -> Callable[..., Any]:
    """A C function of llvmlite without the lock llvmlite holds around every call, so that threads compile in parallel.

    Sound because each thread has its own LLVM context and target machine, which LLVM allows to be used at the same time.
    """
    function = getattr(llvm.ffi.lib, name)
    return getattr(function, "_cfn", function)


def _compile(llvm: Any, machine: Any, symbols: _Symbols, text: str) -> bytes:
    """Object of one text. RuntimeError if LLVM rejects it, NameError if it does not define a symbol."""
    context = llvm.create_context()
    with llvm.parse_assembly(text, context) as module:
        module.verify()
        for function in module.functions:
            if not function.is_declaration:
                function.linkage = "external" if function.name in symbols else "internal"
        absent = set(symbols) - {f.name for f in module.functions if not f.is_declaration}
        if absent:
            raise NameError(f"the text does not define {', '.join(sorted(absent))}")
        options = llvm.create_pipeline_tuning_options(speed_level=2)
        builder, manager = llvm.create_pass_builder(machine, options), llvm.create_new_module_pass_manager()
        for name in PASSES:
            getattr(manager, f"add_{name}_pass")()
        _unlocked(llvm, "LLVMPY_RunNewModulePassManager")(manager, module, builder)
        lib = llvm.ffi.lib
        with llvm.ffi.OutputString() as message:
            buffer = _unlocked(llvm, "LLVMPY_TargetMachineEmitToMemory")(machine, module, 1, message)
            if not buffer:
                raise RuntimeError(str(message))
        try:
            return ctypes.string_at(lib.LLVMPY_GetBufferStart(buffer), lib.LLVMPY_GetBufferSize(buffer))
        finally:
            lib.LLVMPY_DisposeMemoryBuffer(buffer)


def _release() -> None:
    _Process.lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_Process.lock.acquire, after_in_parent=_release, after_in_child=_release)
