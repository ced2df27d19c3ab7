"""Three hundred broken files: no crash, no hang, no frame that the strict decoder would not give."""
import json
import os
import select
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import broken_files
import pytest
from broken_files import FOLDER, LOSSES, VIDEOS, make_folders, make_odd_ones, make_videos

from data.strict_decoding import sound_part, strict_decoder

PROGRAM = Path(broken_files.__file__)
PATIENCE = 10  # seconds a file
PROCESSES = 2


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """(root, rows of (name, source, what was done to it)) of all broken files."""
    root = tmp_path_factory.mktemp("broken")
    root.chmod(0o755)
    rows = make_videos(root) + make_folders(root) + make_odd_ones(root)
    assert len(rows) >= 300 and {source for _, source, _ in rows} == set(VIDEOS) | {FOLDER}
    return root, rows


def judged(root, rows):
    """name -> what the reader made of it, found out in a process of its own that may crash or hang."""
    environment = dict(os.environ, OPENCV_FFMPEG_LOGLEVEL="-8", OMP_NUM_THREADS="1")
    child = subprocess.Popen([sys.executable, str(PROGRAM), str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, env=environment)
    found, failures = {}, []
    try:
        for row in rows:
            child.stdin.write(json.dumps(row).encode() + b"\n")
            child.stdin.flush()
            patience = PATIENCE if found else 60  # the first one waits for the imports
            if not select.select([child.stdout], [], [], patience)[0]:
                failures.append("%s: not read in %d seconds" % (row[0], patience))
                break
            line = child.stdout.readline()
            if not line:
                failures.append("%s: the process ended with %s\n%s"
                                % (row[0], child.wait(), child.stderr.read().decode()[-2000:]))
                break
            name, result = json.loads(line.decode())
            found[name] = result
    finally:
        child.kill()
        child.communicate()
    return found, failures


@pytest.fixture(scope="module")
def results(files):
    """What the reader made of every file."""
    root, rows = files
    with ThreadPoolExecutor(PROCESSES) as pool:
        parts = list(pool.map(lambda part: judged(root, rows[part::PROCESSES]), range(PROCESSES)))
    assert not [failure for _, failures in parts for failure in failures]
    return {name: result for found, _ in parts for name, result in found.items()}


def test_none_crashes_or_hangs(files, results):
    assert set(results) == {name for name, _, _ in files[1]}
    assert all(result.get("refused", "frames") for result in results.values())


def test_what_cannot_be_a_film_is_refused(files, results):
    for name, _, how in files[1]:
        if how == "refused":
            assert "refused" in results[name], name
        elif how in ("sound", "one"):
            assert results[name]["frames"] == (72 if how == "sound" else 1), name
            assert not results[name]["unlike_sound"] and not results[name]["say_another"], name
    reasons = {name: results[name]["refused"] for name in ("locked.avi", "zero_device.avi", "missing.avi", "loop.avi")}
    assert "Permission denied" in reasons["locked.avi"] and "not a regular file" in reasons["zero_device.avi"]
    assert "No such file" in reasons["missing.avi"] and "symbolic links" in reasons["loop.avi"]


def test_what_is_left_of_a_film_is_the_film(files, results):
    """Cut or empty from some place on: the frames before it as they were; without a strict decoder, save the last."""
    kept = 0
    for name, source, how in files[1]:
        result = results[name]
        if how in LOSSES and source != FOLDER and "frames" in result:
            kept += result["frames"]
            wrong = result["unlike_sound"] + result["say_another"]
            if strict_decoder():
                assert not wrong, (name, result)
            elif how == "cut":
                assert all(place >= result["frames"] - 4 for place in wrong), (name, result)
    assert kept > 1000  # a cut film is not thrown away


def test_folders_give_only_their_own_pictures(files, results):
    """A damaged picture may stay unseen, for JPEG has no sums; but never more than that one."""
    read = [results[name] for name, source, _ in files[1] if source == FOLDER and "frames" in results[name]]
    assert read and all(len(result["unlike_sound"]) <= 1 for result in read)
    cut = [results[name] for name, source, how in files[1] if source == FOLDER and how == "cut"]
    assert cut and all("refused" in result and result["readable"] < 16 for result in cut)


def test_no_frame_that_the_strict_decoder_would_not_give(files, results):
    if strict_decoder() is None:
        warnings.warn("PyAV is not installed: damage that OpenCV conceals is not tested", stacklevel=1)
        pytest.skip("needs the strict decoder: pip install av")
    read = {name: results[name] for name, source, _ in files[1] if source != FOLDER and "frames" in results[name]}
    for name, result in read.items():
        # Of a damaged MJPEG picture, which no decoder notices, the rest is what happened to be in memory.
        unlike_strict = result["unlike_strict"][4 if "mjpeg" in name else 0:]
        assert result["frames"] <= result["strict"] and not unlike_strict, (name, result)
    # What is left is damage that is valid to every decoder: few frames, and seldom such that they say another number.
    delivered = sum(result["frames"] for result in read.values())
    unlike = sum(len(result["unlike_sound"]) for name, result in read.items() if not name.startswith("flip_head"))
    say_another = sum(len(result["say_another"]) for name, result in read.items() if not name.startswith("flip_head"))
    assert delivered > 8000 and unlike < 0.05 * delivered and say_another < 0.003 * delivered


def test_a_lost_piece_of_an_avi_file_shifts_nothing(files, results):
    """FFmpeg goes on with the next piece and says nothing, and every frame after it would be taken for another one."""
    if strict_decoder() is None:
        pytest.skip("needs the strict decoder: pip install av")
    chunks = {name: results[name] for name, source, how in files[1] if how == "flip_chunk" and source.endswith("avi")}
    assert len(chunks) >= 30 and sum(result.get("frames", 0) for result in chunks.values()) > 600
    assert not [name for name, result in chunks.items() if result.get("say_another")]


@pytest.mark.skipif(strict_decoder() is None, reason="needs the strict decoder: pip install av")
def test_sound_films_are_sound():
    for name in VIDEOS:
        assert sound_part(str(broken_files.FILMS / name)) == (70 if "packed" in name else 72, ""), name
