"""Neural network building blocks under PyTorch's names."""
from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import functional as functional
from . import init as init
from . import parameter as parameter
from .activation import *  # noqa: F403
from .adaptive import *  # noqa: F403
from .container import *  # noqa: F403
from .conv import *  # noqa: F403
from .distance import *  # noqa: F403
from .dropout import *  # noqa: F403
from .flatten import *  # noqa: F403
from .fold import *  # noqa: F403
from .linear import *  # noqa: F403
from .linear_cross_entropy import LinearCrossEntropyLoss as LinearCrossEntropyLoss
from .linear_cross_entropy import LinearCrossEntropyOptions as LinearCrossEntropyOptions
from .loss import *  # noqa: F403
from .module import Module as Module
from .norm import *  # noqa: F403
from .padding import *  # noqa: F403
from .parameter import Buffer as Buffer
from .parameter import Parameter as Parameter
from .parameter import UninitializedBuffer as UninitializedBuffer
from .parameter import UninitializedParameter as UninitializedParameter
from .parameter_containers import *  # noqa: F403
from .pixelshuffle import *  # noqa: F403
from .pooling import *  # noqa: F403
from .rnn import *  # noqa: F403
from .sparse import *  # noqa: F403
from .transformer import *  # noqa: F403
from .upsampling import *  # noqa: F403

if TYPE_CHECKING:
    from . import attention as attention
    from . import modules as modules
    from . import parallel as parallel
    from . import utils as utils
    from .parallel import DataParallel as DataParallel


def __getattr__(name: str) -> Any:
    """What few programs need loads on first use: importing the layers must stay quick."""
    if name in ("attention", "modules", "parallel", "utils"):
        return import_module(f"{__name__}.{name}")
    if name == "DataParallel":
        from .parallel import DataParallel

        return DataParallel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
