#!/usr/bin/env bash
# Question   jax.distributed.initialize is told coordinator, number of processes and index. Does it then
#            leave alone what SLURM's environment says?
# Expected   Yes: the three values say everything, and each process uses all GPUs of its host.
# Versions   jax 0.10.2 (the same lines are in 0.12.0.1), CPython 3.11, CPU; SLURM's variables set by hand
# Behaviour  No. The fourth value, local_device_ids, is still None, so a cluster is looked for, and
#            SLURM_LOCALID becomes the list of visible devices: one task for each host of eight GPUs
#            trains on one of them and seven idle, without a word. With
#            cluster_detection_method="deactivate" all are visible.
# Output     visible CUDA devices: told three values 0, detection deactivated all
# Fails      if the three values alone leave all devices visible, or "deactivate" does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
cat > "$folder/check.py" <<'PYTHON'
import socket
import sys

import jax

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
jax.distributed.initialize(
    f"127.0.0.1:{port}", 1, 0, cluster_detection_method="deactivate" if sys.argv[1:] else None
)
print(jax.config._read("jax_cuda_visible_devices"))
PYTHON
export JAX_PLATFORMS=cpu SLURM_JOB_ID=5 SLURM_STEP_NODELIST=localhost SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0
told=$("$folder/venv/bin/python" "$folder/check.py" 2> "$folder/log") || { cat "$folder/log"; exit 1; }
off=$("$folder/venv/bin/python" "$folder/check.py" off 2> "$folder/log") || { cat "$folder/log"; exit 1; }
echo "visible CUDA devices: told three values $told, detection deactivated $off"
[ "$told" = 0 ] && [ "$off" = all ]
