#!/usr/bin/env bash
# Question   A photo says by EXIF's orientation tag that it lies on its side (6). Does Image.open give
#            its pixels as they are stored, with the tag to apply them by, whatever the format?
# Expected   Yes: turning is what ImageOps.exif_transpose is for.
# Versions   pillow 13.0.0, CPython 3.11
# Behaviour  No: TIFF comes out turned. Its sides are exchanged already in `size` when it is opened; the
#            tag is still there until the pixels are loaded, then gone. JPEG, PNG and WebP come out as
#            stored, tag kept. So a program that reads the tag first and turns the pixels by it turns a
#            TIFF twice, and one that wants the pixels as they lie in the file, as sets of rated images
#            do, gets another picture of a TIFF than of the same JPEG.
# Output     TIFF opened (20, 40) 6, loaded (20, 40) None | JPEG opened (40, 20) 6, loaded (40, 20) 6 | ...
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
    before = image.size, image.getexif().get(ORIENTATION)
    image.load()
    opened[format] = before, (image.size, image.getexif().get(ORIENTATION))
for format, (before, after) in opened.items():
    print(f"{format} opened {before[0]} {before[1]}, loaded {after[0]} {after[1]}", end=" | ")
print()
stored, turned = ((40, 20), 6), (20, 40)
others = [states == (stored, stored) for format, states in opened.items() if format != "TIFF"]
sys.exit(0 if opened["TIFF"] == ((turned, 6), (turned, None)) and all(others) else 1)
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
