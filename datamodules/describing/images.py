"""Description of images with labels, in class folders or tables."""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from datamodules.describing.base import Description
from datamodules.describing.sampling import count_samples, evenly_spread
from datamodules.describing.sections import (
    Cell,
    Lengths,
    Section,
    classes_section,
    copies_section,
    unchecked_note,
)
from datamodules.describing.several_labels import guess_labels
from datamodules.describing.split_facts import SplitFacts
from datamodules.images.content import read_with_digest
from datamodules.images.decoding import (
    BadImageError,
    check_image,
    open_checked,
    opened,
    pillow_errors,
)
from datamodules.images.rows import EncodedImage, ImageReader
from datamodules.images.threads import in_threads
from datamodules.inferring.findings import Finding
from datamodules.inferring.folders.images import infer_images
from datamodules.reading.errors import BadRow
from datamodules.reading.label_settings import label_reader
from datamodules.reading.progress import tracked
from datamodules.reading.sources import AUTO_FILES
from datamodules.reading.texts import Texts

MAX_PIXELS = 50_000_000  # larger images are not decoded, as in training
# Suffix of a file -> the format that it promises.
_FORMAT_OF = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP",
              ".gif": "GIF", ".tif": "TIFF", ".tiff": "TIFF"}  # fmt: skip
_KEY = 8  # bytes of a digest that identify an image here
_MOST_FORMATS = 12  # rows of the table of formats


class Opened(NamedTuple):
    """An image of which the header was read.

    Attributes:
        size: Height and width, as viewers show it.
        mode: Pillow's mode, such as RGB.
        format: Format of its content, such as PNG.
        key: A number that stands for its content.
        fault: Why it cannot be used; empty if it can.
    """

    size: tuple[int, int]
    mode: str
    format: str
    key: int
    fault: str


@dataclass
class ImageFacts:
    """Facts about the images of a split.

    Attributes:
        split: Facts that all kinds of data have.
        widths, heights: Of the opened images.
        formats: Suffix, format and mode -> number of images.
        names: Name of each opened image.
    """

    split: SplitFacts
    widths: "array[int]" = field(default_factory=lambda: array("q"))
    heights: "array[int]" = field(default_factory=lambda: array("q"))
    formats: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    names: Texts = field(default_factory=Texts)

    def add(self, image: EncodedImage, found: Opened) -> None:
        """Count an opened image."""
        self.heights.append(found.size[0])
        self.widths.append(found.size[1])
        path = image.source
        suffix = path.suffix.lower() if isinstance(path, Path) else "in a table"
        self.formats[suffix or "none", found.format, found.mode] += 1
        self.names.append(image.name)
        self.split.compare(found.key, image.label)


class ImageDescription(Description):
    """Images with one label each.

    Attributes:
        facts: Facts about each split.
    """

    facts: list[ImageFacts]
    template = "image"
    what = "images with one label each"
    open_settings: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "files": AUTO_FILES, "hub": None, "classes": None, "num_classes": None,
            "image_column": None, "label_column": None, "label_separator": None, "label_map": None,
            "group_column": None, "test_fraction": None, "delimiter": None, "quoting": None,
            "encoding": None,
        }
    )  # fmt: skip

    def infer(self, settings: Mapping[str, Any]) -> list[Finding]:
        """Return what the folder or the tables decide, as in training."""
        return infer_images(settings)

    def read(self) -> None:
        """List all images, and open some or all of each split."""
        found = self.settings
        labels = label_reader(
            found["label_column"], found["label_separator"], found["classes"], found["label_map"]
        )
        reader = ImageReader(found["image_column"], labels, found["classes"], root=self.folder)
        self.facts = []
        for split, name in self.files.items():
            path = self.folder / name
            source = self.folder.name if name == "." else name
            read = partial(reader.read, path, split, table_format=self.table_format)
            facts = ImageFacts(SplitFacts(split, source))
            self._open(facts, read(), count_samples(path, read))
            self.facts.append(facts)

    def _open(self, facts: ImageFacts, images: Iterable[EncodedImage | BadRow], total: int) -> None:
        """Count the images of a split, and open at most `limit` of them."""
        split, step = facts.split, max(1, -(-total // self.request.limit))
        chosen = evenly_spread(images, step, split, lambda image: split.add_label(image.label))
        found = in_threads(lambda image: opened_image(image.source), chosen)
        for image, result in tracked(found, f"opening {split.name}", total // step, "images"):
            if result.fault:
                split.add_bad(image.fault(split.name, result.fault))
                continue
            split.add_label(image.label)
            facts.add(image, result)
        split.place = facts.names.__getitem__

    def described(self) -> list[Section]:
        """Return files, classes, sizes, formats, bad images and copies."""
        splits = self.splits
        rows: list[list[Cell]] = [
            [split.name, split.source, split.samples, split.bad_count] for split in splits
        ]
        notes = [*self.drawn_notes(), *unchecked_note(splits, "images", "--limit")]
        files = Section("Files", ("split", "from", "images", "not usable"), rows, notes)
        found = [files, classes_section(splits, self.settings["classes"])]
        found += [sizes_section(self.facts), formats_section(self.facts)]
        found += [section for section in (self.bad_rows(),) if section]
        return [*found, copies_section(splits, "images")]


class MultilabelImageDescription(ImageDescription):
    """Images with several labels each."""

    template = "multilabel_image"
    what = "images with several labels each"

    def guess(self) -> dict[str, Any]:
        """Return the columns of the labels, or what separates them."""
        return guess_labels(self.request.path)


def opened_image(source: bytes | Path) -> Opened:
    """Read the header of an image, and check it as training does without converting it."""
    size, mode, kind, key = (0, 0), "", "", 0
    try:
        try:
            content, digest = read_with_digest(source)
        except OSError as error:
            with opened(source):  # its error says what is wrong
                raise BadImageError(str(error)) from error
        key = int.from_bytes(digest[:_KEY], "little", signed=True)
        with opened(content) as file, pillow_errors():
            image, _ = open_checked(file, MAX_PIXELS)
            mode, kind = image.mode, "JPEG" if image.format == "MPO" else str(image.format)
            size = (image.height, image.width)
        size = check_image(content, MAX_PIXELS).size
    except BadImageError as error:
        hint = "; data.convert=true converts it" if error.convertible else ""
        return Opened(size, mode, kind, key, f"{error}{hint}")
    return Opened(size, mode, kind, key, "")


def sizes_section(facts: Iterable[ImageFacts]) -> Section:
    """Return the sizes of the images in pixels."""
    rows: list[list[Cell]] = []
    for split in facts:
        if split.widths:
            rows.append([split.split.name, "width", *Lengths.of(split.widths)])
            rows.append([split.split.name, "height", *Lengths.of(split.heights)])
    header = ("split", "pixels", "smallest", "median", "95 %", "largest")
    return Section("Sizes", header, rows)


def formats_section(facts: Iterable[ImageFacts]) -> Section:
    """Return suffixes, formats and modes, and the files whose suffix promises another format."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for split in facts:
        counts.update(split.formats)
    rows: list[list[Cell]] = [[*key, n] for key, n in counts.most_common(_MOST_FORMATS)]
    wrong = Counter(
        {
            (suffix, kind): n
            for (suffix, kind, _), n in counts.items()
            if _FORMAT_OF.get(suffix, kind) != kind
        }
    )
    notes = [
        f"{n:,} {'file is' if n == 1 else 'files are'} called {suffix}, with the content of {kind}"
        for (suffix, kind), n in wrong.items()
    ]
    return Section("Formats", ("suffix", "content", "mode", "images"), rows, notes)
