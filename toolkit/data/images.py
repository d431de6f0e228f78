"""Pictures: where they may lie, what is wrong with them, and how any PIL mode becomes RGB on white."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import cast

from PIL import Image, ImageCms, ImageMath, ImageOps

from toolkit.data.files import escaped, shown
from toolkit.errors import DataError
from toolkit.records import ImageSource

__all__ = ["MAX_PIXELS", "check_image", "load_image", "resolve_image"]

MAX_PIXELS = 50_000_000
"""Width times height above which a picture is refused (50 megapixels)."""

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
# What PIL's plugins raise on damaged files, beside OSError.
_DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
_REMEDY = "replace the file, or remove its rows"


def resolve_image(root_of_data_file: Path, name: str) -> Path:
    """The real path of picture ``name`` of a data file that lies in ``root_of_data_file``. Need not exist.

    Raises:
        DataError: the name is empty, absolute, contains ``..``, or leads out of the folder through a symlink.
    """
    problem = _name_problem(name)
    folder = root_of_data_file.resolve()
    if problem is None:
        try:
            path = (folder / name).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            problem = f"no usable path ({escaped(error)})"
        else:
            if path != folder and path.is_relative_to(folder):
                return path
            problem = "leads out of its folder" if path != folder else "names the folder itself"
    raise DataError(
        escaped(root_of_data_file),
        f"picture {shown(name)}: {problem}; expected a path inside {escaped(root_of_data_file)}",
        remedy="copy the pictures into the folder of the data file and name them relative to it",
    )


def _name_problem(name: str) -> str | None:
    if not isinstance(name, str) or not name.strip():
        return "empty name"
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor:
        return "absolute path"
    if ".." in PurePosixPath(name).parts or ".." in PureWindowsPath(name).parts:
        return "'..' in the path"
    return None


def load_image(source: ImageSource) -> Image.Image:
    """The picture as RGB, upright.

    EXIF orientation is applied; of an animation the first frame is taken; transparent parts become white;
    palettes, grey, 16-bit, CMYK, Lab and all other PIL modes become 8-bit RGB. An orientation that cannot be
    read counts as upright.

    Raises:
        DataError: missing, truncated, not an image, or more than ``MAX_PIXELS``.
    """
    where = escaped(source) if isinstance(source, Path) else f"image of {len(source)} bytes"
    opened, problem = _opened(source)
    if opened is not None:
        with opened:
            problem = _decoding_problem(opened)
            if problem is None:
                return _rgb(_upright(opened))
    raise DataError(where, f"{where}: {problem}", remedy=_REMEDY)


def check_image(source: ImageSource, *, full: bool = True) -> str | None:
    """What is wrong with a picture, or None.

    Args:
        source: path or encoded bytes.
        full: decode every pixel. Otherwise header, size and end marker are looked at, which finds every
            missing, foreign, oversized or truncated file but not damage in the middle.
    """
    opened, problem = _opened(source)
    if opened is None:
        return problem
    with opened:
        if not full and _ends_properly(opened, source):
            return None
        # JPEG at an eighth of its size: the whole stream is still read, at about half the time.
        opened.draft("L", (1, 1))
        return _decoding_problem(opened)


def _opened(source: ImageSource) -> tuple[Image.Image | None, str | None]:
    """An image whose header was read, or what is wrong with it."""
    try:
        image = Image.open(source if isinstance(source, Path) else BytesIO(source))
    except FileNotFoundError:
        return None, "no such file"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None, f"over {MAX_PIXELS // 1_000_000} megapixels; scale it down"
    except Image.UnidentifiedImageError:
        return None, "not an image file (expected PNG, JPEG, WebP, GIF, TIFF or BMP)"
    except _DAMAGE as error:
        return None, f"cannot be read ({escaped(error)})"
    width, height = image.size
    if width * height > MAX_PIXELS:
        megapixels = f"{width} x {height} = {width * height / 1e6:.1f} megapixels"
        problem = f"{megapixels}, over {MAX_PIXELS // 1_000_000} megapixels; scale it down"
    elif image.format == "EPS":  # PIL would start Ghostscript on it
        problem = "an EPS document; convert it to PNG"
    else:
        return image, None
    image.close()
    return None, problem


def _decoding_problem(image: Image.Image) -> str | None:
    try:
        image.load()
    except _DAMAGE as error:
        return f"truncated or damaged image ({escaped(error)})"
    return None


def _ends_properly(image: Image.Image, source: ImageSource) -> bool:
    """Whether the end marker of the format is at the end; other formats, and trailers, answer no."""
    markers = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b";"}
    marker = markers.get(image.format or "")
    if marker is None:
        return False
    if isinstance(source, bytes):
        return source.endswith(marker)
    with source.open("rb") as file:
        file.seek(-min(len(marker), source.stat().st_size), 2)
        return file.read() == marker


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except _DAMAGE:  # a broken EXIF block; the pixels are fine
        return image


def _rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of any mode, transparency laid on white."""
    if image.mode in (*_SIXTEEN_BIT, "I", "F"):
        image = _eight_bit(image)
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        return converted if converted is not None else image.convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(ground, layer).convert("RGB")
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _eight_bit(image: Image.Image) -> Image.Image:
    """Grey (L, or LA where one value counts as transparent) of a 16-bit, 32-bit or float picture.

    16-bit values are divided by 257. 32-bit and float values are kept when within 0..255 (floats within 0..1 are
    multiplied by 255), divided by 257 when within 0..65535, and otherwise stretched from their extremes.
    """
    values = image.convert("I").convert("F") if image.mode in _SIXTEEN_BIT else image.convert("F")
    low, high = cast("tuple[float, float]", values.getextrema())
    scale, offset = _range(image.mode, low, high)
    grey = values.point(lambda value: value * scale + (offset + 0.5)).convert("L")
    key = image.info.get("transparency")
    grey.info.pop("transparency", None)
    if isinstance(key, int) and image.mode in _SIXTEEN_BIT:
        opaque = ImageMath.lambda_eval(lambda a: a["notequal"](a["v"], key) * 255, v=image.convert("I"))
        return Image.merge("LA", (grey, opaque.convert("L")))
    return grey


def _range(mode: str, low: float, high: float) -> tuple[float, float]:
    """Factor and offset that bring values of the extremes ``low`` and ``high`` to 0..255."""
    if mode in _SIXTEEN_BIT:
        return 1 / 257, 0.0
    if low < 0 or high > 65535:
        scale = 255 / (high - low) if high > low else 0.0
        return scale, -low * scale
    if mode == "F" and high <= 1:
        return 255.0, 0.0
    return (1.0, 0.0) if high <= 255 else (1 / 257, 0.0)
