"""A process at its start: log, device, process group and seeds, in this order."""
from typing import Callable, NamedTuple

import torch

from train import device as devices
from train import distributed
from train.config import TrainConfig
from train.log import start_logging


class Runtime(NamedTuple):
    """Where this process computes, who it is, and how many processes read videos for it."""

    device: torch.device
    ranks: distributed.Ranks
    workers: int


def start_runtime(config: TrainConfig, choose_workers: Callable[[int, torch.device], int]) -> Runtime:
    """Starts them. `choose_workers` makes the number of loader processes of the one asked for and the device."""
    ranks = distributed.read_ranks(config.distributed, config.world_size, config.local_rank)
    start_logging(ranks.rank)
    device = devices.choose_device(config.device, ranks.local_rank)
    backend = devices.BACKEND_OF[device.type] if config.backend == "auto" else config.backend
    devices.deterministic(config.deterministic)
    distributed.start(ranks, backend, config.dist_url, config.dist_timeout)
    devices.seed_device(config.random_seed, device)
    return Runtime(device, ranks, choose_workers(config.workers, device))
