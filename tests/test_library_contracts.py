"""What Thaw relies on in other libraries beyond their documentation: private names, texts of messages.

Each entry is looked up in the source of the installed library, so an upgrade that changes it fails here by name. Nothing is imported.
"""

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.processes import ROOT


@dataclass(frozen=True)
class Contract:
    """A name or a text of another library.

    Attributes:
        token: The name or text.
        library: File that has it, from the folder of installed packages.
        ours: Our file that needs it.
        reason: Why no public way serves.
    """

    token: str
    library: str
    ours: str
    reason: str

    def source(self) -> str | None:
        """The library's file; None where the library is not installed."""
        package, _, rest = self.library.partition("/")
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            return None
        return (Path(spec.origin).parent / rest).read_text(encoding="utf-8")


CONTRACTS = [
    Contract(
        "_signal_connector", "lightning/pytorch/trainer/trainer.py", "engine/build.py",
        "Lightning's handler of SIGTERM waits for ranks that may be gone; there is no argument that leaves it out",
    ),
    Contract(
        "register_signal_handlers", "lightning/pytorch/trainer/connectors/signal_connector.py", "engine/build.py",
        "the method of it that installs the handlers",
    ),
    Contract(
        "not used in producing the loss", "lightning/pytorch/strategies/ddp.py", "engine/devices.py",
        "DDP's error about parameters without a gradient has no class of its own",
    ),
    Contract(
        "Expected more than 1 value per channel", "torch/nn/functional.py", "lightning_modules/segmenter.py",
        "BatchNorm's error about a single value has no class of its own",
    ),
    Contract(
        "_trial_id", "optuna/trial/_trial.py", "engine/search.py",
        "a trial in another process is known to the storage by this number alone",
    ),
    Contract(
        "_convert_value", "hydra/core/override_parser/types.py", "engine/search_words.py",
        "Hydra's own reading of quoted choices",
    ),
    Contract(
        "compute_defaults_list", "hydra/core/config_loader.py", "engine/composing.py",
        "which file states a key is told nowhere else",
    ),
    Contract("missing_cfg_file", "hydra/errors.py", "engine/composing.py", "the option that does not exist"),
    Contract("full_key", "omegaconf/errors.py", "engine/composing.py", "the key that does not exist"),
    Contract(
        "_save_checkpoint", "lightning/pytorch/callbacks/model_checkpoint.py", "lightning_modules/callbacks/folder_checkpoint.py",
        "an epoch that is best and last is written once and linked",
    ),
    Contract(
        "_last_checkpoint_saved", "lightning/pytorch/callbacks/model_checkpoint.py",
        "lightning_modules/callbacks/folder_checkpoint.py", "the file that is linked",
    ),
    Contract(
        "_last_global_step_saved", "lightning/pytorch/callbacks/model_checkpoint.py",
        "lightning_modules/callbacks/folder_checkpoint.py", "whether it is of this step",
    ),
    Contract(
        "_should_save_on_train_epoch_end", "lightning/pytorch/callbacks/model_checkpoint.py",
        "lightning_modules/callbacks/folder_checkpoint.py", "whether the best one is written before the last one",
    ),
    Contract(
        "_trainer", "lightning/pytorch/core/module.py", "lightning_modules/base.py",
        "the public property raises where there is no trainer",
    ),
    Contract(
        "_attn_implementation", "transformers/configuration_utils.py", "lightning_modules/networks/cpu_layers.py",
        "there is no public name for reading it",
    ),
    Contract(
        "_step_supports_amp_scaling", "lightning/fabric/plugins/precision/amp.py", "lightning_modules/optim.py",
        "Lightning refuses to clip where a fused optimizer unscales by itself",
    ),
    Contract("grad_scale", "torch/optim/adam.py", "lightning_modules/optim.py", "a fused optimizer clips in its own pass by it"),
    Contract(
        "_accelerator_graph_capture_health_check", "torch/optim/optimizer.py", "lightning_modules/optim.py",
        "asks the system for GPUs in each step, a third of a millisecond",
    ),
    Contract(
        "logging.getLogger(__name__)", "timm/models/_builder.py", "lightning_modules/networks/image_weights.py",
        "names of weights that did not fit are told in its log alone",
    ),
    Contract(
        "_wandb_init", "lightning/pytorch/loggers/wandb.py", "lightning_modules/loggers/wandb.py",
        "arguments of wandb.init that Lightning's class does not take",
    ),
    Contract(
        "authenticate_session", "wandb/sdk/lib/wbauth/authenticate.py", "lightning_modules/loggers/wandb.py",
        "whether there is a key, without a question on the terminal",
    ),
    Contract("_to_model", "wandb_workspaces/workspaces/interface.py", "reports/wandb_dashboard.py", "saving is all that is public"),
    Contract(
        "notf", "tensorboard/compat/__init__.py", "engine/publishing.py",
        "TensorBoard would load all of TensorFlow to open a file",
    ),
    Contract(
        "_all_reduce_sum_gradients", "keras/src/backend/tensorflow/optimizer.py", "keras_bert/optimization.py",
        "gradients are clipped after the replicas' sum, for which there is no hook",
    ),
]  # fmt: skip


def has(source: str, token: str) -> bool:
    """Whether a source has a name or a text, and not only a longer one that it is a part of."""
    return re.search(rf"(?<!\w){re.escape(token)}(?!\w)", source) is not None


@pytest.fixture(params=CONTRACTS, ids=lambda contract: contract.token)
def contract(request: pytest.FixtureRequest) -> Contract:
    return request.param  # type: ignore[no-any-return]


def test_the_library_has_it(contract: Contract) -> None:
    source = contract.source()
    if source is None:
        pytest.skip(f"{contract.library.partition('/')[0]} is not installed")
    assert has(source, contract.token), f"{contract.library} has no {contract.token} any more: {contract.reason}"


def test_a_library_that_changes_it_is_noticed(contract: Contract) -> None:
    source = contract.source()
    if source is None:
        pytest.skip(f"{contract.library.partition('/')[0]} is not installed")
    assert not has(source.replace(contract.token, contract.token + "_2"), contract.token)


def test_we_need_it(contract: Contract) -> None:
    word = "timm.models._builder" if contract.library.startswith("timm") else contract.token
    assert word in (ROOT / contract.ours).read_text(encoding="utf-8")


def test_the_list_is_short_and_whole() -> None:
    """Every private name that the linter was told to let pass is listed."""
    assert len(CONTRACTS) <= 25
    tokens = {contract.token for contract in CONTRACTS}
    folders = ("run_folders", "engine", "datamodules", "lightning_modules", "reports", "keras_bert", "scripts", "hydra_plugins")
    lines = [line for folder in folders for path in (ROOT / folder).rglob("*.py") for line in path.read_text().splitlines()]
    private = [line for line in lines if "SLF001" in line]
    assert private
    for line in private:
        assert any(token in line for token in tokens), line


def test_torch_says_what_is_not_deterministic() -> None:
    """The text of `engine/run.py`, which stands in torch's compiled part; there is no class of its own."""
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
            torch.zeros(2, 2).put_(torch.tensor([0]), torch.ones(1))
    finally:
        torch.use_deterministic_algorithms(before)
