#!/usr/bin/env bash
# Question   An animated JPEG XL of three plain frames (10, 120, 240), opened by Pillow through
#            pillow-jxl-plugin: which frame is it, and does it say that there are others?
# Expected   The first, with is_animated, as of GIF, APNG, WebP and AVIF; the pixels decoded when asked for.
# Versions   pillow-jxl-plugin 1.3.8, pillow 13.0.0, imagecodecs 2026.3.6, numpy 2.4.6, CPython 3.11
# Behaviour  The last one, and is_animated is False: nothing tells an animation from a picture. What a page
#            shows first is not what is read.
# Output     opened at 240, is_animated False
# Fails      if it opens at another frame, or says that it is animated.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow-jxl-plugin==1.3.8 pillow==13.0.0 imagecodecs==2026.3.6 numpy==2.4.6
cat > "$folder/check.py" <<'PYTHON'
import io

import imagecodecs
import numpy as np
import pillow_jxl  # registers with Pillow
from PIL import Image

frames = np.stack([np.full((16, 16, 3), grey, np.uint8) for grey in (10, 120, 240)])
encoded = imagecodecs.jpegxl_encode(frames)
assert np.array_equal(imagecodecs.jpegxl_decode(encoded), frames)
with Image.open(io.BytesIO(encoded)) as image:
    grey, animated = int(np.asarray(image)[0, 0, 0]), getattr(image, "is_animated", False)
print(f"opened at {grey}, is_animated {animated}")
assert (grey, animated) == (240, False)
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
