"""Flow in a mirror, against the tool that writes flow; and the numbers that the network sees."""
import numpy as np
import pytest

from data.modalities import MODALITIES, NEGATED, NO_MOTION
from dataset.frames import flow_levels
from train import config

PIXELS = np.append(np.random.RandomState(1).uniform(-25, 25, 100000), 0)  # no other tie between two levels among them


def test_the_opposite_flow_is_what_would_have_been_written_for_it():
    wanted, got = flow_levels(-PIXELS), NEGATED[flow_levels(PIXELS)]
    off = wanted != got
    hair = 1 / 6.375 + 1e-9  # pixels of one level: above 0 they have the level of no motion too
    assert ((PIXELS[off] > 0) & (PIXELS[off] < hair)).all() and off.mean() < 0.005
    assert np.abs(wanted.astype(int) - got).max() == 1
    assert got[PIXELS == 0] == wanted[PIXELS == 0] == NO_MOTION == flow_levels(np.zeros(1))[0]
    assert NEGATED.dtype == np.uint8 and NEGATED[[0, 1, 100, 127, 128, 155, 254, 255]].tolist() == [
        255, 254, 155, 128, 128, 100, 1, 0]


def test_no_motion_is_nothing_to_the_network():
    flow, rgb = MODALITIES["flow"], MODALITIES["rgb"]
    assert (flow.channels, rgb.channels) == (2, 3) and rgb.coloured and not flow.coloured
    assert [mean * 255 for mean in flow.mean] == [128, 128]
    assert flow.std == rgb.std == pytest.approx(0.2348244, abs=1e-7)


def test_the_options_choices_are_the_rows():
    assert config.MODALITIES == tuple(MODALITIES)
