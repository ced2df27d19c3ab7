"""Stands in for Ascend's torch_npu 2.x in tests: importing it gives PyTorch a pretend device `npu` with a backend
`hccl`. Like the real one it loads only beside CANN, which it knows by ASCEND_TOOLKIT_HOME.

NPU_SIM_DEVICES (2) and NPU_SIM_MEMORY (bytes, no limit) set what the machine has.
"""
import os
import sys

import torch

if not os.environ.get("ASCEND_TOOLKIT_HOME"):
    raise ImportError("libhccl.so: cannot open shared object file: No such file or directory")

from torch_npu import hccl, npu
from torch_npu.build import built_library

torch.ops.load_library(built_library())
torch.ops.npu_sim.set_device_count(int(os.environ.get("NPU_SIM_DEVICES", "2")))
torch.ops.npu_sim.set_memory(int(os.environ.get("NPU_SIM_MEMORY", "0")))
torch.utils.rename_privateuse1_backend("npu")
torch._register_device_module("npu", npu)
sys.modules["torch.npu"] = npu
torch.utils.generate_methods_for_privateuse1_backend(for_packed_sequence=False)
hccl.register()


def _autoload() -> None:
    """What PyTorch calls by itself where the real package is installed."""
