"""Which peers there are, how each is started, and which settings it may choose from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.processes import ROOT

FOLDER = Path(__file__).resolve().parent
BUILD = ROOT / "build" / "peers"

Setting = tuple[int, int]
"""Workers (processes, as far as the server has them), and threads inside one run of the model."""

SETTINGS: tuple[Setting, ...] = ((1, 1), (1, 2), (2, 1))


@dataclass(frozen=True)
class Peer:
    """Another server."""

    name: str

    title: str

    target: str = "http"
    """Key of ``bench.serving.targets.TARGETS``."""

    keras: bool = False
    """Whether it serves the trained Keras file instead of the ONNX file."""

    can_share_pixels: bool = True
    """Whether it is also measured with this project's decoder."""

    same_server_as: str = ""
    """Another peer's name, where only a setting differs from that peer."""

    precision: str = "fp32"
    """What it computes with; ``auto`` is what its runtime chooses."""

    @property
    def home(self) -> str:
        """Folder beside this file, with its server and its pinned requirements."""
        return self.same_server_as or self.name

    @property
    def build(self) -> Path:
        """Where it is installed and runs."""
        return BUILD / self.home

    @property
    def environment(self) -> Path:
        """Its virtual environment."""
        return self.build / "venv"

    @property
    def python(self) -> Path:
        return self.environment / "bin" / "python"

    @property
    def folder(self) -> Path:
        return FOLDER / self.home

    def command(self, port: int) -> list[str]:
        """What starts it; all else is in environment variables."""
        match self.home:
            case "mlserver":
                return [str(self.environment / "bin" / "mlserver"), "start", str(self.folder)]
            case "bentoml":
                program = [str(self.python), "-m", "bentoml", "serve", "app:Stroke", "--host", "127.0.0.1"]
                return [*program, "--port", str(port), "--working-dir", str(self.folder)]
            case _:
                return [str(self.python), str(self.folder / "app.py")]


PEERS = (
    Peer("fastapi-keras", "FastAPI + Keras .h5 (the seed system)", keras=True, can_share_pixels=False),
    Peer("fastapi-onnxruntime", "FastAPI + ONNX Runtime"),
    Peer("openvino", "FastAPI + OpenVINO f32"),
    Peer(
        "openvino-auto",
        "FastAPI + OpenVINO, precision as it chooses",
        same_server_as="openvino",
        can_share_pixels=False,
        precision="auto",
    ),
    Peer("mlserver", "MLServer, gRPC", target="mlserver"),
    Peer("litserve", "LitServe"),
    Peer("bentoml", "BentoML"),
)
