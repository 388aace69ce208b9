#!/bin/sh
# Trains a model from nothing as a bundled one was, on slices of today's generator: slices, training, model card,
# conversion, threshold, rule for studies. The default one takes about two hours on two processors that know bfloat16, with
# nothing beside it; on others take float32 and some hours. What was stopped goes on.
#
# Takes the Python to use, and where to put the model (default: build/models/NAME/VERSION). NETWORK=efficientnet-lite0 makes
# the one of models-imagenet, in an hour and a half. COUNT and EPOCHS make another one, in a folder of its own unless WORK
# says where slices and run go. The threshold, and how studies are judged, are chosen on STUDIES other heads in the model's
# window, and measured on as many more. On slices of the former the INT8 variant is calibrated and judged, at that threshold,
# and is left out where it decides otherwise than fp32; INT8= tries none, INT8=arm64 is for another kind of processor. The
# outlier score is fitted to slices that training has not seen; OUTLIER= leaves it out of a model without INT8.
set -eu
python=${1:-python}
network=${NETWORK:-cnn}
case $network in
cnn)
    name=stroke-cnn
    out=${2:-build/models/$name/4}
    count=${COUNT:-32000}
    epochs=${EPOCHS:-16}
    work=${WORK:-build/default-$count-$epochs}
    facts=models/facts.json
    from=
    set -- --augment any-source --learning-rate 1e-3 --precision mixed_bfloat16
    ;;
efficientnet-lite0)
    name=stroke-lite0
    out=${2:-build/models/$name/1}
    count=${COUNT:-24000}
    epochs=${EPOCHS:-5}
    work=${WORK:-build/lite0-$count-$epochs}
    facts=models-imagenet/facts.json
    from=", from EfficientNet-Lite0's weights of ImageNet"
    set -- --augment scanner --weights imagenet --unfreeze 5 --learning-rate 5e-4 --backbone-rate 0.5 --precision float32
    ;;
*)
    echo "NETWORK=$network: cnn or efficientnet-lite0" >&2
    exit 2
    ;;
esac
draw() { [ -d "$work/$1" ] || "$python" -m training phantom --out "$work/$@"; }
draw phantom --count "$count" --seed 7
"$python" -m training --data "$work/phantom" --out "$work/run" --resume --one-image-per-patient --name "$name" --model "$network" \
    "$@" --epochs "$epochs" --validation 0.06 --test 0.06 --seed 7 --operating-point sensitivity=0.9 --notes \
    "Demonstration, not a diagnosis: trained on synthetic slices alone (python -m training phantom --count $count --seed 7)$from."
"$python" -m training card "$work/run" --facts "$facts"
slices=$((${STUDIES:-200} * 24))
draw validation --count $slices --slices-per-patient 24 --seed 1717 --window 40,80
draw test --count $slices --slices-per-patient 24 --seed 1718 --window 40,80
made=$work/converted/$name
convert() { "$python" -m converter "$work/run/brain_stroke_model.keras" --images "$work/phantom" --window 40,80 --force "$@"; }
choose() { "$python" -m training threshold --data "$work/validation" --sensitivity 0.9 "$@"; }
convert -o "$made/1" ${OUTLIER---outlier}
best=1
if [ -n "${INT8-x86-vnni}" ]; then
    threshold=$(choose "$made/1" --dry-run --json | "$python" -c 'import json, sys; print(json.load(sys.stdin)["threshold"])')
    if convert -o "$made/2" --int8 --target "${INT8-x86-vnni}" --threshold "$threshold" --calibrate "$work/validation"; then
        "$python" -m converter extend "$made/2" -o "$made/3" --force
        best=3
    else
        echo "The INT8 variant did not pass: fp32 alone is served." >&2
    fi
fi
[ ! -f "$out/manifest.json" ] || rm -r "$out"
choose "$made/$best" --test "$work/test" --out "$out"
