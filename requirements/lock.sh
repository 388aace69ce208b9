#!/bin/sh
# Resolves requirements/*.in into *.lock. The development lock comes first and binds the others, so that every purpose
# gets the versions that were tested together.
set -eu
uv=$1
cd "$(dirname "$0")"
for purpose in dev training server web openvino cli client; do
    constraint=""
    [ "$purpose" = dev ] || constraint="--constraint dev.lock"
    # shellcheck disable=SC2086
    "../$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
        $constraint "$purpose.in" --output-file "$purpose.lock"
done
