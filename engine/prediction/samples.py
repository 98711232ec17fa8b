"""Prediction of samples that a Python program passes: texts, images, tables and paths."""

import io
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from datamodules.images.decoding import BadImageError
from datamodules.images.rows import EncodedImage
from datamodules.masks.decoding import PairDecoding
from datamodules.reading.errors import BadRow, DataError, raise_bad_rows
from datamodules.reading.rows import Row
from datamodules.reading.text_rows import usable_rows
from engine.prediction.images import images_of, predicted_images
from engine.prediction.masks import Pixels, predicted_labels
from engine.prediction.table_writer import OutputColumns
from engine.prediction.texts import TextPredictor, rows_of
from engine.trained_run import TrainedRun
from run_folders.errors import nearest

_ADVICE = "mend them, or leave them out"
_NAME = "the input"
_CHUNK = 4096  # texts at a time
_BATCH = 4  # images that are segmented at a time
_IMAGE_AXES = 3  # of an array that is one image


def predicted_texts(run: TrainedRun, inputs: Any, output: OutputColumns) -> pd.DataFrame:  # noqa: ANN401
    """Predict texts.

    Args:
        run: A trained run of texts.
        inputs: A text, a sequence or a Series of texts, a DataFrame with the run's text column, or
            the `Path` of a file of texts.
        output: The columns of the prediction.

    Returns:
        The texts, or the columns of the table, followed by the columns of the prediction.

    Raises:
        DataError: If a text is missing, or a file cannot be read.
    """
    column, predictor = str(run.cfg.data.text_column), TextPredictor(run)
    rows = _text_rows(inputs, column)
    done: list[dict[str, Any]] = []
    while chunk := list(islice(rows, _CHUNK)):
        good, faults = usable_rows(chunk, column, _NAME)
        raise_bad_rows(faults, advice=_ADVICE)
        done += predictor.rows(good, column, output, _NAME)
    return _table(done, inputs, column, output)


def _text_rows(inputs: Any, column: str) -> Iterator[Row | BadRow]:  # noqa: ANN401
    if isinstance(inputs, pd.DataFrame):
        _check_column(inputs, column)
        records = inputs.to_dict("records")
        yield from (Row(i, None, dict(values)) for i, values in enumerate(records))  # type: ignore[arg-type]
        return
    for i, item in enumerate(_items(inputs)):
        if isinstance(item, Path):
            if not item.exists():
                msg = f"{item}: no such file"
                raise DataError(msg)
            yield from rows_of(item, column)
        else:
            yield Row(i, None, {column: item})


def predicted_pictures(run: TrainedRun, inputs: Any, output: OutputColumns) -> pd.DataFrame:  # noqa: ANN401
    """Predict images.

    Args:
        run: A trained run of images.
        inputs: An image, or a sequence of images: of Pillow, arrays [H, W, 3] uint8, the content of
            files, or paths of images, folders, lists and tables. Or a DataFrame with them in the
            run's image column.
        output: The columns of the prediction.

    Returns:
        The names of the images, or the columns of the table, followed by the columns of the
        prediction.

    Raises:
        DataError: If an image cannot be read.
    """
    done: list[dict[str, Any]] = []
    for rows, faults in predicted_images(run, _images(run, inputs), output):
        raise_bad_rows(faults, advice=_ADVICE)
        done += rows
    return _table(done, inputs, "image", output)


def predicted_masks(run: TrainedRun, inputs: Any) -> list[Pixels]:  # noqa: ANN401
    """Predict the masks of images, each at the size of its image.

    Args:
        run: A trained run of a segmenter.
        inputs: Images; see `predicted_pictures`.

    Returns:
        The number of the class of each pixel, [H, W] uint8 each.

    Raises:
        DataError: If an image cannot be read.
    """
    data: Any = run.cfg.data
    convert, orientation = bool(data.get("convert")), data.get("mask_orientation")
    decoding = PairDecoding(data.max_pixels, convert, orientation)
    images = _images(run, inputs)
    masks: list[Pixels] = []
    while chunk := list(islice(images, _BATCH)):
        pixels = []
        for image in chunk:
            raise_bad_rows([image] if isinstance(image, BadRow) else [], advice=_ADVICE)
            assert isinstance(image, EncodedImage)  # noqa: S101 - tells the type checker
            try:
                pixels.append(decoding.decode_image(image.source).pixels)
            except BadImageError as error:
                raise_bad_rows([image.fault("", str(error))], advice=_ADVICE)
        masks += predicted_labels(run, pixels)
    return masks


def _images(run: TrainedRun, inputs: Any) -> Iterator[EncodedImage | BadRow]:  # noqa: ANN401
    column = str(run.cfg.data.image_column)
    if isinstance(inputs, pd.DataFrame):
        _check_column(inputs, column)
        inputs = inputs[column]
    for i, item in enumerate(_items(inputs)):
        if isinstance(item, str | Path):
            yield from images_of(Path(item), column)
        else:
            yield _encoded(item, i)


def _encoded(item: Any, index: int) -> EncodedImage | BadRow:  # noqa: ANN401
    """Return an image as the content of a file, so that it is read like any other."""
    if isinstance(item, bytes):
        return EncodedImage(index, item, 0, _NAME, index + 1)
    try:
        picture = item if isinstance(item, Image.Image) else Image.fromarray(item)
        content = io.BytesIO()
        # With its EXIF data, so that it is turned as the same image in a file is.
        picture.save(content, "PNG", exif=picture.getexif(), compress_level=1)
    except (AttributeError, TypeError, ValueError, OSError):
        kind = f"{type(item).__name__} {getattr(item, 'mode', getattr(item, 'dtype', ''))}".strip()
        reason = f"received {kind}; an RGB image of Pillow, or an array [H, W, 3] uint8, is needed"
        return BadRow("", _NAME, index + 1, None, reason)
    return EncodedImage(index, content.getvalue(), 0, _NAME, index + 1)


def _items(inputs: Any) -> Iterable[Any]:  # noqa: ANN401
    """Return the samples: one that is passed alone, or those of a sequence."""
    single = isinstance(inputs, str | bytes | Path | Image.Image)
    if single or (isinstance(inputs, np.ndarray) and inputs.ndim == _IMAGE_AXES):
        return [inputs]
    if not isinstance(inputs, Iterable):
        msg = f"received {inputs!r}; samples, or a list of samples, are needed"
        raise DataError(msg)
    return inputs


def _check_column(inputs: pd.DataFrame, column: str) -> None:
    if column not in inputs:
        near = nearest(column, map(str, inputs.columns))
        msg = f"the DataFrame has no column {column!r}, which the run reads; {near}"
        raise DataError(msg)


def _table(
    rows: list[dict[str, Any]],
    inputs: Any,  # noqa: ANN401
    name: str,
    output: OutputColumns,
) -> pd.DataFrame:
    """Return rows as a table, or a DataFrame of inputs with the columns of the prediction."""
    columns = [name, *output.types]
    if isinstance(inputs, pd.DataFrame):
        if len(rows) != len(inputs):
            msg = f"{len(inputs)} rows have {len(rows)} samples; each row of a DataFrame needs one"
            raise DataError(msg)
        added = pd.DataFrame(rows, inputs.index, columns)
        return inputs.assign(**{key: added[key] for key in output.types})
    indexed = isinstance(inputs, pd.Series) and len(inputs) == len(rows)
    return pd.DataFrame(rows, inputs.index if indexed else None, None if rows else columns)
