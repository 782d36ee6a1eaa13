"""Draws charts as inline SVG, and images and heat maps as data URIs.

Nothing here reads a run's folder; matplotlib is imported only to draw. Charts take the text
colour of the page around them, so they follow its light and dark mode. SVG charts hold no text
of the run itself (names, types): the page holds it, escaped.
"""

import base64
import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from diffv2iqa_jax import storage
from diffv2iqa_jax.evaluation.correlation import Fit

FIGURES = (".png", ".svg", ".pdf", ".jpg", ".jpeg", ".webp")  # what `save` writes
# Without the time and the library's version: the same run draws the same bytes.
NO_METADATA = {
    "png": {"Software": None},
    "svg": dict.fromkeys(("Creator", "Date", "Format", "Type")),
    "pdf": dict.fromkeys(("Creator", "Producer", "CreationDate")),
}
Axes = Any  # matplotlib's, which is imported only to draw
INK = "#010203"  # a colour that nothing else has; the SVG gets the page's colour in its place
ACCENT = "#3b6fe0"
COLOURS = "#3b6fe0 #e8743b #2a9d74 #c2427f #8a63d2 #d9a521 #23a6c4 #8c6d5a #d64545 #7a9b2e".split()
POINTS_AS_PATHS = 3000  # a scatter of more points is one embedded bitmap, or the page gets slow
LARGE, MEDIUM = (5.6, 4.2), (4.0, 2.7)  # sizes of a chart in inches; smaller means larger text
SMALL = 128  # pixels; an image with no longer side is always embedded without loss


def palette(names: list[str]) -> dict[str, str]:
    """A colour for each name: COLOURS, or shades of a rainbow for more names than these."""
    if len(names) <= len(COLOURS):
        return dict(zip(names, COLOURS, strict=False))
    from matplotlib import colormaps, colors

    shades = np.linspace(0.04, 0.96, len(names))
    return {n: colors.to_hex(colormaps["turbo"](s)) for n, s in zip(names, shades, strict=True)}


def data_uri(image_HWC: np.ndarray, *, exact: bool = True) -> str:
    """A uint8 RGB image as a data URI: PNG, or JPEG where it is large and not `exact`."""
    exact = exact or max(image_HWC.shape[:2]) <= SMALL
    stream = io.BytesIO()
    image = Image.fromarray(image_HWC)
    image.save(stream, "PNG", optimize=True) if exact else image.save(stream, "JPEG", quality=90)
    kind = "png" if exact else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def heat_map(
    image_HWC: np.ndarray, map_HW: np.ndarray, span: tuple[float, float], colours: str
) -> np.ndarray:
    """Draws the map in colour over the grey image, its cells as rectangles: (H, W, 3) uint8.

    Args:
      span: (low, high), the values at the ends of the colours.
      colours: name of a matplotlib colour map.
    """
    from matplotlib import colormaps

    height, width = image_HWC.shape[:2]
    rows = np.arange(height) * map_HW.shape[0] // height
    columns = np.arange(width) * map_HW.shape[1] // width
    low, high = span
    share = (np.nan_to_num(map_HW)[rows][:, columns] - low) / max(high - low, 1e-12)
    colour = colormaps[colours](np.clip(share, 0, 1))[..., :3] * 255
    grey = image_HWC.astype(np.float32).mean(-1, keepdims=True)
    return (0.4 * grey + 0.6 * colour).astype(np.uint8)


def gradient(colours: str) -> str:
    """A matplotlib colour map as a CSS gradient."""
    from matplotlib import colormaps, colors

    stops = [colors.to_hex(colormaps[colours](share)) for share in np.linspace(0, 1, 9)]
    return f"linear-gradient(90deg,{','.join(stops)})"


def scatter(
    score: ArrayLike,
    mos: ArrayLike,
    colours: list[str],
    fit: Fit | None,
    *,
    size: tuple[float, float],
    quality: str,
) -> str:
    """Score against quality, one point an image, with the fitted curve; inline SVG.

    Args:
      quality: what the axis of the labels is called.
    """

    def draw(ax: Axes) -> None:
        _scatter(ax, score, mos, colours, fit, quality)

    return _svg(draw, size, "score against quality")


def curve(values: dict[int, float]) -> str:
    """A number of the log against the step, with its running mean if it is long; inline SVG."""
    return _svg(lambda ax: _curve(ax, values), MEDIUM, "learning curve")


def boxes(values: list[list[float]], label: str) -> str:
    """A box and dots for each list of values, numbered from 1; inline SVG."""

    def draw(ax: Axes) -> None:
        positions = np.arange(1, len(values) + 1)
        ink = ax.xaxis.label.get_color()
        lines = dict.fromkeys(("boxprops", "whiskerprops", "capprops"), {"color": ink})
        ax.boxplot(values, positions=positions, widths=0.5, showfliers=False,
                   medianprops={"color": ACCENT, "lw": 2}, **lines)  # fmt: skip
        for x, dots in zip(positions, values, strict=True):
            # A little to the left or right, so that equal values show side by side.
            aside = 0.12 * np.random.default_rng(0).uniform(-1, 1, len(dots))
            ax.scatter(x + aside, dots, s=14, color=COLOURS[(x - 1) % len(COLOURS)], zorder=3)
        ax.set_xticks(positions, [str(x) for x in positions])
        ax.set_ylabel(label)

    return _svg(draw, MEDIUM, f"{label} of every run")


def headline(strips: list[tuple[str, list]], columns: list[str], draw: Callable, path: str) -> None:
    """Writes one wide picture: strips of images at the left, one chart at the right.

    Args:
      strips: rows of (name, [uint8 image or None]); may be empty.
      columns: heading of each column of images.
      draw: draws the chart on an axes; from `scatter_on` or `gains_on`.
      path: the file to write, see `save`.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_style("#1c2430")):
        rows = max(len(strips), 3)
        wide = 1.28 * len(columns) if strips else 0.0
        figure = Figure(figsize=(wide + 5.6, 0.35 + 1.25 * rows), dpi=160, facecolor="white")
        if strips:
            left, right = figure.subfigures(1, 2, width_ratios=(wide, 5.6))
            _strips(left, strips, columns)
        else:
            right = figure
        ax = right.subplots()
        right.subplots_adjust(left=0.13, right=0.97, top=0.93, bottom=0.12)
        draw(ax)
        save(figure, path)


def save(figure: Any, path: str) -> None:
    """Writes a figure as its name's ending says, one of FIGURES; complete or not at all.

    Raises:
      UsageError: another ending, or no folder to write to.
      OSError: it cannot be written.
    """
    import matplotlib

    kind = storage.ending(path, FIGURES)[1:]
    # Letters of an SVG as shapes, since no page has chosen its font; of a PDF as TrueType, which
    # publishers ask for.
    letters = {"svg.fonttype": "path", "svg.hashsalt": "figure", "pdf.fonttype": 42}
    photo = {"pil_kwargs": {"quality": 90}} if kind in ("jpg", "jpeg", "webp") else {}
    with matplotlib.rc_context(letters), storage.replacing(path) as unfinished:
        figure.savefig(unfinished, format=kind, metadata=NO_METADATA.get(kind), **photo)


def scatter_on(
    score: ArrayLike,
    mos: ArrayLike,
    types: list[str],
    colours: dict[str, str],
    fit: Fit | None,
    title: str,
    quality: str,
) -> Callable[[Axes], None]:
    """Draws the chart of `scatter` with a legend and a title, for `headline`.

    Args:
      types: the distortion of each image.
      colours: a colour for each type.
      quality: what the axis of the labels is called.
    """

    def draw(ax: Axes) -> None:
        _scatter(ax, score, mos, [colours.get(type, ACCENT) for type in types], fit, quality)
        ax.set_title(title, fontsize=11, loc="left", parse_math=False)
        if 0 < len(colours) <= len(COLOURS):
            _legend(ax, colours)

    return draw


def gains_on(rows: list[tuple[str, float, float]], title: str) -> Callable[[Axes], None]:
    """Draws PSNR before and after restoration, rows (name, before, after), for `headline`."""

    def draw(ax: Axes) -> None:
        for y, (name, before, after) in enumerate(rows):
            ax.plot([before, after], [y, y], color="#b6bfcc", lw=3, zorder=1)
            ax.annotate(
                name,
                (min(before, after), y),
                xytext=(-3, 6),
                textcoords="offset points",
                fontsize=9 if len(rows) <= 12 else 6,
                parse_math=False,
            )
        _, before, after = zip(*rows, strict=True)
        y = np.arange(len(rows))
        ax.scatter(before, y, color="#8a94a3", s=42, label="distorted", zorder=2)
        ax.scatter(after, y, color=ACCENT, s=42, label="restored", zorder=2)
        ax.set(yticks=[], ylim=(len(rows) - 0.5, -0.8))
        ax.set_xlabel("PSNR in dB")
        ax.set_title(title, fontsize=11, loc="left", parse_math=False)
        ax.legend(frameon=False)

    return draw


def _style(ink: str) -> dict:
    """matplotlib's settings for lines and text of this colour."""
    faint = {"axes.grid": True, "grid.alpha": 0.16, "grid.color": ink, "grid.linewidth": 0.7}
    inks = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    return faint | dict.fromkeys(inks, ink) | {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "axes.axisbelow": True,
        "svg.fonttype": "none",  # text stays text, in the page's font
        "svg.hashsalt": "report",  # the same run draws the same bytes
        "path.simplify": True,
    }  # fmt: skip


def _svg(draw: Callable[[Axes], None], size: tuple[float, float], title: str) -> str:
    """What `draw` puts on an axes, as an SVG element as wide as its container."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_style(INK)):
        figure = Figure(figsize=size, layout="constrained", dpi=144)
        draw(figure.subplots())
        stream = io.StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=no_metadata)
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    return text.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def _scatter(
    ax: Axes,
    score: ArrayLike,
    mos: ArrayLike,
    colours: list[str],
    fit: Fit | None,
    quality: str,
) -> None:
    score, mos = np.asarray(score, np.float64), np.asarray(mos, np.float64)
    finite = np.isfinite(score) & np.isfinite(mos)
    # In random order, so that no type lies on top of all others.
    order = np.random.default_rng(0).permutation(np.flatnonzero(finite))
    many = len(order) > 400
    ax.scatter(
        score[order],
        mos[order],
        s=9 if many else 20,
        c=[colours[i] for i in order],
        alpha=0.55 if many else 0.75,
        linewidths=0,
        rasterized=len(order) > POINTS_AS_PATHS,
    )
    if fit is not None and fit.kind != "none" and len(order):
        x = np.linspace(score[finite].min(), score[finite].max(), 200)
        ax.plot(x, fit(x), color=ax.xaxis.label.get_color(), lw=2)
    ax.set_xlabel("predicted score")
    ax.set_ylabel(quality, parse_math=False)


def _curve(ax: Axes, values: dict[int, float]) -> None:
    pairs = sorted((s, v) for s, v in values.items() if np.isfinite(v))
    step, value = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    noisy = len(value) > 40
    ax.plot(step, value, color=ACCENT, lw=1.0 if noisy else 1.8, alpha=0.35 if noisy else 1.0,
            marker=None if noisy else "o", ms=3.5)  # fmt: skip
    if noisy:
        width = len(value) // 20
        kernel = np.ones(width) / width
        ax.plot(np.convolve(step, kernel, "valid"), np.convolve(value, kernel, "valid"),
                color=ACCENT, lw=2)  # fmt: skip
    if len(value) and value.min() > 0 and value.max() > 30 * value.min():
        ax.set_yscale("log")
    elif len(value) and value.min() == value.max():
        ax.set_ylim(*sorted((0, 1.6 * value[0] or 1)))
    ax.yaxis.set_major_formatter(lambda v, _: f"{v:g}")
    ax.set_xlabel("step")
    ax.margins(x=0.02)


def _strips(figure: Any, strips: list[tuple[str, list]], columns: list[str]) -> None:
    """Draws rows of images on a figure, with their names and the columns' headings."""
    axes = figure.subplots(len(strips), len(columns), squeeze=False)
    figure.subplots_adjust(0.065, 0.01, 0.995, 0.935, wspace=0.03, hspace=0.03)
    for row, (name, images) in zip(axes, strips, strict=True):
        row[0].set_ylabel(name.replace(" level", "\nlevel"), fontsize=9, parse_math=False)
        for ax, image in zip(row, images, strict=True):
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            ax.spines[:].set_visible(False)
            if image is not None:
                ax.imshow(image, interpolation="nearest" if len(image) <= SMALL else "antialiased")
    for ax, heading in zip(axes[0], columns, strict=True):
        ax.set_title(heading, fontsize=11)


def _legend(ax: Axes, colours: dict[str, str]) -> None:
    from matplotlib.lines import Line2D

    marks = [Line2D([], [], ls="", marker="o", ms=5, color=c) for c in colours.values()]
    legend = ax.legend(marks, ["" for _ in marks], frameon=False, fontsize=9, handletextpad=0.2)
    for text, name in zip(legend.get_texts(), colours, strict=True):
        text.set_parse_math(False)  # a type may hold a dollar sign
        text.set_text(name)
