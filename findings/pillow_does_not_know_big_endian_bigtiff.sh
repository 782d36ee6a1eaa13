#!/usr/bin/env bash
# Question   BigTIFF (64-bit offsets) comes in both byte orders. Does Pillow open both?
# Expected   Yes, as it does for classic TIFF: it reads BigTIFF since 9.
# Versions   pillow 13.0.0, tifffile 2026.3.3, numpy 2.4.6, CPython 3.11
# Behaviour  Only the little-endian one; of the other it says that it cannot identify the file, as of no
#            picture at all. Scanners of slides and satellites write it.
# Output     classic < opens, classic > opens, big < opens, big > cannot identify
# Fails      if all four open.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 tifffile==2026.3.3 numpy==2.4.6
cat > "$folder/check.py" <<'PYTHON'
import io

import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

picture = np.arange(64, dtype=np.uint8).reshape(8, 8)
said = []
for big in (False, True):
    for order in "<>":
        file = io.BytesIO()
        tifffile.imwrite(file, picture, bigtiff=big, byteorder=order)
        file.seek(0)
        assert np.array_equal(tifffile.imread(file), picture)
        try:
            opens = np.array_equal(np.asarray(Image.open(file)), picture)
        except UnidentifiedImageError:
            opens = False
        said.append(f"{'big' if big else 'classic'} {order} {'opens' if opens else 'cannot identify'}")
print(", ".join(said))
assert [text.endswith("opens") for text in said] == [True, True, True, False]
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
