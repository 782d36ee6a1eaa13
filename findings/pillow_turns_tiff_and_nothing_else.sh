#!/usr/bin/env bash
# Question   A photo says by EXIF's orientation tag that it lies on its side (6). Does Image.open give
#            its pixels as they are stored, with the tag to apply them by, whatever the format?
# Expected   Yes: turning is what ImageOps.exif_transpose is for.
# Versions   pillow 13.0.0, CPython 3.11
# Behaviour  No: TIFF comes out turned, its sides exchanged already in `size` before anything is
#            loaded, and the tag is gone. JPEG, PNG and WebP come out as stored, tag kept. Who turns by
#            the tag gets all of them right; who compares or stores pixels as they lie in the file,
#            as sets of rated images do, gets another picture of a TIFF than of the same JPEG, and
#            cannot see from the opened image that it was turned.
# Output     TIFF (20, 40) tag None | JPEG (40, 20) tag 6 | PNG (40, 20) tag 6 | WEBP (40, 20) tag 6
# Fails      if TIFF is no longer turned, or another format is.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 2> "$folder/log" \
  || { cat "$folder/log"; exit 1; }
cat > "$folder/check.py" <<'PYTHON'
import io
import sys

from PIL import Image

ORIENTATION = 0x0112
exif = Image.Exif()
exif[ORIENTATION] = 6
opened = {}
for format in ("TIFF", "JPEG", "PNG", "WEBP"):
    stream = io.BytesIO()
    Image.new("RGB", (40, 20)).save(stream, format, exif=exif)
    image = Image.open(stream)
    opened[format] = image.size, image.getexif().get(ORIENTATION)
print(" | ".join(f"{format} {size} tag {tag}" for format, (size, tag) in opened.items()))
others = {value for format, value in opened.items() if format != "TIFF"}
sys.exit(0 if opened["TIFF"] == ((20, 40), None) and others == {((40, 20), 6)} else 1)
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
