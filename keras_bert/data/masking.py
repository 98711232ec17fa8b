"""Random masking for masked language models.

Shapes: `B` texts, `T` tokens, `P` chosen positions per text, at most.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tokenizers import Tokenizer

from keras_bert.data.tokenizing import SPECIAL_TOKENS, token_id

_MASKED, _RANDOM = 0.8, 0.1


@dataclass(frozen=True)
class Masking:
    """BERT's masked language model (arXiv 1810.04805, section 3.1 and appendix A.1).

    In each text, round(rate * tokens) tokens are chosen, at least one. 80 % of them become [MASK],
    10 % become a random token, and 10 % stay unchanged. Special tokens, including padding, are
    never chosen and never used as the random token.

    Attributes:
        rate: Fraction of the tokens to choose, 0..1.
        mask: Id of [MASK].
        special: Ids of the special tokens.
        ordinary: Ids of all other tokens.
    """

    rate: float
    mask: int
    special: NDArray[np.int32]
    ordinary: NDArray[np.int32]

    @classmethod
    def of(cls, tokenizer: Tokenizer, rate: float) -> "Masking":
        """Create the masking for the vocabulary of a tokenizer."""
        special = np.array([token_id(tokenizer, token) for token in SPECIAL_TOKENS], dtype=np.int32)
        ordinary = np.setdiff1d(np.arange(tokenizer.get_vocab_size(), dtype=np.int32), special)
        return cls(rate, token_id(tokenizer, "[MASK]"), special, ordinary)

    def __call__(self, input_ids: Any, seed: Any) -> tuple[Any, Any, Any, Any]:  # noqa: ANN401 - tensors
        """Choose tokens at random and replace them.

        Args:
            input_ids: [B, T] int32.
            seed: [2] int32; the same seed returns the same result.

        Returns:
            Four tensors; P is rate * T, rounded up:
            - [B, T] token ids after the replacement;
            - [B, P] chosen positions;
            - [B, P] original token ids at these positions;
            - [B, P] float32 mask: 1 for chosen positions, 0 for the unused entries after them.
        """
        candidates = tf.reduce_all(input_ids[:, :, None] != self.special, axis=-1)
        count = tf.reduce_sum(tf.cast(candidates, tf.float32), axis=1)
        max_chosen = tf.cast(
            tf.math.ceil(self.rate * tf.cast(tf.shape(input_ids)[1], tf.float32)), tf.int32
        )
        # At most the number of candidates: a text of special tokens only has none.
        num_chosen = tf.minimum(tf.maximum(tf.round(self.rate * count), 1.0), count)
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
        scores = tf.random.stateless_uniform(tf.shape(input_ids), seeds[0])
        positions = tf.math.top_k(tf.where(candidates, scores, -1.0), k=max_chosen).indices
        chosen = tf.cast(tf.range(max_chosen), tf.float32) < num_chosen[:, None]
        targets = tf.gather(input_ids, positions, batch_dims=1)
        uniform = tf.random.stateless_uniform(tf.shape(positions), seeds[1])
        drawn = tf.random.stateless_uniform(
            tf.shape(positions), seeds[2], maxval=len(self.ordinary), dtype=tf.int32
        )
        replaced = tf.where(
            uniform < _MASKED,
            self.mask,
            tf.where(uniform < _MASKED + _RANDOM, tf.gather(self.ordinary, drawn), targets),
        )
        rows = tf.broadcast_to(tf.range(tf.shape(positions)[0])[:, None], tf.shape(positions))
        # All positions of a row differ, also the unused ones. The latter keep their token.
        indices, values = tf.stack([rows, positions], axis=-1), tf.where(chosen, replaced, targets)
        return (
            tf.tensor_scatter_nd_update(input_ids, indices, values),
            positions,
            targets,
            tf.cast(chosen, tf.float32),
        )
