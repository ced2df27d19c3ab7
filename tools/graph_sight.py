"""What a GloRe unit does with a clip, in numbers: what its nodes gather, tell each other and give back.

Letters as in network/glore.py: N clip, C channel, T frames, H rows, W columns, S states of a node, V nodes.
"""
from collections import OrderedDict
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np
import torch
from torch import nn

from network.glore import GloReUnit

HEARD = 5  # nodes that a node's record names as those it hears most of


class Sight(NamedTuple):
    """One unit and one clip. Of a matrix of relations the row is the node that hears, the column the one that tells."""

    unit: str  # its name in the network
    maps: np.ndarray  # (V, T, H, W) the weights by which a node gathers a position, and is given back to it
    states: np.ndarray  # (V, S) what it gathered
    told: np.ndarray  # (V, S) what the relations add to that
    answers: np.ndarray  # (V, C) what it then gives back to a position of weight 1, as features
    relations: np.ndarray  # (V, V) learned weights, the same for every clip
    adds: float  # size of all that the unit adds to the features, in that of the features


class UnitWatch:
    """Keeps what a unit computes for the batch that the network has just seen; the unit computes as ever."""

    def __init__(self, name: str, unit: Any) -> None:
        self.name = name
        self._unit = unit
        self._seen: Dict[str, Tuple[torch.Tensor, torch.Tensor]] = {}  # part -> its input and output
        parts = {"unit": unit, "proj": unit.conv_proj, "gcn": unit.gcn, "spread": unit.gcn.conv1}
        self._hooks = [part.register_forward_hook(self._keep(key)) for key, part in parts.items()]

    def _keep(self, key: str) -> Any:
        def hook(_: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            self._seen[key] = (inputs[0].detach(), output.detach())
        return hook

    def stop(self) -> None:
        """Leaves the unit as it was."""
        for hook in self._hooks:
            hook.remove()
        self._seen.clear()

    def sights(self) -> List[Sight]:
        """One for each clip of the batch."""
        unit, seen = self._unit, self._seen
        before, after = seen["unit"]                                    # (N, C, T, H, W) each
        adds = (after - before).flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1).clamp(min=1e-12)  # (N,)
        scale = unit.blocker.weight * torch.rsqrt(unit.blocker.running_var + unit.blocker.eps)          # (C,)
        extend = unit.conv_extend.weight.detach().flatten(1) * scale.detach()[:, None]                  # (C, S)
        answers = torch.matmul(extend, seen["gcn"][1]).transpose(1, 2)  # (C, S) (N, S, V) -> (N, V, C)
        rows = zip(_numbers(seen["proj"][1]), _numbers(seen["gcn"][0].transpose(1, 2)), _numbers(seen["spread"][1]),
                   _numbers(answers), adds.tolist())
        relations = _numbers(unit.gcn.conv1.weight.detach().squeeze(2))  # (V, V)
        return [Sight(self.name, maps, states, told, answer, relations, share)
                for maps, states, told, answer, share in rows]


def _numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.cpu().double().numpy()


def units_of(network: nn.Module) -> "OrderedDict[str, Any]":
    """The network's GloRe units by name, from the first to the last."""
    return OrderedDict((name, part) for name, part in network.named_modules() if isinstance(part, GloReUnit))


def given_back(sight: Sight) -> np.ndarray:
    """(V,) how much of each node is in what the unit adds to the features: |b| |g|, with b the node's map (T, H, W) and
    g its answer (C,). What the unit adds is the sum of the outer products g b over the nodes, and an offset which is
    the same at every position.
    """
    return np.sqrt((sight.maps ** 2).sum((1, 2, 3)) * (sight.answers ** 2).sum(1))


def top_nodes(sight: Sight, count: int) -> List[int]:
    """The nodes that give back most, the first first; of equal ones that of the lower number."""
    return [int(node) for node in np.argsort(-given_back(sight), kind="stable")[:count]]


def variation(sight: Sight) -> np.ndarray:
    """(V,) which part of a map's mean square is not its mean's: 0 where a node gathers all positions alike."""
    squares = (sight.maps ** 2).mean((1, 2, 3))
    return sight.maps.var((1, 2, 3)) / np.maximum(squares, 1e-30)


def arriving(sight: Sight) -> np.ndarray:
    """(V, V) what a node hears of another in this clip: the learned weight times the size of the other's state."""
    return sight.relations * np.sqrt((sight.states ** 2).sum(1))


def among(sight: Sight, nodes: Sequence[int]) -> float:
    """Which part of all that arrives at these nodes from others comes from these nodes: in sums of absolute values."""
    arrives = np.abs(arriving(sight))
    np.fill_diagonal(arrives, 0)
    return float(arrives[np.ix_(list(nodes), list(nodes))].sum() / max(arrives[list(nodes)].sum(), 1e-30))


def changed(sight: Sight) -> np.ndarray:
    """(V,) size of what the relations add to a node's state, in that of the state."""
    sizes = np.sqrt((sight.states ** 2).sum(1))
    return np.sqrt((sight.told ** 2).sum(1)) / np.maximum(sizes, 1e-30)


def record(sight: Sight, nodes: Sequence[int]) -> Dict[str, Any]:
    """The unit and these nodes as plain data."""
    back, varies, change, arrives = given_back(sight), variation(sight), changed(sight), arriving(sight)
    chosen = np.ix_(list(nodes), list(nodes))
    told = []
    for node in nodes:
        heard = np.argsort(-np.abs(arrives[node]), kind="stable")[:HEARD]
        told.append({
            "node": node, "gives_back": _short(back[node]), "varies": _short(varies[node]),
            "changed_by_relations": _short(change[node]),
            "hears": [{"node": int(other), "weight": _short(sight.relations[node, other]),
                       "arrives": _short(arrives[node, other])} for other in heard],
            "map": _short(sight.maps[node])})
    count, *shape = sight.maps.shape
    return {"unit": sight.unit, "nodes": count, "states": sight.states.shape[1], "map_shape": shape,
            "adds": _short(sight.adds), "told_by_one_another": _short(among(sight, nodes)), "top": told,
            "relations": {"weight": _short(sight.relations[chosen]), "arrives": _short(arrives[chosen])}}


def _short(values: Any) -> Any:
    """A number, or nested lists of them, in five digits."""
    if np.ndim(values):
        return [_short(value) for value in values]
    return float("%.5g" % values)
