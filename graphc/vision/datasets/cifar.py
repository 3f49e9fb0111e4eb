"""CIFAR-10 and CIFAR-100 (Krizhevsky): 32x32 colour images, from the Python or the binary version of the files."""
from __future__ import annotations

import os
from typing import Any

import numpy as np

from ._unpickle import load_plain
from .utils import CorruptFileError, calculate_md5, check_integrity, download_any, extract_archive
from .vision import Transform, VisionDataset

_PIXELS = 3 * 32 * 32


class CIFAR10(VisionDataset):
    """Ten classes of 32x32 colour images.

    Reads ``root/cifar-10-batches-py`` (pickled batches, through an unpickler that creates arrays and plain containers
    only) or else ``root/cifar-10-batches-bin``. ``data`` is a uint8 array (N, 32, 32, 3), ``targets`` a list of ints;
    samples are (Pillow image, int) before the transforms. A file with as many images as the original must have the
    original's checksum; smaller files are taken as subsets of your own. Raises RuntimeError when files are missing or
    damaged, or can't be fetched.
    """

    base_folder = "cifar-10-batches-py"
    url = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    filename = "cifar-10-python.tar.gz"
    tgz_md5 = "c58f30108f718f92721af3b95e74349a"
    train_list = [
        ["data_batch_1", "c99cafc152244af753f735de768cd75f"],
        ["data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"],
        ["data_batch_3", "54ebc095f3ab1f0389bbae665268c751"],
        ["data_batch_4", "634d18415352ddfa80567beed471001a"],
        ["data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"],
    ]
    test_list = [["test_batch", "40351d587109b95175f43aff81a1287e"]]
    meta = {"filename": "batches.meta", "key": "label_names", "md5": "5ff9c542aee3614f3951f8cda6e48888"}
    _label_key = "labels"
    _num_classes = 10
    _original_size = {"data_batch": 10_000, "test_batch": 10_000}
    _binary_folder = "cifar-10-batches-bin"
    _binary_meta = "batches.meta.txt"
    _label_bytes = 1

    def __init__(self, root: Any, train: bool = True, transform: Transform | None = None,
                 target_transform: Transform | None = None, download: bool = False) -> None:
        super().__init__(root, transform=transform, target_transform=target_transform)
        self.train = train
        if download:
            self.download()
        files = self.train_list if train else self.test_list
        python = [os.path.join(self.root, self.base_folder, name) for name, _ in files]
        binary = [os.path.join(self.root, self._binary_folder, f"{name}.bin") for name, _ in files]
        if all(os.path.isfile(path) for path in python):
            parts = [self._read_python(path, md5) for path, (_, md5) in zip(python, files)]
            self.classes = self._python_classes()
        elif all(os.path.isfile(path) for path in binary):
            parts = [self._read_binary(path) for path in binary]
            self.classes = self._binary_classes()
        else:
            missing = [path for path in python if not os.path.isfile(path)]
            raise RuntimeError("Dataset not found. You can use download=True to download it "
                               f"(missing {', '.join(map(str, missing))})")
        self.data: Any = np.concatenate([images for images, _ in parts]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        self.targets: list[int] = [label for _, labels in parts for label in labels]
        self.class_to_idx = {name: i for i, name in enumerate(self.classes)}

    # --------------------------------------------------------------------------------------------------------- reading
    def _read_python(self, path: str, md5: str) -> tuple[np.ndarray, list[int]]:
        entry = _load(path)
        data = entry.get("data") if isinstance(entry, dict) else None
        labels = entry.get(self._label_key) if isinstance(entry, dict) else None
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != _PIXELS:
            raise CorruptFileError(f"{path} is corrupted: 'data' must be a uint8 array of shape (N, {_PIXELS})")
        labels = self._checked_labels(path, labels, len(data))
        original = next((n for name, n in self._original_size.items() if os.path.basename(path).startswith(name)), -1)
        if len(data) == original and calculate_md5(path) != md5:
            raise CorruptFileError(f"{path} is corrupted: its MD5 is {calculate_md5(path)}, the original's {md5}. Delete it "
                                   "and use download=True")
        return data, labels

    def _checked_labels(self, path: str, labels: Any, count: int) -> list[int]:
        if (not isinstance(labels, list) or len(labels) != count
                or not all(isinstance(n, int) and 0 <= n < self._num_classes for n in labels)):
            raise CorruptFileError(f"{path} is corrupted: {self._label_key!r} must list {count} labels below "
                                   f"{self._num_classes}, one for each image")
        return labels

    def _read_binary(self, path: str) -> tuple[np.ndarray, list[int]]:
        """Records of label byte(s), the last being the class, and 3072 pixels."""
        raw = np.fromfile(path, np.uint8)
        record = self._label_bytes + _PIXELS
        if not len(raw) or len(raw) % record:
            raise CorruptFileError(f"{path} is truncated or corrupted: {len(raw)} bytes are no multiple of the {record} "
                                   "bytes of an image with its label")
        records = raw.reshape(-1, record)
        labels = self._checked_labels(path, records[:, self._label_bytes - 1].tolist(), len(records))
        return records[:, self._label_bytes:], labels

    def _python_classes(self) -> list[str]:
        path = os.path.join(self.root, self.base_folder, self.meta["filename"])
        if not os.path.isfile(path):
            raise RuntimeError("Dataset metadata file not found or corrupted. You can use download=True to download it "
                               f"(missing {path})")
        meta = _load(path)
        names = meta.get(self.meta["key"]) if isinstance(meta, dict) else None
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise CorruptFileError(f"{path} is corrupted: {self.meta['key']!r} must be a list of class names")
        return names

    def _binary_classes(self) -> list[str]:
        path = os.path.join(self.root, self._binary_folder, self._binary_meta)
        if not os.path.isfile(path):
            return [str(i) for i in range(self._num_classes)]
        with open(path, encoding="utf-8") as f:
            return [line.strip() for line in f if line.strip()]

    # ---------------------------------------------------------------------------------------------------------- access
    def __getitem__(self, index: int) -> tuple[Any, Any]:
        from .._pil import image_from_array

        return self._transformed(image_from_array(np.asarray(self.data[index]), "RGB"), self.targets[index])

    def __len__(self) -> int:
        return len(self.data)

    def _check_integrity(self) -> bool:
        return all(check_integrity(os.path.join(self.root, self.base_folder, name), md5)
                   for name, md5 in [*self.train_list, *self.test_list, [self.meta["filename"], self.meta["md5"]]])

    def download(self) -> None:
        """Fetch and unpack the Python version unless it is there and intact."""
        if self._check_integrity():
            return
        where = os.path.abspath(self.root)
        advice = f"Without a network, put {self.filename} into {where} and use download=True, or unpack it there."
        download_any([self.url], self.root, self.filename, self.tgz_md5, advice)
        extract_archive(os.path.join(self.root, self.filename), self.root)

    def extra_repr(self) -> str:
        return f"Split: {'Train' if self.train else 'Test'}"


class CIFAR100(CIFAR10):
    """A hundred classes, in ``root/cifar-100-python`` or ``root/cifar-100-binary``; targets are the fine labels."""

    base_folder = "cifar-100-python"
    url = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
    filename = "cifar-100-python.tar.gz"
    tgz_md5 = "eb9058c3a382ffc7106e4002c42a8d85"
    train_list = [["train", "16019d7e3df5f24257cddd939b257f8d"]]
    test_list = [["test", "f0ef6b0ae62326f3e7ffdfab6717acfc"]]
    meta = {"filename": "meta", "key": "fine_label_names", "md5": "7973b15100ade9c7d40fb424638fde48"}
    _label_key = "fine_labels"
    _num_classes = 100
    _original_size = {"train": 50_000, "test": 10_000}
    _binary_folder = "cifar-100-binary"
    _binary_meta = "fine_label_names.txt"
    _label_bytes = 2


def _load(path: str) -> Any:
    try:
        with open(path, "rb") as f:
            return load_plain(f)
    except Exception as error:  # a damaged pickle can fail in any way
        raise CorruptFileError(f"{path} is truncated, corrupted or no CIFAR file: {type(error).__name__}: {error}") from error
