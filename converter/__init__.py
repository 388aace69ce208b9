import os

# ONNX Runtime's Linux wheels since 1.29 send telemetry unless this is set before they are imported, by whatever module.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
