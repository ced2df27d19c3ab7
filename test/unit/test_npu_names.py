"""Ascend's PyTorch 1.5 and 1.8 by a stand-in, on any PyTorch: the names that the toolkit calls, and their order."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL_CLIPS

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = ROOT / "test" / "npu_sim"
JOB = """
import json, sys
sys.path[:0] = sys.argv[1:3]
import train_model
code = train_model.main(sys.argv[4:])
import old_stub
json.dump(old_stub.calls, open(sys.argv[3], "w"))
sys.exit(code)
"""


def start(code, *arguments, **environment):
    """A Python of its own in the project's root."""
    env = dict(os.environ, OMP_NUM_THREADS="1", **environment)
    return subprocess.Popen([sys.executable, "-c", code] + [str(a) for a in arguments], cwd=str(ROOT), env=env,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)


def test_two_ranks_of_1_8_find_torch_npu_and_meet_by_hccl(tiny_videos, tmp_path):
    (tmp_path / "torch_npu.py").write_text("import old_stub\nold_stub.install(count=2)\n")
    options = SMALL_CLIPS + ["--data-root", tiny_videos, "--model-dir", tmp_path / "out", "--task-name", "t"]
    options += "--batch-size 3 --workers 0 --max-steps 2 --no-precise-bn --distributed".split()
    options += ["--dist-url", "file://%s" % (tmp_path / "meet")]
    ranks = [start(JOB, tmp_path, STAND_IN, tmp_path / ("%d.json" % rank), *options, RANK=str(rank),
                   LOCAL_RANK=str(rank), WORLD_SIZE="2") for rank in (0, 1)]
    said = [rank.communicate(timeout=300) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said[0][1] + said[1][1]
    assert "| 2p-NPU" in said[0][0] and "2p-NPU" not in said[1][0]
    for rank in (0, 1):
        calls = json.loads((tmp_path / ("%d.json" % rank)).read_text())
        order = ["set_device npu:%d" % rank, "init_process_group hccl", "manual_seed 1",
                 "DistributedDataParallel [%d]" % rank, "stream(copies)", "computing.wait_stream(copies)",
                 "record_stream(computing)", "synchronize"]
        assert [calls.index(call) for call in order] == sorted(calls.index(call) for call in order)
        assert sum(call.startswith("set_device") for call in calls) == 1
    shutil.rmtree(str(tmp_path / "out"))  # large


@pytest.mark.parametrize("style", ["part of torch", "module of torch"])
def test_the_npu_of_1_5_is_part_of_torch(style, tmp_path):
    code = "import sys; sys.path[:0] = sys.argv[1:2]\nimport old_stub; from train import device as devices\n"
    if style == "part of torch":
        code += "old_stub.install()\n"
    else:  # there, but loaded by nobody yet
        (tmp_path / "npu.py").write_text("import old_stub\nold_stub.install()\n")
        code += "import torch; torch.__path__.append(sys.argv[2])\n"
    code += "d = devices.choose_device('auto', 7); print(d, d.type, devices.device_name(d), devices.peak_memory(d))\n"
    code += "print(devices.BACKEND_OF[d.type], devices.device_count('npu'), old_stub.calls)\n"
    process = start(code, STAND_IN, tmp_path)
    said, errors = process.communicate(timeout=120)
    assert said.splitlines() == ["npu:7 npu npu 1024", "hccl 8 ['set_device npu:7', 'max_memory_allocated']"], errors
