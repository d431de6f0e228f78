"""Draw a scene: 48 × 48 pixels, a 3 × 3 grid of cells, jittered positions, sizes and shades."""

from __future__ import annotations

import random

from PIL import Image, ImageDraw

from toolkit.data.scenes.scene import Scene

__all__ = ["IMAGE_SIZE_PX", "draw_scene"]

IMAGE_SIZE_PX = 48
_OVERSAMPLING = 4
_CELL_PX = IMAGE_SIZE_PX / 3
_RADIUS_PX = {"small": (3.4, 4.2), "large": (6.4, 7.4)}
_RGB = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 225),
    "yellow": (240, 220, 50),
    "purple": (150, 50, 190),
    "orange": (245, 140, 30),
    "white": (248, 248, 248),
    "black": (20, 20, 20),
}


def draw_scene(scene: Scene, *, size_px: int = IMAGE_SIZE_PX) -> Image.Image:
    """An RGB picture of the scene; the same scene gives the same pixels."""
    rng = random.Random(scene.jitter)
    scale = _OVERSAMPLING
    grey = rng.randint(118, 142)
    image = Image.new("RGB", (IMAGE_SIZE_PX * scale, IMAGE_SIZE_PX * scale), (grey, grey, grey))
    canvas = ImageDraw.Draw(image)
    lines = _lines(len(scene.groups))
    for line, group in zip(lines, scene.groups, strict=True):
        low, high = _RADIUS_PX[group.size]
        for cross in _lines(group.count):
            radius = rng.uniform(low, high)
            slack = max(0.0, _CELL_PX / 2 - radius)
            along, across = ((cell + 0.5) * _CELL_PX + rng.uniform(-slack, slack) for cell in (line, cross))
            x, y = (along, across) if scene.layout == "row" else (across, along)
            colour = tuple(max(0, min(255, part + rng.randint(-12, 12))) for part in _RGB[group.colour])
            _draw_shape(canvas, group.shape, x * scale, y * scale, radius * scale, colour, (grey,) * 3)
    return image.resize(
        (size_px, size_px), Image.Resampling.BOX if size_px == IMAGE_SIZE_PX else Image.Resampling.BICUBIC
    )


def _lines(number: int) -> tuple[float, ...]:
    """Which of the three lines of cells are taken: the middle one, the outer ones, or all."""
    return {1: (1.0,), 2: (0.25, 1.75), 3: (0.0, 1.0, 2.0)}[number]


def _draw_shape(
    canvas: ImageDraw.ImageDraw,
    shape: str,
    x: float,
    y: float,
    radius: float,
    colour: tuple[int, ...],
    background: tuple[int, ...],
) -> None:
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        canvas.ellipse(box, fill=colour)
    elif shape == "square":
        side = radius * 0.9
        canvas.rectangle((x - side, y - side, x + side, y + side), fill=colour)
    elif shape == "triangle":
        canvas.polygon([(x, y - radius), (x + radius, y + radius), (x - radius, y + radius)], fill=colour)
    elif shape == "cross":
        arm = radius * 0.32
        canvas.rectangle((x - radius, y - arm, x + radius, y + arm), fill=colour)
        canvas.rectangle((x - arm, y - radius, x + arm, y + radius), fill=colour)
    else:
        hole = radius * 0.52
        canvas.ellipse(box, fill=colour)
        canvas.ellipse((x - hole, y - hole, x + hole, y + hole), fill=background)
