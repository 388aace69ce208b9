"""The spec that travels in a model file."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from server.errors import ModelFileError
from server.models.contract import MODEL_CARD_BYTES, ModelSpec
from tests.fakes import SPEC, THREE


def test_round_trip_keeps_every_field_and_unknown_keys() -> None:
    """A spec of a newer converter loses nothing on its way through this one."""
    document = {**json.loads(SPEC.to_json()), "metrics": {"auc": 0.8}, "later": {"nested": [1, 2]}}

    spec = ModelSpec.from_json(json.dumps(document))

    assert json.loads(spec.to_json()) == document
    assert spec.extra == {"later": {"nested": [1, 2]}}
    assert spec.labels == ("normal", "stroke")
    assert spec.positive_indices == (1,)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema": 3}, "MODEL_SPEC_UNKNOWN_SCHEMA"),
        ({"schema": None}, "MODEL_SPEC_UNKNOWN_SCHEMA"),
        ({"labels": ["stroke"]}, "MODEL_SPEC_INVALID"),
        ({"labels": ["stroke", "stroke"]}, "MODEL_SPEC_INVALID"),
        ({"labels": "normal,stroke"}, "MODEL_SPEC_INVALID"),
        ({"positive_label": "bleed"}, "MODEL_SPEC_INVALID"),
        ({"threshold": 1.5}, "MODEL_SPEC_INVALID"),
        ({"threshold": "0.05"}, "MODEL_SPEC_INVALID"),
        ({"threshold": True}, "MODEL_SPEC_INVALID"),
        ({"name": "../etc"}, "MODEL_SPEC_INVALID"),
        ({"version": ""}, "MODEL_SPEC_INVALID"),
        ({"colour": "cmyk"}, "MODEL_SPEC_INVALID"),
        ({"fit": "zoom"}, "MODEL_SPEC_INVALID"),
        ({"resample": "magic"}, "MODEL_SPEC_INVALID"),
        ({"temperature": 0}, "MODEL_SPEC_INVALID"),
        ({"metrics": {"auc": "high"}}, "MODEL_SPEC_INVALID"),
        ({"provenance": {"seed": 7}}, "MODEL_SPEC_INVALID"),
        ({"model_card": ["# Card"]}, "MODEL_SPEC_INVALID"),
        ({"model_card": "ä" * (MODEL_CARD_BYTES // 2 + 1)}, "MODEL_SPEC_INVALID"),
        ({"model_card": "\ud800"}, "MODEL_SPEC_INVALID"),
        ({"schema": True}, "MODEL_SPEC_UNKNOWN_SCHEMA"),
        ({"labels": ["normal", "stroke", "\ud800"]}, "MODEL_SPEC_INVALID"),
        ({"labels": ["stroke", "x" * 201]}, "MODEL_SPEC_INVALID"),
        ({"labels": ["stroke", *map(str, range(1000))]}, "MODEL_SPEC_INVALID"),
        ({"temperature": 10**400}, "MODEL_SPEC_INVALID"),
        ({"threshold": 10**400}, "MODEL_SPEC_INVALID"),
        ({"metrics": {"auc": 10**400}}, "MODEL_SPEC_INVALID"),
        ({"task": "\udfff"}, "MODEL_SPEC_INVALID"),
        ({"characters": "x" * 600_000}, "MODEL_SPEC_INVALID"),
        ({"positive_label": ["stroke"]}, "MODEL_SPEC_INVALID"),
        ({"positive_labels": ["stroke"]}, "MODEL_SPEC_INVALID"),
    ],
)
def test_unusable_spec_is_refused(change: dict[str, object], reason: str) -> None:
    """Each field is checked, and the message names it."""
    document = {**json.loads(SPEC.to_json()), **change}

    with pytest.raises(ModelFileError, match=next(iter(change))) as refusal:
        ModelSpec.from_json(json.dumps(document))

    assert refusal.value.reason == reason


def test_one_positive_label_is_written_as_ever() -> None:
    """A file that an older server knows stays one, to the byte."""
    document = json.loads(SPEC.to_json())

    assert (document["schema"], document["positive_label"]) == (1, "stroke")
    assert "positive_labels" not in document


def test_several_positive_labels_are_of_a_schema_of_their_own() -> None:
    """An older server, which would look at one of them alone, refuses the file."""
    document = json.loads(THREE.to_json())

    assert (document["schema"], document["positive_labels"]) == (2, ["haemorrhagic", "ischaemic"])
    assert "positive_label" not in document
    assert ModelSpec.from_json(THREE.to_json()) == THREE


@pytest.mark.parametrize(
    "positive",
    [
        [],
        ["stroke"],
        ["ischaemic", "ischaemic"],
        ["normal", "haemorrhagic", "ischaemic"],
        ["ischaemic", 3],
        "ischaemic",
        {"ischaemic": 1},
        None,
    ],
)
def test_positive_labels_are_some_of_the_labels(positive: object) -> None:
    """Each once, never all of them, never none."""
    document = {**json.loads(THREE.to_json()), "positive_labels": positive}

    with pytest.raises(ModelFileError, match="positive_label") as refusal:
        ModelSpec.from_json(json.dumps(document))

    assert refusal.value.reason == "MODEL_SPEC_INVALID"


def test_a_file_says_in_one_way_what_is_positive() -> None:
    """Of two keys nobody knows which one holds."""
    document = {**json.loads(THREE.to_json()), "positive_label": "ischaemic"}

    with pytest.raises(ModelFileError, match="'positive_label' is not for schema 2"):
        ModelSpec.from_json(json.dumps(document))


def test_positive_score_of_one_label_is_its_probability() -> None:
    """To the bit, and in the precision of the graph, whose answers are compared so in many places."""
    answers = np.array([[0.9, 0.1], [0.3, 0.7]], np.float32)

    assert SPEC.positive_scores(answers).dtype == np.float32
    assert SPEC.positive_scores(answers).tolist() == answers[:, 1].tolist()
    assert SPEC.positive_score(answers[0]) == float(np.float32(0.1))


def test_positive_score_of_several_labels_is_their_sum_in_double_precision() -> None:
    """What float32 would lose may decide; more than 1, from rounding in the graph, is 1."""
    answers = np.array([[0.9, 0.1, 1e-9], [0.0, 0.6, 0.4000001]], np.float32)

    first, second = THREE.positive_scores(answers)

    assert first == float(np.float32(0.1)) + float(np.float32(1e-9))
    assert second == 1.0
    assert [THREE.positive_score(row.tolist()) for row in answers] == [first, second]


def test_most_probable_positive_label_is_the_first_of_equals() -> None:
    """In the order in which the spec names them, whichever way an answer is written."""
    assert THREE.find_top_positive([0.2, 0.3, 0.5]) == 2
    assert THREE.find_top_positive(np.array([0.2, 0.4, 0.4], np.float32)) == 1


def test_spec_of_an_older_converter_has_no_card() -> None:
    """A file that was made before there were cards is served as before."""
    document = json.loads(SPEC.to_json())
    del document["model_card"]

    assert ModelSpec.from_json(json.dumps(document)).model_card == ""


def test_longest_card_is_carried() -> None:
    """The limit is inclusive, and counts bytes."""
    card = "ä" * (MODEL_CARD_BYTES // 2)

    assert ModelSpec.from_json(replace(SPEC, model_card=card).to_json()).model_card == card


@pytest.mark.parametrize("text", ["", "not json", "[]", "3"])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    """Garbage under the metadata key is a clear error."""
    with pytest.raises(ModelFileError) as refusal:
        ModelSpec.from_json(text)

    assert refusal.value.reason == "MODEL_SPEC_INVALID"


@pytest.mark.parametrize("key", ["name", "version", "labels", "positive_label", "threshold"])
def test_missing_field_is_named(key: str) -> None:
    """What has no default must be there."""
    document = json.loads(SPEC.to_json())
    del document[key]

    with pytest.raises(ModelFileError, match=f"{key} is missing"):
        ModelSpec.from_json(json.dumps(document))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"schema": ' + "1" * 5000 + "}",
        SPEC.to_json().replace("0.05", "NaN"),
        SPEC.to_json().replace("0.05", "1e999"),
        SPEC.to_json().replace('"fit"', '"colour"'),
    ],
    ids=["nested", "endless digits", "NaN", "too large a number", "a key twice"],
)
def test_text_that_is_no_plain_json_is_refused(text: str) -> None:
    """Whatever Python's reader would make of it."""
    with pytest.raises(ModelFileError) as refusal:
        ModelSpec.from_json(text)

    assert refusal.value.reason == "MODEL_SPEC_INVALID"
