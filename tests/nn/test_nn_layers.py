"""Every layer against PyTorch: repr, state, outputs, gradients, buffers, in training and in evaluation."""
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from nn_compare import assert_close, compare, compare_both_modes, floats, ints, pair_of, to_graphc  # noqa: E402

import graphc.nn as nn  # noqa: E402


def case(name, args=(), kwargs=None, *shapes, make=None, id=None, missing=None):
    """``missing`` names what graphc.ops does not do yet; the test fails as soon as it does."""
    kwargs = kwargs or {}
    inputs = make or (lambda: tuple(floats(*s, seed=i) for i, s in enumerate(shapes)))
    label = id or f"{name}{args}{kwargs or ''}".replace("torch.", "")
    marks = () if missing is None else pytest.mark.xfail(strict=True, reason=missing)
    return pytest.param(name, args, kwargs, inputs, id=label[:90], marks=marks)


LINEAR = [
    case("Identity", (), {}, (2, 3)),
    case("Linear", (5, 3), {}, (4, 5)),
    case("Linear", (5, 3), {"bias": False}, (2, 4, 5)),
    case("Linear", (5, 3), {}, (5,), id="Linear on a vector"),
    case("Bilinear", (3, 4, 2), {}, (5, 3), (5, 4)),
    case("Bilinear", (3, 4, 2), {"bias": False}, (5, 3), (5, 4)),
    case("Flatten", (), {}, (2, 3, 4)),
    case("Flatten", (0, 1), {}, (2, 3, 4)),
    case("Unflatten", (1, (2, 3)), {}, (2, 6)),
    case("PairwiseDistance", (), {}, (4, 3), (4, 3)),
    case("PairwiseDistance", (1.0,), {"keepdim": True}, (4, 3), (4, 3)),
    case("CosineSimilarity", (), {}, (4, 3), (4, 3)),
    case("CosineSimilarity", (-1,), {}, (2, 4, 3), (2, 4, 3)),
]

CONV = [
    case("Conv1d", (4, 6, 3), {}, (2, 4, 9)),
    case("Conv1d", (4, 6, 3), {"stride": 2, "padding": 1, "dilation": 2, "groups": 2, "bias": False}, (2, 4, 9)),
    case("Conv1d", (4, 6, 4), {"padding": "same", "dilation": 2}, (2, 4, 9)),
    case("Conv1d", (4, 6, 4), {"padding": "same", "padding_mode": "replicate"}, (2, 4, 9)),
    case("Conv1d", (4, 6, 3), {"padding": "valid"}, (4, 9)),
    case("Conv2d", (3, 4, 3), {}, (2, 3, 6, 7)),
    case("Conv2d", (4, 4, (3, 2)), {"stride": (2, 1), "padding": (1, 0), "groups": 4}, (2, 4, 6, 7)),
    case("Conv2d", (3, 4, 3), {"padding": 1, "padding_mode": "reflect"}, (2, 3, 5, 6)),
    case("Conv2d", (3, 4, 3), {"padding": (1, 2), "padding_mode": "circular"}, (2, 3, 5, 6)),
    case("Conv2d", (3, 4, 3), {"padding": 2, "padding_mode": "replicate", "bias": False}, (3, 5, 6)),
    case("Conv3d", (2, 3, 2), {}, (1, 2, 4, 4, 5)),
    case("Conv3d", (2, 3, (1, 2, 3)), {"padding": (0, 1, 1), "stride": 2}, (2, 2, 3, 4, 5)),
    case("ConvTranspose1d", (4, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}, (2, 4, 5)),
    case("ConvTranspose2d", (4, 6, 3), {"stride": 2, "groups": 2}, (2, 4, 3, 4)),
    case("ConvTranspose2d", (4, 6, (2, 3)), {"dilation": 2, "bias": False}, (4, 3, 4)),
    case("ConvTranspose3d", (2, 3, 2), {"stride": 2}, (1, 2, 2, 3, 2)),
    case("Unfold", ((2, 3),), {"padding": 1, "stride": 2}, (2, 3, 5, 6)),
    case("Fold", ((4, 5), (2, 2)), {}, (2, 12, 12)),
]

NORM = [
    case("BatchNorm1d", (3,), {}, (4, 3)),
    case("BatchNorm1d", (3,), {"eps": 1e-3, "momentum": 0.3}, (4, 3, 5)),
    case("BatchNorm1d", (3,), {"affine": False, "track_running_stats": False}, (4, 3)),
    case("BatchNorm2d", (3,), {}, (4, 3, 2, 2)),
    case("BatchNorm2d", (3,), {"momentum": None}, (4, 3, 2, 2)),
    case("BatchNorm2d", (3,), {"track_running_stats": False}, (4, 3, 2, 2)),
    case("BatchNorm3d", (2,), {}, (2, 2, 2, 3, 2)),
    case("InstanceNorm1d", (3,), {}, (2, 3, 5)),
    case("InstanceNorm1d", (3,), {"affine": True}, (3, 5)),
    case("InstanceNorm2d", (3,), {"affine": True, "track_running_stats": True}, (2, 3, 4, 4)),
    case("InstanceNorm3d", (2,), {}, (2, 2, 2, 3, 2)),
    case("LayerNorm", (5,), {}, (3, 4, 5)),
    case("LayerNorm", ((4, 5),), {"bias": False, "eps": 1e-3}, (3, 4, 5)),
    case("LayerNorm", (5,), {"elementwise_affine": False}, (3, 5)),
    case("GroupNorm", (2, 4), {}, (3, 4, 5)),
    case("GroupNorm", (4, 4), {"affine": False}, (3, 4, 2, 2)),
    case("RMSNorm", (5,), {}, (3, 5)),
    case("RMSNorm", ((4, 5),), {"eps": 1e-4, "elementwise_affine": False}, (3, 4, 5)),
    case("LocalResponseNorm", (2,), {}, (2, 5, 3, 3)),
]

ACTIVATION = [case(name, (), {}, (3, 4)) for name in (
    "ReLU", "ReLU6", "SiLU", "Mish", "SELU", "Hardswish", "Hardsigmoid", "Sigmoid", "Tanh", "LogSigmoid", "Softsign",
    "Tanhshrink", "Hardtanh", "ELU", "CELU", "LeakyReLU", "PReLU", "GELU", "GLU", "Softplus", "Softshrink",
    "Hardshrink")] + [
    case("Threshold", (0.1, 20.0), {}, (3, 4)),
    case("Hardtanh", (-0.5, 0.7), {}, (3, 4)),
    case("ELU", (0.7,), {}, (3, 4)),
    case("CELU", (0.7,), {}, (3, 4)),
    case("LeakyReLU", (0.3,), {}, (3, 4)),
    case("PReLU", (4,), {"init": 0.1}, (3, 4, 2)),
    case("GELU", ("tanh",), {}, (3, 4)),
    case("GLU", (0,), {}, (4, 3)),
    case("Softplus", (2.0, 1.0), {}, (3, 4)),
    case("Softshrink", (0.2,), {}, (3, 4)),
    case("Hardshrink", (0.2,), {}, (3, 4)),
    case("Softmax", (1,), {}, (3, 4)),
    case("Softmin", (0,), {}, (3, 4)),
    case("LogSoftmax", (-1,), {}, (3, 4)),
    case("Softmax2d", (), {}, (2, 3, 2, 2)),
]

POOL = [
    case("MaxPool1d", (2,), {}, (2, 3, 7)),
    case("MaxPool1d", (3,), {"stride": 2, "padding": 1, "ceil_mode": True}, (3, 8)),
    case("MaxPool2d", (2,), {}, (2, 3, 6, 7)),
    case("MaxPool2d", ((3, 2),), {"stride": (2, 1), "padding": 1, "dilation": (1, 2)}, (2, 3, 6, 7)),
    case("MaxPool2d", (2,), {"return_indices": True}, (2, 3, 6, 7)),
    case("MaxPool3d", (2,), {}, (1, 2, 4, 4, 5)),
    case("AvgPool1d", (3,), {"stride": 2, "padding": 1}, (2, 3, 8)),
    case("AvgPool2d", (2,), {}, (2, 3, 6, 7)),
    case("AvgPool2d", (3,), {"padding": 1, "count_include_pad": False, "ceil_mode": True, "stride": 2}, (2, 3, 6, 7)),
    case("AvgPool2d", (2,), {"divisor_override": 3}, (2, 3, 6, 6)),
    case("AvgPool3d", (2,), {}, (1, 2, 4, 4, 5)),
    case("LPPool1d", (2, 3), {}, (2, 3, 8)),
    case("LPPool2d", (2, 2), {"stride": 1}, (2, 3, 6, 7)),
    case("AdaptiveAvgPool1d", (3,), {}, (2, 3, 8)),
    case("AdaptiveAvgPool2d", ((2, 3),), {}, (2, 3, 6, 7)),
    case("AdaptiveAvgPool2d", ((None, 1),), {}, (2, 3, 6, 7)),
    case("AdaptiveAvgPool3d", (2,), {}, (1, 2, 4, 4, 5)),
    case("AdaptiveMaxPool1d", (3,), {}, (2, 3, 8)),
    case("AdaptiveMaxPool2d", ((2, 3),), {}, (2, 3, 6, 7)),
    case("AdaptiveMaxPool3d", (2,), {}, (1, 2, 4, 4, 5)),
]

PAD = [
    case("ConstantPad1d", ((1, 2), 3.5), {}, (2, 3, 4)),
    case("ConstantPad2d", (1, -0.5), {}, (2, 3, 4, 4)),
    case("ConstantPad3d", (1, 0.5), {}, (1, 2, 2, 3, 2)),
    case("ZeroPad1d", (2,), {}, (2, 3, 4)),
    case("ZeroPad2d", ((1, 0, 2, 1),), {}, (2, 3, 4, 4)),
    case("ZeroPad3d", (1,), {}, (1, 2, 2, 3, 2)),
    case("ReflectionPad1d", (2,), {}, (2, 3, 4)),
    case("ReflectionPad2d", ((1, 2, 0, 1),), {}, (2, 3, 4, 4)),
    case("ReflectionPad3d", (1,), {}, (1, 2, 2, 3, 2)),
    case("ReplicationPad1d", (2,), {}, (2, 3, 4)),
    case("ReplicationPad2d", ((1, 2, 0, 1),), {}, (2, 3, 4, 4)),
    case("ReplicationPad3d", (1,), {}, (1, 2, 2, 3, 2)),
    case("CircularPad1d", (2,), {}, (2, 3, 4)),
    case("CircularPad2d", ((1, 2, 0, 1),), {}, (2, 3, 4, 4)),
    case("CircularPad3d", (1,), {}, (1, 2, 2, 3, 2)),
]

RESIZE = [
    case("Upsample", (), {"scale_factor": 2}, (2, 3, 4, 4)),
    case("Upsample", (), {"size": (5, 7), "mode": "bilinear"}, (2, 3, 4, 4)),
    case("Upsample", (), {"size": (5, 7), "mode": "bilinear", "align_corners": True}, (2, 3, 4, 4)),
    case("UpsamplingNearest2d", (), {"scale_factor": 3}, (2, 3, 4, 4)),
    case("UpsamplingBilinear2d", (), {"size": (6, 6)}, (2, 3, 4, 4)),
    case("PixelShuffle", (2,), {}, (2, 8, 3, 4)),
    case("PixelUnshuffle", (2,), {}, (2, 2, 6, 4)),
    case("ChannelShuffle", (2,), {}, (2, 4, 3, 3)),
]

SPARSE = [
    case("Embedding", (7, 3), {}, make=lambda: (ints(7, 2, 4),)),
    case("Embedding", (7, 3), {"padding_idx": -1}, make=lambda: (torch.tensor([[0, 6, 2], [6, 6, 1]]),)),
    case("Embedding", (7, 3), {"max_norm": 1.0}, make=lambda: (ints(7, 5),)),
    case("Embedding", (7, 3), {"scale_grad_by_freq": True}, make=lambda: (torch.tensor([1, 1, 2]),)),
    case("EmbeddingBag", (7, 3), {}, make=lambda: (ints(7, 4, 3),)),
    case("EmbeddingBag", (7, 3), {"mode": "sum"}, make=lambda: (ints(7, 6), torch.tensor([0, 2, 5]))),
    case("EmbeddingBag", (7, 3), {"mode": "max"}, make=lambda: (ints(7, 4, 3),)),
    case("EmbeddingBag", (7, 3), {"mode": "sum"}, make=lambda: (ints(7, 4, 3), None, floats(4, 3)),
         id="EmbeddingBag per_sample_weights"),
    case("EmbeddingBag", (7, 3), {"mode": "sum", "include_last_offset": True},
         make=lambda: (ints(7, 6), torch.tensor([0, 2, 2, 6]))),
    case("EmbeddingBag", (7, 3), {"padding_idx": 2}, make=lambda: (torch.tensor([[2, 1, 2], [3, 4, 2], [2, 2, 2]]),)),
    case("EmbeddingBag", (7, 3), {"padding_idx": 2, "mode": "sum"}, make=lambda: (torch.tensor([[2, 1, 2], [3, 4, 2]]),)),
]


def _probabilities(*shape):
    return floats(*shape, low=0.0) * 0.8 + 0.1


LOSS = [
    case("L1Loss", (), {}, (3, 4), (3, 4)),
    case("MSELoss", (), {"reduction": "sum"}, (3, 4), (3, 4)),
    case("MSELoss", (), {"reduction": "none"}, (3, 4), (3, 4)),
    case("SmoothL1Loss", (), {"beta": 0.5}, (3, 4), (3, 4)),
    case("HuberLoss", (), {"delta": 0.7}, (3, 4), (3, 4)),
    case("CrossEntropyLoss", (), {}, make=lambda: (floats(5, 4), ints(4, 5))),
    case("CrossEntropyLoss", (), {"label_smoothing": 0.1, "ignore_index": 2},
         make=lambda: (floats(5, 4), torch.tensor([0, 2, 1, 3, 2]))),
    case("CrossEntropyLoss", (), {"weight": torch.tensor([0.5, 1.0, 2.0, 0.1])},
         make=lambda: (floats(5, 4, 3), ints(4, 5, 3)), id="CrossEntropyLoss weight 3d"),
    case("CrossEntropyLoss", (), {}, make=lambda: (floats(5, 4), floats(5, 4, low=0.0, grad=False)),
         id="CrossEntropyLoss probabilities"),
    case("NLLLoss", (), {"reduction": "sum"}, make=lambda: (floats(5, 4), ints(4, 5))),
    case("NLLLoss", (torch.tensor([0.5, 1.0, 2.0, 0.1]),), {}, make=lambda: (floats(5, 4), ints(4, 5)),
         id="NLLLoss weight"),
    case("PoissonNLLLoss", (), {"full": True}, make=lambda: (floats(3, 4), floats(3, 4, low=0.5, grad=False))),
    case("GaussianNLLLoss", (), {}, make=lambda: (floats(3, 4), floats(3, 4, seed=1), floats(3, 4, low=0.5))),
    case("KLDivLoss", (), {"reduction": "batchmean"}, make=lambda: (floats(3, 4), floats(3, 4, low=0.2, grad=False))),
    case("KLDivLoss", (), {"reduction": "sum", "log_target": True}, (3, 4), (3, 4)),
    case("BCELoss", (), {}, make=lambda: (floats(3, 4, low=0.0), floats(3, 4, seed=1, low=0.0, grad=False))),
    case("BCEWithLogitsLoss", (), {}, make=lambda: (floats(3, 4), floats(3, 4, low=0.0, grad=False))),
    case("BCEWithLogitsLoss", (), {"pos_weight": torch.tensor([1.0, 2.0, 3.0, 0.5])},
         make=lambda: (floats(3, 4), floats(3, 4, low=0.0, grad=False)), id="BCEWithLogitsLoss pos_weight"),
    case("HingeEmbeddingLoss", (), {}, make=lambda: (floats(5), torch.tensor([1.0, -1, 1, -1, 1]))),
    case("SoftMarginLoss", (), {}, make=lambda: (floats(5), torch.tensor([1.0, -1, 1, -1, 1]))),
    case("MultiLabelMarginLoss", (), {}, make=lambda: (floats(2, 4), torch.tensor([[3, 0, -1, 1], [2, -1, 0, 1]]))),
    case("MultiLabelSoftMarginLoss", (), {}, make=lambda: (floats(3, 4), ints(2, 3, 4).float())),
    case("MultiMarginLoss", (), {"p": 2, "margin": 0.7}, make=lambda: (floats(5, 4), ints(4, 5))),
    case("CosineEmbeddingLoss", (0.2,), {}, make=lambda: (floats(4, 3), floats(4, 3, seed=1), torch.tensor([1, -1, 1, -1]))),
    case("MarginRankingLoss", (0.1,), {}, make=lambda: (floats(4), floats(4, seed=1), torch.tensor([1.0, -1, 1, -1]))),
    case("TripletMarginLoss", (), {"swap": True}, (4, 3), (4, 3), (4, 3)),
    case("TripletMarginWithDistanceLoss", (), {"swap": True}, (4, 3), (4, 3), (4, 3)),
]


@pytest.mark.parametrize("name, args, kwargs, inputs", LINEAR + CONV + NORM + ACTIVATION)
def test_layer(name, args, kwargs, inputs):
    compare_both_modes(name, args, kwargs, inputs)


@pytest.mark.parametrize("name, args, kwargs, inputs", POOL + PAD + RESIZE + SPARSE)
def test_spatial_and_table_layer(name, args, kwargs, inputs):
    compare_both_modes(name, args, kwargs, inputs)


@pytest.mark.parametrize("name, args, kwargs, inputs", LOSS)
def test_loss(name, args, kwargs, inputs):
    ours, theirs = pair_of(name, args, kwargs)
    compare(ours, theirs, inputs())


@pytest.mark.parametrize("name", ["ReLU", "ReLU6", "SiLU", "Mish", "SELU", "ELU", "CELU", "LeakyReLU", "Hardtanh",
                                  "Hardswish", "Hardsigmoid", "Dropout", "RReLU"])
def test_inplace_activation_writes_its_input(name):
    ours, theirs = pair_of(name, (), {"inplace": True})
    ours.eval()
    theirs.eval()
    x = floats(3, 4, grad=False)
    y = to_graphc(x)
    assert_close(ours(y), theirs(x), "output")
    assert_close(y, x, "input afterwards")


@pytest.mark.parametrize("size", [(10, 9), torch.Size([2, 2, 9, 10])])
def test_output_size_of_transposed_convolution(size):
    ours, theirs = pair_of("ConvTranspose2d", (3, 2, 3), {"stride": 2})
    compare(ours, theirs, (floats(2, 3, 4, 4),), {"output_size": size})


@pytest.mark.parametrize("size, message", [((40, 9), "valid sizes range from"), ((9,), "output_size must have 2 or 4")])
def test_output_size_that_cannot_be(size, message):
    with pytest.raises(ValueError, match=message):
        nn.ConvTranspose2d(3, 2, 3, stride=2)(to_graphc(floats(2, 3, 4, 4)), output_size=size)


def test_cross_map_lrn_is_local_response_norm():
    x = to_graphc(floats(2, 5, 3, 3))
    assert_close(nn.CrossMapLRN2d(3)(x), nn.LocalResponseNorm(3)(x), "output")


def test_max_unpool_inverts_max_pool():
    import graphc.nn as nn
    x = floats(2, 3, 6, 8, grad=False)
    pooled, where = torch.nn.MaxPool2d(2, return_indices=True)(x)
    theirs = torch.nn.MaxUnpool2d(2)(pooled, where)
    ours = nn.MaxUnpool2d(2)(*nn.MaxPool2d(2, return_indices=True)(to_graphc(x)))
    assert_close(ours, theirs, "unpooled")
    assert repr(nn.MaxUnpool2d(2)) == repr(torch.nn.MaxUnpool2d(2))


def test_ctc_loss():
    log_probs = floats(6, 2, 5).detach().log_softmax(2).requires_grad_()
    targets = ints(5, 2, 3, low=1)
    ours, theirs = pair_of("CTCLoss")
    compare(ours, theirs, (log_probs, targets, torch.tensor([6, 5]), torch.tensor([3, 2])))


def test_adaptive_log_softmax():
    ours, theirs = pair_of("AdaptiveLogSoftmaxWithLoss", (6, 12, [3, 7]), {"div_value": 2.0})
    x, target = floats(8, 6), ints(12, 8)
    compare(ours, theirs, (x, target))
    assert_close(ours.log_prob(to_graphc(x)), theirs.log_prob(x), "log_prob")
    assert_close(ours.predict(to_graphc(x)), theirs.predict(x), "predict")
    with pytest.raises(RuntimeError, match=r"Target values should be in \[0, 11\]"):
        ours(to_graphc(x), to_graphc(target + 9))
