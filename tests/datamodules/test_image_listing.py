"""The lister of image files: each file is used, named with a reason, or counted."""

import os
import socket
from collections import Counter
from pathlib import Path

import pytest

from datamodules.image import ImageDataModule
from datamodules.images.listing import Listing
from datamodules.images.rows import EncodedImage, image_source
from datamodules.reading.errors import DataError
from tests.images import HEIC, encoded, picture


def files(folder: Path) -> dict[str, str]:
    """The files that the lister returns: path -> fault."""
    listing = Listing()
    found = {file.path: file.fault for file in listing.walk(folder)}
    listing.report(folder)  # the counts agree
    return found


def write(folder: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(picture("red", seed)))


def test_links_are_followed_once_and_cycles_end(tmp_path: Path) -> None:
    red, outside = tmp_path / "train" / "red", tmp_path / "elsewhere"
    write(red, "a.png", "deep/b.png")
    write(outside, "c.png", "more/d.png")
    (red / "linked").symlink_to(outside)
    (red / "linked_too").symlink_to(outside / "more")
    (red / "file.png").symlink_to(outside / "c.png")
    (red / "deep" / "here").symlink_to(red)
    (red / "deep" / "up").symlink_to(tmp_path)
    (outside / "back").symlink_to(outside)
    (outside / "more" / "into").symlink_to(red / "deep")
    (red / "itself").symlink_to("itself")
    (red / "broken.png").symlink_to(tmp_path / "nothing.png")
    listing = Listing()
    found = {file.path: file.fault for file in listing.walk(red)}
    assert [path for path, fault in found.items() if not fault] == [
        "a.png", "deep/b.png", "file.png", "linked/c.png", "linked/more/d.png",
    ]  # fmt: skip
    assert listing.not_followed == [
        "deep/here", "linked/back", "linked/more/into", "linked_too",
    ]  # fmt: skip
    assert (
        found["deep/up"]
        == f"is a link to {tmp_path}, which contains the link; link to folders in it"
    )
    assert found["broken.png"] == f"is a link to {tmp_path / 'nothing.png'}, which does not exist"
    assert found["itself"]
    assert listing.found == listing.named == 8


def test_empty_folders_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "a.png")
    for name in ("below/empty", ".hidden", "@eaDir"):
        (tmp_path / name).mkdir(parents=True)
    with caplog.at_level("INFO"):
        assert files(tmp_path) == {"a.png": ""}
    assert f"{tmp_path}: 2 folders are empty (.hidden, below/empty)" in caplog.text


def test_a_class_folder_may_be_a_link(tmp_path: Path) -> None:
    write(tmp_path / "photos", "a.png")
    (tmp_path / "red").symlink_to(tmp_path / "photos")
    assert files(tmp_path / "red") == {"a.png": ""}


def test_files_of_systems_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(
        tmp_path, "a.png", "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", "@eaDir/b.png/THUMB.jpg", "Thumbs.db",
        "deep/thumbs.db", ".DS_Store", "desktop.ini", "__MACOSX/red/._a.png", "._a.png", ".Trash-1000/b.png",
    )  # fmt: skip
    listing = Listing()
    with caplog.at_level("INFO"):
        assert [file.path for file in listing.walk(tmp_path)] == ["a.png"]
        listing.report("train")
    assert listing.passed_over == Counter(
        {"@eaDir": 2, "Thumbs.db": 1, "thumbs.db": 1, ".DS_Store": 1, "desktop.ini": 1, "__MACOSX": 1, "._*": 1, ".trash-*": 1}
    )  # fmt: skip
    assert (listing.found, listing.named) == (10, 1)
    assert (
        "train: passed over 9 files of operating systems, file servers or tools (@eaDir: 2, "
        in caplog.text
    )


def test_what_is_no_file_is_named_and_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s.png"))
    write(tmp_path, ".hidden.png", ".store/a.png")
    assert files(tmp_path) == {
        ".hidden.png": "is hidden: its name begins with a dot; rename or remove it",
        ".store/a.png": "is in a hidden folder; rename or remove the folder",
        "pipe.png": "is not a file but a pipe, socket or device",
        "s.png": "is not a file but a pipe, socket or device",
    }


def test_the_order_is_that_of_paths(tmp_path: Path) -> None:
    names = ["b.png", "a/z.png", "a.png", "a-b/c.png", "A.png", "a/b/c.png", "ä.png"]
    write(tmp_path, *names)
    assert list(files(tmp_path)) == [path.as_posix() for path in sorted(map(Path, names))]


def module(root: Path, **settings: object) -> ImageDataModule:
    values = {
        "folder": "", "files": {"train": "train", "val": None, "test": "test"}, "classes": ["red", "blue"], "num_classes": 2,
        "data_dir": str(root), "size": 16, "val_fraction": 0.2,
    }  # fmt: skip
    return ImageDataModule(**{**values, **settings})  # type: ignore[arg-type]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with two classes of five training images."""
    for place, split in enumerate(("train", "test")):
        for offset, name in enumerate(("red", "blue")):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(5):
                content = encoded(picture(name, 100 * place + 10 * offset + i))
                (tmp_path / split / name / f"{i}.png").write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("in_memory", [True, False])
def test_every_file_of_a_class_folder_is_used_or_named(in_memory: bool, root: Path) -> None:
    red = root / "train" / "red"
    (red / "photo.JPG").write_bytes(encoded(picture("red", 50), "JPEG"))
    (red / "photo.jfif").write_bytes(encoded(picture("red", 51), "JPEG"))
    (red / "photo").write_bytes(encoded(picture("red", 52), "WEBP"))
    (red / "wrong.txt").write_bytes(encoded(picture("red", 53), "BMP"))
    (red / "photo.heic").write_bytes(HEIC)
    (red / "README.txt").write_text("hello")
    (red / "empty.png").touch()
    (red / ".a.png").write_bytes(encoded(picture("red", 54)))
    (red / "broken.png").symlink_to("nothing")
    (red / "Thumbs.db").write_bytes(b"x")
    (root / "train" / "notes.txt").write_text("hello")
    (root / "train" / "gone").symlink_to("nowhere")
    data = module(root, in_memory=in_memory, on_bad_rows="skip")
    data.setup()
    assert len(data.splits["train"]) + len(data.splits["val"]) == 10 + 4
    reasons = {row.file: row.reason for row in data.bad_rows}
    assert reasons == {
        "train/notes.txt": "is not in a class folder, so its class is not known",
        "train/gone": "is a link to nowhere, which does not exist",
        "train/red/photo.heic": "is a HEIC file, for which Thaw has no decoder; save it as PNG or JPEG",
        "train/red/README.txt": "is not a readable image: it begins with b'hello'",
        "train/red/empty.png": "is empty (0 bytes)",
        "train/red/.a.png": "is hidden: its name begins with a dot; rename or remove it",
        "train/red/broken.png": "is a link to nothing, which does not exist",
    }
    with pytest.raises(DataError, match="7 bad rows"):
        module(root, in_memory=in_memory, check=True).setup()


def test_without_a_check_no_image_is_opened_before_it_is_read(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "train" / "red" / "0.png").write_bytes(b"nothing")
    opened: list[object] = []
    for name in ("decode_image", "check_image"):
        monkeypatch.setattr(f"datamodules.images.storage.{name}", lambda *a, **_: opened.append(a))
    monkeypatch.setattr("datamodules.images.storing.read_with_digest", opened.append)
    data = module(root, in_memory=False)
    with caplog.at_level("INFO"):
        data.setup()
        before = data.describe()["train"]["sha256"]
    assert not opened
    assert len(data.splits["train"]) + len(data.splits["val"]) == 10
    assert "data.check=false: images are checked when they are read" in caplog.text
    (root / "train" / "red" / "0.png").write_bytes(b"nothing else")
    changed = module(root, in_memory=False)
    changed.setup()
    assert changed.describe()["train"]["sha256"] != before


def test_a_name_of_a_class_in_another_normal_form_is_found(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / split / "Ba\u0308r", "a.png", "b.png")
        write(tmp_path / split / "Hase", "c.png", "d.png")
    data = module(tmp_path, classes=["Hase", "B\u00e4r"], val_fraction=0.5)
    data.setup()
    assert sorted(data.splits["train"].labels) == [0, 1]


def test_two_folders_of_a_class_in_two_normal_forms_are_refused(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / split / "Ba\u0308r", "a.png")
        write(tmp_path / split / "B\u00e4r", "b.png")
        write(tmp_path / split / "Hase", "c.png")
    with pytest.raises(DataError, match=r"'Ba\\u0308r' and 'B\\xe4r' are the same name"):
        module(tmp_path, classes=["Hase", "B\u00e4r"]).setup()


def test_the_order_of_class_names_is_that_of_the_config(root: Path) -> None:
    plain, turned = module(root), module(root, classes=["blue", "red"])
    for data in (plain, turned):
        data.setup()
    for data in (plain, turned):
        test = data.splits["test"]
        names = [test.encoded.name(position) for position in range(len(test))]
        assert [data.class_names[label] for label in test.labels] == [
            name.split("/")[1] for name in names
        ]


def test_an_image_in_two_training_classes_is_reported(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    same = (root / "train" / "red" / "1.png").read_bytes()
    (root / "train" / "blue" / "copy.png").write_bytes(same)
    (root / "train" / "red" / "again.png").write_bytes(same)
    files = {"train": "train", "val": "test", "test": "test"}
    module(root, files=files).setup()
    assert (
        "1 image has more than one label in train, for example: "
        "train/red/1.png = train/blue/copy.png" in caplog.text
    )


def test_a_file_that_is_neither_used_nor_left_out_is_a_bug(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datamodules.images.storing._Kept.add", lambda *_: False)
    with pytest.raises(RuntimeError, match="train has 10 rows, but 0 were used and 0 reported"):
        module(root).setup()
    listing = Listing()
    list(listing.walk(root))
    listing.found += 1
    with pytest.raises(RuntimeError, match="21 files, 20 returned, 0 passed over"):
        listing.report("train")


def test_encoded_rows_equal_the_images(tmp_path: Path) -> None:
    from datamodules.images.encoded_rows import EncodedRows

    images = [
        EncodedImage(0, b"x", 1, "t.parquet", 1),
        EncodedImage(4, tmp_path / "a.png", (0.0, 1.0), "a.png", None),
    ]
    rows, bad = EncodedRows.gather(images)
    assert [rows[p] for p in range(2)] == images
    assert not bad
    assert [rows.name(p) for p in range(2)] == [image.name for image in images]
    taken = rows.take([1, 0, 1])
    assert [taken[p] for p in range(3)] == [images[1], images[0], images[1]]


def test_a_path_in_a_table_in_another_normal_form_is_found(tmp_path: Path) -> None:
    write(tmp_path, "Ba\u0308r.png")
    source, fault = image_source({"image": "B\u00e4r.png"}, "image", tmp_path)
    assert (source, fault) == (tmp_path / "Ba\u0308r.png", "")
    assert image_source({"image": "a.png"}, "image", tmp_path)[1].startswith("there is no file")
