"""The whole command line on a pretend accelerator `npu` (test/npu_sim): its numbers must be the CPU's to the bit."""
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import warnings
from pathlib import Path

import pytest
import torch
from conftest import SMALL_CLIPS

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = ROOT / "test" / "npu_sim"
RECIPE = SMALL_CLIPS + ("--batch-size 6 --eval-batch-size 9 --epoch-div-factor 3 --end-epoch 2 --workers 1 "
                        "--lr-base 0.01 --warmup-steps 2 --task-name t --no-pretrained --amp-dtype fp32 "
                        "--execution reference").split()  # a CPU's own would round otherwise


def _missing():
    """What the pretend device cannot be built without."""
    if not hasattr(torch.utils, "rename_privateuse1_backend") or not hasattr(torch, "accelerator"):
        return "a PyTorch that a device can be added to (test_npu_names.py covers the older ones)"
    if not shutil.which("g++"):
        return "g++"
    if importlib.util.find_spec("ninja") is None and not shutil.which("ninja"):
        return "ninja (requirements-dev.txt)"
    return None if (Path(sysconfig.get_paths()["include"]) / "Python.h").exists() else "Python's headers (Python.h)"


MISSING = _missing()
if MISSING:
    warnings.warn("THE NPU PATH IS NOT TESTED: test/npu_sim needs " + MISSING, stacklevel=2)
pytestmark = pytest.mark.skipif(bool(MISSING), reason="test/npu_sim needs %s" % MISSING)

# Runs steps given as JSON: a list is a command line of train_model.py, a text is code. Its last line is their outcomes:
# exit codes, or what was raised. No function of torch.cuda may be called, save by PyTorch itself.
JOBS = """
import json, sys, traceback, types
import torch

def poison(name):
    original = getattr(torch.cuda, name)
    def poisoned(*args, **options):
        caller = sys._getframe(1).f_globals["__name__"]
        if caller.split(".")[0] == "torch":
            return original(*args, **options)
        raise AssertionError("torch.cuda.%s was called by %s" % (name, caller))
    setattr(torch.cuda, name, poisoned)

for name, value in list(vars(torch.cuda).items()):
    if isinstance(value, types.FunctionType):
        poison(name)

import train_model
outcomes = []
for step in json.loads(sys.argv[1]):
    try:
        outcomes.append(exec(step) if isinstance(step, str) else train_model.main(step))
    except (AssertionError, RuntimeError) as error:
        traceback.print_exc()
        outcomes.append("%s: %s" % (type(error).__name__, error))
print(json.dumps(outcomes))
"""

# The CPU's fused SGD rounds the last numbers of a tensor that fills no vector differently; the NPU has none.
UNFUSED = """
import train_model
build_sgd = train_model.build_sgd

def unfused(*args):
    optimizer = build_sgd(*args)
    for group in optimizer.param_groups:
        group["fused"] = False
    return optimizer

train_model.build_sgd = unfused
"""


# The network of the table with narrow stages of a block each, as long as half types are imitated.
NARROW = """
from network import NETWORKS
spec = NETWORKS["RESNET50_3D_GCN_X5"]
stages = [stage._replace(blocks=1, mid=16, out=32 << number, temporal=(1,), glore_after=(1,) * (number in (1, 2)))
          for number, stage in enumerate(spec.stages)]
NETWORKS[spec.name] = spec._replace(stages=tuple(stages))
"""


def with_npu(**more):
    """The environment that CANN's set_env.sh and an installed torch_npu make."""
    return dict(os.environ, OMP_NUM_THREADS="1", ASCEND_TOOLKIT_HOME=str(STAND_IN), PYTHONPATH=str(STAND_IN), **more)


def jobs(*steps, env=None):
    """(outcomes, all that was said) of steps run one after the other in a process of their own."""
    steps = json.dumps([step if isinstance(step, str) else [str(word) for word in step] for step in steps])
    done = subprocess.run([sys.executable, "-c", JOBS, steps], cwd=str(ROOT), env=env or with_npu(),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, timeout=300)
    assert done.returncode == 0, done.stdout
    return json.loads(done.stdout.splitlines()[-1]), done.stdout


def script(name, options, env):
    """What a script printed."""
    done = subprocess.run(["bash", str(ROOT / "test" / name)] + [str(word) for word in options], env=env, timeout=300,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def torchrun(processes, job, *options):
    """What `job` printed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes, job,
               "--distributed", *options]
    done = subprocess.run([str(word) for word in command], cwd=str(ROOT), env=with_npu(), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, universal_newlines=True, timeout=300)
    assert done.returncode == 0, done.stdout
    return done.stdout


def numbers(out):
    """(every loss and accuracy that was reported, the weights) of a run."""
    folder = Path(str(out)) / "t"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("fps", "data_wait_share")} for row in rows], torch.load(
        str(folder / "model.pth"))


def assert_same_numbers(out, other):
    (rows, weights), (other_rows, other_weights) = numbers(out), numbers(other)
    assert rows == other_rows
    assert list(weights) == list(other_weights)
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


def result(out):
    return json.loads((Path(str(out)) / "t" / "result.json").read_text())


@pytest.fixture
def out(tmp_path):
    """A folder for runs; their files are large, so they go at once."""
    yield tmp_path
    shutil.rmtree(str(tmp_path))


@pytest.fixture(scope="module", autouse=True)
def pretend_npu():
    """Builds the device where this has not been done (about 30 s)."""
    subprocess.check_call([sys.executable, "-c", "import torch_npu"], env=with_npu())


@pytest.fixture(scope="module")
def npu_machine(tmp_path_factory):
    """The environment of a machine with an NPU driver and CANN, as test/launch.sh finds it: nothing is set yet."""
    root = tmp_path_factory.mktemp("machine")
    cann = root / "Ascend" / "ascend-toolkit"
    cann.mkdir(parents=True)
    (cann / "set_env.sh").write_text("export ASCEND_TOOLKIT_HOME=%s/latest\nexport PYTHONPATH=%s:$PYTHONPATH\n"
                                     % (cann, STAND_IN))
    (root / "cann.info").write_text("Install_Type=full\nInstall_Path=%s\n" % cann.parent)
    (root / "driver").write_text("")
    env = dict(os.environ, PYTHON=sys.executable, OMP_NUM_THREADS="1", GLORE_NPU_DRIVER=str(root / "driver"),
               GLORE_CANN_INFO=str(root / "cann.info"), GLORE_CANN_ROOTS=str(root / "nowhere"), HOME=str(root))
    env["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    env.pop("ASCEND_TOOLKIT_HOME", None)
    return env


@pytest.fixture(scope="module")
def on_npu(tiny_videos, tmp_path_factory, npu_machine):
    """Two epochs by the script on the first device that there is: (folder, what was said)."""
    folder = tmp_path_factory.mktemp("npu")
    options = RECIPE + ["--data-root", tiny_videos, "--model-dir", folder]
    yield folder, script("train_performance_1p.sh", options, npu_machine)
    shutil.rmtree(str(folder))


@pytest.fixture(scope="module")
def on_cpu(tiny_videos, tmp_path_factory, on_npu):
    """The same on the CPU: (folder, folder of a run that went on from the NPU's first epoch)."""
    folder = tmp_path_factory.mktemp("cpu")
    alone, resumed = folder / "alone", folder / "resumed"
    common = RECIPE + ["--recipe", "performance_1p", "--device", "cpu", "--data-root", tiny_videos]
    outcomes, said = jobs(UNFUSED, common + ["--model-dir", alone],
                          common + ["--model-dir", resumed, "--resume", first_epoch(on_npu[0])])
    assert outcomes == [None, 0, 0], said
    yield alone, resumed
    shutil.rmtree(str(folder))


def first_epoch(out):
    return Path(str(out)) / "t" / "checkpoints" / "t_ep-0001.pth"


def test_the_script_takes_the_npu_and_its_numbers_are_the_cpus(on_npu, on_cpu):
    out, said = on_npu
    assert "| 1p-NPU" in said and "on Simulated910, 1 process(es)" in said
    assert_same_numbers(out, on_cpu[0])
    found = result(out)
    assert (found["name"], found["device"], found["num_videos"]) == ("1p-NPU", "Simulated910", 9)
    assert found["peak_memory_bytes"] > 4 * sum(w.numel() for w in numbers(out)[1].values())
    content = torch.load(str(first_epoch(out)), map_location=None)
    assert {v.device.type for part in ("state_dict", "optimizer") for v in content[part].values()} == {"cpu"}


def test_a_run_goes_on_on_the_other_device(on_npu, on_cpu, tiny_videos, out):
    common = RECIPE + ["--recipe", "performance_1p", "--data-root", tiny_videos, "--model-dir", out]
    outcomes, said = jobs(common + ["--resume", first_epoch(on_cpu[0])])
    assert outcomes == [0] and "| 1p-NPU" in said, said
    for resumed in (out, on_cpu[1]):
        assert numbers(resumed)[0] == numbers(on_npu[0])[0][2:]
        weights, expected = numbers(resumed)[1], numbers(on_npu[0])[1]
        assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_what_was_trained_is_evaluated_and_asked_on_the_npu(on_npu, tiny_videos, out):
    model, files = str(on_npu[0] / "t" / "model.pth"), [str(out / "report.json"), str(out / "windows.jsonl")]
    film = str(tiny_videos / "test" / "up" / "v0.avi")
    outcomes, said = jobs("from tools import evaluate, predict\nassert evaluate.main(%r) == predict.main(%r) == 0" % (
        [model, "--json", files[0]], [model, film, "--over-time", "--json", files[1]]))
    assert outcomes == [None], said
    report, trained = json.loads(Path(files[0]).read_text()), result(on_npu[0])
    assert (report["device"], report["num_videos"]) == ("Simulated910", 9)
    assert report["top1"] == pytest.approx(trained["accuracy_top1"])
    assert report["clip_loss"] == pytest.approx(trained["loss"])
    windows = [json.loads(line) for line in Path(files[1]).read_text().splitlines()]
    assert len(windows) == 3 and windows[-1]["end"] == 0.8


def test_half_precision_trace_and_memory(tiny_videos, out):
    common = RECIPE + "--amp-dtype auto --end-epoch 1 --no-precise-bn".split()
    common += ["--data-root", tiny_videos, "--model-dir"]
    rows = {"O0": [], "O1": ["--opt-level", "O1"], "O2": ["--opt-level", "O2", "--loss-scale", "128"],
            "O2 dynamic": ["--opt-level", "O2", "--loss-scale", "dynamic", "--amp-dtype", "bf16"]}
    runs = [common + [out / name] + options for name, options in rows.items()]
    less_memory = "torch.ops.npu_sim.set_memory(torch.npu.memory_allocated() + (1 << 20))"
    traced = common + [out / "traced", "--profile", "--batch-size", "2", "--epoch-div-factor", "1"]
    outcomes, said = jobs(*([NARROW] + runs + [traced, less_memory, common + [out / "full"]]))
    assert outcomes == [None, 0, 0, 0, 0, 0, None, 2], said
    assert "aten::convolution" in said and (out / "traced" / "t" / "trace.json").stat().st_size > 1000
    assert "the device's memory is full: lower --batch-size" in said and "NPU out of memory" in said
    expected = numbers(out / "O0")[0][0]["loss"]
    for name in list(rows)[1:]:
        found = result(out / name)
        assert (found["amp_type"], found["name"]) == (name[:2], "1p-NPU")
        assert found["skipped_steps"] <= (name == "O1")  # fp16 may overflow at the first scale of 65536
        loss = numbers(out / name)[0][0]["loss"]
        assert loss != expected and loss == pytest.approx(expected, rel=0.1), name
        assert all(w.device.type == "cpu" and w.dtype in (torch.float32, torch.int64)
                   for w in numbers(out / name)[1].values())
    for words in ("O1, computed in fp16", "O2, computed in fp16, loss scale 128",
                  "O2, computed in bf16, loss scale dynamic from 65536"):
        assert words in said


def test_what_would_fail_on_a_device_fails_here(tiny_videos, out):
    run = RECIPE + ["--opt-level", "O0", "--no-precise-bn", "--data-root", tiny_videos, "--model-dir", out]
    outcomes, said = jobs(
        "from train import loop, prefetch; kept = prefetch.to_device; prefetch.to_device = lambda batch, device: batch",
        run, "prefetch.to_device = kept; kept = torch.nn.Module.to; torch.nn.Module.to = lambda module, *to: module",
        run, "torch.nn.Module.to = kept; loop.seed_device = lambda seed, device: torch.cuda.synchronize()", run)
    same_device = r"Expected all tensors to be on the same device|type \(.*\) and .* type \(.*\) should be the same"
    assert re.search(same_device, str(outcomes[1])) and re.search(same_device, str(outcomes[3])), said
    assert "torch.cuda.synchronize was called by __main__" in str(outcomes[5]), said


def test_two_npus_by_the_script_are_two_cpu_processes_to_the_bit(tiny_videos, out, npu_machine):
    options = RECIPE + ["--data-root", str(tiny_videos), "--batch-size", "3", "--end-epoch", "1", "--model-dir"]
    said = script("train_performance_8p.sh", options + [out / "npu"], dict(npu_machine, NPROC="2"))
    assert said.count("| 2p-NPU") == 1
    (out / "job.py").write_text("import sys\nsys.path.insert(0, %r)\n%s\nsys.exit(train_model.main())\n"
                                     % (str(ROOT), UNFUSED))
    said = torchrun(2, out / "job.py", *options, out / "cpu", "--recipe", "performance_8p", "--device", "cpu")
    assert said.count("| 2p-CPU") == 1
    assert_same_numbers(out / "npu", out / "cpu")


def test_more_processes_than_npus_are_refused(npu_machine):
    done = subprocess.run(["bash", str(ROOT / "test" / "train_full_8p.sh")], env=npu_machine, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=100)
    assert done.returncode == 2 and "2 npu devices" in done.stderr and "NPROC=2" in done.stderr


def test_one_process_under_torchrun_goes_through_hccl(on_npu, tiny_videos, out):
    said = torchrun(1, "train_model.py", *RECIPE, "--recipe", "performance_1p", "--end-epoch", "1", "--data-root",
                    tiny_videos, "--model-dir", out)
    assert "| 1p-NPU" in said
    rows, weights = numbers(out)
    assert rows == numbers(on_npu[0])[0][:2]
    expected = torch.load(str(first_epoch(on_npu[0])))["state_dict"]
    assert all(torch.equal(weights[name], expected["module." + name]) for name in weights)


def test_torch_npu_without_cann_is_a_clear_error_and_never_a_silent_cpu(tiny_videos, out):
    """As pip installs it: PyTorch loads it by itself, and breaks."""
    folder = out / "torch_npu-2.13.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: torch-npu\nVersion: 2.13.0\n")
    (folder / "entry_points.txt").write_text("[torch.backends]\ntorch_npu = torch_npu:_autoload\n")
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(STAND_IN), str(out)]), PYTHON=sys.executable)
    for name in ("ASCEND_TOOLKIT_HOME", "TORCH_DEVICE_BACKEND_AUTOLOAD"):
        env.pop(name, None)
    broken = subprocess.run([sys.executable, "-c", "import torch"], env=env, stderr=subprocess.PIPE)
    assert broken.returncode and b"TORCH_DEVICE_BACKEND_AUTOLOAD=0" in broken.stderr
    options = RECIPE + ["--data-root", str(tiny_videos), "--model-dir", str(out / "out"), "--dry-run"]
    commands = [[sys.executable, "train_model.py"], ["bash", "test/train_performance_8p.sh"]]
    for command, device, code in ((commands[0], "auto", 2), (commands[0], "npu", 2), (commands[1], "auto", 2),
                                  (commands[0], "cpu", 0)):
        done = subprocess.run(command + options + ["--device", device], cwd=str(ROOT), env=env, timeout=100,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
        assert done.returncode == code, done.stderr
        assert code == 0 or "set_env.sh" in done.stderr and "Traceback" not in done.stderr
