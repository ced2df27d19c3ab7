"""Parameter groups and the SGD trajectory against the reference."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from network import build_network
from train.optim import build_sgd, parameter_groups, set_rate

GOLDEN = Path(__file__).parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))
from formula import Small, det_input, det_rng, load_det  # noqa: E402

GROUPS = json.loads((GOLDEN / "f_sgd.json").read_text())["groups"]


@pytest.mark.parametrize("fine_tune", [False, True])
def test_every_parameter_has_the_references_multiplier_and_decay(fine_tune):
    network = build_network("RESNET50_3D_GCN_X5", 101)
    expected = {}
    for group in GROUPS["fine_tune=%s" % fine_tune].values():
        expected.update({name: (group["lr_mult"], group["weight_decay"]) for name in group["members"]})
    found = {name: (group["lr_multiplier"], group["weight_decay"])
             for group in parameter_groups(network.named_parameters(), 1e-4, fine_tune) for name in group["names"]}
    assert found == expected
    assert len(found) == len(list(network.parameters()))


def test_the_plain_optimizer_is_the_loop_over_tensors():
    groups = parameter_groups(Small().named_parameters(), 1e-4, False)
    optimizer = build_sgd(groups, 0.1, plain=True)
    assert all(not group.get("fused") and not group.get("foreach") for group in optimizer.param_groups)
    assert (optimizer.defaults["momentum"], optimizer.defaults["nesterov"]) == (0.9, True)


@pytest.mark.parametrize("fine_tune", [False, True])
def test_trajectory_equals_the_references(fine_tune):
    golden = np.load(str(GOLDEN / "f_sgd.npz"))
    net = load_det(Small(), torch.float64)
    with torch.no_grad():
        net.blocker.weight.copy_(torch.from_numpy(1.0 + 0.1 * det_rng("blocker.weight").standard_normal((5,))))
    net.train()
    inputs = torch.from_numpy(det_input((10, 8, 6), "sgd_x"))
    labels = torch.from_numpy(det_rng("sgd_y").randint(0, 3, (10, 8)))
    optimizer = build_sgd(parameter_groups(net.named_parameters(), 1e-2, fine_tune), 0.1)
    for step in range(10):
        set_rate(optimizer, 0.1 * 0.8**step)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(inputs[step]), labels[step]).backward()
        optimizer.step()
        for name, parameter in net.named_parameters():
            expected = golden["ft%d/plain_group_name_none/step%02d/%s" % (fine_tune, step, name)]
            np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-12, atol=1e-14, err_msg=name)
