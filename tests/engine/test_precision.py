"""The precision that `auto` selects, and where it is recorded."""

import logging
from functools import partial
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch.nn.utils import parameters_to_vector

from engine.config.precision import precision_for
from engine.config.settling import settle
from lightning_modules.text_classifier import TextClassifier
from run_folders.run_folder import RunFolder
from tests.engine.test_feature_cache import BERT, parts_of, texts


def config(precision: str = "auto", ckpt_path: str | None = None) -> DictConfig:
    return OmegaConf.create(
        {
            "trainer": {"precision": precision, "accelerator": "cpu"},
            "ckpt_path": ckpt_path,
            "paths": {"data_dir": "data"},
            "cache": {"features": False},
            "data": {"_target_": "datamodules.samples.SampleTextDataModule"},
        }
    )


def set_cpu_capabilities(
    monkeypatch: pytest.MonkeyPatch, *, amx: bool = False, avx512_bf16: bool = False
) -> None:
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"amx_tile": amx, "avx512_bf16": avx512_bf16}
    )


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "expected", "reason"),
    [
        (True, True, "bf16-mixed", "multiplies bfloat16 (AMX)"),
        (False, True, "bf16-mixed", "multiplies bfloat16 (AVX-512 BF16)"),
        (False, False, "32-true", "has no unit that multiplies bfloat16"),
    ],
)
def test_a_cpu_that_can_multiply_bfloat16_uses_it(
    amx: bool,
    avx512_bf16: bool,
    expected: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    set_cpu_capabilities(monkeypatch, amx=amx, avx512_bf16=avx512_bf16)
    monkeypatch.setattr(logging.getLogger("engine.config.settling"), "propagate", True)
    cfg = config()
    with caplog.at_level(logging.INFO):
        settle(cfg, RunFolder(tmp_path))
    assert cfg.trainer.precision == expected
    assert f"trainer.precision=auto: {expected}, this CPU {reason}" in caplog.text


@pytest.mark.parametrize(("bf16", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_gpu_that_supports_bfloat16_uses_it(
    bf16: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GPU")
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda *, including_emulation: bf16 and not including_emulation,
    )
    assert precision_for("auto")[0] == expected
    set_cpu_capabilities(monkeypatch, amx=not bf16)
    assert precision_for("cpu")[0] != expected


def test_an_explicit_precision_is_kept(tmp_path: Path) -> None:
    cfg = config("64-true")
    settle(cfg, RunFolder(tmp_path))
    assert cfg.trainer.precision == "64-true"


def test_a_resumed_run_keeps_its_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text("trainer: {precision: bf16-mixed}\n")
    set_cpu_capabilities(monkeypatch)
    cfg = config(ckpt_path="last")
    settle(cfg, RunFolder(tmp_path))
    assert cfg.trainer.precision == "bf16-mixed"


def trained(precision: str) -> tuple[torch.Tensor, TextClassifier, torch.optim.Optimizer]:
    """Train two epochs; return the change of all weights, the task and the optimizer."""
    torch.manual_seed(3)
    task = TextClassifier(
        BERT,
        2,
        pooling="mean",
        optimizer=partial(torch.optim.SGD, momentum=0.9, nesterov=True),
        lr=0.05,
        backbone_lr=0.05,
    )
    initial = parameters_to_vector(task.network.parameters()).detach().clone()
    parts = parts_of(texts(), task, max_epochs=2, precision=precision)
    for module in task.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    parts.trainer.fit(task, datamodule=parts.datamodule)
    return (
        parameters_to_vector(task.network.parameters()).detach() - initial,
        task,
        parts.trainer.optimizers[0],
    )


def test_training_in_mixed_precision_is_close_to_float32() -> None:
    (half, task, optimizer), (full, *_) = trained("bf16-mixed"), trained("32-true")
    assert not torch.equal(half, full)
    assert (half - full).norm() <= 0.03 * full.norm()
    state = [
        value
        for entry in optimizer.state.values()
        for value in entry.values()
        if isinstance(value, torch.Tensor)
    ]
    assert state
    assert {tensor.dtype for tensor in (*task.network.parameters(), *state)} == {torch.float32}
