import pytest

from diffv2iqa_jax.data import reading
from diffv2iqa_jax.data.sets import registry


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("data"))
    registry.prepare("builtin/tiny", folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder):
    """96 pictures of 32x32 pixels: 6 references, 16 types."""
    return reading.load("builtin/tiny", tiny_folder)
