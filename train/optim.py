"""Parameter groups as named rows, handed to torch.optim.SGD. Two numbers say it all: the rate's multiplier and the
decay.
"""

import inspect
from typing import Any, Dict, Iterable, List, NamedTuple, Tuple

import torch

from train.log import LOGGER


class GroupRow(NamedTuple):
    """One kind of parameter."""

    name: str
    lr_multiplier: float
    decays: bool


GROUPS = (GroupRow("weights", 1.0, True), GroupRow("biases", 1.0, False), GroupRow("slow weights", 0.5, True),
          GroupRow("slow biases", 0.5, False))


def group_of(parameter_name: str, fine_tune: bool) -> GroupRow:
    """The row of a parameter: slow where its name holds `conv_m2` (fine-tuning: everywhere but in `classifier`);
    biases do not decay.
    """
    slow = "classifier" not in parameter_name if fine_tune else "conv_m2" in parameter_name
    return GROUPS[2 * slow + parameter_name.endswith(".bias")]


def parameter_groups(named_parameters: Iterable[Tuple[str, torch.Tensor]], weight_decay: float,
                     fine_tune: bool) -> List[Dict[str, Any]]:
    """Groups for torch.optim.SGD, in the order of GROUPS, empty ones left out; `names` says who is in each."""
    members: Dict[str, List[Tuple[str, torch.Tensor]]] = {row.name: [] for row in GROUPS}
    for name, parameter in named_parameters:
        members[group_of(name, fine_tune).name].append((name, parameter))
    return [
        {"params": [p for _, p in members[row.name]], "names": [n for n, _ in members[row.name]], "group": row.name,
         "lr_multiplier": row.lr_multiplier, "weight_decay": weight_decay if row.decays else 0.0}
        for row in GROUPS
        if members[row.name]
    ]


def build_sgd(groups: List[Dict[str, Any]], rate: float, plain: bool = False) -> torch.optim.SGD:
    """SGD with Nesterov momentum 0.9; one fused kernel updates its tensors where this PyTorch has one for them.

    `plain` asks for the loop over tensors instead: what a faster step is measured against.
    """
    options: Dict[str, Any] = {}
    known = inspect.signature(torch.optim.SGD.__init__).parameters
    if plain:
        options.update({"foreach": False} if "foreach" in known else {})
    elif "fused" not in known:
        LOGGER.info("SGD updates tensor by tensor: this PyTorch has no fused kernel for it")
    # PyTorch 2.13's fused SGD leaves bf16 tensors on the CPU unchanged, so only full precision goes there.
    elif all(p.device.type in ("cpu", "cuda") and p.dtype in (torch.float32, torch.float64)
             for group in groups for p in group["params"]):
        options["fused"] = True
    return torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True, **options)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Gives every group the rate times its multiplier."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_multiplier"]
