"""Datasets whose classes are folders."""
from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from .._pil import pil
from .utils import CorruptFileError
from .vision import Transform, VisionDataset

IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def has_file_allowed_extension(filename: str, extensions: str | tuple[str, ...]) -> bool:
    """Whether the name ends with one of the (lower-case) extensions."""
    return filename.lower().endswith(extensions if isinstance(extensions, str) else tuple(extensions))


def is_image_file(filename: str) -> bool:
    """Whether the name looks like an image's."""
    return has_file_allowed_extension(filename, IMG_EXTENSIONS)


def find_classes(directory: Any) -> tuple[list[str], dict[str, int]]:
    """Sorted names of the sub-folders, and their numbers. Raises FileNotFoundError when there are none."""
    classes = sorted(entry.name for entry in os.scandir(directory) if entry.is_dir())
    if not classes:
        raise FileNotFoundError(f"Couldn't find any class folder in {directory}.")
    return classes, {name: i for i, name in enumerate(classes)}


def make_dataset(directory: Any, class_to_idx: dict[str, int] | None = None,
                 extensions: str | tuple[str, ...] | None = None, is_valid_file: Callable[[str], bool] | None = None,
                 allow_empty: bool = False) -> list[tuple[str, int]]:
    """Sorted (path, class number) of all valid files, links followed.

    Raises ValueError unless exactly one of ``extensions`` and ``is_valid_file`` is given, FileNotFoundError for a class
    without files (unless ``allow_empty``).
    """
    directory = os.path.expanduser(directory)
    if class_to_idx is None:
        class_to_idx = find_classes(directory)[1]
    elif not class_to_idx:
        raise ValueError("'class_to_index' must have at least one entry to collect any samples.")
    if (extensions is None) == (is_valid_file is None):
        raise ValueError("Both extensions and is_valid_file cannot be None or not None at the same time")
    valid = is_valid_file if is_valid_file is not None else lambda path: has_file_allowed_extension(path, extensions or ())
    found = [(os.path.join(folder, name), class_to_idx[target])
             for target in sorted(class_to_idx)
             for folder, _, names in sorted(os.walk(os.path.join(directory, target), followlinks=True))
             for name in sorted(names) if valid(os.path.join(folder, name))]
    present = {number for _, number in found}
    empty = [name for name, number in sorted(class_to_idx.items()) if number not in present]
    if empty and not allow_empty:
        hint = "" if extensions is None else (
            f"Supported extensions are: {extensions if isinstance(extensions, str) else ', '.join(extensions)}")
        raise FileNotFoundError(f"Found no valid file for the classes {', '.join(empty)}. {hint}")
    return found


def pil_loader(path: Any) -> Any:
    """The file as an RGB Pillow image. Raises CorruptFileError (RuntimeError and OSError) naming a damaged file."""
    image_module = pil()
    with open(path, "rb") as f:  # a missing file raises FileNotFoundError as usual
        try:
            return image_module.open(f).convert("RGB")
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise CorruptFileError(f"{path} is no readable image (truncated or corrupted?): {error}") from error


default_loader = pil_loader


class DatasetFolder(VisionDataset):
    """Samples ``root/<class>/**/<file>``: ``loader(path)`` and the class number, in sorted order.

    Override ``find_classes`` for another layout. Attributes: ``classes``, ``class_to_idx``, ``samples``, ``targets``.
    """

    def __init__(self, root: Any, loader: Callable[[str], Any], extensions: tuple[str, ...] | None = None,
                 transform: Transform | None = None, target_transform: Transform | None = None,
                 is_valid_file: Callable[[str], bool] | None = None, allow_empty: bool = False) -> None:
        super().__init__(root, transform=transform, target_transform=target_transform)
        self.loader = loader
        self.extensions = extensions
        self.classes, self.class_to_idx = self.find_classes(self.root)
        self.samples = self.make_dataset(self.root, self.class_to_idx, extensions, is_valid_file, allow_empty)
        self.targets = [number for _, number in self.samples]

    @staticmethod
    def make_dataset(directory: Any, class_to_idx: dict[str, int] | None, extensions: tuple[str, ...] | None = None,
                     is_valid_file: Callable[[str], bool] | None = None, allow_empty: bool = False
                     ) -> list[tuple[str, int]]:
        """See the function of this name; ``class_to_idx`` must be given, since ``find_classes`` may be overridden."""
        if class_to_idx is None:
            raise ValueError("The class_to_idx parameter cannot be None.")
        return make_dataset(directory, class_to_idx, extensions, is_valid_file, allow_empty)

    def find_classes(self, directory: Any) -> tuple[list[str], dict[str, int]]:
        """Class names and their numbers."""
        return find_classes(directory)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        path, target = self.samples[index]
        return self._transformed(self.loader(path), target)

    def __len__(self) -> int:
        return len(self.samples)


class ImageFolder(DatasetFolder):
    """Images ``root/<class>/**/<image>`` as RGB Pillow images with the class number."""

    def __init__(self, root: Any, transform: Transform | None = None, target_transform: Transform | None = None,
                 loader: Callable[[str], Any] = default_loader, is_valid_file: Callable[[str], bool] | None = None,
                 allow_empty: bool = False) -> None:
        super().__init__(root, loader, IMG_EXTENSIONS if is_valid_file is None else None, transform, target_transform,
                         is_valid_file, allow_empty)
        self.imgs = self.samples
