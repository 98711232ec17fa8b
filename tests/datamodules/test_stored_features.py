"""Features on disk: read back as written, padded, complete or absent, and limited in size."""

import logging
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.batching import stored_features
from datamodules.batching.stored_features import (
    FeatureSplit,
    Layout,
    StoredFeatures,
    digest_of_tensors,
)
from engine.feature_cache import store as feature_store
from engine.feature_cache.store import FeatureStore, StoreError, format_bytes
from tests.conftest import ROOT

LENGTHS = np.asarray([3, 1, 4, 2])


def token_features(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [
        torch.arange(n * 2).view(n, 2).to(dtype) + 100 * i + 1
        for i, n in enumerate(LENGTHS.tolist())
    ]


def fill(out: StoredFeatures) -> None:
    """Write padded batches in another order, with nonzero padding."""
    features = token_features(out.values.dtype)
    for positions in ([2, 0], [3], [1]):
        longest = max(len(features[p]) for p in positions)
        padded = torch.full((len(positions), longest + 1, 2), -7.0).to(out.values.dtype)
        for row, p in enumerate(positions):
            padded[row, : len(features[p])] = features[p]
        out.put(torch.tensor(positions), 0, padded)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_token_features_are_padded_with_zeros(dtype: torch.dtype, tmp_path: Path) -> None:
    layout = Layout(dtype, (2,), 4, lengths=LENGTHS)
    assert layout.bytes == 10 * 2 * dtype.itemsize
    stored, found = FeatureStore(tmp_path, 10**6).get("k", layout, fill)
    again, found_again = FeatureStore(tmp_path, 10**6).get(
        "k", layout, lambda _: pytest.fail("computed twice")
    )
    assert (found, found_again) == (False, True)
    for each in (stored, again):
        values, lengths = each.take(torch.tensor([1, 3, 0]))
        assert lengths is not None
        assert lengths.tolist() == [1, 2, 3]
        assert (values.shape, values.dtype) == ((3, 3, 2), dtype)
        for row, position in enumerate((1, 3, 0)):
            expected = token_features(dtype)[position]
            assert torch.equal(values[row, : len(expected)], expected)
            assert not values[row, len(expected) :].any()
    assert len(stored) == 4


def test_training_chooses_views_by_epoch_and_evaluation_returns_all() -> None:
    values = torch.arange(12.0).view(6, 2)
    split = FeatureSplit(
        StoredFeatures(values, views=2),
        [0, 1, 2],
        [10, 20, 30],
        lambda epoch, index: (index // 10 + epoch) % 2,
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


def test_digest_depends_on_types_shapes_and_bytes() -> None:
    tensors = [
        torch.zeros(2, 3),
        torch.zeros(3, 2),
        torch.zeros(6),
        torch.zeros(6, dtype=torch.int32),
        torch.ones(6),
    ]
    assert len({digest_of_tensors([tensor]) for tensor in tensors}) == len(tensors)
    assert digest_of_tensors([], "a") != digest_of_tensors([], "b")
    transposed = torch.arange(6.0).view(2, 3).t()
    assert digest_of_tensors([transposed]) == digest_of_tensors([transposed.contiguous()])


def layout_of(count: int) -> Layout:
    return Layout(torch.float32, (25,), count)  # 100 bytes a sample


def ones(out: StoredFeatures) -> None:
    out.values.fill_(1)


def test_unreadable_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", denied)
    with pytest.raises(StoreError, match=r"cannot be used .*Permission denied.*; set cache\.dir"):
        _ = "k" in FeatureStore(tmp_path, 10**6)


def test_lack_of_space_is_reported_with_sizes_and_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FeatureStore(tmp_path, 30_000_000)
    clear = rf"free space \(python scripts/cache\.py list\|clear --dir {tmp_path}\)"
    with pytest.raises(
        StoreError,
        match=rf"take 0\.04 GB, and .* holds 0\.00 MB of the 0\.03 GB .*cache\.max_gb.*{clear}",
    ):
        store.get("large", layout_of(400_000), ones)
    assert not list(tmp_path.iterdir())
    store.get("first", layout_of(200_000), ones)
    with pytest.raises(
        StoreError,
        match=r"take 0\.02 GB, and .* holds 0\.02 GB of the 0\.03 GB .*; raise cache\.max_gb",
    ):
        store.get("second", layout_of(200_000), ones)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stored_features.os, "posix_fallocate", full)
    usage = type("Usage", (), {"free": 10})()
    monkeypatch.setattr(feature_store.shutil, "disk_usage", lambda _: usage)
    for _ in range(2):
        with pytest.raises(
            StoreError,
            match=rf"take 0\.10 MB, and the disk of .* has 0\.00 MB left .*No space left.*{clear}",
        ):
            store.get("small", layout_of(1000), ones)
        monkeypatch.delattr(stored_features.os, "posix_fallocate", raising=False)  # as on macOS
    assert {path.name for path in tmp_path.iterdir()} == {"first"}


def test_the_limit_applies_only_to_new_entries(tmp_path: Path) -> None:
    FeatureStore(tmp_path, 10**6).get("a", layout_of(10), ones)
    small = FeatureStore(tmp_path, 1500)
    small.check_limit({"a": 9999})
    small.check_limit(
        {"a": 1000, "b": 500}
    )  # another process may have written `a` since this one was planned
    (tmp_path / "b.partial").mkdir()
    (tmp_path / "b.partial" / "values.bin").write_bytes(b"x" * 500)
    small.check_limit({"a": 1000, "b": 500})
    with pytest.raises(StoreError, match=r"cache\.max_gb"):
        small.check_limit({"a": 1000, "b": 501})
    with pytest.raises(StoreError, match=r"cache\.max_gb"):
        small.check_limit({"a": 1000, "c": 500})


def test_the_limit_does_not_count_a_damaged_entry_that_is_replaced(tmp_path: Path) -> None:
    layout = layout_of(10)
    FeatureStore(tmp_path, 10**6).get("a", layout, ones)
    (tmp_path / "a" / "entry.json").write_text("{}")
    stored, found = FeatureStore(tmp_path, layout.bytes).get("a", layout, ones)
    assert not found
    assert stored.values.all()


def test_files_of_a_killed_process_are_removed_when_its_entry_is_computed_again(
    tmp_path: Path,
) -> None:
    (tmp_path / "k.lock").touch()
    (tmp_path / "k.partial").mkdir()
    (tmp_path / "k.partial" / "values.bin").write_bytes(b"x" * 1000)
    layout = layout_of(2)
    FeatureStore(tmp_path, layout.bytes).get("k", layout, ones)
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_the_lock_is_released_when_its_process_dies(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from engine.feature_cache.store import FeatureStore\n"
        "class Layout:\n"
        "    bytes = 8\n"
        "    def create(self, folder): (folder / 'values.bin').touch()\n"
        "    def open(self, *_, shared): os._exit('torch' in sys.modules or 9)\n"
        "FeatureStore(Path(sys.argv[1]), 10**6).get('k', Layout(), None)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False
        ).returncode
        == 9
    )
    assert {path.name for path in tmp_path.iterdir()} == {"k.lock", "k.partial"}
    FeatureStore(tmp_path, 10**6).get("k", layout_of(2), ones)
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_a_run_logs_that_it_waits_and_reads_the_entry_of_the_other_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    store, waiting = FeatureStore(tmp_path, 10**6), threading.Event()
    found: list[bool] = []

    class Seen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            waiting.set()

    other = threading.Thread(target=lambda: found.append(store.get("k", layout_of(2), ones)[1]))

    def fill_while_another_waits(out: StoredFeatures) -> None:
        other.start()
        assert waiting.wait(60)
        ones(out)

    handler = Seen()
    feature_store.log.addHandler(handler)
    try:
        store.get("k", layout_of(2), fill_while_another_waits)
        other.join(60)
    finally:
        feature_store.log.removeHandler(handler)
    assert found == [True]
    assert caplog.messages == ["waiting for another run that computes the same features (k)"]
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_open_features_remain_readable_after_the_folder_is_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    stored, _ = FeatureStore(folder, 10**6).get("k", layout_of(2), ones)
    shutil.rmtree(folder)
    assert stored.take(torch.tensor([1]))[0].tolist() == [[1.0] * 25]
    assert FeatureStore(folder, 10**6).get("k", layout_of(2), ones)[1] is False


def test_unwritable_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        StoreError,
        match=r"file/c cannot be used .*; set cache\.dir to a writable folder",
    ):
        FeatureStore(tmp_path / "file" / "c", 10**6).get("k", layout_of(1), ones)


def test_an_interrupted_computation_leaves_no_files(tmp_path: Path) -> None:
    def interrupted(_: StoredFeatures) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FeatureStore(tmp_path, 10**6).get("k", layout_of(2), interrupted)
    assert not list(tmp_path.iterdir())


def test_sizes_are_formatted_with_units() -> None:
    assert (format_bytes(1_234_567), format_bytes(20_000_000_000)) == ("1.23 MB", "20.00 GB")
