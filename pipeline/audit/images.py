"""The images of an output: inside its Parquet, or beside it."""

from __future__ import annotations

from typing import Any

from unipic.pipeline.output.layout import IMAGES
from unipic.pipeline.storage.paths import join
from unipic.pipeline.storage.storage import Storage


def image_file(image: dict[str, Any]) -> str:
    """Where in its output an image beside the Parquet is: rows name it by where the output was then."""
    return f"{IMAGES}/{image['path'].rsplit('/', 1)[-1]}"


def image_bytes(image: dict[str, Any], output: str, storage: Storage) -> bytes:
    """The encoded image of a data row. Raises ObjectMissing where it was beside the Parquet and is gone."""
    data: bytes | None = image["bytes"]
    return storage.read(join(output, image_file(image))) if data is None else data
