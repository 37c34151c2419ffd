"""Encoding of outputs, with the facts of their making inside: same pixels and facts, same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from unipic.pipeline.images.decode import open_image

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
SOFTWARE = "UniPic Batch"
EXIF_MAX_BYTES = 60_000  # a JPEG segment ends at 65,533
_SOFTWARE_TAG, _EXIF_IFD, _COMMENT_TAG = 0x0131, 0x8769, 0x9286
_ASCII = b"ASCII\0\0\0"
_XMP_KEY = "XML:com.adobe.xmp"
_XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
    f'Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}" xmp:CreatorTool="{SOFTWARE}"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)


def encode(pixels: np.ndarray, *, image_format: str, quality: int, facts: Mapping[str, str]) -> bytes:
    """Encode `pixels`, (H, W, 3) uint8, with `facts` inside.

    PNG carries each fact as text under its name; JPEG and WebP carry them as JSON in EXIF's UserComment, where
    very long values are cut to fit. All carry the IPTC digital source type in XMP.

    Args:
        image_format: "png", "jpeg" or "webp".
        quality: 1 to 100, of jpeg and webp.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"pixels must be (H, W, 3) uint8, got {pixels.shape} {pixels.dtype}")
    image = Image.fromarray(np.ascontiguousarray(pixels))
    clean = {name: text.encode("utf-8", "replace").decode() for name, text in sorted(facts.items())}
    out = BytesIO()
    if image_format == "png":
        image.save(out, "PNG", pnginfo=_png_text(clean))
        return out.getvalue()
    exif = _exif(clean)
    xmp = _XMP.encode()
    if image_format == "jpeg":
        image.save(out, "JPEG", quality=quality, subsampling=0 if quality >= 90 else 2, exif=exif, xmp=xmp)
    elif image_format == "webp":
        image.save(out, "WEBP", quality=quality, method=4, exif=exif, xmp=xmp)
    else:
        raise ValueError(f"image_format must be png, jpeg or webp, got {image_format!r}")
    return out.getvalue()


def facts_of(data: bytes) -> dict[str, str]:
    """The facts `encode` put in; {} for an image that is not one of ours, or no image."""
    try:
        with open_image(data, max_px=None, formats=("PNG", "JPEG", "WEBP")) as image:
            if image.format == "PNG":
                return _from_png(image)
            return _from_exif(image.getexif())
    except Exception:  # a foreign file may be broken in any way; it is not ours then
        return {}


def _png_text(facts: Mapping[str, str]) -> PngInfo:
    text = PngInfo()
    text.add_text("Software", SOFTWARE)
    for name, value in facts.items():
        text.add_itxt(name, value)
    text.add_itxt(_XMP_KEY, _XMP)
    return text


def _from_png(image: Image.Image) -> dict[str, str]:
    if image.info.get("Software") != SOFTWARE:
        return {}
    return {
        str(name): str(value)
        for name, value in image.info.items()
        if isinstance(value, str) and name not in {"Software", _XMP_KEY}
    }


def _exif(facts: Mapping[str, str]) -> Image.Exif:
    facts = dict(facts)
    comment = json.dumps(facts, sort_keys=True)
    while len(comment) > EXIF_MAX_BYTES:
        longest = max(facts, key=lambda name: len(facts[name]))
        facts[longest] = facts[longest][: len(facts[longest]) // 2] + "…"
        comment = json.dumps(facts, sort_keys=True)
    exif = Image.Exif()
    exif[_SOFTWARE_TAG] = SOFTWARE
    exif.get_ifd(_EXIF_IFD)[_COMMENT_TAG] = _ASCII + comment.encode("ascii")
    return exif


def _from_exif(exif: Image.Exif) -> dict[str, str]:
    comment = exif.get_ifd(_EXIF_IFD).get(_COMMENT_TAG, b"")
    if exif.get(_SOFTWARE_TAG) != SOFTWARE or not isinstance(comment, bytes) or not comment.startswith(_ASCII):
        return {}
    facts = json.loads(comment[len(_ASCII) :]).items()
    # A lone surrogate, which a forger can write in JSON, is no text that an output could hold.
    return {str(name): str(value).encode("utf-8", "replace").decode() for name, value in facts}
