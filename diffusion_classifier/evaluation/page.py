"""Parts of a page: text that is never markup, tables, pictures, the style.

Whatever comes from users, labels and names of files, passes ``text``, which escapes it. Pictures
are data URIs in ``<img>``, where a browser runs no script and ids are their own. The page forbids
all else to its reader's browser by a content security policy.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

# Light and dark, narrow and wide, and on paper. Pictures keep a white ground, for which the
# colours of the displays are made.
STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff; --soft: #5c5c5c; --line: #d5d5d5;
  --ground: #f5f5f5; --wrong: #b24300; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #161616; --soft: #ababab;
  --line: #3d3d3d; --ground: #222; --wrong: #ff9b5c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 0 0 .5rem; }
p { margin: .5rem 0; max-width: 45rem; }
.lead { font-size: 1.2rem; }
.note { color: var(--soft); font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem 1rem .25rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
th, .numbers td { overflow-wrap: normal; }
.numbers td { white-space: nowrap; }
.numbers td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 6rem; }
.pair { display: flex; flex-wrap: wrap; gap: 1rem 2rem; align-items: flex-start; }
.pair > * { flex: 0 1 auto; min-width: 0; max-width: 100%; }
img { display: block; max-width: 100%; height: auto; }
.drawn { background: #fff; border-radius: .25rem; width: 30rem; }
.cards { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); }
.card { background: var(--ground); border-left: .3rem solid var(--wrong); border-radius: .25rem;
  padding: 1rem; break-inside: avoid; min-width: 0; }
.card p { margin: .25rem 0; }
.card .drawn { width: 100%; margin-top: .75rem; }
.photo { width: 10rem; max-height: 14rem; object-fit: contain; object-position: left;
  margin: .5rem 0; }
.small { image-rendering: pixelated; }
.wrong { color: var(--wrong); font-weight: 600; }
@media (max-width: 40rem) { table { font-size: .85rem; } th, td { padding-right: .6rem; }
  .numbers td:first-child { min-width: 4rem; } }
@media print { :root { --ink: #000; --paper: #fff; --soft: #444; --line: #bbb; --ground: #fff;
  --wrong: #8a3400; } body { max-width: none; padding: 0; font-size: 10pt; }
  h2, h3 { break-after: avoid; } tr, img { break-inside: avoid; } .wide { overflow: visible; }
  .cards { grid-template-columns: repeat(3, minmax(0, 1fr)); gap: .5rem; }
  .card { padding: .5rem; } .drawn { width: 20rem; } .photo { width: 6rem; } }
""".strip()
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def text(value: Any) -> str:
    """Write any value as text, without markup.

    Examples
    --------
    >>> text("<script>")
    '&lt;script&gt;'
    """
    # A lone half of a surrogate pair, as in names of files that are no UTF-8, cannot be written.
    return html.escape(str(value).encode("utf-8", "backslashreplace").decode("utf-8"))


def table(
    rows: Iterable[Sequence[Any]], heads: Sequence[str] = (), caption: str = "", kind: str = ""
) -> str:
    """Write rows as a table below its caption; without ``heads``, each row starts with its own."""
    lines = [paragraph(caption, "note")] if caption else []
    lines.append(f'<div class="wide"><table class="{kind}">')
    if heads:
        names = "".join(f'<th scope="col">{text(head)}</th>' for head in heads)
        lines.append(f"<thead><tr>{names}</tr></thead>")
    lines.append("<tbody>")
    for row in rows:
        cells = [f"<td>{text(value)}</td>" for value in row]
        if not heads:
            cells[0] = f'<th scope="row">{text(row[0])}</th>'
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


def picture(uri: str, alt: str, kind: str = "drawn") -> str:
    """Show a picture, which is a data URI."""
    return f'<img class="{kind}" src="{uri}" alt="{text(alt)}">'


def paragraph(words: str, kind: str = "") -> str:
    """Write a paragraph of plain text."""
    return f'<p class="{kind}">{text(words)}</p>'


def section(title: str, *parts: str) -> str:
    """Put a heading over parts; nothing if there are none."""
    kept = [part for part in parts if part]
    return "\n".join(["<section>", f"<h2>{text(title)}</h2>", *kept, "</section>"]) if kept else ""


def page(title: str, *parts: str) -> str:
    """Return a whole HTML document."""
    head = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{text(title)}</title>",
        f"<style>\n{STYLE}\n</style>",
        "</head>",
        "<body>",
        f"<h1>{text(title)}</h1>",
    ]
    return "\n".join([*head, *filter(None, parts), "</body>", "</html>", ""])
