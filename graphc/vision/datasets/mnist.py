"""MNIST and datasets in its file format (idx: big-endian magic number, sizes, data)."""
from __future__ import annotations

import math
import os
import warnings
from typing import Any, BinaryIO

import numpy as np

from ...dtypes import int64
from ...tensor import Tensor, from_array
from ...utils.data._utils.host import rows
from .._pil import image_from_array
from .utils import CorruptFileError, check_integrity, download_any
from .vision import Transform, VisionDataset

_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


class MNIST(VisionDataset):
    """Handwritten digits: 28x28 grey images and labels 0-9 (LeCun, Cortes, Burges).

    Reads ``root/MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte`` or the same files with ``.gz``;
    ``download=True`` fetches what is missing. ``data`` is uint8 (N, 28, 28), ``targets`` int64 (N,); samples are
    (Pillow image, int) before the transforms. Raises RuntimeError when files are missing, damaged, or can't be fetched.
    """

    mirrors = ["https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"]
    resources = [
        ("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        ("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
        ("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
        ("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
    ]
    classes = ["0 - zero", "1 - one", "2 - two", "3 - three", "4 - four", "5 - five", "6 - six", "7 - seven", "8 - eight",
               "9 - nine"]

    def __init__(self, root: Any, train: bool = True, transform: Transform | None = None,
                 target_transform: Transform | None = None, download: bool = False) -> None:
        super().__init__(root, transform=transform, target_transform=target_transform)
        self.train = train
        if download:
            self.download()
        images, labels = (self._find(f"{'train' if train else 't10k'}-{kind}-ubyte") for kind in ("images-idx3",
                                                                                                  "labels-idx1"))
        if images is None or labels is None:
            raise RuntimeError("Dataset not found. You can use download=True to download it "
                               f"(looked for {self._names()} in {self.raw_folder})")
        self.data: Any = read_image_file(images)
        self.targets: Any = read_label_file(labels)
        if len(self.data) != len(self.targets):
            raise CorruptFileError(f"{images} has {len(self.data)} images but {labels} has {len(self.targets)} labels")

    def _find(self, name: str) -> str | None:
        """Path of a raw file, unpacked or compressed; None when there is neither."""
        for candidate in (os.path.join(self.raw_folder, name), os.path.join(self.raw_folder, name + ".gz")):
            if check_integrity(candidate):
                return candidate
        return None

    def _names(self) -> str:
        prefix = "train" if self.train else "t10k"
        return f"{prefix}-images-idx3-ubyte and {prefix}-labels-idx1-ubyte, optionally with .gz,"

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, target = rows(self.data)[index], int(rows(self.targets)[index])
        return self._transformed(image_from_array(image, "L"), target)

    def __len__(self) -> int:
        return len(self.data)

    @property
    def raw_folder(self) -> str:
        """Where the original files are."""
        return os.path.join(self.root, type(self).__name__, "raw")

    @property
    def processed_folder(self) -> str:
        """Kept for programs that print it; nothing is written there."""
        return os.path.join(self.root, type(self).__name__, "processed")

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Class name to label."""
        return {name: i for i, name in enumerate(self.classes)}

    def _check_exists(self) -> bool:
        return all(self._find(name[:-3]) is not None for name, _ in self.resources)

    def download(self) -> None:
        """Fetch the files that are missing. Raises RuntimeError when no mirror delivers."""
        missing = [(name, md5) for name, md5 in self.resources if self._find(name[:-3]) is None]
        names = ", ".join(name for name, _ in missing)
        advice = f"Without a network, put {names} into {os.path.abspath(self.raw_folder)} (unpacked files work too)."
        for name, md5 in missing:
            download_any([mirror + name for mirror in self.mirrors], self.raw_folder, name, md5, advice)

    def extra_repr(self) -> str:
        return f"Split: {'Train' if self.train else 'Test'}"

    def _renamed(self, old: str, new: str) -> Any:
        warnings.warn(f"{old} has been renamed {new}", stacklevel=3)
        return getattr(self, new)

    @property
    def train_labels(self) -> Any:
        return self._renamed("train_labels", "targets")

    @property
    def test_labels(self) -> Any:
        return self._renamed("test_labels", "targets")

    @property
    def train_data(self) -> Any:
        return self._renamed("train_data", "data")

    @property
    def test_data(self) -> Any:
        return self._renamed("test_data", "data")


class FashionMNIST(MNIST):
    """Articles of clothing in MNIST's format (Xiao, Rasul, Vollgraf), in ``root/FashionMNIST/raw``."""

    mirrors = ["http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"]
    resources = [
        ("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        ("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
        ("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
        ("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
    ]
    classes = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


class KMNIST(MNIST):
    """Kuzushiji characters in MNIST's format (Clanuwat et al.), in ``root/KMNIST/raw``."""

    mirrors = ["http://codh.rois.ac.jp/kmnist/dataset/kmnist/"]
    resources = [
        ("train-images-idx3-ubyte.gz", "bdb82020997e1d708af4cf47b453dcf7"),
        ("train-labels-idx1-ubyte.gz", "e144d726b3acfaa3e44228e80efcd344"),
        ("t10k-images-idx3-ubyte.gz", "5c965bf0a639b31b8f53240b1b52f4d7"),
        ("t10k-labels-idx1-ubyte.gz", "7320c461ea6c1c855c0b718fb2a4b134"),
    ]
    classes = ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"]


# ------------------------------------------------------------------------------------------------------ the idx format
def read_idx(path: Any) -> np.ndarray:
    """The array in an idx file (``.gz`` or not): two zero bytes, a type byte, the number of dimensions, each size as a
    big-endian int32, then the data. Raises CorruptFileError (a RuntimeError) naming the file when it is anything else."""
    import gzip
    import zlib

    try:
        with gzip.open(path, "rb") if os.fspath(path).endswith(".gz") else open(path, "rb") as f:
            return _parse_idx(f, path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorruptFileError(f"{path} is truncated or corrupted: {error}") from error


def _parse_idx(f: BinaryIO, path: Any) -> np.ndarray:
    head = f.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _IDX_TYPES or not 1 <= head[3] <= 8:
        raise CorruptFileError(f"{path} is corrupted or no idx file: it starts with {head.hex(' ') or 'nothing'}")
    sizes = f.read(4 * head[3])
    shape = tuple(int(n) for n in np.frombuffer(sizes[:len(sizes) // 4 * 4], ">u4"))
    dtype = np.dtype(_IDX_TYPES[head[2]])
    want = math.prod(shape) * dtype.itemsize
    data = _read_at_most(f, want + 1) if len(shape) == head[3] else b""
    if len(shape) < head[3] or len(data) != want:
        have = "more" if len(data) > want else str(len(data))
        raise CorruptFileError(f"{path} is truncated or corrupted: its header promises {want} bytes of data (shape "
                               f"{shape}), it has {have}")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _read_at_most(f: BinaryIO, limit: int) -> bytes:
    """Up to ``limit`` bytes; a header that promises far more than there is makes nothing large."""
    parts, left = [], limit
    while left > 0 and (part := f.read(min(left, 1 << 22))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def read_image_file(path: Any) -> Tensor:
    """uint8 images (N, H, W) of an idx3 file."""
    return _typed(path, 3)


def read_label_file(path: Any) -> Tensor:
    """int64 labels (N,) of an idx1 file."""
    return _typed(path, 1).to(int64)


def _typed(path: Any, ndim: int) -> Tensor:
    arr = read_idx(path)
    if arr.dtype != np.uint8 or arr.ndim != ndim:
        raise CorruptFileError(f"{path} holds {arr.dtype} data with {arr.ndim} dimensions; expected uint8 with {ndim}")
    return from_array(arr)
