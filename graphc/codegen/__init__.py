"""From graph IR to running code: passes, plans, back ends."""
from __future__ import annotations

from ..ir.recorder import set_planner
from .plan import build_plan

set_planner(build_plan)
