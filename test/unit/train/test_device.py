"""Which device, and what it says where there is none."""

import contextlib

import pytest
import torch

from train import device as devices
from train.amp_choice import build_precision
from train.processes import objection


def test_auto_takes_npu_then_cuda_then_cpu(monkeypatch):
    there = {"npu": 0, "cuda": 0, "cpu": 1}
    monkeypatch.setattr(devices, "device_count", lambda kind: there[kind])
    assert devices.choose_device("auto").type == "cpu"
    for kind in ("cuda", "npu"):
        with pytest.raises(ValueError, match="--device %s" % kind):
            devices.choose_device(kind)


def test_a_process_without_a_device_says_so(monkeypatch):
    monkeypatch.setattr(devices, "device_count", lambda kind: {"npu": 0, "cuda": 2, "cpu": 1}[kind])
    with pytest.raises(ValueError, match="NPROC"):
        devices.choose_device("cuda", local_rank=2)


def test_half_is_bf16_on_a_cpu_with_the_instructions_alone(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(devices, "_cpu_has_bf16", lambda: False)
    assert devices.half_dtype(cpu) is None
    monkeypatch.setattr(devices, "_cpu_has_bf16", lambda: True)
    assert devices.half_dtype(cpu) == torch.bfloat16
    assert devices.half_dtype(torch.device("cuda", 0)) == torch.float16


def test_deterministic_uses_every_switch_there_is_and_names_what_is_missing(monkeypatch):
    asked, said = [], []
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.setattr(devices._log, "info", said.append)
    new = lambda mode, *, warn_only=False: asked.append((mode, warn_only))  # noqa: E731
    monkeypatch.setattr(torch, "use_deterministic_algorithms", new, raising=False)
    devices.deterministic(True)
    assert asked == [(True, True)] and torch.backends.cudnn.deterministic and not said
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda mode: asked.append(mode))  # 1.8: stops instead
    devices.deterministic(True)
    assert len(asked) == 1 and "cuDNN alone" in said[0]


def test_out_of_memory_is_known_by_its_words():
    assert devices.is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate"))
    assert devices.is_out_of_memory(RuntimeError("NPU out of memory"))
    assert not devices.is_out_of_memory(RuntimeError("shape mismatch"))


@pytest.mark.parametrize(
    "counts, processes, given, said",
    [((0, 0), 8, False, "NPROC=1 bash test/train_full_8p.sh"), ((0, 2), 8, False, "NPROC=2 bash test/train_full_8p.sh"),
     ((0, 2), 3, True, "2 cuda devices"), ((0, 0), 0, True, "1 or more"), ((0, 0), 2, True, None),
     ((8, 0), 8, False, None), ((0, 0), 1, False, None)],
)
def test_too_few_devices_are_said_before_anything_starts(monkeypatch, counts, processes, given, said):
    there = dict(zip(("npu", "cuda"), counts), cpu=1)
    for place in ("train.device.device_count", "train.processes.device_count"):
        monkeypatch.setattr(place, lambda kind: there[kind])
    text = objection(processes, given, "full_8p", "auto")
    assert text is None if said is None else said in text and text.count("\n") == 1


def test_auto_is_never_a_half_type_that_this_cpu_has_no_instructions_for():
    cpu, flags = torch.device("cpu"), ""
    with contextlib.suppress(OSError):
        with open("/proc/cpuinfo") as lines:
            flags = next((line for line in lines if line.startswith("flags")), "")
    if "amx_bf16" not in flags.split():
        assert devices.half_dtype(cpu) is None
        for level in ("O1", "O2", "O3"):
            assert not build_precision(level, "native", "auto", devices.half_dtype(cpu), cpu).half
