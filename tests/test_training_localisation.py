"""Auxiliary heads: the network learns where the lesion is, and nothing of them is left in what is saved."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fakes import run_module
from training.data.labels import list_images
from training.data.pixels import decode_images
from training.phantom.dataset import LESION_FOLDER, write_dataset

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.usefixtures("blank_plots"),
]


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few synthetic slices with their masks."""
    folder = tmp_path_factory.mktemp("localisation") / "slices"
    write_dataset(folder, 24, 5, processes=1)
    return folder


def test_phantom_writes_a_mask_for_each_lesion(slices: Path) -> None:
    """Masks have the names of their slices, are no class, and normal slices have none."""
    with (slices / "labels.csv").open() as stream:
        rows = list(csv.DictReader(stream))

    masked = {path.relative_to(slices / LESION_FOLDER).as_posix() for path in (slices / LESION_FOLDER).rglob("*.png")}
    assert masked == {row["file"] for row in rows if row["label"] == "stroke"}
    assert list_images(slices).labels == ("normal", "stroke")
    mask = np.asarray(Image.open(slices / LESION_FOLDER / sorted(masked)[0]))
    assert set(np.unique(mask)) == {0, 255}


def test_store_keeps_masks_beside_their_images(slices: Path, tmp_path: Path) -> None:
    """One more plane, empty where there is no lesion."""
    images = list_images(slices)
    store, _ = decode_images(images, tmp_path, lambda done, total: None)

    with store:
        planes = store.read(np.arange(24))
    assert planes.shape == (24, 256, 256, 2)
    has_lesion = planes[..., 1].any(axis=(1, 2))
    assert np.array_equal(has_lesion, images.targets == 1)


def test_targets_mark_the_cells_of_the_lesion() -> None:
    """A cell is 1 where any pixel of it is; the margins that the convolutions lose are left out."""
    from training.fit.localisation import Tap, make_lesion_targets

    masks = np.zeros((1, 256, 256, 1), np.float32)
    masks[0, 8 + 8 * 3 + 7, 8 + 8 * 5, 0] = 255
    masks[0, 0, 0, 0] = 255

    fine, coarse = (target.numpy() for target in make_lesion_targets(masks, (Tap("fine", 8, 8), Tap("coarse", 16, 16))))

    assert fine.shape == (1, 30, 30, 1)
    assert coarse.shape == (1, 14, 14, 1)
    assert np.argwhere(fine[0, :, :, 0]).tolist() == [[3, 5]]
    assert np.argwhere(coarse[0, :, :, 0]).tolist() == [[1, 2]]


def test_heads_share_the_networks_weights_and_fit_the_targets() -> None:
    """One output more for each tapped layer, as large as its target; the network itself stays the paper's."""
    from training.fit.localisation import add_lesion_heads, find_taps, make_lesion_targets
    from training.fit.models import CNN_PARAMETERS, build_cnn

    network = build_cnn()
    taps = find_taps(network)
    model = add_lesion_heads(network, taps)

    outputs = model.predict_on_batch(np.zeros((1, 256, 256, 3), np.float32))
    targets = make_lesion_targets(np.zeros((1, 256, 256, 1), np.float32), taps)
    assert [output.shape for output in outputs[1:]] == [tuple(target.shape) for target in targets]
    assert outputs[0].shape == (1, 2)
    assert network.count_params() == CNN_PARAMETERS
    assert model.count_params() == CNN_PARAMETERS + 2 * 65


def test_loss_is_least_where_the_lesion_is_found() -> None:
    """A map that is right costs less than one that is empty, and that less than one that is wrong."""
    from training.fit.localisation import lesion_loss

    target = np.zeros((1, 4, 4, 1), np.float32)
    target[0, 1, 1] = 1
    right, empty, wrong = (np.full_like(target, 0.02) for _ in range(3))
    right[0, 1, 1] = wrong[0, 3, 3] = 0.9

    losses = [float(lesion_loss(target, predicted)[0]) for predicted in (right, empty, wrong)]

    assert losses == sorted(losses)
    assert losses[0] < 0.1 < losses[2]


def test_run_uses_masks_and_saves_the_plain_network(slices: Path, tmp_path: Path) -> None:
    """As a user runs it: the masks are used without a flag, said so, and the saved model is the paper's."""
    keras = pytest.importorskip("keras")
    run = tmp_path / "run"

    result = run_module(
        "training", "--data", str(slices), "--out", str(run), "--epochs", "1", "--one-image-per-patient"
    )

    assert result.returncode == 0, result.stderr
    assert "auxiliary heads" in result.stderr
    model = keras.models.load_model(run / "brain_stroke_model.keras", compile=False)
    assert model.count_params() == 183_682
    assert len(model.outputs) == 1
    assert "auxiliary" in json.loads((run / "spec.json").read_text())["provenance"]["lesion_masks"]
