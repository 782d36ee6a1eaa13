"""Pristine pictures without a download: procedural scenes, and the photos scikit-image ships.

The scenes copy what makes photographs hard to restore: occlusion at every size (dead leaves
whose radii follow a power law), 1/f spectra with correlated colours, shading, straight edges
and regular patterns. Every scene is a function of its index and size alone.
"""

import importlib.resources
from collections.abc import Iterator

import numpy as np
from PIL import Image

from diffv2iqa_jax.pp import decode

OVERSAMPLING = 2  # scenes are drawn this much larger and averaged down: smooth edges

# Hues of a colour wheel of length 1 that are common outdoors: skin and earth, sand, leaves
# (twice), sky (twice), and a flower now and then.
HUES = (0.03, 0.08, 0.12, 0.22, 0.30, 0.55, 0.60, 0.93)

# Photo -> squares to take: centre (x, y) as a part of the picture, side as a part of its
# shorter side. Text, logos, drawings, label images and out-of-focus pictures are left out.
PHOTOS = {
    "astronaut.png": ((0.45, 0.25, 0.45), (0.75, 0.60, 0.75)),
    "brick.png": ((0.30, 0.30, 0.50), (0.70, 0.70, 0.55)),
    "camera.png": ((0.45, 0.25, 0.45), (0.50, 0.50, 1.00)),
    "chelsea.png": ((0.50, 0.40, 0.60), (0.35, 0.50, 1.00)),
    "coffee.png": ((0.50, 0.50, 0.60), (0.55, 0.50, 1.00)),
    "coins.png": ((0.25, 0.30, 0.50), (0.70, 0.60, 0.70)),
    "grass.png": ((0.30, 0.30, 0.35), (0.70, 0.65, 0.60)),
    "hubble_deep_field.jpg": ((0.30, 0.35, 0.30), (0.70, 0.65, 0.45)),
    "ihc.png": ((0.30, 0.35, 0.45), (0.65, 0.60, 0.65)),
    "motorcycle_left.png": ((0.40, 0.50, 0.60), (0.60, 0.50, 1.00)),
    "retina.jpg": ((0.40, 0.45, 0.30), (0.50, 0.50, 0.65)),
    "rocket.jpg": ((0.50, 0.45, 0.50), (0.50, 0.50, 1.00)),
}


def scene(index: int, size: int) -> np.ndarray:
    """Procedural picture number `index`: (size, size, 3) uint8 RGB.

    The kinds of scene take turns, so consecutive indices hold all of them.

    Raises:
      ValueError: the index is negative or the size below 16.
    """
    if index < 0 or size < 16:
        raise ValueError(f"scene({index}, {size}): the index starts at 0, the size at 16")
    rng = np.random.Generator(np.random.PCG64([index, 1]))
    draw = KINDS[index % len(KINDS)]
    large = draw(rng, size * OVERSAMPLING)
    parts = large.reshape(size, OVERSAMPLING, size, OVERSAMPLING, 3)
    return _expose(parts.mean(axis=(1, 3)))


def photos(size: int) -> Iterator[tuple[str, np.ndarray]]:
    """Crops of the photos in scikit-image's wheel: pairs (photo's name, (size, size, 3) uint8).

    Crops of one photo carry the same name, which is therefore their group: they show the same
    things and may never be on both sides of a split.

    Raises:
      FileNotFoundError: the installed scikit-image lacks one of PHOTOS.
    """
    folder = importlib.resources.files("skimage.data")
    for file, squares in PHOTOS.items():
        picture = Image.fromarray(decode.pixels_of((folder / file).read_bytes()))
        for x, y, part in squares:
            side = part * min(picture.size)
            left = np.clip(x * picture.width - side / 2, 0, picture.width - side)
            top = np.clip(y * picture.height - side / 2, 0, picture.height - side)
            box = (left, top, left + side, top + side)
            crop = picture.resize((size, size), Image.Resampling.LANCZOS, box=box)
            yield file.split(".")[0], np.array(crop)


def _expose(image: np.ndarray) -> np.ndarray:
    """Stretches the luminance to most of the range, with one gain for all channels."""
    low, high = np.percentile(image.mean(axis=2), (1, 99))
    gain = min(0.86 / max(high - low, 1e-6), 2.0)
    image = 0.5 + (image - (low + high) / 2) * gain
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _colours(rng: np.random.Generator, n: int) -> np.ndarray:
    """`n` colours that go together, (n, 3): hues near one or two of HUES, mostly muted."""
    hue = rng.choice(HUES, 2)[rng.integers(2, size=n)] + rng.normal(0, 0.045, n)
    saturation = rng.beta(1.5, 2.8, n)
    value = 0.10 + 0.88 * rng.beta(1.1, 1.1, n)
    wheel = (np.array([5, 3, 1]) + 6 * hue[:, None]) % 6
    depth = np.clip(np.minimum(wheel, 4 - wheel), 0, 1)
    return value[:, None] * (1 - saturation[:, None] * depth)


def _grid(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the pixels, x and y in [-1, 1], (n, n) each."""
    y, x = np.mgrid[:n, :n] * (2 / (n - 1)) - 1
    return x, y


def _field(rng: np.random.Generator, n: int, slope: float, stretch: float = 1.0) -> np.ndarray:
    """Random field (n, n) of amplitude 1 / frequency^slope: mean 0, standard deviation 1."""
    u, v = np.meshgrid(np.fft.rfftfreq(n), np.fft.fftfreq(n))
    angle = rng.uniform(0, np.pi)
    along = u * np.cos(angle) + v * np.sin(angle)
    across = v * np.cos(angle) - u * np.sin(angle)
    frequency = np.maximum(np.hypot(along * stretch, across / stretch), 1 / n)
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((n, n))) / frequency**slope, (n, n))
    return (field - field.mean()) / field.std()


def _ramp(rng: np.random.Generator, n: int, colours: np.ndarray | None = None) -> np.ndarray:
    """Two colours (of those given) blended across the picture in some direction, (n, n, 3)."""
    x, y = _grid(n)
    angle = rng.uniform(0, 2 * np.pi)
    t = 0.5 + 0.35 * (x * np.cos(angle) + y * np.sin(angle))
    first, second = _colours(rng, 2) if colours is None else rng.choice(colours, 2)
    return first + np.clip(t, 0, 1)[..., None] * (second - first)


def _texture(rng: np.random.Generator, n: int) -> np.ndarray:
    """A 1/f texture; its colour channels share most of their variation."""
    light = _field(rng, n, rng.uniform(0.8, 1.4), rng.choice([1.0, 1.0, 1.8, 2.5]))
    first, second, tint = _colours(rng, 3)
    t = 1 / (1 + np.exp(-1.8 * light))
    image = first + t[..., None] * (second - first)
    tinge = _field(rng, n, 1.2)[..., None] * (tint - tint.mean())
    return image + 0.2 * tinge + 0.06 * _field(rng, n, 0.6)[..., None]


def _leaf(
    rng: np.random.Generator,
    canvas: np.ndarray,
    radius: float,
    colour: np.ndarray,
    detail: np.ndarray,
) -> None:
    """Paints one shaded and textured ellipse or rectangle onto the canvas."""
    n = len(canvas)
    centre = rng.uniform(-0.05 * n, 1.05 * n, 2)
    low = np.clip(np.floor(centre - 1.5 * radius), 0, n).astype(int)
    high = np.clip(np.ceil(centre + 1.5 * radius), 0, n).astype(int)
    angle, aspect = rng.uniform(0, np.pi), rng.uniform(0.55, 1.0)
    square, contrast = rng.uniform() < 0.2, rng.choice([0.0, 0.06, 0.14])
    slope = rng.uniform(-0.35, 0.35, 2)
    if (high <= low).any():
        return
    dy, dx = np.mgrid[low[0] : high[0], low[1] : high[1]] - centre[:, None, None]
    u = (dx * np.cos(angle) + dy * np.sin(angle)) / radius
    v = (dy * np.cos(angle) - dx * np.sin(angle)) / (radius * aspect)
    distance = np.maximum(abs(u), abs(v)) if square else np.hypot(u, v)
    cover = np.clip((1 - distance) * radius * aspect + 0.5, 0, 1)[..., None]
    part = np.s_[low[0] : high[0], low[1] : high[1]]
    shade = 1 + (dx * slope[0] + dy * slope[1]) / radius + contrast * detail[part]
    canvas[part] += cover * (colour * shade[..., None] - canvas[part])


def _leaves(
    rng: np.random.Generator, n: int, canvas: np.ndarray | None = None, count: int = 260
) -> np.ndarray:
    """Dead leaves: things that hide one another, their number falling as radius^-3."""
    canvas = _texture(rng, n) if canvas is None else canvas.copy()
    detail = _field(rng, n, rng.uniform(0.5, 1.1))
    colours = _colours(rng, 12)
    smallest, largest = n / 36, n / 3
    falling = rng.uniform(largest**-2, smallest**-2, count)
    for radius in falling**-0.5:
        _leaf(rng, canvas, radius, rng.choice(colours) * rng.uniform(0.75, 1.15), detail)
    return canvas


def _polygons(rng: np.random.Generator, n: int) -> np.ndarray:
    """Flat and shaded polygons with straight, sharp edges."""
    x, y = _grid(n)
    colours = _colours(rng, 8)
    canvas = _ramp(rng, n, colours)
    for size in np.geomspace(0.9, 0.12, 14):
        corners = rng.integers(3, 7)
        turn = rng.uniform(0, 2 * np.pi) + np.arange(corners) * 2 * np.pi / corners
        turn = (turn + rng.normal(0, 0.15, corners))[:, None, None]
        cx, cy = rng.uniform(-1, 1, 2)
        inside = size * 0.6 - ((x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)).max(axis=0)
        cover = np.clip(inside * n / 2, 0, 1)[..., None]
        canvas += cover * (_ramp(rng, n, colours) - canvas)
    return canvas


def _gratings(rng: np.random.Generator, n: int) -> np.ndarray:
    """Cells filled with stripes of different direction, period and sharpness."""
    x, y = _grid(n)
    cells = rng.integers(4, 9)
    sites = rng.uniform(-1, 1, (cells, 2))
    cell = np.argmin([np.hypot(x - a, y - b) for a, b in sites], axis=0)
    canvas, colours = np.zeros((n, n, 3)), _colours(rng, 6)
    for number in range(cells):
        angle, period = rng.uniform(0, np.pi), rng.uniform(0.06, 0.4)
        chirp, sharpness = rng.uniform(0, 0.3), rng.uniform(0.5, 4.0)
        along = x * np.cos(angle) + y * np.sin(angle)
        wave = np.tanh(sharpness * np.sin(2 * np.pi / period * (along + chirp * along**2)))
        t = 0.5 + 0.5 * wave / np.tanh(sharpness)
        first, second = rng.choice(colours, 2, replace=False)
        canvas[cell == number] = (first + t[..., None] * (second - first))[cell == number]
    light = 1 + 0.25 * _field(rng, n, 2.0)
    return canvas * light[..., None]


def _landscape(rng: np.random.Generator, n: int) -> np.ndarray:
    """A clouded sky and ridges, each nearer one darker and richer in texture."""
    x, y = _grid(n)
    sky = np.array([0.35, 0.55, 0.85]) + rng.normal(0, 0.08, 3)
    glow = np.array([0.95, 0.8, 0.65]) + rng.normal(0, 0.08, 3)
    t = np.clip((y + 1) / 1.4, 0, 1)[..., None]
    canvas = sky + t * (glow - sky)
    clouds = 1 / (1 + np.exp(-3 * (_field(rng, n, 1.3, 1.6) - 0.4)))
    canvas += 0.7 * clouds[..., None] * (np.array([0.97, 0.96, 0.95]) - canvas)
    ridges = int(rng.integers(3, 6))
    ground, horizon = _colours(rng, 1)[0] * 0.5, rng.uniform(-0.5, 0.2)
    for i in range(ridges):
        near = (i + 1) / ridges
        line = horizon + (0.9 - horizon) * i / ridges
        line = line + rng.uniform(0.05, 0.18) * _field(rng, n, rng.uniform(1.6, 2.4))[0]
        cover = np.clip((y - line) * n / 2, 0, 1)[..., None]
        rough = _field(rng, n, 0.8, 1.3)[..., None] * (0.3 * near)
        colour = (glow * 0.7 + near * (ground - glow * 0.7)) * (1 + rough)
        canvas += cover * (colour - canvas)
    return canvas


def _mixture(rng: np.random.Generator, n: int) -> np.ndarray:
    """A few large things in front of another kind of scene."""
    kinds = (_landscape, _texture, _gratings, _ramp)
    behind = kinds[rng.integers(len(kinds))](rng, n)
    return _leaves(rng, n, behind, count=40)


KINDS = (_leaves, _landscape, _texture, _mixture, _polygons, _leaves, _gratings, _mixture)
