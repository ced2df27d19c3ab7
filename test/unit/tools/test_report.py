"""The page of a run without a browser: what is read, what is said of files that are torn, foreign or missing, and that
no text of a file becomes markup.
"""
import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from made_runs import write_metrics, write_run, write_scores

from tools.report import main
from tools.report_films import confident_mistakes
from tools.report_html import data_block, tag
from tools.report_run import POINTS, read_run, thinned
from tools.scores import Scored, ranked

HOSTILE = ["<script>window.hacked = 1</script>", "\"'><img src=x onerror=window.hacked=1>", "</script><b>",
           "über 右 \u202e"]


class Elements(HTMLParser):
    """Names and attributes of all elements, and the text of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.found, self.inside = [], {}
        self.feed(text)

    def handle_starttag(self, name, attributes):
        self.found.append((name, dict(attributes)))

    def handle_data(self, data):
        if self.found and self.found[-1][0] in ("script", "style") and data.strip():
            self.inside.setdefault(self.found[-1][0] + (self.found[-1][1].get("id") or ""), data)


def page_of(tmp_path, *runs, more=()):
    output = tmp_path / "page.html"
    assert main([str(run) for run in runs] + ["--output", str(output), *more]) == 0
    return output.read_text(encoding="utf-8")


def data_of(text):
    return json.loads(Elements(text).inside["scriptdata"])


def test_a_run_is_read_by_the_newest_of_its_lines(tmp_path):
    folder = write_run(tmp_path / "t", steps=300)
    with open(str(folder / "metrics.jsonl"), "a") as lines:
        lines.write('{"kind": "train", "step": 10, "loss": 7.0}\n')  # a resumed run repeats steps
    run = read_run(str(folder))
    assert run.finished and run.last_step == 300 and run.series["train.loss"].y[0] == 7.0
    assert run.series["epoch.val_top1"].x == [100, 200, 300] and len(run.series["train.loss"].x) == 30
    assert run.config["lr_base"] == 0.003 and run.log[-1].endswith("it went on")


def test_a_run_that_was_made_longer_and_has_not_ended_again_is_not_finished(tmp_path):
    folder = write_run(tmp_path / "t", steps=300)
    assert read_run(str(folder)).finished
    write_metrics(folder, 500)
    assert not read_run(str(folder)).finished
    assert "not finished" in page_of(tmp_path, folder)


@pytest.mark.parametrize("line", [
    "[" * 50000, "null", "[1]", '{"kind": "train"}', '{"kind": ["train"], "step": 5, "loss": 1}', "\x00\x01", "",
    '{"kind": "train", "step": "5", "loss": 1}', '{"kind": "train", "step": -5, "loss": 1}', "x" * 200000,
    '{"kind": "train", "step": 5, "loss": NaN}', '{"kind": "train", "step": 5, "loss": 1e999}',
    '{"kind": "train", "step": 5, "loss": 1%s}' % ("0" * 400), '{"kind": "train", "step": 5, "loss": "1"}',
    '{"kind": "train", "step": 5, "loss": true}', '{"kind": "train", "step": 5, "lo'])
def test_lines_that_are_no_rows_are_left_out(line, tmp_path):
    rows = '{"kind": "train", "step": 1, "loss": 2.0}\n%s\n{"kind": "train", "step": 9, "loss": 1.0}\n'
    (tmp_path / "metrics.jsonl").write_text(rows % line)
    assert read_run(str(tmp_path)).series["train.loss"][:2] == ([1, 9], [2.0, 1.0])


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"{", b'{"config": 5, "steps": "x", "accuracy_top1": [], '
                                     b'"class_names": 7, "device": {"a": null}, "seconds": "long", "fps": true}'])
@pytest.mark.parametrize("name", ["result.json", "run.json", "scores.npz", "bad_videos.jsonl", "train.log"])
def test_files_that_are_not_what_they_should_be_are_no_end(name, content, tmp_path):
    folder = tmp_path / "t"
    write_metrics(folder, 100)
    (folder / name).write_bytes(content)
    assert "<h1>t</h1>" in page_of(tmp_path, folder)


def test_a_long_curve_is_drawn_by_means_with_their_extremes():
    steps, values = np.arange(4 * POINTS), np.arange(4.0 * POINTS) % 4
    series = thinned(steps, values)
    assert len(series.x) == len(series.y) == POINTS and series.num == 4 * POINTS
    assert set(series.y) == {1.5} and set(series.low) == {0.0} and set(series.high) == {3.0}
    assert thinned(steps[:POINTS], values[:POINTS]).y == values[:POINTS].tolist()


def test_the_most_confident_mistakes_come_first():
    scores = np.array([[.9, .1, 0], [.2, .5, .3], [.05, .05, .9], [.1, .2, .7], [0, 0, 0]], np.float32)
    videos = Scored(list("abcde"), np.array([0, 0, 1, 1, 2]), scores, ranked(scores),
                    np.array([True, True, True, True, False]), ["x", "y", "z"])
    found = confident_mistakes(videos, 2)
    assert [(row.path, row.label, row.answer) for row in found] == [("c", 1, 2), ("d", 1, 2)]
    assert found[0].sure == pytest.approx(0.9) and found[0].of_label == pytest.approx(0.05)
    assert [row.path for row in confident_mistakes(videos, 9)] == ["c", "d", "b"]


def test_no_text_of_a_file_becomes_markup(tmp_path):
    folder = write_run(tmp_path / "t", HOSTILE, device_name="<i>", task_name="\"><script>1</script>")
    (folder / "train.log").write_text("</pre><script>window.hacked = 1</script>\n")
    (folder / "bad_videos.jsonl").write_text(json.dumps({"path": "<script>", "reason": "<img onerror=x>"}))
    text = page_of(tmp_path, folder)
    elements = Elements(text).found
    assert [attributes.get("type") for name, attributes in elements if name == "script"] == ["application/json", None]
    assert not any(name in ("img", "i", "iframe") for name, _ in elements)
    assert not any(key.startswith("on") for _, attributes in elements for key in attributes)
    assert data_of(text)["runs"][0]["classes"] == HOSTILE


def test_the_policy_lets_the_pages_own_script_and_style_run_and_nothing_else(tmp_path):
    text = page_of(tmp_path, write_run(tmp_path / "t"))
    policy = re.search('Content-Security-Policy" content="([^"]*)"', text).group(1)
    inside = Elements(text).inside
    for name in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(inside[name].encode()).digest()).decode()
        assert "%s-src 'sha256-%s'" % (name, digest) in policy
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text)


def test_markup_is_escaped_unless_it_is_markup():
    assert tag("p", "<b>", tag("i", "&"), title='"<', data_x=1, hidden=True) == (
        '<p title="&quot;&lt;" data-x="1" hidden>&lt;b&gt;<i>&amp;</i></p>')
    block = data_block("d", ["</script>", "<!--", "\u2028", "\udcff"])
    assert "</script>" not in block[:-9] and "<!--" not in block
    assert json.loads(block[block.index(">") + 1:-9]) == ["</script>", "<!--", "\u2028", "\udcff"]


def test_figures_stand_in_the_page(tmp_path):
    folder = write_run(tmp_path / "t", steps=300, lr_base=0.025, allow_change=[], workers=-1)
    result = json.loads((folder / "result.json").read_text())
    text = page_of(tmp_path, folder)
    for figure in ("%.2f" % result["accuracy_top1"], "18.5", "14 min", "2.00", "0.025", "--lr-base", "2.13.0"):
        assert figure in text
    assert "2 options at their default" in text
    labels = [label for label in range(3) for _ in range(20)]
    assert sum(count for _, _, count in data_of(text)["runs"][0]["cells"]) == len(labels)


def test_without_scores_the_page_names_the_command_that_makes_them(tmp_path):
    folder = write_run(tmp_path / "a run", scores=False)
    (folder / "model.pth").write_bytes(b"")
    text = html.unescape(page_of(tmp_path, folder))
    assert "python -m tools.evaluate '%s/model.pth' --scores '%s/scores.npz'" % (folder, folder) in text


def test_several_runs_show_the_options_in_which_they_differ(tmp_path):
    runs = [write_run(tmp_path / name, lr_base=rate, seed=seed) for seed, (name, rate) in
            enumerate((("one", 0.01), ("two", 0.02)))]
    text = page_of(tmp_path, *runs)
    table = text[text.index("Options in which the runs differ"):]
    rows = re.findall(r'<th class="code" scope="row">(.*?)</th>', table[:table.index("</table>")])
    assert rows == ["--lr-base"] and "0.02" in table
    assert "Accuracy of each class" in text and len(data_of(text)["runs"]) == 2
    same = page_of(tmp_path, runs[0], runs[0])
    assert "The runs differ in no option." in same and str(runs[0]) in same


def test_films_are_the_stretch_of_the_videos_that_was_judged(tiny_videos, tmp_path):
    folder, names = tmp_path / "t", ("down", "left", "up")
    write_run(folder, names, scores=False, data_root=str(tiny_videos))
    paths = ["down/v0.avi", "left/v1.avi", "up/v2.avi", "up/gone.avi"]
    write_scores(folder, names, paths, [0, 1, 2, 2])
    scores = np.eye(3, dtype=np.float32)[[1, 2, 0, 0]]
    with np.load(str(folder / "scores.npz")) as file:
        content = {name: file[name] for name in file}
    np.savez(str(folder / "scores.npz"), **dict(content, scores=scores))
    text = page_of(tmp_path, folder)
    films = [attributes for name, attributes in Elements(text).found if attributes.get("class") == "film"]
    pictures = [attributes["src"] for name, attributes in Elements(text).found if name == "img"]
    assert len(pictures) == 3 and "is not among the test videos" in text
    strip = cv2.imdecode(np.frombuffer(base64.b64decode(pictures[0].split(",")[1]), np.uint8), cv2.IMREAD_COLOR)
    film, wanted = cv2.VideoCapture(str(tiny_videos / "test" / "down" / "v0.avi")), []
    for _ in range(20):
        wanted.append(film.read()[1])
    # 4 frames, 3 apart, in the middle of 20: from ceil(10 / 2) on
    assert strip.shape == (48, 10 * 48, 3)
    shown = [strip[:, 48 * i:48 * i + 48].astype(int) for i in range(10)]
    for frame, original in zip(shown, wanted[5:15]):
        assert abs(frame - original).mean() < 12
    assert films[0]["data-frames"] == "10" and films[0]["data-delay"] == "40"


def test_videos_that_are_not_there_are_said(tmp_path, capsys):
    text = page_of(tmp_path, write_run(tmp_path / "t"))
    assert "there is no folder /nowhere; --data-root DIR" in text and "The most confident mistakes" in text
    assert "The most confident mistakes" not in page_of(tmp_path, tmp_path / "t", more=["--mistakes", "0"])


@pytest.mark.parametrize("words, said", [
    (["{0}/none", "--output", "{0}/x.html"], "none: no run lies there"),
    (["{0}", "--output", "{0}/x.html"], "no run lies there"),
    (["{0}/t", "--output", "{0}/no/x.html"], "--output"),
    (["{0}/t", "--output", "{0}"], "--output"),
    (["{0}/t", "--output", "-"], "--output -"),
    (["{0}/t"] * 17 + ["--output", "{0}/x.html"], "17 runs")])
def test_what_cannot_be_is_refused_by_name(words, said, tmp_path, capsys):
    write_metrics(tmp_path / "t", 20)
    assert main([word.format(tmp_path) for word in words]) == 2
    assert said in capsys.readouterr().err and not list(tmp_path.glob("*.html"))
