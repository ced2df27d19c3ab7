"""Lines of a run's log file."""
from train.log import LOGGER, log_to, note_failure, start_logging, stop_logging


def test_why_a_run_ends_is_in_its_file_and_not_printed_again(tmp_path, capsys):
    start_logging(0)
    try:
        note_failure("nobody hears this yet")
        log_to(tmp_path / "train.log")
        LOGGER.info("begins")
        note_failure("error: no room")
    finally:
        stop_logging()
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["begins", "error: no room"]
    assert "no room" not in "".join(capsys.readouterr())
