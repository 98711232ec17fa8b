"""What must not be written down is not, and what has to be kept is."""

import pytest
from omegaconf import OmegaConf

from engine.redaction import HIDDEN, redacted


def test_secrets_are_hidden_and_the_rest_is_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSPHRASE", "hunter2")
    cfg = OmegaConf.create(
        {
            "a": {"api_key": "k", "hf_token": "t", "password": "p", "tokenizer": "bert", "max_tokens": 3, "token": 5},
            "b": ["${a.tokenizer}", {"aws_secret": "s"}],
            "c": "${oc.env:PASSPHRASE}",
            "d": "mongodb://user:pass@host/db",
            "e": "${c}",
            "f": "prefix-${oc.env:PASSPHRASE}",
        }
    )
    assert cfg.e == "hunter2"
    plain = OmegaConf.to_container(redacted(cfg), resolve=False)
    assert plain == {
        "a": {"api_key": HIDDEN, "hf_token": HIDDEN, "password": HIDDEN, "tokenizer": "bert", "max_tokens": 3, "token": 5},
        "b": ["bert", {"aws_secret": HIDDEN}],
        "c": "${oc.env:PASSPHRASE}",
        "d": f"mongodb://{HIDDEN}@host/db",
        "e": "${oc.env:PASSPHRASE}",
        "f": "prefix-${oc.env:PASSPHRASE}",
    }
    assert cfg.e == "hunter2"  # the run itself still reads the environment
