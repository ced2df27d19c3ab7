"""Makes one HTML page of a run, or of several side by side: learning curves, results by class, confusion matrix, the
most confident mistakes as films, configuration.

    python -m tools.report exps/motion10_resnet50_3d_gcn_x5 --output report.html
    python -m tools.report exps/baseline exps/glore --output compared.html
    python -m tools.report exps/mine --output mine.html --data-root /data/my_videos

The page is a single file that loads nothing and can be mailed or opened without a network. A run may still be going on,
or have ended before its time: the page shows what is there. Classes, confusion matrix and mistakes come from scores.npz
in the run's folder, which training leaves at each evaluation; of an older run `python -m tools.evaluate
exps/TASK/model.pth --scores exps/TASK/scores.npz` makes it.
"""
import argparse
import sys
from typing import List, Optional, Sequence

from dataset.options import CommandParser, whole_number
from tools.outputs import check_writable, shown, write_whole
from tools.report_films import confident_mistakes, films_of, find_videos
from tools.report_page import Mistakes, render
from tools.report_run import RunData, read_run
from tools.running import command_code, with_end

MOST_RUNS = 16


def build_parser() -> CommandParser:
    """The command's options."""
    parser = CommandParser("tools.report", __doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the folder of a run, exps/TASK")
    parser.add_argument("--output", required=True, metavar="FILE.html", help="the page")
    parser.add_argument("--mistakes", type=whole_number(0, 200), default=12, metavar="N",
                        help="how many mistakes of each run are shown as films; 0: none [%(default)s]")
    parser.add_argument("--data-root", metavar="DIR", help="the data set's folder, where it has moved [as trained]")
    return parser


def parse(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """The command line."""
    return build_parser().read(argv)


def check_options(options: argparse.Namespace) -> None:
    """What can be found wrong before anything is read: ValueError that names the option."""
    if options.output == "-":
        raise ValueError("--output -: takes a file's name, since a page is opened from one")
    check_writable("output", options.output)
    if len(options.runs) > MOST_RUNS:
        raise ValueError("RUN: %d runs; a page that can be read takes at most %d" % (len(options.runs), MOST_RUNS))


def told_apart(runs: List[RunData]) -> List[RunData]:
    """Runs of equal names take those of their folders."""
    names = [run.name for run in runs]
    return [run if names.count(run.name) == 1 else run._replace(name=run.folder) for run in runs]


def mistakes_of(run: RunData, count: int, data_root: Optional[str]) -> Optional[Mistakes]:
    """The mistakes with their films; None where none are wanted, or nothing is known of them. Where the videos are not
    there, the page says so.
    """
    if run.scored is None or not count:
        return None
    found = confident_mistakes(run.scored, count)
    if not found:
        return Mistakes([], [])
    try:
        videos = find_videos(run, data_root)
    except (ValueError, OSError) as error:
        print(shown("%s: no films of its mistakes: %s" % (run.name, error)), file=sys.stderr)
        return Mistakes(found, [""] * len(found), "No films: %s." % error)
    return Mistakes(found, films_of(videos, [mistake.path for mistake in found], run.config))


def run(options: argparse.Namespace) -> int:
    """Reads the runs and writes the page; the exit code."""
    check_options(options)
    found = []
    for one in with_end((read_run(path) for path in options.runs), len(options.runs), "runs read"):
        found.append((one, mistakes_of(one, options.mistakes, options.data_root)))
    runs = told_apart([one for one, _ in found])
    content = render(runs, [mistakes for _, mistakes in found])
    write_whole(options.output, content)
    for one in runs:
        for note in one.notes:
            print(shown("%s: %s" % (one.name, note)), file=sys.stderr)
    print("%s: %d run(s), %.1f MB; open it in a browser" % (options.output, len(runs), len(content) / 1e6))
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The command; exit code 2 for what the user can mend, 130 for Ctrl-C."""
    options = parse(argv)
    return command_code(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
