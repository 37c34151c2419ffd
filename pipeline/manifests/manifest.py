"""A manifest as a value: its files, their columns, and the units that its rows are cut into."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from unipic.pipeline.manifests.image_folder import Replaced
from unipic.pipeline.records import ManifestFile, Unit


@dataclass(frozen=True)
class Manifest:
    """The rows of a job.

    Attributes:
        files: in order of name.
        folder: what the names of the files are relative to; absolute.
        schema: of the first file, text and bytes in their plain types.
        listing: of a folder of images, the bytes of a new listing that the caller has to store; else None.
        others: (file name, schema) of the first file of each further schema.
        left_out: notes on what of the manifest and its folder is not read.
        endpoint: of OpenAI batch files, the one that their requests are for; else "".
        replaced: of a folder of images, by stored listing, those that are others now than when they were listed.
    """

    files: tuple[ManifestFile, ...]
    schema: pa.Schema
    listing: bytes | None = None
    others: tuple[tuple[str, pa.Schema], ...] = ()
    replaced: tuple[Replaced, ...] = ()
    left_out: tuple[str, ...] = ()
    folder: str = ""
    endpoint: str = ""

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that every file has."""
        return tuple(name for name in self.schema.names if all(name in other.names for _, other in self.others))


def units(manifest: Manifest, rows_per_unit: int) -> Iterator[Unit]:
    """The manifest's units in order, made as they are asked for."""
    for file in manifest.files:
        for first_row in range(0, file.rows, rows_per_unit):
            yield Unit(file=file, first_row=first_row, rows=min(rows_per_unit, file.rows - first_row))
