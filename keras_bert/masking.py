"""Which tokens a masked language model guesses, and what stands in their place. `B` texts, `T` tokens, `P` chosen at most."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tokenizers import Tokenizer

from keras_bert.tokenizing import SPECIAL_TOKENS, token_id

_MASKED, _RANDOM = 0.8, 0.1


@dataclass(frozen=True)
class Masking:
    """BERT's masked language model (arXiv 1810.04805, section 3.1 and appendix A.1).

    Of each text round(rate * tokens) are chosen, one at least. Of these 80 % become [MASK], 10 % a
    random token, and 10 % stay. Special tokens, of which padding is one, are never chosen and never
    the random token.

    Attributes:
        rate: Share of the tokens, 0..1.
        mask: Number of [MASK].
        special: Numbers of the special tokens.
        ordinary: Numbers of all others.
    """

    rate: float
    mask: int
    special: NDArray[np.int32]
    ordinary: NDArray[np.int32]

    @classmethod
    def of(cls, tokenizer: Tokenizer, rate: float) -> "Masking":
        """The masking that a tokenizer's vocabulary asks for."""
        special = np.array([token_id(tokenizer, token) for token in SPECIAL_TOKENS], dtype=np.int32)
        ordinary = np.setdiff1d(np.arange(tokenizer.get_vocab_size(), dtype=np.int32), special)
        return cls(rate, token_id(tokenizer, "[MASK]"), special, ordinary)

    def __call__(self, input_ids: Any, seed: Any) -> tuple[Any, Any, Any, Any]:  # noqa: ANN401 - tensors
        """Choose and replace.

        Args:
            input_ids: [B, T] int32.
            seed: [2] int32; the same seed draws the same.

        Returns:
            The tokens with replacements [B, T]; the chosen positions [B, P]; what stood there [B,
            P]; and [B, P] float32, 1 for what was chosen and 0 for the places behind it. P is rate
            * T, rounded up.
        """
        candidates = tf.reduce_all(input_ids[:, :, None] != self.special, axis=-1)
        count = tf.reduce_sum(tf.cast(candidates, tf.float32), axis=1)
        most = tf.cast(
            tf.math.ceil(self.rate * tf.cast(tf.shape(input_ids)[1], tf.float32)), tf.int32
        )
        # Not more than there are: a text without a single word has nothing to choose.
        wanted = tf.minimum(tf.maximum(tf.round(self.rate * count), 1.0), count)
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
        scores = tf.random.stateless_uniform(tf.shape(input_ids), seeds[0])
        positions = tf.math.top_k(tf.where(candidates, scores, -1.0), k=most).indices
        chosen = tf.cast(tf.range(most), tf.float32) < wanted[:, None]
        targets = tf.gather(input_ids, positions, batch_dims=1)
        fate = tf.random.stateless_uniform(tf.shape(positions), seeds[1])
        drawn = tf.random.stateless_uniform(
            tf.shape(positions), seeds[2], maxval=len(self.ordinary), dtype=tf.int32
        )
        replaced = tf.where(
            fate < _MASKED,
            self.mask,
            tf.where(fate < _MASKED + _RANDOM, tf.gather(self.ordinary, drawn), targets),
        )
        rows = tf.broadcast_to(tf.range(tf.shape(positions)[0])[:, None], tf.shape(positions))
        # Positions of a row are all different, the places behind the chosen ones too: those keep
        # what they have.
        places, values = tf.stack([rows, positions], axis=-1), tf.where(chosen, replaced, targets)
        return (
            tf.tensor_scatter_nd_update(input_ids, places, values),
            positions,
            targets,
            tf.cast(chosen, tf.float32),
        )
