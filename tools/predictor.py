"""Names what happens in videos; what `python -m tools.predict` does, in Python:

    from tools.predictor import open_predictor
    predict = open_predictor("exps/motion10_resnet50_3d_gcn_x5/model.pth")
    print(predict("film.mp4")["top"])          # [{"class": "Up", "probability": 0.97}, …]

Clips are read, cut and normalised by the code that evaluates in training. K class.
"""
import os
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from data.clip_dataset import NO_COLOUR, ClipSample, collate_clips
from data.clip_readers import UnreadableClip, frame_rate, open_clip
from data.sliding import USUAL_RATE, sliding_clips, window_starts
from data.video_list import VideoList
from dataset.progress import usable_cores
from tools.items import Item, find_items
from tools.running import Machine, Runner, Views
from tools.trained import named, open_trained
from train import device as devices
from train.distributed import Ranks
from train.video_scores import sum_of_views

PLAIN = Views()
Path = Union[str, "os.PathLike[str]"]


class Answer(NamedTuple):
    """The probabilities of one video; or why it cannot be read."""

    place: int  # among those asked for
    item: Item
    probabilities: np.ndarray  # (K,) float64, all 0 where there is an error
    error: str


class Window(NamedTuple):
    """The probabilities of a part of a video, in seconds."""

    start: float
    end: float
    probabilities: np.ndarray  # (K,) float64


def numbers(probabilities: np.ndarray) -> np.ndarray:
    """The probabilities as they are. ValueError where they are no numbers."""
    if not np.isfinite(probabilities).all():
        raise ValueError("the network's outputs are no numbers: the weights are broken, or the precision is too low "
                         "for them (leave --amp off)")
    return probabilities


class Predictor:
    """A trained network that is asked about videos."""

    def __init__(self, runner: Runner) -> None:
        """ValueError where nothing names the classes."""
        self.runner, self.trained = runner, runner.trained
        self.class_names = named(runner.trained)

    def __call__(self, videos: Union[Path, Sequence[Path]], top: int = 5) -> Any:
        """{"path", "top": [{"class", "probability"}, …]} of a video file, {"path", "error"} where it cannot be read; a
        list of them for several files, folders or patterns.
        """
        words: Sequence[Path] = [videos] if isinstance(videos, (str, os.PathLike)) else videos
        found = find_items([os.fspath(word) for word in words], (), self.trained.modality)
        answers = sorted(self.answers(found), key=lambda answer: answer.place)
        records = [self.record(answer, top) for answer in answers]
        return records[0] if words is not videos and len(records) == 1 else records

    def record(self, answer: Answer, top: int) -> Dict[str, Any]:
        """An answer as plain data."""
        if answer.error:
            return {"path": answer.item.path, "error": answer.error}
        return {"path": answer.item.path, "top": self.top(answer.probabilities, top)}

    def top(self, probabilities: np.ndarray, count: int) -> List[Dict[str, Any]]:
        """The `count` most probable classes, the most probable first."""
        best = np.argsort(-probabilities, kind="stable")[:count]
        return [{"class": self.class_names[label], "probability": float(probabilities[label])} for label in best]

    def answers(self, items: Sequence[Item], views: Views = PLAIN) -> Iterator[Answer]:
        """An answer for each, in their order but for folders of frames, which come after films."""
        for kind in sorted({item.kind for item in items}, reverse=True):
            own = [place for place, item in enumerate(items) if item.kind == kind]
            paths = [os.path.abspath(items[place].path).lstrip("/") for place in own]
            batches = self.runner.loader(VideoList("/", paths, [0] * len(own), kind), views)
            try:
                for row, probabilities, error in self._rows(batches, views):
                    yield Answer(own[row], items[own[row]], probabilities, error)
            finally:
                batches.close()

    def _rows(self, batches: Any, views: Views) -> Iterator[Tuple[int, np.ndarray, str]]:
        """Row, probabilities and error of each video whose clips have all come; those of a video come together."""
        done, total, error = 0, np.zeros(self.trained.num_classes), ""
        for batch, logits in self.runner.each_batch(batches, views):
            reasons = iter(batch.failures)  # one of each clip that cannot be read
            rows = zip(batch.index.tolist(), batch.readable.tolist(), sum_of_views(logits).numpy())
            for row, readable, probabilities in rows:
                if readable:
                    total = total + probabilities
                else:
                    reason = next(reasons)[1]
                    error = error or reason
                done += 1
                if done == views.clips:
                    yield row, numbers(total * (0 if error else 1 / (views.clips * views.windows))), error
                    done, total, error = 0, np.zeros(self.trained.num_classes), ""

    def over_time(self, video: Union[Path, Item], stride: float = 0.0, rate: float = USUAL_RATE,
                  views: Views = PLAIN) -> Tuple[int, Iterator[Window]]:
        """How many windows of a clip's length slide over a video by `stride` seconds (0: half a window), and they
        themselves. `rate`: frames a second where the video does not say. UnreadableClip after what can be read.
        """
        item = video if isinstance(video, Item) else find_items([os.fspath(video)], (), self.trained.modality)[0]
        geometry = self.trained.geometry
        reader = open_clip(os.path.abspath(item.path), item.kind)
        if item.kind == "video":
            rate = frame_rate(reader.path) or rate
        span = (geometry.clip_length - 1) * geometry.val_interval + 1
        step = max(1, int(round(stride * rate)) if stride else span // 2)
        clips = sliding_clips(reader, self.runner.eval_transform(views), geometry.clip_length, geometry.val_interval,
                              step, rate)
        return len(window_starts(reader.num_frames, span, step)), self._windows(clips, views)

    def _windows(self, clips: Iterable[Any], views: Views) -> Iterator[Window]:
        places: List[Tuple[float, float]] = []
        for _, logits in self.runner.each_batch(self._batched(clips, places), views):
            for probabilities in sum_of_views(logits).numpy() / views.windows:
                yield Window(*places.pop(0), numbers(probabilities))

    def _batched(self, clips: Iterable[Any], places: List[Tuple[float, float]]) -> Iterator[Any]:
        """Host batches of sliding clips; notes in `places` where each lies, in seconds."""
        part: List[ClipSample] = []
        try:
            for clip in clips:
                places.append(clip.seconds)
                part.append(ClipSample(clip.clip, 0, 0, *NO_COLOUR, 0, True, (), False))
                if len(part) == self.runner.batch_size:
                    yield collate_clips(part)
                    part = []
        except UnreadableClip as error:
            damage: Optional[UnreadableClip] = error
        else:
            damage = None
        if part:
            yield collate_clips(part)
        if damage is not None:
            raise damage


def open_predictor(checkpoint: str, device: str = "auto", classes: str = "", batch_size: int = 0,
                   workers: int = -1) -> Predictor:
    """Opens what was trained, to be asked about videos. Errors: those of `open_trained`, and a ValueError where neither
    the file nor `classes` (a file of names, or a data set's) names the classes.
    """
    chosen = devices.choose_device(device)
    trained = open_trained(checkpoint, chosen, classes=classes)
    cores = devices.loader_workers(workers, chosen, usable_cores())
    return Predictor(Runner(trained, Machine(chosen, Ranks(), cores, batch_size)))
