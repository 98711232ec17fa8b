"""A bidirectional GRU over texts of different lengths. `B` texts, `T` tokens, `C` channels, `H` units of each direction."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


class BiGRU(nn.Module):
    """A bidirectional GRU that padding does not touch, giving the final states of both directions.

    The backward direction reads each text reversed within its own length. That equals a packed
    sequence and is faster: both directions run over the padded batch, and the state at each text's
    end is picked out. On a CPU they run side by side as one recurrence, with the gradient written
    out: there the time goes into the number of small operations, not into their size.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.forwards = nn.GRU(width, hidden, batch_first=True)
        self.backwards = nn.GRU(width, hidden, batch_first=True)

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Read the texts from both ends.

        Args:
            states: [B, T, C] token states, padding behind the tokens.
            lengths: [B] number of tokens, at least 1.

        Returns:
            [B, 2 * H], the forward state at the last token beside the backward state at the first.
        """
        last = lengths.clamp(min=1) - 1
        positions = torch.arange(states.shape[1], device=states.device)
        mirrored = (last[:, None] - positions).clamp(min=0)
        both = (states, states.gather(1, mirrored[..., None].expand_as(states)))
        rows = torch.arange(len(states), device=states.device)
        if states.device.type == "cpu":
            return self._side_by_side(*both)[last, :, rows].flatten(1)
        dtype = next(self.parameters()).dtype
        ends = [
            gru(x.to(dtype))[0][rows, last]
            for gru, x in zip((self.forwards, self.backwards), both, strict=True)
        ]
        return torch.cat(ends, dim=-1)

    def _side_by_side(self, *both: Tensor) -> Tensor:
        """What each direction reads, [B, T, C] -> all states of both, [T, 2, B, H].

        Autocast may do the large product in bfloat16; the steps, each of which rounds, are taken in
        the parameters' dtype.
        """
        dtype = next(self.parameters()).dtype
        inputs = both if torch.is_autocast_enabled("cpu") else tuple(x.to(dtype) for x in both)
        weights, biases, recurrent, recurrent_biases = (
            [getattr(gru, name) for gru in (self.forwards, self.backwards)]
            for name in ("weight_ih_l0", "bias_ih_l0", "weight_hh_l0", "bias_hh_l0")
        )
        read = torch.stack(
            [
                functional.linear(*each).to(dtype)
                for each in zip(inputs, weights, biases, strict=True)
            ]
        )
        with torch.autocast("cpu", enabled=False):
            states: Tensor = _Recurrence.apply(
                read.permute(2, 0, 1, 3).contiguous(),
                torch.stack(recurrent),
                torch.stack(recurrent_biases),
            )
        return states


class _Recurrence(torch.autograd.Function):
    """The steps of several GRUs (Cho et al. 2014, arXiv 1406.1078) side by side, with torch's gates r, z, n in torch's order.

    r = sigmoid(x_r + h W_r + b_r), z = sigmoid(x_z + h W_z + b_z), n = tanh(x_n + r (h W_n + b_n)),
    h' = n + z (h - n).
    """

    @staticmethod
    def forward(ctx: Any, read: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # noqa: ANN401 - torch's context
        """Run from states of zero.

        Args:
            ctx: For the gradient.
            read: [T, D, B, 3H] what the D GRUs read, multiplied by their input weights, with the
                bias.
            weight: [D, 3H, H] of the states.
            bias: [D, 3H] of the states.

        Returns:
            [T, D, B, H] all states.
        """
        size = weight.shape[-1]
        by_state, added = weight.transpose(1, 2), bias[:, None]
        states = read.new_empty(*read.shape[:-1], size)
        gates, candidates = read.new_empty(*read.shape[:-1], 2 * size), torch.empty_like(states)
        carried = torch.empty_like(states)  # h W_n + b_n
        state = read.new_zeros(states.shape[1:])
        for step in range(len(read)):
            product = torch.baddbmm(added, state, by_state)
            both = torch.add(
                read[step, ..., : 2 * size], product[..., : 2 * size], out=gates[step]
            ).sigmoid_()
            carried[step] = product[..., 2 * size :]
            new = torch.addcmul(
                read[step, ..., 2 * size :], both[..., :size], carried[step], out=candidates[step]
            ).tanh_()
            state = torch.lerp(new, state, both[..., size:], out=states[step])
        ctx.save_for_backward(weight, states, gates, candidates, carried)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401 - torch's context
        """Gradients of what `forward` takes."""
        weight, states, gates, candidates, carried = ctx.saved_tensors
        size = weight.shape[-1]
        reset, update = gates[..., :size], gates[..., size:]
        before = torch.cat([torch.zeros_like(states[:1]), states[:-1]])
        # What each gradient is multiplied by does not depend on the others, and is computed for all
        # steps at once.
        by_new = (1 - update).mul_(1 - candidates.square())
        by_update = (before - candidates).mul_(update).mul_(1 - update)
        by_reset = (1 - reset).mul_(reset).mul_(carried)
        read = states.new_empty(*states.shape[:-1], 3 * size)
        kept, flowing = states.new_empty(states.shape), torch.zeros_like(states[0])
        product = torch.empty_like(read[0])
        for step in range(len(states) - 1, -1, -1):
            flowing = flowing + grad[step]
            new = torch.mul(flowing, by_new[step], out=read[step, ..., 2 * size :])
            torch.mul(new, by_reset[step], out=read[step, ..., :size])
            torch.mul(flowing, by_update[step], out=read[step, ..., size : 2 * size])
            torch.mul(new, reset[step], out=kept[step])
            product[..., : 2 * size] = read[step, ..., : 2 * size]
            product[..., 2 * size :] = kept[step]
            flowing = torch.baddbmm(flowing * update[step], product, weight)
        of_states = torch.cat([read[..., : 2 * size], kept], dim=-1).transpose(0, 1).flatten(1, 2)
        of_weight = torch.bmm(of_states.transpose(1, 2), before.transpose(0, 1).flatten(1, 2))
        return read, of_weight, of_states.sum(1)
