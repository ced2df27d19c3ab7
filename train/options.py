"""The command line, made from TrainConfig: typed values only, the old spellings, and the nearest name for a wrong
one.
"""

import argparse
import dataclasses
import difflib
from typing import Any, Callable, Dict, List, Sequence, Tuple, Union

from train.config import OptionError, TrainConfig, option_name

_TRUE, _FALSE = ("1", "true", "yes", "y", "on"), ("0", "false", "no", "n", "off")

# The original's spellings -> ours. They still work; each says once what to write instead.
OLD_SPELLINGS = {"--apex": "--amp", "--apex-level": "--opt-level", "--prof": "--profile", "--resume-epoch": "--resume",
                 "--gpus": "--device"}


def parse_bool(text: str) -> bool:
    """yes/true/1/on or no/false/0/off, in any case."""
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise argparse.ArgumentTypeError("takes yes or no, not %r" % text)


def parse_bool_or_path(text: str) -> Union[bool, str]:
    """yes or no as such; anything else is a path."""
    return parse_bool(text) if text.lower() in _TRUE + _FALSE else text


def parse_steps(text: str) -> Union[int, str]:
    """A whole number (exponents allowed, 24e4) or a share of the run, 60%."""
    try:
        number = float(text[:-1] if text.endswith("%") else text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf") or (text.endswith("%") and number > 100):
        raise argparse.ArgumentTypeError("takes a whole number or a share such as 60%%, not %r" % text)
    return text if text.endswith("%") else int(number)


def parse_steps_list(text: str) -> Tuple[Union[int, str], ...]:
    """A comma-separated list of parse_steps; an empty text is an empty list."""
    return tuple(parse_steps(part) for part in text.strip("[]()").replace(" ", ",").split(",") if part)


def parse_names(text: str) -> Tuple[str, ...]:
    """Names with commas between, as options or as fields: lr-base,list."""
    return tuple(name.lstrip("-").replace("-", "_") for name in text.replace(" ", ",").split(",") if name)


def parse_loss_scale(text: str) -> Union[float, str]:
    """dynamic, or a number."""
    return "dynamic" if text.lower() == "dynamic" else float(text)


_PARSERS = {"pretrained": parse_bool_or_path, "resume": parse_bool_or_path, "lr_steps": parse_steps_list,
            "warmup_steps": parse_steps, "allow_change": parse_names, "loss_scale": parse_loss_scale}


def _choice(name: str) -> Callable[[str], str]:
    """Choices are met in any case: O2 for o2, cpu for CPU."""
    return str.upper if name == "opt_level" else str.lower


def build_parser() -> argparse.ArgumentParser:
    """One option a field; what was not typed is absent from the result."""
    parser = argparse.ArgumentParser(
        prog="train_model.py", allow_abbrev=False, argument_default=argparse.SUPPRESS,
        description="Trains a GloRe network on videos, evaluates it and saves its weights under exps/TASK/.",
        epilog="A yes-or-no option takes nothing, yes or no; --no-NAME switches it off.")
    for row in dataclasses.fields(TrainConfig):
        shown = row.default if not isinstance(row.default, tuple) else ",".join(str(v) for v in row.default)
        text = row.metadata["help"] + (
            "" if row.default is None or row.default == "" else " [%s]" % str(shown).replace("%", "%%"))
        name, choices, metavar = option_name(row.name), row.metadata["choices"], row.metadata["metavar"]
        if isinstance(row.default, bool):
            parse = _PARSERS.get(row.name, parse_bool)
            parser.add_argument(name, nargs="?", const=True, type=parse, metavar=metavar or "yes|no", help=text)
            parser.add_argument("--no-" + name[2:], dest=row.name, action="store_false", default=argparse.SUPPRESS,
                                help=argparse.SUPPRESS)
        elif choices:
            parser.add_argument(name, type=_choice(row.name), choices=choices, metavar="|".join(choices), help=text)
        else:
            kind = _PARSERS.get(row.name, str if row.default is None else type(row.default))
            parser.add_argument(name, type=kind, metavar=metavar or "N", help=text)
    return parser


def _modern(argv: Sequence[str]) -> Tuple[List[str], List[str]]:
    """Rewrites old spellings: (arguments, notices)."""
    result, notices, skip = [], [], False
    for i, word in enumerate(argv):
        if skip:
            skip = False
            continue
        name, equals, value = word.partition("=")
        if not name.startswith("--"):
            result.append(word)
            continue
        dashed = name.replace("_", "-")
        new = OLD_SPELLINGS.get(dashed, dashed)
        if new == name:
            result.append(word)
            continue
        if dashed in ("--resume-epoch", "--gpus") and not equals:
            value, skip, equals = argv[i + 1] if i + 1 < len(argv) else "", True, "="
        values = [value] if equals else []
        if dashed == "--resume-epoch":
            values = _old_resume_epoch(value)
        elif dashed == "--gpus":
            values = _old_gpus(value)
        notices.append("%s is now %s" % (name, " ".join([new] + values)))
        if values != ["no"] or new != "--resume":
            result.extend([new + "=" + values[0]] if values else [new])
    return result, notices


def _old_resume_epoch(value: str) -> List[str]:
    """An epoch's number becomes `epoch:N`; a negative one meant not to resume."""
    try:
        number = int(value)
    except ValueError:
        raise OptionError("--resume-epoch %s: takes the number of an epoch; or write --resume" % (value or "(nothing)"))
    return ["epoch:%d" % number] if number >= 0 else ["no"]


def _old_gpus(value: str) -> List[str]:
    """One number chose one device: that is what happens anyway. Several were several processes."""
    if "," in value.strip(","):
        raise OptionError(
            "--gpus %s: several devices are started by NPROC=%d bash test/train_full_8p.sh, one process a device"
            % (value, len(value.split(","))))
    return ["auto"]


def parse_options(argv: Sequence[str]) -> Tuple[Dict[str, Any], List[str]]:
    """The typed options by field name, and a notice for each old spelling.

    Raises OptionError naming the nearest option for an unknown one; argparse itself ends with exit code 2 on a value
    of the wrong kind.
    """
    arguments, notices = _modern(argv)
    parser = build_parser()
    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        names = [option for action in parser._actions for option in action.option_strings]
        near = difflib.get_close_matches(unknown[0].split("=")[0], names, n=1)
        raise OptionError(
            "unknown option %s%s" % (unknown[0], ": did you mean %s?" % near[0] if near else "; see --help"))
    return vars(known), notices
