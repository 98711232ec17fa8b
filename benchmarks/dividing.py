"""Which families of networks run in two parts, so that their frozen layers run once.

    python -m benchmarks.dividing [images|texts] [--family NAME ...]

For each family of timm, the smallest network with random weights; for each type with which
transformers classifies texts, a tiny one. The layers from two thirds of the parameters on train.
The table shows the cut that Thaw finds and the share of the multiplications before it. Both parts
have to equal the whole to the last bit, on random weights and other inputs than Thaw's own check.
"""

import argparse
import logging
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import timm
import torch
import transformers
from timm.models import list_models, list_modules
from torch import nn

from benchmarks.measuring import setting
from benchmarks.tiny_texts import tiny_config, types
from datamodules.batches import ImageBatch, TextBatch
from lightning_modules.networks.backbones.features import Features
from lightning_modules.networks.backbones.image import image_encoder
from lightning_modules.networks.backbones.text import text_encoder
from lightning_modules.networks.classifier import Classifier
from lightning_modules.networks.freezing.plan import FreezingPlan
from lightning_modules.networks.freezing.prefix import find_cut
from run_folders.errors import brief

_FROZEN = 2 / 3  # of the parameters
_LEAST = 0.05  # share of the multiplications that is worth a cache
_TOKENS = 9
_MOST = 150_000_000  # parameters of a network that is tried


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", nargs="?", choices=list(_KINDS), help="both without it")
    parser.add_argument("--family", nargs="*", help="only these")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")  # of code that runs on tiny networks
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    print(setting("torch", "timm", "transformers"))
    for kind in [given.kind] if given.kind else _KINDS:
        print(f"\n| {kind} | network | cut | computed once | equal to the bit |")
        print(f"|{'---|' * 5}")
        divided = total = 0
        for line, good in _KINDS[kind](given.family):
            print(line, flush=True)
            divided, total = divided + good, total + 1
        print(f"\n{divided} of {total}")


def image_families(only: list[str] | None) -> Iterator[tuple[str, bool]]:
    """Yield a line for each family of timm, and whether its smallest network can be divided."""
    for family in list_modules():
        names = list_models(module=family)
        if names and (only is None or family in only):
            name = min(names, key=_parameters)
            if _parameters(name) > _MOST:
                line = f"| {family} | {name} | not tried: {_parameters(name):,} parameters | | |"
                yield line, False
                continue
            yield _line(family, name, partial(image_encoder, {"architecture": name}, None, None))


def text_families(only: list[str] | None) -> Iterator[tuple[str, bool]]:
    """Yield a line for each type of texts, and whether a tiny network of it can be divided."""
    for model_type in types():
        if only is None or model_type in only:
            config = tiny_config(model_type)
            values = {"model_type": model_type, **config.to_diff_dict()}
            yield _line(model_type, "tiny", partial(text_encoder, values, None))


@cache
def _parameters(name: str) -> int:
    """Return the number of parameters of a network of timm."""
    with torch.device("meta"):
        try:
            return sum(p.numel() for p in timm.create_model(name).parameters())
        except Exception:
            return 10**12


def _line(family: str, name: str, build: Callable[[], Any]) -> tuple[str, bool]:
    """Return a line of the table, and whether the network can be divided."""
    torch.manual_seed(0)
    try:
        return _divided(family, name, build())
    except Exception as error:
        return f"| {family} | {name} | fails: {brief(error)} | | |", False


def _divided(family: str, name: str, features: Any) -> tuple[str, bool]:  # noqa: ANN401 - an encoder
    cut = find_cut(Classifier(features, nn.Identity()), _plan(features))
    if isinstance(cut, str):
        return f"| {family} | {name} | no: {cut} | | |", False
    cost, equal = cut.cost(features), _equal(features, cut)
    share = cost.share if cost else 1.0
    if share < _LEAST:
        return f"| {family} | {name} | no: only before {cut.layer}, {share:.0%} | | |", False
    return f"| {family} | {name} | {cut.layer} | {share:.0%} | {'yes' if equal else 'no'} |", equal


def _plan(features: nn.Module) -> FreezingPlan:
    """Return the plan that trains the layers from two thirds of the parameters on."""
    names = {name: parameter.numel() for name, parameter in features.named_parameters()}
    left = _FROZEN * sum(names.values())
    starts: dict[str, int | None] = {"features": None}
    for name, count in names.items():
        left -= count
        if left < 0:
            starts[f"features.{name}"] = 0
    return FreezingPlan(starts)


def _equal(features: Any, cut: Any) -> bool:  # noqa: ANN401 - an encoder, and its cut
    """Return whether both parts equal the whole on a batch."""
    batch: Any = _texts() if hasattr(features, "traits") else _images(features)
    with torch.no_grad():
        expected = features.eval()(batch).values
        state = cut.prefix(features, batch)
        if state.lengths is None:
            return torch.equal(cut.suffix(features, state).values, expected)
        exists = batch["attention_mask"].bool()
        stored = Features(state.values.masked_fill(~exists[..., None], 0), state.lengths)
        return torch.equal(cut.suffix(features, stored).values[exists], expected[exists])


def _images(features: Any) -> ImageBatch:  # noqa: ANN401 - an encoder
    height, width = features.config["size"] or (64, 64)
    pixels = torch.randint(256, (3, 3, height, width), dtype=torch.uint8)
    return ImageBatch(pixel_values=pixels, labels=torch.zeros(3), index=torch.arange(3))


def _texts() -> TextBatch:
    lengths = torch.tensor([_TOKENS, 4, 6])
    mask = (torch.arange(_TOKENS) < lengths[:, None]).long()
    ids = torch.randint(2, 60, mask.shape)
    return TextBatch(input_ids=ids, attention_mask=mask, labels=torch.zeros(3), index=lengths)


_KINDS = {"images": image_families, "texts": text_families}

if __name__ == "__main__":
    main()
