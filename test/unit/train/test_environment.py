"""What is set before torch is loaded, and never over what the user has set."""
import os
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.parametrize("module", ["train_model", "tools"])
def test_it_is_set_before_torch_is_loaded_and_what_is_set_stays(module):
    code = ("import sys; from train import environment; missing = environment.missing\n"
            "def watched():\n    assert 'torch' not in sys.modules\n    print('asked')\n    return missing()\n"
            "environment.missing = watched\nimport %s, os\n"
            "print(os.environ['GOMP_SPINCOUNT'], os.environ['TORCH_DEVICE_BACKEND_AUTOLOAD'])" % module)
    mine = {name: value for name, value in os.environ.items() if name != "TORCH_DEVICE_BACKEND_AUTOLOAD"}
    said = subprocess.run([sys.executable, "-c", code], cwd=str(ROOT), env=dict(mine, GOMP_SPINCOUNT="7"),
                          stdout=subprocess.PIPE, universal_newlines=True, check=True).stdout
    assert said == "asked\n7 0\n"
