"""Bounds in the signatures of what a config names: rejected values and their messages."""

import math
from collections.abc import Callable
from typing import Annotated, Any, NotRequired, TypedDict

import pytest
from annotated_types import Ge, Gt, Interval, Lt

from datamodules.image_samples import SampleImagesDataModule
from datamodules.samples import SampleTextDataModule
from datamodules.scene_samples import SampleScenesDataModule
from engine.config.signatures import signature_faults
from lightning_modules.image_classifier import ImageClassifier
from lightning_modules.losses import CrossEntropy, UpsampledCrossEntropy
from lightning_modules.networks.heads import BiGRUHead, LinearHead, MLPHead
from lightning_modules.optim.schedules import (
    constant,
    cosine,
    exponential,
    linear,
    onecycle,
    plateau,
)
from lightning_modules.segmenter import Segmenter
from lightning_modules.text_classifier import TextClassifier

DATA = (SampleTextDataModule, SampleImagesDataModule, SampleScenesDataModule)
IMAGES = (SampleImagesDataModule, SampleScenesDataModule)
TASKS = (TextClassifier, ImageClassifier, Segmenter)
HEADS = (BiGRUHead, MLPHead, LinearHead)
LOSSES = (CrossEntropy, UpsampledCrossEntropy)
WARMING_UP = (linear, constant, cosine, onecycle)
DECAYING = (exponential, plateau)
Target = Callable[..., Any]
# Key, the classes or functions that have it, smallest and largest value; None means no bound.
RANGES: list[tuple[str, tuple[Target, ...], float, float | None]] = [
    ("batch_size", DATA, 1, None),
    ("eval_batch_size", DATA, 1, None),
    ("num_workers", DATA, 0, None),
    ("val_fraction", DATA, 0.001, 0.999),
    ("max_length", DATA[:1], 3, None),
    ("train_rows", IMAGES[:1], 1, None),
    ("size", IMAGES, 2, None),
    ("max_pixels", IMAGES, 1, 178_956_970),
    ("augmentation.crop_padding", IMAGES[:1], 0, None),
    ("augmentation.rotation", IMAGES[:1], 0, 180),
    ("augmentation.rand_augment.num_ops", IMAGES[:1], 1, None),
    ("augmentation.rand_augment.magnitude", IMAGES[:1], 0, 30),
    ("augmentation.scale", IMAGES[1:], 0.01, None),
    ("augmentation.largest_share", IMAGES[1:], 0.01, 1),
    ("image_size", (ImageClassifier,), 2, None),
    ("hidden", HEADS[:2], 1, None),
    ("dropout", HEADS, 0, 0.999),
    ("auxiliary_weight", (Segmenter,), 0, None),
    ("lr", TASKS, 0, None),
    ("backbone_lr", TASKS, 0, None),
    ("weight_decay", TASKS, 0, None),
    ("label_smoothing", LOSSES, 0, 0.999),
    ("warmup", WARMING_UP, 0, 1),
    ("final", (cosine,), 0, 1),
    ("decay", DECAYING, 0, 1),
    ("min_lr", DECAYING, 0, None),
    ("patience", (plateau,), 0, None),
]
LISTS = {(MLPHead, "hidden"), (SampleScenesDataModule, "augmentation.scale")}


def faults_of_key(target: Target, key: str, value: object) -> list[str]:
    """Return the faults of one key in the config of a class or function."""
    node: Any = value
    for name in reversed(key.split(".")):
        node = {name: node}
    return [fault for path, fault in signature_faults(target, node, "at") if path == f"at.{key}"]


@pytest.mark.parametrize(
    ("target", "key", "low", "high"),
    [(target, key, low, high) for key, targets, low, high in RANGES for target in targets],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_bounds(target: Target, key: str, low: float, high: float | None) -> None:
    def faults(value: float) -> list[str]:
        return faults_of_key(target, key, [low, value] if (target, key) in LISTS else value)

    needed = f"at least {low} is needed" if high is None else f"{low} to {high} is needed"
    whole = isinstance(low, int) and not faults(low + 1) and bool(faults(low + 0.5))
    below = low - 1 if whole else math.nextafter(low, -math.inf)
    assert faults(low) == []
    assert faults(below) == [f"received {below!r}; {needed}"]
    if high is not None:
        above = high + 1 if whole else math.nextafter(high, math.inf)
        assert faults(high) == []
        assert faults(above) == [f"received {above!r}; {needed}"]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_numbers_are_finite(value: float) -> None:
    assert len(faults_of_key(TextClassifier, "lr", value)) == 1


def test_what_the_engine_passes_is_neither_missing_nor_suggested() -> None:
    faults = dict(signature_faults(BiGRUHead, {"hiden": 3}, "at", ("width", "outputs")))
    assert list(faults) == ["at.hiden"]
    assert "hidden" in faults["at.hiden"]
    assert "width" not in faults["at.hiden"]
    missing = signature_faults(BiGRUHead, {}, "at")
    assert [path for path, _ in missing] == ["at.width", "at.outputs"]


def test_the_annotations_of_a_function_are_checked() -> None:
    injected = ("step", "total", "optimizer", "steps_per_epoch")
    assert list(signature_faults(cosine, {"warmup": 0.5, "final": 0}, "at", injected)) == []
    faults = dict(signature_faults(plateau, {"mode": "up", "warmup": 0.1}, "at", injected))
    assert faults["at.mode"] == "received 'up'; one of min, max is needed"
    assert faults["at.warmup"].startswith("unknown key of plateau")


class Options(TypedDict):
    ratio: NotRequired[Annotated[float, Interval(gt=0, lt=1)]]


class Own:
    def __init__(
        self,
        above: Annotated[float, Gt(0)] = 1,
        between: Annotated[float, Ge(0), Lt(1)] = 0,
        items: list[Annotated[int, Ge(1)]] | None = None,
        options: Options | None = None,
        described: Annotated[int, "no bound"] = 0,
    ) -> None:
        pass


@pytest.mark.parametrize(
    ("node", "faults"),
    [
        ({"above": 0}, [("at.above", "received 0; above 0 is needed")]),
        ({"between": 1}, [("at.between", "received 1; at least 0 and below 1 is needed")]),
        (
            {"items": [0, 1, -1]},
            [("at.items", f"received {value}; at least 1 is needed") for value in (0, -1)],
        ),
        ({"items": ["a"]}, [("at.items", "received ['a']; list[int] or null is needed")]),
        ({"items": None, "options": {}, "described": -1}, []),
        (
            {"options": {"ratio": 1}},
            [("at.options.ratio", "received 1; above 0 and below 1 is needed")],
        ),
        ({"options": {"ratio": "a"}}, [("at.options.ratio", "received 'a'; float is needed")]),
        ({"above": True}, [("at.above", "received True; float is needed")]),
    ],
    ids=str,
)
def test_every_kind_of_bound(node: dict[str, Any], faults: list[tuple[str, str]]) -> None:
    assert list(signature_faults(Own, node, "at")) == faults
