"""Every command of tools/ and dataset/: its help teaches by an example that it takes itself, a wrong word ends it with
code 2; and what the two rooms share of this.
"""
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dataset.options import CommandParser
from tools.running import command_code

ROOT = Path(__file__).resolve().parents[3]
COMMANDS = sorted("%s.%s" % (path.parent.name, path.stem) for room in ("dataset", "tools")
                  for path in (ROOT / room).glob("*.py") if re.search("^if __name__ ==", path.read_text(), re.M)
                  and path.stem != "study_train")   # which speaks for train_model.py


def ended(main, argv, capsys):
    """(exit code, standard output, standard error)"""
    try:
        code = main(argv)
    except SystemExit as stop:
        code = stop.code
    return (code, *capsys.readouterr())


def test_the_commands_are_found():
    assert {"dataset.prepare", "dataset.check", "tools.evaluate", "tools.predict", "tools.benchmark"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_an_example_that_the_command_takes(command, capsys):
    module = importlib.import_module(command)
    code, out, err = ended(module.main, ["--help"], capsys)
    examples = re.findall(r"-m %s +(\S.*)" % re.escape(command), out[out.index("\n\n"):])
    assert (code, err) == (0, "") and examples, "no example of %s in its help" % command
    parse = getattr(module, "parse", None) or getattr(module, "_parse", None)
    for example in examples if parse else ():
        parse(shlex.split(example))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_option_ends_with_code_2_and_a_word(command, capsys):
    code, out, err = ended(importlib.import_module(command).main, ["--no-such-option", "x"], capsys)
    assert (code, out) == (2, "") and "error: " in err and "Traceback" not in err


def test_no_command_lets_torch_load_a_broken_torch_npu_by_itself():
    done = subprocess.run([sys.executable, "-c", "import os, sys\nfor room in ('dataset', 'tools'):\n"
                           "    os.environ.pop('TORCH_DEVICE_BACKEND_AUTOLOAD', None)\n    __import__(room)\n"
                           "    print(os.environ['TORCH_DEVICE_BACKEND_AUTOLOAD'], 'torch' in sys.modules)"],
                          cwd=str(ROOT), stdout=subprocess.PIPE, universal_newlines=True, timeout=60)
    assert done.stdout == "0 False\n" * 2


@pytest.fixture
def parser():
    parser = CommandParser("tools.some", "Does something.\n\n    python -m tools.some a.mp4 --json FILE\n\nAnd more.\n")
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--json")
    return parser


def test_words_stand_before_and_behind_options(parser):
    assert parser.read(["a", "--json", "f", "b"]).paths == ["a", "b"]
    assert parser.read(["--json", "f", "--", "-b.mp4"]).paths == ["-b.mp4"]


def test_the_nearest_option_is_named(parser, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-b.mp4").write_bytes(b"")
    for words, said in ((["a", "--jsom", "f"], "error: unknown option --jsom: did you mean --json?"),
                        (["a", "-b.mp4"], "unknown option -b.mp4: a file of that name is written ./-b.mp4"),
                        (["--json", "f"], "error: the following arguments are required: paths; see python -m"),
                        (["a", "--js", "f"], "unknown option --js")):
        code, out, err = ended(parser.read, words, capsys)
        assert (code, out) == (2, "") and err.startswith("error: ") and said in err and err.count("\n") == 1


def test_the_help_is_the_docstrings(parser, capsys):
    code, out, _ = ended(parser.read, ["-h"], capsys)
    assert code == 0 and "Does something.\n\nAnd more.\n" in out
    assert out.endswith("examples:\n    python -m tools.some a.mp4 --json FILE\n")


def test_a_reader_that_died_is_said_with_its_remedy(capsys):
    def died():
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    assert command_code(died) == 2 and "error: a process that reads videos has died" in capsys.readouterr().err


TALKS = """
import sys
from dataset.progress import exit_code
def talk():
    for number in range(100000):
        print("line", number)
    return 0
sys.exit(exit_code(talk))
"""


@pytest.mark.parametrize("streams", ["", "2>&1"])
def test_a_pipe_whose_reader_ends_is_no_error(streams):
    line = '"$0" -c "$1" %s | head -n 1 >&3; echo "${PIPESTATUS[0]}"' % streams
    done = subprocess.run(["bash", "-c", "exec 3>&2; " + line, sys.executable, TALKS], cwd=str(ROOT),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=60)
    assert (done.stdout, done.stderr) == ("141\n", "line 0\n")
