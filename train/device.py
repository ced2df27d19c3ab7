"""The device: npu, else cuda, else cpu. What differs between them and between PyTorch versions is here. Sole importer
of torch_npu.
"""

import contextlib
import importlib
import importlib.util
import inspect
import logging
import os
import platform
import resource
import sys
from typing import Any, Dict, Iterable, Iterator, Mapping, Optional

import torch

_log = logging.getLogger(__name__)
BACKEND_OF = {"npu": "hccl", "cuda": "nccl", "cpu": "gloo"}
NPU_MODULES = ("torch.npu", "torch_npu")  # what gives torch.npu: part of Ascend's PyTorch 1.5, a package from 1.8 on


def _module(kind: str) -> Any:
    """torch.cuda, torch.npu, or None where this PyTorch has no such device. ValueError where torch_npu is installed
    and does not load.
    """
    if kind == "npu" and not hasattr(torch, "npu"):
        for name in NPU_MODULES:
            if importlib.util.find_spec(name) is not None:
                _load(name)
                break
    return getattr(torch, kind, None)


def _load(name: str) -> None:
    try:
        importlib.import_module(name)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:  # no CANN, or made for another PyTorch
        raise ValueError(
            "--device npu: %s is installed but does not load (%s). Source CANN's set_env.sh first, see docs/NPU.md; or "
            "choose --device cuda or cpu" % (name, error))


def device_count(kind: str) -> int:
    """Devices of a kind on this machine; the CPU is one. ValueError where torch_npu is installed and does not load."""
    if kind == "cpu":
        return 1
    module = _module(kind)
    return int(module.device_count()) if module is not None and module.is_available() else 0


def first_kind() -> str:
    """What `auto` means on this machine. ValueError where torch_npu is installed and does not load: a run that was
    meant for an NPU does not start on the CPU.
    """
    return next(kind for kind in ("npu", "cuda", "cpu") if device_count(kind))


def choose_device(wanted: str, local_rank: int = 0) -> torch.device:
    """The device of this process. `auto` is the first kind there is; a kind that is not there is a ValueError."""
    kind = first_kind() if wanted == "auto" else wanted
    count = device_count(kind)
    if not count:
        raise ValueError("--device %s: PyTorch sees none on this machine; --device auto takes what there is" % kind)
    if kind == "cpu":
        return torch.device("cpu")
    if local_rank >= count:
        raise ValueError("process %d has no device: this machine has %d %s; start at most that many processes (NPROC)"
                         % (local_rank, count, kind))
    device = torch.device(kind, local_rank)
    _module(kind).set_device(device)
    return device


def loader_workers(wanted: int, device: torch.device, cores: int) -> int:
    """Loader processes of this process: as typed, else its share of the cores; few on a CPU, whose cores compute."""
    if wanted >= 0:
        return wanted
    if device.type == "cpu":
        return max(1, cores // 4)
    return max(1, min(16, cores // max(1, device_count(device.type))))


def seed_device(seed: int, device: torch.device) -> None:
    """Seeds what PyTorch draws by itself on this process's device: dropout."""
    torch.manual_seed(seed)
    if device.type != "cpu":
        _module(device.type).manual_seed(seed)


def random_state(device: torch.device) -> Dict[str, torch.Tensor]:
    """The state of what seed_device seeds, by the kind of device."""
    state = {"cpu": torch.get_rng_state()}
    if device.type != "cpu" and hasattr(_module(device.type), "get_rng_state"):
        state[device.type] = _module(device.type).get_rng_state()
    return state


def set_random_state(state: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Puts back what random_state gave, as far as this device has it."""
    torch.set_rng_state(state["cpu"])
    if device.type != "cpu" and device.type in state:
        _module(device.type).set_rng_state(state[device.type])


def synchronize(device: torch.device) -> None:
    """Waits until the device has done what was asked of it."""
    if device.type != "cpu":
        _module(device.type).synchronize()


def device_name(device: torch.device) -> str:
    """The model name of the device, as its vendor writes it."""
    module = _module(device.type)
    if device.type != "cpu" and hasattr(module, "get_device_name"):
        return str(module.get_device_name(device))
    return _cpu_name() if device.type == "cpu" else device.type


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return "%s (%d threads)" % (line.split(":", 1)[1].strip(), torch.get_num_threads())
    return platform.processor() or platform.machine()


def peak_memory(device: torch.device) -> Optional[int]:
    """Bytes of device memory at the peak, None on a CPU."""
    module = _module(device.type)
    return (
        int(module.max_memory_allocated()) if device.type != "cpu" and hasattr(module, "max_memory_allocated") else None
    )


def peak_host_memory() -> int:
    """Bytes of the host's memory that this process held at the peak, without its children's."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def reset_peak_memory(device: torch.device) -> None:
    """Starts the count of peak_memory again."""
    module = _module(device.type)
    if device.type != "cpu" and hasattr(module, "reset_peak_memory_stats"):
        module.reset_peak_memory_stats()


def memory_settings() -> str:
    """What the environment asks of the host's memory (test/env_memory.sh), in words for the log."""
    names = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "THP_MEM_ALLOC_ENABLE")
    found = ["%s=%s" % (name, os.environ[name]) for name in names if os.environ.get(name)]
    return "host memory: " + (" ".join(found) or "plain environment")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is the device saying that its memory is full."""
    known = getattr(torch, "OutOfMemoryError", ())
    return isinstance(error, known) or isinstance(error, RuntimeError) and "out of memory" in str(error).lower()


def half_dtype(device: torch.device) -> Optional[torch.dtype]:
    """The half-precision type that is worth it here: fp16 on npu and cuda, bf16 on a CPU with the instructions, else
    None.
    """
    if device.type != "cpu":
        return torch.float16
    return torch.bfloat16 if _cpu_has_bf16() else None


def _cpu_has_bf16() -> bool:
    """Matrix instructions for bf16 (AMX). Below them bf16 convolutions are emulated or gain nothing over fp32."""
    tests = [getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported",)] if hasattr(torch, "cpu") else []
    return any(test is not None and test() for test in tests)


def deterministic(enabled: bool) -> None:
    """Asks PyTorch for algorithms that repeat to the bit, by whatever switch this version has; else for the fastest.

    Where a device lacks a repeating one (3-D max pooling on CUDA) PyTorch warns and goes on.
    """
    torch.backends.cudnn.benchmark = not enabled  # clips have one shape, so a search for the fastest pays
    if not enabled:
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.deterministic = True
    switch = getattr(torch, "use_deterministic_algorithms", None)
    if switch is not None and "warn_only" in inspect.signature(switch).parameters:
        switch(True, warn_only=True)
    else:
        _log.info("--deterministic: this PyTorch has a switch for cuDNN alone; other operations of CUDA may differ in "
                  "the last bit from run to run")


def copy_stream(device: torch.device) -> Any:
    """A stream for copies beside the computing one; None where there are no streams."""
    module = _module(device.type)
    return module.Stream() if device.type != "cpu" and hasattr(module, "Stream") else None


@contextlib.contextmanager
def _nothing() -> Iterator[None]:
    yield


def on_stream(stream: Any, device: torch.device) -> Any:
    """A context in which work is queued on the stream."""
    return _module(device.type).stream(stream) if stream is not None else _nothing()


def wait_for_stream(stream: Any, device: torch.device, tensors: Iterable[torch.Tensor]) -> None:
    """Lets the computing stream wait for the copies, and tells the allocator that it uses their tensors."""
    if stream is None:
        return
    computing = _module(device.type).current_stream()
    computing.wait_stream(stream)
    for tensor in tensors:
        tensor.record_stream(computing)


@contextlib.contextmanager
def trace(device: torch.device) -> Iterator[Any]:
    """PyTorch's profiler around some steps; yields an object with export_chrome_trace(path) and key_averages()."""
    # The first torch.profiler, without supported_activities, takes minutes to put some steps' events in order.
    if hasattr(getattr(torch, "profiler", None), "supported_activities") and device.type in ("cpu", "cuda"):
        activities = [torch.profiler.ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities) as profiler:
            yield profiler
    else:
        options: Any = {"use_cuda": True} if device.type == "cuda" else {}
        with torch.autograd.profiler.profile(**options) as profiler:
            yield profiler
