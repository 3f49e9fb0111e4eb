"""``torch._inductor``: switches that programs set; graphc's code generators have their own."""
from . import config

__all__ = ["config"]
