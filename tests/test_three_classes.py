"""A model with two kinds of stroke, by every face of one server: what is positive is their sum, and which kind is the
more probable one."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client import Prediction, StrokeClient
from client.cli.main import main
from proto import stroke_pb2 as pb
from tests.audit_logs import read_log
from tests.explaining import make_corner, write_explained
from tests.fakes import THREE, encode, make_slice, wait_until, write_model
from tests.oip_calls import ask, calling, texts
from tests.scraping import find_free_port, scrape
from tests.web_calls import WebServer, serve_web

KINDS = ("haemorrhagic", "ischaemic")
SPEC = replace(THREE, study_top_k=2, study_threshold=0.75)
LEVELS = {"bright": 200, "dark": 60, "middle": 128}
IMAGES = {name: encode(make_slice(level)) for name, level in LEVELS.items()}
LABELS = {"bright": "haemorrhagic", "dark": "ischaemic", "middle": "normal"}


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit") / "audit.jsonl"


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return find_free_port()


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory, audit: Path, metrics_port: int) -> Iterator[WebServer]:
    """A server of a model with three classes, and of one that leaves what is near its threshold to people."""
    root = tmp_path_factory.mktemp("models")
    write_explained(root, SPEC)
    write_model(root, replace(SPEC, name="careful", indeterminate_margin=0.1))
    settings: dict[str, Any] = {"audit": audit, "metrics_port": metrics_port, "explain": True}
    with serve_web(root, tmp_path_factory.mktemp("web"), model="tiny,careful", **settings) as server:
        yield server


@pytest.fixture
def client(web: WebServer) -> Iterator[StrokeClient]:
    with StrokeClient(web.socket) as client:
        yield client


@pytest.fixture
def scans(web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an image of each kind, seen from the folder above."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for name, image in IMAGES.items():
        (folder / f"{name}.png").write_bytes(image)
    monkeypatch.setenv("STROKE_SERVER", web.socket)
    monkeypatch.chdir(tmp_path)
    return folder


def check(name: str, prediction: Prediction) -> None:
    """Whether it is what the model should say of an image."""
    total = prediction.scores["haemorrhagic"] + prediction.scores["ischaemic"]
    assert list(prediction.scores) == ["normal", *KINDS]
    assert prediction.positive_labels == KINDS
    assert prediction.positive_probability == pytest.approx(total)
    assert prediction.label == LABELS[name]
    assert prediction.is_positive == (name != "middle") == (prediction.positive_probability > 0.75)
    assert prediction.positive_label == max(KINDS, key=prediction.scores.__getitem__)
    assert prediction.confidence == prediction.scores[prediction.label]


def test_single_images_streams_and_explanations_say_the_same(client: StrokeClient) -> None:
    """The kind that is the more probable one, where both together are above the threshold."""
    for name, image in IMAGES.items():
        check(name, client.predict(image))
        check(name, client.explain(image).prediction)
    for name, result in zip(IMAGES, client.predict_many(IMAGES.values()), strict=True):
        assert isinstance(result, Prediction)
        check(name, result)


def test_neither_kind_alone_need_be_above_the_threshold(client: StrokeClient) -> None:
    """Nor the most probable of all labels: the sum decides."""
    image = encode(make_slice(150))
    prediction = client.predict(image)

    assert max(prediction.scores.values()) < prediction.threshold < prediction.positive_probability
    assert prediction.label == "haemorrhagic"


def test_model_says_what_it_looks_for(client: StrokeClient, capsys: pytest.CaptureFixture[str], scans: Path) -> None:
    """To the library and on the command line; an older client finds no single label that it could take for all."""
    info = client.model_info()

    assert (info.positive_labels, info.positive_label) == (KINDS, "")
    assert main(["models", "tiny"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["positive", "haemorrhagic", "or", "ischaemic", "above", "0.75"] for line in lines)


def test_lines_and_summary_name_both(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every positive label is called so in the summary, and the probability is that of both."""
    assert main(["scans"]) == 0

    out, err = capsys.readouterr()
    assert "scans/bright.png: haemorrhagic 0." in out
    assert out.count("P(haemorrhagic or ischaemic) 0.") == 3
    assert err.startswith("3 images: 1 positive (haemorrhagic), 1 positive (ischaemic), 1 normal, 0 failed; ")


def test_json_and_tables_have_the_sum(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the probability of each class."""
    assert main(["scans", "--json"]) == 0
    records = {Path(one["file"]).stem: one for one in map(json.loads, capsys.readouterr().out.splitlines())}
    assert main(["scans", "--csv", "-"]) == 0
    rows = {Path(one["file"]).stem: one for one in csv.DictReader(io.StringIO(capsys.readouterr().out))}

    for name, label in LABELS.items():
        record, row = records[name], rows[name]
        assert record["label"] == row["label"] == label
        assert (record["positive_labels"], record["positive_label"] == label) == (list(KINDS), label in KINDS)
        assert record["positive_probability"] == pytest.approx(
            record["p_haemorrhagic"] + record["p_ischaemic"], abs=2e-6
        )
        assert float(row["positive_probability"]) == record["positive_probability"]
        assert row["positive_label"] == record["positive_label"]


@pytest.mark.parametrize("flag", ["--output", "--csv"])
def test_results_that_were_there_are_counted_by_their_kinds(
    flag: str, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that goes on with them marks all that is positive."""
    (scans / "middle.png").rename("later.png")
    assert main(["scans", flag, "results"]) == 0
    Path("later.png").rename(scans / "middle.png")
    capsys.readouterr()

    assert main(["scans", flag, "results", "--resume"]) == 0

    err = capsys.readouterr().err
    assert "3 images: 2 done before, 1 normal, 0 failed; " in err
    assert "in all 1 positive (haemorrhagic), 1 positive (ischaemic), 1 normal, 0 failed" in err


def test_study_is_of_the_kind_of_its_highest_slices(
    client: StrokeClient, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its score is the mean of sums, its label the kind that is the more probable in the slices that made it."""
    slices = [IMAGES["middle"], IMAGES["dark"], IMAGES["dark"], IMAGES["bright"], encode(make_slice(40, seed=3))]
    study = client.predict_study(slices)

    assert (study.label, study.positive_label, study.is_positive) == ("ischaemic", "ischaemic", True)
    assert study.positive_labels == KINDS
    assert study.first_look is not None
    assert study.first_look.positive_probability > 0.9
    assert main(["--study", "scans", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["label"], record["positive_labels"]) == ("haemorrhagic", list(KINDS))
    below = client.predict_study([IMAGES["middle"]] * 3)
    assert (below.label, below.is_positive) == ("normal", False)


def test_http_says_the_same(web: WebServer) -> None:
    """As the description of the interface has it, against which every answer is held."""
    found = web.post_image(IMAGES["dark"]).json
    study = web.post_form("/study", *[("file", IMAGES["bright"])] * 3).json
    models = {one["name"]: one for one in web.ask("GET", "/models").json["models"]}

    assert (found["class"], found["positive_label"], found["positive_labels"]) == (
        "ischaemic",
        "ischaemic",
        list(KINDS),
    )
    assert found["positive_probability"] == found["scores"]["haemorrhagic"] + found["scores"]["ischaemic"]
    assert (study["class"], study["positive_label"], study["positive_labels"]) == (*[KINDS[0]] * 2, list(KINDS))
    assert (models["tiny"]["positive_label"], models["tiny"]["positive_labels"]) == (None, list(KINDS))


def test_study_of_which_nothing_is_known_is_of_no_kind(web: WebServer) -> None:
    """As null, over HTTP."""
    found = web.post_form("/study", ("file", b"no image")).json

    assert (found["status"], found["class"], found["positive_label"]) == ("NOT_ANALYSED", None, None)


def test_inference_protocol_says_the_same(web: WebServer) -> None:
    """All probabilities, the sum, and which labels it is of."""
    with calling(web.socket) as caller:
        answer = caller.infer(ask(IMAGES["dark"], IMAGES["middle"], is_raw=False))

    outputs = {output.name: list(output.contents.fp32_contents) for output in answer.outputs}
    assert texts(answer, "label") == [b"ischaemic", b"normal"]
    for number, sum_ in enumerate(outputs["positive_probability"]):
        assert sum_ == pytest.approx(sum(outputs["probabilities"][3 * number + 1 : 3 * number + 3]))
    assert json.loads(answer.parameters["positive_labels"].string_param) == list(KINDS)
    assert "positive_label" not in answer.parameters


def test_what_is_near_the_threshold_is_left_to_people(client: StrokeClient) -> None:
    """Near is meant of the sum: of level 128 it is 2/3."""
    near = client.predict(IMAGES["middle"], model="careful")
    far = client.predict(IMAGES["bright"], model="careful")

    assert [reason.reason for reason in near.reasons] == ["INDETERMINATE"]
    assert not near.is_positive
    assert far.label == "haemorrhagic"


def test_older_client_tells_positive_answers(client: StrokeClient, web: WebServer) -> None:
    """It compares the label with the positive one, and knows no other field."""
    import grpc

    from proto import stroke_pb2_grpc

    with grpc.insecure_channel(web.socket) as channel:
        stub = stroke_pb2_grpc.StrokeServiceStub(channel)
        answers = {name: stub.Predict(pb.PredictRequest(image=image), timeout=60) for name, image in IMAGES.items()}

    assert {name: one.label == one.positive_label for name, one in answers.items()} == {
        "bright": True,
        "dark": True,
        "middle": False,
    }
    assert all((one.label == one.positive_label) == (one.positive_probability > 0.75) for one in answers.values())


def test_audit_and_metrics_know_of_both(client: StrokeClient, web: WebServer, audit: Path, metrics_port: int) -> None:
    """A line says which labels its probability is of; every positive label counts as such."""
    request = client.predict(IMAGES["dark"]).request_id
    wait_until(lambda: any(line.get("id") == request for line in read_log(audit)))
    line = next(line for line in read_log(audit) if line.get("id") == request)
    page = scrape(metrics_port)

    assert (line["label"], line["positive_label"], line["positive_labels"]) == (*["ischaemic"] * 2, list(KINDS))
    assert line["positive_probability"] > 0.9
    for label, positive in (("ischaemic", "true"), ("normal", "false")):
        assert page.get("stroke_answers_total", model="tiny", version="1", label=label, positive=positive) >= 1


def test_evidence_is_that_of_both(web: WebServer) -> None:
    """The picture and the heatmap of an image that either kind may have made."""
    found = web.ask("POST", "/explain", encode(make_corner()), content_type="image/png").json

    assert found["prediction"]["positive_labels"] == list(KINDS)
    assert found["heatmap"][0][0] > 0
