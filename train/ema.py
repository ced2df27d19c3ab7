"""--ema-decay: the weights and BatchNorm's statistics averaged over the last steps, in single precision at least.

After each step average += (1 - d) (weights - average), with d the smaller one of the decay and (1 + steps) /
(10 + steps): so that the first weights are soon forgotten, however short the run.
"""

import contextlib
from typing import Any, Dict, Iterator, List, Mapping

import torch
from torch import Tensor, nn

from train.amp import Precision
from train.buffers import flat_buffers


class AveragedWeights:
    """The average of a prepared network's weights: of the masters, where there are any. It starts as what they are."""

    def __init__(self, precision: Precision, module: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self._precision, self._module = precision, module
        live = precision.exact(module)
        self._names = [name for name, value in live.items() if value.is_floating_point()]
        self._live = [live[name] for name in self._names]
        self._average: List[Tensor] = [value.clone() for value in _promoted(self._live)]
        buffers = {name for name, _ in module.named_buffers()}
        self._statistics = [average for name, average in zip(self._names, self._average) if name in buffers]

    def update(self) -> None:
        """Takes note of a step."""
        self.steps += 1
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            live = _promoted(self._live)
            if hasattr(torch, "_foreach_lerp_"):
                torch._foreach_lerp_(self._average, live, weight)
            else:
                for average, value in zip(self._average, live):
                    average.lerp_(value, weight)

    def weights(self) -> Dict[str, Tensor]:
        """The average as a state dict of the network; whole numbers are the network's own."""
        averages = dict(zip(self._names, self._average))
        return {name: averages.get(name, value) for name, value in self._precision.exact(self._module).items()}

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The network holds the average for as long; what becomes of its BatchNorm statistics there stays with it, if
        no error ends that.
        """
        own = {name: value.clone() for name, value in self._precision.exact(self._module).items()}
        self._precision.load_state_dict_into(self._module, self.weights())
        try:
            yield
            self.put_statistics(flat_buffers(self._module))
        finally:
            self._precision.load_state_dict_into(self._module, own)

    def statistics(self) -> Tensor:
        """BatchNorm's statistics as train.buffers gives a network's: (sum of sizes,)."""
        return torch.cat([average.reshape(-1) for average in self._statistics]) if self._statistics else torch.zeros(0)

    def put_statistics(self, flat: Tensor) -> None:
        """Takes them over."""
        for average, part in zip(self._statistics, flat.split([average.numel() for average in self._statistics])):
            average.copy_(part.view_as(average))

    def state_dict(self) -> Dict[str, Any]:
        """For a checkpoint: decay, steps and weights, on the host."""
        weights = {name: value.detach().cpu().clone() for name, value in self.weights().items()}
        return {"decay": self.decay, "steps": self.steps, "weights": weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a checkpoint's average, with this run's decay."""
        self.steps = int(state["steps"])
        self._copy(state["weights"])

    def restart(self) -> None:
        """Starts again from the weights as they are."""
        self.steps = 0
        self._copy(self._precision.exact(self._module))

    def _copy(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, average in zip(self._names, self._average):
                average.copy_(weights[name])


def _promoted(tensors: List[Tensor]) -> List[Tensor]:
    """Half types as float32, the rest as it is."""
    return [t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in tensors]
