"""Generated Triton kernels and the launcher agree about parameters: read from the machine code, checked on the stand-in driver."""
from __future__ import annotations

import struct

import pytest
from cuda_fake import FakeCuda

from graphc.codegen.triton import compiler
from graphc.codegen.triton.compiler import A100, H100
from graphc.runtime.cuda import device as D
from graphc.runtime.cuda import driver
from graphc.runtime.cuda.launch import LaunchList, Number, Pointer, layout, load

WHY = compiler.reason()
pytestmark = pytest.mark.skipif(bool(WHY), reason=WHY or "-")


def sections(elf: bytes) -> dict[str, bytes]:
    """Sections of a 64-bit ELF file by name."""
    start, (size, count, names) = struct.unpack_from("<Q", elf, 40)[0], struct.unpack_from("<HHH", elf, 58)
    heads = [struct.unpack_from("<IIQQQQ", elf, start + k * size) for k in range(count)]
    base = heads[names][4]
    return {elf[base + h[0]:elf.index(b"\0", base + h[0])].decode(): elf[h[4]:h[4] + h[5]] for h in heads}


def parameters(elf: bytes, kernel: str) -> list[tuple[int, int]]:
    """(offset, bytes) of every parameter, from the attributes 0x17 (KPARAM_INFO) of section .nv.info.<kernel>."""
    data, at, found = sections(elf)[f".nv.info.{kernel}"], 0, {}
    while at < len(data):
        form, kind, size = struct.unpack_from("<BBH", data, at)
        at += 4
        if form == 4:  # the value follows and has ``size`` bytes; other forms keep it in the head
            if kind == 0x17:
                _, ordinal, offset, facts = struct.unpack_from("<IHHI", data, at)
                found[ordinal] = (offset, facts >> 18 & 0x3FFF)
            at += size
    return [found[k] for k in range(len(found))]


def printed(name):
    from recorded_steps import kernels, workload

    return kernels(workload(name))


@pytest.mark.parametrize("target", [A100, H100], ids=str)
@pytest.mark.parametrize("name", ["softmax_bwd", "layernorm_bwd", "xent", "permute"])
def test_machine_code_and_argument_blocks_agree(name, target):
    done = 0
    for p in printed(name):
        c = compiler.compiler(target).get([p])[p.symbol]
        types = [*(a.type for a in p.args), "*i8", "*i8"]
        offsets, nbytes, _ = layout(types)
        assert parameters(c.code, c.entry) == [(o, 8 if t[0] == "*" else int(t.lstrip("iufpb")) // 8)
                                               for o, t in zip(offsets, types)]
        assert nbytes == sum(parameters(c.code, c.entry)[-1])
        done += 1
    assert done


@pytest.mark.parametrize("name", ["softmax_bwd", "layernorm_bwd", "xent"])
def test_arguments_arrive(name):
    """Every printed kernel, launched through a list: the driver sees addresses, sizes and null scratch pointers in order."""
    fake = FakeCuda()
    driver.reset(lambda: fake)
    try:
        launches, wanted = LaunchList(D.get(), name), []
        kernels = printed(name)
        slots = sorted({a.value for p in kernels for a in p.args if a.type[0] == "*"}, key=str)
        addresses = [(1 << 40) + 4096 * k for k in range(len(slots))]
        numbers = []
        for p in kernels:
            c = compiler.compiler(H100).get([p])[p.symbol]
            fake.kernels[c.entry] = ([*(a.type for a in p.args), "*i8", "*i8"], lambda *args: None)
            kernel = load(D.get(), type("Here", (), {**vars(c), "code": b"FAKE"}))
            values, expected = [], []
            for a in p.args:
                if a.type[0] == "*":
                    values.append(Pointer(slots.index(a.value), 64))
                    expected.append(addresses[slots.index(a.value)] + 64)
                else:
                    numbers.append(a.value)
                    values.append(Number(len(numbers) - 1))
                    expected.append(a.value)
            launches.add_kernel(kernel, (p.programs(),), [a.type for a in p.args], values)
            wanted.append((c.entry, (p.programs(), 1, 1), 32 * c.warps, c.shared, (*expected, 0, 0)))
        launches.run(D.current_stream(), addresses, numbers)
        assert [(x.name, x.grid, x.block[0], x.shared, x.args) for x in fake.launches] == wanted
    finally:
        driver.reset()
