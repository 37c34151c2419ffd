"""Promises about pictures: hostile ones are one row's fault, odd ones look as in a viewer, ours carry their facts."""

from __future__ import annotations

import hashlib
import os
import struct
import time
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from unipic.pipeline.errors import AccessDenied, RowError, StorageUnavailable
from unipic.pipeline.images.decode import ImageLimits, check_decodes, decode, open_image
from unipic.pipeline.images.encode import encode, facts_of
from unipic.pipeline.images.fetch import fetch
from unipic.pipeline.storage.errors import from_request
from unipic.pipeline.storage.storage import Storage

LIMITS = ImageLimits(max_px=64_000_000, max_bytes=10_000_000)
RNG = np.random.default_rng(7)
PIXELS = RNG.integers(0, 255, (64, 48, 3), dtype=np.uint8)


def encoded(picture: Image.Image, image_format: str, **how: Any) -> bytes:
    out = BytesIO()
    picture.save(out, image_format, **how)
    return out.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width_px: int, height_px: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def refused(data: bytes, limits: ImageLimits = LIMITS) -> RowError:
    with pytest.raises(RowError, match=r".+") as caught:
        decode(data, limits)
    return caught.value


# --- hostile bytes ---------------------------------------------------------------------------------------------


def test_a_picture_of_too_many_pixels_is_rejected() -> None:
    error = refused(encoded(Image.new("L", (10_000, 9_000)), "PNG"))
    assert error.kind == "PictureTooLarge"
    assert "10000×9000: 90,000,000 pixels, the limit is 64,000,000" in error.message


def test_a_header_that_claims_too_many_pixels_is_rejected_before_decoding() -> None:
    error = refused(png(30_000, 30_000, chunk(b"IDAT", b"never read")))
    assert error.kind == "PictureTooLarge"


def test_a_large_picture_within_its_limit_is_decoded() -> None:
    limits = ImageLimits(max_px=100_000_000, max_bytes=10_000_000)
    assert decode(encoded(Image.new("1", (10_000, 9_000)), "PNG"), limits).size == (10_000, 9_000)


@pytest.mark.parametrize("image_format", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("cut", ["half", "last two bytes"])
def test_a_truncated_picture_is_rejected_as_such(image_format: str, cut: str) -> None:
    whole = encoded(Image.fromarray(PIXELS), image_format)
    error = refused(whole[: len(whole) // 2] if cut == "half" else whole[:-2])
    assert error.kind == "UnreadablePicture"
    assert "truncated" in error.message


def test_a_progressive_jpeg_with_bytes_after_its_end_is_whole() -> None:
    whole = encoded(Image.fromarray(PIXELS), "JPEG", progressive=True)
    assert decode(whole + b"\xff\xda trailing bytes", LIMITS).size == (48, 64)
    assert "truncated" in refused(whole[:-2] + b"\0").message


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "empty"),
        (b"\n<!DOCTYPE html><html>Not found</html>", "an HTML page"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b'<?xml version="1.0"?><svg/>', "an SVG drawing"),
        (b'{"error": "quota"}', "JSON text"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        (b"\0\0\0\x18ftypheic\0\0", "a HEIF, AVIF or video file"),
        (b"\x01\x02\x03", "no known format"),
    ],
)
def test_bytes_that_are_no_picture_are_named(data: bytes, what: str) -> None:
    error = refused(data)
    assert error.kind == "UnreadablePicture"
    assert what in error.message


def test_a_png_with_a_compressed_text_bomb_is_rejected() -> None:
    bomb = chunk(b"zTXt", b"k\0\0" + zlib.compress(b"x" * 200_000_000, 1))
    assert refused(png(1, 1, bomb, chunk(b"IDAT", zlib.compress(b"\0\0\0\0")))).kind == "UnreadablePicture"


@pytest.mark.parametrize("image_format", ["GIF", "PNG"])
def test_of_an_animation_with_ten_thousand_frames_the_first_is_taken_at_once(image_format: str) -> None:
    first = Image.new("RGB", (8, 8), (255, 0, 0))
    rest = [Image.new("RGB", (8, 8), (0, number % 256, 255)) for number in range(1, 10_000)]
    data = encoded(first, image_format, save_all=True, append_images=rest)
    start_s = time.process_time()
    assert decode(data, LIMITS).getpixel((3, 3)) == (255, 0, 0)
    assert time.process_time() - start_s < 0.5


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_whatever_bits_are_flipped_only_row_errors_come_out(image_format: str) -> None:
    whole = encoded(Image.fromarray(PIXELS), image_format)
    for _ in range(60):
        broken = bytearray(whole)
        for at in RNG.integers(0, min(len(broken), 400), 4):
            broken[at] = RNG.integers(0, 256)
        try:
            assert decode(bytes(broken), LIMITS).mode == "RGB"
        except RowError as error:
            assert error.kind in {"UnreadablePicture", "PictureTooLarge"}


# --- odd pictures ----------------------------------------------------------------------------------------------


def test_exif_rotation_is_applied() -> None:
    upright = Image.new("RGB", (40, 20), "white")
    upright.paste((255, 0, 0), (0, 0, 20, 20))
    for orientation, turn in {3: 180, 6: 90, 8: 270}.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        shown = decode(encoded(upright.rotate(turn, expand=True), "PNG", exif=exif), LIMITS)
        assert np.array_equal(np.asarray(shown), np.asarray(upright)), orientation


def test_transparent_parts_are_white() -> None:
    half = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    half.putpixel((1, 0), (0, 0, 255, 128))
    for picture in (half, half.quantize(4)):
        shown = decode(encoded(picture, "PNG"), LIMITS)
        assert shown.getpixel((0, 0)) == (255, 255, 255)
    assert decode(encoded(half, "PNG"), LIMITS).getpixel((1, 0)) == (127, 127, 255)
    grey = Image.new("LA", (1, 1), (10, 0))
    assert decode(encoded(grey, "PNG"), LIMITS).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([9, 9, 9])
    assert decode(encoded(palette, "PNG", transparency=0), LIMITS).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_sixteen_bit_greys_are_scaled(image_format: str) -> None:
    grey = Image.fromarray(np.array([[0, 257, 32768, 65535]], dtype=np.uint16))
    shown = np.asarray(decode(encoded(grey, image_format), LIMITS))
    assert shown[0, :, 0].tolist() == [0, 1, 128, 255]
    assert (shown[..., 0] == shown[..., 2]).all()


def test_cmyk_bilevel_and_grey_are_rgb() -> None:
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red = decode(encoded(cmyk, "JPEG", quality=100), LIMITS).getpixel((4, 4))
    assert isinstance(red, tuple)
    assert red[0] > 250 and max(red[1:]) < 5
    assert decode(encoded(Image.new("1", (2, 2), 1), "PNG"), LIMITS).getpixel((0, 0)) == (255, 255, 255)
    assert decode(encoded(Image.new("L", (2, 2), 9), "BMP"), LIMITS).getpixel((0, 0)) == (9, 9, 9)


def test_floating_point_pixels_are_rejected() -> None:
    assert "floating-point" in refused(encoded(Image.new("F", (2, 2)), "TIFF")).message


def test_colour_profiles_change_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encoded(Image.fromarray(PIXELS), "PNG", icc_profile=profile)
    assert np.array_equal(np.asarray(decode(data, LIMITS)), PIXELS)


# --- our own ---------------------------------------------------------------------------------------------------

FACTS = {"prompt": "a <cat> & 犬\n“😀”", "seed": "18446744073709551615", "checkpoint": "sha", "lineage_id": "ab" * 32}


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_outputs_carry_their_facts_and_their_source_type_in_the_same_bytes(image_format: str) -> None:
    data = encode(PIXELS, image_format=image_format, quality=90, facts=FACTS)
    assert data == encode(PIXELS.copy(), image_format=image_format, quality=90, facts=dict(reversed(FACTS.items())))
    assert facts_of(data) == FACTS
    assert b"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia" in data
    assert decode(data, LIMITS).size == (48, 64)


def test_png_is_lossless() -> None:
    assert np.array_equal(np.asarray(decode(encode(PIXELS, image_format="png", quality=1, facts={}), LIMITS)), PIXELS)


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_a_prompt_of_a_hundred_thousand_characters_still_encodes(image_format: str) -> None:
    facts = {**FACTS, "prompt": "犬" * 100_000 + "\ud800"}
    kept = facts_of(encode(PIXELS, image_format=image_format, quality=90, facts=facts))
    assert kept["lineage_id"] == FACTS["lineage_id"]
    assert kept["prompt"].startswith("犬" * 5000)


def test_limits_on_pixels_are_each_callers_own_and_the_process_keeps_pillows() -> None:
    header = png(20_000, 20_000, chunk(b"IDAT", b"never read"))
    assert Image.MAX_IMAGE_PIXELS is not None
    assert open_image(header, max_px=20_000 * 20_000).size == (20_000, 20_000), "more than Pillow's own limit"
    with pytest.raises(RowError, match="400,000,000 pixels, the limit is 399,999,999"):
        open_image(header, max_px=20_000 * 20_000 - 1)
    assert Image.MAX_IMAGE_PIXELS is not None


def test_an_output_is_checked_under_a_limit_too() -> None:
    data = encode(PIXELS, image_format="png", quality=1, facts={})
    check_decodes(data, max_px=48 * 64)
    with pytest.raises(RowError, match="the limit is 3,071"):
        check_decodes(data, max_px=48 * 64 - 1)
    with pytest.raises(RowError, match="truncated"):
        check_decodes(data[:-20], max_px=48 * 64)


def test_foreign_and_broken_pictures_have_no_facts() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("prompt", "someone else's")
    for data in (encoded(Image.fromarray(PIXELS), "PNG", pnginfo=text), encoded(Image.fromarray(PIXELS), "JPEG"), b"x"):
        assert facts_of(data) == {}


def test_encoding_refuses_other_shapes_and_formats() -> None:
    with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8"):
        encode(PIXELS.astype(np.float32), image_format="png", quality=90, facts={})
    with pytest.raises(ValueError, match="png, jpeg or webp"):
        encode(PIXELS, image_format="gif", quality=90, facts={})


# --- fetching --------------------------------------------------------------------------------------------------


def get(value: object, root: str, *, limits: ImageLimits = LIMITS, allow_outside_root: bool = False) -> Any:
    return fetch(value, root=root, storage=Storage(), limits=limits, allow_outside_root=allow_outside_root)


def fault(value: object, root: str, **how: Any) -> RowError:
    with pytest.raises(RowError, match=r".+") as caught:
        get(value, root, **how)
    return caught.value


def test_pictures_come_from_paths_bytes_and_structs(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a b.png").write_bytes(b"data")
    for value in ("sub/a b.png", f"{tmp_path}/sub/a b.png", {"bytes": None, "path": "sub/../sub/a b.png"}):
        assert get(value, str(tmp_path)).data == b"data"
    assert get("sub/a b.png", str(tmp_path)).source == "sub/a b.png"
    assert get(b"raw", "").source == ""
    both = get({"bytes": b"raw", "path": "x.png"}, "")
    assert (both.data, both.source) == (b"raw", "x.png")
    assert both.sha256 == hashlib.sha256(b"raw").hexdigest()


@pytest.mark.parametrize("value", [None, "", {"bytes": None, "path": None}, {}])
def test_a_row_without_a_picture_is_rejected(value: object) -> None:
    assert fault(value, "/tmp").kind == "MissingPicture"


@pytest.mark.parametrize("value", [3, 1.5, ["x"], {"path": 3, "bytes": None}, {"bytes": "text"}])
def test_a_cell_of_another_type_is_rejected(value: object) -> None:
    assert fault(value, "/tmp").kind == "WrongType"


def test_a_path_to_nothing_a_folder_or_a_pipe_is_a_missing_picture(tmp_path: Path) -> None:

    os.mkfifo(tmp_path / "pipe")
    for value in ("none.png", ".", "pipe", "none/none.png"):
        assert fault(value, str(tmp_path)).kind == "MissingPicture"


@pytest.mark.parametrize(
    "value",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://example.org/x.png",
        "http://[::ffff:169.254.169.254]/",
        "http://[::1]/",
        "http://2130706433/",
        "HTTP://0x7f.1/",
        "http:/one-slash",
        "file:///etc/passwd",
        "file:x.png",
        "ftp://example.org/x.png",
        "data:image/png;base64,AAAA",
        "gopher://example.org/x",
        "s3://user:canary@bucket/x.png",
        "s3://bucket/a/../../other/x.png",
        "/etc/passwd",
        "../secret.png",
        "a/../../secret.png",
        "//etc/passwd",
        "a\0b.png",
    ],
)
def test_forbidden_sources_are_rejected_without_a_connection(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*args: object) -> None:
        raise AssertionError("a connection was made")

    monkeypatch.setattr("socket.socket.connect", no_network)
    error = fault(value, str(tmp_path))
    assert error.kind == "ForbiddenSource"
    assert "canary" not in str(error)


def test_a_symlink_out_of_the_root_is_forbidden_unless_the_job_allows_it(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside.png").write_bytes(b"x")
    (tmp_path / "root/link.png").symlink_to(tmp_path / "outside.png")
    root = str(tmp_path / "root")
    for value in ("link.png", "../outside.png", f"{tmp_path}/outside.png"):
        assert fault(value, root).kind == "ForbiddenSource"
        assert get(value, root, allow_outside_root=True).data == b"x"
    (tmp_path / "root-too.png").write_bytes(b"x")
    assert fault("../root-too.png", root).kind == "ForbiddenSource"


def test_a_relative_path_on_s3_starts_from_its_root_and_stays_there() -> None:
    class Reads:
        def read(self, uri: str, *, max_bytes: int) -> bytes:
            return uri.encode()

    def got(value: str) -> bytes:
        return fetch(
            value,
            root="s3://b/root",
            storage=Reads(),
            limits=LIMITS,
            allow_outside_root=False,  # type: ignore[arg-type]
        ).data

    assert got("a/./x.png") == b"s3://b/root/a/x.png"
    assert got("s3://other/x.png") == b"s3://other/x.png"
    for value in ("../x.png", "a/../../x.png", "/etc/passwd"):
        with pytest.raises(RowError, match="leads outside s3://b/root"):
            got(value)


def test_a_signed_address_leaves_no_secret(tmp_path: Path) -> None:
    signed = "https://bucket.example.org/x.png?X-Amz-Signature=canary"
    assert "canary" not in str(fault(signed, str(tmp_path)))
    assert get({"bytes": b"x", "path": signed}, "").source == "https://bucket.example.org/x.png"


def test_a_picture_of_too_many_bytes_is_rejected_without_reading_it(tmp_path: Path) -> None:
    (tmp_path / "big.png").write_bytes(b"x" * 101)
    limits = ImageLimits(max_px=100, max_bytes=100)
    for value in ("big.png", b"x" * 101):
        error = fault(value, str(tmp_path), limits=limits)
        assert error.kind == "PictureTooLarge"
        assert "101 bytes" in error.message
    assert refused(b"x" * 101, limits).kind == "PictureTooLarge"


def test_faults_of_the_store_are_not_the_rows() -> None:
    from botocore.exceptions import ClientError

    def store(code: str, status: int) -> Any:
        answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}

        class Fails:
            def read(self, uri: str, *, max_bytes: int) -> bytes:
                error = from_request(ClientError(answer, "GetObject"), uri)
                assert error is not None
                raise error

        return Fails()

    def ask(code: str, status: int) -> None:
        fetch("s3://b/x", root="", storage=store(code, status), limits=LIMITS, allow_outside_root=False)

    with pytest.raises(StorageUnavailable, match="SlowDown"):
        ask("SlowDown", 503)
    with pytest.raises(AccessDenied, match="ExpiredToken"):
        ask("ExpiredToken", 400)
    for code, status, kind in (("NoSuchKey", 404, "MissingPicture"), ("AccessDenied", 403, "AccessDenied")):
        with pytest.raises(RowError, match="s3://b/x") as caught:
            ask(code, status)
        assert caught.value.kind == kind
