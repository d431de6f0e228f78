"""Draw a scene: 48 × 48 pixels, a 3 × 3 grid of cells, jittered positions, sizes and shades."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

from toolkit.data.scenes.scene import COLOURS, SHAPES, SIZES, Group, Scene

__all__ = ["IMAGE_SIZE_PX", "PlacedObject", "draw_scene", "patch_labels", "place_objects"]

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


@dataclass(frozen=True, slots=True)
class PlacedObject:
    """One object as drawn: its group's number, centre and radius in pixels, and its shade."""

    group: int
    x_px: float
    y_px: float
    radius_px: float
    rgb: tuple[int, int, int]


def place_objects(scene: Scene) -> tuple[int, list[PlacedObject]]:
    """The grey level of the background and every object; the same scene gives the same placement."""
    rng = random.Random(scene.jitter)
    grey = rng.randint(118, 142)
    placed = []
    for number, (line, group) in enumerate(zip(_lines(len(scene.groups)), scene.groups, strict=True)):
        low, high = _RADIUS_PX[group.size]
        for cross in _lines(group.count):
            radius = rng.uniform(low, high)
            slack = max(0.0, _CELL_PX / 2 - radius)
            along, across = ((cell + 0.5) * _CELL_PX + rng.uniform(-slack, slack) for cell in (line, cross))
            x, y = (along, across) if scene.layout == "row" else (across, along)
            red, green, blue = (max(0, min(255, part + rng.randint(-12, 12))) for part in _RGB[group.colour])
            placed.append(PlacedObject(number, x, y, radius, (red, green, blue)))
    return grey, placed


def draw_scene(scene: Scene) -> Image.Image:
    """An RGB picture of the scene, 48 × 48; the same scene gives the same pixels."""
    grey, placed = place_objects(scene)
    scale = _OVERSAMPLING
    image = Image.new("RGB", (IMAGE_SIZE_PX * scale, IMAGE_SIZE_PX * scale), (grey, grey, grey))
    canvas = ImageDraw.Draw(image)
    for item in placed:
        shape = scene.groups[item.group].shape
        x, y, radius = item.x_px * scale, item.y_px * scale, item.radius_px * scale
        _draw_shape(canvas, shape, x, y, radius, item.rgb, (grey,) * 3)
    return image.resize((IMAGE_SIZE_PX, IMAGE_SIZE_PX), Image.Resampling.BOX)


def patch_labels(scene: Scene, patch_px: int) -> list[tuple[int, int, int]]:
    """What each patch shows, row by row: (colour, shape, size), each 0 for background and from 1 on in order.

    A patch shows the object whose box covers most of it, if that is at least an eighth of the patch.
    """
    _, placed = place_objects(scene)
    labels = []
    cells = range(0, IMAGE_SIZE_PX, patch_px)
    for top in cells:
        for left in cells:
            areas = [_overlap(item, left, top, patch_px) for item in placed]
            best = max(range(len(placed)), key=areas.__getitem__)
            labels.append(
                _label(scene.groups[placed[best].group]) if areas[best] >= patch_px**2 / 8 else (0, 0, 0)
            )
    return labels


def _label(group: Group) -> tuple[int, int, int]:
    return 1 + COLOURS.index(group.colour), 1 + SHAPES.index(group.shape), 1 + SIZES.index(group.size)


def _overlap(item: PlacedObject, left: int, top: int, side: int) -> float:
    """Area of the object's box within a square, in square pixels."""
    width = min(item.x_px + item.radius_px, left + side) - max(item.x_px - item.radius_px, left)
    height = min(item.y_px + item.radius_px, top + side) - max(item.y_px - item.radius_px, top)
    return max(0.0, width) * max(0.0, height)


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
