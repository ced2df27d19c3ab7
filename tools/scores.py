"""What the scores of videos say: accuracies, a table by class, the confusion matrix, calibration; scores as files, and
their late fusion.

K class. Accuracies are in percent, as in result.json; probabilities and the calibration error are shares, 0 to 1.
"""
import csv
import io
import os
import zipfile
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np
import torch

from dataset.layouts import VIDEO_ENDINGS, some_of
from tools.outputs import write_whole
from train.metrics import best_classes
from train.scores_file import pack_scores

BINS = 15  # of probability, as Guo et al., On Calibration of Modern Neural Networks, 2017, arXiv 1706.04599
ARRAYS = ("path", "label", "scores", "class_names")


class Scored(NamedTuple):
    """The videos of a data set with the scores of each class."""

    paths: List[str]  # below the data set's folder
    labels: np.ndarray  # (videos,) int64
    scores: np.ndarray  # (videos, K) float32 probabilities
    best: np.ndarray  # (videos, 5) the classes with the highest, or all of fewer
    readable: np.ndarray  # (videos,) bool; what cannot be read counts as an error
    class_names: List[str]


def measure(videos: Scored) -> Dict[str, Any]:
    """Everything that is counted, as plain data: see the fields. A class without test videos has no accuracy (None) and
    no part in the mean over the classes.
    """
    hits = (videos.best == videos.labels[:, None]) & videos.readable[:, None]  # (videos, 5)
    top1, top5, total = int(hits[:, 0].sum()), int(hits.any(1).sum()), len(videos.labels)
    matrix = confusion_matrix(videos)
    rows = per_class(videos, hits, matrix)
    known = [row["top1"] for row in rows if row["top1"] is not None]
    return {"top1": percent(top1, total), "top5": percent(top5, total), "mean_class_accuracy": float(np.mean(known)),
            "unit": "percent", "num_videos": total, "hits_top1": top1, "hits_top5": top5,
            "num_unreadable": int((~videos.readable).sum()), "calibration": calibration(videos, hits[:, 0]),
            "per_class": rows, "confusion_matrix": matrix.tolist(), "class_names": list(videos.class_names)}


def percent(part: int, whole: int) -> float:
    """In the unit of result.json."""
    return 100.0 * part / max(whole, 1)


def confusion_matrix(videos: Scored) -> np.ndarray:
    """(K, K) counts: row the true class, column the one with the highest score; unreadable videos are left out."""
    num = len(videos.class_names)
    seen = videos.readable
    matrix = np.zeros((num, num), np.int64)
    np.add.at(matrix, (videos.labels[seen], videos.best[seen, 0]), 1)
    return matrix


def per_class(videos: Scored, hits: np.ndarray, matrix: np.ndarray) -> List[Dict[str, Any]]:
    """A row a class, in label order: accuracies in percent, and what it is most often taken for."""
    rows = []
    for label, name in enumerate(videos.class_names):
        own = videos.labels == label
        total, wrong = int(own.sum()), matrix[label].copy()
        wrong[label] = 0
        taken = int(wrong.argmax())
        rows.append({"class": name, "num_videos": total,
                     "top1": percent(int(hits[own, 0].sum()), total) if total else None,
                     "top5": percent(int(hits[own].any(1).sum()), total) if total else None,
                     "most_often_taken_for": videos.class_names[taken] if wrong[taken] else None,
                     "taken_so": int(wrong[taken])})
    return rows


def calibration(videos: Scored, hit: np.ndarray) -> Dict[str, Any]:
    """Expected calibration error: how far the highest probability is from the share of right answers, in bins of it,
    weighted by their videos. Readable videos alone.
    """
    seen = videos.readable
    confidence = videos.scores[seen].max(1).astype(np.float64) if seen.any() else np.zeros(0)
    right, place = hit[seen], np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins, error = [], 0.0
    for number in range(BINS):
        inside = place == number
        count = int(inside.sum())
        mean, share = (float(confidence[inside].mean()), float(right[inside].mean())) if count else (None, None)
        bins.append({"from": number / BINS, "to": (number + 1) / BINS, "num_videos": count, "probability": mean,
                     "accuracy": share})
        if mean is not None and share is not None:
            error += count / len(confidence) * abs(mean - share)
    return {"expected_calibration_error": error, "bins": bins}


def write_confusion(path: str, matrix: Sequence[Sequence[int]], class_names: Sequence[str]) -> None:
    """An .npz (confusion_matrix, class_names), or else CSV: rows are the true classes, columns the answers."""
    if path.endswith(".npz"):
        buffer = io.BytesIO()
        np.savez_compressed(buffer, confusion_matrix=np.asarray(matrix), class_names=np.array(class_names))
        write_whole(path, buffer.getvalue())
        return
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["true \\ answer"] + list(class_names))
    table.writerows([name] + list(row) for name, row in zip(class_names, matrix))
    write_whole(path, text.getvalue().encode("utf-8", "surrogateescape"))


def write_scores(path: str, videos: Scored) -> None:
    """An .npz: path, label, scores (videos, K) float32, class_names, readable. Plain arrays, no pickle."""
    write_whole(path, pack_scores(videos.paths, videos.labels, videos.scores, videos.readable, videos.class_names))


def read_scores(path: str) -> Scored:
    """What `write_scores` wrote. ValueError or OSError naming the file for anything else."""
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no .npz file")
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in ARRAYS if name not in file]
            if missing:
                raise ValueError("it lacks %s" % ", ".join(missing))
            paths, labels, scores, names = (file[name] for name in ARRAYS)
            readable = file["readable"] if "readable" in file else np.ones(len(labels), bool)
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError("%s is no scores file of tools.evaluate --scores: %s" % (path, error)) from None
    if scores.ndim != 2 or scores.shape != (len(paths), len(names)) or len(labels) != len(paths):
        raise ValueError("%s: %d paths, %d labels and %d class names do not fit scores of shape %s"
                         % (path, len(paths), len(labels), len(names), scores.shape))
    if not np.isfinite(scores).all() or (len(labels) and not 0 <= labels.min() <= labels.max() < len(names)):
        raise ValueError("%s: scores that are no numbers, or labels that are no classes" % path)
    scores = scores.astype(np.float32)
    return Scored([str(name) for name in paths], labels.astype(np.int64), scores, ranked(scores),
                  readable.astype(bool), [str(name) for name in names])


def ranked(scores: np.ndarray) -> np.ndarray:
    """The best classes of each row."""
    return best_classes(torch.from_numpy(np.ascontiguousarray(scores))).numpy()


def join_keys(files: Sequence[Tuple[str, Scored]]) -> List[List[str]]:
    """What each file's videos are known by: paths without a video's ending, since a film and its folder of frames or
    flow are the same video; of those the last folder and the name where whole paths have nothing in common, as a packed
    store's and its source's.
    """
    whole = []
    for _, videos in files:
        parts = [os.path.splitext(path) for path in videos.paths]
        whole.append([stem if ending.lower() in VIDEO_ENDINGS else stem + ending for stem, ending in parts])
    if set(whole[0]).intersection(*whole):
        return whole
    return [["/".join(key.split("/")[-2:]) for key in keys] for keys in whole]


def fuse(files: Sequence[Tuple[str, Scored]], weights: Sequence[float]) -> Tuple[Scored, Dict[str, List[str]]]:
    """Late fusion: the weighted mean of the scores of the videos that all files hold, in the first one's order; and of
    each file, which of the others' videos it lacks. ValueError where classes or labels disagree, or nothing is common.
    """
    first_name, first = files[0]
    rows = []
    for (name, videos), keys in zip(files, join_keys(files)):
        if videos.class_names != first.class_names:
            raise ValueError("--fuse: %s and %s are of different classes" % (first_name, name))
        own = {key: row for row, key in enumerate(keys)}
        if len(own) != len(videos.paths):
            raise ValueError("--fuse: %s holds %d videos more than once" % (name, len(videos.paths) - len(own)))
        rows.append(own)
    everything = sorted(set().union(*rows))
    missing = {name: [key for key in everything if key not in own] for (name, _), own in zip(files, rows)}
    common = [key for key in rows[0] if all(key in own for own in rows)]
    if not common:
        raise ValueError("--fuse: no video is in all files; %s begins with %s" % (
            first_name, some_of(first.paths[:2])))
    places = [[own[key] for key in common] for own in rows]
    labels = first.labels[places[0]]
    for (name, videos), place in zip(files, places):
        wrong = np.flatnonzero(videos.labels[place] != labels)
        if len(wrong):
            raise ValueError("--fuse: %s and %s give %d videos different labels, %s among them" % (
                first_name, name, len(wrong), common[int(wrong[0])]))
    mixed = np.zeros((len(common), len(first.class_names)))
    for weight, (_, videos), place in zip(weights, files, places):
        mixed += weight / sum(weights) * videos.scores[place]
    readable = np.all([videos.readable[place] for (_, videos), place in zip(files, places)], 0)
    return Scored([first.paths[row] for row in places[0]], labels, mixed.astype(np.float32), ranked(mixed), readable,
                  first.class_names), missing
