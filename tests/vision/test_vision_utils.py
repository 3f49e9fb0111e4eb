"""make_grid and save_image."""
import io

import numpy as np
import pytest

import graphc
from graphc.vision.utils import make_grid, save_image

rs = np.random.RandomState(2)
X = rs.rand(5, 3, 4, 6).astype(np.float32)


def grid_of(arr, nrow, padding, value):
    """Pasted one by one."""
    n, c, h, w = arr.shape
    columns = min(nrow, n)
    rows = -(-n // columns)
    out = np.full((c, rows * (h + padding) + padding, columns * (w + padding) + padding), value, arr.dtype)
    for k in range(n):
        i, j = divmod(k, columns)
        y, x = i * (h + padding) + padding, j * (w + padding) + padding
        out[:, y:y + h, x:x + w] = arr[k]
    return out


@pytest.mark.parametrize("nrow,padding,value", [(8, 2, 0.0), (2, 1, 0.5), (3, 0, 1.0), (1, 3, 0.25)])
def test_make_grid(nrow, padding, value):
    out = make_grid(graphc.from_numpy(X.copy()), nrow, padding, pad_value=value)
    assert np.array_equal(out.numpy(), grid_of(X, nrow, padding, value))
    as_list = make_grid([graphc.from_numpy(x.copy()) for x in X], nrow, padding, pad_value=value)
    assert as_list.tolist() == out.tolist()


def test_make_grid_single_images_and_grey():
    assert make_grid(graphc.from_numpy(X[:1].copy())).tolist() == X[0].tolist()
    assert make_grid(graphc.from_numpy(X[0].copy())).shape == (3, 4, 6)
    grey = make_grid(graphc.from_numpy(X[0, 0].copy()))
    assert grey.shape == (3, 4, 6) and grey[2].tolist() == X[0, 0].tolist()
    assert make_grid(graphc.from_numpy(X[:, :1].copy())).shape[0] == 3


def test_make_grid_normalize():
    x = X * 4 - 1
    t = graphc.from_numpy(x.copy())
    want = (x - x.min()) / (x.max() - x.min())
    assert np.allclose(make_grid(t, normalize=True).numpy(), grid_of(want, 8, 2, 0), atol=1e-6)
    assert np.array_equal(t.numpy(), x)
    each = np.stack([(i - i.min()) / (i.max() - i.min()) for i in x])
    assert np.allclose(make_grid(t, normalize=True, scale_each=True).numpy(), grid_of(each, 8, 2, 0), atol=1e-6)
    ranged = (np.clip(x, 0, 2)) / 2
    assert np.allclose(make_grid(t, normalize=True, value_range=(0, 2)).numpy(), grid_of(ranged, 8, 2, 0), atol=1e-6)
    flat = make_grid(graphc.full((2, 3, 2, 2), 7.0), normalize=True)
    assert np.isfinite(flat.numpy()).all()


def test_make_grid_keeps_uint8_and_needs_no_gradient():
    out = make_grid(graphc.ones(3, 3, 2, 2, dtype=graphc.uint8), pad_value=9)
    assert out.dtype is graphc.uint8 and out[0, 0, 0].item() == 9
    assert not make_grid(graphc.ones(3, 3, 2, 2, requires_grad=True)).requires_grad


@pytest.mark.parametrize("bad,error", [(X, TypeError), ([X], TypeError), ("x", TypeError)])
def test_make_grid_errors(bad, error):
    with pytest.raises(error):
        make_grid(bad)
    with pytest.raises(TypeError, match="value_range"):
        make_grid(graphc.from_numpy(X.copy()), normalize=True, value_range=[0, 1])
    with pytest.raises(ValueError, match="shape"):
        make_grid(graphc.zeros(3))


def test_save_image(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    save_image(graphc.from_numpy(X.copy()), tmp_path / "a.png", nrow=2)
    want = np.clip(grid_of(X, 2, 2, 0) * 255 + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), want)
    buffer = io.BytesIO()
    save_image(graphc.full((1, 2, 2), 2.0), buffer, format="bmp")
    buffer.seek(0)
    assert np.asarray(Image.open(buffer)).tolist() == np.full((2, 2, 3), 255).tolist()
