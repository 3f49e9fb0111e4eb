"""Every footgun again under mode="replay", as eager as possible to skip Python: right or a StaleReplayError, never stale."""
from __future__ import annotations

import pytest
import test_footguns
import test_footguns_state
import test_footguns_training
from footguns import PROGRAMS, programs_of, run_compiled, run_eager, same

from graphc.compile import replay as compile_replay
from graphc.errors import StaleReplayError

pytestmark = pytest.mark.filterwarnings("ignore::graphc.compile.PerformanceNote", "ignore::graphc.compile.RecompileWarning")
MODULES = (test_footguns, test_footguns_state, test_footguns_training)


@pytest.mark.parametrize("name", [n for m in MODULES for n in programs_of(m.__name__)])
def test_replayed_is_eager(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_replay, "FIRST_AUDITS", 0)
    want = run_eager(PROGRAMS[name])
    try:
        same(run_compiled(PROGRAMS[name], mode="replay"), want)
    except StaleReplayError:
        pass
