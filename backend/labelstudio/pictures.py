"""Decodes the pictures of tasks within limits: pixels are counted before anything is decoded."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from backend.errors import MediaDamaged, MediaNotAnImage, MediaTooManyPixels

MAX_PIXELS = 64_000_000
# Raster formats only: some of Pillow's readers start other programs (EPS) or read vector files. No icons: the
# picture inside may be far larger than the icon says it is.
_FORMATS = ("PNG", "JPEG", "MPO", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "PPM", "JPEG2000")


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return the picture as RGB: first frame, turned as its EXIF says, transparency on white.

    Raises
    ------
    MediaNotAnImage, MediaDamaged
    MediaTooManyPixels
        Told by the header, before anything is decoded.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=_known_formats())
    except Image.DecompressionBombError as error:
        raise MediaTooManyPixels(f"{error} Limit: {max_pixels} pixels. Store a smaller picture.") from error
    except UnidentifiedImageError as error:
        raise MediaNotAnImage(_no_image_message(data)) from error
    except Exception as error:  # readers meet broken headers with errors of many kinds
        raise MediaDamaged(f"picture header is broken: {error}. Upload the picture again.") from error
    with image:
        width, height = image.size
        if width * height > max_pixels:
            raise MediaTooManyPixels(
                f"picture has {width} x {height} = {width * height} pixels, limit {max_pixels}. "
                "Store a smaller picture, or raise the limit."
            )
        try:
            image.load()
            return _as_rgb(_upright(image))
        except Exception as error:  # as above, now from the decoders
            raise MediaDamaged(
                f"{image.format} picture of {len(data)} bytes is truncated or broken: {error}. Upload it again."
            ) from error


def pixels_in(data: bytes) -> int:
    """Return the pixels that the header tells of, without decoding; 0 where it cannot be read."""
    try:
        with Image.open(io.BytesIO(data), formats=_known_formats()) as image:
            return image.width * image.height
    except Exception:  # of many kinds, as in decode_image, which says what is wrong
        return 0


@cache
def _known_formats() -> tuple[str, ...]:
    Image.init()  # readers register themselves late, and some builds lack one
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block is no reason to lose the picture
        return image


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow clips deep greys to 255; spread them instead.
        deep = np.nan_to_num(np.asarray(image, dtype=np.float64))
        low, high = (0.0, 65535.0) if image.mode.startswith("I;16") else (deep.min(), deep.max())
        image = Image.fromarray(((deep - low) * (255.0 / max(high - low, 1e-12))).astype(np.uint8))
    return image.convert("RGB")


def _no_image_message(data: bytes) -> str:
    if not data:
        return "the address gave no bytes. Upload the picture again."
    if data.lstrip()[:200].lower().startswith((b"<!doctype html", b"<html")):
        return "the address gave a web page, not a picture (a login page?). Check the address and its access."
    return f"{len(data)} bytes that are no picture in a known format ({', '.join(_FORMATS)})."
