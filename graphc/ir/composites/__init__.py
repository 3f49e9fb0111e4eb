"""The composite rows by family. Importing this package fills the table."""
from importlib import import_module
from importlib.util import find_spec

for _family in ("activation", "norm", "loss", "attention", "optim", "recurrent", "linear", "dropout", "basic", "pool"):
    if find_spec(f"{__name__}.{_family}") is not None:
        import_module(f"{__name__}.{_family}")
