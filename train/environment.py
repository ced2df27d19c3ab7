"""What libraries read from the environment when torch is loaded. Loads no torch; what the user has set stays."""
import os
from typing import Dict


def settings(processor: str) -> Dict[str, str]:
    """The variables and their values, given what /proc/cpuinfo says (benchmarks/step.md has the measurements)."""
    found = {
        # Waiting threads soon sleep. Where other processes share the cores, those that go on spinning slow a step
        # tenfold.
        "GOMP_SPINCOUNT": "30000",
        # torch_npu without CANN would break `import torch`; train/device.py loads it itself, and says what is missing.
        "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    flags = set(processor.split())
    if "AuthenticAMD" in flags and "avx2" in flags and "avx512f" not in flags:
        found["MKL_CBWR"] = "AVX2"  # MKL's own choice there shares short products worse between threads
    return found


def missing() -> Dict[str, str]:
    """Those that the environment does not have."""
    try:
        with open("/proc/cpuinfo") as lines:
            processor = lines.read()
    except OSError:
        processor = ""
    return {name: value for name, value in settings(processor).items() if name not in os.environ}
