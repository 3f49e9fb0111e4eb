"""``torch.cuda.FloatTensor`` and friends: calling one makes a tensor on the GPU, isinstance asks for dtype and place."""
from __future__ import annotations

from typing import Any

from ..dtypes import dtype as DType
from ..tensor import Tensor
from ._available import is_available


class _Meta(type):
    dt: DType

    def __instancecheck__(cls, obj: Any) -> bool:
        return isinstance(obj, Tensor) and obj.is_cuda and obj.dtype is cls.dt

    def __call__(cls, *args: Any) -> Any:
        if not is_available():
            raise TypeError(f"type torch.cuda.{cls.__name__} not available: tensors of this process cannot live on a GPU")
        from ..ops import legacy_type as make

        return make(cls.dt, cls.__name__)(*args).to("cuda")


def legacy_type(dt: DType, name: str) -> Any:
    """The class of that name."""
    about = {"__module__": "torch.cuda", "__doc__": f"Tensors of {dt} on a GPU."}
    return _Meta(name, (), {"dt": dt, "dtype": dt, "is_cuda": True, **about})
