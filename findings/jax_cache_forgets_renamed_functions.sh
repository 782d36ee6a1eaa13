#!/usr/bin/env bash
# Question   Does JAX's persistent compilation cache find a program again after the Python function
#            that was jitted has got another name, and nothing else changed?
# Expected   Yes: an entry's key is a hash of the computation, the compiler and the devices, and a
#            name computes nothing.
# Versions   jax 0.10.2, jaxlib 0.10.2, CPython 3.11, CPU
# Behaviour  No. The name becomes the name of the module (jit_NAME), which is part of what is hashed.
#            The same body under another name is compiled and stored once more; another function
#            that bears the old name finds the old entry. So a refactoring that renames jitted
#            functions, or turns lambdas (all called "<lambda>") into functions, makes every user
#            compile everything again, though no number changes.
# Output     same name: 0 new entries; other name: 1 new entries
# Fails      if a renamed function finds its old entry.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
cat > "$folder/check.py" <<'PYTHON'
import os
import sys

import jax
import jax.numpy as jnp

folder = sys.argv[1]
jax.config.update("jax_compilation_cache_dir", folder)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def new_entries(name):
    """Entries that a program called `name` adds to the cache."""

    def program(x):
        return jnp.sin(x) @ x.T

    program.__name__ = name
    argument = jnp.ones((8, 8))
    before = set(os.listdir(folder))
    jax.clear_caches()  # of this process; the folder stays
    jax.jit(program)(argument).block_until_ready()
    return len([f for f in set(os.listdir(folder)) - before if f.endswith("-cache")])


new_entries("first")
same, other = new_entries("first"), new_entries("second")
print(f"same name: {same} new entries; other name: {other} new entries")
sys.exit(0 if (same, other) == (0, 1) else 1)
PYTHON
mkdir "$folder/cache"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" "$folder/check.py" "$folder/cache"
