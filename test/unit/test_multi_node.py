"""docs/MULTI_NODE.md tells the truth: its commands start what they say, its figures follow from its formulae."""
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from network import build_network
from network.flops import count_parameters
from train.config import PROCESSES, RECIPES
from train.launch import plan
from train.options import parse_options

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "MULTI_NODE.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
SRUN = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_NODEID": "1", "SLURM_JOB_NODELIST": "gpu[1-2]"}


def taken_apart(command):
    """(variables, recipe, options)"""
    words = shlex.split(command)
    variables = dict(SRUN) if words[0] == "srun" else {}
    while words[0] != "bash":
        name, equals, value = words.pop(0).partition("=")
        if equals and not name.startswith("-"):
            variables[name] = value
    return variables, Path(words[1]).stem[len("train_"):], words[2:]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_start_what_they_say(command):
    variables, recipe, options = taken_apart(command)
    assert recipe in RECIPES and (ROOT / "test" / ("train_%s.sh" % recipe)).is_file()
    parse_options(options)
    assert ("--resume" in options) == ("MAX_RESTARTS" in variables)
    processes = PROCESSES.get(recipe, 1)
    found = plan(variables, processes, True)
    assert found.nodes == (1 if "NNODES" not in variables and "srun" not in command else 2)
    assert found.nproc == int(variables.get("NPROC", processes))
    assert ("torch.distributed.run" in found.launcher) == (processes > 1 or "MAX_RESTARTS" in variables)
    if not {"RDZV_ENDPOINT", "MAX_RESTARTS"} & set(variables):
        assert plan(variables, processes, False).nodes == found.nodes  # PyTorch 1.5 and 1.8


def test_the_script_prints_what_it_would_start():
    command = next(line for line in COMMANDS if "NODE_RANK=1" in line)
    env = dict(os.environ, LAUNCH_PRINT="1", PYTHON=sys.executable, GLOO_SOCKET_IFNAME="eth0")
    done = subprocess.run(["bash", "-c", command], cwd=str(ROOT), env=env, stdout=subprocess.PIPE, check=True,
                          universal_newlines=True)
    words = shlex.split(done.stdout.splitlines()[-1])
    variables, recipe, options = taken_apart(command)
    assert words[:3] == [sys.executable, "-m", "train.agent"]
    assert words[-4 - len(options):] == ["train_model.py", "--recipe", recipe, "--distributed"] + options
    assert "export GLOO_SOCKET_IFNAME" not in done.stdout


def rows(*cells):
    """The page's row of that name, its three columns."""
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines()
             if line.startswith("| " + cells[0])]
    assert len(found) == 1, cells[0]
    return found[0][1:]


def test_the_figures_follow_from_the_formulae():
    parameters = count_parameters(build_network("RESNET50_3D_GCN_X5", 400))
    gradients, step, rate = 2 * parameters / 1e6, 128 / 141.31, 141.31 / 8  # MB, seconds, clips/s a device
    assert "33.73 million" in PAGE and "67.5 MB" in PAGE and "0.906 s" in PAGE
    assert (round(parameters / 1e6, 2), round(gradients, 1), round(step, 3)) == (33.73, 67.5, 0.906)
    for column, (devices, link) in enumerate(((8, 25e3), (64, 12.5e3), (1024, 12.5e3))):
        sent = 2 * (devices - 1) / devices * gradients
        latency, failures = 2 * (devices - 1) * 20e-6 * 3, 50700 / devices * 3600
        interval = math.sqrt(2 * 1.3 * failures)

        def holds(name, text, column=column):
            assert rows(name)[column] == text, name
        holds("global batch", "{:,}".format(16 * devices))
        holds("steps an epoch", "%s, %s" % (9537 // (16 * devices) or "none", "{:,}".format(240000 // (16 * devices))))
        holds("sent by a device", "%.1f MB" % sent)
        holds("over 25 GB/s", "%.1f ms" % (1000 * sent / link))
        holds("latency of a ring", "%.1f ms" % (1000 * latency))
        holds("both, as a share", "%.1f %%" % (100 * (sent / link + latency) / step))
        holds("over 1.25 GB/s", "–" if devices == 8 else "%.1f %%" % (100 * (sent / 1.25e3 + latency) / step))
        holds("video files read", "{:,.0f} MB/s".format(devices * rate * 0.463))
        holds("packed store read", "{:,.0f} MB/s".format(devices * rate * 8 * 0.016))
        holds("cores that decode", "%.1f; %.1f" % (devices * rate / 61, devices * rate / 191))
        holds("all read a checkpoint", "%.3g s" % (devices * 270 / 2000))
        holds("mean time between", "{:,.1f} h".format(failures / 3600))
        holds("best interval", "%.1f %s" % ((interval / 3600, "h") if devices == 8 else (interval / 60, "min")))
        holds("`--save-every`", "{:,.0f}".format(interval / step))
        holds("lost to saves", "%.2f %%" % (100 * math.sqrt(2 * 1.3 / failures)))
        holds("lost to noticing", "%.2f %%" % (100 * 720 / failures))
    assert round(16384 * 54 * 24 / 419, -2) == 50700 and 90 * (240000 // 16384) == 1260 < 1500
