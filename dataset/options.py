"""The command lines of dataset/ and tools/: how a command explains itself, and the options that several of dataset/
take, each written once.
"""
import argparse
import difflib
import os
from typing import Any, Callable, Dict, NoReturn, Optional, Sequence

from dataset.progress import usable_cores
from dataset.specs import FILES


class CommandParser(argparse.ArgumentParser):
    """The parser of `python -m MODULE`, explained by the module's docstring: what it does, an empty line, indented
    examples and, where there is more to say, an empty line and that.
    """

    def __init__(self, module: str, doc: str) -> None:
        about, examples, *rest = doc.strip('\n').split('\n\n')
        super().__init__(prog='python -m ' + module, description='\n\n'.join([about] + rest), allow_abbrev=False,
                         epilog='examples:\n' + examples, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        """Ends with code 2 and the message."""
        self.exit(2, 'error: %s; see %s --help\n' % (message, self.prog))

    def read(self, argv: Optional[Sequence[str]]) -> argparse.Namespace:
        """The options, which may stand before, between and behind the other words. One that there is not ends as
        `error` does, with the nearest that there is.
        """
        options, unknown = self.parse_known_args(argv)
        if any(not word.startswith('-') for word in unknown):  # argparse takes words that lie apart only so
            options, unknown = self.parse_known_intermixed_args(argv)
        if unknown:
            names = [name for action in self._actions for name in action.option_strings]
            near = difflib.get_close_matches(unknown[0].split('=')[0], names, n=1)
            more = ': did you mean %s?' % near[0] if near else ''
            if unknown[0].startswith('-') and os.path.exists(unknown[0]):
                more = ': a file of that name is written ./%s' % unknown[0]
            self.error('unknown %s %s%s' % ('option' if unknown[0][:1] == '-' else 'word', unknown[0], more))
        return options


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
