"""`thaw.Run`: the record of a run, and predictions of samples of a Python program."""

from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import thaw
from datamodules.image_samples import SAMPLE_CLASSES, sample_image
from run_folders.run_folder import RunFolder
from tests.thaw.runs import IMAGES, MASKS, TEXTS

COLUMNS = ["text", "prediction", "probability_fake", "probability_real"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def texts(place: Path) -> thaw.Run:
    return thaw.train(*TEXTS, f"hydra.run.dir={place / 'texts'}")


@pytest.fixture(scope="module")
def images(place: Path) -> thaw.Run:
    return thaw.train(*IMAGES, f"hydra.run.dir={place / 'images'}")


@pytest.fixture(scope="module")
def pixels() -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return [sample_image(label, rng) for label in range(3)]


def test_the_record_of_a_run(texts: thaw.Run) -> None:
    assert texts.metrics == RunFolder(texts.folder).read_json("metrics.json")
    assert list(texts.history["epoch"]) == [0]
    assert texts.history["val/acc"][0] == texts.metrics["best"]["score"]
    assert len(texts.predictions()) == len(texts.predictions("val")) == 12
    accuracy = f"{texts.metrics['test']['acc']:.4f}"
    assert repr(texts) == f"Run('{texts.folder}'), finished, test acc {accuracy} (n = 12)"
    with pytest.raises(thaw.UserError, match="has no predictions of 'train'; choose val or test"):
        texts.predictions("train")  # type: ignore[arg-type]


def test_the_page_is_shown_in_a_frame(texts: thaw.Run) -> None:
    (texts.folder / "report.html").unlink()
    shown = texts._repr_html_()
    assert shown.startswith('<iframe sandbox="allow-scripts" srcdoc="&lt;!doctype html&gt;')
    assert shown.count("<") == 2  # nothing of the page is outside of the attribute
    assert texts.report() == texts.folder / "report.html"


def test_the_task_has_the_best_weights_and_is_loaded_once(texts: thaw.Run) -> None:
    task = texts.task()
    best = torch.load(RunFolder(texts.folder).best_checkpoint, weights_only=True)["state_dict"]
    assert isinstance(task, thaw.TextClassifier)
    assert not task.training
    assert all(torch.equal(value, best[name]) for name, value in task.state_dict().items())
    assert texts.task() is task


def test_the_test_texts_are_predicted_as_recorded(texts: thaw.Run) -> None:
    recorded = texts.predictions()
    again = texts.predict(recorded["text"])
    assert list(again) == COLUMNS
    pd.testing.assert_frame_equal(again, recorded[COLUMNS], check_dtype=False, atol=1e-6)


def test_every_form_of_texts(texts: thaw.Run, tmp_path: Path) -> None:
    two = ["Masks work", "Garlic helps"]
    expected = texts.predict(two)
    assert list(expected["text"]) == two
    pd.testing.assert_frame_equal(texts.predict(two[0]), expected[:1])
    series = pd.Series(two, index=[7, 3])
    assert list(texts.predict(series).index) == [7, 3]
    table = pd.DataFrame({"id": pd.Categorical([1, 2]), "text": two}, index=[7, 3])
    assert list(texts.predict(table)) == ["id", *COLUMNS]
    assert texts.predict(table)["id"].equals(table["id"])
    assert list(texts.predict(table).index) == [7, 3]
    table.to_csv(tmp_path / "new.csv", index=False)
    file = texts.predict(tmp_path / "new.csv")
    assert list(file["prediction"]) == list(expected["prediction"])
    assert list(texts.predict([])) == COLUMNS
    assert len(texts.predict(np.array(two))) == 2


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["a", ""], "the input, row 2: column 'text' is empty"),
        ([None, 3], "row 2: column 'text' holds 3, which is int"),
        (3, "received 3; samples, or a list of samples, are needed"),
        (pd.DataFrame({"txt": ["a"]}), "has no column 'text', which the run reads; did you mean"),
        (pd.DataFrame({"text": ["a"], "prediction": [1]}), "there is a column prediction already"),
        (Path("none.csv"), "none.csv: no such file"),
    ],
)
def test_texts_that_cannot_be_predicted(texts: thaw.Run, inputs: Any, message: str) -> None:
    with pytest.raises(thaw.UserError, match=message):
        texts.predict(inputs)


def test_the_test_data_is_evaluated_again(texts: thaw.Run, tmp_path: Path) -> None:
    result = texts.evaluate()
    assert result == {name: texts.metrics["test"][name] for name in result}
    assert result["n"] == 12
    texts.predictions()[["text", "label"]].to_csv(tmp_path / "other.csv", index=False)
    other = texts.evaluate(tmp_path / "other.csv")
    assert other["acc"] == result["acc"]
    assert list((texts.folder / "evaluations").glob("other-*.json"))


def test_bad_rows_of_other_data_can_be_left_out(texts: thaw.Run, tmp_path: Path) -> None:
    table = texts.predictions()[["text", "label"]]
    table.loc[3, "label"] = "maybe"
    table.to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(thaw.UserError, match="in Python: on_bad_rows='skip'"):
        texts.evaluate(tmp_path / "bad.csv")
    assert texts.evaluate(tmp_path / "bad.csv", on_bad_rows="skip")["n"] == 11


def test_the_datamodule_has_the_settings_and_the_tokenizer_of_the_run(texts: thaw.Run) -> None:
    data = texts.datamodule()
    assert isinstance(data, thaw.SampleTextDataModule)
    assert not data.splits
    assert data.restored is not None
    data.setup()
    assert {name: len(split) for name, split in data.splits.items()} == {
        name: facts["rows"]
        for name, facts in RunFolder(texts.folder).read_json("provenance.json")["data"].items()
        if name != "overlaps"
    }
    trainer = lightning.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    result = trainer.test(texts.task(), data, verbose=False)[0]
    texts.task().eval()
    assert result["test/acc"] == pytest.approx(texts.metrics["test"]["acc"])


def test_every_form_of_images(
    images: thaw.Run, pixels: list[np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    pictures = [Image.fromarray(each) for each in pixels]
    expected = images.predict(pictures)
    assert list(expected) == ["image", "prediction", *(f"probability_{c}" for c in SAMPLE_CLASSES)]
    assert list(expected["image"]) == ["the input, row 1", "the input, row 2", "the input, row 3"]
    pd.testing.assert_frame_equal(images.predict(pixels), expected)
    pd.testing.assert_frame_equal(images.predict(np.stack(pixels)), expected)
    pd.testing.assert_frame_equal(images.predict(pictures[0]), expected[:1])
    pd.testing.assert_frame_equal(images.predict(pixels[0]), expected[:1])
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)
    probabilities = list(expected)[1:]
    for given in (paths, [str(path) for path in paths], tmp_path, [p.read_bytes() for p in paths]):
        again = images.predict(given)
        pd.testing.assert_frame_equal(again[probabilities], expected[probabilities])
    table = pd.DataFrame({"image": pictures, "id": [4, 5, 6]}, index=[1, 2, 3])
    assert list(images.predict(table))[:3] == ["image", "id", "prediction"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([Image.new("CMYK", (32, 32))], "row 1: received Image CMYK; an RGB image of Pillow"),
        ([np.zeros((32, 32, 3))], r"received ndarray float64; .* \[H, W, 3\] uint8, is needed"),
        ([3], "received int; an RGB image"),
        (["none.png"], "none.png: there is no file"),
        ([b"no image"], "the input, row 1: "),
    ],
)
def test_images_that_cannot_be_predicted(images: thaw.Run, inputs: Any, message: str) -> None:
    with pytest.raises(thaw.UserError, match=message):
        images.predict(inputs)


def test_an_image_of_pillow_is_turned_as_its_file_is(images: thaw.Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    picture, exif = Image.fromarray(sample_image(2, rng)), Image.Exif()
    exif[0x0112] = 6  # orientation: turned by 90 degrees
    picture.save(tmp_path / "turned.png", exif=exif)
    file = images.predict(tmp_path / "turned.png")
    with Image.open(tmp_path / "turned.png") as opened:
        pd.testing.assert_frame_equal(images.predict(opened).iloc[:, 1:], file.iloc[:, 1:])
    plain = images.predict(picture)
    assert not np.allclose(plain.iloc[0, 2:].astype(float), file.iloc[0, 2:].astype(float))


def test_masks_have_the_size_of_their_images(place: Path) -> None:
    run = thaw.train(*MASKS, f"hydra.run.dir={place / 'masks'}")
    wide, high = Image.new("RGB", (50, 20), "blue"), Image.new("RGB", (20, 30), "green")
    masks = run.predict([wide, high])
    assert [(mask.shape, mask.dtype) for mask in masks] == [
        ((20, 50), "uint8"),
        ((30, 20), "uint8"),
    ]
    assert max(mask.max() for mask in masks) < 5
    assert "test miou" in repr(run)
    with pytest.raises(thaw.UserError, match=r"row 1: received int"):
        run.predict([3])


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(thaw.UserError, match=f"{tmp_path} is no run folder: it has no status.json"):
        thaw.Run(tmp_path)


def test_runs_are_compared(texts: thaw.Run, images: thaw.Run, tmp_path: Path) -> None:
    del images
    page = thaw.compare(texts, texts.folder, output=tmp_path / "page.html")
    assert "<html" in page.read_text()
