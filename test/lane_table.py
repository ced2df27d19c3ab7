"""The end of test/lanes.sh: compares what the lanes wrote down; prints a line for each: `pass`, `fail` or `absent`.

    python test/lane_table.py LOGS NAME...     reads LOGS/NAME/{wanted,absent,facts.json,read.json}

The exit code is 1 where a lane fails or none passes.
"""
import json
import sys
from pathlib import Path

TOLERANCE = 1e-4  # relative, of losses in float32
NUMBERS = ("losses", "batch_statistics", "two_processes")


def distance(found, expected):
    """Largest relative difference of two lists of losses; infinite where one is shorter or not a number."""
    if len(found) != len(expected) or not expected:
        return float("inf")
    apart = [abs(a - b) / abs(b) for a, b in zip(found, expected)]
    return max(apart) if all(a == a for a in apart) else float("inf")


def faults(facts, read, first):
    """What is wrong with a lane, in words; `first` is the lane that it is compared with."""
    found = ["%s: %s" % item for item in facts["errors"].items()]
    if "clips" in facts and "clips" in first and facts["clips"] != first["clips"]:
        wrong = sum(a != b for a, b in zip(facts["clips"], first["clips"]))
        found.append("%d of %d batches differ from torch %s's" % (wrong, len(first["clips"]), first["torch"]))
    for name in NUMBERS:
        if name in facts and name in first and distance(facts[name], first[name]) > TOLERANCE:
            found.append("%s: %s, torch %s has %s" % (name, facts[name], first["torch"], first[name]))
    if "losses" in facts and "two_processes" in facts:
        alone = facts["losses"][:len(facts["two_processes"])]
        if distance(facts["two_processes"], alone) > TOLERANCE:
            found.append("two processes: %s, one has %s" % (facts["two_processes"], alone))
    if read["wrong"] or not read["files"]:
        found.append("files of other lanes that cannot be read or hold something else: %s" % read["wrong"])
    return found


def summary(facts, read, first):
    """The middle of a lane's line."""
    losses = max(distance(facts.get(name, []), first.get(name, [])) for name in NUMBERS)
    return "%s; %d files read, %d batches alike, losses within %.0e; %.0f s" % (
        facts.get("tests", "tests failed"), read["files"], len(facts.get("clips", [])), losses, facts["seconds"])


def load(folder):
    """(torch, Python, facts, read) of a lane; facts is a text where it is absent or left nothing."""
    wanted = (folder / "wanted").read_text().split()
    if (folder / "absent").exists():
        return wanted, (folder / "absent").read_text().strip(), None
    try:
        facts, read = (json.loads((folder / name).read_text()) for name in ("facts.json", "read.json"))
    except (OSError, ValueError):  # it was killed, or the disk is full
        return wanted, None, None
    return [facts["torch"], facts["python"]], facts, read


def main(logs, names):
    """Prints the table; 0 where every lane that there is passes, and there is one."""
    lanes = [(name,) + load(logs / name) for name in names]
    complete = [facts for _, _, facts, _ in lanes if isinstance(facts, dict)]
    lines, verdicts = [], []
    for name, version, facts, read in lanes:
        head = "torch %s python %s" % tuple(version)
        if isinstance(facts, str):
            print("ABSENT: %s was NOT tested: %s" % (head, facts))
            verdicts.append("absent")
            lines.append("%s  not tested: %s  absent" % (head, facts.splitlines()[0]))
            continue
        wrong = ["it ended before its time; see %s" % (logs / name)] if facts is None else faults(
            facts, read, complete[-1])
        for text in wrong:
            print("FAIL: %s: %s" % (head, text))
        log = logs / name / "tests.log"
        if wrong and log.exists():
            said = log.read_text(encoding="utf-8", errors="replace").splitlines()
            print("\n".join(line for line in said if line.startswith(("E  ", "____", "FAILED", "Timeout", "  File"))))
        verdicts.append("fail" if wrong else "pass")
        middle = "no results" if facts is None else summary(facts, read, complete[-1])
        lines.append("%s  %s  %s" % (head, middle, verdicts[-1]))
    print("\n".join(lines))
    return 0 if "pass" in verdicts and "fail" not in verdicts else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
