"""The second model that the project ships: EfficientNet-Lite0, served from a folder of its own."""

from __future__ import annotations

import json
from pathlib import Path

from server.models.runtime import load_model
from tests.fakes import BUNDLED, ROOT, run_module, run_server

MODELS = ROOT / "models-imagenet"
MODEL = MODELS / "stroke-lite0" / "1"
MOST_BYTES = 18_000_000


def test_it_loads_verified() -> None:
    """Digest and golden vectors hold on this machine."""
    spec = load_model(MODEL).spec

    assert spec.labels == load_model(BUNDLED).spec.labels
    assert (spec.name, spec.version) == ("stroke-lite0", "1")
    assert spec.temperature != 1
    assert spec.study_top_k > 0


def test_it_is_no_larger_than_was_agreed() -> None:
    """All files together: whoever clones the project carries them."""
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) <= MOST_BYTES


def test_it_says_where_its_weights_come_from() -> None:
    """In the card, and in what GetModel answers."""
    spec = load_model(MODEL).spec

    assert "EfficientNet-Lite0's weights of ImageNet" in spec.model_card
    assert "Apache License 2.0" in spec.model_card
    assert "haemorrhage-like findings; ischaemia not validated" in spec.model_card
    assert "python -m training phantom --count 24000 --seed 7" in spec.provenance["notes"]
    assert "--weights imagenet" in spec.provenance["flags"]


def test_it_is_served_from_its_folder() -> None:
    """As the documentation says: nothing else is needed, and the default model is not there then."""
    sample = ROOT / "samples" / "stroke-1.png"

    with run_server(MODELS) as server:
        answered = run_module("client", str(sample), "--json", "--server", server.address)

    line = json.loads(answered.stdout)
    assert line["model"] == "stroke-lite0"
    assert Path(line["file"]).name == sample.name
