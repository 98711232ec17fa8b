"""Prediction and evaluation of images, from the run folder alone."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.torch import save_file

from datamodules.reading.errors import BadRow, DataError
from datamodules.reading.formats import TableFormat
from engine.evaluation import evaluate, evaluate_on
from engine.predict import predict
from engine.prediction.images import images_of
from lightning_modules.networks.backbones.image import image_encoder
from run_folders.run_folder import RunFolder
from tests.conftest import Train
from tests.images import BAD_IMAGES, COLOURS, HEIC, encoded, image_folder, picture, write_parquet
from tests.processes import run
from tests.turning import SHOWN, stored, tagged

CLASSES = list(COLOURS)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a moved run, whose initial weights were deleted."""
    root = tmp_path_factory.mktemp("images")
    image_folder(root / "data" / "colours", {"train": 9, "val": 3, "test": 4})
    weights = root / "weights.safetensors"
    network = image_encoder(
        {"architecture": "small_resnet", "widths": [8, 8], "depth": 1}, None, None
    ).model
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, weights)
    overrides = [
        "data=image", "data.folder=colours", f"data.classes=[{','.join(CLASSES)}]",
        "data.num_classes=5", "data.size=16", "model=sample_image_classifier", "model.backbone.widths=[8,8]",
        "model.image_size=24", f"model.weights={weights}", "data.batch_size=8", "trainer.max_epochs=3", "trainer.accelerator=cpu",
        f"paths.data_dir={root / 'data'}", f"hydra.run.dir={root / 'run'}",
    ]  # fmt: skip
    code, _, errors = run(*overrides, cwd=root)
    assert code == 0, errors
    (root / "run").rename(root / "moved")
    weights.unlink()
    return root


def test_predictions_on_the_test_images_equal_those_of_the_run(root: Path, tmp_path: Path) -> None:
    expected = pd.read_parquet(RunFolder(root / "moved").predictions)
    arguments = (
        root / "moved",
        root / "data" / "colours" / "test",
        "-o",
        tmp_path / "out.csv",
        "--device",
        "cpu",
    )
    code, out, errors = run(*arguments, program="scripts/predict.py", cwd=tmp_path)
    assert code == 0, errors
    assert "20 predicted, 0 left out" in errors
    assert out.strip() == str(tmp_path / "out.csv")
    table = pd.read_csv(tmp_path / "out.csv")
    assert list(table) == ["image", "prediction", *(f"probability_{name}" for name in CLASSES)]
    table["image"] = [f"test/{Path(name).parent.name}/{Path(name).name}" for name in table["image"]]
    both = expected.merge(table, on="image", suffixes=("", "_now"))
    assert len(both) == 20
    assert (both["prediction"] == both["prediction_now"]).all()
    for name in CLASSES:
        assert both[f"probability_{name}"].to_numpy() == pytest.approx(
            both[f"probability_{name}_now"].to_numpy(), abs=1e-6
        )


def test_a_list_a_table_and_single_images(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    big = picture(
        "blue", 3, (90, 60)
    )  # another size than the training images; cropped and resized like them
    big.save(tmp_path / "big.png")
    picture("red", 1).save(tmp_path / "small.jpg")
    (tmp_path / "list.txt").write_text("big.png\n\nsmall.jpg\n")
    write_parquet(tmp_path / "table.parquet", [encoded(big), encoded(picture("red", 1))], [0, 0])
    run = root / "moved"
    with pytest.raises(DataError, match=r"list\.txt, row 2: the line is empty"):
        predict(run, [Path("list.txt")], device="cpu")
    assert predict(run, [Path("list.txt")], on_bad_rows="skip", device="cpu") == Path(
        "list.predictions.csv"
    )
    listed = pd.read_csv("list.predictions.csv")
    assert listed["image"].tolist() == ["big.png", "small.jpg"]
    predict(run, [Path("big.png"), Path("small.jpg")], Path("two.parquet"), device="cpu")
    assert pd.read_parquet("two.parquet")["prediction"].tolist() == listed["prediction"].tolist()
    with pytest.raises(DataError, match=r"no column 'image'; it has img, label"):
        predict(run, [Path("table.parquet")], Path("no.csv"), device="cpu")
    pd.read_parquet("table.parquet").rename(columns={"img": "image"}).to_parquet("named.parquet")
    predict(run, [Path("named.parquet")], Path("rows.csv"), device="cpu")
    assert pd.read_csv("rows.csv")["image"].tolist() == [
        "named.parquet, row 1",
        "named.parquet, row 2",
    ]


def test_bad_images_stop_or_are_counted_and_predictions_are_kept(
    root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    picture("red", 1).save(folder / "a.png")
    (folder / "b.png").write_bytes(b"nothing")
    picture("blue", 1).save(folder / "c.png")
    with pytest.raises(
        DataError, match=r"b\.png: is not a readable image.*--on-bad-rows skip"
    ) as caught:
        predict(root / "moved", [folder], tmp_path / "out.csv", device="cpu")
    assert any(str(tmp_path / "out.partial.csv") in note for note in caught.value.__notes__)
    assert len(pd.read_csv(tmp_path / "out.partial.csv")) == 2
    predict(root / "moved", [folder], tmp_path / "out.csv", on_bad_rows="skip", device="cpu")
    assert len(pd.read_csv(tmp_path / "out.csv")) == 2
    (tmp_path / "list.txt").write_text(f"{folder / 'a.png'}\n{folder / 'z.png'}\n")
    with pytest.raises(DataError, match=r"z\.png: there is no file; fix"):
        predict(root / "moved", [tmp_path / "list.txt"], tmp_path / "list.csv", device="cpu")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"none: nothing to predict \(0 left out\)"):
        predict(root / "moved", [tmp_path / "none"], tmp_path / "none.csv", device="cpu")


def test_every_file_of_a_folder_is_predicted_or_named(
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.JPG").write_bytes(encoded(picture("red", 1), "JPEG"))
    (folder / "b.jfif").write_bytes(encoded(picture("red", 2), "JPEG"))
    (tmp_path / "more").mkdir()
    picture("blue", 1).save(tmp_path / "more" / "c.png")
    (folder / "linked").symlink_to(tmp_path / "more")
    (folder / "circle").symlink_to(folder)
    (folder / "d.heic").write_bytes(HEIC)
    (folder / "notes.txt").write_text("hello")
    (folder / ".hidden.png").write_bytes(encoded(picture("red", 3)))
    (folder / "gone.png").symlink_to("nothing")
    (folder / "transparent.png").write_bytes(BAD_IMAGES["transparent.png"][0])
    os.mkfifo(folder / "pipe.png")
    (folder / "Thumbs.db").write_bytes(b"x")
    with pytest.raises(DataError, match=r"6 bad rows; fix") as caught:
        predict(root / "moved", [folder], tmp_path / "out.csv", device="cpu")
    assert f"{folder / 'd.heic'}: is a HEIC file, for which Thaw has no decoder; save" in str(
        caught.value
    )
    with caplog.at_level("INFO"):
        predict(root / "moved", [folder], tmp_path / "out.csv", on_bad_rows="skip", device="cpu")
    assert "3 predicted, 6 left out" in capsys.readouterr().err
    assert [Path(name).name for name in pd.read_csv(tmp_path / "out.csv")["image"]] == [
        "a.JPG",
        "b.jfif",
        "c.png",
    ]
    assert (
        "passed over 1 file of operating systems, file servers or tools (Thumbs.db" in caplog.text
    )


def test_a_run_that_converts_images_predicts_them_converted(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = shutil.copytree(root / "moved", tmp_path / "run")
    config = (run / "config.yaml").read_text()
    assert "  convert: false\n" in config
    (run / "config.yaml").write_text(config.replace("  convert: false\n", "  convert: true\n"))
    content = BAD_IMAGES["transparent.png"][0]
    (tmp_path / "a.png").write_bytes(content)
    white = Image.new("RGBA", (20, 16), "white")
    shown = Image.alpha_composite(white, Image.open(io.BytesIO(content))).convert("RGB")
    shown.save(tmp_path / "b.png")
    with caplog.at_level("INFO"):
        predict(run, [tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "c.jsonl", device="cpu")
    assert "predict: data.convert=true converted images: 1 transparent onto white" in caplog.text
    table = pd.read_json(tmp_path / "c.jsonl", lines=True).filter(like="probability")
    assert table.iloc[0].to_numpy() == pytest.approx(table.iloc[1].to_numpy(), abs=1e-6)


@pytest.mark.parametrize("orientation", SHOWN)
def test_images_are_predicted_as_viewers_show_them(
    orientation: int, root: Path, tmp_path: Path
) -> None:
    shown = np.hstack([np.asarray(picture(colour, 5, (20, 30))) for colour in ("red", "blue")])
    shown[20:] //= 4
    (tmp_path / "a.png").write_bytes(tagged(stored(shown, orientation), orientation))
    Image.fromarray(shown).save(tmp_path / "b.png")
    inputs = [tmp_path / "a.png", tmp_path / "b.png"]
    predict(root / "moved", inputs, tmp_path / "c.jsonl", device="cpu")
    table = pd.read_json(tmp_path / "c.jsonl", lines=True).filter(like="probability")
    assert table.iloc[0].to_numpy() == pytest.approx(table.iloc[1].to_numpy(), abs=1e-6)


def test_evaluation_reproduces_every_metric(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(root / "moved", None) == 0
    assert "all metrics equal metrics.json" in capsys.readouterr().out
    data = shutil.copytree(root / "data", tmp_path / "data")
    (data / "colours" / "test" / "red" / "0.png").unlink()
    with pytest.raises(ValueError, match=r"the test split is not the one"):
        evaluate(root / "moved", str(data))


def test_report_shows_images_of_each_class_and_misclassified_images(root: Path) -> None:
    folder = RunFolder(shutil.copytree(root / "moved", root / "page"))
    from reports.mistakes import misclassified_pictures
    from reports.page import write_report
    from reports.record import read_run

    table = pd.read_parquet(folder.predictions)
    table.loc[0, ["prediction", "probability_green"]] = ["green", 0.91]
    table.loc[1, ["prediction", "probability_blue"]] = ["blue", 0.97]
    table.to_parquet(folder.predictions, index=False)
    shown = misclassified_pictures(read_run(folder.path))
    confidences = [row["confidence"] for row in shown]
    assert confidences == sorted(confidences, reverse=True)
    assert {(row["label"], row["prediction"]) for row in shown} >= {
        ("red", "blue"),
        ("red", "green"),
    }
    page = write_report(folder.path).read_text(encoding="utf-8")
    assert page.count('<img src="data:image/png;base64,') == 5 * 4 + len(shown)
    assert "Test samples of each class" in page
    assert "Seconds of training" in page
    assert "red → <b>blue</b> 0.9700" in page
    assert page.index("→ <b>blue</b> 0.9700") < page.index("→ <b>green</b> 0.9100")


def test_other_images_have_the_size_of_the_run(train: Train, tmp_path: Path) -> None:
    """`data.size=null` keeps the size of the training images; other images are resized to it."""
    ended = train(
        "experiment=sample_images", "data.rows={train: 60, val: 20, test: 30}", "trainer.max_epochs=1",
        "model.backbone.widths=[8,8]",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    names = ["disc", "ring"]
    for i, (name, size) in enumerate(
        zip(names * 3, [(96, 80), (40, 40), (32, 64)] * 2, strict=True)
    ):
        (tmp_path / "other" / name).mkdir(parents=True, exist_ok=True)
        picture("red", i, size).save(tmp_path / "other" / name / f"{i}.png")
    rows = [
        {"image": f"{name}/{file.name}", "label": name}
        for name in names
        for file in sorted((tmp_path / "other" / name).iterdir())
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "other" / "table.csv", index=False)
    result = evaluate_on(ended.folder, tmp_path / "other" / "table.csv")
    tested = pd.read_parquet(result.with_suffix(".parquet"))
    out = predict(
        ended.folder, [tmp_path / "other" / "table.csv"], tmp_path / "out.csv", device="cpu"
    )
    assert pd.read_csv(out)["prediction"].tolist() == tested["prediction"].tolist()
    with pytest.raises(DataError, match="there is no folder for this class"):
        evaluate_on(ended.folder, tmp_path / "other")  # it has no folders of the other classes


@pytest.mark.parametrize("name", ["list.txt", "table.csv"])
def test_a_list_in_another_encoding_names_the_option_of_the_command_line(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"image\n" + "Привет.png\n".encode("cp1251"))
    rows = images_of(tmp_path / name, "image", TableFormat(option="--"))
    faults = [row.reason for row in rows if isinstance(row, BadRow)]
    assert faults[-1].endswith("is not UTF-8: byte 0xCF; if that is wrong, set --encoding NAME")
    (tmp_path / name).write_bytes("image\na.png\n".encode("utf-16")[:-1])
    with pytest.raises(DataError, match=r"is not valid UTF-16: .*, or set --encoding NAME$"):
        list(images_of(tmp_path / name, "image", TableFormat(option="--")))
