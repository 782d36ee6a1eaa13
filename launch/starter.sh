#!/usr/bin/env bash
# The starter weights from nothing but data and two backbones; started again, it goes on.
#
#   PRISTINE=CID22 KODAK=KODAK BIQ2021=FOLDER VIT=deit_tiny_patch16_224.npz RESNET=resnet50.pth \
#     bash launch/starter.sh runs/starter
#
# PRISTINE and KODAK are folders of undistorted photos, BIQ2021 the data set as it is downloaded.
# Some 50 minutes on two slow cores.
source "$(dirname "$0")/small_inputs.sh" "$@"
rated() { run "small.py:$1" "$1" --config.data.name=biq2021 "${@:2}"; }

run pristine.py:small restorer "${photos[@]}" --config.data.distort.pairs=12 \
  --config.optim.steps=9000
rated difference --config.pretrained.resnet="$out/resnet.safetensors" \
  --config.data.batch=64 --config.optim.steps=250
rated maniqa --config.pretrained.vit="$out/vit.safetensors"
rated starter --config.restorer.run="$out/restorer" \
  --config.pretrained.guidance="$out/maniqa" --config.pretrained.difference="$out/difference"
python -m diffv2iqa_jax.export "$out/starter" "$out/starter.safetensors" --dtype float16
