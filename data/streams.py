"""The batches of a run for one process of several: training, statistics (precise BN) and evaluation."""
from typing import Any, NamedTuple, Tuple

from data.clip_dataset import ClipDataset
from data.loaders import PRECISE_BN_EPOCHS, TrainSampler, eval_loader, train_loader
from data.sample_order import SampleOrder
from data.transforms import EvalTransform, TrainAugmentation
from data.video_list import VideoList


class ClipGeometry(NamedTuple):
    """How a clip is cut out of a video: frames and their distance, pixels of the crop and of the scaled short side."""

    clip_length: int
    train_interval: int
    val_interval: int
    crop: int
    short_side: Tuple[int, int]
    eval_short_side: int


class Share(NamedTuple):
    """This process among the others: clips of a batch, loader processes, whether batches go through pinned memory, and
    how many batches a step of this process takes.
    """

    rank: int
    world_size: int
    batch_size: int
    eval_batch_size: int
    workers: int
    pinned: bool
    accumulate: int = 1


class ClipStreams:
    """Host batches (ClipBatch) of this process. Every draw follows from (seed, epoch, sample).

    `shuffle_window`: of a packed store, read shards from start to end and mix so many clips (0: mix all of them).
    """

    def __init__(self, train: VideoList, test: VideoList, geometry: ClipGeometry, share: Share, seed: int,
                 epoch_div_factor: int = 1, shuffle_window: int = 0) -> None:
        order = SampleOrder(seed, len(train), train.stretches(), shuffle_window)
        train_set = ClipDataset(train, geometry.clip_length, geometry.train_interval,
                                TrainAugmentation(geometry.crop, geometry.short_side), seed, training=True, order=order)
        test_set = ClipDataset(test, geometry.clip_length, geometry.val_interval,
                               EvalTransform(geometry.crop, geometry.eval_short_side), seed, training=False)
        self._sampler = TrainSampler(len(train), share.batch_size, share.rank, share.world_size, seed,
                                     epoch_samples=len(train) // epoch_div_factor, order=order,
                                     accumulate=share.accumulate)
        self._train = train_loader(train_set, self._sampler, share.workers, share.pinned)
        self._test = eval_loader(test_set, share.rank, share.world_size, share.eval_batch_size, share.workers,
                                 share.pinned)
        self.steps_per_epoch, self.global_batch = self._sampler.steps_per_epoch, self._sampler.global_batch
        self.epoch_samples = self._sampler.epoch_samples
        self.evaluation_steps = len(self._test)
        self.common_evaluation_steps = -(-(len(test) // share.world_size) // share.eval_batch_size)

    def training(self, epoch: int, samples: int, steps: int) -> Any:
        """The batches of `steps` training steps, `accumulate` each, from a position on: `samples` clips of the epoch
        are done, over all processes.
        """
        self._sampler.set_position(epoch, samples, steps)
        return self._train

    def statistics(self, epoch: int, steps: int) -> Any:
        """Training batches from draws of their own, for precise BN."""
        return self.training(PRECISE_BN_EPOCHS + epoch, 0, steps)

    def evaluation(self) -> Any:
        """This process's share of the test videos, each once."""
        return self._test

    def close(self) -> None:
        """Ends the loader processes."""
        self._train.close()
        self._test.close()
