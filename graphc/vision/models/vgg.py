"""VGG networks (Simonyan and Zisserman 2015), with and without batch normalisation, and AlexNet (Krizhevsky 2014). Parameters
are named as in torchvision, so its checkpoints load."""
from __future__ import annotations

from typing import Any

from ... import nn
from ...tensor import Tensor
from ._api import chosen, register, weights_enum

__all__ = ["AlexNet", "VGG", "VGG11_Weights", "VGG13_Weights", "VGG16_BN_Weights", "VGG16_Weights", "VGG19_BN_Weights",
           "VGG19_Weights", "alexnet", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"]

VGG16_Weights = weights_enum("VGG16_Weights", "vgg16-397923af.pth", num_params=138357544)
VGG19_Weights = weights_enum("VGG19_Weights", "vgg19-dcbb9e9d.pth", num_params=143667240)
VGG16_BN_Weights = weights_enum("VGG16_BN_Weights", "vgg16_bn-6c64b313.pth", num_params=138365992)
VGG19_BN_Weights = weights_enum("VGG19_BN_Weights", "vgg19_bn-c79401a0.pth", num_params=143678248)
VGG13_BN_Weights = weights_enum("VGG13_BN_Weights", "vgg13_bn-abd245e5.pth", num_params=133053736)
AlexNet_Weights = weights_enum("AlexNet_Weights", "alexnet-owt-7be5be79.pth", num_params=61100840)
VGG11_Weights = weights_enum("VGG11_Weights", "vgg11-bbd30ac9.pth", num_params=132863336)
VGG13_Weights = weights_enum("VGG13_Weights", "vgg13-c768596a.pth", num_params=133047848)
VGG11_BN_Weights = weights_enum("VGG11_BN_Weights", "vgg11_bn-6002323d.pth", num_params=132868840)

_GROUPS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # 3x3 layers per size
_CHANNELS = (64, 128, 256, 512, 512)


def make_layers(cfg: list[Any], batch_norm: bool = False) -> nn.Sequential:
    """The convolutional part: numbers are channels of a 3x3 layer, "M" halves the picture."""
    layers: list[nn.Module] = []
    channels = 3
    for v in cfg:
        if v == "M":
            layers.append(nn.MaxPool2d(2, 2))
            continue
        layers.append(nn.Conv2d(channels, v, 3, padding=1))
        layers += [nn.BatchNorm2d(v), nn.ReLU(inplace=True)] if batch_norm else [nn.ReLU(inplace=True)]
        channels = v
    return nn.Sequential(*layers)


class VGG(nn.Module):
    """``features``, a 7x7 mean grid of 512 channels, three linear layers. Input (N, 3, H, W)."""

    def __init__(self, features: nn.Module, num_classes: int = 1000, init_weights: bool = True, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096), nn.ReLU(True), nn.Dropout(p=dropout), nn.Linear(4096, 4096), nn.ReLU(True),
            nn.Dropout(p=dropout), nn.Linear(4096, num_classes))
        if init_weights:
            self._initialize()

    def _initialize(self) -> None:
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, 0, 0.01)
            if isinstance(m, (nn.Conv2d, nn.Linear)) and m.bias is not None:
                nn.init.zeros_(m.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class AlexNet(nn.Module):
    """The one-column network of "One weird trick" (2014). Input (N, 3, H, W), at least 63 pixels a side."""

    def __init__(self, num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2))
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(p=dropout), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(inplace=True), nn.Dropout(p=dropout),
            nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Linear(4096, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def _vgg(known: Any, depth: int, norm: bool, weights: Any, progress: bool, options: dict[str, Any]) -> VGG:
    weights = chosen(known, weights, options.pop("pretrained", None))
    if weights is not None:
        options["init_weights"] = False
    cfg: list[Any] = []
    for count, channels in zip(_GROUPS[depth], _CHANNELS):
        cfg += [channels] * count + ["M"]
    net = VGG(make_layers(cfg, norm), **options)
    if weights is not None:
        net.load_state_dict(weights.get_state_dict(progress=progress))
    return net


@register
def vgg11(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> VGG:
    """VGG-11."""
    return _vgg(VGG11_Weights, 11, False, weights, progress, kwargs)


@register
def vgg11_bn(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> VGG:
    """VGG-11 with batch normalisation."""
    return _vgg(VGG11_BN_Weights, 11, True, weights, progress, kwargs)


@register
def vgg13(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> VGG:
    """VGG-13."""
    return _vgg(VGG13_Weights, 13, False, weights, progress, kwargs)


@register
def vgg13_bn(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> VGG:
    """VGG-13 with batch normalisation."""
    return _vgg(VGG13_BN_Weights, 13, True, weights, progress, kwargs)


@register
def vgg16(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> VGG:
    """VGG-16; ``weights=VGG16_Weights.DEFAULT`` downloads a checkpoint."""
    return _vgg(VGG16_Weights, 16, False, weights, progress, kwargs)


@register
def vgg16_bn(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> VGG:
    """VGG-16 with batch normalisation."""
    return _vgg(VGG16_BN_Weights, 16, True, weights, progress, kwargs)


@register
def vgg19(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> VGG:
    """VGG-19."""
    return _vgg(VGG19_Weights, 19, False, weights, progress, kwargs)


@register
def vgg19_bn(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> VGG:
    """VGG-19 with batch normalisation."""
    return _vgg(VGG19_BN_Weights, 19, True, weights, progress, kwargs)


@register
def alexnet(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> AlexNet:
    """AlexNet."""
    chosen_weights = chosen(AlexNet_Weights, weights, kwargs.pop("pretrained", None))
    net = AlexNet(**kwargs)
    if chosen_weights is not None:
        net.load_state_dict(chosen_weights.get_state_dict(progress=progress))
    return net
