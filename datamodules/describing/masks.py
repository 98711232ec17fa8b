"""Description of images with masks."""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

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
from datamodules.describing.sections import (
    Cell,
    Section,
    bad_rows_section,
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
        if self.question:
            return
        found = self.settings
        reader = SegmentationReader(
            found["images"], found["annotations"], found["image_suffix"],
            found["annotation_suffix"], found["image_column"], found["annotation_column"],
        )  # fmt: skip
        for split, name in self.files.items():
            facts = ImageFacts(SplitFacts(split, reader.place(name)))
            self.values[split] = np.zeros(_VALUES, np.int64)
            self.masks[split] = np.zeros(_VALUES, np.int64)
            pairs = reader.read(self.folder, name, split)
            total = sum(
                not isinstance(pair, BadRow) for pair in reader.read(self.folder, name, split)
            )
            self._open(facts, pairs, total)
            self.facts.append(facts)

    def _open(self, facts: ImageFacts, pairs: Iterable[EncodedPair | BadRow], total: int) -> None:
        """Count the pairs of a split, and open at most `limit` of them, evenly spread."""
        split, step = facts.split, max(1, -(-total // self.request.limit))
        decoding = PairDecoding(MAX_PIXELS)

        def chosen() -> Iterator[EncodedPair]:
            position = 0
            for pair in pairs:
                if isinstance(pair, BadRow):
                    split.add_bad(pair)
                    continue
                if position % step == 0:
                    yield pair
                else:
                    split.samples += 1
                    split.left_unchecked += 1
                position += 1

        found = in_threads(lambda pair: _opened(pair, split.name, decoding), chosen())
        for pair, result in tracked(found, f"opening {split.name}", total // step, "pairs"):
            if result.fault:
                split.add_bad(result.fault)
                continue
            split.samples += 1
            facts.add(pair.image, result.image)
            self.values[split.name] += result.values
            self.masks[split.name] += result.values > 0
        split.place = facts.names.__getitem__

    def sections(self) -> list[Section]:
        """Return files, mask values, sizes, formats, bad pairs and copies."""
        if self.question:
            return []
        splits = [facts.split for facts in self.facts]
        rows = [[split.name, split.source, split.samples, split.bad_count] for split in splits]
        notes = [*self.drawn_notes(), *unchecked_note(splits, "pairs", "--limit")]
        found = [Section("Files", ("split", "images", "pairs", "not usable"), rows, notes)]
        found += [self._values(), sizes_section(self.facts), formats_section(self.facts)]
        found += [section for section in (bad_rows_section(splits),) if section]
        return [*found, copies_section(splits, "images")]

    def _values(self) -> Section:
        """Return the values of the masks, with their share of the pixels and of the masks."""
        names = self._names()
        seen = [value for value in range(_VALUES) if any(v[value] for v in self.values.values())]
        rows: list[list[Cell]] = []
        for value in seen[:_MOST_VALUES]:
            shares = [share(int(v[value]), int(v.sum())) for v in self.values.values()]
            count = int(self.masks["train"][value])
            rows.append([value, names.get(value, "unlabelled"), *shares, count])
        more = len(seen) - _MOST_VALUES
        notes = [f"and {more} more values"] if more > 0 else []
        missing = [name for value, name in names.items() if value not in seen]
        if missing:
            notes.append(f"no pixel of {', '.join(missing[:8])}")
        header = ("value", "class", *(f"{name} pixels" for name in self.values), "train masks")
        return Section(f"Mask values ({len(seen)})", header, rows, notes)

    def _names(self) -> dict[int, str]:
        """Return the class of each mask value."""
        from datamodules.masks.class_list import ClassList  # imports torch

        classes = ClassList.read(self.settings["class_list"]).mapped(self.settings["label_map"])
        labels, _ = classes.decode(np.arange(_VALUES, dtype=np.uint8)[None])
        return {
            value: classes.names[label]
            for value, label in enumerate(labels[0].tolist())
            if label < len(classes.names)
        }


def _opened(pair: EncodedPair, split: str, decoding: PairDecoding) -> _Pair:
    image = opened_image(pair.image.source)
    if image.fault:
        return _Pair(image, None, pair.image.fault(split, image.fault))
    try:
        values, _ = decoding.check(pair.image.source, pair.annotation)
    except BadImageError as error:
        return _Pair(image, None, pair.annotation_fault(split, str(error)))
    return _Pair(image, np.bincount(values.ravel(), minlength=_VALUES), None)
