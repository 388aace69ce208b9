#!/bin/sh
# Trains a model from nothing as the bundled one was, on slices of today's generator: slices, training, model card,
# conversion. About 50 minutes on two processors with AMX (mixed_bfloat16); on processors without it, take float32 and
# some hours. What was stopped goes on.
#
# Takes the Python to use, and where to put the model (default: build/models/stroke-cnn/3). COUNT and EPOCHS make another
# one, in a folder of its own unless WORK says where slices and run go. The fp32 model is there before the INT8 variant is
# tried, which is calibrated and judged on synthetic slices that training has not seen; INT8= tries none. The outlier score is
# fitted to such slices, too; OUTLIER= leaves it out. How studies are judged is chosen afterwards (training threshold).
#
# The weights in models/stroke-cnn are those that this script made at the revision which their spec names; see
# docs/results.md for why they are not newer. Version 2 is version 1 with more (python -m converter extend), which its
# spec names, too.
set -eu
python=${1:-python}
out=${2:-build/models/stroke-cnn/3}
count=${COUNT:-32000}
epochs=${EPOCHS:-8}
work=${WORK:-build/default-$count-$epochs}
[ -d "$work/phantom" ] || "$python" -m training phantom --out "$work/phantom" --count "$count" --seed 7
"$python" -m training --data "$work/phantom" --out "$work/run" --resume --one-image-per-patient --epochs "$epochs" \
    --learning-rate 1e-3 --augment scanner --validation 0.06 --test 0.06 --seed 7 --precision mixed_bfloat16 \
    --operating-point sensitivity=0.95 --notes \
    "Demonstration, not a diagnosis: trained on synthetic slices alone (python -m training phantom --count $count --seed 7)."
"$python" -m training card "$work/run" --facts models/facts.json
convert() { "$python" -m converter "$work/run/brain_stroke_model.keras" -o "$out" --images "$work/phantom" --force "$@"; }
convert --window 40,80 ${OUTLIER---outlier}
[ -z "${INT8---int8 --target x86-vnni}" ] ||
    convert --window 40,80 ${OUTLIER---outlier} ${INT8---int8 --target x86-vnni} ||
    echo "The INT8 variant did not pass; $out serves fp32." >&2
