"""Two launchers lose each other: the shortest of the trials in test/two_machines.py."""
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import two_machines


def test_both_machines_end_in_time_and_say_who_was_lost():
    kind = "cable" if two_machines.possible() else "freeze"
    if kind != "cable":
        warnings.warn("no network namespaces without root and iproute2: two launchers on the loopback instead, and no "
                      "cable is cut", stacklevel=2)
    passed, figures, logs = two_machines.run(kind, 4.0)
    assert passed, figures + "\n" + logs
