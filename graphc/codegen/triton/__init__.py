"""The Triton back end: loop-IR kernels and contractions as Triton source, compiled to GPU machine code without a GPU."""
