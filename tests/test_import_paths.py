"""Where programs import from: ``from torch.a.b import c`` has its counterpart; and what those modules do."""
from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.autograd import Function
from graphc.autograd.function import once_differentiable

HAVE_TORCH = importlib.util.find_spec("torch") is not None
PATHS = """
_dynamo._: config disable graph_break mark_dynamic optimize reset
_inductor._: config
_utils: _flatten_dense_tensors _unflatten_dense_tensors
autograd.anomaly_mode: detect_anomaly set_detect_anomaly
autograd.function: Function once_differentiable
autograd.graph: Node get_gradient_edge increment_version register_multi_grad_hook save_on_cpu
autograd.profiler: emit_nvtx profile record_function
autograd.grad_mode: enable_grad inference_mode no_grad set_grad_enabled
backends: cpu cuda cudnn mkl mkldnn mps openmp opt_einsum
backends.cuda: enable_flash_sdp flash_sdp_enabled is_built matmul mem_efficient_sdp_enabled preferred_linalg_library sdp_kernel
backends.cudnn: allow_tf32 benchmark deterministic enabled flags is_available version
backends.mps: is_available is_built
backends.cpu: get_cpu_capability
functional: broadcast_tensors cdist einsum meshgrid norm split tensordot
export: Dim ExportedProgram dims export load save
futures: Future collect_all wait_all
nn._reduction: get_enum legacy_get_string
nn.attention.flex_attention: BlockMask and_masks create_block_mask create_mask flex_attention noop_mask or_masks
nn.utils.prune: L1Unstructured global_unstructured is_pruned l1_unstructured ln_structured random_unstructured remove
nn.utils.parametrizations: orthogonal spectral_norm weight_norm
nn.parallel: DataParallel DistributedDataParallel gather parallel_apply replicate scatter
signal.windows: gaussian hann kaiser
testing: assert_allclose assert_close make_tensor
utils.benchmark: Compare Measurement Timer
nn.common_types: _maybe_indices_t _ratio_any_t _size_1_t _size_2_t _size_3_t _size_any_t _size_any_opt_t
nn.grad: conv1d_input conv1d_weight conv2d_input conv2d_weight conv3d_input conv3d_weight
nn.init: _calculate_fan_in_and_fan_out _no_grad_normal_ _no_grad_trunc_normal_ _no_grad_uniform_
nn.modules.padding: _CircularPadNd _ConstantPadNd _ReflectionPadNd _ReplicationPadNd
nn.modules.utils: _ntuple _pair _single _triple
nn.modules.batchnorm: _BatchNorm _NormBase
nn.modules.conv: _ConvNd _ConvTransposeNd
nn.modules.loss: _Loss _WeightedLoss
nn.modules.module: Module _IncompatibleKeys
nn.parameter: Buffer Parameter UninitializedBuffer UninitializedParameter
optim.lr_scheduler: LRScheduler _LRScheduler
optim.optimizer: Optimizer required
cpu: current_device device_count is_available synchronize
cpu.amp: GradScaler autocast
jit: Error Future enable_onednn_fusion interface onednn_fusion_enabled strict_fusion
profiler: kineto_available supported_activities
library: CustomOpDef Library custom_op register_autograd register_fake register_kernel wrap_triton
mps: empty_cache is_available manual_seed synchronize
overrides: handle_torch_function has_torch_function has_torch_function_unary has_torch_function_variadic is_tensor_like
return_types: aminmax cummax histogram kthvalue linalg_eigh linalg_svd max median min mode qr sort svd topk
storage: TypedStorage UntypedStorage
torch_version: TorchVersion __version__
types: Device Number _dtype _size
utils.checkpoint: check_backward_validity checkpoint checkpoint_sequential detach_variable get_device_states set_device_states
utils.collect_env: get_pretty_env_info main
utils.data._utils.collate: default_collate
utils.data.dataloader: DataLoader default_collate
utils.dlpack: from_dlpack to_dlpack
utils.hooks: RemovableHandle
utils.model_zoo: load_url
"""
ROWS = [(m.strip().removesuffix("._"), names.split()) for m, names in (line.split(":") for line in PATHS.split("\n") if line)]


@pytest.mark.parametrize(("module", "names"), ROWS, ids=[m for m, _ in ROWS])
def test_paths(module: str, names: list[str]) -> None:
    ours = importlib.import_module(f"graphc.{module}")
    assert [n for n in names if not hasattr(ours, n)] == []
    if HAVE_TORCH:
        theirs = importlib.import_module(f"torch.{module}")
        assert [n for n in names if not hasattr(theirs, n)] == []  # else the table is wrong


def test_every_submodule_here_is_an_attribute() -> None:
    code = ("import graphc as torch\n"
            "for n in sorted(torch._SUBPACKAGES): \n"
            "    m = getattr(torch, n, None)\n"
            "    print(n if m is None else '', end=' ')\n")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
                         cwd=graphc.__path__[0] + "/..")
    assert out.returncode == 0 and out.stdout.split() == [], out.stdout + out.stderr


def test_switches_are_kept_and_put_back() -> None:
    import graphc.backends.cudnn as cudnn
    from graphc.backends import cuda

    cudnn.benchmark = True
    with cudnn.flags(enabled=True, deterministic=False):
        assert cudnn.enabled and not cudnn.deterministic and not cudnn.benchmark
    assert cudnn.benchmark and not cudnn.enabled and cudnn.deterministic and not cudnn.is_available()
    cudnn.benchmark = False
    assert graphc.backends.cudnn is cudnn
    with cuda.sdp_kernel(enable_flash=False):
        assert not cuda.flash_sdp_enabled() and cuda.math_sdp_enabled()
    assert cuda.flash_sdp_enabled()
    cuda.enable_math_sdp(False)
    assert not cuda.math_sdp_enabled()
    cuda.enable_math_sdp(True)
    graphc._dynamo.config.cache_size_limit = 64
    graphc._inductor.config.triton.cudagraphs = True
    assert graphc._dynamo.config.cache_size_limit == 64 and graphc._dynamo.config.no_such_switch is None


def test_versions_compare_by_number() -> None:
    from graphc.torch_version import TorchVersion

    v = TorchVersion("1.10.2+cpu")
    assert v > "1.9" and v >= (1, 10) and v < "1.10.10" and v == "1.10.2" and v != "1.10.3" and str(v) == "1.10.2+cpu"
    assert v <= (1, 10, 2) and len({v, TorchVersion("1.10.2+cpu")}) == 1


def test_futures() -> None:
    from graphc.futures import Future, collect_all, wait_all

    a, b = Future(), Future()
    later = a.then(lambda f: f.value() + 1)
    both = collect_all([a, b])
    threading.Timer(0.02, a.set_result, [1]).start()
    assert later.wait() == 2 and not both.done()
    b.set_exception(ValueError("no"))
    assert both.wait() == [a, b] and a.wait() == 1
    with pytest.raises(ValueError, match="no"):
        wait_all([a, b])
    with pytest.raises(RuntimeError):
        a.set_result(2)
    with pytest.raises(RuntimeError):
        Future().value()


def test_a_function_differentiable_once() -> None:
    class Square(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, g: Any) -> Any:
            assert not graphc.is_grad_enabled()
            return 2 * ctx.saved_tensors[0] * g

    x = graphc.tensor(3.0, requires_grad=True)
    (g,) = graphc.autograd.grad(Square.apply(x), x, create_graph=True)
    assert g.item() == 6.0 and not g.requires_grad


def test_arguments_may_take_a_call_over() -> None:
    from graphc.overrides import has_torch_function, is_tensor_like, wrap_torch_function

    class Loud:
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return NotImplemented if args[1:] else ("loud", func.__name__)

    @wrap_torch_function(lambda *a: a)
    def double(*a: Any) -> Any:
        return a[0] * 2

    assert double(2) == 4 and double(Loud()) == ("loud", "double")
    assert not has_torch_function([graphc.ones(1), 3]) and is_tensor_like(graphc.ones(1)) and not is_tensor_like(3)
    with pytest.raises(TypeError, match="no implementation found"):
        double(Loud(), 1)


def test_dense_lists_as_one_vector() -> None:
    from graphc._utils import _flatten_dense_tensors, _unflatten_dense_tensors

    parts = [graphc.arange(6.0).reshape(2, 3), graphc.tensor(7.0), graphc.ones(1, 2)]
    flat = _flatten_dense_tensors(parts)
    assert flat.tolist() == [0, 1, 2, 3, 4, 5, 7, 1, 1]
    for a, b in zip(_unflatten_dense_tensors(flat, parts), parts):
        assert a.shape == b.shape and a.tolist() == b.tolist()


@pytest.mark.skipif(not HAVE_TORCH, reason="compares with PyTorch")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_gradients_of_convolutions(n: int) -> None:
    import torch
    import torch.nn.grad

    r = np.random.default_rng(n)
    x, w = r.standard_normal((2, 4, *[7] * n)), r.standard_normal((6, 2, *[3] * n))
    args = (2, 1, 1, 2)
    y = getattr(torch.nn.functional, f"conv{n}d")(torch.tensor(x), torch.tensor(w), None, *args)
    g = r.standard_normal(tuple(y.shape))
    for of, a, b in (("input", x.shape, w), ("weight", x, w.shape)):
        results = []
        for m in (graphc, torch):
            given = [m.tensor(v) if isinstance(v, np.ndarray) else v for v in (a, b)]
            module = importlib.import_module(f"{m.__name__}.nn.grad")
            results.append(np.asarray(getattr(module, f"conv{n}d_{of}")(*given, m.tensor(g), *args)))
        np.testing.assert_allclose(results[0], results[1], rtol=1e-10, atol=1e-10)


def test_a_report_of_the_environment() -> None:
    from graphc.utils.collect_env import get_pretty_env_info

    text = get_pretty_env_info()
    assert f"numpy: {np.__version__}" in text and "GPU: " in text and f"graphc version: {graphc.__version__}" in text


def test_classes_of_results() -> None:
    x = graphc.tensor([[2.0, 1.0], [0.5, 3.0]])
    for name, result in (("topk", x.topk(1)), ("max", x.max(0)), ("linalg_svd", graphc.linalg.svd(x)), ("sort", x.sort())):
        assert type(result) is getattr(graphc.return_types, name), name
    with graphc.cpu.amp.autocast():
        assert (x @ x).dtype is graphc.bfloat16


def test_small_helpers_of_checkpoints_and_scripts() -> None:
    from graphc import jit, profiler
    from graphc.utils import checkpoint

    x = graphc.ones(2, requires_grad=True)
    a, b, c = checkpoint.detach_variable((x * 2, graphc.zeros(1), "text"))
    assert a.is_leaf and a.requires_grad and not b.requires_grad and c == "text"
    checkpoint.check_backward_validity([x])
    with pytest.warns(UserWarning, match="None of the inputs"):
        checkpoint.check_backward_validity([graphc.ones(1)])
    with pytest.raises(RuntimeError):
        checkpoint.detach_variable([x])  # type: ignore[arg-type]
    checkpoint.set_device_states(*checkpoint.get_device_states(x))
    with jit.strict_fusion():
        assert jit.interface(int) is int and not jit.onednn_fusion_enabled() and jit.Future is graphc.futures.Future
    assert profiler.supported_activities() == {profiler.ProfilerActivity.CPU} and not profiler.kineto_available()
