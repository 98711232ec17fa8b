"""Weights, tokenizers, images and class lists that are hostile or damaged are one line."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import reports.tables
import run_folders.memory
from datamodules.images.decoding import BadImageError, check_image, decode_image
from datamodules.masks.class_list import ClassList
from datamodules.texts.tokenizing import load_tokenizer
from lightning_modules.networks.backbones.features import BackboneError
from lightning_modules.networks.backbones.image import image_encoder
from reports.tables import read_parquet
from run_folders.memory import check_archive, check_model_folder, free_memory
from run_folders.untrusted import DamagedFileError, read_yaml
from tests.attacks import inputs as at

OTHER_WEIGHTS = "no usable weights of this network"
WEIGHTS = {
    "code.pth": (at.pickled, "other content than tensors and plain values, which could run code"),
    "lfs.pth": (at.text("version https://git-lfs.github.com/spec/v1\n"), "or not a file that torch.save writes: Unsupported operand 118"),
    "page.pth": (at.text("<!doctype html>"), "or not a file that torch.save writes: Unsupported operand 60"),
    "list.pth": (at.saved([1]), OTHER_WEIGHTS),
    "shapes.pth": (at.saved({"stem.weight": torch.zeros(2)}), OTHER_WEIGHTS),
    "text.pth": (at.text("hello"), OTHER_WEIGHTS),
    "empty.safetensors": (at.raw(b""), OTHER_WEIGHTS),
    "long.safetensors": (at.safetensors(b"{}", 2**60), OTHER_WEIGHTS),
    "json.safetensors": (at.safetensors(b"{no json"), OTHER_WEIGHTS),
    "deep.safetensors": (at.safetensors(b"[" * 10000), OTHER_WEIGHTS),
    "outside.safetensors": (
        at.safetensors(
            json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
        ),
        OTHER_WEIGHTS,
    ),
    "overflow.safetensors": (
        at.safetensors(
            json.dumps({"a": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 4]}}).encode(),
            data=b"1234",
        ),
        OTHER_WEIGHTS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WEIGHTS)
def test_hostile_weights_are_one_line(name: str, tmp_path: Path) -> None:
    change, line = WEIGHTS[name]
    path = tmp_path / name
    change(path)
    with pytest.raises(BackboneError, match=line) as caught:
        image_encoder({"architecture": "small_resnet"}, weights=str(path), image_size=None)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch's text says how to run the code


def test_an_archive_that_unpacks_to_more_than_the_free_memory_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.pth"
    at.zipped({"archive/data.pkl": bytes(2**23)})(path)
    check_archive(path, "advice")
    monkeypatch.setattr(run_folders.memory, "free_memory", lambda: 2**22)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    line = (
        f"{path} is {path.stat().st_size:,} bytes, but unpacks to 8,388,608 bytes, more than the "
        f"4,194,304 bytes of free memory; take the weights from another source"
    )
    with pytest.raises(DamagedFileError) as caught:
        image_encoder({"architecture": "small_resnet"}, weights=str(path), image_size=None)
    assert str(caught.value) == line
    folder = tmp_path / "folder"
    folder.mkdir()
    path.rename(folder / "pytorch_model.bin")
    with pytest.raises(DamagedFileError, match=r"pytorch_model\.bin is .* unpacks to 8,388,608"):
        check_model_folder(folder)
    (folder / "pytorch_model.bin").rename(folder / "optimizer.pt")  # nobody loads it
    (folder / "x.json").symlink_to(folder / "nothing")
    os.mkfifo(folder / "pytorch_model.bin")
    check_model_folder(folder)


def test_the_free_memory_is_that_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert free_memory() > 2**20
    monkeypatch.setattr(run_folders.memory, "_CGROUP", tmp_path)
    (tmp_path / "memory").mkdir()
    parts = "anon 100000\nactive_file 300000\ninactive_file 600000\n"
    for limit, used, stat in run_folders.memory._LIMITS:
        (tmp_path / limit).write_text("3000000\n")
        (tmp_path / used).write_text("1000000\n")
        (tmp_path / stat).write_text(parts)
        assert free_memory() == 2_900_000  # the content of files in memory can be dropped
        (tmp_path / limit).write_text("max\n")
        assert free_memory() > 2_900_000


def test_a_table_that_shares_its_values_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, count = tmp_path / "test.parquet", 100
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), ["x" * 2**20])
    pq.write_table(pa.table({"text": texts}), path, store_schema=False)
    assert path.stat().st_size < 2**20
    assert len(read_parquet(path)) == count
    monkeypatch.setattr(reports.tables, "free_memory", lambda: 2**26)
    with pytest.raises(DamagedFileError, match="more memory than the 67,108,864 bytes"):
        read_parquet(path)


@pytest.mark.parametrize("content", ["", "{}", "[" * 10000, '{"model": 1}', '{"version": "1.0"}'])
def test_a_damaged_tokenizer_is_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(Exception, match=str(tmp_path)) as caught:
        load_tokenizer(str(tmp_path))
    assert type(caught.value).__name__ == "DataError"
    assert "\n" not in str(caught.value)


def test_a_huge_tokenizer_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folders.memory, "MAX_JSON", 1000)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"a": "x" * 2000}))
    with pytest.raises(DamagedFileError, match=r"tokenizer\.json is damaged: .* 1,000 bytes"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("read", [decode_image, check_image])
@pytest.mark.parametrize(
    ("size", "line"),
    [
        ((20_000, 5_000), "is 20000 x 5000 pixels, more than data.max_pixels=50000000 in all"),
        ((60_000, 60_000), "is too large: Image size (3600000000 pixels) exceeds limit"),
        ((2**31 - 1, 2**31 - 1), "is too large: Image size"),
    ],
)
def test_an_image_that_claims_too_many_pixels_is_not_decoded(
    read: object, size: tuple[int, int], line: str, tmp_path: Path
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(at.png(*size))
    with pytest.raises(BadImageError) as caught:
        read(path, 50_000_000)  # type: ignore[operator]
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize("content", [at.BOMB, "a: [1", "\x00", "a: !!python/name:os.system"])
def test_a_hostile_class_list_is_one_line(content: str, tmp_path: Path) -> None:
    path = tmp_path / "classes.yaml"
    path.write_text(content)
    with pytest.raises(DamagedFileError, match=rf"{path} is damaged: .*; correct the class list"):
        ClassList.read(str(path))


@pytest.mark.parametrize("value", ["!!bool maybe", '!!int ""', "!!timestamp foo", "!!float [1]"])
def test_a_yaml_value_of_another_type_than_its_tag_is_one_line(value: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"a: {value}\n")
    with pytest.raises(DamagedFileError, match=f"{path} is damaged: "):
        read_yaml(path)
