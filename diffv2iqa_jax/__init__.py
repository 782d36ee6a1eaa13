"""DiffV2IQA: no-reference image quality assessment by diffusion restoration, in JAX/Flax."""

__version__ = "0.1.0"

_SCORING = {
    "load": "scoring.scorer",
    "Scorer": "scoring.scorer",
    "Score": "scoring.scorer",
    "ImageError": "errors",
}


def __getattr__(name: str):
    """What scores pictures, imported when it is first asked for: JAX takes a second to start."""
    if name not in _SCORING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_SCORING[name]}"), name)
