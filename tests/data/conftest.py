"""A small release of a public set, and a folder of photos."""

import pytest

from diffv2iqa_jax.data.sets import catalog
from tests import twins


@pytest.fixture(scope="module")
def small():
    """KADID's constants for two references of 125 images."""
    return catalog.SETS["kadid10k"]._replace(images=250, references=2)


@pytest.fixture
def release(tmp_path, monkeypatch, small):
    """A small KADID with real pictures, and a catalog that expects it."""
    monkeypatch.setitem(catalog.SETS, "kadid10k", small)
    root = tmp_path / "kadid10k"
    lines = ["dist_img,ref_img,dmos,var"]
    for r in (1, 2):
        twins.picture(root / "images" / f"I{r:02d}.png", r, (12, 8))
        for n in range(125):
            name = f"I{r:02d}_{n // 5 + 1:02d}_{n % 5 + 1:02d}.png"
            twins.picture(root / "images" / name, 1000 * r + n, (12, 8))
            lines.append(f"{name},I{r:02d}.png,{1 + n / 31:.3f},0.5")
    (root / "dmos.csv").write_text("\n".join(lines))
    return root


@pytest.fixture
def photos(tmp_path):
    for i in range(6):
        twins.picture(tmp_path / "photos" / f"p{i}.png", i, (10, 9))
    return tmp_path / "photos"
