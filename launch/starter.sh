#!/usr/bin/env bash
# The starter weights from nothing but data and two backbones; started again, it goes on.
#
#   PRISTINE=CID22 KODAK=KODAK BIQ2021=FOLDER VIT=deit_tiny_patch16_224.npz RESNET=resnet50.pth \
#     bash launch/starter.sh runs/starter
#
# PRISTINE and KODAK are folders of undistorted photos, BIQ2021 the data set as it is downloaded.
# The starter's branches look at 272 x 272 pixels, so the ViT is converted once more. Three of the
# stages were trained on a GPU, in minutes; two slow cores need some four hours (steps x the time of
# one: restorer 6 minutes, difference 60, guidance 103, starter 50).
source "$(dirname "$0")/small_inputs.sh" "$@"
rated() { run "small:$1" "$2" --config.data.name=biq2021 "${@:3}"; }

convert vit_timm "$VIT" "$out/vit272.safetensors" --normalise imagenet --image_size 272
run pristine:small restorer "${photos[@]}" --config.data.distort.pairs=12 \
  --config.optim.steps=9000 --config.data.pp_train="crop({size})|flip(0.5)" \
  --config.data.pp_test="center(128)"
rated starter_difference difference --config.pretrained.resnet="$out/resnet.safetensors"
rated starter_guidance guidance --config.pretrained.vit="$out/vit272.safetensors"
rated starter starter --config.restorer.run="$out/restorer" \
  --config.pretrained.guidance="$out/guidance" --config.pretrained.difference="$out/difference"
python -m diffv2iqa_jax.export "$out/starter" "$out/starter.safetensors" --dtype float16
