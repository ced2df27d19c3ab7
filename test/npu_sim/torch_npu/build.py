"""Builds npu_sim.cpp once into the user's cache; later imports find it there."""
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch

SOURCE = Path(__file__).resolve().parents[1] / "npu_sim.cpp"


def built_library() -> str:
    """The shared library of this source for this PyTorch and Python; about 40 seconds where it has to be built."""
    key = hashlib.sha256(SOURCE.read_bytes() + repr((torch.__version__, torch.__file__, sys.version)).encode())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "glore-npu-sim"
    folder = cache / key.hexdigest()[:16]
    library = folder / "npu_sim.so"
    if not library.exists():
        _build_into(folder)
    return str(library)


def _build_into(folder: Path) -> None:
    """Builds beside the place and renames, so that nobody loads half a library; in a process of its own, because
    PyTorch's builder also loads what it has built.
    """
    temporary = folder.with_name("%s.%d" % (folder.name, os.getpid()))
    temporary.mkdir(parents=True)
    pips_ninja = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    try:
        subprocess.check_call([sys.executable, __file__, str(temporary)], env=dict(os.environ, PATH=pips_ninja))
        if not folder.exists():
            temporary.rename(folder)
    finally:
        shutil.rmtree(str(temporary), ignore_errors=True)


if __name__ == "__main__":
    from torch.utils.cpp_extension import load

    load("npu_sim", [str(SOURCE)], extra_cflags=["-O1"], build_directory=sys.argv[1], is_python_module=False)
