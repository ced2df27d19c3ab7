"""Shows what a network's GloRe units see in videos: what each node gathers, and what the nodes tell each other.

    python -m tools.graph exps/motion10_resnet50_3d_gcn_x5/model.pth film.mp4 --output seen
    python -m tools.graph CHECKPOINT film.mp4 --output seen --unit conv4.B05 --top-nodes 8 --start 2.5 --film
    python -m tools.graph CHECKPOINT films/ 'more/*.avi' --output seen --json seen/numbers.json

A unit (arXiv 1811.12814) gathers the positions of a clip into a few nodes: node = sum over positions of weight times
features. The weights of a node, with their signs, are its map. Each node then hears the others by a learned matrix of
relations, and is given back to the positions by the same map. For each video and unit DIR receives a picture (frames of
the clip, the maps of the top nodes over time, the relations) and with --film the video under those maps.
The top nodes are those that give back most in this clip: size of the map (root of its sum of squares) times size of
what the node gives back to a position of weight 1. A video that cannot be read is named and left out.
"""
import argparse
import os
import sys
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from data.clip_dataset import NO_COLOUR, ClipSample, collate_clips
from data.clip_readers import MOST_RATE, UnreadableClip, frame_rate, open_clip
from data.clip_sampling import even_clip
from data.reader import Reader
from data.sliding import USUAL_RATE
from dataset.options import CommandParser
from dataset.progress import USER_ERROR
from tools.annotate import CODINGS, free_name
from tools.graph_film import Plan, write_films
from tools.graph_picture import Scene, draw_picture
from tools.graph_sight import Sight, UnitWatch, record, top_nodes, units_of
from tools.items import Item, find_items
from tools.outputs import check_writable, make_folder, shown, write_whole
from tools.predictor import numbers
from tools.running import Machine, Runner, Views, clear_line, command_code, with_end
from tools.timing import write_json
from tools.trained import Trained, add_checkpoint_options, geometry_typed, open_trained
from train import device as devices
from train.config import DEVICES
from train.distributed import Ranks

MOST_NODES = 12
PICTURE = ".png"
PLAIN = Views()


def parse(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """The command line."""
    parser = CommandParser("tools.graph", __doc__)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a run's model.pth or checkpoint, one of the "
                        "reference, or published weights, of a network with GloRe units")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="video file, folder, pattern, or - for a list "
                        "of paths on standard input")
    group = parser.add_argument_group("what is looked at")
    group.add_argument("--unit", default="all", metavar="NAME", help="one unit, such as conv4.B05 [all]")
    group.add_argument("--top-nodes", type=int, default=5, metavar="K", help="how many nodes: those that give back "
                       "most in the clip (1 to %d) [5]" % MOST_NODES)
    group.add_argument("--start", type=float, metavar="SECONDS", help="where the clip begins [it is the middle of the "
                       "video, as in evaluation]")
    group.add_argument("--fps", type=float, default=USUAL_RATE, metavar="RATE", help="frames a second, where the video "
                       "does not say, such as folders of frames [%g]" % USUAL_RATE)
    group = parser.add_argument_group("the outcome")
    group.add_argument("--output", required=True, metavar="DIR", help="the pictures go there")
    group.add_argument("--film", action="store_true", help="also the whole video under the maps of the same nodes")
    group.add_argument("--json", metavar="FILE", help="the numbers: a list of {path, units} or {path, error}; - is "
                       "standard output")
    add_checkpoint_options(parser)
    group = parser.add_argument_group("the machine", "It computes in fp32, with PyTorch's own layers.")
    group.add_argument("--device", default="auto", type=str.lower, choices=DEVICES, help="[auto]")
    group.add_argument("--batch-size", type=int, default=0, metavar="N", help="clips of a step [as trained, else 8]")
    return parser.read(argv)


def check_options(options: argparse.Namespace) -> None:
    """ValueError that names the option; makes the folder that is to be filled."""
    if not 1 <= options.top_nodes <= MOST_NODES:
        raise ValueError("--top-nodes %d: takes 1 to %d" % (options.top_nodes, MOST_NODES))
    if options.start is not None and not 0 <= options.start < float("inf"):
        raise ValueError("--start %g: takes 0 seconds or more" % options.start)
    if not 0 < options.fps <= MOST_RATE:
        raise ValueError("--fps %g: takes a number above 0, at most %d" % (options.fps, MOST_RATE))
    if options.batch_size < 0:
        raise ValueError("--batch-size %d: takes 1 or more" % options.batch_size)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("tools.graph is one process: divide the videos among several")
    make_folder("output", options.output)
    check_writable("json", options.json)


def chosen_units(trained: Trained, wanted: str) -> Dict[str, Any]:
    """The units to look at by name. ValueError where the network has none, or not this one."""
    units = units_of(trained.network)
    if not units:
        raise ValueError("%s holds %s, which has no GloRe unit to look at: give a checkpoint of RESNET50_3D_GCN_X5 or "
                         "RESNET101_3D_GCN_X5" % (trained.path, trained.name))
    if wanted.lower() == "all":
        return units
    found = {name: unit for name, unit in units.items() if wanted in (name, name.replace("_extra", ""))}
    if not found:
        raise ValueError("--unit %s: %s has %s" % (wanted, trained.name, ", ".join(units)))
    return found


class Seer:
    """A network at work, and its units watched."""

    def __init__(self, trained: Trained, units: Dict[str, Any], device: Any, batch_size: int) -> None:
        self.runner = Runner(trained, Machine(device, Ranks(), 0, batch_size, execution="reference"))
        self.geometry = trained.geometry
        self.transform = self.runner.eval_transform(PLAIN)
        self._watches = [UnitWatch(name, unit) for name, unit in units.items()]

    def look(self, clips: Sequence[np.ndarray]) -> List[Tuple[np.ndarray, Dict[str, Sight]]]:
        """Of clips (T, H, W, C) each one's probabilities (classes,) and what the units, by name, did with it."""
        samples = [ClipSample(clip, 0, 0, *NO_COLOUR, 0, True, (), False) for clip in clips]
        (_, logits), = self.runner.each_batch([collate_clips(samples)], PLAIN)
        sights = zip(*(watch.sights() for watch in self._watches))
        answers = numbers(logits[:, 0].cpu().double().softmax(1).numpy())
        return [(answer, {sight.unit: sight for sight in found}) for answer, found in zip(answers, sights)]


class Clip(NamedTuple):
    """The clip of a video that is shown."""

    place: int  # of the video among those asked for
    item: Item
    reader: Reader
    rate: float  # frames a second
    indices: Sequence[int]
    frames: np.ndarray  # (T, H, W, C) uint8


def read_clip(place: int, item: Item, seer: Seer, options: argparse.Namespace) -> Clip:
    """The clip that evaluation takes, or that begins where --start says. UnreadableClip where there is none."""
    reader = open_clip(os.path.abspath(item.path), item.kind)
    rate = (frame_rate(reader.path) if item.kind == "video" else None) or options.fps
    length, interval = seer.geometry.clip_length, seer.geometry.val_interval
    indices = even_clip(reader.num_frames, length, interval)
    if options.start is not None:
        last = max(0, reader.num_frames - (length - 1) * interval - 1)
        first = int(round(options.start * rate))
        if first > last:
            raise UnreadableClip(item.path, "no clip begins at %g s: the last one is at %.2f s (--start)"
                                 % (options.start, last / rate))
        indices = [index - indices[0] + first for index in indices]
    return Clip(place, item, reader, rate, indices, reader.read(indices, seer.transform.cut))


def look_at(seer: Seer, items: Sequence[Item], options: argparse.Namespace) -> Iterator[Tuple[int, Dict[str, Any]]]:
    """Place and record of each video, whose pictures are then written; a batch of them at a time."""
    for start in range(0, len(items), seer.runner.batch_size):
        clips: List[Clip] = []
        for place, item in enumerate(items[start:start + seer.runner.batch_size], start):
            try:
                clips.append(read_clip(place, item, seer, options))
            except UnreadableClip as damage:
                yield place, {"path": item.path, "error": damage.reason}
        if clips:
            for clip, (answer, sights) in zip(clips, seer.look([clip.frames for clip in clips])):
                yield clip.place, show(seer, clip, answer, sights, options)


def show(seer: Seer, clip: Clip, answer: np.ndarray, sights: Dict[str, Sight],
         options: argparse.Namespace) -> Dict[str, Any]:
    """Writes the pictures of one clip, and the films where they are wanted; its record."""
    chosen = {unit: top_nodes(sight, options.top_nodes) for unit, sight in sights.items()}
    endings = [PICTURE] + [ending for ending, _ in CODINGS]
    name = free_name(options.output, clip.item.path, ["_%s%s" % (unit, end) for unit in sights for end in endings])
    best, names = int(answer.argmax()), seer.runner.trained.class_names
    top: Dict[str, Any] = {"class": names[best] if names else "class %d" % best, "probability": float(answer[best])}
    seconds = [index / clip.rate for index in clip.indices]
    written: List[str] = []
    for unit, sight in sights.items():
        title = "GloRe unit %s    %s, %.2f to %.2f s    %s %.0f %%" % (
            unit, os.path.basename(os.path.normpath(clip.item.path)), min(seconds), max(seconds), top["class"],
            100 * top["probability"])
        picture = draw_picture(Scene(title, clip.frames, seconds), sight, chosen[unit])
        if picture:
            written.append("%s_%s%s" % (name, unit, PICTURE))
            write_whole(written[-1], picture)
        else:
            print("matplotlib is not installed: no picture", file=sys.stderr)
    if options.film:
        try:
            written += films_of(seer, clip, sights, chosen, name)
        except UnreadableClip as error:
            print(shown("no film: %s" % error), file=sys.stderr)
    return {"path": clip.item.path, "top": [top], "frames": [int(index) for index in clip.indices],
            "seconds": [round(second, 3) for second in seconds], "written": written,
            "units": [record(sight, chosen[unit]) for unit, sight in sights.items()]}


def films_of(seer: Seer, clip: Clip, sights: Dict[str, Sight], chosen: Dict[str, List[int]], name: str) -> List[str]:
    """The paths of the films, whose colours are those of the clip's picture."""
    plans = []
    for unit, sight in sights.items():
        full = np.abs(sight.maps[chosen[unit]]).max((1, 2, 3))  # (K,)
        plans.append(Plan(unit, chosen[unit], np.where(full > 0, full, 1), "%s_%s" % (name, unit)))
    return write_films(clip.reader, seer.transform, seer.geometry, clip.rate, plans,
                       lambda frames: seer.look([frames])[0][1])


def line_of(found: Dict[str, Any]) -> str:
    """A record in words."""
    if "error" in found:
        return shown("%s  error: %s" % (found["path"], found["error"]))
    first = ["%s: %s" % (unit["unit"], " ".join("%d" % row["node"] for row in unit["top"])) for unit in found["units"]]
    words = "%s  %s %.1f %%  top nodes of %s" % (
        found["path"], found["top"][0]["class"], 100 * found["top"][0]["probability"], "; of ".join(first))
    return "\n  ".join(shown(text) for text in [words] + found["written"])


def run(options: argparse.Namespace) -> int:
    """Looks, draws, prints, writes; the exit code."""
    check_options(options)
    device = devices.choose_device(options.device)
    trained = open_trained(options.checkpoint, device, options.network, options.classes, geometry_typed(options))
    units = chosen_units(trained, options.unit)
    items = find_items(options.paths, sys.stdin, trained.modality)
    seer = Seer(trained, units, device, options.batch_size)
    for line in trained.notes + [seer.runner.description]:
        print(line, file=sys.stderr)
    records: Dict[int, Dict[str, Any]] = {}
    for place, found in with_end(look_at(seer, items, options), len(items), "videos"):
        records[place] = found
        clear_line()
        print(line_of(found), file=sys.stderr if options.json == "-" else sys.stdout, flush=True)
    ordered = [records[place] for place in sorted(records)]
    if options.json:
        write_json(options.json, ordered, indent=None)  # maps are long lists of numbers
    broken = sum("error" in found for found in ordered)
    if broken:
        print("%d of %d videos cannot be looked at" % (broken, len(ordered)), file=sys.stderr)
    return USER_ERROR if broken == len(ordered) else 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The command; exit code 2 for what the user can mend, 130 for Ctrl-C."""
    options = parse(argv)
    return command_code(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
