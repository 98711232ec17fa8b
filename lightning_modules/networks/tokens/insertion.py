"""TokenLearner as a part of a vision transformer of timm."""

from collections import OrderedDict
from typing import Annotated, Literal, Required, TypedDict

import torch
from annotated_types import Ge, Interval
from timm.models import VisionTransformer
from torch import Tensor, nn

from lightning_modules.networks.tokens.errors import TokenError
from lightning_modules.networks.tokens.learning import ConvTokenLearner, TokenFuser, TokenLearner
from run_folders.errors import nearest

Version = Literal["v1.0", "v1.1"]


class LearnTokensOptions(TypedDict, total=False):
    """The arguments of `learn_tokens`."""

    after: Required[str]
    number: Required[Annotated[int, Ge(1)]]
    version: Version
    fuser: bool
    mean: bool
    dropout: Annotated[float, Interval(ge=0, lt=1)]


_BLOCKS, _NEW = "blocks", "token_learner"


class LearnedTokens(nn.Module):
    """Replaces the tokens of the patches by learned tokens; class tokens stay first."""

    def __init__(self, learner: nn.Module, prefix: int) -> None:
        """Build the module.

        Args:
            learner: Computes [B, N, C] -> [B, S, C].
            prefix: Number of first tokens that stay, such as the class token.
        """
        super().__init__()
        self.learner, self.prefix = learner, prefix

    def forward(self, x: Tensor) -> Tensor:
        """Compute [B, prefix + N, C] -> [B, prefix + S, C]."""
        return torch.cat([x[:, : self.prefix], self.learner(x[:, self.prefix :])], dim=1)


class FusedBlock(nn.Module):
    """Runs a block on learned tokens, and adds its output to all tokens of the patches."""

    def __init__(self, block: nn.Module, learner: LearnedTokens, fuser: TokenFuser) -> None:
        """Build the module.

        Args:
            block: The block, for [B, prefix + S, C].
            learner: Computes the input of the block.
            fuser: Adds the learned tokens to all tokens.
        """
        super().__init__()
        self.block, self.token_learner, self.fuser = block, learner, fuser

    def forward(self, x: Tensor) -> Tensor:
        """Compute [B, prefix + N, C] -> [B, prefix + N, C]."""
        prefix = self.token_learner.prefix
        y = self.block(self.token_learner(x))
        return torch.cat([y[:, :prefix], self.fuser(y[:, prefix:], x[:, prefix:])], dim=1)


def learn_tokens(
    model: nn.Module,
    after: str,
    number: Annotated[int, Ge(1)],
    version: Version = "v1.1",
    fuser: bool = False,  # noqa: FBT001, FBT002 - named in the config
    mean: bool = False,  # noqa: FBT001, FBT002 - named in the config
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0,
) -> list[str]:
    """Put learned tokens into a vision transformer.

    Args:
        model: The network, changed in place. Its blocks keep their names.
        after: Name of the block that the learned tokens come after, such as `blocks.8`.
        number: S.
        version: `TokenLearner` (v1.1), or `ConvTokenLearner` (v1.0).
        fuser: Whether each later block learns tokens of its own, and adds its output to all tokens;
            otherwise the later blocks process the learned tokens alone.
        mean: With v1.0, whether learned tokens are means, and not sums.
        dropout: Dropout probability within the MLPs; v1.0 has one only in its fusers.

    Returns:
        The names of the new modules.

    Raises:
        TokenError: If the network has no such block or none after it, if it already learns tokens,
            or if v1.0 would not receive the whole grid.
    """
    if not isinstance(model, VisionTransformer):
        msg = (
            f"{type(model).__name__} needs all tokens in their places; choose a ViT or DeiT of timm"
        )
        raise TokenError(msg)
    names = [f"{_BLOCKS}.{name}" for name, _ in model.blocks.named_children()]
    if after not in names:
        msg = f"after: received {after!r}, which is no block; {nearest(after, names[:-1])}"
        raise TokenError(msg)
    if after == names[-1]:
        msg = f"after: received {after!r}, the last block; choose an earlier one"
        raise TokenError(msg)
    if any(isinstance(module, LearnedTokens) for module in model.modules()):
        msg = f"{type(model).__name__} already learns tokens; set it once"
        raise TokenError(msg)
    if version == "v1.0" and not isinstance(model.patch_drop, nn.Identity):
        msg = "version: v1.0 reads the whole grid, and patch_drop_rate removes patches; choose v1.1"
        raise TokenError(msg)
    width, prefix = model.embed_dim, model.num_prefix_tokens

    def learner() -> LearnedTokens:
        if version == "v1.0":
            grid = model.patch_embed.grid_size
            return LearnedTokens(ConvTokenLearner(width, number, grid, mean=mean), prefix)
        return LearnedTokens(TokenLearner(width, number, dropout), prefix)

    position = names.index(after) + 1
    if fuser:
        for i in range(position, len(names)):
            fused = FusedBlock(model.blocks[i], learner(), TokenFuser(width, number, dropout))
            model.blocks[i] = fused
        return [f"{name}.{part}" for name in names[position:] for part in (_NEW, "fuser")]
    children = list(model.blocks.named_children())
    children.insert(position, (_NEW, learner()))
    model.blocks = nn.Sequential(OrderedDict(children))
    return [f"{_BLOCKS}.{_NEW}"]
