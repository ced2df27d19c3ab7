"""Options that the commands of dataset/ share: the same everywhere, and what they do not take."""
import pytest

from dataset import check, pack, prepare, progress

COMMANDS = {"check": check.parse, "pack": lambda argv: pack._parse(argv + ["--output", "o"]),
            "prepare": lambda argv: prepare.parse(argv + ["--source", "s"])}


@pytest.mark.parametrize("command, option, value", [
    ("check", "--workers", "0"), ("check", "--split", "0"), ("check", "--source", "tape"), ("pack", "--quality", "101"),
    ("pack", "--short-side", "0"), ("pack", "--workers", "many"), ("prepare", "--quality", "0"),
    ("prepare", "--workers", "-1"), ("prepare", "--short-side", "8193"), ("prepare", "--key-frames", "12"),
    ("prepare", "--test-share", "1")])
def test_what_is_not_taken_ends_with_2_and_names_the_option(command, option, value, capsys):
    with pytest.raises(SystemExit) as stop:
        COMMANDS[command](["folder", option, value])
    assert stop.value.code == 2 and option in capsys.readouterr().err


def test_defaults():
    options = [parse(["folder"]) for _, parse in sorted(COMMANDS.items())]
    assert [one.workers for one in options] == [progress.usable_cores()] * 3
    assert (options[0].split, options[1].split) == (1, None) and options[0].source == options[1].source == "auto"
    assert (options[1].short_side, options[1].quality) == (256, 90)
    assert options[2].short_side is options[2].quality is None  # each of its products has its own
    assert prepare.parse(["folder", "--source", "s", "--short-side", "0"]).short_side == 0


def test_bytes_are_said_now_and_then(monkeypatch):
    times, said = iter([0, 1, 30, 31, 60]), []
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))
    word = progress.BytesProgress(8 * 10 ** 9, "unpacked", said.append)
    for _ in range(4):
        word(10 ** 9)
    assert said == ["2.0 of about 8.0 GB unpacked, 0:01:30 left", "4.0 of about 8.0 GB unpacked, 0:01:00 left"]
