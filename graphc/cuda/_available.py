"""Whether tensors of this process can live on a GPU."""
from __future__ import annotations

from ..codegen.triton import compiler as _compiler
from ..device import device
from ..errors import DeviceError
from ..runtime.cuda import device as _devices
from ..runtime.cuda import driver as _driver


def reason() -> str:
    """Why tensors cannot live on a GPU here; empty if they can."""
    return _driver.reason() or _compiler.reason()


def is_available() -> bool:
    """Whether tensors of this process can live on a GPU: the driver finds one, and kernels can be compiled for it.

    The second part matters to programs that choose ``"cuda" if is_available() else "cpu"``.
    """
    return not reason()


def find(wanted: device) -> device:
    """The device with its number (the current one by default). Raises DeviceError if there is none, or no such number."""
    index = _devices.index_of(wanted)
    if not _devices.used(index):
        why = reason()
        if why:
            raise DeviceError(f"device '{wanted}' is not available. {why[:1].upper()}{why[1:]}. It needs an NVIDIA GPU, its "
                              f"driver and `pip install 'graphc[cuda]'`; use device='cpu'.")
        _driver.get().check_index(index)
    return device("cuda", index)
