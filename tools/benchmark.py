"""Times the work of a training run.

    python -m tools.benchmark step --device cpu --batch-size 2 --json step.json
    python -m tools.benchmark compare before.json after.json

Variants are interleaved in one run and compared by medians, so that a machine whose speed drifts favours none.
`step` and `infer` take synthetic clips: the device's own limit; `input` times the pipeline up to the device;
`end-to-end` puts both together; `compare` reads two JSON files. Results with their set-up are kept in benchmarks/.
"""
import argparse
import functools
import sys
from typing import Callable, Dict, Optional, Sequence, Tuple

from dataset.options import CommandParser
from tools import benchmark_compare, benchmark_input, benchmark_step, benchmark_whole

WORK: Dict[str, Tuple[str, Callable[..., None], Callable[..., int]]] = {  # (words, options, function)
    "step": ("a whole training step", benchmark_step.add_options, benchmark_step.run_step),
    "infer": ("classification alone", benchmark_step.add_options, benchmark_step.run_infer),
    "input": ("the input pipeline against its decode floor", benchmark_input.add_options, benchmark_input.run),
    "end-to-end": ("training from real files", benchmark_whole.add_options, benchmark_whole.run),
    "compare": ("two JSON files of one of the others", benchmark_compare.add_options, benchmark_compare.run),
}


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The command line."""
    parser = CommandParser("tools.benchmark", __doc__)
    commands = parser.add_subparsers(dest="what", metavar="{%s}" % ",".join(WORK), parser_class=argparse.ArgumentParser)
    commands.required = True
    for name, (words, options_of, work) in WORK.items():
        command = commands.add_parser(name, help=words)
        options_of(command)
        command.set_defaults(work=functools.partial(work, command))
    options = parser.parse_args(argv)
    return int(options.work(options))


if __name__ == "__main__":
    sys.exit(main())
