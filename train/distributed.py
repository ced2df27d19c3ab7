"""Processes that train together: who they are, the group, DDP, reductions. Sole user of torch.distributed.

One process a device. Who this process is comes from the environment (torchrun, torch.distributed.launch) or, where
that is silent, from the options. Without a group every function here does the single process's thing. No process waits
for another longer than the group's timeout; where each one stood then, train/whereabouts.py says.
"""

import contextlib
import datetime
import inspect
import os
from typing import Any, Dict, NamedTuple, Optional, Tuple
from urllib.parse import urlsplit

import torch
import torch.distributed as dist

from train.buffers import flat_buffers, put_buffers
from train.log import LOGGER
from train.whereabouts import HERE, Watch

BACKSTOP = 5.0  # seconds that nccl and hccl wait longer: they end the process without a word on who was where
STORE_TIMEOUT = datetime.timedelta(seconds=2)  # for a value that should long be there
_BROKEN_CONTACT = ("gloo/", "nccl", "hccl", "connection", "socket", "tcpstore")  # words of errors that mean others


class Ranks(NamedTuple):
    """Who this process is. `launched`: by torchrun, so that even a single process makes a group."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    launched: bool = False


def read_ranks(distributed: bool, world_size: int = 0, local_rank: int = -1) -> Ranks:
    """The ranks of this process. Raises ValueError where several processes are asked for and nothing says which this
    is.
    """
    environment = os.environ
    world = world_size or int(environment.get("WORLD_SIZE", "1"))
    if "WORLD_SIZE" in environment and world_size and world_size != int(environment["WORLD_SIZE"]):
        raise ValueError("--world-size %d: the launcher started %s processes; drop the option"
                         % (world_size, environment["WORLD_SIZE"]))
    launched = distributed and all(name in environment for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
    if world == 1:
        return Ranks(launched=launched)
    if not distributed:
        raise ValueError("%d processes were started without --distributed; add it, or start one process" % world)
    local = local_rank if local_rank >= 0 else int(environment.get("LOCAL_RANK", environment.get("RANK", "-1")))
    rank = int(environment.get("RANK", local))
    if not 0 <= rank < world:
        raise ValueError(
            "--world-size %d: nothing says which process this is (rank %d); start by torchrun or test/launch.sh, "
            "or give --local-rank" % (world, rank))
    return Ranks(rank, max(local, 0), world, launched)


def start(ranks: Ranks, backend: str, dist_url: str, timeout: float = 600.0) -> None:
    """Joins the process group where there is more than one process, or a launcher. `timeout`: seconds that a process
    waits for the others, then and later; one that has stood still for so long says where, and ends.
    """
    if ranks.world_size == 1 and not ranks.launched:
        return
    if not dist.is_available():
        raise ValueError("--distributed: this PyTorch was built without torch.distributed")
    limit = datetime.timedelta(seconds=timeout if backend == "gloo" else timeout + BACKSTOP)
    try:
        store = _unused_store(dist_url, ranks.world_size, limit)
        meeting: Dict[str, Any] = {"init_method": dist_url} if store is None else {"store": store}
        dist.init_process_group(backend, rank=ranks.rank, world_size=ranks.world_size, timeout=limit, **meeting)
        if ranks.world_size > 1:
            watch = Watch(ranks.rank, ranks.world_size, timeout, _second_store(dist_url, ranks.world_size, limit))
            watch.start()
            HERE.watch = watch
    except RuntimeError as error:
        raise ConnectionError("rank %d of %d did not meet the others within --dist-timeout %g seconds (%s)" % (
            ranks.rank, ranks.world_size, timeout, str(error).strip().splitlines()[0]))


def _unused_store(dist_url: str, world_size: int, limit: datetime.timedelta) -> Optional[Any]:
    """After a restart by torchrun that lends its store to all attempts, a part of it for this one: else processes look
    for each other where those before them were. None where there is nothing to avoid.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt == "0" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or dist_url != "env://":
        return None
    store = _second_store(dist_url, world_size, limit)
    assert store is not None
    store.set_timeout(limit)
    return dist.PrefixStore("glore/attempt %s" % attempt, store)


def _second_store(dist_url: str, world_size: int, limit: datetime.timedelta) -> Optional[Any]:
    """A connection to the group's store beside the group's own, which may be waiting; None where there is none. It is
    sought for no longer than the limit.
    """
    place = _address(dist_url)
    if place is None:
        return None
    known = inspect.getdoc(dist.TCPStore.__init__) or ""
    options: Dict[str, Any] = {"wait_for_workers": False} if "wait_for_workers" in known else {}
    store = dist.TCPStore(place[0], place[1], world_size, False, timeout=limit, **options)
    store.set_timeout(STORE_TIMEOUT)
    return store


def _address(dist_url: str) -> Optional[Tuple[str, int]]:
    url = urlsplit(dist_url)
    if url.scheme == "env":
        return os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return (url.hostname, url.port) if url.scheme == "tcp" and url.hostname and url.port else None


def lost_contact(error: RuntimeError) -> bool:
    """Whether this says that another process cannot be reached; then where all of them stood has been printed."""
    text = str(error).strip()
    known = isinstance(error, getattr(dist, "DistError", ())) or any(word in text.lower() for word in _BROKEN_CONTACT)
    if HERE.watch is None or not known:
        return False
    HERE.watch.lost(text.splitlines()[0])
    return True


def stop() -> None:
    """Leaves the process group. A process that has lost the others does not try to tell them."""
    watch, HERE.watch = HERE.watch, None
    if watch is not None:
        watch.stop()
    if in_group() and not (watch is not None and watch.is_lost):
        dist.destroy_process_group()


def in_group() -> bool:
    """Whether there are other processes."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number among all, from 0."""
    return dist.get_rank() if in_group() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if in_group() else 1


def wrap(model: torch.nn.Module, device: torch.device, bucket_views: bool = True) -> torch.nn.Module:
    """The model whose backward averages gradients over the processes; BatchNorm buffers stay each process's own until
    they are averaged. `bucket_views`: gradients may be views of what is sent, which saves a copy.
    """
    if not in_group():
        return model
    known = inspect.signature(torch.nn.parallel.DistributedDataParallel.__init__).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: Dict[str, Any] = {buffers: False}
    if bucket_views and "gradient_as_bucket_view" in known:
        options["gradient_as_bucket_view"] = True
    elif bucket_views:
        LOGGER.info("gradients are kept twice, once for their exchange: this PyTorch cannot share the memory")
    if device.type != "cpu":
        options["device_ids"] = [device.index]
    return torch.nn.parallel.DistributedDataParallel(model, **options)


def without_exchange(model: torch.nn.Module, alone: bool) -> Any:
    """A context for the forward and backward pass of a batch that is not the step's last: where `alone`, gradients are
    added up on this process and stay there until the next exchange.
    """
    if alone and isinstance(model, torch.nn.parallel.DistributedDataParallel):
        return model.no_sync()
    return contextlib.nullcontext()


def all_reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, in place."""
    if in_group():
        dist.all_reduce(tensor)
    return tensor


def gather_rows(row: torch.Tensor) -> torch.Tensor:
    """The rows (n,) of all processes, in the order of their ranks: (R, n)."""
    if not in_group():
        return row[None].clone()  # (1, n)
    rows = row.new_zeros((world_size(),) + row.shape)  # (R, n)
    rows[rank()] = row
    return all_reduce_sum(rows)


def average_buffers(model: torch.nn.Module) -> None:
    """Makes the floating-point buffers (BatchNorm statistics) of all processes their mean, in one reduction."""
    flat = flat_buffers(model) if in_group() else torch.zeros(0)
    if len(flat):
        put_buffers(model, all_reduce_sum(flat).div_(dist.get_world_size()))


def barrier(device: torch.device) -> None:
    """Waits for the other processes, by a reduction, which every backend has."""
    if in_group():
        all_reduce_sum(torch.zeros(1, device=device)).item()
