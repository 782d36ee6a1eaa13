#!/usr/bin/env bash
# Question   The same grey ramp, written as TIFF with PhotometricInterpretation "white is zero", of 8 and of
#            16 bits: does Pillow show both the same way up?
# Expected   Yes: 0 is white in both.
# Versions   pillow 13.0.0, tifffile 2026.3.3, numpy 2.4.6, CPython 3.11
# Behaviour  No. 8 bits come inverted, 0 as 255; 16 bits come as they are stored, 0 as 0: a negative. The
#            mode (L, I;16) does not say which, and neither file raises an error.
# Output     8 bits: 0 85 170 255 -> 255 170 85 0; 16 bits: 0 21845 43690 65535 -> 0 21845 43690 65535
# Fails      if both are inverted, or neither.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 tifffile==2026.3.3 numpy==2.4.6
cat > "$folder/check.py" <<'PYTHON'
import io

import numpy as np
import tifffile
from PIL import Image

inverted = []
for bits, kind in ((8, np.uint8), (16, np.uint16)):
    ramp = np.linspace(0, 2**bits - 1, 4).astype(kind)[None].repeat(4, axis=0)
    file = io.BytesIO()
    tifffile.imwrite(file, ramp, photometric="miniswhite")
    read = np.asarray(Image.open(file))
    print(f"{bits} bits:", *ramp[0], "->", *read[0], end="; " if bits == 8 else "\n")
    inverted.append(bool(read[0, 0] > read[0, -1]))
assert inverted == [True, False]
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
