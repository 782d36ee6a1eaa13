#!/usr/bin/env bash
# Question   Is an Orbax checkpoint a function of what is saved, so that a copy can be handed on
#            without telling anything about the machine that wrote it?
# Expected   Yes: arrays, their metadata and a marker that the write is complete.
# Versions   orbax-checkpoint 0.12.8, jax 0.10.2, numpy 2.3.5, CPython 3.11, CPU
# Behaviour  No. CheckpointManager writes a file commit_success.txt into the step and into each of its
#            items, whose text names the absolute path it was written to: the writer's home, user
#            and project names travel with every published checkpoint. None of these files is needed
#            to restore: without them the arrays come back.
# Output     names the path: run/1/commit_success.txt run/1/weights/commit_success.txt; without: 3.0
# Fails      if no file names the path, or if restoring needs these files.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  orbax-checkpoint==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.3.5
cat > "$folder/check.py" <<'PYTHON'
import pathlib
import sys

import numpy as np
import orbax.checkpoint as ocp

home = pathlib.Path(sys.argv[1])
arrays = {"a": np.arange(4.0)}
manager = ocp.CheckpointManager(home / "run")
manager.save(1, args=ocp.args.Composite(weights=ocp.args.StandardSave(arrays)))
manager.wait_until_finished()
manager.close()

telling = sorted(
    path for path in home.rglob("*") if path.is_file() and str(home).encode() in path.read_bytes()
)
for path in telling:
    path.unlink()
restored = ocp.StandardCheckpointer().restore(home / "run" / "1" / "weights", arrays)
names = " ".join(str(path.relative_to(home)) for path in telling)
print(f"names the path: {names}; without: {float(restored['a'][3])}")
sys.exit(0 if telling and restored["a"][3] == 3 else 1)
PYTHON
mkdir "$folder/home"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" "$folder/check.py" "$folder/home" 2> "$folder/log" || { cat "$folder/log"; exit 1; }
