"""Stands in for Ascend's PyTorch 1.5 and 1.8 in tests, where no device can be registered: the name `npu` is accepted
and means the CPU. Shows which names of torch.npu, DDP and `hccl` are used and in what order, on any PyTorch; shows
nothing about where tensors lie.
"""
import contextlib
import functools
import sys
import types

import torch
import torch.distributed as dist

calls = []  # what was called, in order
FACTORIES = ("arange", "as_tensor", "empty", "full", "ones", "rand", "randn", "tensor", "zeros")
_REAL_DEVICE = torch.device


class NpuDevice:
    """torch.device("npu", index)."""

    type = "npu"

    def __init__(self, index=None):
        self.index = index

    def __str__(self):
        return "npu" if self.index is None else "npu:%d" % self.index


class _DeviceType(type):
    def __call__(cls, kind, index=None):
        name, _, number = str(kind).partition(":")
        if name == "npu":
            return NpuDevice(int(number) if number else index)
        return _REAL_DEVICE(kind) if index is None else _REAL_DEVICE(kind, index)

    def __instancecheck__(cls, value):
        return isinstance(value, (_REAL_DEVICE, NpuDevice))


class Device(metaclass=_DeviceType):
    """What becomes torch.device."""


class Stream:
    """torch.npu.Stream."""

    def __init__(self, name="copies"):
        self.name = name

    def wait_stream(self, other):
        calls.append("%s.wait_stream(%s)" % (self.name, other.name))


def _on_cpu(value):
    if isinstance(value, NpuDevice) or isinstance(value, str) and value.split(":")[0] == "npu":
        return _REAL_DEVICE("cpu")
    return value


def _accepts_npu(owner, name):
    original = getattr(owner, name)

    @functools.wraps(original)
    def accepting(*args, **options):
        return original(*map(_on_cpu, args), **{key: _on_cpu(value) for key, value in options.items()})

    setattr(owner, name, accepting)


def _noting(name, answer=None):
    def noted(*args):
        calls.append(" ".join([name] + [str(a) for a in args]))
        return answer

    return noted


@contextlib.contextmanager
def _stream(stream):
    calls.append("stream(%s)" % stream.name)
    yield


def _npu_module(count):
    module = types.ModuleType("torch.npu")
    module.is_available, module.device_count = lambda: True, lambda: count
    for name in ("set_device", "synchronize", "manual_seed", "manual_seed_all", "empty_cache"):
        setattr(module, name, _noting(name))
    module.max_memory_allocated = _noting("max_memory_allocated", 1024)
    module.Stream, module.stream, module.current_stream = Stream, _stream, lambda: Stream("computing")
    return module


def install(count=8):
    """Makes this process believe in `count` NPUs."""
    torch.npu = sys.modules["torch.npu"] = _npu_module(count)
    torch.device = Device
    torch.Tensor.record_stream = lambda tensor, stream: calls.append("record_stream(%s)" % stream.name)
    for owner, names in ((torch.Tensor, ("to",)), (torch.nn.Module, ("to",)), (torch, FACTORIES)):
        for name in names:
            _accepts_npu(owner, name)
    init_process_group, init_ddp = dist.init_process_group, torch.nn.parallel.DistributedDataParallel.__init__

    def init_group(backend, *args, **options):
        calls.append("init_process_group " + backend)
        return init_process_group("gloo" if backend == "hccl" else backend, *args, **options)

    @functools.wraps(init_ddp)
    def init_wrapper(self, module, device_ids=None, **options):
        calls.append("DistributedDataParallel %s" % device_ids)
        init_ddp(self, module, **options)

    dist.init_process_group = init_group
    torch.nn.parallel.DistributedDataParallel.__init__ = init_wrapper
