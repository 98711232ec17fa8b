"""Prediction of new images with a run's best checkpoint, in batches."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from datamodules.batches import ImageBatch
from datamodules.images.content import file_fault, image_source, stored_path
from datamodules.images.decoding import Decoded
from datamodules.images.listing import Listing
from datamodules.images.rows import EncodedImage
from datamodules.images.storage import Decoding
from datamodules.images.storing import report_conversions
from datamodules.images.threads import in_threads
from datamodules.reading.errors import BadRow, check_count, raise_bad_rows
from datamodules.reading.formats import TableFormat
from datamodules.reading.progress import progress
from datamodules.reading.rows import PREDICTION_ADVICE
from datamodules.reading.tables import SUFFIXES as TABLES
from datamodules.reading.tables import read_rows
from datamodules.reading.text_rows import text_rows
from engine.prediction.table_writer import OutputColumns, TableWriter
from engine.trained_run import TrainedRun

ADVICE = "fix the file, or leave such images out with --on-bad-rows skip"
_BATCH = 64


def predict_images(
    run: TrainedRun,
    inputs: Sequence[Path],
    target: Path,
    column: str | None,
    on_bad_rows: Literal["error", "skip"],
    output: OutputColumns,
    table_format: TableFormat = TableFormat(),
) -> tuple[int, int]:
    """Predict images and write the predictions to a table.

    Args:
        run: A trained run of images.
        inputs: Images, folders of images, .txt with one path per line, or tables.
        target: The output file. Its columns are `image`, then those of the prediction.
        column: The column of the images in a table; None takes the run's.
        on_bad_rows: Stop at an image that cannot be read, or leave it out and count it.
        output: The columns of the prediction.
        table_format: Encoding, delimiter and quoting of a text file.

    Returns:
        The numbers of predicted and of left out images.

    Raises:
        DataError: If an image cannot be read.
        RunFolderError: If the output's format is unknown or cannot store the columns.
    """
    column = column or str(run.cfg.data.image_column)
    images = chain.from_iterable(images_of(path, column, table_format) for path in inputs)
    done = bad = 0
    with TableWriter(target) as writer, progress("predicting", unit="images") as advance:
        for rows, faults in predicted_images(run, images, output):
            if rows:  # written before an error is raised, so that no prediction is lost
                writer.write(rows)
            if on_bad_rows == "error":
                raise_bad_rows(faults, advice=ADVICE)
            done, bad = done + len(rows), bad + len(faults)
            advance(len(rows) + len(faults))
    return done, bad


def predicted_images(
    run: TrainedRun, images: Iterator[EncodedImage | BadRow], output: OutputColumns
) -> Iterator[tuple[list[dict[str, Any]], list[BadRow]]]:
    """Predict images in batches.

    Args:
        run: A trained run of images.
        images: The images, and what cannot be one.
        output: The columns of the prediction.

    Yields:
        For each batch the rows of a table, and the images that cannot be read.
    """
    height, width = run.data_state["size"]
    data: Any = run.cfg.data
    size = int(height), int(width)
    decoding = Decoding(data.max_pixels, size, convert=bool(data.get("convert")))
    conversions = Counter[str]()
    while chunk := list(islice(images, _BATCH)):
        faults = [row for row in chunk if isinstance(row, BadRow)]
        read = [image for image in chunk if not isinstance(image, BadRow)]
        good = []
        for image, pixels in in_threads(decoding.decode, read):
            if isinstance(pixels, Decoded):
                good.append((image, pixels.pixels))
                conversions.update(pixels.conversions)
            else:
                faults.append(image.fault("", str(pixels)))
        check_count("the input", len(chunk), len(good), len(faults))
        yield _predicted(run, good, output) if good else [], faults
    report_conversions("predict", conversions)


def images_of(
    path: Path,
    column: str,
    table_format: TableFormat = TableFormat(),
) -> Iterator[EncodedImage | BadRow]:
    """Yield the images of an input, and each file that cannot be one; labels are ignored.

    Args:
        path: An image, a folder of images, .txt with one path per line, or a table.
        column: The column of the images in a table: their content, or their paths relative to the
            folder of the table.
        table_format: Encoding, delimiter and quoting of a text file.

    Raises:
        DataError: If the input cannot be read.
    """
    if path.is_dir():
        listing = Listing()
        for i, file in enumerate(listing.walk(path)):
            image = EncodedImage(i, path / file.path, 0, str(path / file.path), None)
            yield image.fault("", file.fault) if file.fault else image
        listing.report(path)
    elif path.suffix.lower() == ".txt":
        for row in text_rows(path, column, table_format=table_format):
            if isinstance(row, BadRow):
                yield row
                continue
            name = row.values[column].strip()
            stored = stored_path(Path(name))
            image, fault = EncodedImage(row.index, stored, 0, name, None), file_fault(stored)
            yield image.fault("", fault) if fault else image
    elif path.suffix.lower() in TABLES:
        for row in read_rows(path, [column], advice=PREDICTION_ADVICE, table_format=table_format):
            if isinstance(row, BadRow):
                yield row
                continue
            source, fault = image_source(row.values, column, path.parent)
            if fault:
                yield BadRow("", path.name, row.index + 1, row.line, fault)
            else:
                yield EncodedImage(row.index, source, 0, path.name, row.index + 1)
    else:
        image, fault = EncodedImage(0, path, 0, str(path), None), file_fault(path)
        yield image.fault("", fault) if fault else image


def _predicted(
    run: TrainedRun,
    images: Sequence[tuple[EncodedImage, np.ndarray[Any, Any]]],
    output: OutputColumns,
) -> list[dict[str, Any]]:
    pixels = torch.from_numpy(np.stack([pixels for _, pixels in images])).permute(0, 3, 1, 2)
    unknown = torch.zeros(len(images), dtype=torch.int64)
    predictions = run.predict(ImageBatch(pixel_values=pixels, labels=unknown, index=unknown))
    found = zip(images, output.rows(predictions), strict=True)
    return [{"image": image.name, **added} for (image, _), added in found]
