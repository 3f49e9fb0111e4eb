"""What the README says about other libraries: arrays, checkpoints, einops, plots, estimators, memory shared by DLPack."""
from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn

X = np.arange(12, dtype=np.float32).reshape(3, 4)


# ----------------------------------------------------------------------------------------------------- NumPy and SciPy
def test_numpy_takes_tensors_and_gives_them() -> None:
    t = graphc.from_numpy(X.copy())
    a = t.numpy()
    a[0, 0] = 50
    assert t[0, 0].item() == 50  # one memory
    assert np.asarray(t).shape == (3, 4) and float(np.mean(t)) == float(t.mean()) and np.exp(t[0]).shape == (4,)
    assert isinstance(np.float32(2) * t, graphc.Tensor) and isinstance(t + X, graphc.Tensor)
    np.testing.assert_array_equal(np.concatenate([t, t]), graphc.cat([t, t]))
    np.testing.assert_array_equal(X[graphc.tensor([2, 0])], X[[2, 0]])
    assert graphc.tensor(X).tolist() == X.tolist() == graphc.as_tensor(X).tolist()
    with pytest.raises(RuntimeError, match="requires grad"):
        np.asarray(graphc.ones(2, requires_grad=True))


def test_scipy() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    special = pytest.importorskip("scipy.special")
    ndimage = pytest.importorskip("scipy.ndimage")

    def f(x: np.ndarray) -> tuple[float, np.ndarray]:
        t = graphc.tensor(x, requires_grad=True)
        y = ((t - 3) ** 2).sum() + (t[0] * t[1])
        y.backward()
        assert t.grad is not None
        return y.item(), t.grad.numpy()

    found = optimize.minimize(f, np.zeros(2), jac=True, method="BFGS")
    np.testing.assert_allclose(found.x, [2.0, 2.0], atol=1e-5)
    np.testing.assert_allclose(special.erf(graphc.tensor(X)), special.erf(X))
    assert ndimage.gaussian_filter(graphc.tensor(X), 1.0).shape == (3, 4)


# ---------------------------------------------------------------------------------------------------------- checkpoints
def test_safetensors(tmp_path: Path) -> None:
    """Files of the safetensors library are read and written; so is its NumPy interface."""
    library = pytest.importorskip("safetensors.numpy")
    net = nn.Linear(4, 3)
    theirs = tmp_path / "theirs.safetensors"
    library.save_file({k: v.detach().numpy() for k, v in net.state_dict().items()}, theirs)
    again = nn.Linear(4, 3)
    again.load_state_dict(graphc.load(theirs))
    assert again(graphc.tensor(X)).tolist() == net(graphc.tensor(X)).tolist()
    ours = tmp_path / "ours.safetensors"
    graphc.save(net.state_dict(), ours, format="safetensors")
    back = library.load_file(ours)
    assert sorted(back) == ["bias", "weight"]
    np.testing.assert_array_equal(back["weight"], net.weight.detach().numpy())


def test_pytorch_checkpoints(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.LazyLinear(2))
    x = np.random.default_rng(0).standard_normal((2, 1, 8, 8)).astype(np.float32)
    theirs(torch.tensor(x))
    path = tmp_path / "model.pt"
    torch.save(theirs.state_dict(), path)
    ours = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    ours.load_state_dict(graphc.load(path))
    np.testing.assert_allclose(ours.eval()(graphc.tensor(x)).detach().numpy(),
                               theirs.eval()(torch.tensor(x)).detach().numpy(), rtol=1e-4, atol=1e-5)
    graphc.save(ours.state_dict(), tmp_path / "back.pt", format="torch")
    theirs.load_state_dict(torch.load(tmp_path / "back.pt", weights_only=True))


# -------------------------------------------------------------------------------------------------------------- libraries
def test_einops() -> None:
    """Importing ``graphc.utils.einops`` once teaches the package einops what tensors are."""
    einops = pytest.importorskip("einops")
    from graphc.utils.einops import Rearrange, Reduce

    t = graphc.tensor(X, requires_grad=True)
    y = einops.rearrange(t, "a (b c) -> (a b) c", c=2)
    assert isinstance(y, graphc.Tensor) and y.shape == (6, 2)
    einops.reduce(y * y, "n c -> c", "sum").sum().backward()
    np.testing.assert_allclose(t.grad, 2 * X)
    for how in ("min", "max", "mean", "prod"):
        np.testing.assert_allclose(einops.reduce(graphc.tensor(X), "(a b) c -> b", how, b=3), einops.reduce(X, "(a b) c -> b", how, b=3))
    assert einops.reduce(graphc.tensor(X) > 3, "a b -> a", "any").tolist() == [False, True, True]
    np.testing.assert_array_equal(einops.repeat(graphc.tensor(X), "a b -> (a k) b 2", k=3), einops.repeat(X, "a b -> (a k) b 2", k=3))
    np.testing.assert_allclose(einops.einsum(t, t, "a i, b i -> a b").detach(), X @ X.T)
    packed, shapes = einops.pack([t, graphc.zeros(3)], "a *")
    assert packed.shape == (3, 5) and [tuple(p.shape) for p in einops.unpack(packed, shapes, "a *")] == [(3, 4), (3,)]
    net = nn.Sequential(Rearrange("n (h w) -> n h w", h=2), Reduce("n h w -> n w", "max"), nn.Linear(2, 1))
    assert net(t).shape == (3, 1) and "Rearrange" in repr(net)


def test_matplotlib() -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    figure, axes = plt.subplots()
    t = graphc.tensor(X)
    (line,) = axes.plot(t[0], t[1] ** 2)
    axes.imshow(t)
    axes.hist(t.flatten())
    axes.scatter(t[:, 0], t[:, 1], c=t[:, 2])
    np.testing.assert_array_equal(line.get_ydata(), X[1] ** 2)
    out = io.BytesIO()
    figure.savefig(out)
    assert out.getvalue().startswith(b"\x89PNG")
    plt.close(figure)


def test_scikit_learn() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    metrics = pytest.importorskip("sklearn.metrics")
    graphc.manual_seed(0)
    x = graphc.randn(80, 3)
    y = (x @ graphc.tensor([1.0, -2.0, 0.5]) > 0).long()
    model = linear.LogisticRegression().fit(x, y)
    assert metrics.accuracy_score(y, graphc.from_numpy(model.predict(x))) > 0.95


# ------------------------------------------------------------------------------------------------------------------ DLPack
def shares(ours: Any, theirs: np.ndarray) -> None:
    """Both are one memory."""
    ours[0, 0] = -7.0
    assert theirs[0, 0] == -7.0


def test_torch_by_dlpack() -> None:
    torch = pytest.importorskip("torch")
    ours = graphc.tensor(X)
    theirs = torch.from_dlpack(ours)
    shares(ours, theirs.numpy())
    back = graphc.from_dlpack(torch.tensor(X))
    assert isinstance(back, graphc.Tensor) and back.tolist() == X.tolist()
    assert torch.utils.dlpack.from_dlpack(graphc.utils.dlpack.to_dlpack(graphc.tensor(X))).tolist() == X.tolist()


def test_numpy_by_dlpack() -> None:
    ours = graphc.tensor(X)
    shares(ours, np.from_dlpack(ours))
    assert graphc.from_dlpack(X.copy()).tolist() == X.tolist()
    with pytest.raises(BufferError):
        np.from_dlpack(graphc.ones(2, requires_grad=True))


def test_jax_by_dlpack() -> None:
    jnp = pytest.importorskip("jax.numpy")
    theirs = jnp.from_dlpack(graphc.tensor(X))
    assert np.asarray(theirs * 2).tolist() == (X * 2).tolist()
    back = graphc.from_dlpack(jnp.asarray(X) + 1)
    assert back.dtype is graphc.float32 and back.tolist() == (X + 1).tolist()


def test_cupy_by_dlpack() -> None:
    cupy = pytest.importorskip("cupy")
    if not graphc.cuda.is_available():
        pytest.skip("needs a GPU")
    theirs = cupy.from_dlpack(graphc.tensor(X).cuda())
    assert cupy.asnumpy(theirs * 2).tolist() == (X * 2).tolist()
    assert graphc.from_dlpack(cupy.asarray(X)).cpu().tolist() == X.tolist()
