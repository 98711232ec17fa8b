"""A small vision transformer with learned tokens, for training from random weights."""

from typing import Annotated, Any

from annotated_types import Ge, Interval
from timm.models import VisionTransformer

from lightning_modules.networks.tokens.insertion import Version, learn_tokens


class TokenLearnerViT(VisionTransformer):
    """A vision transformer without class token, whose last blocks process learned tokens.

    The features are the mean of the last tokens. Ryoo et al. 2021, arXiv 2106.11297; the defaults
    are the CIFAR-10 network of the example in the documentation of Keras.
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
        version: Version = "1.0",
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
            dropout: Dropout probability of attention and MLPs.
            more: Arguments of timm's `VisionTransformer`.

        Raises:
            TokenError: If there is no block `after`, or it is the last one.
        """
        super().__init__(
            img_size=image,
            patch_size=patch,
            embed_dim=dim,
            depth=depth,
            num_heads=heads,
            mlp_ratio=mlp_ratio,
            class_token=False,
            global_pool="avg",
            num_classes=0,
            proj_drop_rate=dropout,
            attn_drop_rate=dropout,
            **more,
        )
        self.input_config = {"size": [image, image]}
        if tokens is not None:
            learn_tokens(self, after, tokens, version, fuser, mean, dropout)
