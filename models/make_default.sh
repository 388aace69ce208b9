#!/bin/sh
# Trains a model from nothing as a bundled one was, on slices of today's generator: slices, training, model card,
# conversion, threshold, rule for studies. The default one takes about an hour on two processors that know bfloat16, with
# nothing beside it; on others take float32 and some hours. What was stopped goes on.
#
# Takes the Python to use, and where to put the model (default: build/models/NAME/VERSION). NETWORK=efficientnet-lite0 makes
# the one of models-imagenet, in an hour and a half. COUNT and EPOCHS make another one, in a folder of its own unless WORK
# says where slices and run go. The fp32 model is there before the INT8 variant is tried, which is calibrated and judged on
# synthetic slices that training has not seen; INT8= tries none. The outlier score is fitted to such slices, too; OUTLIER=
# leaves it out. The threshold, and how studies are judged, are chosen on STUDIES other heads in the model's window, and
# measured on as many more; an INT8 variant that decides otherwise than fp32 on the former, at that threshold, is left out.
set -eu
python=${1:-python}
network=${NETWORK:-cnn}
case $network in
cnn)
    name=stroke-cnn
    out=${2:-build/models/$name/3}
    count=${COUNT:-32000}
    epochs=${EPOCHS:-8}
    work=${WORK:-build/default-$count-$epochs}
    facts=models/facts.json
    from=
    set -- --learning-rate 1e-3 --precision mixed_bfloat16
    ;;
efficientnet-lite0)
    name=stroke-lite0
    out=${2:-build/models/$name/1}
    count=${COUNT:-24000}
    epochs=${EPOCHS:-5}
    work=${WORK:-build/lite0-$count-$epochs}
    facts=models-imagenet/facts.json
    from=", from EfficientNet-Lite0's weights of ImageNet"
    set -- --weights imagenet --unfreeze 5 --learning-rate 5e-4 --backbone-rate 0.5 --precision float32
    ;;
*)
    echo "NETWORK=$network: cnn or efficientnet-lite0" >&2
    exit 2
    ;;
esac
draw() { [ -d "$work/$1" ] || "$python" -m training phantom --out "$work/$@"; }
draw phantom --count "$count" --seed 7
"$python" -m training --data "$work/phantom" --out "$work/run" --resume --one-image-per-patient --name "$name" --model "$network" \
    "$@" --epochs "$epochs" --augment scanner --validation 0.06 --test 0.06 --seed 7 --operating-point sensitivity=0.9 --notes \
    "Demonstration, not a diagnosis: trained on synthetic slices alone (python -m training phantom --count $count --seed 7)$from."
"$python" -m training card "$work/run" --facts "$facts"
made=$work/converted/$name/1
convert() { "$python" -m converter "$work/run/brain_stroke_model.keras" -o "$made" --images "$work/phantom" --force "$@"; }
convert --window 40,80 ${OUTLIER---outlier}
[ -z "${INT8---int8 --target x86-vnni}" ] ||
    convert --window 40,80 ${OUTLIER---outlier} ${INT8---int8 --target x86-vnni} ||
    echo "The INT8 variant did not pass; $made serves fp32." >&2
slices=$((${STUDIES:-200} * 24))
draw validation --count $slices --slices-per-patient 24 --seed 1717 --window 40,80
draw test --count $slices --slices-per-patient 24 --seed 1718 --window 40,80
[ ! -f "$out/manifest.json" ] || rm -r "$out"
"$python" -m training threshold "$made" --data "$work/validation" --test "$work/test" --sensitivity 0.9 --out "$out"
