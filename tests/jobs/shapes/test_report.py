"""The page of pictures: whatever stands in prompts and captions, it is one sound document that fetches nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from unipic.jobs.shapes.report import Card, Claim, Image, Section, Table, page

HOSTILE = "</dd><script>alert(1)</script> \"x\" 'y' & <img src=http://elsewhere/x onerror=z> 猫\u202e"
VOID = {"meta", "img"}


class Reader(HTMLParser):
    """Gathers what a page contains; fails where its tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text += data


def _page(text: str) -> str:
    claims = (Claim("prompt", text, "wrong", text), Claim("caption", text, "open", text))
    card = Card(text, (Image(b"\x89PNG", text),), claims, (text,))
    table = Table(text, ("", text), (("seen", text),))
    return page(title=text, lead=[text], tables=[table], sections=[Section(text, text, (card,))])


def test_hostile_texts_stay_texts() -> None:
    read, plain = Reader(_page(HOSTILE)), Reader(_page("plain"))
    assert [tag for tag, _ in read.tags] == [tag for tag, _ in plain.tags]
    assert read.text.count(HOSTILE) == plain.text.count("plain")
    assert [attributes.keys() for _, attributes in read.tags] == [attributes.keys() for _, attributes in plain.tags]


def test_the_page_is_one_file_that_fetches_nothing_and_fits_a_phone() -> None:
    html = _page("plain")
    read = Reader(html)
    assert html.startswith("<!doctype html>")
    assert all(attributes["src"].startswith("data:image/png;base64,") for tag, attributes in read.tags if tag == "img")
    assert all(attributes["alt"] for tag, attributes in read.tags if tag == "img")
    assert not {"script", "link", "iframe"} & {tag for tag, _ in read.tags}
    assert not re.search(r"https?://|@import|url\(", html)
    assert "width=device-width" in html and "prefers-color-scheme: dark" in html


def test_a_verdict_is_said_in_words_with_its_reason() -> None:
    claims = (Claim("prompt", "a ring", "right"), Claim("caption", "a star", "wrong", "it is a ring"))
    text = Reader(page(title="t", lead=[], tables=[], sections=[Section("s", "", (Card("c", (), claims),))])).text
    assert "a ring ✓ right" in text and "a star ✗ wrong: it is a ring" in text
