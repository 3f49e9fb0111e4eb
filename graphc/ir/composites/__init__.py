"""The composite rows by family. Importing this package fills the table."""
from . import activation, attention, basic, dropout, indexing, linear, loss, norm, optim, overlap, pool, recurrent  # noqa: F401
