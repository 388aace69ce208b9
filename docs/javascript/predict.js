// Classifies one image from JavaScript: node predict.js HOST:PORT scan.png
// Everything it knows of the API comes from proto/stroke.proto; any other language with gRPC works the same way.
const fs = require("fs");
const path = require("path");
const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");

const [address, file] = process.argv.slice(2);
const definition = protoLoader.loadSync(path.join(__dirname, "../../proto/stroke.proto"), { keepCase: true });
const { StrokeService } = grpc.loadPackageDefinition(definition).stroke.v1;

const client = new StrokeService(address, grpc.credentials.createInsecure());
const deadline = Date.now() + 10000;
client.Predict({ image: fs.readFileSync(file) }, new grpc.Metadata(), { deadline }, (error, answer) => {
  if (error) {
    console.error(`${error.details} [${error.metadata.get("stroke-reason")}]`);
    process.exitCode = 1;
  } else {
    console.log(`${answer.label} ${answer.confidence.toFixed(3)} (${answer.model_name} ${answer.model_version})`);
  }
  client.close();
});
