"""Training on a backbone: what is frozen, features that are computed once, and the weights that it starts with."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.backbones import randomise_statistics, save_published, use_tiny_backbone
from tests.test_training_data import write_discs
from training.data.labels import list_images
from training.data.pixels import decode_images
from training.errors import TrainingError
from training.fit.augment import AUGMENTATIONS
from training.fit.models import BACKBONES
from training.fit.published import KerasFile
from training.settings.train import TrainConfig

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.usefixtures("blank_plots"),
    # Keras 3.15 hands its variables to h5py, which asks numpy 2 for an array without a copy; harmless, and theirs.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

PRESET = AUGMENTATIONS["head-ct"]


@pytest.fixture(scope="module", autouse=True)
def tiny_backbone() -> Iterator[None]:
    with use_tiny_backbone():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """24 slices, decoded: 16 to train, 4 to validate, 4 to test with."""
    folder = tmp_path_factory.mktemp("transfer")
    images = list_images(write_discs(folder / "discs"))
    store, digests = decode_images(images, folder, lambda done, total: None)
    split = np.tile([0, 0, 0, 0, 1, 2], 4)
    with store:
        yield SimpleNamespace(
            images=images,
            store=store,
            digests=digests,
            split=split,
            indices=lambda name: np.flatnonzero(split == ("train", "validation", "test").index(name)),
        )


@pytest.fixture
def config(data: Any, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        data=data.images.root,
        out=tmp_path / "run",
        model="resnet50",
        weights="none",
        epochs=3,
        batch_size=4,
        learning_rate=1e-2,
    )


@pytest.fixture
def network(config: TrainConfig) -> Any:
    import keras

    from training.fit.weights import make_network

    keras.utils.set_random_seed(1)
    network = make_network(config)
    randomise_statistics(network)
    return network


def compute(network: Any, images: Any, folder: Path, progress: Any = lambda done, total: None, **changes: Any) -> Any:
    """Features of two views of the 24 slices, as the whole array; in batches of 8."""
    from training.fit import features

    settings = {"seed": 7, "augmentation": PRESET, "data": "discs", "folder": folder, **changes}
    views = [features.View(np.arange(24), number) for number in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "BATCH", 8)
        with features.compute_features(network, images.store, views, progress=progress, **settings) as store:
            return store.read(np.arange(48))


def test_features_are_the_networks(network: Any, data: Any, tmp_path: Path) -> None:
    """View 0 is what the network itself says of the images as they are: folding normalisation changes nothing."""
    import keras

    from training.fit.models import FEATURES

    features = compute(network, data, tmp_path)
    images = np.repeat(data.store.read(np.arange(24)), 3, axis=3)
    expected = keras.Model(network.inputs, network.get_layer(FEATURES).output).predict_on_batch(images)
    assert np.abs(expected).max() > 1
    assert np.allclose(features[:24], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert not np.isclose(features[24:], expected, rtol=1e-3).all(axis=1).any()


def test_features_go_on_where_they_were_stopped(network: Any, data: Any, tmp_path: Path) -> None:
    """What was finished before an interrupt is not computed again, and the result is that of one go."""

    def interrupt(done: int, total: int) -> None:
        if done == 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compute(network, data, make_folder(tmp_path / "stopped"), interrupt)
    reports: list[tuple[int, int]] = []
    stopped = compute(network, data, tmp_path / "stopped", lambda *report: reports.append(report))
    assert reports == [(40, 48), (48, 48)]
    assert np.array_equal(stopped, compute(network, data, make_folder(tmp_path / "whole")))


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize(
    "change",
    [{"seed": 8}, {"augmentation": AUGMENTATIONS["paper"]}, {"data": "other"}, "weights", "damage"],
    ids=["seed", "augmentation", "data", "weights", "damage"],
)
def test_features_of_anything_else_are_not_used(change: Any, network: Any, data: Any, tmp_path: Path) -> None:
    """A cache of other changes, images or weights, or one that is damaged, is made anew."""
    compute(network, data, tmp_path)
    reports: list[tuple[int, int]] = []
    if change == "weights":
        randomise_statistics(network, seed=1)
    if change == "damage":
        (tmp_path / "features" / "features.json").write_text("{")
    compute(
        network, data, tmp_path, lambda *report: reports.append(report), **change if isinstance(change, dict) else {}
    )
    assert reports[0] == (8, 48)


def test_features_that_do_not_fit_are_refused(
    network: Any, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the disk has not enough room, one line says how much is needed and what to do."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(TrainingError, match=r"features of 48 views need .* use fewer --views"):
        compute(network, data, tmp_path)


def fit(config: TrainConfig, data: Any, folder: Path) -> Any:
    """Fits with a fixed seed; the unfinished run's folder is made."""
    import keras

    from training.fit.network import fit_network
    from training.progress import Part, Progress

    folder.mkdir()
    keras.utils.set_random_seed(config.seed)
    return fit_network(config, data, folder, Part(Progress("training")))


def test_head_on_features_is_the_head_on_the_network(config: TrainConfig, data: Any, tmp_path: Path) -> None:
    """Without augmentation, the head learns from features what it learns in the whole network from the images."""
    import keras

    from training.fit.optimizer import make_optimizer
    from training.fit.pipeline import weigh_classes
    from training.fit.transfer import draw_epoch
    from training.fit.weights import make_network

    config = replace(config, augment="none")
    quick = fit(config, data, tmp_path / "quick")
    keras.utils.set_random_seed(config.seed)
    network = make_network(config)
    network.compile(make_optimizer(config.learning_rate, "float32", 3 * 4), loss="sparse_categorical_crossentropy")
    training = data.indices("train")
    targets = data.images.targets[training]
    weights = weigh_classes(targets, balanced=True)
    for epoch in range(quick.best.epoch):
        order, _ = draw_epoch(config.seed, epoch, len(training), 1)
        for batch in order.reshape(-1, 4):
            images = np.repeat(data.store.read(training[batch]), 3, axis=3)
            network.train_on_batch(images, targets[batch], weights[targets[batch]])
    for from_features, from_images in zip(quick.weights, network.get_weights(), strict=True):
        assert np.allclose(from_features, from_images, rtol=1e-3, atol=1e-4)


def test_same_seed_gives_the_same_head(config: TrainConfig, data: Any, tmp_path: Path) -> None:
    """Two runs with one seed end with the same weights."""
    first, second = (fit(config, data, tmp_path / name) for name in ("first", "second"))
    assert all(np.array_equal(a, b) for a, b in zip(first.weights, second.weights, strict=True))


def test_each_epoch_draws_order_and_views() -> None:
    """An epoch shows each image once, in an order and in views of its own, the same ones for the same seed."""
    from training.fit.transfer import draw_epoch

    order, views = draw_epoch(7, 0, 500, 4)
    assert sorted(order.tolist()) == list(range(500))
    assert set(np.bincount(views, minlength=4) // 100) == {1}
    assert np.array_equal(order, draw_epoch(7, 0, 500, 4)[0])
    assert not np.array_equal(views, draw_epoch(7, 1, 500, 4)[1])


@pytest.mark.parametrize("unfreeze", [0, 2])
def test_only_what_is_unfrozen_changes(unfreeze: int, config: TrainConfig, data: Any, tmp_path: Path) -> None:
    """The head and the last stages' convolutions learn; all other layers, and all normalisation, stay as they were."""
    import keras

    from training.fit.weights import make_network

    config = replace(config, unfreeze=unfreeze, epochs=1)
    keras.utils.set_random_seed(config.seed)
    network = make_network(config)
    before = {weight.path: weight.numpy() for weight in network.weights}
    network.set_weights(fit(config, data, tmp_path / "run").weights)
    changed = {weight.path for weight in network.weights if not np.array_equal(before[weight.path], weight.numpy())}
    stages = range(6 - unfreeze, 6)
    expected = {f"{layer}/{part}" for layer in ("head", "probabilities") for part in ("kernel", "bias")}
    expected |= {f"conv{stage}_conv/{part}" for stage in stages for part in ("kernel", "bias")}
    assert changed == expected


def test_unfrozen_stages_learn_more_slowly(config: TrainConfig, data: Any, tmp_path: Path) -> None:
    """The first step of Adam moves each weight by the rate: in the backbone by a tenth of it."""
    import keras

    from training.fit.optimizer import make_optimizer
    from training.fit.weights import list_slow_variables, make_network

    network = make_network(replace(config, unfreeze=1))
    slow = list_slow_variables(network)
    assert slow == {"conv5_conv/kernel", "conv5_conv/bias"}
    optimizer = make_optimizer(1e-2, "float32", 100, slow, config.backbone_rate)
    before = [variable.numpy() for variable in network.trainable_variables]
    optimizer.apply([keras.ops.ones_like(v) for v in network.trainable_variables], network.trainable_variables)
    for variable, old in zip(network.trainable_variables, before, strict=True):
        assert np.allclose(old - variable.numpy(), 1e-3 if variable.path in slow else 1e-2, rtol=1e-2)


def test_imagenet_weights_are_those_that_are_published(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in Keras's folder with the right digest is taken; nothing is downloaded then."""
    from training.fit.weights import find_weights

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    file = KerasFile("http://127.0.0.1:9/notop.h5", hashlib.md5(b"weights").hexdigest())
    monkeypatch.setitem(BACKBONES, "resnet50", replace(BACKBONES["resnet50"], published=file))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "notop.h5").write_bytes(b"weights")
    assert find_weights(replace(config, weights="imagenet")) == tmp_path / "models" / "notop.h5"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.h5", None, "there is no such file"),
        ("weights.txt", b"x", "must be a .h5 or .keras file"),
        ("cut.h5", b"\x89HDF\r\n\x1a\n", "not an HDF5 file"),
        ("cut.keras", b"PK", "neither resnet50 without its top nor a model of a resnet50 run"),
    ],
)
def test_unusable_weights_give_one_line(
    name: str, content: bytes | None, message: str, config: TrainConfig, tmp_path: Path
) -> None:
    """A file that cannot be read is named with what is wrong."""
    from training.fit.weights import make_network

    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TrainingError, match=message) as raised:
        make_network(replace(config, weights=str(path)))
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_weights_of_another_network_are_refused(config: TrainConfig, tmp_path: Path) -> None:
    """The CNN's file is no backbone."""
    from training.fit.models import build_cnn
    from training.fit.weights import make_network

    for name in ("cnn.h5", "cnn.keras"):
        build_cnn().save(tmp_path / name)
        with pytest.raises(TrainingError, match="neither resnet50 without its top nor a model of a resnet50 run"):
            make_network(replace(config, weights=str(tmp_path / name)))


@pytest.mark.parametrize("name", ["run.h5", "run.keras"])
def test_weights_of_an_earlier_run_are_taken_over(name: str, network: Any, config: TrainConfig, tmp_path: Path) -> None:
    """A run goes on from another one's backbone and head."""
    from training.fit.weights import make_network

    network.save(tmp_path / name)
    taken = make_network(replace(config, weights=str(tmp_path / name), unfreeze=1))
    assert all(np.array_equal(a, b) for a, b in zip(taken.get_weights(), network.get_weights(), strict=True))


def test_published_weights_take_the_channels_the_other_way_round(config: TrainConfig, tmp_path: Path) -> None:
    """Weights without top are for B, G, R; the network's first convolution takes R, G, B."""
    import keras

    from training.fit.weights import make_network

    published = make_network(config)
    maps = published.get_layer("features").input
    save_published(keras.Model(published.inputs, maps), tmp_path / "notop.h5")
    network = make_network(replace(config, weights=str(tmp_path / "notop.h5")))
    for layer, other in zip(published.layers, network.layers, strict=True):
        for ours, theirs in zip(other.get_weights(), layer.get_weights(), strict=True):
            if layer.name == "conv1_conv" and ours.ndim == 4:
                theirs = theirs[:, :, ::-1]
            assert np.array_equal(ours, theirs) or layer.name in ("head", "probabilities")


def write_split(path: Path, data: Any, split: Any) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("sha256", "split"))
        writer.writerows((d, ("train", "validation", "test")[p]) for d, p in zip(data.digests, split, strict=True))


def test_weights_that_have_seen_the_test_images_are_refused(
    config: TrainConfig, network: Any, data: Any, tmp_path: Path
) -> None:
    """A network that was trained on what it is now tested with is no evidence; with the same split it may go on."""
    from training.fit.weights import check_weights_past

    network.save(tmp_path / "run.keras")
    config = replace(config, weights=str(tmp_path / "run.keras"))
    assert "CANNOT BE EXCLUDED" in check_weights_past(config, data)[0]
    write_split(tmp_path / "split.csv", data, data.split)
    assert check_weights_past(config, data) == ()
    write_split(tmp_path / "split.csv", data, np.roll(data.split, 1))
    with pytest.raises(TrainingError, match="have seen 8 of this run's validation or test images"):
        check_weights_past(config, data)


def test_random_weights_are_said_loudly(config: TrainConfig, data: Any) -> None:
    """Nobody takes figures of random features for a result."""
    from training.fit.weights import check_weights_past

    assert "RANDOM" in check_weights_past(config, data)[0]


def test_flags_of_backbones_are_not_for_the_cnn(config: TrainConfig) -> None:
    """A flag that would do nothing is refused."""
    for flag in ({"weights": "none"}, {"unfreeze": 1}, {"backbone_rate": 0.5}, {"views": 3}):
        with pytest.raises(
            ValueError, match=f"--{next(iter(flag)).replace('_', '-')} is for --model resnet50 or efficientnet-lite0"
        ):
            TrainConfig(data=config.data, out=config.out, **flag)
    with pytest.raises(ValueError, match="--unfreeze must be 0 to 4 with resnet50, got 5"):
        replace(config, unfreeze=5)


def test_header_names_what_the_features_are_of(network: Any, data: Any, tmp_path: Path) -> None:
    """The cache says of itself what makes it usable, and how much of it is finished."""
    compute(network, data, tmp_path)
    header = json.loads((tmp_path / "features" / "features.json").read_text())
    assert header["done"] == 48
    assert {"weights", "data", "images", "views", "augmentation", "seed"} <= header["identity"].keys()


def test_whole_run_leaves_one_network(config: TrainConfig, data: Any) -> None:
    """A run on a backbone saves the whole network, without the features, and warns of random weights in its report."""
    import keras

    from training.run.train import train

    run = train(replace(config, epochs=1, validation=0.2, test=0.2))
    assert not (run / "features").exists()
    assert "RANDOM" in (run / "report.md").read_text()
    images = np.repeat(data.store.read(np.arange(4)), 3, axis=3)
    files = (run / f"brain_stroke_model.{suffix}" for suffix in ("h5", "keras"))
    answers = [keras.models.load_model(file).predict_on_batch(images) for file in files]
    assert answers[0].shape == (4, 2)
    assert np.allclose(*answers, atol=1e-6)
