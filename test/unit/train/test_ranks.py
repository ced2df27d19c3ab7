"""1, 2, 3 and 8 real processes (gloo): the same samples, the same weights, the same counts."""
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from ranks_job import CLASSES, EPOCHS, GLOBAL_BATCH, SAMPLES, SET_SIZES, WORLDS, Clips, whole_numbers
from torch import nn

SEVERAL = WORLDS[1:]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """world -> what each of its ranks wrote"""
    folder = tmp_path_factory.mktemp("ranks")
    job = Path(__file__).resolve().parent / "ranks_job.py"
    subprocess.run([sys.executable, str(job), str(folder)], check=True, timeout=300)
    return {world: [json.loads((folder / ("%d-%d.json" % (world, rank))).read_text()) for rank in range(world)]
            for world in WORLDS}


@pytest.mark.parametrize("size", SET_SIZES)
def test_evaluation_is_exact_for_every_number_of_processes_and_videos(found, size):
    layer, matrix, hits = whole_numbers(nn.Linear(12, CLASSES)), np.zeros((CLASSES, CLASSES), int), 0
    clips = [Clips(size)[0, row] for row in range(size)]
    for clip in clips:  # counted by hand
        pixels = clip.clip.transpose(3, 0, 1, 2).reshape(-1)
        logits = layer.weight.detach().numpy() @ pixels + layer.bias.detach().numpy()
        if clip.readable:
            matrix[clip.label, logits.argmax()] += 1
            hits += logits.argmax() == clip.label
    alone = found[1][0]["evaluations"][str(size)][0]
    assert alone[1] * max(size, 1) == pytest.approx(hits) and alone[3:] == [size, sum(not c.readable for c in clips)]
    for world in WORLDS:
        shares = [rank["evaluations"][str(size)][2] for rank in found[world]]
        assert sum(shares) == size and max(shares) - min(shares) <= 1  # none padded
        for rank in found[world]:
            assert rank["evaluations"][str(size)][:2] == [alone, matrix.tolist()]


@pytest.mark.parametrize("world", SEVERAL)
def test_a_step_takes_the_same_samples_on_any_number_of_processes(found, world):
    steps = [rank["training"]["taken"] for rank in found[world]]
    joined = [sum((rank[step] for rank in steps), []) for step in range(len(steps[0]))]
    assert joined == found[1][0]["training"]["taken"]
    per_epoch = SAMPLES // GLOBAL_BATCH
    assert len(joined) == EPOCHS * per_epoch
    for epoch in range(EPOCHS):
        samples = sum(joined[epoch * per_epoch:(epoch + 1) * per_epoch], [])
        assert len(set(samples)) == len(samples) == per_epoch * GLOBAL_BATCH
    assert joined[0] != joined[per_epoch]


@pytest.mark.parametrize("world", SEVERAL)
def test_training_on_several_ends_as_on_one(found, world):
    alone = found[1][0]["training"]
    assert alone["rate"] == pytest.approx(0.001 * GLOBAL_BATCH / 4)
    assert alone["scores"][3] == EPOCHS * (SAMPLES // GLOBAL_BATCH) * GLOBAL_BATCH
    for rank in found[world]:
        assert rank["training"]["rate"] == alone["rate"] and rank["training"]["mean"] == [(world - 1) / 2] * 2
        assert rank["training"]["scores"] == pytest.approx(alone["scores"], rel=1e-5)
        assert rank["training"]["weights"] == found[world][0]["training"]["weights"]
        for one, other in zip(rank["training"]["weights"], alone["weights"]):
            assert one == pytest.approx(other, rel=1e-5, abs=1e-6)


def test_micro_batches_of_few_processes_are_the_batches_of_many(found):
    eight = [found[8][rank]["training"] for rank in range(8)]
    for world in (1, 2):
        for rank in range(world):
            micro = found[world][rank]["accumulated"]
            steps = zip(*(one["taken"] for one in eight[rank::world]))
            assert micro["taken"] == [taken for step in steps for taken in step]
            for one, other in zip(micro["weights"], eight[0]["weights"]):
                assert one == pytest.approx(other, rel=1e-5, abs=1e-6)


def test_two_processes_agree_on_every_bit_with_all_options_of_a_step_and_recomputed_blocks(found):
    assert len({digest for rank in found[2] for digest in rank["everything"]}) == 1


@pytest.mark.parametrize("world", SEVERAL)
def test_synchronised_batchnorm_is_that_of_the_global_batch(found, world):
    alone = found[1][0]["synchronised"]
    for rank in found[world]:
        for name in ("gradients", "statistics"):
            for one, other in zip(rank["synchronised"][name], alone[name]):
                assert one == pytest.approx(other, rel=1e-9, abs=1e-12), name
        assert rank["synchronised"]["answer"] == pytest.approx(alone["answer"], rel=1e-9)


@pytest.mark.parametrize("world", SEVERAL)
def test_precise_batchnorm_pools_the_batches_of_all(found, world):
    mean, var, total = found[1][0]["reestimated"]
    for rank in found[world]:
        assert rank["reestimated"][0] == pytest.approx(mean, rel=1e-5)
        assert rank["reestimated"][1] == pytest.approx(var, rel=1e-5) and rank["reestimated"][2] == total == 24
