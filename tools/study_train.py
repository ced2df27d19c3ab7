"""What tools/study.py starts: train_model.py, with a narrow copy of each network beside those of the table.

RESNET50_3D_QUARTER has a quarter of the channels in every stage, and so on: a sixteenth of the work, so that a
processor trains it from scratch in minutes. Only a study knows them; no other tool opens their weights.
"""
import sys
from typing import List, Optional

import train_model
from network import NETWORKS, NetworkSpec

NARROWER = 4


def quarter(spec: NetworkSpec) -> NetworkSpec:
    """The same network with a quarter of the channels and of the graphs' nodes in every stage."""
    stages = tuple(stage._replace(mid=stage.mid // NARROWER, out=stage.out // NARROWER) for stage in spec.stages)
    return spec._replace(name=spec.name + "_QUARTER", stages=stages)


def add_quarters() -> None:
    """Puts the narrow copies into the table of this process."""
    for spec in [spec for name, spec in NETWORKS.items() if not name.endswith("_QUARTER")]:
        narrow = quarter(spec)
        NETWORKS[narrow.name] = narrow


def main(argv: Optional[List[str]] = None) -> int:
    """train_model.py's command line and exit codes."""
    add_quarters()
    return train_model.main(argv)


if __name__ == "__main__":
    sys.exit(main())
