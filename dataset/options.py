"""Options that several commands of dataset/ take, each written once."""
import argparse
from typing import Any, Callable, Dict

from dataset.progress import usable_cores
from dataset.specs import FILES


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """A type for argparse: a whole number from `least` to `most`."""
    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError('takes %d to %d, not %s' % (least, most, text))
        return int(text)
    return number


OPTIONS: Dict[str, Dict[str, Any]] = {
    'name': dict(help='the data set, as for --dataset of train_model.py'),
    '--data-root': dict(metavar='DIR', help='folder of the data set; default: the one of train_model.py'),
    '--split': dict(type=whole_number(1, 99), help='which split of UCF-101, HMDB-51 or a rendered set; default '
                    '%(default)s'),
    '--source': dict(choices=FILES, default='auto', help='videos or raw frames; default auto: videos where there are '
                     'any'),
    '--workers': dict(type=whole_number(1, 1024), default=usable_cores(), help='processes; default %(default)s, the '
                      'cores'),
    '--short-side': dict(type=whole_number(1, 8192), help='most pixels of the short side; smaller frames stay as they '
                         'are; default %(default)s'),
    '--quality': dict(type=whole_number(1, 100), help='of JPEG, 1 to 100; default %(default)s'),
}


def add_options(parser: argparse.ArgumentParser, *names: str) -> None:
    """Adds some of OPTIONS as they stand."""
    for name in names:
        add_option(parser, name)


def add_option(parser: argparse.ArgumentParser, name: str, **changes: Any) -> None:
    """Adds one of OPTIONS, with a default or a word of the command's own."""
    parser.add_argument(name, **dict(OPTIONS[name], **changes))
