"""FDViT: a hierarchical vision transformer whose grid of tokens shrinks by any factor.

Xu et al., FDViT: Improve the Hierarchical Architecture of Vision Transformer, ICCV 2023, pages
5950-5960.

Shapes: `B` images, `C` channels, `H` and `W` of the grid of tokens.
"""

import itertools
from collections.abc import Sequence
from typing import Annotated, Any, cast

import torch
from annotated_types import Ge, Interval
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.init import trunc_normal_

from lightning_modules.networks.tokens.errors import TokenError

_EPSILON = 1e-6
_STD = 0.02
_Count = Annotated[int, Ge(1)]


class FlexibleDownsampling(nn.Module):
    """Samples a grid of tokens at any smaller size, then changes its channels (FD layer)."""

    def __init__(self, width_in: int, width: int, size: int) -> None:
        """Build the layer.

        Args:
            width_in: Channels of the input.
            width: Channels of the output.
            size: Height and width of the output.
        """
        super().__init__()
        self.size = size
        self.norm = nn.LayerNorm(width_in, eps=_EPSILON)
        self.convolution = nn.Conv2d(width_in, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute [B, H, W, C] -> [B, size, size, width]."""
        grid = self.norm(x).permute(0, 3, 1, 2)
        return cast(Tensor, self.convolution(_resized(grid, self.size)).permute(0, 2, 3, 1))


class Stage(nn.Sequential):
    """Downsampling, except in the first stage, and transformer blocks."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute [B, H, W, C] of the stage before -> [B, h, w, c]."""
        for layer in self:
            x = layer(x) if isinstance(layer, FlexibleDownsampling) else _on_grid(layer, x)
        return x


def _on_grid(block: nn.Module, x: Tensor) -> Tensor:
    """Run a transformer block on a grid of tokens [B, H, W, C]."""
    return cast(Tensor, block(x.flatten(1, 2))).view(x.shape)


class FDViT(nn.Module):
    """Stages of transformer blocks with flexible downsampling between them; no class token.

    The features are the mean of the normalised tokens of the last stage.
    """

    def __init__(
        self,
        patch: _Count = 16,
        stride: _Count = 8,
        sizes: Sequence[_Count] = (27, 19, 14, 10, 7),
        dims: Sequence[_Count] = (64, 92, 126, 184, 260),
        heads: Sequence[_Count] = (2, 4, 6, 8, 10),
        depth: Sequence[_Count] = (2, 3, 3, 2, 2),
        drop_path: Annotated[float, Interval(ge=0, lt=1)] = 0.0,
    ) -> None:
        """Build the network; the defaults are FDViT-Ti for 224 pixels.

        Args:
            patch: Side of a patch in pixels.
            stride: Distance of patches in pixels; patches overlap if it is smaller than `patch`.
            sizes: Height and width of each stage's grid of tokens. The first follows from the
                image: `(pixels - patch) // stride + 1`.
            dims: Channels of each stage.
            heads: Attention heads of each stage.
            depth: Blocks of each stage.
            drop_path: Stochastic depth of the last block; it rises from 0 over all blocks.

        Raises:
            ValueError: If the lists differ in length, the sizes grow, or a number of channels is no
                multiple of its heads.
        """
        super().__init__()
        if len({len(sizes), len(dims), len(heads), len(depth)}) != 1:
            msg = "sizes, dims, heads and depth need one number for each stage"
            raise ValueError(msg)
        if any(later > earlier for earlier, later in itertools.pairwise(sizes)):
            msg = f"sizes: received {list(sizes)}; give no stage more tokens than the one before"
            raise ValueError(msg)
        for width, count in zip(dims, heads, strict=True):
            if width % count:
                msg = f"dims: {width} channels are no multiple of {count} heads"
                raise ValueError(msg)
        self.sizes, self.dims = tuple(sizes), tuple(dims)
        self.patch_embed = nn.Conv2d(3, dims[0], patch, stride)
        self.pos_embed = nn.Parameter(torch.zeros(1, sizes[0], sizes[0], dims[0]))
        blocks = sum(depth)
        rates = iter([drop_path * number / max(1, blocks - 1) for number in range(blocks)])
        self.stages = nn.Sequential()
        for number, width in enumerate(dims):
            stage = Stage()
            if number:
                stage.append(FlexibleDownsampling(dims[number - 1], width, sizes[number]))
            for _ in range(depth[number]):
                stage.append(_block(width, heads[number], next(rates)))
            self.stages.append(stage)
        self.norm = nn.LayerNorm(dims[-1], eps=_EPSILON)
        self.input_config = {"size": [(sizes[0] - 1) * stride + patch] * 2}
        self.decoders: nn.ModuleList | None = None
        trunc_normal_(self.pos_embed, std=_STD)
        self.apply(_initialize)

    def add_decoders(self) -> None:
        """Add the decoders of the masked auto-encoder, for `forward_with_reconstruction`.

        Raises:
            TokenError: If there is only one stage, and no downsampling to encode its output.
        """
        if len(self.dims) == 1:
            msg = "one stage has no downsampling to learn from; give two or more"
            raise TokenError(msg)
        self.decoders = nn.ModuleList(
            nn.Conv2d(width, width_out, 3, padding=1)
            for width_out, width in itertools.pairwise(self.dims)
        )

    def no_weight_decay(self) -> set[str]:
        """Return the parameters without weight decay."""
        return {"pos_embed"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:  # noqa: ARG002, FBT001, FBT002 - timm's signature
        """Return timm's description of the layer groups, in order."""
        return {
            "stem": r"^patch_embed|pos_embed",
            "blocks": [(r"^stages\.(\d+)\.(\d+)", None), (r"^norm|^decoders", (99999,))],
        }

    def forward_stem(self, x: Tensor) -> Tensor:
        """Compute pixels [B, 3, h, w] -> tokens with their positions [B, H, W, C].

        Raises:
            ValueError: If the image has another grid of patches than `sizes`.
        """
        grid = self.patch_embed(x).permute(0, 2, 3, 1)
        if grid.shape[1:3] != self.pos_embed.shape[1:3]:
            msg = (
                f"{x.shape[-2]} x {x.shape[-1]} pixels have {grid.shape[1]} x {grid.shape[2]} "
                f"patches, and sizes begins with {self.sizes[0]}"
            )
            raise ValueError(msg)
        return cast(Tensor, grid + self.pos_embed)

    def forward_head(self, x: Tensor) -> Tensor:
        """Compute tokens of the last stage [B, H, W, C] -> [B, C]."""
        return cast(Tensor, self.norm(x).mean(dim=(1, 2)))

    def forward(self, x: Tensor) -> Tensor:
        """Compute pixels [B, 3, h, w] -> features [B, C]."""
        return self.forward_head(self.stages(self.forward_stem(x)))

    def forward_with_reconstruction(self, x: Tensor, masked: float) -> tuple[Tensor, Tensor]:
        """Compute the features, and the loss of the masked auto-encoder.

        Each stage's output, without some of its tokens, is encoded by the downsampling of the next
        stage and decoded to its own size. The loss is the mean squared error to the output itself,
        averaged over the stages but the last.

        Args:
            x: Pixels [B, 3, h, w].
            masked: Probability that a token is left out, below 1.

        Returns:
            Features [B, C], and the loss, a scalar.
        """
        assert self.decoders is not None  # noqa: S101 - tells the type checker
        stages: list[Any] = list(self.stages)
        state, losses = self.forward_stem(x), []
        for number, stage in enumerate(stages):
            state = stage(state)
            if number < len(self.decoders):
                encoder = stages[number + 1][0]
                encoded = encoder(without_some_tokens(state, masked)).permute(0, 3, 1, 2)
                decoded = self.decoders[number](encoded)
                decoded = _resized(decoded, state.shape[1]).permute(0, 2, 3, 1)
                losses.append(functional.mse_loss(decoded, state))
        return self.forward_head(state), torch.stack(losses).mean()


def without_some_tokens(x: Tensor, masked: float) -> Tensor:
    """Set tokens of [B, H, W, C] to 0 with a probability; scale the others to keep the mean."""
    kept = torch.rand_like(x[..., :1]) >= masked
    return x * kept / (1 - masked)


def _resized(grid: Tensor, size: int) -> Tensor:
    """Return [B, C, H, W] with another height and width."""
    return functional.interpolate(grid, (size, size), mode="bilinear", align_corners=True)


def _block(width: int, heads: int, drop_path: float) -> Block:
    return Block(
        width,
        heads,
        qkv_bias=True,
        drop_path=drop_path,
        norm_layer=lambda width, **place: nn.LayerNorm(width, eps=_EPSILON, **place),  # type: ignore[arg-type]
    )


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
