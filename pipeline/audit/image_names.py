"""Names of exported images: a template filled with a row's facts, which can neither leave the folder nor collide."""

from __future__ import annotations

import hashlib
import string
import unicodedata
from collections.abc import Mapping
from pathlib import PurePosixPath

from unipic.pipeline.errors import JobError

FIELDS = ("id", "sample", "row", "file", "seed", "lineage")
NAME_BYTES = 200  # of one part of a path; most file systems take 255
_PLAIN = frozenset(string.ascii_letters + string.digits + "-_.")
_ENDINGS = {".png": "png", ".jpg": "jpg", ".jpeg": "jpg", ".webp": "webp"}
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt") for digit in range(10))}


class Template:
    """A name such as `{file}/{id}-{sample}.png`; without an ending it gets the images' own.

    Raises:
        JobError: an unknown field, an ending of another format, or a name that leads out of the folder.
    """

    def __init__(self, text: str, suffix: str) -> None:
        try:
            pieces = list(string.Formatter().parse(text))
        except ValueError as error:
            raise JobError(f"The name {text!r} is no template: {error}.", remedy=_REMEDY) from error
        unknown = [
            name
            for _, name, spec, conversion in pieces
            if name is not None and (name not in FIELDS or spec or conversion)
        ]
        if unknown:
            raise JobError(f"The name {text!r} has a field {{{unknown[0]}}} that no row has.", remedy=_REMEDY)
        if not any(name in ("id", "row", "lineage") for _, name, _, _ in pieces):
            raise JobError(f"The name {text!r} is the same for every row.", remedy=_REMEDY)
        plain = PurePosixPath("".join(literal + ("x" if name else "") for literal, name, _, _ in pieces))
        if plain.is_absolute() or ".." in plain.parts or "\\" in text or "\0" in text:
            raise JobError(f"The name {text!r} leads out of the folder.", remedy=_REMEDY)
        ending = plain.suffix.lower()
        if ending in _ENDINGS and _ENDINGS[ending] != suffix:
            raise JobError(f"The name {text!r} ends in {ending}, and the images are {suffix}.", remedy=_REMEDY)
        self.text = text if ending in _ENDINGS else f"{text}.{suffix}"

    def name(self, facts: Mapping[str, object]) -> str:
        """The path below the folder, "/"-separated. Args: facts: a value for each of `FIELDS`."""
        parts = self.text.format(**{field: safe(str(facts[field])) for field in FIELDS}).split("/")
        return "/".join(_shorter(part) for part in parts if part not in ("", "."))


def safe(value: str) -> str:
    """`value` as part of a file name: letters and digits of any language stay, all else is percent-encoded."""
    out = [char if char in _PLAIN or (char.isalnum() and ord(char) > 127) else _encoded(char) for char in value]
    text = "".join(out)
    if text.startswith("."):
        text = f"%2E{text[1:]}"
    return f"{text}%" if text.partition(".")[0].lower() in _RESERVED else text


def same_file(name: str) -> bytes:
    """A digest that is equal for names which some file system takes for one: case and Unicode form do not count."""
    plain = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return hashlib.blake2b(plain.encode(), digest_size=12).digest()


def _encoded(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))


def _shorter(part: str) -> str:
    data = part.encode()
    if len(data) <= NAME_BYTES:
        return part
    stem, dot, ending = part.rpartition(".")
    ending = f"{dot}{ending}" if len(ending) <= 5 else ""
    mark = f"-{hashlib.sha256(data).hexdigest()[:16]}{ending}"
    return (stem or part).encode()[: NAME_BYTES - len(mark)].decode("utf-8", "ignore") + mark


_REMEDY = f"Use a relative name with the fields {', '.join(f'{{{field}}}' for field in FIELDS)}."
