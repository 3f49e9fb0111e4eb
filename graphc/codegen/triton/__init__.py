"""The Triton back end: a schedule as GPU kernels in Triton source, compiled to machine code without a GPU.

``printer`` (with ``tiling``, ``opcodes``, ``support``) prints loop-IR kernels; ``matmul``, ``conv`` and ``attention`` print
tiled products, into which pointwise kernels behind them are printed as epilogues; ``scatter``, ``scan`` and ``order`` are
kernels of their own. ``passes`` prepares graphs, ``plan`` turns a schedule into launches, ``compiler`` alone touches Triton.
"""
