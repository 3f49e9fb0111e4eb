"""``graphc.compile``: whole functions as one program.

``function.py`` is the decorator, ``report.py`` what it can tell. ``mode="replay"`` builds on what a call could see
(``scene.py``) and did (``observe.py``): ``replay.py`` decides when Python may be skipped, ``shortcut.py`` does the plainest
calls at least cost.
"""
from .function import AUDIT_EVERY, RECOMPILE_BUDGET, CompiledFunction, PerformanceNote, RecompileWarning, compile

__all__ = ["AUDIT_EVERY", "CompiledFunction", "PerformanceNote", "RECOMPILE_BUDGET", "RecompileWarning", "compile"]
