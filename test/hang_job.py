"""A run of the smallest kind, for tests of what happens when a machine or a process goes away: the ranks add ones over
all ranks, again and again, and print their pids and steps.

    torchrun … test/hang_job.py TIMEOUT STEPS PAUSE
"""
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from train import distributed
from train.whereabouts import HERE, LOST


def main(timeout, steps, pause):
    ranks = distributed.read_ranks(True)
    distributed.start(ranks, "gloo", "env://", timeout)
    print("rank %d pid %d" % (ranks.rank, os.getpid()), flush=True)
    try:
        for step in range(1, steps + 1):
            HERE.at("step %d: adding" % step)
            total = distributed.all_reduce_sum(torch.ones(1000))
            assert total.eq(ranks.world_size).all()
            print("rank %d step %d" % (ranks.rank, step), flush=True)
            time.sleep(pause)
    except RuntimeError as error:
        if not distributed.lost_contact(error):
            raise
        return LOST
    finally:
        distributed.stop()
    print("rank %d finished" % ranks.rank, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
