"""``torch.nn.functional``'s names. No maths here: every function lives in a family of ``graphc.ops``.

Names resolve on first use and then stay in this module, so that importing it loads no op family and
``F.relu`` costs a plain attribute afterwards.
"""
from __future__ import annotations

from importlib import import_module
from typing import Any

_FAMILIES: dict[str, str] = {
    "activation": """
        relu relu_ relu6 gelu silu elu elu_ selu selu_ celu celu_ leaky_relu leaky_relu_ prelu rrelu rrelu_ mish
        hardtanh hardtanh_ hardswish hardsigmoid glu logsigmoid softsign tanhshrink softshrink hardshrink threshold
        threshold_ softmax log_softmax softmin softplus gumbel_softmax sigmoid tanh""",
    "loss": """
        cross_entropy nll_loss mse_loss l1_loss smooth_l1_loss huber_loss binary_cross_entropy
        binary_cross_entropy_with_logits kl_div poisson_nll_loss gaussian_nll_loss hinge_embedding_loss
        margin_ranking_loss cosine_embedding_loss triplet_margin_loss multi_margin_loss multilabel_margin_loss
        multilabel_soft_margin_loss soft_margin_loss ctc_loss triplet_margin_with_distance_loss pairwise_distance
        cosine_similarity""",
    "norm": """
        layer_norm batch_norm group_norm instance_norm rms_norm local_response_norm normalize""",
    "conv": """
        conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d unfold fold""",
    "pool": """
        max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
        adaptive_max_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d lp_pool1d lp_pool2d lp_pool3d
        max_unpool1d max_unpool2d max_unpool3d fractional_max_pool2d fractional_max_pool3d max_pool1d_with_indices
        max_pool2d_with_indices max_pool3d_with_indices interpolate upsample upsample_nearest upsample_bilinear
        grid_sample affine_grid""",
    "matmul": "linear bilinear pdist",
    "indexing": "embedding one_hot embedding_bag",
    "attention": "scaled_dot_product_attention",
    "random": "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout",
    "shape": "pad pixel_shuffle pixel_unshuffle channel_shuffle",
}
_HOME: dict[str, str] = {name: f"graphc.ops.{family}" for family, names in _FAMILIES.items() for name in names.split()}
_HOME.update({name: "graphc.nn._attention" for name in ("multi_head_attention_forward", "_canonical_mask",
                                                        "_none_or_dtype")})

__all__ = sorted(name for name in _HOME if not name.startswith("_"))


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(home), name)
    return found


def __dir__() -> list[str]:
    return list(__all__)
