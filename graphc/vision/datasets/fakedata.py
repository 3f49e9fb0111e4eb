"""Random images that need no files."""
from __future__ import annotations

from typing import Any

from ... import ops
from ...utils.data._utils import rng
from .vision import Transform, VisionDataset


class FakeData(VisionDataset):
    """``size`` random images of ``image_size`` (C, H, W) with labels below ``num_classes``.

    Sample ``i`` depends on ``i + random_offset`` only, and drawing it leaves the default generator alone.
    """

    def __init__(self, size: int = 1000, image_size: tuple[int, int, int] = (3, 224, 224), num_classes: int = 10,
                 transform: Transform | None = None, target_transform: Transform | None = None,
                 random_offset: int = 0) -> None:
        super().__init__(transform=transform, target_transform=target_transform)
        self.size = size
        self.num_classes = num_classes
        self.image_size = image_size
        self.random_offset = random_offset

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        from ..transforms.functional import to_pil_image

        if index >= len(self):
            raise IndexError(f"{type(self).__name__} index out of range: {index} of {len(self)}")
        generator = rng.generator(index + self.random_offset)
        image = ops.randn(*self.image_size, generator=generator)
        target = rng.integers(self.num_classes, 1, generator)[0]
        return self._transformed(to_pil_image(image), target)

    def __len__(self) -> int:
        return self.size
