"""The report of a segmentation run, written from its files."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lightning_modules.metrics.segmentation import per_class_metrics, segmentation_metrics
from reports.comparison import write_comparison
from reports.kinds.segmentation import class_rows, confusion_pairs, segmentation_pictures
from reports.page import write_report
from reports.record import read_run
from reports.statistics import mean_interval
from reports.triptychs import colorize, encoded, present, triptych
from run_folders.files import write_atomically
from run_folders.run_folder import RunFolder
from tests.reports.test_page import CHROMIUM, needs_chromium

pytestmark = pytest.mark.drawn

NAMES = ["sky & sea", "<b>wall</b>", "tree", "never"]
COLOURS = [(0, 0, 255), (200, 10, 10), (0, 120, 0), (9, 9, 9)]
CONFUSION = [[50, 3, 0, 0], [7, 20, 1, 0], [0, 8, 11, 0], [0, 0, 0, 0]]


def segmentation_run(path: Path, ious: list[float], experiment: str = "masks") -> Path:
    """Write a run folder as the engine does, without training."""
    folder = RunFolder(path / experiment / "2026-01-31_12-00-00")
    classes = per_class_metrics(CONFUSION)
    written = segmentation_metrics(CONFUSION)
    test = {
        "n": len(ious), "pixels": 100, "unlabelled_pixels": 8, **written, "loss": 0.5, "classes": NAMES,
        "colours": [list(colour) for colour in COLOURS], "absent": ["never"],
        "per_class": dict(zip(NAMES, classes, strict=True)), "confusion_matrix": CONFUSION,
    }  # fmt: skip
    best = {"epoch": 1, "monitor": "val/miou", "score": 0.5, "checkpoint": "checkpoints/best.ckpt"}
    metrics = {
        "val": {"n": 3, "miou": 0.5, "loss": 0.7}, "test": test, "best": best, "parameters": {"total": 9, "trainable": 9},
        "seconds": {"fit": 1.0, "test": 1.0, "epoch_mean": 0.5},
    }  # fmt: skip
    folder.write_json("metrics.json", metrics)
    folder.write_status("finished", "report")
    row = {
        "train/loss": "1",
        "train/miou": "0.4",
        "val/loss": "0.9",
        "val/miou": "0.3",
        "train/seconds": "0.5",
    }
    folder.write_history([{"epoch": str(epoch), **row} for epoch in range(2)])
    names = [f"images/<i>{i}</i>.jpg" for i in range(len(ious))]
    table = pd.DataFrame(
        {"index": range(len(ious)), "iou": ious, "pixel_acc": ious, "image": names}
    )
    write_atomically(folder.predictions, lambda file: table.to_parquet(file, index=False))
    picture = encoded(Image.fromarray(np.zeros((4, 6, 3), np.uint8)), "WEBP")
    shown = pd.DataFrame(
        {"index": [0, 1, 2], "picture": [picture] * 3, "group": ["best", "worst", "median"]}
    )
    write_atomically(folder.test_images, lambda file: shown.to_parquet(file, index=False))
    return folder.path


def test_page_is_self_contained_escaped_and_complete(tmp_path: Path) -> None:
    page = write_report(segmentation_run(tmp_path, [0.9, 0.1, 0.5])).read_text(encoding="utf-8")
    assert not re.search(r"<(?:link|script|img|iframe)[^>]*(?:src|href)=[\"'](?!data:)", page)
    assert "<b>wall</b>" not in page
    assert "images/<i>" not in page
    for part in (
        "test mean IoU", "test pixel accuracy", "test mean class accuracy", "n = 3 images", "100 labelled pixels of 3 images",
        "8 more are not labelled", "Frequency-weighted IoU", "1 classes occur neither as label nor as prediction", "Worst", "Median", "Best",
        "Most frequent confusions", "Confusion matrix, pixels", "Mean IoU", "sky &amp; sea", "data:image/webp;base64,",
    ):  # fmt: skip
        assert part in page, part
    assert page.index("Worst") < page.index("Median") < page.index("IoU <b>0.9000</b>")
    assert "Misclassified" not in page
    assert "Reliability" not in page


def test_classes_and_confusions(tmp_path: Path) -> None:
    run = read_run(segmentation_run(tmp_path, [0.9, 0.1, 0.5]))
    rows = class_rows(run)
    assert [row["name"] for row in rows] == ["sky & sea", "<b>wall</b>", "tree"]
    assert rows[0]["iou"] == pytest.approx(50 / 60)
    assert rows[0]["colour"] == "#0000ff"
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert [(r["label"], r["prediction"], r["pixels"]) for r in confusion_pairs(run)] == [
        ("tree", "<b>wall</b>", 8), ("<b>wall</b>", "sky & sea", 7), ("sky & sea", "<b>wall</b>", 3), ("<b>wall</b>", "tree", 1),
    ]  # fmt: skip
    assert confusion_pairs(run)[0]["share"] == pytest.approx(8 / 19)
    assert [(g["group"], [p["index"] for p in g["pictures"]]) for g in segmentation_pictures(run)] == [
        ("worst", [1]), ("median", [2]), ("best", [0]),
    ]  # fmt: skip


def test_interval_of_a_mean() -> None:
    values = pd.Series(np.random.default_rng(0).normal(0.5, 0.1, 400))
    low, high = mean_interval(values)  # type: ignore[misc]
    half = 1.96 * values.std() / np.sqrt(400)
    assert (low, high) == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=0.15 * half
    )
    assert mean_interval(pd.Series([0.5, float("nan")])) is None


def test_runs_are_compared_by_the_sign_test_on_their_images(tmp_path: Path) -> None:
    first = segmentation_run(tmp_path, [0.9, 0.1, 0.5, 0.5, 0.2, 0.3], "a")
    second = segmentation_run(tmp_path, [0.8, 0.3, 0.6, 0.5, 0.4, 0.4], "b")
    page = write_comparison([first, second], tmp_path / "page.html").read_text()
    cells = re.findall(r'<td class="n">([^<]*)</td>', page[page.index("Is the difference real?") :])
    assert cells == ["1", "4", "6", "0.375"]
    assert "mean IoU" in page
    assert "frequency-weighted IoU" in page
    assert "<svg" in page
    other = segmentation_run(tmp_path, [0.8, 0.3], "c")
    assert (
        "not the same test samples"
        in write_comparison([first, other], tmp_path / "page.html").read_text()
    )


@needs_chromium
def test_a_click_sorts_the_class_table(tmp_path: Path) -> None:
    page = write_report(segmentation_run(tmp_path, [0.9, 0.1, 0.5])).read_text(encoding="utf-8")
    clicks = """<script>
      const table = document.querySelector("table.sortable"), names = () => [...table.tBodies[0].rows].map(r => r.cells[0].dataset.value);
      const seen = [];
      for (const column of [1, 1, 0, 0, 3]) { table.tHead.rows[0].cells[column].querySelector("button").click(); seen.push(names()); }
      document.body.innerHTML = "<pre id=seen></pre>"; document.getElementById("seen").textContent = JSON.stringify(seen);
    </script>"""
    (tmp_path / "clicked.html").write_text(
        page.replace("</body>", clicks + "</body>"), encoding="utf-8"
    )
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--dump-dom",
        f"file://{tmp_path / 'clicked.html'}",
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r'<pre id="seen">(.*?)</pre>', dom)
    assert found
    seen = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    wall, sky = "<b>wall</b>", "sky & sea"
    assert seen == [
        [sky, "tree", wall],
        [wall, "tree", sky],
        [wall, sky, "tree"],
        ["tree", sky, wall],
        [sky, wall, "tree"],
    ]


def test_masks_are_drawn_in_the_colours_of_their_classes() -> None:
    labels = np.array([[0, 2, 255], [1, 1, 0]], np.uint8)
    assert colorize(labels, COLOURS).tolist() == [
        [list(COLOURS[0]), list(COLOURS[2]), [0, 0, 0]], [list(COLOURS[1]), list(COLOURS[1]), list(COLOURS[0])],
    ]  # fmt: skip
    assert present([labels, labels[1:]], 4) == [
        (1, pytest.approx(4 / 8)),
        (0, pytest.approx(3 / 8)),
        (2, pytest.approx(1 / 8)),
    ]


def test_a_triptych_shows_its_three_parts_and_a_legend() -> None:
    image = np.full((50, 300, 3), 77, np.uint8)
    prediction, annotation = np.zeros((50, 300), np.uint8), np.full((50, 300), 2, np.uint8)
    annotation[:, 200:] = 255
    picture = np.asarray(triptych(image, prediction, annotation, NAMES, COLOURS))
    assert picture.shape[1] == 3 * 300 + 4 * 8
    middle = picture[20 + 25]
    assert middle[8 + 150].tolist() == [77, 77, 77]
    assert middle[16 + 300 + 150].tolist() == list(COLOURS[0])
    assert middle[24 + 600 + 100].tolist() == list(COLOURS[2])
    assert middle[24 + 600 + 250].tolist() == [0, 0, 0]
    legend = picture[20 + 50 + 8 :].reshape(-1, 3).tolist()
    for colour, expected in (
        (COLOURS[0], True),
        (COLOURS[2], True),
        ((0, 0, 0), True),
        (COLOURS[1], False),
        (COLOURS[3], False),
    ):
        assert (list(colour) in legend) == expected, colour
    pair = triptych(image, prediction, None, NAMES, COLOURS)
    assert pair.width == 2 * 300 + 3 * 8


def test_large_images_are_scaled_down() -> None:
    picture = triptych(
        np.zeros((1200, 2000, 3), np.uint8),
        np.zeros((1200, 2000), np.uint8),
        None,
        NAMES,
        COLOURS,
        longest=500,
    )
    assert picture.width == 2 * 500 + 3 * 8
    assert 300 < picture.height < 400


def test_a_narrow_picture_is_widened_for_its_legend() -> None:
    labels = np.arange(4, dtype=np.uint8)[None].repeat(4, axis=0)
    picture = triptych(
        np.zeros((4, 4, 3), np.uint8), labels, labels, ["a long name of a class"] * 4, COLOURS
    )
    assert picture.width >= 3 * 240
    assert picture.height > 240
