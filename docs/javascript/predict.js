// node predict.js HOST:PORT            asks whether the server is ready
// node predict.js HOST:PORT scan.png   asks that, and then has one slice judged
// Exit codes: 0 answered, 1 not ready or refused, 2 usage.
// All it knows of the API is in proto/stroke.proto; docs/integrate.md explains it.
const { createHash, randomUUID } = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");

const SERVICE = "stroke.v1.StrokeService";
const SERVICE_CONFIG = {
  methodConfig: [
    {
      name: [{ service: SERVICE, method: "Predict" }],
      retryPolicy: {
        maxAttempts: 4,
        initialBackoff: "0.2s",
        maxBackoff: "2s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE", "CANCELLED"],
      },
    },
  ],
};
const OPTIONS = {
  "grpc.service_config": JSON.stringify(SERVICE_CONFIG),
  "grpc.keepalive_time_ms": 30_000, // how often: see docs/integrate.md
  "grpc.keepalive_permit_without_calls": 1,
  "grpc.keepalive_timeout_ms": 10_000,
  "grpc.enable_http_proxy": 0, // images of patients go straight to the server
};
const CREDENTIALS = grpc.credentials.createInsecure();
// With TLS: grpc.credentials.createSsl(fs.readFileSync("ca.pem"))
// and with a certificate of one's own: createSsl(ca, fs.readFileSync("client.key"), fs.readFileSync("client.pem"))

const protos = [path.join(__dirname, "../../proto/stroke.proto"), path.join(__dirname, "health.proto")];
const api = grpc.loadPackageDefinition(protoLoader.loadSync(protos, { keepCase: true, enums: String, defaults: true }));

// One call with a deadline, which covers all attempts.
function call(client, method, request, seconds) {
  return new Promise((resolve, reject) => {
    const deadline = Date.now() + 1000 * seconds;
    client[method](request, new grpc.Metadata(), { deadline }, (error, answer) =>
      error ? reject(error) : resolve(answer),
    );
  });
}

async function isReady(address) {
  const client = new api.grpc.health.v1.Health(address, CREDENTIALS, OPTIONS);
  try {
    const { status } = await call(client, "Check", { service: SERVICE }, 2);
    console.log(`${address}: ${status}`);
    return status === "SERVING";
  } finally {
    client.close();
  }
}

async function predict(address, file) {
  const image = fs.readFileSync(file);
  const digest = createHash("sha256").update(image).digest("hex");
  const request = { image, image_sha256: digest, id: randomUUID() };
  const client = new api.stroke.v1.StrokeService(address, CREDENTIALS, OPTIONS); // make one, and use it for all calls
  try {
    const answer = await call(client, "Predict", request, 10);
    if (answer.image_sha256 !== digest) throw new Error("the answer is about another image");
    const model = `${answer.model_name} ${answer.model_version}, threshold ${answer.threshold.toFixed(3)}`;
    const isAnalysed = answer.status !== "NOT_ANALYSED"; // otherwise there is no label
    const verdict = isAnalysed ? `${answer.label} ${answer.confidence.toFixed(3)}` : "not analysed";
    console.log(`${file}: ${verdict} (${model}, id ${answer.id})`);
    for (const reason of answer.reasons) console.log(`${file}: ${reason.reason}: ${reason.message}`);
    for (const warning of answer.warnings) console.log(`${file}: ${warning.reason}: ${warning.message}`);
  } finally {
    client.close();
  }
}

// A refusal has its reason in the trailing metadata; without one, gRPC itself made the status.
function describe(error) {
  if (!error.metadata) return error.message;
  const [reason] = error.metadata.get("stroke-reason");
  return `${grpc.status[error.code]} [${reason ?? "no reason"}] ${error.details}`;
}

async function main([address, file, ...rest]) {
  if (!address || rest.length) {
    console.error("usage: node predict.js HOST:PORT [scan.png]");
    return 2;
  }
  let subject = address;
  try {
    if (!(await isReady(address))) return 1;
    if (file) await predict(address, (subject = file));
    return 0;
  } catch (error) {
    console.error(`${subject}: ${describe(error)}`);
    return 1;
  }
}

main(process.argv.slice(2)).then((code) => (process.exitCode = code));
