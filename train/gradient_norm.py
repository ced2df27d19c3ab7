"""--clip-grad-norm: the norm over all gradients together, held to a limit. Nothing waits for the device: the norms are
added up there and read when a line is logged.
"""

from typing import List, Optional

import torch
from torch import Tensor

_SMALL = 1e-6  # torch's own: keeps the factor finite where all gradients are zero


def total_norm(gradients: List[Tensor]) -> Tensor:
    """The 2-norm of all gradients as one vector, on their device, in single precision at least: ()."""
    exact = [g.float() if g.dtype in (torch.float16, torch.bfloat16) else g for g in gradients]
    if hasattr(torch.nn.utils, "get_total_norm"):
        return torch.nn.utils.get_total_norm(exact)
    return torch.norm(torch.stack([torch.norm(g) for g in exact]))  # older clip_grad_norm_ asks the device


class GradientNorm:
    """Scales a step's gradients, so that their norm is at most `limit`, and keeps count of the norms before."""

    def __init__(self, limit: float, device: torch.device) -> None:
        self.limit = limit
        self._sums = torch.zeros(2, dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)

    def __call__(self, gradients: List[Tensor]) -> None:
        """Clips unscaled gradients in place. With an infinity among them they become useless, and do not count."""
        with torch.no_grad():
            norm = total_norm(gradients)
            factor = (self.limit / (norm + _SMALL)).clamp(max=1.0)
            if hasattr(torch.nn.utils, "get_total_norm"):  # as old as this multiplication by a tensor, or younger
                torch._foreach_mul_(gradients, factor)
            else:
                for gradient in gradients:
                    gradient.mul_(factor)
            finite = torch.isfinite(norm)
            self._sums += torch.stack([torch.where(finite, norm, torch.zeros_like(norm)), finite.to(norm.dtype)])

    def mean(self) -> Optional[float]:
        """The mean norm, before it was limited, of the steps since the last call, where there were any. Reads from the
        device.
        """
        total, count = self._sums.tolist()
        self._sums.zero_()
        return total / count if count else None
