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
from pathlib import Path
from typing import List, Optional, Sequence

from tools.report_films import confident_mistakes, films_of, find_videos
from tools.report_page import Mistakes, render
from tools.report_run import RunData, read_run
from tools.running import check_writable, command_code, with_end
from train.files import write_atomically

MOST_RUNS, MOST_MISTAKES, SHOWN = 16, 200, 12


def parse(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """The command line."""
    about, examples, rest = __doc__.split("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m tools.report", description="%s\n\n%s" % (about, rest), epilog="examples:\n" + examples,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the folder of a run, exps/TASK")
    parser.add_argument("--output", required=True, metavar="FILE.html", help="the page")
    parser.add_argument("--mistakes", type=int, default=SHOWN, metavar="N",
                        help="how many mistakes of each run are shown as films; 0: none [%d]" % SHOWN)
    parser.add_argument("--data-root", metavar="DIR", help="the data set's folder, where it has moved [as trained]")
    return parser.parse_args(argv)


def check_options(options: argparse.Namespace) -> None:
    """What can be found wrong before anything is read: ValueError that names the option."""
    check_writable("output", options.output)
    if len(options.runs) > MOST_RUNS:
        raise ValueError("RUN: %d runs; a page that can be read takes at most %d" % (len(options.runs), MOST_RUNS))
    if not 0 <= options.mistakes <= MOST_MISTAKES:
        raise ValueError("--mistakes %d: takes 0 (none) to %d" % (options.mistakes, MOST_MISTAKES))


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
    shown = confident_mistakes(run.scored, count)
    if not shown:
        return Mistakes([], [])
    try:
        videos = find_videos(run, data_root)
    except (ValueError, OSError) as error:
        print("%s: no films of its mistakes: %s" % (run.name, error), file=sys.stderr)
        return Mistakes(shown, [""] * len(shown), "No films: %s." % error)
    return Mistakes(shown, films_of(videos, [mistake.path for mistake in shown], run.config))


def run(options: argparse.Namespace) -> int:
    """Reads the runs and writes the page; the exit code."""
    check_options(options)
    found = []
    for one in with_end((read_run(path) for path in options.runs), len(options.runs), "runs read"):
        found.append((one, mistakes_of(one, options.mistakes, options.data_root)))
    runs = told_apart([one for one, _ in found])
    content = render(runs, [mistakes for _, mistakes in found])
    write_atomically(content, Path(options.output))
    for one in runs:
        for note in one.notes:
            print("%s: %s" % (one.name, note), file=sys.stderr)
    print("%s: %d run(s), %.1f MB; open it in a browser" % (options.output, len(runs), len(content) / 1e6))
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The command; exit code 2 for what the user can mend, 130 for Ctrl-C."""
    options = parse(argv)
    return command_code(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
