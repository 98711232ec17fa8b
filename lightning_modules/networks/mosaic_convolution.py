"""Convolutions of small pictures on CPUs: the gradient of their weights from several pictures at a time, side by side.

oneDNN goes through a batch picture by picture and adds each one's share to the whole gradient of the weights. Where there are
many channels and few pixels, and the products are as fast as those of AMX, that adding is most of the work. A mosaic of
pictures, with zeros between them, has the same gradient: what stands on the zeros counts nothing, and no window reaches from
one picture into the next.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight

_SIDE = 32  # pixels of a mosaic that oneDNN handles well
_SMALL = 12  # pixels below which a picture gains by it


def mosaic(pictures: Tensor, gap: int, side: int = _SIDE) -> Tensor:
    """Put pictures together, as many in a row and a column as fit into `side` pixels, one at least.

    Args:
        pictures: [B, C, H, W].
        gap: Zeros to the right of each and below, in pixels.
        side: Of a mosaic, in pixels.

    Returns:
        [N, C, rows * (H + gap), columns * (W + gap)] in channels-last order; the last mosaic is filled up with zeros.
    """
    count, channels, height, width = pictures.shape
    rows, columns = max(1, side // (height + gap)), max(1, side // (width + gap))
    stored = pictures.permute(0, 2, 3, 1)
    if count % (rows * columns):
        stored = functional.pad(stored, (0, 0, 0, 0, 0, 0, 0, -count % (rows * columns)))
    mosaics = stored.new_zeros(-(-count // (rows * columns)), rows, height + gap, columns, width + gap, channels)
    mosaics[:, :, :height, :, :width] = stored.reshape(-1, rows, columns, height, width, channels).transpose(2, 3)
    return mosaics.view(-1, rows * (height + gap), columns * (width + gap), channels).permute(0, 3, 1, 2)


class _ByMosaic(torch.autograd.Function):
    """A convolution of stride 1 whose output is as large as its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:  # noqa: ANN401 - torch's context
        """Convolve."""
        ctx.save_for_backward(x, weight)
        return functional.conv2d(x, weight, padding=weight.shape[-1] // 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:  # noqa: ANN401 - torch's context
        """The gradients of input and weight, where they are asked for."""
        x, weight = ctx.saved_tensors
        gap = weight.shape[-1] // 2
        of_input = of_weight = None
        if ctx.needs_input_grad[0]:
            of_input = conv2d_input(x.shape, weight, gradient, padding=gap)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1]:
            mosaics = mosaic(x, gap), mosaic(gradient, gap)
            of_weight = conv2d_weight(mosaics[0], weight.shape, mosaics[1], padding=gap)  # type: ignore[no-untyped-call]
        return of_input, of_weight


def convolve_by_mosaic(x: Tensor, weight: Tensor) -> Tensor:
    """`conv2d` with zeros around that keep the size; its weight's gradient is computed on mosaics.

    Args:
        x: [B, C, H, W].
        weight: [D, C, k, k], k odd.

    Returns:
        [B, D, H, W].
    """
    return cast(Tensor, _ByMosaic.apply(x, weight))


class Convolution(nn.Conv2d):
    """3 x 3, without bias, as large as its input; trained by mosaic where that is faster: small pictures, bfloat16, AMX."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__(width_in, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, D, H, W]."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        trains = torch.is_grad_enabled() and self.weight.requires_grad
        if not trains or x.device.type != "cpu" or dtype != torch.bfloat16 or max(x.shape[-2:]) > _SMALL:
            return super().forward(x)
        if not torch.cpu._is_amx_tile_supported():  # noqa: SLF001 - no public function tells it
            return super().forward(x)
        return convolve_by_mosaic(x.to(dtype), self.weight.to(dtype))
