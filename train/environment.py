"""What libraries read from the environment when torch is loaded. Loads no torch; what the user has set stays."""
import os
from typing import Dict

SETTINGS = {
    # Waiting threads soon sleep: where other processes share the cores, those that go on spinning slow a step tenfold.
    "GOMP_SPINCOUNT": "30000",
    # torch_npu without CANN would break `import torch`; train/device.py loads it itself, and says what is missing.
    "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}


def missing() -> Dict[str, str]:
    """Those that the environment does not have."""
    return {name: value for name, value in SETTINGS.items() if name not in os.environ}
