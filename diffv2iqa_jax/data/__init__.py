"""From data sets to batches of numpy arrays; the only folder that imports TensorFlow."""

import os

# TensorFlow reads these when it is first imported. Its notes on start-up would hide our own
# lines, and decoding and cropping gain nothing from oneDNN, which announces itself unasked.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
