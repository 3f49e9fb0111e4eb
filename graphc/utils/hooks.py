"""``torch.utils.hooks``: the handle that registering a hook returns."""
from ..nn._hooks import RemovableHandle

__all__ = ["RemovableHandle"]
