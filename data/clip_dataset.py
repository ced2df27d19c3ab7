"""Row -> reader -> sampler -> host transform -> clip; clips -> batch. All draws follow from (seed, epoch, sample).

Shapes: N clip, T frame, H, W, C = R, G, B (of flow: x, y).
"""
import copy
from functools import partial
from typing import Any, Callable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from torch.utils.data import Dataset
from torch.utils.data.dataloader import default_collate

from data.bad_videos import BadVideoBudgetExceeded, Failure, named
from data.clip_readers import Reader, UnreadableClip, open_clip
from data.clip_sampling import even_clip, random_clip
from data.modalities import MODALITIES
from data.packed_store import PackedVideos
from data.randomness import noise_key, random_state
from data.sample_order import SampleOrder
from data.transforms import Colour, EvalTransform, TrainAugmentation
from data.video_list import VideoList

MOST_TRIES = 64  # rows looked at for one clip
States = Callable[[str], np.random.RandomState]
NO_COLOUR = Colour((0, 0, 0), (0.0, 0.0))


class ClipSample(NamedTuple):
    """One clip as a worker makes it; the fields are ClipBatch's."""

    clip: np.ndarray
    label: int
    index: int  # type: ignore[assignment]  # tuple.index is not needed
    hls: Tuple[int, int, int]
    jitter: Tuple[float, float]
    noise_key: int
    readable: bool
    failures: Tuple[Failure, ...]
    augmented: bool


class ClipBatch(NamedTuple):
    """A batch as it travels to the device, which then applies `hls`, `jitter` and noise where `augmented`: clips of RGB
    that are trained on.

    `index` is the row of the video list that the frames are from; `failures` are (path, reason) of the rows that
    could not be read. An unreadable video of an evaluation has a black clip and `readable` False.
    """

    clip: torch.Tensor  # (N, T, H, W, C) uint8
    label: torch.Tensor  # (N,) int64
    index: torch.Tensor  # type: ignore[assignment]  # (N,) int64
    hls: torch.Tensor  # (N, 3) int64, OpenCV's 8-bit units
    jitter: torch.Tensor  # (N, 2) float32, low and high in levels
    noise_key: torch.Tensor  # (N,) int64 in [0, 2**32)
    readable: torch.Tensor  # (N,) bool
    failures: Sequence[Failure]
    augmented: bool


def collate_clips(samples: Sequence[ClipSample], clips: Optional[torch.Tensor] = None) -> ClipBatch:
    """Samples of one clip shape -> a batch; `clips` (N, T, H, W, C), where given, stands for those of the samples."""
    columns = ClipSample(*zip(*samples))
    failures: Any = columns.failures
    if clips is None:
        clips = default_collate([torch.from_numpy(sample.clip) for sample in samples])
    return ClipBatch(
        clip=clips,
        label=torch.tensor(columns.label, dtype=torch.int64),
        index=torch.tensor(columns.index, dtype=torch.int64),
        hls=torch.tensor(columns.hls, dtype=torch.int64),
        jitter=torch.tensor(columns.jitter, dtype=torch.float32),
        noise_key=torch.tensor(columns.noise_key, dtype=torch.int64),
        readable=torch.tensor(columns.readable, dtype=torch.bool),
        failures=tuple(failure for of_sample in failures for failure in of_sample),
        augmented=samples[0].augmented)


class ClipDataset(Dataset):
    """Clips of a video list, asked for as (epoch, sample).

    Training: sample is a row. A clip that cannot be read is drawn once more, from the frames before the broken one; if
    that is no use either, the next readable row of the epoch's order takes its place, with its own frames, label and
    index. The draws stay those of the sample. Raises BadVideoBudgetExceeded after 64 bad rows on end.
    Evaluation: one centre clip a row (see `with_clips`); a row that cannot be read gives a black clip.
    """

    def __init__(self, videos: VideoList, clip_length: int, interval: int,
                 transform: Union[TrainAugmentation, EvalTransform], seed: int, training: bool,
                 order: Optional[SampleOrder] = None) -> None:
        if isinstance(transform, TrainAugmentation) != training:
            raise ValueError("training wants a TrainAugmentation, evaluation an EvalTransform, not %s"
                             % type(transform).__name__)
        self.videos = videos
        self._modality = MODALITIES[videos.modality]
        self.clip_length = clip_length
        self.interval = interval
        self.transform = transform
        self.seed = seed
        self.order = order or SampleOrder(seed, len(videos))
        self.num_clips = 1
        self.repeat_frame: Optional[int] = None
        self._scratch = np.random.RandomState(0)
        self._room: Optional[np.ndarray] = None
        # Exact frame counts as they become known, 0 before; shared, so that what one worker counted, all know.
        self._frame_counts = torch.zeros(max(1, len(videos)), dtype=torch.int32).share_memory_()

    def with_clips(self, num_clips: int) -> "ClipDataset":
        """The same evaluation with `num_clips` clips a video: sample is row * num_clips + clip."""
        changed = copy.copy(self)
        changed.num_clips = num_clips
        return changed

    def with_repeated_frame(self, place: int) -> "ClipDataset":
        """The same evaluation with each frame of a clip replaced by the one at `place`: what one picture can tell."""
        changed = copy.copy(self)
        changed.repeat_frame = place
        return changed

    @property
    def clip_shape(self) -> Tuple[int, ...]:
        """(T, H, W, C) of its clips; where an evaluation cuts several windows, their frames follow one another in T."""
        views = self.transform.views if isinstance(self.transform, EvalTransform) else 1
        return views * self.clip_length, self.transform.crop, self.transform.crop, self._modality.channels

    def __len__(self) -> int:
        return len(self.videos) * self.num_clips

    def __getitem__(self, key: Tuple[int, int]) -> ClipSample:
        epoch, sample = key
        if isinstance(self.transform, TrainAugmentation):
            return self._train_sample(epoch, sample, self.transform)
        return self._eval_sample(sample, self.transform)

    def fetch(self, key: Tuple[int, int], room: np.ndarray) -> ClipSample:
        """The same, its clip in `room` (T, H, W, C) where it can be read and has this shape."""
        self._room = room
        try:
            return self[key]
        finally:
            self._room = None

    def _train_sample(self, epoch: int, sample: int, transform: TrainAugmentation) -> ClipSample:
        failures: List[Failure] = []
        states = partial(random_state, self.seed, epoch, sample, reuse=self._scratch)
        for row in self._rows_to_try(epoch, sample):
            clip = self._train_clip(row, transform, states, failures)
            if clip is not None:
                coloured = self._modality.coloured
                colour = transform.colour(states) if coloured else NO_COLOUR
                return ClipSample(clip, self.videos.label(row), row, *colour, noise_key(self.seed, epoch, sample), True,
                                  tuple(failures), coloured)
        raise BadVideoBudgetExceeded("%d videos on end cannot be read; is the data set complete, and in place?\n%s"
                                     % (len(failures), named(failures)))

    def _rows_to_try(self, epoch: int, sample: int) -> Iterator[int]:
        """The sample's row, then those that follow it in the epoch's order, from whose end it goes on at the start."""
        yield sample
        order = self.order(epoch)
        place = int(np.flatnonzero(order == sample)[0])
        for step in range(1, min(MOST_TRIES, len(order))):
            yield int(order[(place + step) % len(order)])

    def _train_clip(self, row: int, transform: TrainAugmentation, states: States,
                    failures: List[Failure]) -> Optional[np.ndarray]:
        """The row's clip (T, crop, crop, C); None, and one entry in `failures`, where it cannot be read.

        What is known of a row is its frame count alone, never that a read of it failed: so that a clip is the same
        whatever was read before.
        """
        cut = partial(transform.cut, states=states)
        try:
            reader = self._open(row)
            indices = random_clip(reader.num_frames, self.clip_length, self.interval, states("clip"))
            return reader.read(indices, cut, self._room)
        except UnreadableClip as error:
            failures.append(self._failure(row, error))
            readable = error.readable
        if not readable:
            return None
        try:
            indices = random_clip(readable, self.clip_length, self.interval, states("clip again"))
            return self._open(row).read(indices, cut, self._room)
        except UnreadableClip:
            return None

    def _eval_sample(self, sample: int, transform: EvalTransform) -> ClipSample:
        row, number = divmod(sample, self.num_clips)
        failures: Tuple[Failure, ...] = ()
        try:
            reader = self._open(row)
            indices = even_clip(reader.num_frames, self.clip_length, self.interval, self.num_clips, number)
            if self.repeat_frame is not None:
                indices = [indices[self.repeat_frame]] * self.clip_length
            clip = transform.windows(reader.read(indices, transform.cut, self._room))
        except UnreadableClip as error:
            failures = (self._failure(row, error),)
            clip = np.zeros(self.clip_shape, np.uint8)
        return ClipSample(clip, self.videos.label(row), row, *NO_COLOUR, 0, not failures, failures, False)

    def _open(self, row: int) -> Reader:
        if isinstance(self.videos, PackedVideos):
            return self.videos.open(row)
        counted = int(self._frame_counts[row])
        known = counted or self.videos.num_frames(row)
        reader = open_clip(self.videos.path(row), self.videos.kind, known, None if counted else self.videos.facts(row))
        if reader.facts is None:  # facts must be held against the file each time
            self._frame_counts[row] = reader.num_frames
        return reader

    def _failure(self, row: int, error: UnreadableClip) -> Failure:
        path = self.videos.path(row)
        return path, error.reason if error.path == path else str(error)
