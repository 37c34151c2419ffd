"""A self-contained HTML page of tables and images with verdicts. It fetches nothing and escapes every text."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

Mark = Literal["", "right", "wrong", "open"]

_STYLE = """
:root { color-scheme: light dark; --ground: #fafaf8; --card: #fff; --ink: #1c1c1e; --soft: #66666c; --line: #dcdcd8;
  --right: #17713a; --wrong: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ground: #141416; --card: #1f1f23; --ink: #ececf0; --soft: #a2a2aa;
  --line: #36363c; --right: #6fd394; --wrong: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--ground); color: var(--ink);
  font: 16px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: .5rem 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 .25rem; }
p { margin: .35rem 0; max-width: 46rem; }
nav { margin: .75rem 0; } nav a { display: inline-block; margin: 0 .9rem .3rem 0; color: inherit; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0 1rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .25rem; white-space: nowrap; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.cards { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); }
article { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .75rem;
  overflow-wrap: anywhere; }
.images { display: flex; gap: .5rem; margin: 0 0 .5rem; }
figure { margin: 0; } figcaption { font-size: .8rem; color: var(--soft); }
img { display: block; width: 8rem; max-width: 100%; border: 1px solid var(--line); border-radius: .25rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .6rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; }
.right { color: var(--right); } .wrong { color: var(--wrong); } .open { color: var(--soft); }
code { font-size: .8rem; color: var(--soft); }
"""


@dataclass(frozen=True)
class Table:
    """Every row has as many cells as `header`; the first column names the row."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Image:
    """`data`: a PNG file; `label`: its caption, or ""."""

    data: bytes
    label: str = ""


@dataclass(frozen=True)
class Claim:
    """A question or an answer. `mark`: the verdict, "open" if it cannot be judged, "" if it needs none."""

    label: str
    text: str
    mark: Mark = ""
    reason: str = ""


@dataclass(frozen=True)
class Card:
    """Images with their claims; `notes` are identifiers for `unipic trace`."""

    name: str
    images: tuple[Image, ...]
    claims: tuple[Claim, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    title: str
    text: str
    cards: tuple[Card, ...]


def page(*, title: str, lead: Sequence[str], tables: Sequence[Table], sections: Sequence[Section]) -> str:
    """The whole document. `lead`: paragraphs under the title."""
    links = "".join(f'<a href="#s{number}">{escape(each.title)}</a>' for number, each in enumerate(sections))
    body = [f"<h1>{escape(title)}</h1>", *(f"<p>{escape(text)}</p>" for text in lead)]
    body += [_table(table) for table in tables]
    body += [f"<nav>{links}</nav>", *(_section(number, each) for number, each in enumerate(sections))]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            # Even an unescaped text could not load or run anything.
            '<meta http-equiv="Content-Security-Policy" content="'
            "default-src 'none'; img-src data:; style-src 'unsafe-inline'\">",
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
            *body,
            "</body></html>\n",
        ]
    )


def _table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    rows = "".join(row(cells, "td") for cells in table.rows)
    return (
        f'<div class="wide"><table><caption>{escape(table.title)}</caption>'
        f"<thead>{row(table.header, 'th')}</thead><tbody>{rows}</tbody></table></div>"
    )


def _section(number: int, section: Section) -> str:
    cards = "\n".join(_card(card) for card in section.cards)
    text = f"<p>{escape(section.text)}</p>" if section.text else ""
    return (
        f'<section id="s{number}"><h2>{escape(section.title)}</h2>{text}<div class="cards">\n{cards}\n</div></section>'
    )


def _card(card: Card) -> str:
    images = "".join(_image(image, card) for image in card.images)
    claims = "".join(
        f"<dt>{escape(claim.label)}</dt><dd>{escape(claim.text)}{_verdict(claim)}</dd>" for claim in card.claims
    )
    notes = "".join(f"<div><code>{escape(note)}</code></div>" for note in (card.name, *card.notes))
    return f'<article><div class="images">{images}</div><dl>{claims}</dl>{notes}</article>'


def _image(image: Image, card: Card) -> str:
    data = base64.b64encode(image.data).decode("ascii")
    label = f"<figcaption>{escape(image.label)}</figcaption>" if image.label else ""
    alt = escape(f"{image.label} {card.claims[0].text}".strip() if card.claims else card.name, quote=True)
    return f'<figure><img src="data:image/png;base64,{data}" alt="{alt}">{label}</figure>'


def _verdict(claim: Claim) -> str:
    """A verdict in words and signs, not in colour alone."""
    if not claim.mark:
        return ""
    verdict = {"right": "✓ right", "wrong": "✗ wrong", "open": "– not judged"}[claim.mark]
    reason = f": {escape(claim.reason)}" if claim.reason else ""
    return f' <span class="{claim.mark}">{verdict}{reason}</span>'
