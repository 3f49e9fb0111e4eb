"""The CUDA run time: driver, memory, streams, launches and graphs, without PyTorch, on NVIDIA's ``cuda-bindings``.

Importing this package imports nothing of CUDA; the driver is loaded when it is first asked for.

    driver.py     every call into cuda-bindings; errors; properties
    allocator.py  the caching allocator, over two callables
    device.py     a device's context, memory, streams and events; which one is current
    buffer.py     DeviceBuffer and copies through page-locked memory
    launch.py     modules, functions, argument blocks, lists of launches
    graph.py      capture and replay of a list of launches
    program.py    a GPU plan made executable: arena, argument blocks, graphs, steps for the host
    results.py    memory for the results of plans that run often
    region.py     a recorded program over several devices: its parts in order, moves between them
    interop.py    ``__cuda_array_interface__`` and DLPack
"""
