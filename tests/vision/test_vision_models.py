"""Networks: number of parameters, names, shapes, checkpoints; boxes; building blocks."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.tensor import to_numpy
from graphc.vision import models, ops
from graphc.vision.models import _api


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


class Shapes:
    """Stands for initialisation: large networks are only counted."""

    def __enter__(self) -> None:
        self.patch = pytest.MonkeyPatch()
        for name in ("kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_", "zeros_", "ones_"):
            self.patch.setattr(nn.init, name, lambda t, *a, **k: t)

    def __exit__(self, *exc: object) -> None:
        self.patch.undo()


COUNTED = {"resnet18": models.ResNet18_Weights, "resnet34": models.ResNet34_Weights, "resnet50": models.ResNet50_Weights,
           "resnet101": models.ResNet101_Weights, "resnet152": models.ResNet152_Weights,
           "resnext50_32x4d": models.ResNeXt50_32X4D_Weights, "wide_resnet50_2": models.Wide_ResNet50_2_Weights,
           "vgg11": models.VGG11_Weights, "vgg13": models.VGG13_Weights, "vgg16": models.VGG16_Weights,
           "vgg19": models.VGG19_Weights, "vgg16_bn": models.VGG16_BN_Weights, "vgg19_bn": models.VGG19_BN_Weights,
           "vgg11_bn": models.vgg.VGG11_BN_Weights, "vgg13_bn": models.vgg.VGG13_BN_Weights,
           "alexnet": models.vgg.AlexNet_Weights}


@pytest.mark.parametrize("name", COUNTED)
def test_number_of_parameters(name: str) -> None:
    with Shapes():
        net = models.get_model(name)
    assert parameters(net) == COUNTED[name].DEFAULT.meta["num_params"]
    assert COUNTED[name].DEFAULT is COUNTED[name].IMAGENET1K_V1 and COUNTED[name].DEFAULT.url.endswith(".pth")


def test_resnet_forward_names_and_gradients() -> None:
    graphc.manual_seed(0)
    net = models.resnet18(num_classes=5, zero_init_residual=True)
    keys = list(net.state_dict())
    for key in ("conv1.weight", "bn1.running_var", "layer1.0.conv1.weight", "layer2.0.downsample.0.weight",
                "layer4.1.bn2.num_batches_tracked", "fc.bias"):
        assert key in keys
    y = net(graphc.randn(2, 3, 32, 32))
    assert tuple(y.shape) == (2, 5)
    y.square().mean().backward()
    assert all(p.grad is not None for p in net.parameters())
    assert all(not k.startswith("layer1.0.downsample") for k in keys)


def test_bottleneck_with_dilation() -> None:
    with Shapes():
        net = models.resnet50(num_classes=3, replace_stride_with_dilation=[False, True, True]).eval()
    assert net.layer4[1].conv2.dilation == (4, 4) and net.layer4[0].conv2.dilation == (2, 2)
    features = nn.Sequential(net.conv1, net.maxpool, net.layer1, net.layer2)
    assert tuple(features(graphc.zeros(1, 3, 64, 64)).shape) == (1, 512, 8, 8)
    with pytest.raises(ValueError, match="3-element"):
        models.ResNet(models.BasicBlock, [1, 1, 1, 1], replace_stride_with_dilation=[True])


def test_vgg_layers() -> None:
    features = models.vgg.make_layers([8, "M", 512, "M"], batch_norm=True)
    with Shapes():
        net = models.VGG(features, num_classes=4, init_weights=False).eval()
    assert [type(m).__name__ for m in features] == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"] * 2
    assert tuple(features(graphc.zeros(1, 3, 32, 32)).shape) == (1, 512, 8, 8)
    assert list(net.state_dict())[-1] == "classifier.6.bias"


def test_weights_come_from_the_checkpoint(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """``weights=`` loads what the address gives; here a file."""
    source = models.resnet18(num_classes=1000)
    path = tmp_path / "net.pt"
    graphc.save(source.state_dict(), path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    local = _api.WeightsEnum("Local", {"DEFAULT": _api.Weights(path.as_uri(), {})})
    monkeypatch.setattr(models.resnet, "ResNet18_Weights", local)
    for options in ({"weights": local.DEFAULT}, {"weights": "DEFAULT"}, {"weights": "Local.DEFAULT"}, {"pretrained": True}):
        net = models.resnet18(progress=False, **options)
        assert graphc.equal(net.layer3[1].conv2.weight, source.layer3[1].conv2.weight)
    with pytest.raises(TypeError, match="Invalid Weight class"):
        models.resnet18(weights=models.VGG16_Weights.DEFAULT)
    with pytest.raises(KeyError):
        models.resnet18(weights="NO_SUCH")


def test_listing() -> None:
    assert models.list_models(include="vgg1*", exclude=["*_bn"]) == ["vgg11", "vgg13", "vgg16", "vgg19"]
    assert "resnet18" in models.__dict__ and callable(models.__dict__["resnet18"])
    with pytest.raises(ValueError, match="Unknown model"):
        models.get_model("no_such_net")


A = np.array([[0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 3.0, 3.0], [5.0, 5.0, 6.0, 7.0]], np.float32)
T = graphc.tensor


def test_boxes() -> None:
    a = T(A)
    assert ops.box_area(a).tolist() == [4.0, 4.0, 2.0]
    np.testing.assert_allclose(to_numpy(ops.box_iou(a, a)), [[1, 1 / 7, 0], [1 / 7, 1, 0], [0, 0, 1]], rtol=1e-6)
    np.testing.assert_allclose(to_numpy(ops.generalized_box_iou(a[:1], a))[0], [1, 1 / 7 - 2 / 9, -(42 - 6) / 42], rtol=1e-6)
    assert ops.clip_boxes_to_image(T([[-1.0, -2.0, 9.0, 8.0]]), (5, 6)).tolist() == [[0.0, 0.0, 6.0, 5.0]]
    assert ops.remove_small_boxes(a, 1.5).tolist() == [0, 1]
    for fmt, want in (("xywh", [1.0, 1.0, 2.0, 2.0]), ("cxcywh", [2.0, 2.0, 2.0, 2.0]), ("xyxy", [1.0, 1.0, 3.0, 3.0])):
        there = ops.box_convert(a, "xyxy", fmt)
        assert there[1].tolist() == want and ops.box_convert(there, fmt, "xyxy").tolist() == A.tolist()
    with pytest.raises(ValueError):
        ops.box_convert(a, "xyxy", "polar")


def test_suppression() -> None:
    boxes = T([[0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 11.0, 11.0], [20.0, 20.0, 30.0, 30.0], [0.0, 0.0, 10.0, 9.0]])
    scores = T([0.5, 0.9, 0.3, 0.8])
    assert ops.nms(boxes, scores, 0.5).tolist() == [1, 2] and ops.nms(boxes, scores, 0.65).tolist() == [1, 3, 2]
    iou = to_numpy(ops.box_iou(boxes, boxes))
    kept = ops.nms(boxes, scores, 0.5).tolist()
    assert all(iou[i, j] <= 0.5 for i in kept for j in kept if i != j)
    assert all(any(iou[i, j] > 0.5 and scores[j] > scores[i] for j in kept) for i in range(4) if i not in kept)
    assert sorted(ops.batched_nms(boxes, scores, T([0, 1, 0, 1]), 0.5).tolist()) != sorted(kept)
    assert ops.nms(boxes[:0], scores[:0], 0.5).tolist() == []


def test_building_blocks() -> None:
    bn, frozen = nn.BatchNorm2d(3).eval(), ops.FrozenBatchNorm2d(3)
    with graphc.no_grad():
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = graphc.rand(3) + 0.5
            getattr(bn, name).copy_(value)
            getattr(frozen, name).copy_(value)
    x = graphc.randn(2, 3, 4, 4)
    np.testing.assert_allclose(to_numpy(frozen(x)), to_numpy(bn(x).detach()), rtol=1e-5, atol=1e-6)
    assert not list(frozen.parameters())
    block = ops.Conv2dNormActivation(3, 8, 5, stride=2, activation_layer=nn.SiLU)
    assert block[0].bias is None and tuple(block(x).shape) == (2, 8, 2, 2)
    assert ops.Conv2dNormActivation(3, 8, norm_layer=None)[0].bias is not None
    assert tuple(ops.SqueezeExcitation(3, 1)(x).shape) == (2, 3, 4, 4)
    assert tuple(ops.MLP(4, [6, 2], dropout=0.1)(graphc.ones(1, 4)).shape) == (1, 2)
    assert tuple(ops.Permute([0, 2, 3, 1])(x).shape) == (2, 4, 4, 3)
