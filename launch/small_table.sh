#!/usr/bin/env bash
# The table of configs/small.py in configs/RESULTS.md; started again, it goes on.
#
#   PRISTINE=CID22 KODAK=KODAK BIQ2021=FOLDER VIT=deit_tiny_patch16_224.npz RESNET=resnet50.pth \
#     bash launch/small_table.sh runs/table
#
# PRISTINE and KODAK are folders of undistorted photos, BIQ2021 the data set as it is downloaded.
# SEED (0) is that of stage 2; another one may follow in the same folder, and the tables grow.
# Some 70 minutes on two slow cores, 30 for each further seed.
source "$(dirname "$0")/small_inputs.sh" "$@"
seed=${SEED:-0}
rated() {
  run "small:$1" "$1/seed$seed" --config.data.name=biq2021 --config.seed="$seed" "${@:2}"
}

run pristine:small restorer "${photos[@]}" --config.data.distort.pairs=12
run small:synthetic synthetic "${photos[@]}" --config.pretrained.vit="$out/vit.safetensors"
rated maniqa --config.pretrained.model="$out/synthetic"
run small:difference difference --config.data.name=biq2021 \
  --config.pretrained.resnet="$out/resnet.safetensors"
branches=(--config.pretrained.guidance="$out/maniqa/seed$seed")
branches+=(--config.pretrained.difference="$out/difference")
rated image_alone "${branches[@]}"
rated paper "${branches[@]}" --config.restorer.run="$out/restorer" \
  --config.restorer.folder="$out/views"
[ -f "$out/ridge/run/results.json" ] || python -m diffv2iqa_jax.tools.ridge "$out/ridge/run" --name biq2021 \
  --vit "$out/vit.safetensors" --resnet "$out/resnet.safetensors"
python -m diffv2iqa_jax.report RIDGE="$out/ridge" MANIQA="$out/maniqa" \
  ALONE="$out/image_alone" PAPER="$out/paper"
