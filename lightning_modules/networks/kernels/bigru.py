"""A bidirectional GRU over texts of different lengths.

Shapes: `B` texts, `T` tokens, `C` channels, `H` units of each direction, `D` directions.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


class BiGRU(nn.Module):
    """A bidirectional GRU that ignores padding and returns the final states of both directions.

    The backward direction reads each text reversed within its own length. Both directions run over
    the padded batch, and the state at the end of each text is selected. The result equals that of a
    packed sequence and is computed faster.

    On a CPU, the number of small operations dominates the time, not their size. Both directions
    therefore run as one recurrence there, with a hand-written backward pass.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.forwards = nn.GRU(width, hidden, batch_first=True)
        self.backwards = nn.GRU(width, hidden, batch_first=True)

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Run both directions over the texts.

        Args:
            states: [B, T, C] hidden states of the tokens, padded at the end.
            lengths: [B] number of tokens, at least 1.

        Returns:
            [B, 2 * H], the forward state at the last token, concatenated with the backward state at
            the first token.
        """
        last = lengths.clamp(min=1) - 1
        positions = torch.arange(states.shape[1], device=states.device)
        reversed_positions = (last[:, None] - positions).clamp(min=0)
        both = (states, states.gather(1, reversed_positions[..., None].expand_as(states)))
        rows = torch.arange(len(states), device=states.device)
        if states.device.type == "cpu":
            return self._run_as_one(*both)[last, :, rows].flatten(1)
        dtype = next(self.parameters()).dtype
        ends = [
            gru(x.to(dtype))[0][rows, last]
            for gru, x in zip((self.forwards, self.backwards), both, strict=True)
        ]
        return torch.cat(ends, dim=-1)

    def _run_as_one(self, *both: Tensor) -> Tensor:
        """Run both directions as one recurrence.

        Autocast may compute the large input product in bfloat16. The steps use the parameters'
        dtype, because their rounding errors accumulate.

        Args:
            both: Input of each direction, [B, T, C].

        Returns:
            [T, 2, B, H] all states of both directions.
        """
        dtype = next(self.parameters()).dtype
        inputs = both if torch.is_autocast_enabled("cpu") else tuple(x.to(dtype) for x in both)
        weights, biases, recurrent, recurrent_biases = (
            [getattr(gru, name) for gru in (self.forwards, self.backwards)]
            for name in ("weight_ih_l0", "bias_ih_l0", "weight_hh_l0", "bias_hh_l0")
        )
        gate_inputs = torch.stack(
            [
                functional.linear(*each).to(dtype)
                for each in zip(inputs, weights, biases, strict=True)
            ]
        )
        with torch.autocast("cpu", enabled=False):
            states: Tensor = _Recurrence.apply(
                gate_inputs.permute(2, 0, 1, 3).contiguous(),
                torch.stack(recurrent),
                torch.stack(recurrent_biases),
            )
        return states


class _Recurrence(torch.autograd.Function):
    """The time steps of D GRUs (Cho et al. 2014, arXiv 1406.1078), computed together.

    The gates r, z, n are defined and ordered as in torch:
    r = sigmoid(x_r + h W_r + b_r), z = sigmoid(x_z + h W_z + b_z), n = tanh(x_n + r (h W_n + b_n)),
    h' = n + z (h - n).
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # noqa: ANN401 - torch's context
        """Run all steps, starting from zero states.

        Args:
            ctx: Context that stores tensors for `backward`.
            inputs: [T, D, B, 3H] inputs of the gates: the inputs of the GRUs times their input
                weights, plus the input bias.
            weight: [D, 3H, H] recurrent weights.
            bias: [D, 3H] recurrent biases.

        Returns:
            [T, D, B, H] all states.
        """
        size = weight.shape[-1]
        weight_t, added = weight.transpose(1, 2), bias[:, None]
        states = inputs.new_empty(*inputs.shape[:-1], size)
        gates, candidates = inputs.new_empty(*inputs.shape[:-1], 2 * size), torch.empty_like(states)
        recurrent_n = torch.empty_like(states)  # h W_n + b_n
        state = inputs.new_zeros(states.shape[1:])
        for step in range(len(inputs)):
            product = torch.baddbmm(added, state, weight_t)
            both = torch.add(
                inputs[step, ..., : 2 * size], product[..., : 2 * size], out=gates[step]
            ).sigmoid_()
            recurrent_n[step] = product[..., 2 * size :]
            new = torch.addcmul(
                inputs[step, ..., 2 * size :],
                both[..., :size],
                recurrent_n[step],
                out=candidates[step],
            ).tanh_()
            state = torch.lerp(new, state, both[..., size:], out=states[step])
        ctx.save_for_backward(weight, states, gates, candidates, recurrent_n)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401 - torch's context
        """Return the gradients with respect to `inputs`, `weight` and `bias`."""
        weight, states, gates, candidates, recurrent_n = ctx.saved_tensors
        size = weight.shape[-1]
        reset, update = gates[..., :size], gates[..., size:]
        previous = torch.cat([torch.zeros_like(states[:1]), states[:-1]])
        # The local derivatives do not depend on the incoming gradients, so they are computed for
        # all steps at once.
        d_new = (1 - update).mul_(1 - candidates.square())
        d_update = (previous - candidates).mul_(update).mul_(1 - update)
        d_reset = (1 - reset).mul_(reset).mul_(recurrent_n)
        grad_inputs = states.new_empty(*states.shape[:-1], 3 * size)
        grad_recurrent_n = states.new_empty(states.shape)
        grad_state = torch.zeros_like(states[0])
        product = torch.empty_like(grad_inputs[0])
        for step in range(len(states) - 1, -1, -1):
            grad_state = grad_state + grad[step]
            new = torch.mul(grad_state, d_new[step], out=grad_inputs[step, ..., 2 * size :])
            torch.mul(new, d_reset[step], out=grad_inputs[step, ..., :size])
            torch.mul(grad_state, d_update[step], out=grad_inputs[step, ..., size : 2 * size])
            torch.mul(new, reset[step], out=grad_recurrent_n[step])
            product[..., : 2 * size] = grad_inputs[step, ..., : 2 * size]
            product[..., 2 * size :] = grad_recurrent_n[step]
            grad_state = torch.baddbmm(grad_state * update[step], product, weight)
        grad_products = torch.cat([grad_inputs[..., : 2 * size], grad_recurrent_n], dim=-1)
        grad_products = grad_products.transpose(0, 1).flatten(1, 2)
        grad_weight = torch.bmm(
            grad_products.transpose(1, 2), previous.transpose(0, 1).flatten(1, 2)
        )
        return grad_inputs, grad_weight, grad_products.sum(1)
