"""The Global Reasoning unit: Chen et al., "Graph-Based Global Reasoning Networks", CVPR 2019, arXiv 1811.12814.

Letters: N batch, C channels, L positions (T*H*W frames, rows, columns), S states of a node, V nodes of the graph.
"""
from typing import Optional

import torch
from torch import Tensor, nn

from network import execution
from network.folded_glore import glore_unit, worth_it
from network.workspace import Workspace

BN_EPS = 1e-4

# dimension -> (convolution of the features, the same at its input's precision, normalisation at its input's precision)
_LAYERS = {
    1: (nn.Conv1d, execution.PointwiseConv1d, execution.PromotedNorm1d),
    2: (nn.Conv2d, execution.PointwiseConv2d, execution.PromotedNorm2d),
    3: (nn.Conv3d, execution.PointwiseConv3d, execution.PromotedNorm3d),
}


class GraphConv(nn.Module):
    """Reasoning on the graph: spread over the nodes (I - A), then update each node's states (the paper's eq. 2)."""

    def __init__(self, num_state: int, num_node: int) -> None:
        super().__init__()
        self.conv1 = execution.PointwiseConv1d(num_node, num_node, kernel_size=1)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = execution.PointwiseConv1d(num_state, num_state, kernel_size=1, bias=False)

    def forward(self, nodes: Tensor) -> Tensor:
        """Node states (N, S, V) -> new node states (N, S, V)."""
        spread = self.conv1(nodes.transpose(1, 2)).transpose(1, 2)      # (N, V, S) -> (N, S, V)
        return self.conv2(self.relu(spread + nodes))                    # (N, S, V)


class GloReUnit(nn.Module):
    """Global reasoning as a residual unit: project to a graph, reason there, project back, add.

    num_in is the width C of the features, num_mid the number of nodes V; a node has S = 2 * num_mid states. A fresh
    unit is the identity. Input and output: (N, C, L), (N, C, H, W) or (N, C, T, H, W) for dimension 1, 2 or 3.
    The node states are a sum over all positions: from there to the blocker everything is computed in float32 at
    least, also under autocast and with half weights; the output has the input's type. `normalize` divides by L.
    `full_precision(x)` is the context that switches casting off; who casts by other means than autocast sets another.
    With a `folded` workspace it is computed by network/folded_glore.py where that is possible.
    """

    folded: Optional[Workspace] = None
    full_precision = staticmethod(execution.full_precision)

    def __init__(self, num_in: int, num_mid: int, dimension: int = 3, normalize: bool = False) -> None:
        super().__init__()
        if dimension not in _LAYERS:
            raise ValueError("dimension must be 1, 2 or 3, not %r" % (dimension,))
        feature_conv, pointwise_conv, norm = _LAYERS[dimension]
        self.normalize = normalize
        self.num_state = 2 * num_mid
        self.num_node = num_mid
        self.conv_state = feature_conv(num_in, self.num_state, kernel_size=1)
        self.conv_proj = feature_conv(num_in, self.num_node, kernel_size=1)
        self.gcn = GraphConv(self.num_state, self.num_node)
        self.conv_extend = pointwise_conv(self.num_state, num_in, kernel_size=1, bias=False)
        self.blocker = norm(num_in, eps=BN_EPS)
        nn.init.zeros_(self.blocker.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) -> (N, C, ...), equal shapes and type."""
        if self.folded is not None and execution.can_fold(self, x) and worth_it(self, x):
            return glore_unit(self, x)
        state = self.conv_state(x).flatten(2)                           # (N, S, L)
        proj = self.conv_proj(x).flatten(2)                             # (N, V, L)
        with self.full_precision(x):
            state, proj = execution.promote(state), execution.promote(proj)
            nodes = torch.matmul(state, proj.transpose(1, 2))           # (N, S, L) (N, L, V) -> (N, S, V)
            if self.normalize:
                nodes = nodes / proj.shape[2]                           # (N, S, V)
            nodes = self.gcn(nodes)                                     # (N, S, V)
            back = torch.matmul(nodes, proj)                            # (N, S, V) (N, V, L) -> (N, S, L)
            back = back.reshape(back.shape[:2] + x.shape[2:])           # (N, S, ...)
            reasoned = self.blocker(self.conv_extend(back))             # (N, C, ...)
        return x + reasoned.to(x.dtype)                                 # (N, C, ...)
