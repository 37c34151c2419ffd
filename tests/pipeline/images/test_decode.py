"""Hostile images are one row's fault; odd ones look as in a viewer."""

from __future__ import annotations

import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.pipeline.images.samples import LIMITS, PIXELS, RNG, chunk, encoded, png, refused
from unipic.pipeline.errors import RowError
from unipic.pipeline.images.decode import ImageLimits, decode, open_image


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


LESS_USUAL = ["AVIF", "JPEG2000", "PPM", "TGA", "PCX", "SGI", "DIB"]


@pytest.mark.parametrize("image_format", LESS_USUAL)
def test_less_usual_formats_are_decoded_and_their_damage_and_size_rejected(image_format: str) -> None:
    smooth = Image.new("RGB", (48, 64), (200, 30, 30))
    whole = encoded(smooth, image_format)
    found = np.asarray(decode(whole, LIMITS)).astype(int)
    assert found.shape == (64, 48, 3)
    assert np.abs(found - (200, 30, 30)).max() <= 4
    noise = encoded(Image.fromarray(PIXELS), image_format)
    for cut in (0.9, 0.5, 0.1):
        assert refused(noise[: int(len(noise) * cut)]).kind == "UnreadablePicture"
    assert refused(whole, ImageLimits(max_px=48 * 64 - 1, max_bytes=10**6)).kind == "PictureTooLarge"


def test_an_avif_that_was_turned_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(Image.fromarray(PIXELS), "AVIF", exif=exif, quality=100)
    assert decode(turned, LIMITS).size == (64, 48)


@pytest.mark.parametrize("image_format", ["ICO", "ICNS", "EPS", "QOI", "DDS"])
def test_containers_and_formats_that_other_programs_render_are_never_opened(image_format: str) -> None:
    assert refused(encoded(Image.fromarray(PIXELS), image_format)).kind == "UnreadablePicture"


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


def test_limits_on_pixels_are_each_callers_own_and_the_process_keeps_pillows() -> None:
    header = png(20_000, 20_000, chunk(b"IDAT", b"never read"))
    assert Image.MAX_IMAGE_PIXELS is not None
    assert open_image(header, max_px=20_000 * 20_000).size == (20_000, 20_000), "more than Pillow's own limit"
    with pytest.raises(RowError, match="400,000,000 pixels, the limit is 399,999,999"):
        open_image(header, max_px=20_000 * 20_000 - 1)
    assert Image.MAX_IMAGE_PIXELS is not None
