"""--activation-checkpointing: what lies inside a block is computed again in the backward pass instead of being kept.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174. The seam to torch.utils.checkpoint,
which has learnt other ways of doing it over the versions.
"""
import contextlib
import inspect
from typing import Any, Iterator

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@contextlib.contextmanager
def _statistics_aside(part: nn.Module) -> Iterator[None]:
    """BatchNorm moves copies of its running statistics for as long, which are then forgotten."""
    kept = [(module, dict(module._buffers)) for module in part.modules() if module._buffers]
    for module, buffers in kept:
        module._buffers.update((name, value if value is None else value.clone()) for name, value in buffers.items())
    try:
        yield
    finally:
        for module, buffers in kept:
            module._buffers.update(buffers)


def recomputed(part: nn.Module, x: Tensor) -> Tensor:
    """part(x), of which only x is kept for the backward pass. The part must draw no random numbers.

    Its running statistics move once, and the result and the gradients are what they are without.
    """
    again = False

    def forward(x: Tensor) -> Any:
        nonlocal again
        first, again = not again, True
        with contextlib.nullcontext() if first else _statistics_aside(part):
            return part(x)

    if "use_reentrant" in inspect.signature(checkpoint).parameters:
        return checkpoint(forward, x, use_reentrant=False, preserve_rng_state=False)
    return checkpoint(forward, x, preserve_rng_state=False)


def set_recomputation(net: nn.Module, on: bool) -> None:
    """Switches it on or off in all parts of a network that know it."""
    for module in net.modules():
        if hasattr(module, "recompute"):
            setattr(module, "recompute", on)  # noqa: B010
