"""Training of one model by several processes."""

import gc

import lightning
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel


def share_of_global_mean(loss: Tensor, count: Tensor) -> Tensor:
    """Weight a process's loss so that the mean over processes is the mean over the global batch.

    DDP and FSDP average gradients over processes in the same way.

    Args:
        loss: Mean over the items of this process's batch, a scalar.
        count: Number of these items, a scalar; 0 if the batch must not be counted.

    Returns:
        The weighted loss; with one process, the loss as it is.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return loss
    processes = torch.distributed.get_world_size()
    if processes == 1:
        return loss
    own = count.to(torch.float32)
    total = own.clone()
    torch.distributed.all_reduce(total)
    return loss * (own * processes / total.clamp(min=1))


def rewrap_ddp(module: lightning.LightningModule) -> None:
    """Wrap the model in DDP again, if it is wrapped.

    DDP reduces only the gradients of parameters that were trainable when the model was wrapped.
    """
    strategy = module.trainer.strategy
    if isinstance(strategy, DDPStrategy) and isinstance(strategy.model, DistributedDataParallel):
        strategy.model = module
        gc.collect()  # the hooks of the old wrapper go only when it is freed
        strategy.configure_ddp()
