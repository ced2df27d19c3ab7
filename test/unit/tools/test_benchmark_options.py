"""The table of what a step's options cost."""

import json

import pytest

from network import NETWORKS, NetworkSpec
from network.resnet3d import StageSpec
from tools import benchmark_options

STAGES = (StageSpec("conv2", 1, 4, 8, (1, 1, 1), (1,)), StageSpec("conv3", 1, 8, 16, (2, 2, 2), (), (1,)),
          StageSpec("conv4", 1, 8, 16, (1, 2, 2), (1,)), StageSpec("conv5", 1, 8, 16, (1, 2, 2), ()))
SMALL = "--device cpu --network TINY --clip-length 4 --crop-size 32 --rounds 1".split()


def test_every_option_is_compared_with_the_plain_step(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(NETWORKS, "TINY", NetworkSpec("TINY", STAGES, "none.pth", "nothing"))
    rows_file = tmp_path / "rows.json"
    assert benchmark_options.main(SMALL + ["--processor-time", "--json", str(rows_file)]) == 0
    rows = json.loads(rows_file.read_text())
    assert [row["variant"] for row in rows] == list(benchmark_options.VARIANTS)
    assert rows[0]["ratio"] == 1.0 and all(row["clips_per_second"] > 0 for row in rows)
    assert "| activation-checkpointing |" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--batch-size", "3"], ["--variants", "x"], ["--rounds", "0"]])
def test_what_it_cannot_measure_is_refused(options):
    with pytest.raises(SystemExit) as stop:
        benchmark_options.main(SMALL + options)
    assert stop.value.code == 2
