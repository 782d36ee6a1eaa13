"""Fits a vision transformer's weights to another image size or patch size."""

import jax
import numpy as np


def positions(embedding_1ND: np.ndarray, side: int) -> np.ndarray:
    """Position embeddings of a square grid -> of a grid with `side` rows: (1, 1 + side^2, D).

    The grid is resampled as an image, by bicubic interpolation (antialiased where it shrinks);
    the class token's embedding, which comes first, is kept.

    Raises:
      ValueError: the embeddings are not a class token's and those of a square grid.
    """
    count, width = embedding_1ND.shape[1:]
    old = round((count - 1) ** 0.5)
    if old**2 != count - 1:
        raise ValueError(f"{count} position embeddings are not a class token's and a square grid's")
    token, grid = embedding_1ND[:, :1], embedding_1ND[0, 1:].reshape(old, old, width)
    grid = np.asarray(jax.image.resize(grid, (side, side, width), "cubic"))
    return np.concatenate([token, grid.reshape(1, side**2, width)], axis=1)


def patches(kernel_HWIO: np.ndarray, patch: int) -> np.ndarray:
    """The patch embedding's kernel for patches of another size.

    FlexiViT's rule (Beyer et al. 2023, section 3.4): with B the matrix of bilinear resizing
    from old patches x to new ones, the kernel w' = pinv(B^T) w gives <B x, w'> = <x, w> for
    every x if patches grow, and in the least-squares sense if they shrink.
    """
    old = kernel_HWIO.shape[0]
    basis = np.eye(old**2, dtype=np.float32).reshape(old**2, old, old)
    resized = jax.image.resize(basis, (old**2, patch, patch), "bilinear", antialias=False)
    transposed = np.asarray(resized, np.float64).reshape(old**2, patch**2)  # B^T
    flat = kernel_HWIO.reshape(old**2, -1).astype(np.float64)
    new = np.linalg.pinv(transposed) @ flat
    return new.reshape(patch, patch, *kernel_HWIO.shape[2:]).astype(np.float32)
