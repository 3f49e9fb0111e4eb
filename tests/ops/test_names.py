"""Names that programs use most exist as functions and methods (a function named like its family's file must win)."""
from __future__ import annotations

import pytest

import graphc

FUNCTIONS = """cat zeros ones tensor from_numpy arange randn stack rand zeros_like empty exp max log ones_like randint where
sigmoid mean sum tanh sqrt matmul clamp einsum full sin abs min cos multinomial linspace mm argmax randn_like randperm softmax
as_tensor topk equal pow flatten all relu allclose eye split isnan is_tensor sort gather tril empty_like norm bmm chunk rsqrt
cumsum triu meshgrid normal diag argsort unsqueeze full_like repeat_interleave isfinite unique sign maximum outer round mul prod
rand_like is_floating_point div isclose isinf add argmin log2 any clip dot floor bincount index_select square squeeze concat
nonzero transpose roll tensor_split flip std cdist searchsorted unbind eq clone nan_to_num tan vstack addmm baddbmm minimum trace
addcmul bernoulli diff dist erf logsumexp numel permute reshape bucketize cartesian_prod count_nonzero hstack logical_and kron
manual_seed no_grad enable_grad inference_mode set_grad_enabled is_grad_enabled save load device dtype finfo iinfo Size Generator
get_default_dtype set_default_dtype set_num_threads get_rng_state set_rng_state promote_types compile cumprod var median
quantile log_softmax dropout tensordot movedim narrow select masked_select take_along_dim scatter_add lerp""".split()

METHODS = """item backward view sum size unsqueeze numpy detach mean reshape max transpose squeeze tolist contiguous numel flatten
clone permute expand long repeat norm copy_ split fill_ t argmax add clamp pow exp add_ mul_ abs dim zero_ log uniform_ expand_as
all masked_fill softmax type_as min normal_ eq any gather std topk div relu sort mul chunk sqrt sigmoid clamp_ view_as scatter sin
scatter_ int cos nonzero unbind flip bool cumsum new_zeros div_ repeat_interleave masked_fill_ byte sub mm square index_select
unique rsqrt ravel amax detach_ narrow dot median data_ptr sub_ element_size prod floor matmul unfold tanh bmm sign resize_ argsort
new_ones is_floating_point clip is_contiguous stride ceil trace index_copy_ ne index_add_ register_hook new_full select reshape_as
random_ var argmin isnan scatter_add_ round new_empty equal absolute diff pow_ nelement diag neg triu amin bernoulli_ triu_
addcmul_ lerp diagonal get_device where isinf logsumexp floor_ exp_ gt mv squeeze_ to cpu float double half requires_grad_
log_softmax outer lt le ge tril cumprod quantile kthvalue isfinite sort""".split()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name: str) -> None:
    assert callable(getattr(graphc, name))


@pytest.mark.parametrize("name", METHODS)
def test_method(name: str) -> None:
    assert callable(getattr(graphc.ones(1), name))
