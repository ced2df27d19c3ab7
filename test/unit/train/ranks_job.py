"""What test_ranks.py looks at: 1, 2, 3 and 8 real processes train, re-estimate, normalise and evaluate the same things.

    python ranks_job.py FOLDER     -> FOLDER/WORLD-RANK.json, numbers of a rank of a world
"""
import hashlib
import json
import multiprocessing
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from data.clip_dataset import ClipSample, collate_clips
from data.loaders import TrainSampler, eval_loader
from network.recomputation import set_recomputation
from network.resnet3d import GloReResNet3d, NetworkSpec, StageSpec
from network.weights import initialize
from train import distributed
from train.amp import Precision
from train.config import TrainConfig
from train.ema import AveragedWeights
from train.evaluate import evaluate
from train.gradient_norm import GradientNorm
from train.loop import Slots, Trainer
from train.optim import build_sgd, parameter_groups
from train.precise_bn import reestimate_statistics
from train.schedule import LearningRate
from train.sync_bn import SyncNorm, synchronize_norms

CPU = torch.device("cpu")
WORLDS, SET_SIZES, CLASSES = (1, 2, 3, 8), (0, 1, 2, 7, 8, 9, 101), 5
SAMPLES, GLOBAL_BATCH, EPOCHS = 101, 24, 2
STAGES = (StageSpec("conv2", 1, 4, 8, (1, 1, 1), (1,)), StageSpec("conv3", 1, 8, 16, (2, 2, 2), (), (1,)),
          StageSpec("conv4", 1, 8, 16, (1, 2, 2), (1,)), StageSpec("conv5", 1, 8, 16, (1, 2, 2), ()))


class Clips:
    """A data set of `size` clips of 2x2 pixels; every eleventh cannot be read."""

    clip_shape, num_clips = (1, 2, 2, 3), 1

    def __init__(self, size):
        self.size, self.videos = size, range(size)

    def __len__(self):
        return self.size

    def __getitem__(self, sample):
        row = sample[1]
        clip = np.random.RandomState(row).randint(0, 9, self.clip_shape).astype(np.uint8)
        failures = (("clip %d" % row, "broken"),) if row % 11 == 3 else ()
        return ClipSample(clip, row * 7 % CLASSES, row, (0, 0, 0), (0.0, 0.0), 0, not failures, failures, False)


def as_float(batch):
    """(N, T, H, W, C) uint8 -> (N, C, T, H, W) float32"""
    return batch.clip.permute(0, 4, 1, 2, 3).float()


def whole_numbers(layer):
    """The layer with weights for which sums are exact in any order, and no two classes get the same."""
    with torch.no_grad():
        layer.weight.copy_(torch.arange(layer.weight.numel()).remainder(7).sub(3).view_as(layer.weight).float())
        layer.bias.copy_(torch.arange(len(layer.bias)).float() / 16)
    return layer


def evaluations(rank, world):
    """For each size of set: loss, hits and counts over all ranks, and the matrix of true and given classes."""
    precision, model = Precision("O0", torch.float32, CPU), nn.Sequential(nn.Flatten(), whole_numbers(nn.Linear(12, 5)))
    results = {}
    for size in SET_SIZES:
        seen = []
        model.register_forward_hook(lambda _, inputs, logits: seen.append(logits.argmax(1)))  # noqa: B023
        batches = eval_loader(Clips(size), rank, world, 3, 0, False)
        scores = evaluate(model, batches, as_float, precision)
        matrix = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)
        for batch, given in zip(batches, seen):
            for label, answer, readable in zip(batch.label, given, batch.readable):
                matrix[label, answer] += int(readable)
        model._forward_hooks.clear()
        results[size] = [list(scores), distributed.all_reduce_sum(matrix).tolist(), sum(len(s) for s in seen)]
    return results


def training(rank, world, accumulate=1):
    """Samples of each step, and the weights at the end."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    precision, config = Precision("O0", torch.float32, CPU), TrainConfig(lr_base=0.001, scale_lr=True)
    optimizer = build_sgd(parameter_groups(precision.prepare(net), 1e-2, False), 0.1)
    sampler = TrainSampler(SAMPLES, GLOBAL_BATCH // world // accumulate, rank, world, 3, accumulate=accumulate)
    schedule = LearningRate(config.rate(sampler.global_batch), 2)
    trainer = Trainer(distributed.wrap(net, CPU), optimizer, schedule, precision, as_float, 1,
                      Slots(rank, world, accumulate))
    clips, taken = Clips(SAMPLES), []
    for epoch in range(EPOCHS):
        sampler.set_position(epoch)
        for ids in sampler:
            number, micro = divmod(len(taken), accumulate)
            taken.append([sample for _, sample in ids])
            trainer.step(collate_clips([clips[sample] for sample in ids]), number + 1, micro)
    scores, norm = trainer.metrics.compute(distributed.all_reduce_sum), nn.BatchNorm3d(2)
    norm.running_mean.fill_(float(rank))
    distributed.average_buffers(norm)
    return {"taken": taken, "rate": schedule(100), "scores": list(scores), "mean": norm.running_mean.tolist(),
            "weights": [p.detach().flatten().tolist() for p in net.parameters()]}


def normed(kind=torch.float64):
    torch.manual_seed(0)
    layers = (nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, CLASSES))
    return nn.Sequential(*layers).to(kind)


def synchronised(rank, world):
    """Gradients and statistics of two steps of a network whose BatchNorm is over all ranks."""
    net = normed()
    names = list(net.state_dict())
    net = synchronize_norms(net, CPU)
    assert isinstance(net[1], SyncNorm) == (world > 1) and list(net.state_dict()) == names
    model, share = distributed.wrap(net, CPU), GLOBAL_BATCH // world
    for step in range(2):
        rows = range(step * GLOBAL_BATCH + rank * share, step * GLOBAL_BATCH + (rank + 1) * share)
        batch = collate_clips([Clips(SAMPLES)[0, row] for row in rows])
        nn.functional.cross_entropy(model(as_float(batch).double()), batch.label).backward()
    net.eval()
    return {"gradients": [p.grad.flatten().tolist() for p in net.parameters()], "answer": net(
        torch.ones(1, 3, 1, 2, 2, dtype=torch.float64)).flatten().tolist(),
        "statistics": [net[1].running_mean.tolist(), net[1].running_var.tolist(), int(net[1].num_batches_tracked)]}


def reestimated(rank, world):
    """Precise BN over 24 batches of four clips, dealt to the ranks."""
    net, clips = normed(torch.float32), Clips(SAMPLES)
    batches = [collate_clips([clips[0, 4 * number + i] for i in range(4)]) for number in range(rank, 24, world)]
    total = reestimate_statistics(net, [lambda batch=batch: net(as_float(batch)) for batch in batches],
                                  distributed.all_reduce_sum)
    return [net[1].running_mean.tolist(), net[1].running_var.tolist(), total]


def with_everything(rank, world, recompute):
    """A digest of a small network and of its average after three steps with all that a step can do."""
    torch.manual_seed(0)
    net = GloReResNet3d(NetworkSpec("TINY", STAGES, "none.pth", "nothing"), CLASSES)
    initialize(net)
    set_recomputation(net, recompute)
    precision = Precision("O0", torch.float32, CPU)
    optimizer = build_sgd(parameter_groups(precision.prepare(net), 1e-2, False), 0.1)
    ema, limit = AveragedWeights(precision, net, 0.9), GradientNorm(0.5, CPU)
    trainer = Trainer(distributed.wrap(net, CPU), optimizer, LearningRate(0.1, 2), precision, as_float, 1,
                      Slots(rank, world, 2), gradient_norm=limit, ema=ema)
    trainer.model.train()
    torch.manual_seed(rank)
    for number in (1, 2, 3):
        for micro in (0, 1):
            batch = collate_clips([Clips(SAMPLES)[0, row] for row in (0, 1)])
            trainer.step(batch._replace(clip=torch.randn(2, 4, 32, 32, 3)), number, micro)
    assert limit.mean() > 0.5
    distributed.average_buffers(net)
    with ema.in_place():
        distributed.average_buffers(net)
    digest = hashlib.sha256()
    for state in (net.state_dict(), ema.weights()):
        for value in state.values():
            digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def process(rank, folder):
    """One rank of each world that has it."""
    torch.set_num_threads(1)
    for world in WORLDS:
        if rank < world:
            distributed.start(distributed.Ranks(rank, rank, world), "gloo", "file://%s/meet-%d" % (folder, world), 100)
            found = {"evaluations": evaluations(rank, world), "training": training(rank, world),
                     "synchronised": synchronised(rank, world),
                     "accumulated": training(rank, world, 8 // world), "reestimated": reestimated(rank, world)}
            if world == 2:
                found["everything"] = [with_everything(rank, world, recompute) for recompute in (False, True)]
            distributed.barrier(CPU)
            distributed.stop()
            Path(folder, "%d-%d.json" % (world, rank)).write_text(json.dumps(found))


if __name__ == "__main__":
    torch.optim.SGD([torch.ones(1, requires_grad=True)], 0.1).step()  # what torch loads late, once for all
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=process, args=(number, sys.argv[1])) for number in range(max(WORLDS))]
    for one in processes:
        one.start()
    for one in processes:
        one.join()
    sys.exit(max(abs(one.exitcode) for one in processes))
