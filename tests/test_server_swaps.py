"""Memory comes back: models come and go for a year, and the process stays as large as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import grpc
import onnx

from proto import admin_pb2, admin_pb2_grpc
from server.lifecycle.sockets import name_socket
from server.models.contract import METADATA_KEY, ModelSpec
from server.models.manifest import MANIFEST_FILE, Manifest
from tests.fakes import BUNDLED, read_resident_bytes, run_server, sha256_hex, wait_until

MOST_GROWTH = 3_000_000
SWAPS = 50


def copy_as(root: Path, version: str) -> None:
    """Writes the bundled model under another version."""
    manifest, files = Manifest.from_json((BUNDLED / MANIFEST_FILE).read_bytes()), {}
    folder = root / "stroke-cnn" / version
    folder.mkdir(parents=True)
    for name, record in manifest.files.items():
        model = onnx.load(BUNDLED / name)
        properties = {one.key: one.value for one in model.metadata_props}
        spec = replace(ModelSpec.from_json(properties[METADATA_KEY]), version=version)
        onnx.helper.set_model_props(model, {**properties, METADATA_KEY: spec.to_json()})
        data: bytes = model.SerializeToString()
        (folder / name).write_bytes(data)
        files[name] = replace(record, sha256=sha256_hex(data), size=len(data))
    (folder / MANIFEST_FILE).write_text(Manifest(files, manifest.golden, manifest.parity).to_json())


def test_memory_comes_back_over_many_swaps(tmp_path: Path) -> None:
    """What a model that is replaced has held is given back within some seconds: nothing adds up."""
    copy_as(tmp_path / "models", "1")
    with run_server(tmp_path / "models", "--model", "stroke-cnn", "--admin", str(tmp_path / "admin")) as server:
        copy_as(tmp_path / "models", "2")
        pid = server.process.pid
        path = tmp_path / "admin" / name_socket(server.address)
        with grpc.insecure_channel(f"unix:{path}") as channel:
            stub = admin_pb2_grpc.AdminStub(channel)

            def swap() -> None:
                list(stub.Activate(admin_pb2.ActivateRequest(name="stroke-cnn", version="2"), timeout=120))
                list(stub.RollBack(admin_pb2.RollBackRequest(name="stroke-cnn"), timeout=120))

            for _ in range(3):
                swap()
            before = read_resident_bytes(pid)
            for _ in range(SWAPS // 2):
                swap()
            wait_until(lambda: read_resident_bytes(pid) - before < MOST_GROWTH)
