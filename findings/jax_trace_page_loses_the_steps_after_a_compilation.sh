#!/usr/bin/env bash
# Question   A trace covers three steps, marked by StepTraceAnnotation, and the first one compiles. Does
#            the page of the trace (trace.json.gz, what TensorBoard and Perfetto open) show all three?
# Expected   Yes: the profiler was stopped after the third, and all three are in xplane.pb.
# Versions   jax 0.10.2, CPython 3.11, CPU
# Behaviour  Not always. The page keeps a million events, the earliest ones. By default every call of a
#            Python function is one, and tracing and lowering a program of some thousand operations
#            makes more than that: steps 2 and 3 are left out, without a word. With
#            ProfileOptions.python_tracer_level = 0 the same window has a sixth of the events, and all
#            three steps.
# Output     with Python's calls: 1000013 events, steps 1; without: 161756 events, steps 1 2 3
# Fails      if the page shows all steps with Python's calls, or not all without.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
cat > "$folder/check.py" <<'PYTHON'
import glob
import gzip
import json
import sys

import jax
import jax.numpy as jnp

folder, level = sys.argv[1:]
options = jax.profiler.ProfileOptions()
if level == "off":
    options.python_tracer_level = 0
work = jax.jit(lambda x: sum(jnp.sin(x * k) @ x for k in range(1500)))
jax.profiler.start_trace(folder, profiler_options=options)
for step in (1, 2, 3):
    with jax.profiler.StepTraceAnnotation("train", step_num=step):
        result = work(jnp.ones((8, 8)))
jax.block_until_ready(result)
jax.profiler.stop_trace()
(page,) = glob.glob(f"{folder}/plugins/profile/*/*.trace.json.gz")
with gzip.open(page) as file:
    events = json.load(file)["traceEvents"]
steps = sorted(event["args"]["step_num"] for event in events if event.get("name") == "train")
print(f"{len(events)} events, steps {' '.join(steps)}")
PYTHON
export JAX_PLATFORMS=cpu JAX_ENABLE_COMPILATION_CACHE=false
with=$("$folder/venv/bin/python" "$folder/check.py" "$folder/with" on 2> "$folder/log") || { cat "$folder/log"; exit 1; }
without=$("$folder/venv/bin/python" "$folder/check.py" "$folder/without" off 2> "$folder/log") || { cat "$folder/log"; exit 1; }
echo "with Python's calls: $with; without: $without"
[[ $with == *"steps 1" && $without == *"steps 1 2 3" ]]
