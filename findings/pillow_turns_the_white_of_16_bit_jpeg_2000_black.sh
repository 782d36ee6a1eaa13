#!/usr/bin/env bash
# Question   RGB of 16 bits in JPEG 2000, losslessly coded: what does Pillow make of its brightest values?
# Expected   255 for all from 65280 on, or 16 bits of them; no error, since it opens the file as RGB.
# Versions   pillow 13.0.0, imagecodecs 2026.3.6, numpy 2.4.6, CPython 3.11
# Behaviour  The lower half of 255 * 256 to 65535 gives 255, the upper half 0: rounding to 8 bits runs over
#            into 256, whose low byte is kept. White paper turns black, dot by dot, without a word.
# Output     65280 65331 65382 65433 65484 65535 -> 255 255 255 0 0 0
# Fails      if they are all 255.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 imagecodecs==2026.3.6 numpy==2.4.6
cat > "$folder/check.py" <<'PYTHON'
import io

import imagecodecs
import numpy as np
from PIL import Image

values = np.linspace(65280, 65535, 6).astype(np.uint16)
picture = np.repeat(np.repeat(values[None, :, None], 8, axis=0), 3, axis=2)
encoded = imagecodecs.jpeg2k_encode(picture, level=0)
assert np.array_equal(imagecodecs.jpeg2k_decode(encoded), picture)
read = np.asarray(Image.open(io.BytesIO(encoded)))[0, :, 0]
print(*values, "->", *read)
assert read.min() == 0
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
