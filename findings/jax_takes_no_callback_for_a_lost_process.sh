#!/usr/bin/env bash
# Question   A job scheduler goes by exit codes. Can a program choose its own for the case that
#            another process of a jax.distributed run is gone?
# Expected   Yes: the client of the coordination service has a parameter missed_heartbeat_callback, a
#            Python callable, for which jax.distributed.initialize passes nothing.
# Versions   jax 0.10.2 (the same with 0.12.0.1), CPython 3.11, CPU, two processes on one host
# Behaviour  No. When the first process is killed, the callback is not called: the C++ status cannot
#            be turned into a Python object, std::bad_cast is thrown on a thread of the client, and the
#            process aborts (exit code 134, or -6). Without a callback it aborts too, by a
#            fatal log line. So where the first process dies, the others' exit code is 134, whatever
#            the program does in Python; a scheduler has to be told.
# Output     exit code 134, callback was called: no, std::bad_cast: yes
# Fails      if the callback is called, or the exit code is another.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
cat > "$folder/check.py" <<'PYTHON'
import functools
import os
import sys
import time

import jax
from jax._src.lib import _jax


def lost(status):
    print("OUR CALLBACK", flush=True)
    os._exit(71)


_jax.get_distributed_runtime_client = functools.partial(
    _jax.get_distributed_runtime_client, missed_heartbeat_callback=lost
)
index = int(sys.argv[1])
jax.distributed.initialize(f"127.0.0.1:{sys.argv[2]}", 2, index)
open(f"{sys.argv[3]}/ready{index}", "w").close()
time.sleep(60)
PYTHON
port=$("$folder/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export JAX_PLATFORMS=cpu
"$folder/venv/bin/python" "$folder/check.py" 0 "$port" "$folder" 2> /dev/null & first=$!
"$folder/venv/bin/python" "$folder/check.py" 1 "$port" "$folder" > "$folder/log" 2>&1 & second=$!
for _ in $(seq 100); do
  if [ -e "$folder/ready0" ] && [ -e "$folder/ready1" ]; then break; fi
  sleep 0.3
done
disown "$first"
kill -KILL "$first"
code=0
wait "$second" 2> /dev/null || code=$?
called=no; grep -q "OUR CALLBACK" "$folder/log" && called=yes
cast=no; grep -q std::bad_cast "$folder/log" && cast=yes
echo "exit code $code, callback was called: $called, std::bad_cast: $cast"
[ "$code" = 134 ] && [ "$called" = no ] && [ "$cast" = yes ]
