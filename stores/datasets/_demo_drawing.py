"""Frames of a scene as pictures, drawn twice as large and reduced, so that edges are smooth."""

import random

from PIL import Image, ImageDraw

from vlpipe.stores.datasets._demo_scene import (
    COLORS,
    SHAPES,
    Figure,
    Placement,
    Scene,
    placement,
    pose,
)

_OUTLINE = (38, 38, 60)
_WHITE = (255, 255, 255)
_OVERSAMPLING = 2  # of frames
_SPRITE_PX = 192  # a figure is drawn once at this size and then moved, turned and stretched
_SPRITE_SPAN = 1.2  # side of the sprite in units of the figure's box
_SKY_GROUND = {
    "meadow": ((176, 222, 250), (172, 214, 128)),
    "beach": ((200, 232, 250), (242, 220, 168)),
    "snow": ((196, 204, 218), (246, 248, 252)),
    "moon": ((44, 44, 84), (146, 146, 158)),
}

Color = tuple[int, int, int]


class Painter:
    """Draws the frames of one scene. Scenery and figures are drawn once and reused."""

    def __init__(self, scene: Scene, width_px: int, height_px: int) -> None:
        self._scene = scene
        self._size = (width_px * _OVERSAMPLING, height_px * _OVERSAMPLING)
        rng = random.Random(scene.decor_seed)
        self._scenery = _scenery(scene.place, self._size, rng)
        self._fly = (rng.random(), rng.uniform(0.05, 0.2), rng.choice((-1, 1)))
        self._sprites = [_sprite(figure) for figure in scene.figures]

    def frame(self, time_s: float) -> Image.Image:
        """The RGB picture at a moment."""
        picture = self._scenery.copy()
        for number, figure in enumerate(self._scene.figures):
            at = pose(self._scene, number, time_s)
            if at.is_visible:
                _paste(picture, self._sprites[number], placement(figure, at, *self._size))
        self._draw_fly(picture, time_s)
        return picture.reduce(_OVERSAMPLING)

    def _draw_fly(self, picture: Image.Image, time_s: float) -> None:
        """A fly that crosses the sky: no two frames in a row are equal, even if nothing happens.

        Encoders of GIFs join equal frames, and clips with long rests would then have fewer frames.
        """
        start, height, direction = self._fly
        x = (start + direction * 0.3 * time_s) % 1.0 * self._size[0]
        y = height * self._size[1]
        radius = 1.5 * _OVERSAMPLING
        color = _WHITE if self._scene.place == "moon" else _OUTLINE
        ImageDraw.Draw(picture).ellipse((x - radius, y - radius, x + radius, y + radius), color)


def _scenery(place: str, size: tuple[int, int], rng: random.Random) -> Image.Image:
    width, height = size
    sky, ground = _SKY_GROUND[place]
    picture = Image.new("RGB", size, sky)
    draw = ImageDraw.Draw(picture)
    horizon = rng.uniform(0.66, 0.72) * height
    if place == "beach":
        draw.rectangle((0, 0.5 * height, width, horizon), (92, 168, 222))
    draw.rectangle((0, horizon, width, height), ground)
    if place in ("meadow", "beach"):
        x, y, radius = rng.uniform(0.1, 0.9) * width, 0.14 * height, 0.08 * height
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), (255, 240, 170))
    for _ in range(5):
        x, y = rng.uniform(0.02, 0.98) * width, rng.uniform(0.04, 0.4) * height
        unit = height / 48
        if place == "moon":
            draw.ellipse((x, y, x + unit, y + unit), (230, 230, 250))
            y = rng.uniform(0.75, 0.95) * height
            draw.ellipse((x, y, x + 6 * unit, y + 2 * unit), (122, 122, 136))
        elif place == "snow":
            draw.polygon(
                (
                    (x, horizon - 11 * unit),
                    (x + 4 * unit, horizon),
                    (x - 4 * unit, horizon),
                ),
                (150, 176, 168),
            )
        elif place == "meadow":
            y = rng.uniform(0.75, 0.97) * height
            draw.ellipse((x, y, x + 1.5 * unit, y + 1.5 * unit), (252, 250, 230))
    return picture


def _sprite(figure: Figure) -> tuple[Image.Image, Image.Image]:
    """A figure standing upright: its picture and the mask of its outline.

    The lower third is darker, so that turning shows even on a circle; the eyes are large enough to
    be seen at a figure height of 30 pixels.
    """
    side = _SPRITE_PX * 2
    color = COLORS[figure.color]
    picture = Image.new("RGB", (side, side), _OUTLINE)
    draw = ImageDraw.Draw(picture)
    corners = [_to_sprite(x, y, side) for x, y in SHAPES[figure.shape]]
    mask = Image.new("L", (side, side), 0)
    ImageDraw.Draw(mask).polygon(corners, 255)

    draw.rectangle((0, 0, side, side), color)
    _draw_pattern(draw, figure.pattern, side)
    shade = Image.new("RGB", (side, side), _darker(color))
    top = round(_to_sprite(0, 0.2, side)[1])
    picture.paste(shade.crop((0, 0, side, side - top)), (0, top))
    _draw_face(draw, side)
    draw.line([*corners, corners[0], corners[1]], _OUTLINE, round(side * 0.06), joint="curve")
    return picture.reduce(2), mask.reduce(2)


def _to_sprite(x: float, y: float, side: int) -> tuple[float, float]:
    return ((x / _SPRITE_SPAN + 0.5) * side, (y / _SPRITE_SPAN + 0.5) * side)


def _draw_pattern(draw: ImageDraw.ImageDraw, pattern: str, side: int) -> None:
    if pattern == "striped":
        for left in (-0.5, -0.27, -0.04, 0.19, 0.42):
            x0, y0 = _to_sprite(left, -0.6, side)
            x1, y1 = _to_sprite(left + 0.11, 0.6, side)
            draw.rectangle((x0, y0, x1, y1), _WHITE)
    elif pattern == "dotted":
        for row in range(5):
            for column in range(5):
                x = -0.48 + 0.24 * column + 0.12 * (row % 2)
                _disc(draw, x, -0.5 + 0.18 * row, 0.055, _WHITE, side)


def _draw_face(draw: ImageDraw.ImageDraw, side: int) -> None:
    for x in (-0.12, 0.12):
        _disc(draw, x, -0.04, 0.105, _OUTLINE, side)
        _disc(draw, x, -0.04, 0.085, _WHITE, side)
        _disc(draw, x, -0.02, 0.045, _OUTLINE, side)


def _disc(
    draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, color: Color, side: int
) -> None:
    draw.ellipse(
        (*_to_sprite(x - radius, y - radius, side), *_to_sprite(x + radius, y + radius, side)),
        color,
    )


def _darker(color: Color) -> Color:
    red, green, blue = color
    return (red * 11 // 20, green * 11 // 20, blue * 11 // 20)


def _paste(
    picture: Image.Image, sprite: tuple[Image.Image, Image.Image], placed: Placement
) -> None:
    """Draws a sprite at its placement, resampled by the inverse of the placement's map."""
    half = _SPRITE_SPAN / 2
    corners = [placed.to_px(x, y) for x in (-half, half) for y in (-half, half)]
    left, top = int(min(x for x, _ in corners)) - 1, int(min(y for _, y in corners)) - 1
    right, bottom = int(max(x for x, _ in corners)) + 2, int(max(y for _, y in corners)) + 2
    (a, b), (c, d) = placed.axis_x, placed.axis_y
    area = a * d - b * c
    scale = _SPRITE_PX / _SPRITE_SPAN
    # sprite = (unit box coordinates) * scale + middle, unit box = inverse axes * (pixel - centre)
    xx, xy, yx, yy = (d / area * scale, -c / area * scale, -b / area * scale, a / area * scale)
    x0, y0 = left - placed.center[0], top - placed.center[1]
    middle = _SPRITE_PX / 2
    inverse = (
        *(xx, xy, xx * x0 + xy * y0 + middle),
        *(yx, yy, yx * x0 + yy * y0 + middle),
    )
    size = (right - left, bottom - top)
    figure, mask = (
        layer.transform(size, Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR)
        for layer in sprite
    )
    picture.paste(figure, (left, top), mask)
