#!/usr/bin/env bash
# Question   Two processes on CPUs (collectives by gloo) run the same first program with a sum over both. The
#            second comes to it 45 seconds later, as one that compiles without a cache does. Does the first
#            wait?
# Expected   Yes: initialize() waits 300 seconds for a process, and collectives wait for their peers.
# Versions   jax 0.10.2, CPython 3.11, CPU
# Behaviour  The first collective connects the processes, and for that it waits 30 seconds, whatever
#            initialization_timeout says; then the first process fails.
# Output     45 s late: GetKeyValue() timed out; 10 s late: 2.0
# Fails      if the late process is waited for, or one that is 10 seconds late is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
cat > "$folder/check.py" <<'PYTHON'
import os
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

port, index, late = map(int, sys.argv[1:])
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"localhost:{port}", 2, index, initialization_timeout=300)
mesh = jax.make_mesh((2,), ("all",))
sharding = jax.NamedSharding(mesh, jax.P("all"))
ones = jax.make_array_from_callback((2,), sharding, lambda _: np.ones(1, np.float32))
total = jax.jit(jnp.sum, out_shardings=jax.NamedSharding(mesh, jax.P()))
if index:
    time.sleep(late)
try:
    result = float(total(ones))
except Exception as error:
    result = "GetKeyValue() timed out" if "GetKeyValue() timed out" in str(error) else error
print("result:", result, flush=True)
os._exit(0)  # the orderly way waits for a process that has failed
PYTHON
export JAX_PLATFORMS=cpu
run() { # SECONDS: how late the second process is
  local port
  port=$("$folder/venv/bin/python" -c "import socket; s = socket.socket(); s.bind(('localhost', 0)); print(s.getsockname()[1])")
  timeout 150 "$folder/venv/bin/python" "$folder/check.py" "$port" 1 "$1" > "$folder/second" 2>&1 &
  timeout 150 "$folder/venv/bin/python" "$folder/check.py" "$port" 0 "$1" 2> "$folder/log" | sed -n 's/^result: //p'
  wait || true
}
late=$(run 45)
soon=$(run 10)
echo "45 s late: $late; 10 s late: $soon"
[ "$late" = "GetKeyValue() timed out" ] && [ "$soon" = 2.0 ]
