"""test/env_npu.sh beside a CANN made of files: where it is found, what is set, what is said where it is missing."""
import os
import resource
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHOWN = ("CANN ASCEND_SLOG_PRINT_TO_STDOUT ASCEND_GLOBAL_LOG_LEVEL ASCEND_GLOBAL_EVENT_ENABLE TASK_QUEUE_ENABLE "
         "HCCL_WHITELIST_DISABLE HCCL_IF_IP").split()


class Machine:
    """A home, a place for the driver, the installer's note and the default folder, all empty."""

    def __init__(self, root):
        self.root = root
        self.env = {"PATH": os.environ["PATH"], "HOME": str(root / "home"), "GLORE_NPU_DRIVER": str(root / "driver"),
                    "GLORE_CANN_INFO": str(root / "cann.info"),
                    "GLORE_CANN_ROOTS": "%s/default:%s/other" % (root, root)}

    def driver(self):
        (self.root / "driver").write_text("")
        return self

    def cann(self, folder):
        """A set_env.sh as careless as the real one: unset variables, a failing command, a look at its arguments."""
        path = self.root / folder
        path.mkdir(parents=True)
        (path / "set_env.sh").write_text("x=$NOT_SET; false; export CANN=%s$1\n" % folder)
        return self

    def source(self, *options, **more):
        """(exit code, standard error, environment afterwards and limit of open files) of a launcher that sources it."""
        code = "set -euo pipefail; . test/env_npu.sh; case $- in *e*u*) ;; *) exit 9 ;; esac; "
        code += "for name in %s; do printf '%%s=%%s\\n' $name \"${!name-unset}\"; done; ulimit -Sn" % " ".join(SHOWN)
        done = subprocess.run(["bash", "-c", code, "launcher", *options], cwd=str(ROOT), env=dict(self.env, **more),
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=60)
        lines = done.stdout.splitlines()
        return done.returncode, done.stderr, dict(line.split("=", 1) for line in lines[:-1]), lines[-1:]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_without_an_npu_nothing_happens(machine):
    machine.cann("default/ascend-toolkit")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    code, errors, found, files = machine.source()
    assert (code, errors) == (0, "") and set(found.values()) == {"unset"} and files == [str(before)]


def test_with_an_npu_all_is_set_that_the_original_sets(machine):
    code, errors, found, files = machine.driver().cann("default/ascend-toolkit").source("--batch-size", "4")
    address = found.pop("HCCL_IF_IP")
    assert (code, errors) == (0, "")
    assert found == {"CANN": "default/ascend-toolkit", "ASCEND_SLOG_PRINT_TO_STDOUT": "0",
                     "ASCEND_GLOBAL_LOG_LEVEL": "3", "ASCEND_GLOBAL_EVENT_ENABLE": "0", "TASK_QUEUE_ENABLE": "1",
                     "HCCL_WHITELIST_DISABLE": "1"}
    known = subprocess.run(["hostname", "-I"], stdout=subprocess.PIPE, universal_newlines=True).stdout.split()
    assert address == (known[0] if known else "unset")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert files[0] == "unlimited" or int(files[0]) >= min(512000, most) or most == resource.RLIM_INFINITY


def test_what_is_already_set_stays(machine):
    found = machine.driver().cann("default/cann").source(ASCEND_GLOBAL_LOG_LEVEL="1", HCCL_IF_IP="10.0.0.7")[2]
    assert (found["ASCEND_GLOBAL_LOG_LEVEL"], found["HCCL_IF_IP"], found["TASK_QUEUE_ENABLE"]) == ("1", "10.0.0.7", "1")


@pytest.mark.parametrize("note, folders, found", [
    ("noted", ["noted/ascend-toolkit", "default/ascend-toolkit"], "noted/ascend-toolkit"),  # the note goes first
    ("noted", ["noted/nnae"], "noted/nnae"),
    ("noted/ascend-toolkit", ["noted/ascend-toolkit"], "noted/ascend-toolkit"),
    ("gone", ["default/ascend-toolkit"], "default/ascend-toolkit"),  # a note about what was removed
    (None, ["default/cann"], "default/cann"), (None, ["other/ascend-toolkit"], "other/ascend-toolkit")])
def test_cann_is_found_where_it_is(machine, note, folders, found):
    machine.driver()
    for folder in folders:
        machine.cann(folder)
    if note:
        (machine.root / "cann.info").write_text("version=1\nInstall_Path=%s\n" % (machine.root / note))
    code, errors, environment, _ = machine.source()
    assert (code, environment.get("CANN"), errors) == (0, found, "")


def test_the_note_of_a_user_without_root_counts_too(machine):
    machine.driver().cann("mine/ascend-toolkit")
    note = machine.root / "home" / "Ascend" / "ascend_cann_install.info"
    note.parent.mkdir(parents=True)
    note.write_text("Install_Path=%s\n" % (machine.root / "mine"))
    assert machine.source()[2]["CANN"] == "mine/ascend-toolkit"


@pytest.mark.parametrize("part", ["", "/latest"])
def test_ascend_toolkit_home_goes_first(machine, part):
    machine.driver().cann("default/ascend-toolkit").cann("own/ascend-toolkit")
    (machine.root / "own" / "ascend-toolkit" / "latest").mkdir()
    home = "%s/own/ascend-toolkit%s" % (machine.root, part)
    assert machine.source(ASCEND_TOOLKIT_HOME=home)[2]["CANN"] == "own/ascend-toolkit"


def test_an_npu_without_cann_is_said_in_two_lines_unless_another_device_is_wanted(machine):
    code, errors, _, _ = machine.driver().source()
    assert code == 2 and errors.count("\n") == 2
    assert "ASCEND_TOOLKIT_HOME" in errors and "--device cpu" in errors and "docs/NPU.md" in errors
    for options in (["--device", "cpu"], ["--device=cpu", "--amp"], ["--device", "cuda"]):
        assert machine.source(*options)[:2] == (0, "")
