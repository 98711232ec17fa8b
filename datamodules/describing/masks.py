"""Description of images with masks."""

from collections.abc import Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from datamodules.describing.base import Description
from datamodules.describing.images import (
    MAX_PIXELS,
    ImageFacts,
    Opened,
    formats_section,
    opened_image,
    sizes_section,
)
from datamodules.describing.sampling import count_samples, evenly_spread
from datamodules.describing.sections import (
    Cell,
    Section,
    copies_section,
    share,
    unchecked_note,
)
from datamodules.describing.split_facts import SplitFacts
from datamodules.images.decoding import BadImageError
from datamodules.images.threads import in_threads
from datamodules.inferring.findings import Finding
from datamodules.inferring.folders.masks import infer_masks
from datamodules.masks.decoding import PairDecoding
from datamodules.masks.rows import EncodedPair, SegmentationReader
from datamodules.reading.errors import BadRow
from datamodules.reading.progress import tracked
from datamodules.reading.sources import AUTO_FILES
from run_folders.errors import shortened

if TYPE_CHECKING:
    from datamodules.masks.class_list import ClassList

_VALUES = 256  # of a mask
_MOST_VALUES = 40  # listed; the others are counted


class _Pair(NamedTuple):
    """A pair that was opened: its image, and the pixels of each value of its mask."""

    image: Opened
    values: Any
    fault: BadRow | None


class MaskDescription(Description):
    """Images with masks.

    Attributes:
        facts: Facts about the images of each split.
        values: Split -> pixels of each mask value, [256].
        masks: Split -> masks with each value, [256].
    """

    template = "segmentation"
    what = "images with masks"
    open_settings: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "files": AUTO_FILES, "hub": None, "class_list": None, "num_classes": None,
            "images": None, "annotations": None, "image_suffix": None, "annotation_suffix": None,
            "image_column": "image", "annotation_column": "annotation", "label_map": None,
            "test_fraction": None, "max_pixels": MAX_PIXELS,
        }
    )  # fmt: skip

    def infer(self, settings: Mapping[str, Any]) -> list[Finding]:
        """Return what the folder and the masks decide, as in training."""
        return infer_masks(settings)

    def read(self) -> None:
        """List all pairs, and open some or all of each split."""
        self.facts: list[ImageFacts] = []
        self.values: dict[str, Any] = {}
        self.masks: dict[str, Any] = {}
        found = self.settings
        reader = SegmentationReader(
            found["images"], found["annotations"], found["image_suffix"],
            found["annotation_suffix"], found["image_column"], found["annotation_column"],
        )  # fmt: skip
        for split, name in self.files.items():
            facts = ImageFacts(SplitFacts(split, reader.place(name)))
            self.values[split] = np.zeros(_VALUES, np.int64)
            self.masks[split] = np.zeros(_VALUES, np.int64)
            read = partial(reader.read, self.folder, name, split)
            self._open(facts, read(), count_samples(self.folder / name, read))
            self.facts.append(facts)

    def _open(self, facts: ImageFacts, pairs: Iterable[EncodedPair | BadRow], total: int) -> None:
        """Count the pairs of a split, and open at most `limit` of them."""
        split, step = facts.split, max(1, -(-total // self.request.limit))
        classes = self._class_list()

        def count(_: EncodedPair) -> None:
            split.samples += 1

        chosen = evenly_spread(pairs, step, split, count)
        found = in_threads(lambda pair: _opened(pair, split.name, classes), chosen)
        for pair, result in tracked(found, f"opening {split.name}", total // step, "pairs"):
            if result.values is not None:
                self.values[split.name] += result.values
                self.masks[split.name] += result.values > 0
            if result.fault:
                split.add_bad(result.fault)
                continue
            split.samples += 1
            facts.add(pair.image, result.image)
        split.place = facts.names.__getitem__

    def described(self) -> list[Section]:
        """Return files, mask values, sizes, formats, bad pairs and copies."""
        splits = self.splits
        rows: list[list[Cell]] = [
            [split.name, split.source, split.samples, split.bad_count] for split in splits
        ]
        notes = [*self.drawn_notes(), *unchecked_note(splits, "pairs", "--limit")]
        found = [Section("Files", ("split", "images", "pairs", "not usable"), rows, notes)]
        found += [self._values(), sizes_section(self.facts), formats_section(self.facts)]
        found += [section for section in (self.bad_rows(),) if section]
        return [*found, copies_section(splits, "images")]

    def _values(self) -> Section:
        """Return the values of the masks, with their share of the pixels and of the masks."""
        classes = self._class_list()
        seen = [value for value in range(_VALUES) if any(v[value] for v in self.values.values())]
        rows: list[list[Cell]] = []
        for value in seen[:_MOST_VALUES]:
            shares = [share(int(v[value]), int(v.sum())) for v in self.values.values()]
            masks = [int(m[value]) for m in self.masks.values()]
            rows.append([value, _class_of(value, classes), *shares, *masks])
        more = len(seen) - _MOST_VALUES
        notes = [f"and {more} more values"] if more > 0 else []
        found = {_class_of(value, classes) for value in seen}
        missing = [name for name in classes.names if name not in found]
        if missing:
            notes.append(f"no pixel of {shortened(missing)}")
        header = ["value", "class", *(f"{name} pixels" for name in self.values)]
        header += [f"{name} masks" for name in self.values]
        return Section(f"Mask values ({len(seen)})", header, rows, notes)

    def _class_list(self) -> "ClassList":
        from datamodules.masks.class_list import ClassList  # imports torch

        return ClassList.read(self.settings["class_list"]).mapped(self.settings["label_map"])


def _class_of(value: int, classes: "ClassList") -> str:
    """Return the class of a mask value, in words if it has none."""
    labels, fault = classes.decode(np.full((1, 1), value, np.uint8))
    if fault:
        return "not in the class list"
    label = int(labels[0, 0])
    return classes.names[label] if label < len(classes.names) else "unlabelled"


def _opened(pair: EncodedPair, split: str, classes: "ClassList") -> _Pair:
    """Read the header of an image, and its mask."""
    image = opened_image(pair.image.source)
    if image.fault:
        return _Pair(image, None, pair.image.fault(split, image.fault))
    try:
        values, _ = PairDecoding(MAX_PIXELS).check(pair.image.source, pair.annotation)
    except BadImageError as error:
        return _Pair(image, None, pair.annotation_fault(split, str(error)))
    _, fault = classes.decode(values)
    bad = pair.annotation_fault(split, fault) if fault else None
    return _Pair(image, np.bincount(values.ravel(), minlength=_VALUES), bad)
