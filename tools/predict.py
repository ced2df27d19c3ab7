"""Says what happens in videos.

    python -m tools.predict exps/motion10_resnet50_3d_gcn_x5/model.pth film.mp4 more_films/ 'clips/*.avi'
    python -m tools.predict CHECKPOINT long.mp4 --over-time --timeline pictures --annotate marked --json windows.jsonl
    find /videos -name '*.mp4' | python -m tools.predict CHECKPOINT - --json answers.json

A PATH is a video file, a folder (of videos, or of a video's frames), a pattern, or - for a list of paths on standard
input, one a line or as of find -print0. A file that cannot be read becomes an entry with its error, and the exit code
stays 0. After Ctrl-C the lines, pictures and copies of what was done stay, and no half ones. tools/predictor.py does
the same in Python.
"""
import argparse
import json
import math
import os
import sys
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence

from data.clip_readers import MOST_RATE, UnreadableClip, frame_rate
from data.sliding import USUAL_RATE
from dataset.options import CommandParser
from dataset.progress import say_progress
from tools.annotate import Caption, annotate, free_name
from tools.items import Item, find_items
from tools.outputs import check_writable, make_folder, shown
from tools.predictor import Answer, Predictor, Window
from tools.running import (
    Runner,
    add_running_options,
    clear_line,
    command_code,
    start_machine,
    views_of,
    with_end,
)
from tools.timeline import draw_timeline
from tools.timing import write_json
from tools.trained import add_checkpoint_options, geometry_typed, named, open_trained

DRAWN = 3  # classes in an annotated copy


def parse(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """The command line."""
    parser = CommandParser("tools.predict", __doc__)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a run's model.pth or checkpoint, one of the "
                        "reference, or published weights")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="video file, folder, pattern, or -")
    group = parser.add_argument_group("the outcome")
    group.add_argument("--top", type=int, default=5, metavar="K", help="how many classes [5]")
    group.add_argument("--json", metavar="FILE", help="a list of {path, top: [{class, probability}]} or {path, error}, "
                       "written when all videos are done; with --over-time a line of JSON for each window, as it is "
                       "known, with start and end in seconds; - is standard output")
    group.add_argument("--annotate", metavar="DIR", help="a copy of each video with its classes drawn on it goes there")
    group = parser.add_argument_group("long videos")
    group.add_argument("--over-time", action="store_true", help="windows of a clip's length that slide over the video")
    group.add_argument("--stride", type=float, default=0.0, metavar="SECONDS", help="from one window to the next; "
                       "means --over-time [half a window]")
    group.add_argument("--timeline", metavar="DIR", help="a picture of each video's classes over time goes there; "
                       "means --over-time")
    group.add_argument("--fps", type=float, default=USUAL_RATE, metavar="RATE", help="frames a second, where the video "
                       "does not say, such as folders of frames [%g]" % USUAL_RATE)
    add_checkpoint_options(parser)
    add_running_options(parser)
    return parser.read(argv)


def check_options(options: argparse.Namespace) -> None:
    """ValueError that names the option; makes the folders that are to be filled."""
    options.over_time = options.over_time or bool(options.timeline or options.stride)
    if options.top < 1:
        raise ValueError("--top %d: must be 1 or more" % options.top)
    if not 0 <= options.stride < math.inf or not 0 < options.fps <= MOST_RATE:
        raise ValueError("--stride takes 0 seconds or more, --fps a number above 0, at most %d" % MOST_RATE)
    if options.over_time and options.views[0] != 1:
        raise ValueError("--views %dx%d: with --over-time the windows are the clips; take 1xCROPS" % options.views)
    check_writable("json", options.json)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("tools.predict is one process: divide the list of paths among several, or use tools.evaluate")
    for name in ("annotate", "timeline"):
        make_folder(name, getattr(options, name))


def predict_whole(predictor: Predictor, items: Sequence[Item], options: argparse.Namespace) -> None:
    """One answer a video."""
    records: Dict[int, Dict[str, Any]] = {}
    answers: Iterator[Answer] = predictor.answers(items, views_of(options))
    for answer in with_end(answers, len(items), "videos"):
        record = predictor.record(answer, options.top)
        records[answer.place] = record
        if options.json != "-":
            clear_line()
            print(line_of(record), flush=True)
        if options.annotate and not answer.error:
            captions = [Caption(0.0, predictor.top(answer.probabilities, min(DRAWN, options.top)))]
            say_copy(answer.item, options, captions)
    ordered = [records[place] for place in sorted(records)]
    if options.json:
        write_json(options.json, ordered)
    say_broken(sum("error" in record for record in ordered), len(ordered))


def say_broken(count: int, total: int) -> None:
    """How many videos could not be read, if any."""
    if count:
        print("%d of %d videos cannot be read" % (count, total), file=sys.stderr)


def predict_over_time(predictor: Predictor, items: Sequence[Item], options: argparse.Namespace) -> None:
    """A line of JSON for each window of each video."""
    target = sys.stdout if options.json == "-" else open(options.json, "w", encoding="utf-8") if options.json else None
    broken = 0
    try:
        for number, item in enumerate(items, 1):
            windows: List[Window] = []  # kept for pictures alone
            say_progress("video %d of %d: %s" % (number, len(items), shown(item.path)))
            try:
                count, found = predictor.over_time(item, options.stride, options.fps, views_of(options))
                for window in with_end(found, count, "windows, video %d of %d" % (number, len(items))):
                    if options.timeline or options.annotate:
                        windows.append(window)
                    tell(window_record(predictor, item, window, options.top), target)
            except UnreadableClip as damage:
                broken += 1
                tell({"path": item.path, "error": damage.reason}, target)
            if windows:
                pictures(predictor, item, windows, options)
    finally:
        if target not in (None, sys.stdout):
            target.close()  # type: ignore[union-attr]
    say_broken(broken, len(items))


def window_record(predictor: Predictor, item: Item, window: Window, top: int) -> Dict[str, Any]:
    """A window as plain data; start and end in seconds."""
    return {"path": item.path, "start": round(window.start, 3), "end": round(window.end, 3),
            "top": predictor.top(window.probabilities, top)}


def tell(record: Dict[str, Any], target: Any) -> None:
    """A line of JSON to the file, and one in words, where standard output is free for it."""
    if target is not None:
        target.write(json.dumps(record) + "\n")
        target.flush()
    if target is not sys.stdout:
        clear_line()
        print(line_of(record), flush=True)


def line_of(record: Dict[str, Any]) -> str:
    """An answer in words."""
    if "error" in record:
        return shown("%s  error: %s" % (record["path"], record["error"]))
    part = "  %.2f to %.2f s" % (record["start"], record["end"]) if "start" in record else ""
    return shown("%s%s  %s" % (record["path"], part, ", ".join(
        "%s %.1f %%" % (answer["class"], 100 * answer["probability"]) for answer in record["top"])))


def pictures(predictor: Predictor, item: Item, windows: Sequence[Window], options: argparse.Namespace) -> None:
    """The timeline and the annotated copy, where they are wanted."""
    if options.timeline:
        path = free_name(options.timeline, item.path, (".png",)) + ".png"
        drawn = draw_timeline(path, os.path.basename(item.path), predictor.class_names, windows)
        print("timeline: %s" % shown(path) if drawn else "matplotlib is not installed: no timeline", file=sys.stderr)
    if options.annotate:
        middle = [(a.start + a.end + b.start + b.end) / 4 for a, b in zip(windows, windows[1:])]
        say_copy(item, options, [Caption(start, predictor.top(window.probabilities, min(DRAWN, options.top)))
                                 for start, window in zip([0.0] + middle, windows)])


def say_copy(item: Item, options: argparse.Namespace, captions: Sequence[Caption]) -> None:
    """Writes the annotated copy."""
    rate = (frame_rate(item.path) if item.kind == "video" else None) or options.fps
    try:
        copy = annotate(item.path, item.kind, options.annotate, captions, rate)
        print("annotated: %s" % shown(copy), file=sys.stderr)
    except UnreadableClip as error:
        print("not annotated: %s" % shown(str(error)), file=sys.stderr)


def _standard_input() -> Iterable[str]:
    """Its lines; names need not be text in any alphabet."""
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="surrogateescape")
    if sys.stdin.isatty():
        print("paths, one a line, end with Ctrl-D:", file=sys.stderr)
    return sys.stdin


def run(options: argparse.Namespace) -> int:
    """Predicts, prints, writes; the exit code."""
    check_options(options)
    machine = start_machine(options)
    trained = open_trained(options.checkpoint, machine.device, options.network, options.classes,
                           geometry_typed(options))
    named(trained)
    items = find_items(options.paths, _standard_input() if "-" in options.paths else (), trained.modality)
    predictor = Predictor(Runner(trained, machine))
    for line in trained.notes + [predictor.runner.description]:
        print(line, file=sys.stderr)
    (predict_over_time if options.over_time else predict_whole)(predictor, items, options)
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The command; exit code 2 for what the user can mend, 130 for Ctrl-C."""
    options = parse(argv)
    return command_code(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
