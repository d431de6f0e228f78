"""Every PIL mode becomes upright RGB on white; what is no picture is refused with the reason."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image, ImageCms

from toolkit.data.images import MAX_PIXELS, check_image, load_image, resolve_image
from toolkit.errors import DataError


def _saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 77, (77, 77, 77)),
        ("LA", (0, 0), (255, 255, 255)),
        ("LA", (40, 255), (40, 40, 40)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
        ("I;16", 65535, (255, 255, 255)),
        ("I;16", 257 * 100, (100, 100, 100)),
    ],
)
def test_png_modes(tmp_path: Path, mode: str, value: object, expected: tuple[int, int, int]) -> None:
    image = load_image(_saved(Image.new(mode, (4, 3), value), tmp_path / "a.png"))
    assert (image.mode, image.size) == ("RGB", (4, 3))
    assert image.getpixel((1, 1)) == expected


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("F", 0.5, (128, 128, 128)),
        ("F", 99.6, (100, 100, 100)),
        ("I", 200, (200, 200, 200)),
        ("I", 257 * 50, (50, 50, 50)),
    ],
)
def test_tiff_modes(tmp_path: Path, mode: str, value: object, expected: tuple[int, int, int]) -> None:
    image = load_image(_saved(Image.new(mode, (4, 3), value), tmp_path / "a.tiff"))
    assert image.mode == "RGB"
    assert image.getpixel((1, 1)) == expected


def test_values_beyond_sixteen_bits_are_stretched_from_their_extremes(tmp_path: Path) -> None:
    image = Image.new("I", (3, 1))
    for x, value in enumerate((-100_000, 0, 100_000)):
        image.putpixel((x, 0), value)
    loaded = load_image(_saved(image, tmp_path / "a.tiff"))
    assert [loaded.getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]


def test_lab(tmp_path: Path) -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(Image.new("RGB", (4, 3), (200, 40, 40)), srgb, lab, outputMode="LAB")
    red, green, blue = load_image(_saved(image, tmp_path / "a.tiff")).getpixel((0, 0))
    assert abs(red - 200) < 8
    assert abs(green - 40) < 8
    assert abs(blue - 40) < 8


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 0, 128, 0])
    image.putpixel((0, 0), 0)
    loaded = load_image(_saved(image, tmp_path / "a.png", transparency=0))
    assert loaded.getpixel((0, 0)) == (255, 255, 255)
    assert loaded.getpixel((2, 2)) == (0, 128, 0)


@pytest.mark.parametrize(
    ("mode", "key", "value"), [("L", 9, 9), ("RGB", (1, 2, 3), (1, 2, 3)), ("I;16", 300, 300)]
)
def test_a_colour_marked_transparent_becomes_white(
    tmp_path: Path, mode: str, key: object, value: object
) -> None:
    image = Image.new(mode, (4, 3), 0)
    image.putpixel((0, 0), value)
    loaded = load_image(_saved(image, tmp_path / "a.png", transparency=key))
    assert loaded.getpixel((0, 0)) == (255, 255, 255)
    assert loaded.getpixel((1, 1)) == (0, 0, 0)


@pytest.mark.parametrize(("mode", "value"), [("La", (0, 0)), ("RGBa", (0, 0, 0, 0)), ("PA", (0, 0))])
def test_modes_that_files_do_not_hold_are_laid_on_white_too(mode: str, value: tuple[int, ...]) -> None:
    from toolkit.data.images import _rgb

    assert _rgb(Image.new(mode, (2, 2), value)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "RGBX"])
def test_other_colour_modes(mode: str) -> None:
    from toolkit.data.images import _rgb

    assert _rgb(Image.new("RGB", (2, 2), (255, 255, 255)).convert(mode)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("orientation", "corner"),
    [(1, (0, 0)), (2, (5, 0)), (3, (5, 2)), (4, (0, 2)), (5, (0, 0)), (6, (2, 0)), (7, (2, 5)), (8, (0, 5))],
)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, corner: tuple[int, int]) -> None:
    image = Image.new("RGB", (6, 3), "black")
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = orientation
    loaded = load_image(_saved(image, tmp_path / "a.png", exif=exif))
    assert loaded.size == ((3, 6) if orientation >= 5 else (6, 3))
    assert loaded.getpixel(corner) == (255, 255, 255)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_counts_as_upright(tmp_path: Path) -> None:
    path = _saved(Image.new("RGB", (6, 3)), tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert load_image(path).size == (6, 3)
    assert check_image(path) is None


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_first_frame_of_an_animation(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    path = tmp_path / f"a.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50, **options)
    assert load_image(path).getpixel((3, 3)) == (255, 0, 0)
    assert check_image(path) is None


def test_bytes_are_read_like_files() -> None:
    buffer = BytesIO()
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(buffer, "PNG")
    assert load_image(buffer.getvalue()).getpixel((0, 0)) == (255, 255, 255)
    assert check_image(buffer.getvalue()) is None
    assert check_image(buffer.getvalue(), full=False) is None


def test_the_loaded_picture_holds_no_open_file(tmp_path: Path) -> None:
    path = _saved(Image.new("RGB", (2, 2), "red"), tmp_path / "a.png")
    image = load_image(path)
    path.unlink()
    assert image.resize((1, 1)).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize(
    ("suffix", "options"), [("jpg", {}), ("png", {}), ("webp", {}), ("gif", {}), ("bmp", {})]
)
def test_truncated(tmp_path: Path, suffix: str, options: dict[str, object], full: bool) -> None:
    path = _saved(Image.effect_noise((64, 64), 60).convert("RGB"), tmp_path / f"a.{suffix}", **options)
    path.write_bytes(path.read_bytes()[:-700])
    problem = check_image(path, full=full)
    assert problem is not None
    assert "truncated or damaged image" in problem or "cannot be read" in problem or "not an image" in problem
    with pytest.raises(DataError, match=r"a\.\w+: (truncated or damaged|cannot be read|not an image)"):
        load_image(path)


def test_damage_in_the_middle_is_found_by_decoding(tmp_path: Path) -> None:
    path = _saved(Image.effect_noise((64, 64), 60), tmp_path / "a.png")
    data = bytearray(path.read_bytes())
    data[1000:1040] = bytes(40)
    path.write_bytes(data)
    assert check_image(path, full=False) is None
    assert check_image(path, full=True) is not None


def test_a_trailer_after_the_picture_is_no_fault(tmp_path: Path) -> None:
    path = _saved(Image.new("RGB", (9, 9)), tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes() + b"maker's trailer")
    assert check_image(path, full=False) is None
    assert check_image(path, full=True) is None


@pytest.mark.parametrize("full", [True, False])
def test_not_an_image(tmp_path: Path, full: bool) -> None:
    path = tmp_path / "a.png"
    for content in (b"", b"<html>404 not found</html>"):
        path.write_bytes(content)
        assert (
            check_image(path, full=full) == "not an image file (expected PNG, JPEG, WebP, GIF, TIFF or BMP)"
        )


def test_missing_and_folder(tmp_path: Path) -> None:
    assert check_image(tmp_path / "none.png") == "no such file"
    assert "cannot be read" in str(check_image(tmp_path))
    with pytest.raises(DataError, match=r"none\.png: no such file"):
        load_image(tmp_path / "none.png")


@pytest.mark.parametrize("side", [7072, 11_000, 20_000])
def test_over_fifty_megapixels(tmp_path: Path, side: int) -> None:
    path = _saved(Image.new("1", (side, side)), tmp_path / "a.png")
    assert side * side > MAX_PIXELS
    problem = check_image(path, full=False)
    assert problem is not None
    assert "over 50 megapixels; scale it down" in problem
    with pytest.raises(DataError, match="over 50 megapixels"):
        load_image(path)


def test_fifty_megapixels_are_accepted(tmp_path: Path) -> None:
    assert check_image(_saved(Image.new("1", (10_000, 5_000)), tmp_path / "a.png"), full=False) is None


def test_postscript_is_never_run(tmp_path: Path) -> None:
    path = _saved(Image.new("RGB", (4, 4)), tmp_path / "a.eps")
    assert check_image(path) == "an EPS document; convert it to PNG"


def test_names_with_control_characters_are_escaped(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_image(tmp_path / "a\x1b[31m\u202e.png")
    assert "\x1b" not in str(caught.value)
    assert r"a\x1b[31m\u202e.png: no such file" in str(caught.value)


def test_resolve_image(tmp_path: Path) -> None:
    assert resolve_image(tmp_path, "images/a.png") == (tmp_path / "images/a.png").resolve()
    assert resolve_image(tmp_path, "./a b.png") == (tmp_path / "a b.png").resolve()
