// Tests the stubs without a server, against the golden messages: npm test
const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const { test } = require("node:test");
const protoLoader = require("@grpc/proto-loader");

const PROTO = path.join(__dirname, "../../proto");
const read = (name) => fs.readFileSync(path.join(PROTO, "golden", name));
const options = { keepCase: true, enums: String, oneofs: false };
const service = protoLoader.loadSync(path.join(PROTO, "stroke.proto"), options)["stroke.v1.StrokeService"];

// JSON has bytes as base64.
const withBytes = ({ image, ...rest }) => (image ? { ...rest, image: Buffer.from(image, "base64") } : rest);

for (const [name, encode, decode] of [
  ["predict_request", service.Predict.requestSerialize, service.Predict.requestDeserialize],
  ["predict_response", service.Predict.responseSerialize, service.Predict.responseDeserialize],
  ["not_analysed", service.Predict.responseSerialize, service.Predict.responseDeserialize],
  ["three_classes", service.Predict.responseSerialize, service.Predict.responseDeserialize],
  ["stream_error", service.PredictStream.responseSerialize, service.PredictStream.responseDeserialize],
]) {
  const bytes = read(`${name}.bin`);
  const fields = withBytes(JSON.parse(read(`${name}.json`)));

  test(`${name}: these bytes are these fields`, () => {
    assert.deepEqual(JSON.parse(JSON.stringify(decode(bytes))), JSON.parse(JSON.stringify(fields)));
  });

  test(`${name}: these fields are these bytes`, () => {
    assert.deepEqual(encode(fields), bytes);
  });
}
