"""Image classifiers with torchvision's names: residual networks, VGG and AlexNet."""
from __future__ import annotations

from . import resnet, vgg
from ._api import Weights, WeightsEnum, get_model, list_models
from .resnet import *  # noqa: F403
from .resnet import __all__ as _resnet
from .vgg import *  # noqa: F403
from .vgg import __all__ as _vgg

__all__ = ["Weights", "WeightsEnum", "get_model", "list_models", "resnet", "vgg", *_resnet, *_vgg]
