"""The primitive rows by family. Importing this package fills the table."""
from . import constant, contraction, indexing, movement, pointwise, random, reduction, sort  # noqa: F401
