"""``explain`` of both clients, and ``--heatmap`` of the command line."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

import client
from client import ServerError
from client.cli.main import main
from tests.client_fakes import OVERLAY, FakeServer, RefusalError, make_refusal_to_judge
from tests.client_kinds import ClientKind


def test_explanation_has_prediction_picture_and_cells(either: ClientKind, server: FakeServer) -> None:
    """Rows from the top; the prediction is that of the same image."""
    explanation = either.call("explain", b"stroke 1", model="stroke-cnn", version="1", request_id="case-1")

    assert explanation.prediction.label == "stroke"
    assert explanation.prediction.request_id == "case-1"
    assert explanation.overlay_png == OVERLAY
    assert explanation.heatmap == ((0, 1, 2), (3, 4, 5))
    assert explanation.box == (-8, 16, 496, 480)
    (request,) = server.servicer.requests
    assert (request.model_name, request.model_version) == ("stroke-cnn", "1")


def test_image_that_is_not_analysed_has_no_picture(either: ClientKind, server: FakeServer) -> None:
    """It is an answer, not an error."""
    server.servicer.judge = make_refusal_to_judge

    explanation = either.call("explain", b"blank")

    assert not explanation.prediction.is_analysed
    assert (explanation.overlay_png, explanation.heatmap) == (b"", ())


def test_heatmap_of_another_size_than_it_says_is_no_answer(either: ClientKind, server: FakeServer) -> None:
    """Cells that would be drawn in other places."""
    server.servicer.cells = 5

    with pytest.raises(ServerError) as failure:
        either.call("explain", b"stroke 1")

    assert failure.value.reason == "ANSWER_INVALID"


def test_server_that_does_not_explain_says_so(either: ClientKind, server: FakeServer) -> None:
    """With its own reason and sentence."""
    server.servicer.raise_once(b"x", RefusalError(grpc.StatusCode.UNIMPLEMENTED, "EXPLAIN_DISABLED", "Not started so."))

    with pytest.raises(ServerError) as failure:
        either.call("explain", b"x")

    assert (failure.value.reason, str(failure.value)) == ("EXPLAIN_DISABLED", "Not started so.")


def test_explanation_is_a_public_name() -> None:
    """For annotations of those who use it."""
    assert client.Explanation.__module__ == "client"


def test_command_line_writes_the_picture(
    cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside the answer, which is printed as ever."""
    assert main(["scans/b.png", "--heatmap", "out.png"]) == 0

    assert Path("out.png").read_bytes() == OVERLAY
    assert "stroke 0.973" in capsys.readouterr().out


def test_nothing_is_written_over(cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Least of all the image; and nobody is asked in vain."""
    assert main(["scans/b.png", "--heatmap", "scans/b.png"]) == 2

    assert capsys.readouterr().err == "error: scans/b.png exists: name another file for the heatmap\n"
    assert cli_server.servicer.requests == []


@pytest.mark.parametrize("arguments", [["scans/b.png", "scans/c.jpeg"], ["--watch", "scans"]])
def test_several_images_are_wrong_usage(
    cli_server: FakeServer, scans: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """One file holds one picture."""
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--heatmap", "out.png"])

    assert end.value.code == 2
    assert "--heatmap goes with one image" in capsys.readouterr().err


def test_folder_of_several_images_is_refused(
    cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a folder holds shows only when it is looked at."""
    assert main(["scans", "--heatmap", "out.png"]) == 2

    assert "--heatmap goes with one image, not with the 4 that were named" in capsys.readouterr().err
    assert not Path("out.png").exists()


def test_image_without_a_heatmap_leaves_no_file(
    cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A note says why; the answer is an answer."""
    cli_server.servicer.judge = make_refusal_to_judge

    assert main(["scans/b.png", "--heatmap", "out.png"]) == 0

    assert "note: out.png is not written: the image was not analysed" in capsys.readouterr().err
    assert not Path("out.png").exists()


def test_folder_that_cannot_be_written_to_is_one_line(
    cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 1, no traceback."""
    assert main(["scans/b.png", "--heatmap", "no/such/out.png"]) == 1

    assert "no/such/out.png" in capsys.readouterr().err
