"""The README tells the truth: its commands parse, its files exist, its options are the command line's."""

import importlib
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from conftest import write_video
from small_network import small_network

from network import NETWORKS
from train.config import RECIPES
from train.options import build_parser, parse_options

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", README, re.S) for line in block.splitlines() if line]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_start_something_that_exists_with_options_that_exist(command):
    words = shlex.split(command)
    if words[1] == "-m":
        options = importlib.import_module(words[2]).parse(words[3:])
        assert words[2].startswith("tools.") or options.name in ("UCF101", "folder")
        return
    script = words[1]
    assert (ROOT / script).is_file()
    if script != "test/run_tests.sh":
        parse_options(words[2:])
    if script.startswith("test/train_"):
        assert Path(script).stem[len("train_") :] in RECIPES


def test_every_option_is_explained():
    options = {o for action in build_parser()._actions for o in action.option_strings if o.startswith("--")}
    table = README[README.index("## Options") : README.index("## Results")]
    shown = set(re.findall(r"`(--[a-z-]+)`", table))
    assert {o for o in options if not o.startswith("--no-") and o != "--help"} <= shown
    assert {o for o in re.findall(r"(--[a-z][a-z-]+)", README)} <= options | {
        "--output", "--source", "--csv", "--rawframes", "--flow", "--reencode", "--pack", "--sheet", "--verify",
        "--apex", "--gpus", "--resume-epoch", "--loss", "--no", "--no-", "--json", "--views", "--scores", "--fuse",
        "--over-time", "--timeline", "--annotate", "--classes", "--format", "--film", "--top-nodes", "--unit",
        "--start"}


def test_your_own_videos_in_five_minutes(tmp_path, monkeypatch):
    """Each command of the section, in its order and as it stands there; what comes behind it only makes it small."""
    section = README[README.index("## Your own videos"):README.index("## PyTorch versions")]
    monkeypatch.chdir(tmp_path)
    for label, (name, move) in enumerate((("down", (0, 2)), ("über links", (-2, 0)))):
        folder = tmp_path / "my_clips" / name
        folder.mkdir(parents=True)
        for number in range(8):
            write_video(folder / ("scene%s_%d.avi" % ("abcd"[number // 2], number)), 10 * label + number, move)
    shutil.copytree(str(folder), str(tmp_path / "new_clips"))
    small = {"dataset.prepare": "--workers 1", "tools.evaluate": "--device cpu --workers 0",
             "tools.predict": "--device cpu --workers 0",
             "train_model": "--network RESNET50_3D --crop-size 32 --clip-length 4 --max-steps 1 --no-precise-bn "
                            "--device cpu --workers 0 --batch-size 4"}
    with small_network():
        for command in re.search(r"```bash\n(.*?)```", section, re.S).group(1).splitlines():
            words = shlex.split(command)
            name, typed = (words[2], words[3:]) if words[1] == "-m" else (Path(words[1]).stem, words[2:])
            assert importlib.import_module(name).main(typed + small.get(name, "").split()) == 0, command
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert len(answers) == 8 and {answer["class"] for answer in answers[0]["top"]} == {"down", "über links"}
    assert json.loads((tmp_path / "evaluation.json").read_text())["num_videos"] == 4
    assert "über links" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_tables_are_the_codes():
    for name, row in RECIPES.items():
        line = next(text for text in README.splitlines() if "test/train_%s.sh`" % name in text and text.startswith("|"))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert (int(cells[2]), int(cells[4])) == (row["batch_size"], row["end_epoch"])
        assert cells[3].startswith("%g" % row["lr_base"])
    for name, spec in NETWORKS.items():
        assert "| `%s` | `%s`" % (name, spec.weights_file) in README


def test_the_chinese_page_has_the_same_commands_and_rows():
    page = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
    assert re.findall(r"```bash\n(.*?)```", page, re.S) == re.findall(r"```bash\n(.*?)```", README, re.S)
    for name in RECIPES:
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for text in (README, page)
                for line in text.splitlines() if line.startswith("| `test/train_%s.sh`" % name)]
        assert rows[0][:3] == rows[1][:3] and rows[0][4:] == rows[1][4:]


def test_links_lead_somewhere():
    pages = ["README.md", "README.zh-CN.md", "CONTRIBUTING.md"]
    for page in pages + ["docs/%s.md" % name for name in ("PARITY", "ARCHITECTURE", "MULTI_NODE", "NPU", "EXPORT")]:
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            if not target.startswith("http"):
                assert (ROOT / page).parent.joinpath(target).exists(), "%s: %s" % (page, target)
