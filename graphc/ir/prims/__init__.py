"""The primitive rows by family. Importing this package fills the table."""
from . import complex, constant, contraction, fft, indexing, linalg, movement, pointwise, random, reduction, sort  # noqa: F401
