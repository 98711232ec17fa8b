"""TensorBoard loads a run and shows it in a browser."""

import contextlib
import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import SAMPLE, Train
from tests.reports.test_page import CHROMIUM, needs_chromium


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Run TensorBoard on a folder of runs; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        str(folder),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    process = subprocess.Popen(
        [*command, "--load_fast=false"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
        while not loaded_runs(f"{address}/data/runs"):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


def loaded_runs(address: str) -> list[str]:
    """The runs that TensorBoard has read so far."""
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return list(json.load(answer))
    except OSError:
        return []


@needs_chromium
def test_a_browser_shows_the_run(train: Train, tmp_path: Path) -> None:
    ended = train(*SAMPLE, "logger=tensorboard", folder=tmp_path / "runs" / "sample_text" / "now")
    assert ended.code == 0, ended.err
    with served(tmp_path / "runs") as address:
        assert loaded_runs(f"{address}/data/runs") == ["sample_text/now/tensorboard"]
        with urllib.request.urlopen(f"{address}/data/plugin/timeseries/tags", timeout=30) as answer:
            tags = json.load(answer)["scalars"]["runTagInfo"]["sample_text/now/tensorboard"]
        assert {"val/acc", "step/grad_norm", "lr/head", "test/acc"} <= set(tags)
        profile = f"--user-data-dir={tmp_path / 'browser'}"
        shown = ("sample_text/now/tensorboard", "step/grad_norm")
        for budget in (
            20_000,
            60_000,
            180_000,
        ):  # milliseconds for the page; a busy server answers late
            command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", profile, "--window-size=1400,1600",
                       f"--virtual-time-budget={budget}", "--dump-dom", f"{address}/?tagFilter=grad_norm#timeseries"]  # fmt: skip
            dom = subprocess.run(
                command, capture_output=True, text=True, timeout=180, check=True
            ).stdout
            content = re.sub(r"<style.*?</style>|<script.*?</script>", "", dom, flags=re.DOTALL)
            if all(text in content for text in shown):
                break
    for text in shown:
        assert text in content, content[:2000]
