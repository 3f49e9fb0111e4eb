"""A stand-in for the module ``cuda.bindings.driver``: devices in host memory whose streams run late.

Work sent to a stream is queued and runs only when something waits for it (or, with ``eager``, at once), so that memory
reused too early, missing waits and arguments read too late show as wrong numbers. Every call is noted in ``calls``; launches
are decoded from the packed arguments into ``launches``. ``fail[name] = [codes]`` makes the next calls fail.
"""
from __future__ import annotations

import ctypes
import threading
from collections import deque
from types import SimpleNamespace

import numpy as np

ERRORS = {1: "CUDA_ERROR_INVALID_VALUE", 2: "CUDA_ERROR_OUT_OF_MEMORY", 3: "CUDA_ERROR_NOT_INITIALIZED",
          100: "CUDA_ERROR_NO_DEVICE", 101: "CUDA_ERROR_INVALID_DEVICE", 200: "CUDA_ERROR_INVALID_IMAGE",
          201: "CUDA_ERROR_INVALID_CONTEXT", 400: "CUDA_ERROR_INVALID_HANDLE", 500: "CUDA_ERROR_NOT_FOUND",
          600: "CUDA_ERROR_NOT_READY", 700: "CUDA_ERROR_ILLEGAL_ADDRESS", 900: "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
          901: "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", 910: "CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE"}
CTYPES = {"i1": ctypes.c_int8, "i8": ctypes.c_int8, "u8": ctypes.c_uint8, "i16": ctypes.c_int16, "u16": ctypes.c_uint16, "i32": ctypes.c_int32,
          "u32": ctypes.c_uint32, "i64": ctypes.c_int64, "u64": ctypes.c_uint64, "fp32": ctypes.c_float,
          "fp64": ctypes.c_double, "fp16": ctypes.c_uint16, "bf16": ctypes.c_uint16}
SCRATCH = ["*i8", "*i8"]
FUNCTION = {0: 1024, 1: 0, 3: 0, 4: 40}


class Handle(int):
    """A distinct handle; ints are accepted in its place, as the real bindings do."""


class Enum(int):
    pass


def array(address, n, dt=np.float32):
    """Memory as an array."""
    dt = np.dtype(dt)
    raw = (ctypes.c_uint8 * (int(n) * dt.itemsize)).from_address(address)
    return np.ctypeslib.as_array(raw).view(dt)


def axpy(fake, grid, block, y, x, a, n, *scratch):
    """y += a * x: programs of ``block`` elements."""
    stop = min(n, grid[0] * block)
    array(y, n)[:stop] += np.float32(a) * array(x, n)[:stop]


def axpy_cell(fake, grid, block, y, x, cell, n, *scratch):
    """The same with a in device memory."""
    axpy(fake, grid, block, y, x, float(array(cell, 1)[0]), n)


def trap(fake, grid, block, *args):
    fake.sticky = 700


class Stream:
    def __init__(self, device, handle):
        self.device, self.handle, self.ops, self.capture, self.spoilt = device, handle, deque(), None, False


class FakeCuda:
    """See the module's text. ``devices`` cards of ``total`` bytes each, CUDA ``version``."""

    def __init__(self, devices=1, total=1 << 30, version=13000, eager=False):
        self.devices, self.total, self.version, self.eager = devices, total, version, eager
        self.calls, self.launches, self.fail = [], [], {}
        self.local = threading.local()
        self.memory, self.host, self.freed = {}, {}, []
        self.streams, self.events, self.graphs = {}, {}, {}
        self.functions, self.attributes = {}, {}
        self.serial, self.clock, self.sticky = 0x1000, 0.0, 0
        self.kernels = {"axpy": (["*fp32", "*fp32", "fp32", "i32", *SCRATCH], axpy),
                        "axpy_cell": (["*fp32", "*fp32", "*fp32", "i32", *SCRATCH], axpy_cell), "trap": (["*fp32"], trap)}
        self.CUresult = self.CUdevice_attribute = self.CUfunction_attribute = self.CUstream = Handle
        self.CUlaunchAttributeID = self.CUclusterSchedulingPolicy = Handle
        self.CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED=2)
        self.CUlaunchConfig = SimpleNamespace
        self.CUlaunchAttribute = lambda: SimpleNamespace(id=0, value=SimpleNamespace(clusterDim=SimpleNamespace()))

    def __getattribute__(self, name):
        found = object.__getattribute__(self, name)
        if not name.startswith("cu") or not callable(found):
            return found

        def call(*args):
            self.calls.append((name, args))
            codes = self.fail.get(name)
            code = codes.pop(0) if codes else 0
            if not code and self.sticky and name not in ("cuGetErrorName", "cuGetErrorString", "cuInit"):
                code = self.sticky
            result = (code,) if code else found(*args)
            return result if isinstance(result, tuple) else (0,) if result is None else (0, result)
        return call

    def new(self, step=16):
        self.serial += step
        return Handle(self.serial)

    @property
    def current(self):
        return self.local.device

    # ------------------------------------------------------------------------------------------------------- devices
    def cuInit(self, flags):
        return None

    def cuGetErrorName(self, code):
        return (0, ERRORS[int(code)].encode()) if int(code) in ERRORS else (1, None)

    def cuGetErrorString(self, code):
        return (0, b"what it means") if int(code) in ERRORS else (1, None)

    def cuDriverGetVersion(self):
        return self.version

    def cuDeviceGetCount(self):
        return self.devices

    def cuDeviceGet(self, k):
        return Handle(k) if 0 <= k < self.devices else (101,)

    def cuDeviceGetAttribute(self, number, dev):
        return {75: 9, 76: 0, 16: 132, 97: 232448, 8: 49152, 10: 32, 1: 1024, 38: 50 << 20}.get(int(number), 1)

    def cuDeviceGetName(self, n, dev):
        return f"Fake H100 {int(dev)}".encode() + b"\0" * 4

    def cuDeviceTotalMem(self, dev):
        return self.total

    def cuDeviceGetUuid(self, dev):
        return SimpleNamespace(bytes=bytes(range(16)))

    def cuDeviceCanAccessPeer(self, a, b):
        return int(a != b)

    def cuDevicePrimaryCtxRetain(self, dev):
        return Handle(0x900 + int(dev))

    def cuCtxSetCurrent(self, context):
        self.local.device = int(context) - 0x900 if int(context) else None

    def cuCtxGetCurrent(self):
        device = getattr(self.local, "device", None)
        return Handle(0 if device is None else 0x900 + device)

    def cuCtxSynchronize(self):
        for stream in list(self.streams.values()):
            if stream.device == self.current:
                self.drain(stream)
        return (self.sticky,)

    def cuCtxGetStreamPriorityRange(self):
        return 0, 0, -5

    # -------------------------------------------------------------------------------------------------------- memory
    def piece(self, table, nbytes):
        raw = np.full(nbytes + 512, 0xCD, np.uint8)
        at = -(-raw.ctypes.data // 512) * 512
        table[at] = (raw, nbytes, self.current)
        return at

    def cuMemAlloc(self, nbytes):
        if sum(n for _, n, d in self.memory.values() if d == self.current) + nbytes > self.total:
            return (2,)
        return Handle(self.piece(self.memory, nbytes))

    def cuMemFree(self, pointer):
        self.cuCtxSynchronize()
        if int(pointer) not in self.memory:
            return (1,)
        raw, _, _ = self.memory.pop(int(pointer))
        raw[:] = 0xDD
        self.freed.append(raw)

    def cuMemHostAlloc(self, nbytes, flags):
        return self.piece(self.host, nbytes)

    def cuMemFreeHost(self, pointer):
        for stream in list(self.streams.values()):
            self.drain(stream)
        raw, _, _ = self.host.pop(int(pointer))
        raw[:] = 0xDD
        self.freed.append(raw)

    def cuMemGetInfo(self):
        used = sum(n for _, n, d in self.memory.values() if d == self.current)
        return 0, self.total - used, self.total

    def inside(self, pointer, nbytes, device=None):
        """Whether bytes lie in one piece of memory of a device."""
        device = self.current if device is None else device
        return any(p <= pointer and pointer + nbytes <= p + n and d == device for p, (_, n, d) in self.memory.items())

    def copy(self, dst, src, nbytes, stream, label):
        self.send(stream, label, lambda: ctypes.memmove(int(dst), int(src), int(nbytes)))

    def cuMemcpyHtoDAsync(self, dst, src, nbytes, stream):
        if not self.inside(dst, nbytes):
            return (1,)
        self.copy(dst, src, nbytes, stream, "HtoD")

    def cuMemcpyDtoHAsync(self, dst, src, nbytes, stream):
        if not self.inside(src, nbytes):
            return (1,)
        self.copy(dst, src, nbytes, stream, "DtoH")

    def cuMemcpyDtoDAsync(self, dst, src, nbytes, stream):
        if not self.inside(src, nbytes) or not self.inside(dst, nbytes):
            return (1,)
        self.copy(dst, src, nbytes, stream, "DtoD")

    def cuMemcpyPeerAsync(self, dst, to, src, source, nbytes, stream):
        if not self.inside(src, nbytes, int(source) - 0x900) or not self.inside(dst, nbytes, int(to) - 0x900):
            return (1,)
        self.copy(dst, src, nbytes, stream, "peer")

    def cuMemsetD8Async(self, dst, byte, n, stream):
        if not self.inside(dst, n):
            return (1,)
        self.send(stream, "set", lambda: ctypes.memset(int(dst), byte, n))

    # ------------------------------------------------------------------------------------------------------- streams
    def of(self, handle):
        key = (self.current, 0) if int(handle) == 0 else int(handle)
        if key not in self.streams and int(handle) == 0:
            self.streams[key] = Stream(self.current, 0)
        return self.streams[key]

    def send(self, handle, label, op):
        stream = self.of(handle)
        assert stream.device == self.current, "work for another device's stream"
        if stream.capture is not None:
            stream.capture.append((label, op))
        else:
            stream.ops.append((label, op))
            if self.eager:
                self.drain(stream)

    def step(self, stream):
        _, op = stream.ops.popleft()
        self.clock += 0.5
        op()

    def drain(self, stream):
        while stream.ops:
            self.step(stream)

    def cuStreamCreateWithPriority(self, flags, priority):
        handle = self.new()
        self.streams[int(handle)] = Stream(self.current, int(handle))
        self.streams[int(handle)].priority = priority
        return handle

    def cuStreamQuery(self, handle):
        return (self.sticky or (600 if self.of(handle).ops else 0),)

    def cuStreamSynchronize(self, handle):
        stream = self.of(handle)
        if stream.capture is not None:
            stream.spoilt = True
            return (900,)
        self.drain(stream)
        return (self.sticky,)

    def cuStreamWaitEvent(self, handle, event, flags):
        source, version = self.events[int(event)], self.events[int(event)].version

        def wait():
            while source.done < version:
                self.step(source.stream)
        self.send(handle, "wait", wait)

    def cuStreamIsCapturing(self, handle):
        return int(self.of(handle).capture is not None)

    # -------------------------------------------------------------------------------------------------------- events
    def cuEventCreate(self, flags):
        handle = self.new()
        self.events[int(handle)] = SimpleNamespace(flags=flags, stream=None, version=0, done=0, time=0.0)
        return handle

    def cuEventRecord(self, event, handle):
        e = self.events[int(event)]
        e.stream = self.of(handle)
        e.version += 1
        version = e.version

        def reach():
            e.done, e.time = version, self.clock
        self.send(handle, "event", reach)

    def cuEventQuery(self, event):
        e = self.events[int(event)]
        return (self.sticky or (0 if e.done == e.version else 600),)

    def cuEventSynchronize(self, event):
        e = self.events[int(event)]
        while e.done < e.version:
            self.step(e.stream)
        return (self.sticky,)

    def cuEventElapsedTime(self, start, end):
        a, b = self.events[int(start)], self.events[int(end)]
        return (400,) if a.flags & 2 or b.flags & 2 else b.time - a.time

    def cuEventDestroy(self, event):
        del self.events[int(event)]

    # -------------------------------------------------------------------------------------------------------- launch
    def cuModuleLoadData(self, image):
        return self.new() if bytes(image[:4]) == b"FAKE" else (200,)

    def cuModuleUnload(self, module):
        return None

    def cuModuleGetFunction(self, module, name):
        if name.decode() not in self.kernels:
            return (500,)
        handle = self.new()
        self.functions[int(handle)] = name.decode()
        return handle

    def cuFuncGetAttribute(self, number, function):
        return self.attributes.get((self.functions[int(function)], int(number)), FUNCTION.get(int(number), 0))

    def cuFuncSetAttribute(self, function, number, value):
        self.attributes[self.functions[int(function)], int(number)] = value

    def cuFuncGetParamInfo(self, function, k):
        types = self.kernels[self.functions[int(function)]][0]
        if k >= len(types):
            return (1,)
        sizes = [8 if t[0] == "*" else ctypes.sizeof(CTYPES[t]) for t in types]
        return 0, sum(sizes[:k]), sizes[k]

    def cuLaunchKernel(self, f, gx, gy, gz, bx, by, bz, shared, stream, params, extra):
        return self.launch(f, (gx, gy, gz), (bx, by, bz), shared, stream, params, {})

    def cuLaunchKernelEx(self, config, f, params, extra):
        c = config
        return self.launch(f, (c.gridDimX, c.gridDimY, c.gridDimZ), (c.blockDimX, c.blockDimY, c.blockDimZ), c.sharedMemBytes,
                           c.hStream, params, {int(a.id): vars(a.value) for a in c.attrs[:c.numAttrs]})

    def launch(self, f, grid, block, shared, stream, params, attributes):
        name = self.functions[int(f)]
        if shared > self.attributes.get((name, 8), 49152) or block[0] > 1024 or 0 in grid:
            return (1,)
        types, run = self.kernels[name]
        args = []
        for k, t in enumerate(types):
            at = ctypes.c_uint64.from_address(params + 8 * k).value
            args.append(ctypes.c_uint64.from_address(at).value if t[0] == "*" else CTYPES[t].from_address(at).value)
            assert at % ctypes.sizeof(ctypes.c_uint64 if t[0] == "*" else CTYPES[t]) == 0, "misaligned argument"
        self.launches.append(SimpleNamespace(name=name, grid=grid, block=block, shared=shared, stream=int(stream),
                                             args=tuple(args), attributes=attributes))
        self.send(stream, f"launch {name}", lambda: run(self, grid, block[0], *args))

    # --------------------------------------------------------------------------------------------------------- graphs
    def cuStreamBeginCapture(self, handle, mode):
        if int(handle) == 0:
            return (900,)
        self.of(handle).capture, self.of(handle).spoilt = [], False

    def cuStreamEndCapture(self, handle):
        stream = self.of(handle)
        ops, stream.capture = stream.capture, None
        if stream.spoilt:
            return (901,)
        graph = self.new()
        self.graphs[int(graph)] = ops
        return graph

    def cuGraphInstantiate(self, graph, flags):
        handle = self.new()
        self.graphs[int(handle)] = list(self.graphs[int(graph)])
        return handle

    def cuGraphExecUpdate(self, executable, graph):
        old, new = self.graphs[int(executable)], self.graphs[int(graph)]
        if [label for label, _ in old] != [label for label, _ in new]:
            return (910, None)
        self.graphs[int(executable)] = list(new)
        return 0, None

    def cuGraphUpload(self, executable, stream):
        return None

    def cuGraphLaunch(self, executable, stream):
        for label, op in list(self.graphs[int(executable)]):
            self.send(stream, label, op)

    def cuGraphGetNodes(self, graph, n=0):
        return 0, [], len(self.graphs[int(graph)])

    def cuGraphExecDestroy(self, executable):
        del self.graphs[int(executable)]

    cuGraphDestroy = cuGraphExecDestroy

    CUpointer_attribute = Handle

    def cuPointerGetAttribute(self, attribute, pointer):
        found = [d for p, (_, n, d) in self.memory.items() if p <= pointer < p + n]
        return found[0] if found else (1,)
