"""deploy/orthanc/strokeserve_page.py: what came of each study, and a button that no other site can press."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest

from tests.orthanc_fake import PLUGIN, STUDY, Site


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.syspath_prepend(PLUGIN)
    return Site(importlib.import_module("strokeserve_page"))


def test_page_shows_what_came_of_a_study(site: Site) -> None:
    """What the archive has written is text in it, and nothing is asked of another machine."""
    answer = site.ask("index.html")
    body = answer.body.decode()

    assert answer.status == 200
    assert "Positive</a></th>" in body
    assert "<script>alert" not in body
    assert "&lt;script&gt;alert(1)" in body
    assert "Doe" not in body
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(https?:)?//", body)
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    ("outcome", "state", "said"),
    [
        ({"state": "judged", "entry": {"urgency": "rest", "label": "normal"}}, "Below the threshold", "normal"),
        (
            {"state": "judged", "entry": {"urgency": "not-analysed", "reasons": [{"reason": "NO_SERIES"}]}},
            "Not analysed",
            "NO_SERIES",
        ),
        ({"state": "given up", "reason": "SERVER_UNREACHABLE"}, "Given up", "SERVER_UNREACHABLE"),
        ({"state": "given up", "reason": "A", "entry": {"urgency": "positive", "label": "stroke"}}, "Given up", "A"),
    ],
)
def test_states_have_names(site: Site, outcome: dict[str, Any], state: str, said: str) -> None:
    """And the answer, or the reason why there is none."""
    site.keep(**outcome)
    row = site.read_row()

    assert (row["state"], row["answer"]) == (state, said)


def test_studies_that_wait_come_first(site: Site) -> None:
    """With the reason of the last try."""
    site.worker.pending = {STUDY: (False, "SERVER_UNREACHABLE")}
    assert (site.read_row()["state"], site.read_row()["answer"]) == ("Waits", "SERVER_UNREACHABLE")

    site.worker.pending = {STUDY: (True, "")}
    assert site.read_row()["state"] == "Being judged"


def test_metadata_of_somebody_else_are_none(site: Site) -> None:
    """The study is shown, and no more."""
    for text in ("x", "[]", "3"):
        site.orthanc.write_metadata(STUDY, "4713", text)
        assert site.read_row()["state"] == ""


def test_button_asks_again(site: Site) -> None:
    """By the form of a page of this process, and leads back to the page."""
    body = site.ask("index.html").body.decode()
    (action,) = re.findall(r'<form method="post" action="([^"]+)">', body)
    (token,) = re.findall(r'name="token" value="([^"]+)"', body)

    answer = site.ask(action, "POST", headers={}, body=f"token={token}".encode())

    assert (answer.status, answer.headers["Location"]) == (303, "../../index.html")
    assert site.worker.asked == [STUDY]


def test_programs_ask_with_a_header(site: Site) -> None:
    """Which a page of another site cannot send."""
    assert site.ask(f"studies/{STUDY}/ask", "POST", headers={"x-requested-with": "curl"}, body=b"").status == 303


@pytest.mark.parametrize("body", [b"", b"token=", b"token=x", b"\xff" * 9, b"token=" + b"x" * 10**6])
def test_other_sites_cannot_press_it(site: Site, body: bytes) -> None:
    """Nor can a form of before a restart."""
    assert site.ask(f"studies/{STUDY}/ask", "POST", headers={}, body=body).status == 403
    assert site.worker.asked == []


def test_requests_that_are_none_are_refused(site: Site) -> None:
    """Other paths and methods, studies that are not there, and more than there is room for."""
    by_program = {"headers": {"x-requested-with": "curl"}, "body": b""}
    assert site.ask("../instances").status == 404
    assert site.ask("studies/x/ask", "POST", **by_program).status == 404
    assert site.ask(f"studies/{STUDY[:-1]}0/ask", "POST", **by_program).status == 404
    assert site.ask(f"studies/{STUDY}/ask").status == 405
    assert site.ask("index.html", "POST", **by_program).status == 405
    assert site.ask("").headers["Location"] == "/strokeserve/index.html"
    site.worker.has_room = False
    assert site.ask(f"studies/{STUDY}/ask", "POST", **by_program).status == 503
