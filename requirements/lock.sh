#!/bin/sh
# Resolves requirements/*.in into *.lock. The development lock comes first and binds the others, so that every purpose
# gets the versions that were tested together. Neighbours, which run in environments of their own, are bound by nothing.
set -eu
uv=$1
cd "$(dirname "$0")"
compile() {
    name=$1
    shift
    "../$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header "$@" \
        "$name.in" --output-file "$name.lock"
}
compile dev
for purpose in training server cli client gateway extras/web extras/openvino extras/signing extras/dicom extras/dicom-codecs extras/efficientnet cluster-dev; do
    compile "$purpose" --constraint dev.lock
done
compile cluster --constraint cluster-dev.lock
compile neighbours/tritonclient
compile neighbours/kserve
compile neighbours/envoy
compile neighbours/moto
compile neighbours/perf_analyzer --no-deps
