"""The configurations, as `from diffv2iqa_jax.configs import restore`; their files are in configs/.

This file is of a checkout alone: it leads to the folder at the top, so that a bare checkout, an
editable install and the tests import what stands there, with nothing to build. A wheel has that
folder itself in this place, by `package-dir` in pyproject.toml. A symbolic link would do both at
once, but turns into a text file in archives and on systems that know none.
"""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[2] / "configs")]
