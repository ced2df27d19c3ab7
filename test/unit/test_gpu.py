"""What wants a CUDA GPU: run by benchmarks/gpu.sh, skipped elsewhere."""

import json

import pytest
import torch
from conftest import SMALL_CLIPS

import train_model
from network import build_network
from network.execution import set_execution
from train.amp import Precision, resolve_dtype
from train.device import half_dtype
from train.loop import Slots, Trainer
from train.optim import build_sgd, parameter_groups
from train.schedule import LearningRate

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]


class _Batch:
    def __init__(self, clip, label):
        self.clip, self.label = clip, label


def _losses(level, device, steps=3, accumulate=1, **execution):
    torch.manual_seed(0)
    network = build_network("RESNET50_3D_GCN_X5", 5)
    network.dropout.p = 0.0
    precision = Precision(level, resolve_dtype(level, "auto", half_dtype(device)), device, 128.0)
    network.to(device)
    if execution:
        set_execution(network, half=precision.half, **execution)
    parameters = precision.prepare(network)
    trainer = Trainer(network, build_sgd(parameter_groups(parameters, 1e-4, False), 0.01), LearningRate(0.01, 0),
                      precision, lambda batch: batch.clip.to(precision.input_dtype), 1, Slots(accumulate=accumulate))
    trainer.model.train()
    torch.manual_seed(1)
    batch = _Batch(torch.randn(4, 3, 8, 64, 64).to(device), torch.tensor([0, 1, 2, 3]).to(device))
    losses = []
    for number in range(1, steps + 1):
        for micro in range(accumulate):
            assert trainer.step(batch, number, micro)
        losses.append(trainer.metrics.compute().loss)
        trainer.metrics.reset()
    return losses


@pytest.mark.parametrize("level, tolerance", [("O0", 2e-2), ("O1", 5e-2), ("O2", 5e-2), ("O3", 0.2)])
def test_each_level_trains_as_the_cpu_does_in_fp32(level, tolerance):
    expected = _losses("O0", torch.device("cpu"))
    found = _losses(level, torch.device("cuda", 0))
    assert found == pytest.approx(expected, rel=tolerance)
    assert found[-1] < found[0]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_cuda_graphs_train_as_pytorchs_layers_do(accumulate):
    device = torch.device("cuda", 0)
    expected = _losses("O2", device, 6, accumulate)
    found = _losses("O2", device, 6, accumulate, name="compiled", cuda_graphs=True)  # recorded at the second step
    assert found == pytest.approx(expected, rel=5e-2)


def test_the_main_job_runs_and_evaluates_exactly(tiny_videos, tmp_path):
    options = "--batch-size 6 --end-epoch 1 --device cuda --amp --workers 2 --task-name t".split()
    options += ["--data-root", str(tiny_videos), "--model-dir", str(tmp_path)]
    assert train_model.main(SMALL_CLIPS + options) == 0
    result = json.loads((tmp_path / "t" / "result.json").read_text())
    assert (result["name"], result["num_videos"], result["amp_type"]) == ("1p-CUDA", 9, "O2")
    assert result["peak_memory_bytes"] > 0
