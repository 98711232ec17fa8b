"""Find the image network that `model.backbone` names: all of timm, and those of Thaw's own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import timm
from torch import nn

from lightning_modules.networks.backbones.features import BackboneError
from lightning_modules.networks.backbones.image_weights import loading_error
from lightning_modules.networks.backbones.pixels import FlatPixels
from lightning_modules.networks.backbones.small_resnet import SmallResNet
from lightning_modules.networks.tokens.fdvit import FDViT
from lightning_modules.networks.tokens.token_learner_vit import TokenLearnerViT
from run_folders.errors import near_names
from run_folders.untrusted import read_json

OWN: dict[str, type[nn.Module]] = {
    "small_resnet": SmallResNet,
    "flat_pixels": FlatPixels,
    "token_learner_vit": TokenLearnerViT,
    "fdvit": FDViT,
}
# Arguments of timm that load files or change what is loaded.
_LOADING = {
    "checkpoint_path",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "cache_dir",
}


def parse_backbone(
    backbone: str | Mapping[str, Any],
) -> tuple[str, dict[str, Any], dict[str, Any] | None]:
    """Return the architecture, its arguments, and the `pretrained_cfg` of its weights.

    Args:
        backbone: A name, a folder or a mapping; see `image_encoder`.

    Raises:
        BackboneError: If there is no such network.
    """
    if not isinstance(backbone, str):
        arguments = dict(backbone)
        if "architecture" not in arguments:
            msg = "model.backbone: a mapping needs architecture, for example vgg19 or small_resnet"
            raise BackboneError(msg)
        loading = sorted(_LOADING.intersection(arguments))
        if loading:
            msg = f"model.backbone.{loading[0]}: a mapping loads no file; set model.weights"
            raise BackboneError(msg)
        return _checked_name(str(arguments.pop("architecture"))), arguments, None
    if Path(backbone).is_dir():
        saved = _read_config(Path(backbone) / "config.json")
        return _checked_name(str(saved.get("architecture"))), *_saved_arguments(saved)
    if backbone.startswith("hf-hub:"):
        try:
            source, architecture, arguments = timm.models.load_model_config_from_hf(
                backbone.removeprefix("hf-hub:")
            )
        except Exception as error:  # the hub's client raises OSError and its own types
            raise BackboneError(loading_error(backbone, error)) from error
        return _checked_name(architecture), dict(arguments or {}), dict(source)
    return _checked_name(backbone), {}, None


def _saved_arguments(saved: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the constructor's arguments and the `pretrained_cfg` from timm's config.json."""
    source = dict(saved.get("pretrained_cfg") or {})
    if "num_classes" in saved:
        source["num_classes"] = saved["num_classes"]
    return dict(saved.get("model_args") or {}), source


class _SavedConfig(TypedDict, total=False):
    """config.json of a network that timm saved."""

    architecture: str
    model_args: dict[str, Any] | None
    pretrained_cfg: dict[str, Any] | None


def _read_config(path: Path) -> dict[str, Any]:
    advice = "save a network there with timm, or set a timm model name"
    if not path.is_file():
        msg = f"{path.parent.resolve()}: no usable config.json; {advice}"
        raise BackboneError(msg)
    saved: dict[str, Any] = read_json(path, _SavedConfig, advice)
    if "architecture" not in saved:
        msg = f"{path.resolve()} names no architecture; {advice}"
        raise BackboneError(msg)
    return saved


def _checked_name(name: str) -> str:
    """Return the name of a network; raise `BackboneError` if there is no such network."""
    plain, _, tag = name.partition(".")
    if plain in OWN and not tag:
        return name
    if timm.is_model(plain):
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{plain}.*")]
        if not tag or tag in tags:
            return name
        known = ", ".join(f"{plain}.{t}" for t in near_names(tag, tags, cutoff=0.2) or tags[:3])
        msg = (
            f"model.backbone={name}: timm has no weights '{tag}' for {plain}; "
            f"it has {known or 'none'}"
        )
        raise BackboneError(msg)
    near = near_names(plain, [*OWN, *timm.list_models()], cutoff=0.5)
    hint = (
        f"; did you mean {' or '.join(near)}?" if near else "; timm.list_models() lists all of them"
    )
    msg = (
        f"model.backbone={name}: no such folder ({Path(name).resolve()}), "
        f"and timm has no model of that name{hint}"
    )
    raise BackboneError(msg)
