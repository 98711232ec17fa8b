"""A small vision transformer with learned tokens, for training from random weights."""

from typing import Annotated, Any

from annotated_types import Ge, Interval
from timm.models import VisionTransformer

from lightning_modules.networks.tokens.insertion import Version, learn_tokens


class TokenLearnerViT(VisionTransformer):
    """A vision transformer without class token, whose last blocks process learned tokens.

    The features are the mean of the normalised last tokens. Ryoo et al. 2021, arXiv 2106.11297. The
    defaults are those of the CIFAR-10 example in the documentation of Keras, except that its heads
    have as many channels each as a token (here: all heads together).
    """

    def __init__(
        self,
        image: Annotated[int, Ge(1)] = 48,
        patch: Annotated[int, Ge(1)] = 6,
        dim: Annotated[int, Ge(1)] = 128,
        depth: Annotated[int, Ge(2)] = 4,
        heads: Annotated[int, Ge(1)] = 4,
        mlp_ratio: float = 2.0,
        tokens: Annotated[int, Ge(1)] | None = 8,
        after: str = "blocks.2",
        version: Version = "v1.0",
        fuser: bool = False,  # noqa: FBT001, FBT002 - named in the config
        mean: bool = True,  # noqa: FBT001, FBT002 - named in the config
        dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.1,
        **more: Any,  # noqa: ANN401 - those of timm's VisionTransformer
    ) -> None:
        """Build the network with random weights.

        Args:
            image: Side of the input in pixels.
            patch: Side of a patch in pixels.
            dim: C, channels of a token.
            depth: Number of blocks.
            heads: Attention heads.
            mlp_ratio: Units of each block's MLP, divided by `dim`.
            tokens: Number of learned tokens; None keeps all tokens.
            after: Name of the block that the learned tokens come after.
            version: See `learn_tokens`, as `fuser` and `mean`.
            fuser: See `learn_tokens`.
            mean: See `learn_tokens`.
            dropout: Dropout probability of positions, attention and MLPs.
            more: Arguments of timm's `VisionTransformer`.

        Raises:
            TokenError: If there is no block `after`, or it is the last one.
            ValueError: If `dim` is no multiple of `heads`, or `image` none of `patch`.
        """
        for name, whole, part, parts in (
            ("dim", dim, "heads", heads),
            ("image", image, "patch", patch),
        ):
            if whole % parts:
                msg = f"{name}: received {whole}; a multiple of {part} ({parts}) is needed"
                raise ValueError(msg)
        super().__init__(
            img_size=image,
            patch_size=patch,
            embed_dim=dim,
            depth=depth,
            num_heads=heads,
            mlp_ratio=mlp_ratio,
            class_token=False,
            global_pool="avg",
            fc_norm=False,
            num_classes=0,
            pos_drop_rate=dropout,
            proj_drop_rate=dropout,
            attn_drop_rate=dropout,
            **more,
        )
        self.input_config = {"size": [image, image]}
        self._learns_after = after
        if tokens is not None:
            learn_tokens(self, after, tokens, version, fuser, mean, dropout)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - timm's signature
        """Return timm's description of the layer groups; learned tokens belong to `after`."""
        groups: dict[str, Any] = super().group_matcher(coarse)
        layer = int(self._learns_after.rpartition(".")[2])
        groups["blocks"].append((r"^blocks\.token_learner", (layer,)))
        return groups
