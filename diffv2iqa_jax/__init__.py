"""DiffV2IQA: no-reference image quality assessment by diffusion restoration, in JAX/Flax."""

__version__ = "0.1.0"
