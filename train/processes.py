"""Asked by test/launch.sh before anything starts: are there as many devices as processes? Prints how to go on where
there are not.
"""

import sys
from typing import List, Optional

from train.device import device_count, first_kind


def objection(processes: int, given: bool, recipe: str, device: str) -> Optional[str]:
    """Why `processes` cannot start here (two lines), or None. `given`: the number was typed (NPROC), so several CPU
    processes are meant. ValueError where torch_npu is installed and does not load.
    """
    kind = first_kind() if device == "auto" else device
    count = device_count(kind)
    if processes < 1:
        return "NPROC=%d: must be 1 or more.\nWrite, for example: NPROC=1 bash test/train_%s.sh" % (processes, recipe)
    if processes <= count or (kind == "cpu" and given):
        return None
    there = ("no npu or cuda device, only the CPU" if kind == "cpu"
             else "%d %s device%s" % (count, kind, "" if count == 1 else "s"))
    return ("%d devices are asked for; this machine has %s.\nGo on with as many processes as suit it, "
            "at the same batch a device: NPROC=%d bash test/train_%s.sh" % (processes, there, max(count, 1), recipe))


def main(argv: List[str]) -> int:
    """argv: processes, 'given' or nothing, recipe, options."""
    try:
        processes = int(argv[0])
    except ValueError:
        print("NPROC=%s: must be a whole number" % argv[0], file=sys.stderr)
        return 2
    options = argv[3:]
    device = "auto"
    for i, word in enumerate(options):
        if word == "--device" and i + 1 < len(options):
            device = options[i + 1]
        elif word.startswith("--device="):
            device = word[len("--device=") :]
    try:
        text = objection(processes, argv[1] == "given", argv[2], device)
    except ValueError as error:
        text = str(error)
    if text:
        print(text, file=sys.stderr)
    return 2 if text else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
