"""Predicts from an exported ONNX file alone, as tools.predict does from the checkpoint: an example to copy.

    python -m tools.onnx_predict model.onnx film.mp4 another.avi

Needs numpy, opencv-python-headless and onnxruntime, and nothing of this project: copied elsewhere, it runs as `python
onnx_predict.py ...`. Class names, clip geometry and normalisation are read from the file. One clip from the middle of
each video is taken; for optical flow, PATH is a folder with flow_x_00001.jpg, flow_y_00001.jpg and so on. Prints JSON.
T frame, H, W, C channel.
"""
import argparse
import json
import math
import os
import sys
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import cv2
import numpy as np


class OnnxPredictor:
    """A network in an ONNX file that is asked about videos."""

    def __init__(self, path: str) -> None:
        import onnxruntime  # here, so that --help needs nothing
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        told = self.session.get_modelmeta().custom_metadata_map
        self.about: Dict[str, Any] = {name: json.loads(text) for name, text in told.items()}
        self.input = self.session.get_inputs()[0]

    def __call__(self, path: str, top: int = 5) -> Dict[str, Any]:
        """{"path", "top": [{"class", "probability"}, ...]}, or {"path", "error"} where it cannot be read."""
        try:
            clip = self.clip(path)
        except (ValueError, cv2.error) as error:
            return {"path": path, "error": str(error)}
        batch = self.input.shape[0] if isinstance(self.input.shape[0], int) else 1
        clips = np.repeat(clip[None], batch, 0)                                 # (N, C, T, H, W)
        logits = self.session.run(None, {self.input.name: clips})[0][0]         # (K,)
        powers = np.exp(logits.astype(np.float64) - logits.max())
        probabilities = powers / powers.sum()
        best = np.argsort(-probabilities, kind="stable")[:top]
        return {"path": path, "top": [{"class": self.about["class_names"][label],
                                       "probability": float(probabilities[label])} for label in best]}

    def clip(self, path: str) -> np.ndarray:
        """The network's input for the middle of a video: (C, T, H, W) float32. ValueError where it cannot be read."""
        frames = flow_frames if self.about["modality"] == "flow" else film_frames
        count = sum(1 for _ in frames(path, ()))
        if not count:
            raise ValueError("no frame can be read")
        places = self.places(count)
        found = {place: self.cut(frame) for place, frame in enumerate(frames(path, places)) if frame is not None}
        clip = np.stack([found[place] for place in places]).astype(np.float32)  # (T, H, W, C)
        clip /= np.float32(255)
        clip -= np.array(self.about["mean"], np.float32)
        clip /= np.float32(self.about["std"])
        return np.ascontiguousarray(clip.transpose(3, 0, 1, 2))                 # (C, T, H, W)

    def places(self, count: int) -> List[int]:
        """Which of `count` frames make the clip; a video too short begins anew."""
        length, interval = self.about["clip_length"], self.about["frame_interval"]
        span = (length - 1) * interval + 1
        if count < span:
            return [place % count for place in range(length)]
        start = math.ceil((count - span) / 2)
        return list(range(start, start + span, interval))

    def cut(self, frame: np.ndarray) -> np.ndarray:
        """(H, W, C) of any size, short side resized -> the middle window."""
        short, crop = self.about["short_side"], self.about["crop_size"]
        height, width = frame.shape[:2]
        if width < height:
            wide, high = short, int(short * height / width)
        else:
            wide, high = int(short * width / height), short
        if (wide, high) != (width, height):
            frame = cv2.resize(frame, None, fx=wide / width, fy=high / height, interpolation=cv2.INTER_LINEAR)
        left, top = round((wide - crop) / 2), round((high - crop) / 2)
        return frame[top:top + crop, left:left + crop]


def film_frames(path: str, wanted: Sequence[int]) -> Iterator[Optional[np.ndarray]]:
    """Each frame of a film: (H, W, 3) R, G, B where it is wanted, else None."""
    film, places, place = cv2.VideoCapture(path, cv2.CAP_FFMPEG), set(wanted), 0
    while film.grab():
        yield cv2.cvtColor(film.retrieve()[1], cv2.COLOR_BGR2RGB) if place in places else None
        place += 1


def flow_frames(path: str, wanted: Sequence[int]) -> Iterator[Optional[np.ndarray]]:
    """The same of a folder of optical flow: (H, W, 2) x, y."""
    places, place = set(wanted), 0
    while os.path.isfile(names(path, place)[1]):
        x, y = (cv2.imread(name, cv2.IMREAD_GRAYSCALE) if place in places else None for name in names(path, place))
        yield None if x is None or y is None else np.stack((x, y), 2)
        place += 1


def names(path: str, place: int) -> Tuple[str, str]:
    """The two files of a flow frame, which are numbered from 1."""
    return tuple(os.path.join(path, "flow_%s_%05d.jpg" % (axis, place + 1)) for axis in "xy")  # type: ignore


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The command."""
    about, example, rest = __doc__.split("\n\n")
    parser = argparse.ArgumentParser(description="%s\n\n%s" % (about, rest), epilog="example:\n" + example,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL.onnx")
    parser.add_argument("paths", nargs="+", metavar="PATH")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="how many classes [5]")
    options = parser.parse_args(argv)
    predict = OnnxPredictor(options.model)
    json.dump([predict(path, options.top) for path in options.paths], sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
