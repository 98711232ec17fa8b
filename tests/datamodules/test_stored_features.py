"""Features on disk: read as they were written, padded, whole or not there, and no more of them than is allowed."""

import gc
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import feature_store
from datamodules.feature_room import StoreError, gigabytes
from datamodules.feature_store import FeatureStore, Layout
from datamodules.stored_features import FeatureSplit, StoredFeatures, digest_of_tensors

LENGTHS = np.asarray([3, 1, 4, 2])


def states_of_tokens(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [torch.arange(n * 2).view(n, 2).to(dtype) + 100 * i + 1 for i, n in enumerate(LENGTHS.tolist())]


def fill(out: StoredFeatures) -> None:
    """As a network would: padded batches in an order of their own, with numbers behind the lengths."""
    states = states_of_tokens(out.values.dtype)
    for positions in ([2, 0], [3], [1]):
        longest = max(len(states[p]) for p in positions)
        padded = torch.full((len(positions), longest + 1, 2), -7.0).to(out.values.dtype)
        for row, p in enumerate(positions):
            padded[row, : len(states[p])] = states[p]
        out.put(torch.tensor(positions), 0, padded)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_token_states_come_back_padded_with_zeros(dtype: torch.dtype, tmp_path: Path) -> None:
    layout = Layout(dtype, (2,), 4, lengths=LENGTHS)
    assert layout.bytes == 10 * 2 * dtype.itemsize
    stored, found = FeatureStore(tmp_path, 10**6).get("k", layout, fill)
    again, found_again = FeatureStore(tmp_path, 10**6).get("k", layout, lambda _: pytest.fail("computed twice"))
    assert (found, found_again) == (False, True)
    for each in (stored, again):
        values, lengths = each.take(torch.tensor([1, 3, 0]))
        assert lengths is not None
        assert lengths.tolist() == [1, 2, 3]
        assert (values.shape, values.dtype) == ((3, 3, 2), dtype)
        for row, position in enumerate((1, 3, 0)):
            expected = states_of_tokens(dtype)[position]
            assert torch.equal(values[row, : len(expected)], expected)
            assert not values[row, len(expected) :].any()
    assert len(stored) == 4


def test_states_are_chosen_by_epoch_and_stand_side_by_side_in_evaluation() -> None:
    values = torch.arange(12.0).view(6, 2)
    split = FeatureSplit(
        StoredFeatures(values, states=2), [0, 1, 2], [10, 20, 30], lambda epoch, index: (index // 10 + epoch) % 2
    )
    assert len(split.stored) == 3
    trained = split.__getitems__([(1, 2), (1, 1)])
    assert trained["index"].tolist() == [30, 20]
    assert trained["labels"].tolist() == [2, 1]
    assert trained["features"].tolist() == [values[2].tolist(), values[3 + 1].tolist()]
    assert "mirrored" not in trained
    evaluated = split.__getitems__([2, 1])
    assert evaluated["features"].tolist() == values[[2, 1]].tolist()
    assert evaluated["mirrored"].tolist() == values[[5, 4]].tolist()
    assert split.batch([2, 1], 0)["features"].tolist() == [values[5].tolist(), values[1].tolist()]


def test_token_states_of_several_batches_are_each_padded_to_their_own_longest() -> None:
    split = FeatureSplit(
        StoredFeatures(torch.cat(states_of_tokens()), lengths=torch.from_numpy(LENGTHS)), [0, 1, 0, 1], [5, 6, 7, 8]
    )
    together = split.__getitems__([[2, 0], [3, 1]])
    assert together["batch_sizes"] == [2, 2]
    assert together["index"].tolist() == [7, 5, 8, 6]
    assert together["labels"].tolist() == [0, 0, 1, 1]
    assert together["lengths"].tolist() == [4, 3, 2, 1]
    for batch, positions in zip(together["features"], ([2, 0], [3, 1]), strict=True):
        assert torch.equal(batch, split.batch(positions)["features"])


def test_digest_tells_types_shapes_and_bytes_apart() -> None:
    tensors = [torch.zeros(2, 3), torch.zeros(3, 2), torch.zeros(6), torch.zeros(6, dtype=torch.int32), torch.ones(6)]
    assert len({digest_of_tensors([tensor]) for tensor in tensors}) == len(tensors)
    assert digest_of_tensors([], "a") != digest_of_tensors([], "b")
    turned = torch.arange(6.0).view(2, 3).t()
    assert digest_of_tensors([turned]) == digest_of_tensors([turned.contiguous()])


def layout_of(count: int) -> Layout:
    return Layout(torch.float32, (25,), count)  # 100 bytes a sample


def ones(out: StoredFeatures) -> None:
    out.values.fill_(1)


def entries(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("*/entry.json")}


def aged(folder: Path, key: str, seconds: int) -> None:
    os.utime(folder / key / "entry.json", (seconds, seconds))


def test_what_was_used_least_recently_makes_room_and_what_is_used_stays(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 4600)  # entry.json takes some too
    for age, key in enumerate("abcd"):
        store.get(key, layout_of(10), ones)
        aged(tmp_path, key, age + 1)
    held, _ = store.get("a", layout_of(10), ones)
    aged(tmp_path, "a", 1)
    store.get("e", layout_of(10), ones)
    assert entries(tmp_path) == {"a", "c", "d", "e"}
    del held
    store.get("f", layout_of(10), ones)
    assert entries(tmp_path) == {"c", "d", "e", "f"}


def test_what_an_ended_job_of_this_process_left_makes_room(tmp_path: Path) -> None:
    layout = Layout(torch.float32, (2,), 4, lengths=LENGTHS)
    store = FeatureStore(tmp_path, layout.bytes + 1000)
    loop: list[object] = [store.get("a", layout, fill)[0]]
    loop.append(loop)  # as trainer, task and loaders hold each other
    store = FeatureStore(tmp_path, sum(path.stat().st_size for path in (tmp_path / "a").iterdir()) + layout.bytes - 1)
    gc.disable()
    try:
        del loop
        store.get("b", layout, fill)
    finally:
        gc.enable()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b"]


def test_folder_that_nobody_may_look_into_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", denied)
    with pytest.raises(StoreError, match=r"cannot be used .*Permission denied.*; set cache\.dir"):
        _ = "k" in FeatureStore(tmp_path, 10**6)


def test_no_room_is_told_with_size_and_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FeatureStore(tmp_path, 30_000_000)
    with pytest.raises(StoreError, match=r"take 0\.04 GB, and cache\.max_gb allows 0\.03 GB"):
        store.get("large", layout_of(400_000), ones)
    held, _ = store.get("held", layout_of(200_000), ones)
    with pytest.raises(StoreError, match=r"cache\.max_gb allows 0\.03 GB for all, and other runs use 0\.02 GB"):
        store.get("second", layout_of(200_000), ones)
    assert held.values.all()
    monkeypatch.setattr(feature_store.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(StoreError, match=r"has 0\.00 MB left"):
        store.get("small", layout_of(1000), ones)
    monkeypatch.undo()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(feature_store.os, "posix_fallocate", full)
    with pytest.raises(StoreError, match="has no room for them"):
        store.get("small", layout_of(1000), ones)
    assert {path.name for path in tmp_path.iterdir()} == {"held"}


def test_what_a_killed_process_left_is_removed_and_what_one_writes_is_not(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 10**6)
    (tmp_path / "dead.partial").mkdir(parents=True)
    (tmp_path / "dead.partial" / "values.bin").write_bytes(b"x" * 1000)

    def while_another_begins(out: StoredFeatures) -> None:
        assert not (tmp_path / "dead.partial").exists()
        store.get("other", layout_of(1), ones)
        assert (tmp_path / "writing.partial").is_dir()
        ones(out)

    store.get("writing", layout_of(2), while_another_begins)
    assert {path.name for path in tmp_path.iterdir()} == {"writing", "other"}


def test_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/c cannot be used .*; set cache\.dir to a folder that can be written"):
        FeatureStore(tmp_path / "file" / "c", 10**6).get("k", layout_of(1), ones)


def failing(_: StoredFeatures) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("compute", [failing])
def test_an_interrupted_computation_leaves_nothing(compute: Callable[[StoredFeatures], None], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        FeatureStore(tmp_path, 10**6).get("k", layout_of(2), compute)
    assert not list(tmp_path.iterdir())


def test_sizes_for_a_person() -> None:
    assert (gigabytes(1_234_567), gigabytes(20_000_000_000)) == ("1.23 MB", "20.00 GB")
