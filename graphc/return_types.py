"""``torch.return_types``: classes of the named tuples that functions return."""
from importlib import import_module

__all__ = []
for _module in ("linalg", "linalg_old", "numeric", "reduction", "setops", "sort"):  # by name: functions hide some
    for _name, _obj in list(vars(import_module(f"{__package__}.ops.{_module}")).items()):
        if _name.endswith("_result") and isinstance(_obj, type):
            globals()[_obj.__name__] = _obj
            __all__.append(_obj.__name__)
