"""``python -m training tune-up``: an earlier model, adapted to a site's own slices, and whether that has helped.

The result is a run folder as of any training; ``tune_up`` reads top to bottom.
"""

from __future__ import annotations

import logging
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.models.contract import ModelSpec
from training.data.given import check_request
from training.data.labels import list_data
from training.data.pixels import compute_fingerprint, decode_images
from training.data.split import SPLIT_FILE, Data, group_data, split_data
from training.data.subgroups import read_subgroups
from training.errors import TrainingError
from training.evaluation.calibration import fit_scaling
from training.evaluation.figures import Predictions
from training.evaluation.measure import choose_decision
from training.evaluation.positive import find_indices, score_positive
from training.fit.network import predict
from training.fit.weights import count_seen
from training.own.before_after import Judged, compare_judged, decide_as
from training.own.inheritance import settle, take_labels
from training.own.parent import Parent, open_parent
from training.own.stages import LAST, WHOLE, Tuned, tune
from training.progress import Progress
from training.report import records as report
from training.report.card import copy_facts
from training.run.folder import find_partial, is_finished, open_run_folder, record_run
from training.run.held_out import MODEL_FILES, write_answers
from training.run.results import Remarks, calibrate_network, find_studies, write_results
from training.settings.tune_up import ASKED, TuneUpConfig

logging.getLogger("tensorflow").setLevel(logging.ERROR)  # that stages are compiled anew is no news for users

PARENT_FILE = "parent.json"
PROVEN = 16
"""Training images on which the network of an ONNX file is compared with the file."""

SECTION = "Before and after"


def tune_up(config: TuneUpConfig) -> Path:
    """Tunes an earlier model, and writes the run folder; goes on with an unfinished one on ``--resume``.

    Returns:
        The run folder.

    Raises:
        TrainingError: the model, the data, a flag or the run folder is not usable.
        KeyboardInterrupt: when it comes before the first epoch has ended, or while the results are written; else the
            best weights so far become the run's.
    """
    parent = open_parent(config.parent)
    config = settle(config, parent.spec)
    check_parent(parent, config.out)
    check_parent(parent, find_partial(config.out))
    if is_finished(config):
        return config.out
    images = take_labels(config, list_data(config), parent)
    check_request(config, images)
    images = replace(images, subgroups=read_subgroups(images, config.subgroup))
    with open_run_folder(config) as folder:
        config = replace(config, resume=False)
        store, digests = decode_images(images, folder, Progress("decoding"), parent.input_format)
        with store:
            record_run(config, folder, compute_fingerprint(images.files, digests))
            report.write_json(folder / PARENT_FILE, describe_parent(parent))
            data = group_data(config, images, store, digests)
            begun = folder / SPLIT_FILE
            data = split_data(config, data, folder, begun if begun.exists() else None)
            tune_on(config, check_past(parent, data), parent, folder)
    return config.out


def describe_parent(parent: Parent) -> dict[str, str]:
    return {"name": parent.spec.name, "version": parent.spec.version, "sha256": parent.digest}


def check_parent(parent: Parent, folder: Path) -> None:
    """Makes sure that an unfinished run goes on with the model that it was begun with.

    Raises:
        TrainingError: it is another one.
    """
    before = report.read_document(folder / PARENT_FILE)
    if before and before != describe_parent(parent):
        raise TrainingError(
            f"{folder} was begun with {before.get('name')} {before.get('version')} (sha256 "
            f"{str(before.get('sha256'))[:12]}…), and this is another model; name another run folder"
        )


def check_past(parent: Parent, data: Data) -> Data:
    """Makes sure that the parent has not learned from what this run validates or tests with, as far as that is known.

    Returns:
        The data, with a warning where it is not.

    Raises:
        TrainingError: it has.
    """
    if parent.split is not None:
        if seen := count_seen(parent.split, data):
            raise TrainingError(
                f"{parent.name} has seen {seen:,} of this run's validation or test images; --split {parent.split} "
                "keeps them apart as its own run did"
            )
        return data
    trained_on = parent.spec.provenance.get("data_fingerprint", "")
    fingerprint = compute_fingerprint(data.images.files, data.digests)
    if trained_on not in ("", fingerprint):
        return data
    why = "was trained on these very images" if trained_on else "does not say what it was trained on"
    warning = f"WARNING: {parent.name} {why}: that it has seen validation or test images CANNOT BE EXCLUDED."
    print(warning, file=sys.stderr)
    return replace(data, warnings=(*data.warnings, warning))


def tune_on(config: TuneUpConfig, data: Data, parent: Parent, folder: Path) -> None:
    """Tunes the parent on a split, and writes all that is said about the result, beside the parent itself."""
    copy_facts(data.images.root, folder)
    config = replace(config, positive=parent.spec.positive_labels)
    parent.check(data.store.read(data.indices("train")[:PROVEN])[..., : data.store.channels])
    weights = list(parent.network.get_weights())
    tuned = tune(config, data, parent, folder)
    network = parent.network
    network.set_weights(weights)
    before = [predict(network, data, data.indices(part)) for part in ("validation", "test")]
    network.set_weights(tuned.fit.weights)
    calibration = calibrate_network(config, data, network)

    def remark(spec: ModelSpec, predictions: Predictions) -> Remarks:
        return compare_with_parent(config, data, parent, before, tuned, spec, predictions)

    predictions, evaluation = write_results(config, data, tuned.fit, network, calibration, folder, remark=remark)
    write_answers(config, data, predictions, evaluation, folder)
    for name in MODEL_FILES:
        network.save(folder / name)
    for name in (LAST, WHOLE):
        shutil.rmtree(folder / name, ignore_errors=True)


def compare_with_parent(
    config: TuneUpConfig,
    data: Data,
    parent: Parent,
    before: list[NDArray[np.float32]],
    tuned: Tuned,
    spec: ModelSpec,
    predictions: Predictions,
) -> Remarks:
    """Returns what is to be said of the result beside its figures.

    Args:
        config: the settings.
        data: images and split.
        parent: the model that was tuned.
        before: what it answered on the validation and on the test images.
        tuned: what came out.
        spec: of the result.
        predictions: of the result, on the test images.
    """
    validation = data.indices("validation")
    positive = find_indices(spec.labels, config.positive)
    targets = data.images.targets[validation]
    scaling = fit_scaling(before[0], targets)
    anew = choose_decision(
        config.operating_point,
        score_positive(scaling.apply(before[0]), positive),
        np.isin(targets, positive),
        find_studies(data)[validation] if data.images.has_patients else None,
    )
    found = compare_judged(
        Judged("before", score_positive(before[1], positive), decide_as(parent.spec)),
        Judged("recalibrated", score_positive(scaling.apply(before[1]), positive), anew),
        Judged("after", predictions.scores, decide_as(spec)),
        predictions,
        kept_parent=tuned.kept == "parent",
        was_trained=bool(config.epochs or config.last_epochs),
    )
    conclusion = found.conclude()
    print(conclusion, file=sys.stderr)
    old = parent.spec.provenance
    facts = {
        "parent": f"{parent.name}, SHA-256 {parent.digest}",
        "parent_trained_on": f"{old.get('data', 'unknown')}, fingerprint {old.get('data_fingerprint', 'unknown')}",
        "tuned": f"kept: {tuned.kept}, epoch {tuned.fit.best.epoch} of {len(tuned.fit.history) - 1}",
        "before_and_after": conclusion,
        "flags": report.recorded_flags(config, ASKED),
    }
    own = parent.spec
    spec = replace(
        spec,
        **{name: getattr(own, name) for name in ("colour", "resample", "fit", "windows", "checks", "task")},
        intended_use=own.intended_use,
        provenance={
            **spec.provenance,
            **facts,
            "notes": " ".join([*config.notes, f"Tuned from {parent.name}. {conclusion}"]),
        },
    )
    return Remarks(spec, {"before_and_after": found.to_document()}, ((SECTION, found.render()),))
