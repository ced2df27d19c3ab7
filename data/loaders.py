"""Which samples in which order on which rank, and the loaders that fetch them.

Sample ids travel to the workers, state does not. The seam for what DataLoader learnt over the PyTorch versions.
"""
import inspect
import logging
import multiprocessing
import signal
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from data.batch_buffers import NO_ROOM, BatchInRoom, BatchRooms
from data.clip_dataset import ClipDataset, collate_clips
from data.sample_order import SampleOrder

_log = logging.getLogger(__name__)
PRECISE_BN_EPOCHS = 1 << 20  # added to the epoch, it gives precise BN draws of its own
PREFETCHED = 2  # batches that a DataLoader asks of each worker ahead of time
SPARE_ROOMS = 3  # for batches in the main process: in use, on their way to the device, and kept a moment longer
SampleId = Tuple[int, int]  # (epoch, sample)


class TrainPosition(NamedTuple):
    """Where to start: samples of the epoch done by all ranks together; how many steps' batches to give (None: the
    rest).
    """

    epoch: int = 0
    start_sample: int = 0
    steps: Optional[int] = None


class TrainSampler:
    """Batches of one rank: lists of (epoch, sample), in an order that follows from (seed, epoch): `order`, or else a
    whole permutation.

    Each global batch of `batch_size` * `world_size` * `accumulate` is a stretch of that order, cut into slices; a step
    of this rank is its `accumulate` slices, number micro * world_size + rank. So the same samples meet in a step on any
    number of ranks, and micro-batch r of one rank is what rank r of several has. The last incomplete global batch is
    dropped. `epoch_samples` shortens an epoch. Raises ValueError where an epoch holds no global batch.
    """

    def __init__(self, num_samples: int, batch_size: int, rank: int, world_size: int, seed: int,
                 epoch_samples: Optional[int] = None, order: Optional[SampleOrder] = None,
                 accumulate: int = 1) -> None:
        if batch_size < 1:
            raise ValueError("--batch-size must be at least 1, not %d" % batch_size)
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.rank, self.world_size, self.accumulate = rank, world_size, accumulate
        self.global_batch = batch_size * world_size * accumulate
        self.order = order or SampleOrder(seed, num_samples)
        self.epoch_samples = num_samples if epoch_samples is None else min(num_samples, epoch_samples)
        self.steps_per_epoch = self.epoch_samples // self.global_batch
        if self.steps_per_epoch < 1:
            times, lower = (", %d times" % accumulate, " or --accumulate") if accumulate > 1 else ("", "")
            raise ValueError("one step takes %d samples (--batch-size %d on %d processes%s), an epoch has %d: lower "
                             "--batch-size%s" % (self.global_batch, batch_size, world_size, times, self.epoch_samples,
                                                 lower))
        self.position = TrainPosition()

    def set_position(self, epoch: int, start_sample: int = 0, steps: Optional[int] = None) -> None:
        """The next iteration gives `epoch` from its global sample `start_sample` on, the batches of `steps` steps at
        most.
        """
        self.position = TrainPosition(epoch, start_sample, steps)

    def __len__(self) -> int:
        left = max(0, (self.epoch_samples - self.position.start_sample) // self.global_batch)
        return self.accumulate * (left if self.position.steps is None else min(left, self.position.steps))

    def __iter__(self) -> Iterator[List[SampleId]]:
        epoch = self.position.epoch
        first = self.position.start_sample + self.rank * self.batch_size
        order = self.order(epoch)
        for number in range(len(self)):
            start = first + number * self.world_size * self.batch_size
            yield [(epoch, int(sample)) for sample in order[start:start + self.batch_size]]


def eval_indices(num_videos: int, rank: int, world_size: int) -> range:
    """The rank's shard of an exact evaluation: over all ranks each video once, none padded."""
    return range(rank, num_videos, world_size)


class Batches(Dataset):
    """A data set as its batches, asked for by (room, sample ids)."""

    def __init__(self, dataset: ClipDataset, rooms: Optional[BatchRooms]) -> None:
        self.dataset, self.rooms = dataset, rooms

    def __getitem__(self, request: Tuple[int, List[SampleId]]) -> Any:
        room, ids = request
        if self.rooms is None or room == NO_ROOM:
            return collate_clips([self.dataset[sample] for sample in ids])
        return self.rooms.fill(room, ids, self.dataset.fetch)


class Requests:
    """A sampler's batches, each with a room for its clips."""

    def __init__(self, batches: Any, rooms: Optional[BatchRooms]) -> None:
        self.batches, self.rooms = batches, rooms

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Tuple[int, List[SampleId]]]:
        if self.rooms is not None:
            self.rooms.reclaim()  # a loader asks for its first batch when the workers are done with an earlier pass
        for ids in self.batches:
            yield NO_ROOM if self.rooms is None else self.rooms.take(), ids


class ClipLoader(DataLoader):
    """A DataLoader of ClipBatches that leaves torch's global generator as it was, and can be closed."""

    _iterator: Any = None  # where torch keeps persistent workers
    _pass: Any = None  # torch's iterator of the latest pass

    def __iter__(self) -> Any:
        if self._iterator is None:
            self.close()
        try:
            with torch.random.fork_rng(devices=[]):
                self._pass = batches = super().__iter__()
        except OSError as error:
            raise OSError(error.errno, "processes that read videos cannot be started (%s): where there is no room, "
                          "enlarge /dev/shm, or take --workers 0" % error.strerror)
        return (batch.open() if isinstance(batch, BatchInRoom) else batch for batch in batches)

    def close(self) -> None:
        """Ends the worker processes now. Left to a garbage collection, each waits out a timeout of seconds, and on
        PyTorch 1.5 may wait for ever: the collector closes the workers' queues before they are told to end.
        """
        latest, self._pass, self._iterator = self._pass, None, None
        if hasattr(latest, "_shutdown_workers"):
            latest._shutdown_workers()


def train_loader(dataset: ClipDataset, sampler: Any, workers: int, pin_memory: bool) -> ClipLoader:
    """ClipBatches of the position of a TrainSampler, or of what gives such lists. Persistent workers serve every epoch.
    """
    if workers > 0 and not keeps_workers():
        _log.info("loader workers start anew for every pass: this PyTorch cannot keep them")
    return _loader(dataset, sampler, sampler.batch_size, workers, pin_memory)


def eval_loader(dataset: ClipDataset, rank: int, world_size: int, batch_size: int, workers: int,
                pin_memory: bool) -> ClipLoader:
    """ClipBatches of the rank's shard, in order, the last one as short as it comes; all clips of a video on one rank.
    """
    if batch_size < 1:
        raise ValueError("--eval-batch-size must be at least 1, not %d" % batch_size)
    shard = eval_indices(len(dataset.videos), rank, world_size)
    return _loader(dataset, _EvalBatches(shard, dataset.num_clips, batch_size), batch_size, workers, pin_memory)


class _EvalBatches:
    """The batches of a shard, made as they are asked for: a list of a million of them would live in every worker."""

    def __init__(self, videos: range, num_clips: int, batch_size: int) -> None:
        self.videos, self.num_clips, self.batch_size = videos, num_clips, batch_size

    def __len__(self) -> int:
        return -(-len(self.videos) * self.num_clips // self.batch_size)

    def __iter__(self) -> Iterator[List[SampleId]]:
        total = len(self.videos) * self.num_clips
        for start in range(0, total, self.batch_size):
            places = (divmod(place, self.num_clips) for place in range(start, min(start + self.batch_size, total)))
            yield [(0, self.videos[video] * self.num_clips + clip) for video, clip in places]


def keeps_workers() -> bool:
    """Whether this PyTorch lets loader processes serve pass after pass; else each pass forks new ones."""
    return "persistent_workers" in inspect.signature(DataLoader.__init__).parameters


def _loader(dataset: ClipDataset, batches: Any, batch_size: int, workers: int, pin_memory: bool) -> ClipLoader:
    options: Dict[str, Any] = {}
    rooms = None
    if workers > 0 and keeps_workers():
        options["persistent_workers"] = True
        if multiprocessing.get_context().get_start_method() == "fork":
            count = workers * PREFETCHED + SPARE_ROOMS
            rooms = BatchRooms(count, (batch_size,) + dataset.clip_shape)
    return ClipLoader(Batches(dataset, rooms), sampler=Requests(batches, rooms), batch_size=None, num_workers=workers,
                      collate_fn=as_it_is, pin_memory=pin_memory, worker_init_fn=_start_worker, **options)


def as_it_is(batch: Any) -> Any:
    """Collates nothing: batches come whole."""
    return batch


def why_readers_died(error: BaseException) -> str:
    """What to tell the user of a loader process that came to its end before its time; empty for any other error.

    torch raises it wherever the main process happens to be.
    """
    text = str(error)
    if not isinstance(error, RuntimeError) or "DataLoader worker" not in text:
        return ""
    return ("a process that reads videos has died (%s). Killed: the machine's memory may be full, lower --workers or "
            "--batch-size. Bus error: its shared memory is, enlarge /dev/shm or take --workers 0" % text.split("\n")[0])


def _heed_the_next(number: int, frame: Any) -> None:
    signal.signal(number, signal.SIG_DFL)


def _start_worker(worker: int) -> None:
    """One thread a worker; signals that ask for an end go to all processes of a run, and are the main one's to handle.
    A second SIGTERM is from there, and ends the worker.
    """
    for ignored in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _heed_the_next)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
