# What starter.sh and small_table.sh have in common: source it with the folder to write to.
# shellcheck shell=bash
set -euo pipefail
out=${1:?where to}
mkdir -p "$out"

convert() { [ -f "$3" ] || python -m diffv2iqa_jax.convert "$@"; }
run() { python -m diffv2iqa_jax.main --config "$1" --workdir "$out/$2" "${@:3}"; }

convert vit_timm "$VIT" "$out/vit.safetensors" --normalise imagenet
convert resnet50 "$RESNET" "$out/resnet.safetensors" --stages 2
python -m diffv2iqa_jax.data.prepare biq2021 --source "$BIQ2021"
# shellcheck disable=SC2034 # for those that source it
photos=(--config.data.folder="$PRISTINE" --config.data.distort.test="$KODAK")
