#!/bin/sh
# Asks a StrokeServe whether it is ready, and has one slice judged: sh predict.sh HOST:PORT [scan.png]
# Exit codes are grpcurl's: 0 answered, 64 + the gRPC code when refused (67 is INVALID_ARGUMENT), 1 not reachable.
# With TLS, instead of -plaintext: -cacert ca.pem, and with a certificate of one's own -cert client.pem -key client.key
set -eu
here=$(dirname "$0")

grpcurl -plaintext -max-time 2 -import-path "$here/../javascript" -proto health.proto \
  -d '{"service": "stroke.v1.StrokeService"}' "$1" grpc.health.v1.Health/Check

[ $# -eq 2 ] || exit 0
image=$(base64 < "$2" | tr -d '\n')
digest=$(sha256sum < "$2" | cut -d ' ' -f 1)
# An answer with "status": "NOT_ANALYSED" has no label: its "reasons" say why.
# -v shows the trailing metadata, where a refusal has its stroke-reason.
printf '{"image": "%s", "image_sha256": "%s", "id": "%s"}' "$image" "$digest" "shell-$(date +%s)-$$" |
  grpcurl -plaintext -v -max-time 10 -import-path "$here/../../proto" -proto stroke.proto -d @ \
    "$1" stroke.v1.StrokeService/Predict
