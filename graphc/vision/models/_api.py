"""Weights of models: where checkpoints trained on ImageNet are, and the functions that list models."""
from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

from ... import hub
from ...nn.module import Module

MODELS: dict[str, Callable[..., Module]] = {}  # registry: name -> function that builds the model


class Weights(NamedTuple):
    """Address of a checkpoint and facts about it."""

    url: str
    meta: dict[str, Any]


class WeightsEnum(enum.Enum):
    """Checkpoints of one model; ``DEFAULT`` is the recommended one."""

    @property
    def url(self) -> str:
        return self.value.url

    @property
    def meta(self) -> dict[str, Any]:
        return self.value.meta

    def get_state_dict(self, progress: bool = True, check_hash: bool = True) -> Any:
        """The checkpoint, downloaded once into ``hub.get_dir()``; its hash is checked."""
        return hub.load_state_dict_from_url(self.url, progress=progress, check_hash=check_hash)

    def transforms(self) -> Callable[[Any], Any]:
        """How pictures are prepared: the shorter side to 256, the centre 224, ImageNet's mean and deviation."""
        from .. import transforms as T

        return T.Compose([T.Resize(256), T.CenterCrop(224), T.ToTensor(),
                          T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])


def weights_enum(name: str, file: str, **meta: Any) -> Any:
    """An enumeration with the one checkpoint of download.pytorch.org called ``file``."""
    value = Weights(f"https://download.pytorch.org/models/{file}", meta)
    return WeightsEnum(name, {"IMAGENET1K_V1": value, "DEFAULT": value})  # type: ignore[call-arg]


def register(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Enter a function that builds a model into the registry."""
    MODELS[fn.__name__] = fn
    return fn


def chosen(known: Any, weights: Any, pretrained: Any) -> Any:
    """The checkpoint that ``weights`` (a member, its name, or None) or the older ``pretrained=True`` means."""
    if pretrained is not None:
        weights = known.DEFAULT if pretrained else None
    if isinstance(weights, str):
        weights = known[weights.rsplit(".", 1)[-1]]
    if weights is not None and not isinstance(weights, known):
        raise TypeError(f"Invalid Weight class provided; expected {known.__name__} but received {type(weights).__name__}.")
    return weights


def list_models(module: Any = None, include: Any = None, exclude: Any = None) -> list[str]:
    """Names of the models, sorted; ``include`` and ``exclude`` are shell patterns."""
    import fnmatch

    def fits(name: str, patterns: Any) -> bool:
        return any(fnmatch.fnmatch(name, p) for p in ([patterns] if isinstance(patterns, str) else patterns))

    return sorted(n for n in MODELS if (include is None or fits(n, include)) and (exclude is None or not fits(n, exclude)))


def get_model(name: str, **config: Any) -> Module:
    """The model called ``name``; ValueError for an unknown one."""
    if name.lower() not in MODELS:
        raise ValueError(f"Unknown model {name}")
    return MODELS[name.lower()](**config)
