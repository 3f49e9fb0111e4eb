"""Transforms on Pillow images and on tensors against Pillow and NumPy."""
import math

import numpy as np
import pytest

import graphc
from graphc.vision import transforms as T
from graphc.vision.transforms import functional as F

Image = pytest.importorskip("PIL.Image")
ImageEnhance = pytest.importorskip("PIL.ImageEnhance")
rs = np.random.RandomState(1)
RGB = rs.randint(0, 256, (13, 17, 3)).astype(np.uint8)
GREY = RGB[:, :, 0].copy()


def img(arr=RGB):
    return Image.fromarray(arr)


def ten(arr=RGB, dtype=np.uint8):
    chw = arr.transpose(2, 0, 1) if arr.ndim == 3 else arr[None]
    return graphc.from_numpy(np.ascontiguousarray(chw if dtype is np.uint8 else chw.astype(dtype) / 255).astype(dtype))


def arr_of(x):
    """(H, W, C) array of either kind of image."""
    if isinstance(x, graphc.Tensor):
        return np.asarray(x.tolist()).transpose(1, 2, 0)
    a = np.asarray(x)
    return a if a.ndim == 3 else a[:, :, None]


BOTH = pytest.mark.parametrize("make", [img, ten], ids=["pil", "tensor"])


# --------------------------------------------------------------------------------------------------------- conversions
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "CMYK", "YCbCr", "HSV"])
def test_to_tensor_eight_bit_modes(mode):
    pic = img().convert("RGB").convert(mode)
    out, raw = T.ToTensor()(pic), T.PILToTensor()(pic)
    a = np.asarray(pic)
    a = (a if a.ndim == 3 else a[:, :, None]).transpose(2, 0, 1)
    assert out.dtype is graphc.float32 and raw.dtype is graphc.uint8
    assert np.array_equal(out.numpy(), a.astype(np.float32) / np.float32(255)) and np.array_equal(raw.numpy(), a)


def test_to_tensor_other_modes_and_arrays():
    assert T.ToTensor()(img(GREY).convert("1")).unique().tolist() == [0.0, 1.0]
    wide = T.ToTensor()(img(GREY).convert("I"))
    assert wide.dtype is graphc.int32 and np.array_equal(wide.numpy()[0], GREY)
    real = T.ToTensor()(img(GREY).convert("F"))
    assert real.dtype is graphc.float32 and np.array_equal(real.numpy()[0], GREY)
    for dtype, scale in ((np.uint8, 255), (np.float32, 1), (np.int64, 1), (np.float64, 1)):
        out = T.ToTensor()(RGB.astype(dtype))
        assert out.shape == (3, 13, 17) and np.allclose(out.numpy(), RGB.transpose(2, 0, 1) / scale, atol=1e-7)
    assert T.ToTensor()(GREY).shape == (1, 13, 17)
    with pytest.raises(TypeError):
        T.ToTensor()([1])
    with pytest.raises(TypeError):
        T.ToTensor()(ten())
    with pytest.raises(ValueError, match="2/3 dimensional"):
        T.ToTensor()(np.zeros(3))
    with pytest.raises(TypeError):
        T.PILToTensor()(RGB)


def test_to_tensor_is_a_copy():
    a = np.zeros((2, 2, 1), np.float32)
    t = T.ToTensor()(a)
    a += 1
    assert t.sum().item() == 0


def test_to_tensor_follows_the_default_dtype():
    graphc.set_default_dtype(graphc.float64)
    try:
        assert T.ToTensor()(img()).dtype is graphc.float64
    finally:
        graphc.set_default_dtype(graphc.float32)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "I", "F"])
def test_to_pil_image_round_trip(mode):
    pic = img().convert("RGB").convert(mode) if mode not in "IF" else img(GREY).convert(mode)
    out = T.ToPILImage(mode if mode == "F" else None)(T.PILToTensor()(pic))
    assert out.mode == mode and out.size == pic.size and out.tobytes() == pic.tobytes()


def test_to_pil_image_floats_and_errors():
    x = rs.rand(3, 4, 5).astype(np.float32)
    assert np.array_equal(arr_of(T.ToPILImage()(graphc.from_numpy(x))), (x.transpose(1, 2, 0) * 255).astype(np.uint8))
    assert T.ToPILImage("YCbCr")(ten()).mode == "YCbCr" and T.ToPILImage()(GREY).mode == "L"
    half = graphc.from_numpy(x).to(graphc.bfloat16)
    assert T.ToPILImage()(half).mode == "RGB"
    for bad, error in ((5, TypeError), (np.zeros(3), ValueError), (np.zeros((2, 2, 5), np.uint8), ValueError),
                       (np.zeros((2, 2, 3), np.int64), TypeError), (np.zeros((2, 2), np.int64), TypeError)):
        with pytest.raises(error):
            T.ToPILImage()(bad)
    with pytest.raises(ValueError, match="Incorrect mode"):
        T.ToPILImage("RGB")(GREY)
    with pytest.raises(ValueError, match="Only modes"):
        T.ToPILImage("RGBA")(RGB)


@pytest.mark.parametrize("source,target,want", [
    ("uint8", "float32", [0.0, 127 / 255, 1.0]), ("uint8", "int16", [0, 127 * 128, 255 * 128]),
    ("uint8", "uint8", [0, 127, 255]), ("uint8", "int8", [0, 63, 127]),
])
def test_convert_image_dtype(source, target, want):
    x = graphc.tensor([0, 127, 255], dtype=getattr(graphc, source)).reshape(1, 3)
    out = T.ConvertImageDtype(getattr(graphc, target))(x)
    assert str(out.dtype) == f"torch.{target}" and np.allclose(out.tolist(), [want])


def test_convert_image_dtype_from_float():
    x = graphc.tensor([[0.0, 0.5, 1.0]])
    assert F.convert_image_dtype(x, graphc.uint8).tolist() == [[0, 127, 255]]
    for dtype in (graphc.int32, graphc.int64):
        with pytest.raises(RuntimeError, match="cannot be performed safely"):
            F.convert_image_dtype(x, dtype)
    with pytest.raises(TypeError):
        F.convert_image_dtype(img(), graphc.float32)


def test_normalize():
    x = ten(dtype=np.float32)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    want = (x.numpy() - np.float32(mean).reshape(3, 1, 1)) / np.float32(std).reshape(3, 1, 1)
    before = x.tolist()
    assert np.array_equal(T.Normalize(mean, std)(x).numpy(), want) and x.tolist() == before
    batch = graphc.stack([x, x * 2])
    assert np.allclose(T.Normalize(list(mean), list(std))(batch)[0].numpy(), want, atol=1e-6)
    y = x.clone()
    assert T.Normalize(mean, std, inplace=True)(y) is y and np.allclose(y.numpy(), want, atol=1e-6)
    g = x.clone().requires_grad_()
    T.Normalize(mean, std)(g).sum().backward()
    assert np.allclose(g.grad[1].numpy(), 1 / 0.6)
    assert T.Normalize(graphc.tensor(mean), graphc.tensor(std))(x).tolist() == T.Normalize(mean, std)(x).tolist()


def test_normalize_errors():
    with pytest.raises(TypeError, match="Tensor Image"):
        T.Normalize([0.5], [0.5])(img())
    with pytest.raises(TypeError, match="float tensor"):
        T.Normalize([0.5], [0.5])(ten())
    with pytest.raises(ValueError, match=r"\.\.\., C, H, W"):
        T.Normalize([0.5], [0.5])(graphc.zeros(3, 3))
    with pytest.raises(ValueError, match="std evaluated to zero"):
        T.Normalize([0.5], [0.0])(graphc.zeros(1, 3, 3))


# ------------------------------------------------------------------------------------------------------------ geometry
@BOTH
def test_flips_and_crops(make):
    assert np.array_equal(arr_of(F.hflip(make())), RGB[:, ::-1])
    assert np.array_equal(arr_of(F.vflip(make())), RGB[::-1])
    assert np.array_equal(arr_of(F.crop(make(), 2, 3, 5, 6)), RGB[2:7, 3:9])
    padded = np.pad(RGB, ((4, 9), (5, 9), (0, 0)))
    assert np.array_equal(arr_of(F.crop(make(), -4, -5, 10, 12)), padded[:10, :12])
    assert np.array_equal(arr_of(F.crop(make(), 8, 9, 10, 12)), padded[12:22, 14:26])
    assert np.array_equal(arr_of(T.CenterCrop(5)(make())), RGB[4:9, 6:11])
    assert np.array_equal(arr_of(T.CenterCrop((20, 5))(make())), np.pad(RGB, ((3, 4), (0, 0), (0, 0)))[:, 6:11])
    five = T.FiveCrop((4, 5))(make())
    want = (RGB[:4, :5], RGB[:4, -5:], RGB[-4:, :5], RGB[-4:, -5:], RGB[4:8, 6:11])
    assert all(np.array_equal(arr_of(a), b) for a, b in zip(five, want))
    ten_ = T.TenCrop((4, 5))(make())
    assert len(ten_) == 10 and np.array_equal(arr_of(ten_[5]), RGB[:4, ::-1][:, :5])
    with pytest.raises(ValueError, match="bigger than input"):
        F.five_crop(make(), 50)


def test_crops_of_pending_large_and_gradient_tensors_are_recorded():
    x = graphc.ones(1, 4, 5, requires_grad=True)
    (F.hflip(F.crop(x * 2, 1, 1, 2, 3)) + F.vflip(F.pad(x, 1))[..., 2:4, 2:5]).sum().backward()
    assert x.grad[0].tolist() == [[0, 0, 0, 0, 0], [0, 3, 3, 3, 0], [0, 3, 3, 3, 0], [0, 0, 0, 0, 0]]


@BOTH
@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
@pytest.mark.parametrize("padding,widths", [(3, (3, 3, 3, 3)), ((2, 4), (4, 4, 2, 2)), ([1, 2, 3, 4], (2, 4, 1, 3))])
def test_pad(make, mode, padding, widths):
    top, bottom, left, right = widths
    want = np.pad(RGB, ((top, bottom), (left, right), (0, 0)), mode)
    assert np.array_equal(arr_of(T.Pad(padding, padding_mode=mode)(make())), want)


@BOTH
def test_pad_fill_and_negative(make):
    assert np.array_equal(arr_of(T.Pad(2, fill=7)(make())), np.pad(RGB, ((2, 2), (2, 2), (0, 0)), constant_values=7))
    for mode in ("constant", "edge"):
        want = np.pad(RGB[3:], ((0, 1), (1, 0), (0, 0)), mode)[:, :-2]
        assert np.array_equal(arr_of(F.pad(make(), [1, -3, -2, 1], padding_mode=mode)), want)


def test_pad_modes_of_images():
    assert F.pad(img(), 1, (1, 2, 3)).getpixel((0, 0)) == (1, 2, 3)
    assert F.pad(img(GREY), 1, 9).getpixel((0, 0)) == 9
    palette = img().convert("P")
    assert F.pad(palette, 1, padding_mode="edge").getpalette() == palette.getpalette()
    with pytest.raises(ValueError, match="does not match the number of channels"):
        F.pad(img(GREY), 1, (1, 2, 3))


@BOTH
@pytest.mark.parametrize("args,error", [
    (("x",), TypeError), (([1, 2, 3],), ValueError), ((1, "x"), TypeError), ((1, 0, "wrap"), ValueError),
    ((1, 0, 3), TypeError)])
def test_pad_errors(make, args, error):
    with pytest.raises(error):
        F.pad(make(), *args)
    if len(args) < 3 or isinstance(args[2], str):
        with pytest.raises(error):
            T.Pad(*args)


@pytest.mark.parametrize("size,want", [(5, (5, 6)), ((5,), (5, 6)), ((4, 9), (4, 9)), (26, (26, 34)), (13, (13, 17))])
@pytest.mark.parametrize("mode", [T.InterpolationMode.BILINEAR, T.InterpolationMode.NEAREST, T.InterpolationMode.BICUBIC,
                                  T.InterpolationMode.BOX, 1])
def test_resize_images(size, want, mode):
    out = T.Resize(size, mode)(img())
    number = mode if isinstance(mode, int) else F.pil_modes_mapping[mode]
    reference = img().resize(want[::-1], number) if want != (13, 17) else img()
    assert arr_of(out).shape[:2] == want and np.array_equal(arr_of(out), np.asarray(reference))


@pytest.mark.parametrize("size", [(5, 6), (26, 34), (6, 40), (13, 8)])
@pytest.mark.parametrize("mode", ["BILINEAR", "BICUBIC"])
def test_resize_tensors_like_pillow(size, mode):
    """Float tensors, anti-aliased, against Pillow on float images: the same filter."""
    x = GREY.astype(np.float32)
    out = F.resize(graphc.from_numpy(x[None].copy()), list(size), T.InterpolationMode[mode])
    want = np.asarray(Image.fromarray(x).resize(size[::-1], F.pil_modes_mapping[T.InterpolationMode[mode]]))
    assert np.abs(out[0].numpy() - want).max() < 1e-2
    if mode == "BICUBIC":
        return  # Pillow clips 8-bit values between its two passes
    eight = F.resize(ten(), list(size), T.InterpolationMode[mode])
    want8 = np.asarray(img().resize(size[::-1], F.pil_modes_mapping[T.InterpolationMode[mode]])).astype(int)
    assert eight.dtype is graphc.uint8 and np.abs(arr_of(eight) - want8).max() <= 1


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(5, 6), (26, 34), (6, 40), (1, 1), (14, 18)])
def test_resize_tensors_like_interpolate(mode, size):
    torch = pytest.importorskip("torch")
    x = rs.rand(2, 3, 13, 17).astype(np.float32)
    for antialias in (False, True):
        corners = {} if "nearest" in mode else {"align_corners": False, "antialias": antialias}
        want = torch.nn.functional.interpolate(torch.from_numpy(x), size, mode=mode, **corners).numpy()
        out = F.resize(graphc.from_numpy(x.copy()), list(size), T.InterpolationMode(mode), antialias=antialias)
        assert np.abs(out.numpy() - want).max() < 1e-5


def test_resize_max_size_and_errors():
    assert T.Resize(10, max_size=12)(img()).size == (12, 9)
    assert T.Resize(10, max_size=12)(ten()).shape == (3, 9, 12)
    with pytest.raises(ValueError, match="strictly greater"):
        T.Resize(10, max_size=10)(img())
    with pytest.raises(ValueError, match="max_size should only"):
        F.resize(img(), [4, 5], max_size=9)
    with pytest.raises(TypeError):
        T.Resize(4.0)
    with pytest.raises(ValueError):
        T.Resize((1, 2, 3))
    with pytest.raises(TypeError, match="interpolation"):
        T.Resize(4, interpolation="bilinear")
    with pytest.raises(NotImplementedError, match="lanczos"):
        F.resize(ten(), [4, 4], T.InterpolationMode.LANCZOS)
    with pytest.raises(TypeError, match="PIL Image or Tensor"):
        F.resize(RGB, [4, 4])


@pytest.mark.parametrize("angle", [0, 90, 180, 33.5, -77])
@pytest.mark.parametrize("expand", [False, True])
def test_rotate_images(angle, expand):
    out = F.rotate(img(), angle, expand=expand, fill=(1, 2, 3))
    want = img().rotate(angle, 0, expand, None, fillcolor=(1, 2, 3))
    assert out.size == want.size and out.tobytes() == want.tobytes()
    out = F.rotate(img(), angle, T.InterpolationMode.BILINEAR, center=(2, 3))
    assert out.tobytes() == img().rotate(angle, 2, False, (2, 3), fillcolor=(0, 0, 0)).tobytes()


def test_rotate_tensors():
    square = RGB[:13, :13].copy()
    for turns in range(5):
        assert np.array_equal(arr_of(F.rotate(ten(square), 90 * turns)), np.rot90(square, turns))
    assert np.array_equal(arr_of(F.rotate(ten(), 90, expand=True)), np.rot90(RGB))
    x = ten(dtype=np.float32)
    same = F.rotate(x, 0, T.InterpolationMode.BILINEAR)
    assert np.allclose(same.tolist(), x.tolist(), atol=1e-6)
    turned = F.rotate(x, 45, fill=[0.25])
    assert turned[:, 0, 0].tolist() == [0.25] * 3 and turned.shape == x.shape
    near = arr_of(F.rotate(ten(), 30)).astype(int)
    pil = np.asarray(F.rotate(img(), 30)).astype(int)
    assert (np.abs(near - pil).max(-1) == 0).mean() > 0.97  # ties at pixel borders may round differently
    with pytest.raises(ValueError, match="bicubic"):
        F.rotate(ten(), 30, T.InterpolationMode.BICUBIC)
    with pytest.raises(ValueError, match="does not match|cannot broadcast"):
        F.rotate(ten(), 30, fill=[1, 2])
    with pytest.raises(TypeError):
        F.rotate(img(), "a")
    with pytest.raises(TypeError):
        F.rotate(img(), 1, center=3)


@BOTH
def test_affine_translation_and_scale(make):
    moved = arr_of(F.affine(make(), 0, [3, -2], 1.0, [0.0, 0.0]))
    assert np.array_equal(moved[:-2, 3:], RGB[2:, :-3]) and not moved[-2:].any() and not moved[:, :3].any()
    with pytest.raises(ValueError, match="scale should be positive"):
        F.affine(make(), 0, [0, 0], 0, [0])


# -------------------------------------------------------------------------------------------------------------- colour
@pytest.mark.parametrize("factor", [0, 0.4, 1, 1.8])
def test_adjust_images_like_pillow(factor):
    for name, enhancer in (("brightness", "Brightness"), ("contrast", "Contrast"), ("saturation", "Color"),
                           ("sharpness", "Sharpness")):
        out = getattr(F, f"adjust_{name}")(img(), factor)
        assert out.tobytes() == getattr(ImageEnhance, enhancer)(img()).enhance(factor).tobytes()


@pytest.mark.parametrize("factor", [0, 0.4, 1, 1.8])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_adjust_tensors_agree_with_images(name, factor):
    fn = getattr(F, f"adjust_{name}")
    want = arr_of(fn(img(), factor)).astype(int)
    assert np.abs(arr_of(fn(ten(), factor)) - want).max() <= 2
    real = fn(ten(dtype=np.float32), factor)
    assert np.abs(arr_of(real) * 255 - want).max() <= 2 and real.dtype is graphc.float32


@pytest.mark.parametrize("factor", [-0.5, -0.2, 0.0, 0.1, 0.5])
def test_hue(factor):
    import colorsys

    x = ten(dtype=np.float32)
    out = arr_of(F.adjust_hue(x, factor))
    for i, j in ((0, 0), (3, 5), (12, 16)):
        h, s, v = colorsys.rgb_to_hsv(*(RGB[i, j] / 255))
        assert np.allclose(out[i, j], colorsys.hsv_to_rgb((h + factor) % 1, s, v), atol=1e-4)
    h, s, v = img().convert("HSV").split()
    turned = (np.asarray(h).astype(int) + int(factor * 255)) % 256
    want = Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), s, v)).convert("RGB")
    assert F.adjust_hue(img(), factor).tobytes() == want.tobytes()
    assert F.adjust_hue(img(GREY), factor).tobytes() == GREY.tobytes()


def test_hue_of_grey_pixels_is_defined():
    x = graphc.full((3, 2, 2), 0.5)
    assert np.allclose(F.adjust_hue(x, 0.3).tolist(), 0.5)


@BOTH
def test_colour_errors(make):
    for name in ("brightness", "contrast", "saturation"):
        with pytest.raises(ValueError, match="not non-negative"):
            getattr(F, f"adjust_{name}")(make(), -0.1)
    with pytest.raises(ValueError, match="hue_factor"):
        F.adjust_hue(make(), 0.6)
    with pytest.raises(ValueError, match="Gamma"):
        F.adjust_gamma(make(), -1)
    with pytest.raises(ValueError, match="1 or 3"):
        F.rgb_to_grayscale(make(), 2)
    with pytest.raises(TypeError, match="channel"):
        F.adjust_brightness(graphc.zeros(2, 3, 3), 1)


@BOTH
def test_greyscale_invert_gamma_posterize_solarize(make):
    want = np.asarray(img().convert("L")).astype(int)
    assert np.abs(arr_of(T.Grayscale()(make()))[:, :, 0] - want).max() <= 1
    three = arr_of(T.Grayscale(3)(make()))
    assert three.shape == (13, 17, 3) and np.array_equal(three[..., 0], three[..., 2])
    assert np.array_equal(arr_of(F.invert(make())), 255 - RGB)
    assert np.array_equal(arr_of(F.posterize(make(), 3)), RGB & 0xE0)
    assert np.array_equal(arr_of(F.solarize(make(), 100)), np.where(RGB < 100, RGB, 255 - RGB))
    assert np.abs(arr_of(F.adjust_gamma(make(), 2.0)).astype(int) - np.round(RGB / 255.0 * RGB)).max() <= 1
    blurred = arr_of(F.gaussian_blur(make(), 5, 1.5)).astype(float)
    assert blurred.std() < RGB.std() / 2 and abs(blurred.mean() - RGB.mean()) < 3


# -------------------------------------------------------------------------------------------------------------- random
def drawn(transform, make, n=40, seed=3):
    graphc.manual_seed(seed)
    return [arr_of(transform(make())) for _ in range(n)]


RANDOM = [T.RandomCrop(8), T.RandomCrop(8, padding=3, padding_mode="reflect"), T.RandomHorizontalFlip(), T.RandomVerticalFlip(),
          T.RandomResizedCrop(9), T.RandomRotation(40), T.RandomAffine(20, (0.2, 0.2), (0.8, 1.2), 10),
          T.ColorJitter(0.5, 0.5, 0.5, 0.2), T.RandomGrayscale(0.5), T.RandomInvert(),
          T.RandomApply([T.RandomCrop(8), T.Resize((13, 17))], 0.5),
          T.RandomOrder([T.RandomHorizontalFlip(), T.RandomCrop((13, 17), 2)]),
          T.RandomChoice([T.RandomHorizontalFlip(1.0), T.RandomVerticalFlip(1.0)])]


@BOTH
@pytest.mark.parametrize("transform", RANDOM, ids=lambda t: type(t).__name__)
def test_random_transforms_follow_manual_seed(make, transform):
    a, b, c = drawn(transform, make), drawn(transform, make), drawn(transform, make, seed=4)
    assert all(np.array_equal(x, y) for x, y in zip(a, b))
    assert any(not np.array_equal(x, y) for x, y in zip(a, c))
    assert len({x.tobytes() for x in a}) > 1


@BOTH
def test_probabilities(make):
    for cls, flipped in ((T.RandomHorizontalFlip, RGB[:, ::-1]), (T.RandomVerticalFlip, RGB[::-1])):
        assert all(np.array_equal(x, RGB) for x in drawn(cls(0.0), make, 5))
        assert all(np.array_equal(x, flipped) for x in drawn(cls(1.0), make, 5))
        share = np.mean([np.array_equal(x, flipped) for x in drawn(cls(0.3), make, 300)])
        assert 0.2 < share < 0.4
    assert all(np.array_equal(x, RGB) for x in drawn(T.RandomApply([T.RandomHorizontalFlip(1.0)], 0.0), make, 5))
    share = np.mean([not np.array_equal(x, RGB) for x in drawn(T.RandomChoice(
        [T.RandomHorizontalFlip(1.0), T.RandomHorizontalFlip(0.0)], p=[1, 3]), make, 300)])
    assert 0.15 < share < 0.35


@BOTH
def test_random_crop(make):
    seen = set()
    for x in drawn(T.RandomCrop((4, 5)), make, 300):
        i, j = np.argwhere((RGB == x[0, 0]).all(-1))[0]
        assert np.array_equal(x, RGB[i:i + 4, j:j + 5])
        seen.add((i, j))
    assert {i for i, _ in seen} == set(range(10)) and {j for _, j in seen} == set(range(13))
    assert np.array_equal(arr_of(T.RandomCrop((13, 17))(make())), RGB)
    with pytest.raises(ValueError, match="larger than input image size"):
        T.RandomCrop(20)(make())
    out = arr_of(T.RandomCrop((15, 20), pad_if_needed=True, fill=9)(make()))
    assert out.shape == (15, 20, 3) and (out == 9).all(-1).sum() >= 15 * 20 - 13 * 17
    padded = np.pad(RGB, ((2, 2), (1, 1), (0, 0)), constant_values=5)
    for x in drawn(T.RandomCrop((17, 19), padding=(1, 2), fill=5), make, 3):
        assert np.array_equal(x, padded)


@BOTH
def test_random_resized_crop_stays_in_range(make):
    graphc.manual_seed(0)
    for _ in range(200):
        i, j, h, w = T.RandomResizedCrop.get_params(make(), (0.2, 0.5), (0.5, 2.0))
        assert 0 <= i <= 13 - h and 0 <= j <= 17 - w
        assert 0.15 < h * w / (13 * 17) < 0.6 and 0.35 < w / h < 2.9
    assert T.RandomResizedCrop.get_params(make(), (1.0, 1.0), (5.0, 5.0)) == (5, 0, 3, 17)
    assert arr_of(T.RandomResizedCrop((6, 7))(make())).shape == (6, 7, 3)
    with pytest.warns(UserWarning, match="min, max"):
        T.RandomResizedCrop(4, scale=(1.0, 0.5))
    with pytest.raises(TypeError):
        T.RandomResizedCrop(4, scale=0.5)


def test_random_erasing():
    x = ten(dtype=np.float32)
    graphc.manual_seed(1)
    changed = 0
    for _ in range(50):
        out = T.RandomErasing(p=1.0, scale=(0.1, 0.3), value=(1.5, 2.5, 3.5))(x)
        diff = (out != x).numpy().any(0)
        rows, columns = np.flatnonzero(diff.any(1)), np.flatnonzero(diff.any(0))
        assert diff[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1].all()
        assert 0.05 < diff.mean() < 0.35 and out[:, rows[0], columns[0]].tolist() == [1.5, 2.5, 3.5]
        changed += 1
    assert changed == 50
    assert T.RandomErasing(p=0.0)(x) is x
    noise = T.RandomErasing(p=1.0, value="random")(x)
    assert (noise != x).any() and math.isfinite(noise.sum().item())
    y = x.clone()
    assert T.RandomErasing(p=1.0, inplace=True)(y) is y and (y != x).any()
    for kw, error in (({"value": "noise"}, ValueError), ({"scale": (0.0, 2.0)}, ValueError), ({"p": 1.5}, ValueError),
                      ({"scale": 0.1}, TypeError), ({"value": None}, TypeError)):
        with pytest.raises(error):
            T.RandomErasing(**kw)
    with pytest.raises(ValueError, match="number of input channels"):
        T.RandomErasing(p=1.0, value=(1, 2))(x)
    with pytest.raises(TypeError):
        F.erase(img(), 0, 0, 1, 1, 0)


def test_color_jitter_arguments():
    assert T.ColorJitter(0.5).brightness == (0.5, 1.5) and T.ColorJitter(2).brightness == (0.0, 3.0)
    assert T.ColorJitter(hue=0.1).hue == (-0.1, 0.1) and T.ColorJitter().contrast is None
    assert T.ColorJitter(contrast=(0.2, 0.3)).contrast == (0.2, 0.3)
    for kw, error in (({"brightness": -1}, ValueError), ({"hue": 0.6}, ValueError), ({"contrast": (2, 1)}, ValueError),
                      ({"saturation": "a"}, TypeError)):
        with pytest.raises(error):
            T.ColorJitter(**kw)


def test_argument_errors():
    for make, error in ((lambda: T.CenterCrop((1, 2, 3)), ValueError), (lambda: T.RandomRotation(-3), ValueError),
                        (lambda: T.RandomRotation((1, 2, 3)), ValueError), (lambda: T.RandomRotation(3, center=1), TypeError),
                        (lambda: T.RandomRotation(3, fill="x", center=(1,)), ValueError), (lambda: T.Lambda(3), TypeError),
                        (lambda: T.RandomAffine(1, (2, 0)), ValueError), (lambda: T.RandomAffine(1, None, (0, 1)), ValueError),
                        (lambda: T.RandomChoice(3), TypeError), (lambda: T.GaussianBlur(4), ValueError),
                        (lambda: T.GaussianBlur(3, (2.0, 1.0)), ValueError)):
        with pytest.raises(error):
            make()


# -------------------------------------------------------------------------------------------------- composition, reprs
def test_compose_and_lambda():
    pipeline = T.Compose([T.Resize((4, 5)), T.ToTensor(), T.Lambda(lambda t: t * 2)])
    want = np.asarray(img().resize((5, 4), 2)).transpose(2, 0, 1) / np.float32(255) * 2
    assert np.allclose(pipeline(img()).numpy(), want)


def test_transforms_are_modules_and_pickle():
    import pickle

    seq = graphc.nn.Sequential(T.CenterCrop(4), T.Normalize((0.5,), (0.5,)))
    assert seq(ten(dtype=np.float32)).shape == (3, 4, 4)
    again = pickle.loads(pickle.dumps(T.Compose([T.RandomCrop(4, 1), T.ToTensor()])))
    assert again(img()).shape == (3, 4, 4)


@pytest.mark.parametrize("transform,text", [
    (T.Compose([T.Resize(3), T.ToTensor()]),
     "Compose(\n    Resize(size=3, interpolation=bilinear, max_size=None, antialias=True)\n    ToTensor()\n)"),
    (T.ToTensor(), "ToTensor()"), (T.PILToTensor(), "PILToTensor()"), (T.ToPILImage(), "ToPILImage()"),
    (T.ToPILImage("RGB"), "ToPILImage(mode=RGB)"), (T.ConvertImageDtype(graphc.float32), "ConvertImageDtype()"),
    (T.Normalize((0.5,), (0.2,)), "Normalize(mean=(0.5,), std=(0.2,))"), (T.CenterCrop(4), "CenterCrop(size=(4, 4))"),
    (T.Pad(2, 1, "edge"), "Pad(padding=2, fill=1, padding_mode=edge)"), (T.Lambda(abs), "Lambda()"),
    (T.RandomApply([T.ToTensor()], 0.3), "RandomApply(\n    p=0.3\n    ToTensor()\n)"),
    (T.RandomCrop(4, 2), "RandomCrop(size=(4, 4), padding=2)"), (T.RandomHorizontalFlip(), "RandomHorizontalFlip(p=0.5)"),
    (T.RandomVerticalFlip(0.1), "RandomVerticalFlip(p=0.1)"),
    (T.RandomResizedCrop(8), "RandomResizedCrop(size=(8, 8), scale=(0.08, 1.0), ratio=(0.75, 1.3333), "
                             "interpolation=bilinear, antialias=True)"),
    (T.RandomRotation(5), "RandomRotation(degrees=[-5.0, 5.0], interpolation=nearest, expand=False, fill=0)"),
    (T.ColorJitter(0.2), "ColorJitter(brightness=(0.8, 1.2), contrast=None, saturation=None, hue=None)"),
    (T.Grayscale(3), "Grayscale(num_output_channels=3)"), (T.RandomGrayscale(), "RandomGrayscale(p=0.1)"),
    (T.RandomErasing(), "RandomErasing(p=0.5, scale=(0.02, 0.33), ratio=(0.3, 3.3), value=0, inplace=False)"),
    (T.GaussianBlur(3), "GaussianBlur(kernel_size=(3, 3), sigma=(0.1, 2.0))"),
])
def test_reprs_like_torchvision(transform, text):
    assert repr(transform) == text


def test_get_dimensions():
    assert F.get_dimensions(img()) == F.get_dimensions(ten()) == [3, 13, 17]
    assert F.get_image_size(img(GREY)) == [17, 13] and F.get_image_num_channels(graphc.zeros(2, 5, 6)) == 2
    with pytest.raises(TypeError):
        F.get_dimensions(RGB)
    with pytest.raises(TypeError):
        F.get_dimensions(graphc.zeros(3))
