"""Prints what benchmarks/gpu.sh measured: `python benchmarks/gpu_report.py DIR`. Last, what AUTO should hold."""
import datetime
import json
import sys
from pathlib import Path
from typing import List

import torch

LEVELS = ("O0", "O1", "O2", "O3", "nccl")


def motion10(out: Path) -> str:
    """motion10 trained from scratch, a row for each level."""
    lines = ["| run | AMP_Type | ACC@1 | clips/s | waits for data | seconds |", "| --- | --- | --- | --- | --- | --- |"]
    for level in LEVELS:
        path = out / "exps" / ("motion10_" + level) / "result.json"
        if path.is_file():
            row = json.loads(path.read_text())
            lines.append("| %s | %s | %.2f | %.1f | %.0f %% | %.0f |" % (
                level, row["amp_type"], row["accuracy_top1"], row["fps"], 100 * row["data_wait_share"], row["seconds"]))
        else:
            lines.append("| %s | not measured | | | | |" % level)
    return "\n".join(lines)


def advice(files: List[Path]) -> str:
    """What `auto` should be by these steps: the fastest execution of one type, where it beats the reference."""
    best, ratio = "reference", 1.02  # less is noise
    for path in files:
        rows = {row["variant"]: row["clips_per_second"] for row in json.loads(path.read_text())}
        for name, speed in rows.items():
            execution, _, level = name.partition("-")
            own = rows.get("reference" if not level else level, 0.0)  # `O2` runs as auto does today
            if execution in ("compiled", "folded") and level != "last" and own and speed / own > ratio:
                best, ratio = execution, speed / own
    return "AUTO in network/execution.py: \"cuda\": \"%s\"%s" % (
        best, "" if best == "reference" else "  # %.2f of auto today" % ratio)


def main(out: Path) -> None:
    """All tables."""
    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
    print("\n# GPU results\n\n`bash benchmarks/gpu.sh`, %s, %s, torch %s, Python %s" % (
        datetime.date.today(), name, torch.__version__, sys.version.split()[0]))
    print("\nFull size. `reference` is fp32 with TF32 in convolutions, `strict` without, `tf32` all over.")
    steps = sorted(out.glob("step*.json"))
    for log in (log for name in ("step*", "infer", "whole*", "options") for log in sorted(out.glob(name + ".log"))):
        kept = log.with_suffix(".json").is_file()
        print("\n%s:\n\n%s" % (log.stem, log.read_text().strip() if kept else "not measured, see %s" % log))
    print("\nmotion10 from scratch, 32x32 crop, 3 epochs of 900 clips:\n\n" + motion10(out))
    if steps:
        print("\n" + advice(steps))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
