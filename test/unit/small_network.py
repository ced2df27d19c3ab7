"""A network of the table made so small that a test may train it: one narrow block a stage, the strides as they are."""
import contextlib

import pytest

from network import NETWORKS

NAME = "RESNET50_3D"


@contextlib.contextmanager
def small_network():
    """For as long as it lasts RESNET50_3D is that network, wherever it is built."""
    spec = NETWORKS[NAME]
    stages = tuple(stage._replace(blocks=1, mid=4, out=8 * (number + 1), temporal=(1,))
                   for number, stage in enumerate(spec.stages))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, NAME, spec._replace(stages=stages))
        yield NAME
