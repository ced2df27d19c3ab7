"""HTML from Python: elements whose content is escaped unless it is markup already, tables, and a page that loads
nothing and runs no script but its own.
"""
import base64
import hashlib
import html
import json
from typing import Any, Iterable, NamedTuple, Optional, Sequence, Union


class Html(str):
    """Markup; every other text is escaped."""


VOID = ("meta", "input", "img", "br")


def escaped(content: Any) -> Html:
    """Markup as it is, anything else as text."""
    return content if isinstance(content, Html) else Html(html.escape(str(content)))


def joined(parts: Iterable[Any], between: str = "") -> Html:
    """The parts one behind the other, each escaped."""
    return Html(between.join(escaped(part) for part in parts))


def tag(element: str, *content: Any, **attributes: Any) -> Html:
    """An element. `class_` is the attribute class, `data_key` is data-key; False and None leave one out, True gives it
    no value.
    """
    words = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        words.append(" " + key if value is True else ' %s="%s"' % (key, html.escape(str(value))))
    opening = "<%s%s>" % (element, "".join(words))
    return Html(opening if element in VOID else "%s%s</%s>" % (opening, joined(content), element))


class Cell(NamedTuple):
    """A cell of a table: what it shows, what it is sorted by, and its class."""

    shown: Any
    key: Union[float, str, None] = None
    class_: Optional[str] = None


def number(value: Optional[float], form: str = "%.2f", class_: str = "") -> Cell:
    """A number; a dash where there is none."""
    return Cell("–" if value is None else form % value, value, ("n " + class_).strip())


def table(caption: str, heads: Sequence[Any], rows: Iterable[Sequence[Any]], sortable: bool = False,
          class_: str = "") -> Html:
    """A table in a box that scrolls. Its first column names the rows; one that is sortable is so by each head."""
    whole = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    kinds = [(cell.class_ or "").split(" ")[0] or None for cell in whole[0]] if whole else [None] * len(heads)
    top = [tag("th", tag("button", head, type="button") if sortable and head else head, scope="col",
               class_=kind if kind in ("n", "bars") else None) for head, kind in zip(heads, kinds)]
    body = []
    for cells in whole:
        body.append(tag("tr", *[
            tag("td" if place else "th", cell.shown, data_key=cell.key, class_=cell.class_,
                scope=None if place else "row") for place, cell in enumerate(cells)]))
    kind = ("sortable " if sortable else "") + class_
    return tag("div", tag("table", tag("caption", caption), tag("thead", tag("tr", *top)), tag("tbody", *body),
                          class_=kind.strip() or None),
               class_="box", tabindex="0", role="region", aria_label=caption)


def data_block(name: str, content: Any) -> Html:
    """Plain data for the page's script: an element that no browser runs, and that no text of it can end."""
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for letter in "<>&":
        text = text.replace(letter, "\\u%04x" % ord(letter))
    return Html('<script type="application/json" id="%s">%s</script>' % (name, text))


def page(title: str, style: str, script: str, body: Html) -> bytes:
    """The file. It may show pictures that lie in it; nothing else is loaded, and only this very script and style
    count.
    """
    policy = ("default-src 'none'; img-src data:; style-src '%s'; script-src '%s'; base-uri 'none'; form-action 'none'"
              % (_digest(style), _digest(script)))
    head = joined([
        tag("meta", charset="utf-8"), Html('<meta http-equiv="Content-Security-Policy" content="%s">' % policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"), tag("meta", name="referrer", content="no-referrer"),
        tag("title", title), Html("<style>%s</style>" % style)], "\n")
    parts = ['<!doctype html>\n<html lang="en">\n<head>', head, "</head>\n<body>", body,
             "<script>%s</script>\n</body>\n</html>\n" % script]
    return "\n".join(parts).encode("utf-8", "backslashreplace")


def _digest(text: str) -> str:
    """As a Content-Security-Policy names an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
