"""Decoding: encoded bytes become RGB pixels under the caller's limits, or one row's error that says what they are.

Pillow's own limit on pixels is one number for the whole process. Images are therefore opened here by Pillow's readers
of single formats, which only parse the header, and each is held to its caller's limit before a pixel is decoded.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from unipic.pipeline.errors import RejectionKind, RowError
from unipic.pipeline.images.archives import archive_start

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM", "DIB", "PCX", "SGI", "PSD", "TGA")
"""Those whose header says how large the image is and whose decoder is compiled. Left out are containers of several
images (ICO, ICNS), what other programs render (EPS, WMF) and decoders in Python, which take minutes (QOI, DDS).
TGA comes last: its files do not begin with a signature."""
_HEADER_FAULTS = (SyntaxError, IndexError, TypeError, struct.error)  # as `Image.open` passes on to the next format
_SIGNATURE_BYTES = 16
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # of a segment, or of the end
_AVIF = (b"avif", b"avis")
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class ImageLimits:
    """The most pixels and (encoded) bytes an image may have."""

    max_px: int
    max_bytes: int


def open_image(data: bytes, *, max_px: int | None, formats: tuple[str, ...] = FORMATS) -> ImageFile:
    """The image, its header read and no pixel decoded.

    Args:
        max_px: the most pixels it may have; None for any number, where they are not going to be decoded.

    Raises:
        RowError: it has more pixels, or none.
        UnidentifiedImageError: the bytes are of none of `formats`. Broken files make Pillow raise almost anything else.
    """
    Image.init()
    for name in formats:
        factory, accepts = Image.OPEN[name]
        try:
            if accepts is not None and accepts(data[:_SIGNATURE_BYTES]) is not True:
                continue
            image = factory(BytesIO(data), "")
        except _HEADER_FAULTS:
            continue
        except Exception:
            if accepts is not None:
                raise
            continue  # without a signature to go by, it says nothing of bytes of another kind
        _check_size(image, max_px)
        return image
    raise UnidentifiedImageError("of no known format")


def decode(data: bytes, limits: ImageLimits) -> Image.Image:
    """An encoded image as RGB, as a viewer shows it: upright, transparent parts on white, the first frame.

    16-bit greys are scaled to 8; colour profiles are not applied. Raises RowError: PictureTooLarge (before
    decoding), UnreadablePicture (saying what the bytes are).
    """
    if len(data) > limits.max_bytes:
        raise too_many_bytes(len(data), limits)
    with _broken_files_as_row_errors(data), _loaded(data, limits.max_px) as image:
        return _upright(image, _as_rgb(image))


def check_decodes(data: bytes, *, max_px: int) -> None:
    """Hold that an encoded image can be decoded whole and has at most `max_px` pixels. Raises RowError as `decode`."""
    with _broken_files_as_row_errors(data), _loaded(data, max_px):
        pass


def too_many_bytes(count: int, limits: ImageLimits) -> RowError:
    return RowError(
        RejectionKind.PICTURE_TOO_LARGE, f"The picture has {count:,} bytes, the limit is {limits.max_bytes:,}."
    )


@contextmanager
def _broken_files_as_row_errors(data: bytes) -> Iterator[None]:
    try:
        yield
    except RowError:
        raise
    except (MemoryError, Image.DecompressionBombError) as error:
        raise RowError(RejectionKind.PICTURE_TOO_LARGE, "The picture does not fit into memory.") from error
    except Exception as error:  # broken files make Pillow raise almost anything; each is this row's fault
        raise RowError(RejectionKind.UNREADABLE_PICTURE, _what_is_wrong(data, error)) from error


@contextmanager
def _loaded(data: bytes, max_px: int) -> Iterator[ImageFile]:
    """The image with its pixels decoded, in its own mode; the first frame. Raises what Pillow raises, or RowError."""
    with open_image(data, max_px=max_px) as image:
        image.load()
        _check_size(image, max_px)  # a format may correct its header's word
        if not _is_whole(data, image.format):
            raise EOFError
        yield image


def _check_size(image: Image.Image, max_px: int | None) -> None:
    width_px, height_px = image.size
    if width_px < 1 or height_px < 1:
        raise RowError(RejectionKind.UNREADABLE_PICTURE, f"The picture is {width_px}×{height_px} pixels.")
    if max_px is not None and width_px * height_px > max_px:
        raise RowError(
            RejectionKind.PICTURE_TOO_LARGE,
            f"The picture is {width_px}×{height_px}: {width_px * height_px:,} pixels, the limit is {max_px:,}.",
        )


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise RowError(
            RejectionKind.UNREADABLE_PICTURE, "The picture has floating-point pixels, which have no agreed brightness."
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _upright(image: Image.Image, rgb: Image.Image) -> Image.Image:
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # viewers show an image whose EXIF is broken as it lies
        turn = None
    return rgb if turn is None else rgb.transpose(turn)


def _is_whole(data: bytes, image_format: str | None) -> bool:
    """Whether the end mark is there: Pillow fills in what a JPEG or PNG lacks at its very end."""
    if image_format == "PNG":
        return b"IEND\xaeB`\x82" in data[-(2**20) :]
    if image_format not in {"JPEG", "MPO"}:
        return True
    at = 2
    while (marker := _JPEG_MARKER.search(data, at)) is not None:
        if marker[0] == b"\xff\xd9":
            return True
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return False


def _what_is_wrong(data: bytes, error: Exception) -> str:
    kind = _sniff(data)
    if kind:
        return f"The bytes are {kind}, not a picture."
    said = str(error) if not isinstance(error, UnidentifiedImageError) else "of no known format"
    if data[4:8] == b"ftyp":
        said = "it is a damaged AVIF file"
    if data[:4] == b"RIFF" and len(data) < int.from_bytes(data[4:8], "little") + 8:
        said = "truncated"
    if "truncated" in said.lower() or "premature end" in said.lower() or isinstance(error, EOFError):
        return f"The picture is truncated: its {len(data):,} bytes end too early."
    return f"The picture cannot be decoded ({len(data):,} bytes): {said}."


def _sniff(data: bytes) -> str:
    """What bytes that are no picture we decode look like; "" for anything else."""
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not data:
        return "empty (0 bytes)"
    if b"<svg" in start:
        return "an SVG drawing"
    signs: dict[bytes, str] = {
        b"<!doctype html": "an HTML page",
        b"<html": "an HTML page",
        b"<?xml": "an XML document",
        b"version https://git-lfs": "a Git LFS pointer",
        b"%pdf": "a PDF document",
        b"{": "JSON text",
    }
    for sign, what in signs.items():
        if start.startswith(sign):
            return what
    if data[4:8] == b"ftyp" and data[8:12] not in _AVIF:
        brand = data[8:12].decode("latin-1").strip()
        return f"a HEIF, AVIF or video file (brand {brand!r})"
    return archive_start(data)
