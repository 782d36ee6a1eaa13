"""Draws what scores follow: one picture, to be looked at.

  python -m diffv2iqa_jax.tools.pictures levels PHOTO -o levels.png
  python -m diffv2iqa_jax.tools.pictures strip PHOTO -o strip.png --distort white_noise:4 --half
  python -m diffv2iqa_jax.tools.pictures flow PHOTO -o flow.png

`levels` shows a photo at levels 0 to 5 of some distortions of `distortions.kadid` with its scores
beneath; `strip` a photo, its restoration y_0 and the map of quality; `flow` how a score comes
about, with the states of a chain of three steps. PHOTO is a file, or scene:N for the package's own
procedural scene number N. `levels` and `strip` take any weights that `diffv2iqa_jax.load` takes.
"""

import argparse
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from diffv2iqa_jax import pixels, rng, storage
from diffv2iqa_jax.data.sets import scenes
from diffv2iqa_jax.distortions import kadid
from diffv2iqa_jax.distortions.names import LEVELS, TYPES
from diffv2iqa_jax.errors import ImageError, WeightsError, one_line
from diffv2iqa_jax.pp import decode
from diffv2iqa_jax.reporting import charts
from diffv2iqa_jax.scoring import maps, predictor, scorer
from diffv2iqa_jax.tasks import restorers
from diffv2iqa_jax.types import Weights

SHOWN = ("gaussian_blur", "white_noise", "jpeg")
SCENE = 288  # pixels each way of scene:N
THUMBNAIL = 144  # pixels each way of what `flow` restores
PART = 208  # pixels each way of what `levels` shows of a copy
INK, FAINT, ACCENT, BOX = "#1c2430", "#6b7685", "#3b6fe0", "#eef2fb"
STATES = {"steps": 3, "keep": (1, 2)}  # of the chain that `flow` shows


def read(name: str) -> np.ndarray:
    """A picture file, or scene:N, as uint8 RGB (H, W, 3).

    Raises:
      ImageError: the file cannot be read.
      ValueError: N is no number from 0 on.
    """
    kind, colon, number = name.partition(":")
    if kind == "scene" and colon:
        if not number.isdigit():
            raise ValueError(f"{name}: scene:N needs a number from 0 on")
        return scenes.scene(int(number), SCENE)
    return decode.read(name).image_HWC


def copies(image_HWC: np.ndarray, name: str, seed: int = 0) -> list[np.ndarray]:
    """A uint8 picture at levels 0 to 5 of one distortion.

    They are those of `tools.monotone` with this seed, but for a grey level of rounding.
    """
    distortion = kadid.FUNCTIONS[name]
    # `distort` compiles all types; this compiles one, with the key that `monotone` has for it.
    number = jnp.array([TYPES.index(name)])
    key = rng.per_image(rng.stream(seed, "monotone"), number)[0]

    @jax.jit
    def distorted(level: jax.Array) -> jax.Array:
        x_HWC = pixels.to_float(jnp.asarray(image_HWC)) / 2 + 0.5
        y_HWC = jnp.clip(distortion(key, x_HWC, level), 0.0, 1.0)
        return pixels.to_uint8(2 * y_HWC - 1)

    return [image_HWC] + [np.asarray(distorted(jnp.int32(level))) for level in LEVELS[1:]]


def levels(
    image_HWC: np.ndarray,
    types: tuple[str, ...],
    score: scorer.Scorer,
    path: str,
    *,
    part: int = PART,
    seed: int = 0,
) -> np.ndarray:
    """Draws rows of types and columns of levels, each copy's score beneath it.

    A copy is scored whole; its middle is shown, pixel by pixel.

    Returns:
      The scores (types, levels).

    Raises:
      ValueError: a type that `distortions.kadid` does not have, or a part of no pixels.
    """
    unknown = [name for name in types if name not in TYPES]
    if unknown:
        raise ValueError(f"--types {unknown}: known are {list(TYPES)}")
    if part < 1:
        raise ValueError(f"--part {part}: must be at least 1")
    copies_TL = [copies(image_HWC, name, seed) for name in types]
    scores_TL = np.array([[float(s) for s in score(row)] for row in copies_TL])
    with _style():
        figure, axes = _axes(len(types), len(LEVELS))
        for name, row, scores, cells in zip(types, copies_TL, scores_TL, axes, strict=True):
            cells[0].set_ylabel(name.replace("_", " "), fontsize=12)
            for ax, copy_HWC, value in zip(cells, row, scores, strict=True):
                ax.imshow(_middle(copy_HWC, part), interpolation="nearest")
                ax.set_xlabel(f"{value:.3f}", fontsize=13, labelpad=4)
        for level, ax in enumerate(axes[0]):
            ax.set_title(f"level {level}" if level else "as it is", fontsize=11)
        charts.save(figure, path)
    return scores_TL


def strip(image_HWC: np.ndarray, score: scorer.Scorer, path: str) -> float:
    """Draws the picture that the net looks at, its restored views and the map of quality.

    Returns:
      The score.
    """
    judged = score(image_HWC, details=True)
    panels_HWC = maps.strip(judged)
    shown_H = (panels_HWC != maps.WHITE).any((1, 2))  # rows before the first crop are white
    panels_HWC = panels_HWC[np.argmax(shown_H) :]
    names = ["photo", "restored, $y_0$"]
    names += [f"noisy, $y_{{t{k}}}$" for k in range(1, judged.views.shape[1] - 1)]
    names = names[: judged.views.shape[1]] + (["quality"] if judged.branches else [])
    width = (panels_HWC.shape[1] + maps.GAP) / len(names)
    wide = 2.9 * len(names)  # inches, of all panels
    high = wide * panels_HWC.shape[0] / panels_HWC.shape[1]
    size = (wide + 0.75, high + 0.45)
    with _style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=size, dpi=110, facecolor="white")
        ax = figure.add_axes((0.1 / size[0], 0.08 / size[1], wide / size[0], high / size[1]))
        ax.imshow(panels_HWC, interpolation="antialiased")
        ax.axis("off")
        for place, name in enumerate(names):
            ax.text((place + 0.5) * width, -8, name, ha="center", va="bottom", fontsize=12)
        if judged.branches:
            _colour_bar(figure, size, high)
        charts.save(figure, path)
    return float(judged)


def flow(image_HWC: np.ndarray, weights: str, path: str) -> None:
    """Draws the way from a picture to its score, with real states of the weights' restorer.

    Args:
      weights: of kind "diffv2iqa", whose restorer is a diffusion; its chain is asked for three
        steps, so that there are two states on the way.

    Raises:
      ValueError: the weights have no such restorer.
    """
    states = _states(image_HWC, weights)
    with _style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10.9, 4.6), dpi=120, facecolor="white")
        ax = figure.add_axes((0, 0, 1, 1), xlim=(0, 124), ylim=(0, 52))
        ax.axis("off")
        _draw_restoration(ax, states)
        _draw_branches(ax)
        charts.save(figure, path)


def _states(image_HWC: np.ndarray, weights: str) -> list[np.ndarray]:
    """x_dis, y_0 and the two states on the way, each uint8."""
    loaded = predictor.load(weights)
    settings = loaded.card["settings"]["restorer"] if loaded.card else {}
    if settings.get("kind") != "diffusion":
        raise ValueError(f"{weights}: has no restorer by diffusion of its own")
    settings = {**settings, "sampling": {**settings["sampling"], **STATES}}
    trees = (loaded.weights.params, loaded.weights.stats)
    params, stats = (tree.get("restorer", {}) for tree in trees)
    batch = {"image": jnp.asarray(image_HWC)[None], "content": jnp.zeros(1, jnp.uint32)}
    views = jax.jit(restorers.make(**settings).views)(Weights(params, stats), batch)
    return list(np.asarray(pixels.to_uint8(views.image_BVHWC))[0])


def _draw_restoration(ax: Any, states: list[np.ndarray]) -> None:
    """Stage 1, in the left half: the picture, the net, and the states of its chain."""
    x_dis, y_0, *noisy = states
    _picture(ax, x_dis, (2, 20), r"$x_{dis}$, the photo")
    _box(ax, (19, 20), (15, 12), "conditional\ndiffusion", "U-Net (SR3)")
    _arrow(ax, (15.4, 26), (18.6, 26))
    names = ("$y_0$, restored", "$y_{t1}$, still noisy", "$y_{t2}$, noisier")
    images = (y_0, *sorted(noisy, key=_roughness))
    for image, bottom, name in zip(images, (35.2, 19.2, 3.2), names, strict=True):
        _picture(ax, image, (41, bottom), name)
        _arrow(ax, (34.4, 26), (40.6, bottom + 6))
    ax.text(18, 48, "stage 1: restore", ha="center", fontsize=12, color=ACCENT, weight="bold")


def _draw_branches(ax: Any) -> None:
    """Stage 2, in the right half: both branches look at all four views."""
    ax.plot([57, 57], [2, 50], color=FAINT, lw=0.8, ls=(0, (4, 4)))
    ax.text(91, 48, "stage 2: judge", ha="center", fontsize=12, color=ACCENT, weight="bold")
    ax.text(59, 26, "all four views", ha="left", va="center", fontsize=10, color=FAINT)
    rows = {
        36: ("guidance", "ViT features", "+ which view it is", "TAB → Swin", "$S_1$"),
        14: ("difference", "ResNet features", "of each view", "differences as\nq, k, v", "$S_2$"),
    }
    for middle, (branch, features, of, compared, score) in rows.items():
        upper = middle > 26
        ax.text(63, middle + 6.4, branch, fontsize=11, weight="bold")
        _arrow(ax, (60, 27.5 if upper else 24.5), (62.6, middle - 2 if upper else middle + 2))
        _box(ax, (63, middle - 5), (17, 10), features, of)
        _arrow(ax, (80.4, middle), (83.6, middle))
        _box(ax, (84, middle - 5), (15, 10), compared, "")
        _arrow(ax, (99.4, middle), (104.6, 28 if upper else 24), score)
    _box(ax, (105, 20), (17, 12), "quality", r"$S_1 + w_2\,S_2$")


def _picture(ax: Any, image_HWC: np.ndarray, corner: tuple[float, float], name: str) -> None:
    left, bottom = corner
    ax.imshow(image_HWC, extent=(left, left + 13, bottom, bottom + 13), aspect="auto")
    ax.text(left + 6.5, bottom - 0.5, name, ha="center", va="top", fontsize=10.5)
    ax.set(xlim=(0, 124), ylim=(0, 52))


def _box(ax: Any, corner: tuple, size: tuple, text: str, below: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    rounded = "round,pad=0,rounding_size=1.2"
    ax.add_patch(FancyBboxPatch(corner, *size, boxstyle=rounded, fc=BOX, ec=ACCENT, lw=1.2))
    x, y = corner[0] + size[0] / 2, corner[1] + size[1] / 2
    ax.text(x, y + (1.7 if below else 0), text, ha="center", va="center", fontsize=11)
    ax.text(x, y - 2.6, below, ha="center", va="center", fontsize=10, color=FAINT)


def _arrow(ax: Any, start: tuple, end: tuple, text: str = "") -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.3})
    if text:
        up = 2 if start[1] > end[1] else -2
        middle = ((start[0] + end[0]) / 2 + 1.2, (start[1] + end[1]) / 2 + up)
        ax.text(*middle, text, ha="center", va="center", fontsize=12)


def _axes(rows: int, columns: int) -> tuple[Any, Any]:
    """A figure of square pictures with room for a number beneath each."""
    from matplotlib.figure import Figure

    size = (1.62 * columns + 0.45, 1.9 * rows + 0.35)
    figure = Figure(figsize=size, dpi=110, facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(0.4 / size[0], 0.32 / size[1], 1 - 0.05 / size[0], 1 - 0.3 / size[1],
                           wspace=0.04, hspace=0.2)  # fmt: skip
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    return figure, axes


def _colour_bar(figure: Any, size: tuple[float, float], high: float) -> None:
    """What the colours of the map stand for."""
    ax = figure.add_axes((1 - 0.55 / size[0], 0.08 / size[1], 0.13 / size[0], high / size[1]))
    shares = np.linspace(0, 1, 256)
    stops = np.linspace(0, 1, len(maps.COLOURS))
    colours = np.stack([np.interp(shares, stops, maps.COLOURS[:, c]) for c in range(3)], -1)
    ax.imshow(colours[:, None].astype(np.uint8), origin="lower", aspect="auto", extent=(0, 1, 0, 1))
    ax.yaxis.tick_right()
    ax.set(xticks=[])
    ax.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    ax.tick_params(length=0, labelsize=10)
    ax.spines[:].set_visible(False)


def _style() -> Any:
    import matplotlib

    inks = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")
    return matplotlib.rc_context(dict.fromkeys(inks, INK) | {"axes.grid": False})


def _middle(image_HWC: np.ndarray, side: int) -> np.ndarray:
    height, width = image_HWC.shape[:2]
    top, left = max(0, height - side) // 2, max(0, width - side) // 2
    return image_HWC[top : top + side, left : left + side]


def _thumbnail(image_HWC: np.ndarray) -> np.ndarray:
    """The middle square, scaled down to THUMBNAIL pixels: noise stays to be seen on it."""
    square = Image.fromarray(_middle(image_HWC, min(image_HWC.shape[:2])))
    return np.asarray(square.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS))


def _roughness(image_HWC: np.ndarray) -> float:
    """Mean step between neighbours: the noisier of two states has more of it."""
    return float(np.abs(np.diff(image_HWC.astype(np.int16), axis=1)).mean())


def _distorted(image_HWC: np.ndarray, text: str, seed: int, *, half: bool) -> np.ndarray:
    """The picture, or its right half, at TYPE:LEVEL; as it is for ""."""
    if not text:
        return image_HWC
    name, _, level = text.partition(":")
    if name not in TYPES or level not in map(str, LEVELS):
        raise ValueError(
            f"--distort {text}: must be TYPE:LEVEL, a level 0 to {LEVELS[-1]} and a type of"
            f" {list(TYPES)}"
        )
    copy_HWC = copies(image_HWC, name, seed)[int(level)]
    middle = image_HWC.shape[1] // 2 if half else 0
    return np.concatenate([image_HWC[:, :middle], copy_HWC[:, middle:]], axis=1)


def parser() -> argparse.ArgumentParser:
    first, _, rest = __doc__.partition("\n")
    out = argparse.ArgumentParser(
        prog="pictures",
        description=first,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out.add_argument("what", choices=("levels", "strip", "flow"))
    out.add_argument("photo", metavar="PHOTO", help="a file, or scene:N")
    out.add_argument("-o", "--output", required=True, metavar="FILE", help=" ".join(charts.FIGURES))
    out.add_argument("--weights", default="starter", help="as diffv2iqa_jax.load takes it")
    out.add_argument("--types", nargs="+", default=SHOWN, help="rows of `levels`")
    out.add_argument("--part", type=int, default=PART, help="pixels that `levels` shows, each way")
    out.add_argument("--distort", default="", metavar="TYPE:LEVEL", help="first, for the others")
    out.add_argument("--half", action="store_true", help="--distort the right half only")
    out.add_argument("--seed", type=int, default=0, help="of noise, directions and places")
    return out


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with one line on stderr."""
    o = parser().parse_args(argv)
    try:
        storage.ending(o.output, charts.FIGURES)
        image_HWC = read(o.photo)
        if o.what == "flow":
            image_HWC = _thumbnail(image_HWC)
        image_HWC = _distorted(image_HWC, o.distort, o.seed, half=o.half)
        if o.what == "flow":
            flow(image_HWC, o.weights, o.output)
            line = ""
        elif o.what == "strip":
            line = f", score {strip(image_HWC, scorer.load(o.weights), o.output):.3f}"
        else:
            score = scorer.load(o.weights)
            drawn = levels(image_HWC, tuple(o.types), score, o.output, part=o.part, seed=o.seed)
            falling = int((np.diff(drawn) < 0).all(axis=1).sum())
            line = f", {falling} of {len(drawn)} rows fall throughout"
    except (WeightsError, ImageError, ValueError, OSError) as error:
        print(f"pictures: {one_line(error)}", file=sys.stderr)
        return 2
    print(f"{o.output}: written{line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
