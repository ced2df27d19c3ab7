"""The Global Reasoning unit with its products reassociated: a tenth of the traffic, half of the multiplications.

With P the projection (V, L) of x (C, L): state P' = W_s (x P') + b_s (sum of P)', so the states need no pass of their
own; and W_e (nodes P) = (W_e nodes) P. The blocker's statistics follow from P's mean and covariance, so that it and
the residual sum are one product more. All is float32 or float64, differentiated by autograd.

Letters as in network/glore.py: N batch, C channels, L positions, S states of a node, V nodes of the graph.
"""
from typing import Any

import torch
from torch import Tensor

from network import folded


def _blocker(norm: Any, matrix: Tensor, mean: Tensor, covariance: Tensor, count: int) -> Any:
    """Scale (C,) and offsets (N, C) of BatchNorm over matrix P, (N, C, V) (N, V, L), P of that mean and covariance."""
    centre = torch.bmm(matrix, mean).squeeze(2)                         # (N, C, V) (N, V, 1) -> (N, C)
    if norm.training:
        middle = centre.mean(0)                                         # (C,)
        within = (torch.bmm(matrix, covariance) * matrix).sum(2)        # (N, C, V) (N, V, V) -> (N, C)
        var = (within + (centre - middle) ** 2).mean(0)                 # (C,)
        with torch.no_grad():
            folded.track(norm, middle.detach(), var.detach(), count)
    else:
        middle, var = norm.running_mean, norm.running_var
    scale = norm.weight * torch.rsqrt(var + norm.eps)                   # (C,)
    return scale, (centre - middle) * scale + norm.bias                 # (C,), (N, C)


def worth_it(unit: Any, x: Tensor) -> bool:
    """Whether it multiplies less than the unit's layers: 13 V^2 L + 20 V^3 against 24 V^2 L, with C = 4V and S = 2V."""
    return x[0, 0].numel() > 2 * unit.num_node


def glore_unit(unit: Any, x: Tensor) -> Tensor:
    """What unit(x) is: (N, C, ...) -> (N, C, ...)."""
    flat = x.flatten(2)                                                 # (N, C, L)
    batch, _, length = flat.shape
    proj = torch.matmul(unit.conv_proj.weight.flatten(1), flat)         # (V, C) (N, C, L) -> (N, V, L)
    mean = proj.mean(2, keepdim=True)                                   # (N, V, 1)
    proj = proj - mean                                                  # (N, V, L), sums to zero over L
    mean = mean + unit.conv_proj.bias[:, None]                          # (N, V, 1)
    total = flat.sum(2, keepdim=True)                                   # (N, C, 1)
    gathered = torch.bmm(flat, proj.transpose(1, 2))                    # (N, C, L) (N, L, V) -> (N, C, V)
    gathered = gathered + torch.bmm(total, mean.transpose(1, 2))        # (N, C, 1) (N, 1, V) -> (N, C, V)
    nodes = torch.matmul(unit.conv_state.weight.flatten(1), gathered)   # (S, C) (N, C, V) -> (N, S, V)
    nodes = nodes + length * unit.conv_state.bias[:, None] * mean.transpose(1, 2)       # (S, 1) (N, 1, V) -> (N, S, V)
    if unit.normalize:
        nodes = nodes / length                                          # (N, S, V)
    nodes = unit.gcn(nodes)                                             # (N, S, V)
    matrix = torch.matmul(unit.conv_extend.weight.flatten(1), nodes)    # (C, S) (N, S, V) -> (N, C, V)
    covariance = torch.bmm(proj, proj.transpose(1, 2)) / length if unit.blocker.training else proj  # (N, V, V)
    scale, offset = _blocker(unit.blocker, matrix, mean, covariance, batch * length)
    widened = torch.cat([matrix * scale[:, None], offset[:, :, None]], 2)               # (N, C, V + 1)
    proj = torch.cat([proj, proj.new_ones(batch, 1, length)], 1)        # (N, V + 1, L)
    return torch.baddbmm(flat, widened, proj).view(x.shape)             # (N, C, ...)
