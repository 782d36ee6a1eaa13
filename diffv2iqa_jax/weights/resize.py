"""Fits a vision transformer's weights to another image size or patch size."""

import jax
import numpy as np


def positions(embedding_1ND: np.ndarray, side: int) -> np.ndarray:
    """Resizes position embeddings to a grid of `side` rows and columns: (1, 1 + side^2, D).

    Resamples the grid as an image, by bicubic interpolation (antialiased where it shrinks), and
    keeps the class token's embedding, which comes first.

    Raises:
      ValueError: the embeddings are not a class token's and those of a square grid.
    """
    count, width = embedding_1ND.shape[1:]
    old_side = round((count - 1) ** 0.5)
    if old_side**2 != count - 1:
        raise ValueError(f"{count} position embeddings are not a class token's and a square grid's")
    token_11D = embedding_1ND[:, :1]
    grid_HWD = embedding_1ND[0, 1:].reshape(old_side, old_side, width)
    grid_HWD = np.asarray(jax.image.resize(grid_HWD, (side, side, width), "cubic"))
    return np.concatenate([token_11D, grid_HWD.reshape(1, side**2, width)], axis=1)


# How patches are thought to be resized: (method, antialiased) of `jax.image.resize`.
FILTERS = {"bilinear": ("bilinear", False), "bicubic": ("cubic", True)}


def patches(kernel_HWIO: np.ndarray, patch: int, filter: str = "bilinear") -> np.ndarray:
    """Resizes the patch embedding's kernel to patches of `patch` x `patch` pixels.

    FlexiViT's rule (Beyer et al. 2023, section 3.4): with B the matrix of resizing from old
    patches x to new ones, the kernel w' = pinv(B^T) w gives <B x, w'> = <x, w> for every x if
    patches grow, and in the least-squares sense if they shrink.

    Args:
      filter: of B: "bilinear", as in the paper, or "bicubic" (antialiased), as timm's
        `resample_patch_embed`.

    Raises:
      ValueError: another filter.
    """
    if filter not in FILTERS:
        raise ValueError(f"patch_filter {filter!r}: known are {list(FILTERS)}")
    method, antialias = FILTERS[filter]
    old_patch = kernel_HWIO.shape[0]
    count = old_patch**2
    # B^T row by row: each unit patch, resized.
    basis = np.eye(count, dtype=np.float32).reshape(count, old_patch, old_patch)
    resized = jax.image.resize(basis, (count, patch, patch), method, antialias=antialias)
    b_transposed = np.asarray(resized, np.float64).reshape(count, patch**2)
    kernel = kernel_HWIO.reshape(count, -1).astype(np.float64)
    new_kernel = np.linalg.pinv(b_transposed) @ kernel
    return new_kernel.reshape(patch, patch, *kernel_HWIO.shape[2:]).astype(np.float32)
