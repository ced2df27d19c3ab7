"""A network's floating-point buffers, which are BatchNorm's statistics, as one vector."""

import torch
from torch import nn


def flat_buffers(model: nn.Module) -> torch.Tensor:
    """What they hold now: (sum of sizes,) float32."""
    found = [b.detach().float().reshape(-1) for b in model.buffers() if b.is_floating_point()]
    return torch.cat(found) if found else torch.zeros(0)


def put_buffers(model: nn.Module, flat: torch.Tensor) -> None:
    """Puts back what flat_buffers gave."""
    buffers = [b for b in model.buffers() if b.is_floating_point()]
    for buffer, part in zip(buffers, flat.split([b.numel() for b in buffers])):
        buffer.copy_(part.view_as(buffer))
