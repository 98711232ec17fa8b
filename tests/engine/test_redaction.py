"""Secrets are not written to files; other values are."""

import shlex
import sys
from pathlib import Path

import lightning
import pytest
import yaml
from omegaconf import OmegaConf

from engine.command_line import commands
from engine.command_line.quoting import quoted
from engine.config.redaction import HIDDEN, hide, redacted, secret_values
from engine.sweeps.resuming import redact_sweep_record
from run_folders.own_packages import VARIABLE
from run_folders.untrusted import MAX_YAML, DamagedFileError
from tests.conftest import SAMPLE, Train


def test_secrets_are_hidden_and_the_rest_is_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSPHRASE", "hunter2")
    cfg = OmegaConf.create(
        {
            "a": {
                "api_key": "SECRET1",
                "hf_token": "t",
                "password": 123456,
                "tokenizer": "bert",
                "max_tokens": 3,
            },
            "b": ["${a.tokenizer}", {"aws_access_key_id": "s", "private_key": "p"}, "${a.api_key}"],
            "c": "${oc.env:PASSPHRASE}",
            "d": "mongodb://user:pass@host/db and https://TOKEN@host",
            "e": "${c}",
            "f": "prefix-${oc.env:PASSPHRASE}",
            "g": "key=${a.api_key}",
            "h": {"pad_token": "[PAD]", "token": None, "use_token": True},
        }
    )
    assert cfg.e == "hunter2"
    plain = OmegaConf.to_container(redacted(cfg), resolve=False)
    assert plain == {
        "a": {
            "api_key": HIDDEN,
            "hf_token": HIDDEN,
            "password": HIDDEN,
            "tokenizer": "bert",
            "max_tokens": 3,
        },
        "b": ["bert", {"aws_access_key_id": HIDDEN, "private_key": HIDDEN}, HIDDEN],
        "c": "${oc.env:PASSPHRASE}",
        "d": f"mongodb://{HIDDEN}@host/db and https://{HIDDEN}@host",
        "e": "${oc.env:PASSPHRASE}",
        "f": "prefix-${oc.env:PASSPHRASE}",
        "g": f"key={HIDDEN}",
        "h": {"pad_token": "[PAD]", "token": None, "use_token": True},
    }
    assert cfg.e == "hunter2"  # the run itself still reads the environment
    assert secret_values(cfg) == {"SECRET1", "123456"}
    assert hide("a SECRET1, b", {"SECRET1"}) == f"a {HIDDEN}, b"


@pytest.mark.parametrize("secret", ["it's s3cret", 'the "key"', """both ' and \""""])
def test_a_secret_with_quotes_is_hidden(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    override = f"logger.api_key={quoted(secret)}"
    texts = (override, secret, yaml.safe_dump([secret]), f"logger.api_key='{secret}'")
    for text in texts:
        assert hide(text, {secret}).count(HIDDEN) == 1, text
    monkeypatch.setattr(commands, "_same_job", lambda _: [override])
    command = commands.resume_run_command(Path("run"), {secret})
    assert f'logger.api_key="{HIDDEN}"' in shlex.split(command)


def test_a_huge_record_of_a_sweep_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "multirun.yaml").write_text("#" * (MAX_YAML + 1))
    with pytest.raises(DamagedFileError, match=r"multirun\.yaml is damaged: it has more than"):
        redact_sweep_record(tmp_path, {"x"})


KEYED = (
    "+callbacks.keyed={_target_: tests.engine.test_redaction.KeyedCallback, api_key: SUPERSECRET}"
)


class KeyedCallback(lightning.Callback):
    def __init__(self, api_key: str) -> None:
        assert api_key == "SUPERSECRET"  # the object gets the secret; files do not


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "tests")


def files_with(folder: Path, text: str) -> list[str]:
    return [p.name for p in folder.rglob("*") if p.is_file() and text.encode() in p.read_bytes()]


def test_nothing_in_a_run_folder_holds_a_secret(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted run writes its config, its status and the command that resumes it."""
    from engine.processes.signals import InterruptedRunError
    from lightning_modules.text_classifier import TextClassifier

    def stop(self: TextClassifier) -> None:
        raise InterruptedRunError(15)

    monkeypatch.setattr(TextClassifier, "on_test_epoch_start", stop)
    ended = train(*SAMPLE, KEYED)
    assert ended.code == 143, ended.err
    assert "ckpt_path=last" in ended.err
    assert "SUPERSECRET" not in ended.err
    assert HIDDEN in (ended.folder / "config.yaml").read_text()
    assert not files_with(ended.folder, "SUPERSECRET")


def test_nothing_in_a_sweep_folder_holds_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import train as entry

    overrides = [
        *SAMPLE, "trainer.max_epochs=1", "seed=1,2", "trainer.accelerator=cpu",
        f"paths.runs_dir={tmp_path / 'runs'}", KEYED,
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", *overrides])
    assert entry.main() == 0
    (sweep,) = (tmp_path / "runs" / "sweeps" / "sample_text").iterdir()
    assert sorted(path.name for path in sweep.iterdir()) == [
        "0",
        "1",
        "multirun.yaml",
        "sweep.csv",
        "sweep.html",
        "sweep.json",
    ]
    assert HIDDEN in (sweep / "multirun.yaml").read_text()
    assert not files_with(sweep, "SUPERSECRET")
