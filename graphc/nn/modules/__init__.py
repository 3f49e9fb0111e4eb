"""PyTorch's module paths: ``graphc.nn.modules.batchnorm`` and the like are the files of ``graphc.nn``."""
from __future__ import annotations

import sys

from .. import (
    _args,
    activation,
    adaptive,
    batchnorm,
    container,
    conv,
    distance,
    dropout,
    flatten,
    fold,
    lazy,
    linear,
    loss,
    module,
    norm,
    padding,
    pixelshuffle,
    pooling,
    rnn,
    sparse,
    transformer,
    upsampling,
)
from ..activation import *  # noqa: F403
from ..adaptive import *  # noqa: F403
from ..container import *  # noqa: F403
from ..conv import *  # noqa: F403
from ..distance import *  # noqa: F403
from ..dropout import *  # noqa: F403
from ..flatten import *  # noqa: F403
from ..fold import *  # noqa: F403
from ..linear import *  # noqa: F403
from ..loss import *  # noqa: F403
from ..module import Module as Module
from ..norm import *  # noqa: F403
from ..padding import *  # noqa: F403
from ..parameter_containers import *  # noqa: F403
from ..pixelshuffle import *  # noqa: F403
from ..pooling import *  # noqa: F403
from ..rnn import *  # noqa: F403
from ..sparse import *  # noqa: F403
from ..transformer import *  # noqa: F403
from ..upsampling import *  # noqa: F403

_PATHS = {
    "activation": activation, "adaptive": adaptive, "batchnorm": batchnorm, "channelshuffle": pixelshuffle,
    "container": container, "conv": conv, "distance": distance, "dropout": dropout, "flatten": flatten, "fold": fold,
    "instancenorm": batchnorm, "lazy": lazy, "linear": linear, "loss": loss, "module": module, "normalization": norm,
    "padding": padding, "pixelshuffle": pixelshuffle, "pooling": pooling, "rnn": rnn, "sparse": sparse,
    "transformer": transformer, "upsampling": upsampling, "utils": _args,
}
for _name, _module in _PATHS.items():  # importable as modules, not only as attributes
    globals()[_name] = _module
    sys.modules[f"{__name__}.{_name}"] = _module
