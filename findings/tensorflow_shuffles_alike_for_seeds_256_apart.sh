#!/usr/bin/env bash
# Question   tf.random.experimental.index_shuffle orders 0..n-1 by a seed of int32 words. How many orders of
#            800 records do the seeds [0, epoch] give, and how shuffled are they?
# Expected   A new one for each epoch; about one of 799 neighbours stays in sequence, by chance.
# Versions   tensorflow-cpu 2.21.0, numpy 2.4.6, CPython 3.11
# Behaviour  The low 8 bits of each word count: epoch 256 has epoch 0's order, and epochs 0 to 999 have 256.
#            Some are hardly shuffled: in epoch 12, 155 neighbours stay in sequence.
# Output     256 orders in 1000 epochs; neighbours kept in epochs 0 and 12: 3 155
# Fails      if there are 1000 orders, or fewer than 50 neighbours are kept in epoch 12.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-cpu==2.21.0 numpy==2.4.6
cat > "$folder/check.py" <<'PYTHON'
import numpy as np
import tensorflow as tf

SIZE = 800


@tf.function
def order(seed):
    places = tf.range(SIZE)
    return tf.map_fn(lambda i: tf.random.experimental.index_shuffle(i, seed, SIZE - 1), places)


orders = [order(tf.constant([0, epoch], tf.int32)).numpy() for epoch in range(1000)]
assert all(len(set(one)) == SIZE for one in orders)
kept = [int((np.diff(orders[epoch]) == 1).sum()) for epoch in (0, 12)]
count = len({one.tobytes() for one in orders})
print(f"{count} orders in 1000 epochs; neighbours kept in epochs 0 and 12:", *kept)
assert count == 256 and kept[1] >= 50
PYTHON
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/check.py" 2> "$folder/log" || { cat "$folder/log"; exit 1; }
