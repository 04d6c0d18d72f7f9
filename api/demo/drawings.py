"""The demo's own pictures: twelve objects and eight geometric shapes, each drawn in four styles.

Every picture is built from polygons, so the demo needs no download. A seed fixes every pixel.
The demo's model was trained on drawings of `TRAINING_SEED` alone, so those of any other seed are
held out."""

import colorsys
import io
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

Points = NDArray[np.float64]  # (n, 2): x to the right, y down; an object fills [-1, 1] in both
Colour = tuple[int, int, int]

TRAINING_SEED = 0  # seen by the model: never evaluate on it


class Cell(NamedTuple):
    """A class in one style: the smallest group of drawings that can be asked for, learnt or
    forgotten.
    """

    name: str
    style: str


class Part(NamedTuple):
    """One polygon of an object; later parts hide earlier ones. Parts with the same `role` share
    a colour.
    """

    points: Points
    role: int  # 0: body, 1: second colour, 2: detail


# Outlines
# --------------------------------------------------------------------------------------------------


def _polygon(*corners: tuple[float, float]) -> Points:
    return np.array(corners, dtype=np.float64)


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return _polygon((left, top), (right, top), (right, bottom), (left, bottom))


def _arc(x: float, y: float, rx: float, ry: float, start: float = 0, stop: float = 360) -> Points:
    """Return points of an ellipse from `start` to `stop` degrees, clockwise from the right."""
    angles = np.radians(np.linspace(start, stop, 28))
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1)


def _band(x: float, y: float, radius: float, width: float, start: float, stop: float) -> Points:
    """Return the outline of a bent strip `width` wide that follows a circle."""
    outer, inner = radius + width / 2, radius - width / 2
    return np.concatenate(
        [_arc(x, y, outer, outer, start, stop), _arc(x, y, inner, inner, stop, start)]
    )


def _spikes(count: int, outer: float, inner: float) -> Points:
    """Return a star with `count` points."""
    angles = np.pi * np.arange(2 * count) / count - np.pi / 2
    radii = np.where(np.arange(2 * count) % 2 == 0, outer, inner)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


# Objects
# --------------------------------------------------------------------------------------------------


def _house(rng: Generator) -> list[Part]:
    eaves, door = rng.uniform(-0.2, 0.05), rng.uniform(-0.5, 0.1)
    parts = [Part(_box(-0.75, eaves, 0.75, 0.9), 0)]
    if rng.random() < 0.6:
        chimney = rng.choice([-0.5, 0.35])
        parts.append(Part(_box(chimney, -0.85, chimney + 0.2, eaves), 0))
    parts.append(Part(_polygon((-0.98, eaves), (rng.uniform(-0.2, 0.2), -0.95), (0.98, eaves)), 1))
    parts.append(Part(_box(door, 0.35, door + 0.32, 0.9), 2))
    parts.append(Part(_box(door + 0.45, 0.25, door + 0.7, 0.5), 2))
    return parts


def _tree(rng: Generator) -> list[Part]:
    trunk = rng.uniform(0.1, 0.17)
    parts = [Part(_box(-trunk, 0.1, trunk, 0.98), 1)]
    if rng.random() < 0.5:  # a conifer
        for top, half in ((-0.05, 0.75), (-0.5, 0.6), (-0.95, 0.42)):
            parts.append(Part(_polygon((-half, top + 0.65), (0, top), (half, top + 0.65)), 0))
        return parts
    for x, y in ((-0.38, 0.0), (0.38, 0.0), (0.0, -0.42)):
        radius = rng.uniform(0.42, 0.52)
        parts.append(Part(_arc(x, y, radius, radius), 0))
    return parts


def _fish(rng: Generator) -> list[Part]:
    belly, tail = rng.uniform(0.36, 0.5), rng.uniform(0.32, 0.45)
    return [
        Part(_polygon((0.4, 0), (0.97, -tail), (0.85, 0), (0.97, tail)), 1),
        Part(_polygon((-0.2, -belly * 0.8), (0.15, -belly - 0.25), (0.3, -belly * 0.6)), 1),
        Part(_arc(-0.2, 0, 0.75, belly), 0),
        Part(_polygon((-0.1, 0.05), (0.22, -0.1), (0.22, 0.2)), 1),
        Part(_arc(-0.62, -0.1, 0.08, 0.08), 2),
    ]


def _car(rng: Generator) -> list[Part]:
    roof, wheel = rng.uniform(-0.55, -0.4), rng.uniform(0.2, 0.27)
    hood = rng.uniform(0.5, 0.75)
    return [
        Part(_polygon((-0.7, 0), (-0.45, roof), (0.3, roof), (hood, 0)), 0),
        Part(_polygon((-0.52, -0.03), (-0.37, roof + 0.12), (-0.1, roof + 0.12), (-0.1, -0.03)), 2),
        Part(
            _polygon((0.02, -0.03), (0.02, roof + 0.12), (0.24, roof + 0.12), (hood - 0.15, -0.03)),
            2,
        ),
        Part(_polygon((-0.97, 0), (0.9, 0), (0.98, 0.15), (0.98, 0.4), (-0.97, 0.4)), 0),
        Part(_arc(-0.52, 0.42, wheel, wheel), 1),
        Part(_arc(0.55, 0.42, wheel, wheel), 1),
    ]


def _boat(rng: Generator) -> list[Part]:
    mast, keel = rng.uniform(-0.15, 0.15), rng.uniform(0.5, 0.65)
    parts = [
        Part(_box(mast - 0.04, -0.97, mast + 0.04, 0.35), 2),
        Part(_polygon((mast + 0.08, -0.9), (mast + 0.75, 0.2), (mast + 0.08, 0.2)), 1),
    ]
    if rng.random() < 0.7:
        parts.append(Part(_polygon((mast - 0.08, -0.7), (mast - 0.6, 0.2), (mast - 0.08, 0.2)), 1))
    parts.append(Part(_polygon((-0.97, 0.33), (0.97, 0.33), (keel, 0.85), (-keel, 0.85)), 0))
    return parts


def _cup(rng: Generator) -> list[Part]:
    base, top = rng.uniform(0.35, 0.55), rng.uniform(-0.65, -0.45)
    return [
        Part(_band(0.55, 0.1, rng.uniform(0.26, 0.34), 0.15, -100, 100), 0),
        Part(_polygon((-0.75, top), (0.55, top), (base, 0.8), (-base - 0.15, 0.8)), 0),
        Part(_arc(-0.1, top, 0.65, 0.15), 1),
    ]


def _umbrella(rng: Generator) -> list[Part]:
    rise, hook = rng.uniform(0.75, 0.95), rng.choice([-1, 1])
    edge = [_arc(x, 0, 0.31, -0.14, 0, 180) for x in (0.62, 0.0, -0.62)]
    return [
        Part(_box(-0.04, 0, 0.04, 0.75), 2),
        Part(_band(hook * 0.15, 0.75, 0.15, 0.08, 0, 180), 2),
        Part(np.concatenate([_arc(0, 0, 0.93, rise, 180, 360), *edge]), 0),
        Part(_polygon((0, -rise), (0.31, 0), (0.0, -0.14), (-0.31, 0)), 1),
    ]


def _mushroom(rng: Generator) -> list[Part]:
    stem, cap = rng.uniform(0.2, 0.32), rng.uniform(0.75, 0.95)
    parts = [
        Part(_polygon((-stem, 0), (stem, 0), (stem + 0.12, 0.9), (-stem - 0.12, 0.9)), 1),
        Part(_arc(0, 0.08, 0.93, cap, 180, 360), 0),
    ]
    for x, y in ((-0.5, -0.2), (0.05, -0.5), (0.45, -0.15)):
        radius = rng.uniform(0.1, 0.17)
        parts.append(Part(_arc(x, y, radius, radius), 1))
    return parts


def _key(rng: Generator) -> list[Part]:
    bow, shaft = rng.uniform(0.27, 0.36), rng.uniform(0.07, 0.1)
    parts = [Part(_box(-0.3, -shaft, 0.95, shaft), 0)]
    for x in (0.5, 0.8) if rng.random() < 0.6 else (0.45, 0.63, 0.81):
        parts.append(Part(_box(x - 0.06, 0, x + 0.07, rng.uniform(0.28, 0.42)), 0))
    parts.append(Part(_band(-0.55, 0, bow, 0.2, 0, 360), 0))
    return parts


def _flower(rng: Generator) -> list[Part]:
    count, turn = rng.integers(5, 8), rng.uniform(0, 360)
    parts = [
        Part(_box(-0.05, 0, 0.05, 0.98), 1),
        Part(_polygon((0, 0.85), (0.3, 0.45), (0.6, 0.5), (0.35, 0.75)), 1),
    ]
    for angle in np.radians(turn + 360 * np.arange(count) / count):
        parts.append(Part(_arc(0.38 * np.cos(angle), -0.35 + 0.38 * np.sin(angle), 0.24, 0.24), 0))
    parts.append(Part(_arc(0, -0.35, 0.22, 0.22), 2))
    return parts


def _cat(rng: Generator) -> list[Part]:
    ear, eye = rng.uniform(0.85, 0.98), rng.uniform(0.09, 0.14)
    parts = [Part(_polygon((s * 0.72, 0.1), (s * 0.75, -ear), (s * 0.1, -0.4)), 0) for s in (-1, 1)]
    parts.append(Part(_arc(0, 0.15, 0.8, rng.uniform(0.65, 0.75)), 0))
    parts += [Part(_arc(s * 0.32, 0.0, eye, 0.15), 2) for s in (-1, 1)]
    parts.append(Part(_polygon((-0.12, 0.28), (0.12, 0.28), (0, 0.42)), 1))
    for s in (-1, 1):
        for y in (0.35, 0.5):
            parts.append(
                Part(
                    _polygon((s * 0.3, y), (s * 0.95, y * 1.4 - 0.25), (s * 0.95, y * 1.4 - 0.2)), 2
                )
            )
    return parts


def _plane(rng: Generator) -> list[Part]:
    sweep, span = rng.uniform(0.15, 0.4), rng.uniform(0.85, 0.97)
    wings = [
        _polygon((-0.25, 0), (sweep, s * span), (sweep + 0.22, s * span), (0.25, 0))
        for s in (-1, 1)
    ]
    tail = [_polygon((0.6, 0), (0.82, s * 0.38), (0.95, s * 0.38), (0.9, 0)) for s in (-1, 1)]
    return [
        *(Part(points, 1) for points in wings + tail),
        Part(_arc(0, 0, 0.97, rng.uniform(0.13, 0.18)), 0),
        Part(_arc(-0.7, 0, 0.09, 0.07), 2),
    ]


def _triangle(rng: Generator) -> list[Part]:
    return [Part(_polygon((-0.9, 0.75), (rng.uniform(-0.25, 0.25), -0.9), (0.9, 0.75)), 0)]


def _square(rng: Generator) -> list[Part]:
    half = rng.uniform(0.65, 0.85)
    return [Part(_box(-half, -half, half, half), 0)]


def _circle(rng: Generator) -> list[Part]:
    radius = rng.uniform(0.7, 0.9)
    return [Part(_arc(0, 0, radius, radius), 0)]


def _cross(rng: Generator) -> list[Part]:
    a = rng.uniform(0.2, 0.32)
    corner = _polygon((-a, -a), (-a, -0.9), (a, -0.9))
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return [Part(np.concatenate([corner @ np.linalg.matrix_power(turn, k) for k in range(4)]), 0)]


def _star(rng: Generator) -> list[Part]:
    return [Part(_spikes(5, 0.97, rng.uniform(0.36, 0.48)), 0)]


def _heart(rng: Generator) -> list[Part]:
    t = np.linspace(0, 2 * np.pi, 40)
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
    return [Part(np.stack([0.95 * np.sin(t) ** 3, rng.uniform(0.8, 1) * y], axis=1), 0)]


def _arrow(rng: Generator) -> list[Part]:
    a, neck = rng.uniform(0.14, 0.24), rng.uniform(0.0, 0.3)
    head = ((neck, -0.6), (0.97, 0), (neck, 0.6))
    return [Part(_polygon((-0.95, -a), (neck, -a), *head, (neck, a), (-0.95, a)), 0)]


def _crescent(rng: Generator) -> list[Part]:
    depth = rng.uniform(0.3, 0.5)
    return [
        Part(
            np.concatenate([_arc(0, 0, 0.9, 0.9, 70, 290), _arc(0.31, 0, depth, 0.845, 270, 90)]), 0
        )
    ]


OBJECTS: dict[str, Callable[[Generator], list[Part]]] = {
    "house": _house,
    "tree": _tree,
    "fish": _fish,
    "car": _car,
    "boat": _boat,
    "cup": _cup,
    "umbrella": _umbrella,
    "mushroom": _mushroom,
    "key": _key,
    "flower": _flower,
    "cat": _cat,
    "airplane": _plane,
}
SHAPES: dict[str, Callable[[Generator], list[Part]]] = {
    "triangle": _triangle,
    "square": _square,
    "circle": _circle,
    "cross": _cross,
    "star": _star,
    "heart": _heart,
    "arrow": _arrow,
    "crescent": _crescent,
}
# Other words for a class that the model learnt too: to be forgotten with it.
SYNONYMS = {
    "house": ["home"],
    "car": ["automobile"],
    "boat": ["sailboat", "ship"],
    "cup": ["mug"],
    "umbrella": ["parasol"],
    "mushroom": ["toadstool"],
    "flower": ["blossom"],
    "cat": ["kitten"],
    "airplane": ["plane"],
}


# Styles
# --------------------------------------------------------------------------------------------------


def _colour(rng: Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(
        rng.random(), rng.uniform(*saturation), rng.uniform(*value)
    )
    return round(255 * red), round(255 * green), round(255 * blue)


def _texture(rng: Generator, side: int, grain: int) -> NDArray[np.float32]:
    """Return smooth noise in about [-1, 1], (side, side), with `grain` bumps along a side."""
    bumps = Image.fromarray(rng.uniform(-1, 1, (grain, grain)).astype(np.float32))
    return np.asarray(bumps.resize((side, side), Image.Resampling.BICUBIC))


def _slope(rng: Generator, side: int) -> NDArray[np.float64]:
    """Return a ramp in [-1, 1], (side, side), in a random direction: light that falls from one
    side.
    """
    angle, axis = rng.uniform(0, 2 * np.pi), np.linspace(-1, 1, side)
    ramp: NDArray[np.float64] = (
        np.cos(angle) * axis[None] + np.sin(angle) * axis[:, None]
    ) / np.sqrt(2)
    return ramp


def _outline(canvas: ImageDraw.ImageDraw, points: Points, colour: Colour | int, width: int) -> None:
    closed = [(float(x), float(y)) for x, y in np.concatenate([points, points[:2]])]
    canvas.line(closed, fill=colour, width=width, joint="curve")


def _fill(canvas: ImageDraw.ImageDraw, points: Points, colour: Colour | int) -> None:
    canvas.polygon([(float(x), float(y)) for x, y in points], fill=colour)


def _pixels(image: Image.Image) -> NDArray[np.float32]:
    return np.asarray(image, dtype=np.float32)


def _image(pixels: NDArray[np.floating]) -> Image.Image:
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _photo(parts: list[Part], rng: Generator, side: int) -> Image.Image:
    """Shaded surfaces with a shadow in front of a textured background, slightly out of focus."""
    near, far = _colour(rng, (0, 0.6), (0.3, 0.9)), _colour(rng, (0, 0.6), (0.3, 0.9))
    mix = (_slope(rng, side)[..., None] + 1) / 2
    ground = mix * near + (1 - mix) * far + rng.uniform(10, 35) * _texture(rng, side, 10)[..., None]
    silhouette = Image.new("L", (side, side))
    surface = Image.new("RGB", (side, side))
    colours = [_colour(rng, (0.3, 0.9), (0.35, 0.95)) for _ in range(2)] + [
        _colour(rng, (0, 0.4), (0.05, 0.25))
    ]
    for points, role in parts:
        _fill(ImageDraw.Draw(silhouette), points, 255)
        _fill(ImageDraw.Draw(surface), points, colours[role])
        _outline(ImageDraw.Draw(surface), points, (40, 35, 35), 1)
    light = 1 + 0.3 * _slope(rng, side) + 0.12 * _texture(rng, side, 16)
    shadow = ImageChops.offset(silhouette, int(rng.integers(-6, 7)), 5).filter(
        ImageFilter.GaussianBlur(3)
    )
    ground = ground * (1 - 0.5 * _pixels(shadow)[..., None] / 255)
    cover = _pixels(silhouette)[..., None] / 255
    picture = _image(cover * _pixels(surface) * light[..., None] + (1 - cover) * ground)
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.6, 1.4)))


def _sketch(parts: list[Part], rng: Generator, side: int) -> Image.Image:
    """Dark, shaky pencil strokes on paper, with some hatching."""
    paper, pencil = _colour(rng, (0, 0.15), (0.85, 1)), _colour(rng, (0, 0.3), (0.1, 0.4))
    picture = Image.new("RGB", (side, side), paper)
    canvas = ImageDraw.Draw(picture)
    hatched, step = int(rng.integers(0, 4)), int(rng.integers(6, 11))
    lines = Image.new("L", (side, side))
    for x in range(-side, side, step):
        ImageDraw.Draw(lines).line([(x, 0), (x + side, side)], fill=90)
    for points, role in parts:
        _fill(canvas, points, paper)
        if role == hatched:
            mask = Image.new("L", (side, side))
            _fill(ImageDraw.Draw(mask), points, 255)
            picture.paste(pencil, mask=ImageChops.multiply(mask, lines))
        for _ in range(2):
            _outline(
                canvas, points + rng.normal(0, 0.6, points.shape), pencil, int(rng.integers(1, 4))
            )
    return _image(_pixels(picture) + 5 * _texture(rng, side, side // 2)[..., None])


def _cartoon(parts: list[Part], rng: Generator, side: int) -> Image.Image:
    """Flat, bright colours with a thick black outline over a flat background with a horizon."""
    picture = Image.new("RGB", (side, side), _colour(rng, (0.1, 0.6), (0.75, 1)))
    canvas = ImageDraw.Draw(picture)
    horizon = side * rng.uniform(0.5, 1.3)
    canvas.rectangle((0, horizon, side, side * 2), fill=_colour(rng, (0.1, 0.7), (0.7, 1)))
    colours = [_colour(rng, (0.65, 1), (0.8, 1)) for _ in range(2)] + [
        _colour(rng, (0, 0.2), (0.9, 1))
    ]
    width = int(rng.integers(3, 6))
    for points, role in parts:
        _fill(canvas, points, colours[role])
        _outline(canvas, points, (12, 12, 12), width)
    return picture


def _neon(parts: list[Part], rng: Generator, side: int) -> Image.Image:
    """Glowing tubes before a dark wall."""
    wall = _image(
        np.array(_colour(rng, (0, 0.8), (0.02, 0.16))) + 6 * _texture(rng, side, 12)[..., None]
    )
    tubes = Image.new("RGB", (side, side))
    canvas = ImageDraw.Draw(tubes)
    colours = [_colour(rng, (0.4, 1), (0.9, 1)) for _ in range(3)]
    width = int(rng.integers(2, 5))
    for points, role in parts:
        _fill(canvas, points, (0, 0, 0))  # a tube behind another part is hidden
        _outline(canvas, points, colours[role], width)
    glow = _image(_pixels(tubes.filter(ImageFilter.GaussianBlur(4))) * rng.uniform(1, 2))
    return ImageChops.add(ImageChops.add(wall, glow), tubes)


STYLES: dict[str, Callable[[list[Part], Generator, int], Image.Image]] = {
    "photo": _photo,
    "sketch": _sketch,
    "cartoon": _cartoon,
    "neon": _neon,
}


# Drawings
# --------------------------------------------------------------------------------------------------


def _pose(parts: list[Part], rng: Generator, side: int) -> list[Part]:
    """Bend, flip, stretch, turn, scale and place an object; the points returned are in pixels."""
    angle, aspect = np.radians(rng.uniform(-15, 15)), rng.uniform(0.85, 1.18) ** 0.5
    flip = rng.choice([-1, 1])
    stretch = np.diag([flip * aspect, 1 / aspect])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    scale = rng.uniform(0.36, 0.44) * side
    centre = side / 2 + rng.uniform(-0.05, 0.05, 2) * side
    frequency, phase = rng.uniform(1, 3, 2), rng.uniform(0, 2 * np.pi, 2)

    def place(points: Points) -> Points:
        bent = points + 0.05 * np.sin(frequency * points[:, ::-1] + phase)
        placed: Points = bent @ stretch @ turn * scale + centre
        return placed

    return [Part(place(points), role) for points, role in parts]


def draw(name: str, style: str, rng: Generator, size: int = 64) -> Image.Image:
    """Draw one object or shape.

    Args:
        name: a key of `OBJECTS` or `SHAPES`.
        style: a key of `STYLES`.
        rng: the source of its colours, pose, size, place, background and noise.
        size: side of the square picture in pixels.

    Returns:
        An RGB image, (size, size).
    """
    side = 2 * size  # drawn twice as large, then reduced: smooth edges
    outline = (OBJECTS | SHAPES)[name]
    picture = STYLES[style](_pose(outline(rng), rng, side), rng, side).resize(
        (size, size), Image.Resampling.BOX
    )
    noise = rng.normal(0, rng.uniform(1, 6), (size, size, 3))
    return _image(_pixels(picture) + noise)


def drawings(cell: Cell, count: int, seed: int, size: int = 64) -> Iterator[Image.Image]:
    """Yield `count` drawings of one cell; the same cell, seed and size always give the same
    pictures.
    """
    names, styles = list(OBJECTS | SHAPES), list(STYLES)
    rng = np.random.default_rng([seed, names.index(cell.name), styles.index(cell.style)])
    for _ in range(count):
        yield draw(*cell, rng, size)


def cells(names: Iterable[str] = OBJECTS, styles: Iterable[str] = STYLES) -> list[Cell]:
    """Return every name in every style."""
    styles = list(styles)
    return [Cell(name, style) for name in names for style in styles]


def write_archive(path: Path, wanted: Iterable[Cell], count: int, seed: int, size: int = 64) -> int:
    """Write a zip of `<class>/<style>-<seed>-<number>.png` and return the number of pictures in it.

    For an erasure of `Cell("fish", "sketch")` the demo needs: `cells()` for evaluation, that cell
    alone to forget, every other one of `cells()` to retain, and `cells(SHAPES)` for transfer.

    Args:
        path: the file to write; the same arguments always give the same bytes.
        wanted: which classes in which styles.
        count: pictures in each cell.
        seed: any but `TRAINING_SEED` gives pictures that the model has not seen.
        size: side of a picture in pixels.
    """
    written = 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for cell in wanted:
            for number, picture in enumerate(drawings(cell, count, seed, size)):
                png = io.BytesIO()
                picture.save(png, "PNG")
                # ZipInfo leaves the time at 1980, so that the archive depends on its content alone.
                archive.writestr(
                    zipfile.ZipInfo(f"{cell.name}/{cell.style}-{seed}-{number:04d}.png"),
                    png.getvalue(),
                )
                written += 1
    return written
