#!/usr/bin/env bash
# Question   Several processes of one jax.distributed run share a folder of compiled programs. Which of
#            them are spared compiling when the run starts again?
# Expected   All: every process compiles the same program, one writes it, the next start reads it.
# Versions   jax 0.10.2, CPython 3.11, CPU, two processes on one host (gloo)
# Behaviour  Only the first. It alone writes, and the other process does not find what the first wrote:
#            at every start it compiles anew, and the first waits for it in the first collective. So
#            a cache hardly shortens the restart of a preempted run on several CPU hosts, though the
#            log of the first process, where one looks, reports hits.
# Output     second start: process 0 hits 1, process 1 hits 0; entries 1
# Fails      if the other process hits too, or the first does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  jax==0.10.2 jaxlib==0.10.2 numpy==2.3.5
cat > "$folder/check.py" <<'PYTHON'
import collections
import sys

import jax
import jax.numpy as jnp
import numpy as np

index, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.config.update("jax_compilation_cache_dir", folder)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
events = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: events.update([name]))
jax.distributed.initialize(f"127.0.0.1:{port}", 2, index)
mesh = jax.make_mesh((2,), ("all",))
rows, whole = (jax.NamedSharding(mesh, jax.P(*axes)) for axes in (("all",), ()))
x = jax.make_array_from_process_local_data(rows, np.ones((1, 4), np.float32))
jax.jit(lambda x: jnp.sin(x).sum(), out_shardings=whole)(x).block_until_ready()
print(f"process {index} hits {events['/jax/compilation_cache/cache_hits']}")
PYTHON
export JAX_PLATFORMS=cpu
for start in first second; do
  port=$("$folder/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  for index in 0 1; do
    "$folder/venv/bin/python" "$folder/check.py" "$index" "$port" "$folder/cache" \
      > "$folder/said$index" 2> "$folder/log$index" &
  done
  wait
done
entries=$(find "$folder/cache" -name '*-cache' | wc -l)
said="$(grep ^process "$folder/said0"), $(grep ^process "$folder/said1"); entries $entries"  # gloo too writes there
echo "second start: $said"
[ "$said" = "process 0 hits 1, process 1 hits 0; entries 1" ]
