"""The page of a run in a real browser: it draws, answers mouse and keys, keeps to its policy, fits a phone and can be
read.
"""
import cv2
import numpy as np
import pytest
from browser import Browser
from made_runs import write_run, write_scores

from tools.report import main

HOSTILE = ["<script>window.hacked = 1</script>", "\"'><img src=x onerror=window.hacked=1>", "</script>", "über 右"]
MANY = ["class %03d of a hundred and one" % number for number in range(101)]
PHONE = 390
# The contrast of each text with what lies behind it, as WCAG 2 counts it; large or small, 4.5 is asked for.
CONTRASTS = """(() => {
  const parse = text => text.match(/[0-9.]+/g).map(Number), canvas = document.createElement("canvas").getContext("2d");
  const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let own = element; own; own = own.parentElement) {
      const colour = getComputedStyle(own).backgroundColor;
      if (colour.startsWith("rgb(")) return parse(colour);
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    const none = ["SCRIPT", "NOSCRIPT", "OPTION"].includes(element.tagName) || !element.getClientRects().length;
    if (!text || none) continue;
    const style = getComputedStyle(element), drawn = element.namespaceURI.includes("svg");
    const [a, b] = [light(parse(drawn ? style.fill : style.color)), light(behind(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) low.push(element.tagName + " " + element.textContent.slice(0, 30) + " " + contrast.toFixed(2));
  }
  return low;
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


@pytest.fixture
def show(browser, tmp_path):
    """Makes the page of runs and opens it; the browser."""
    def shown(*runs, **shape):
        output = tmp_path / "page.html"
        assert main([str(run) for run in runs] + ["--output", str(output)]) == 0
        browser.shape(**dict({"width": 1280}, **shape))
        browser.open(output)
        return browser
    yield shown
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in browser.requests if url.startswith("file:")]) == 1


def painted(browser, selector):
    """How many different colours a canvas shows."""
    return browser.run("""(() => { const c = document.querySelector("%s");
        const data = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
        return new Set(new Uint32Array(data.buffer)).size })()""" % selector)


def edges(browser, selector):
    """Left, top, right and bottom of an element, moved into the window, in pixels."""
    return browser.run("""(() => { const element = document.querySelector("%s");
        element.scrollIntoView({behavior: "instant"}); const box = element.getBoundingClientRect();
        return [box.left, box.top, box.right, box.bottom] })()""" % selector)


def choose(browser, selector, value, event):
    """A value of a control, as if it had been chosen."""
    browser.run("""(() => { const control = document.querySelector("%s"); control.value = "%s";
        control.dispatchEvent(new Event("%s")) })()""" % (selector, value, event))


def test_curves_of_three_runs_answer_mouse_and_keys(show, tmp_path):
    runs = [write_run(tmp_path / ("run%d" % i), steps=300 + 100 * i, seed=i, finished=i < 2) for i in range(3)]
    page = show(*runs)
    curves = "document.querySelectorAll('.charts figure:first-child .curve:not(.keys *):not(.raw)').length"
    assert page.run("document.querySelectorAll('.charts figure').length") == 5 and page.run(curves) == 6
    page.run("document.querySelector('.plot').focus()")
    page.press("End")
    tip = "document.querySelector('.tip').textContent"
    assert "steps 500" in page.run(tip) and "run2, test" in page.run(tip) and "run0, test at 300" in page.run(tip)
    page.press("ArrowLeft")
    assert "steps 490" in page.run(tip)
    page.run("document.querySelector('.key').click()")
    assert page.run(curves) == 4 and page.run("document.querySelector('.key').getAttribute('aria-pressed')") == "false"
    choose(page, "select", "epochs", "change")
    _, top, right, _ = edges(page, ".plot")
    page.point(right - 12, top + 60)
    assert "epochs 5" in page.run(tip)
    assert page.run("document.querySelectorAll('details.open, details[open]').length") == 1


def test_a_matrix_of_many_classes_is_sorted_searched_and_read(show, tmp_path):
    folder = tmp_path / "t"
    write_run(folder, MANY, scores=False)
    labels = [label for label in range(101) for _ in range(2)]
    write_scores(folder, MANY, ["v%d" % i for i in range(202)], labels)
    shares = np.eye(101, dtype=np.float32)[labels]
    shares[[2 * 7, 2 * 7 + 1]] = np.eye(101, dtype=np.float32)[42]  # all of class 7 is taken for 42
    with np.load(str(folder / "scores.npz")) as file:
        content = dict({name: file[name] for name in file}, scores=shares)
    np.savez(str(folder / "scores.npz"), **content)
    page = show(folder)
    assert painted(page, ".matrix canvas") > 10
    choose(page, ".confusion select", "worst", "change")
    page.run("document.querySelector('.matrix').focus()")
    page.press("ArrowRight")
    read = "document.querySelector('.read').textContent"
    assert page.run(read) == MANY[7] + " answered rightly: 0 of 2 videos, 0.0 %. Else taken for " + MANY[42] + " (2)."
    choose(page, "input[type=search]", "042", "input")
    assert page.run(read).startswith(MANY[42] + " answered rightly: 2 of 2 videos, 100.0 %")
    head = "document.querySelector('#classes table.sortable thead th:nth-child(2)')"
    page.run("document.querySelector('#classes details').open = true")
    page.run(head + ".querySelector('button').click()")
    first = "document.querySelector('#classes table.sortable tbody tr th').textContent"
    assert page.run(first) == MANY[7] and page.run(head + ".getAttribute('aria-sort')") == "ascending"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [PHONE, 1280])
def test_it_fits_its_window_and_can_be_read(width, dark, show, tmp_path):
    folder = write_run(tmp_path / "a_run_with_a_name_that_is_much_too_long_for_the_width_of_any_phone", MANY,
                       steps=7000, finished=False)
    (folder / "bad_videos.jsonl").write_text('{"path": "/data/%s", "reason": "cut off"}\n' % ("x" * 150))
    page = show(folder, width=width, dark=dark, phone=width == PHONE)
    page.run("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run(CONTRASTS) == []
    ids = page.run("[...document.querySelectorAll('[id]')].map(element => element.id)")
    assert len(ids) == len(set(ids)) and page.run("document.querySelectorAll('h1').length") == 1
    assert page.run("[...document.querySelectorAll('nav a')].every(a => document.querySelector(a.hash))")
    colour = "getComputedStyle(document.body).backgroundColor"
    assert page.run(colour) == ("rgb(20, 23, 27)" if dark else "rgb(251, 251, 252)")
    page.shape(width, dark=dark, phone=width == PHONE, media="print")  # on white paper, whatever the screen was
    assert page.run(colour) == "rgb(255, 255, 255)" and page.run(CONTRASTS) == []


def test_no_code_of_a_file_runs(show, tmp_path):
    folder = write_run(tmp_path / "<img src=x onerror=window.hacked=1>", HOSTILE, optimiser="<script>1</script>")
    (folder / "train.log").write_text("</pre><script>window.hacked = 1</script>\n")
    page = show(folder, tmp_path / folder.name)
    page.run("document.querySelector('.matrix').focus()")
    page.press("ArrowRight")
    page.run("document.querySelector('.plot').focus()")
    page.press("ArrowRight")
    page.run("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert page.run("window.hacked") is None
    assert page.run("document.body.textContent").count(HOSTILE[0]) >= 2
    assert page.run("document.querySelector('.read').textContent").startswith(HOSTILE[0])


def test_films_play_when_they_are_clicked_pointed_at_or_focused(show, tiny_videos, tmp_path):
    folder = write_run(tmp_path / "t", scores=False, data_root=str(tiny_videos))
    write_scores(folder, ["down", "left", "up"], ["down/v0.avi", "left/v0.avi", "up/none.avi"], [0, 1, 2], noise=0)
    with np.load(str(folder / "scores.npz")) as file:
        content = dict({name: file[name] for name in file}, scores=np.eye(3, dtype=np.float32)[[1, 2, 0]])
    np.savez(str(folder / "scores.npz"), **content)
    page = show(folder)
    moved = "document.querySelector('.film img').style.transform"
    assert page.run("document.querySelectorAll('button.film').length") == 2
    assert "No film: it is not among" in page.run("document.querySelector('.absent').textContent")
    assert page.run("document.querySelector('.film img').naturalWidth") == 480
    left, top, right, bottom = edges(page, ".film")
    x, y = (left + right) / 2, (top + bottom) / 2
    for start, end in ((lambda: page.point(x, y), lambda: page.point(1, 1)),
                       (lambda: page.run("document.querySelector('.film').focus()"),
                        lambda: page.run("document.activeElement.blur()")),
                       (lambda: page.run("document.querySelector('.film').click()"),) * 2):
        start()
        page.wait(moved + " !== 'translateX(0px)'")
        end()
        assert page.run(moved) == "translateX(0px)"
    picture = cv2.imdecode(np.frombuffer(page.picture(False), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[1] == 1280 and picture[int(y), int(x)].max() > 20  # the film, not the dark behind it


def test_a_run_that_has_only_begun_has_a_page(show, tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "train.log").write_text("12:00:00 it began\n")
    (tmp_path / "t" / "metrics.jsonl").write_text("")
    page = show(tmp_path / "t")
    assert "not finished" in page.run("document.body.innerText")
    assert page.run("document.querySelectorAll('.charts').length") == 0
    (tmp_path / "t" / "metrics.jsonl").write_text('{"kind": "train", "step": 10, "loss": 2.5, "lr": 0}\n')
    assert show(tmp_path / "t").run("document.querySelectorAll('.charts figure').length") == 2
