"""What /strokeserve answers: a page that works without any other machine, the same as JSON, and a button."""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
import json
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from strokeserve_gateway import Archive
from strokeserve_worker import GIVEN_UP, Worker, read_outcome

TEMPLATE = Path(__file__).with_name("strokeserve_page.html")
TOKEN = secrets.token_hex(16)
"""In every form of this process's pages: a page of another site does not know it."""

MOST_SHOWN, MOST_FORM_BYTES = 50, 1000
_ASK = re.compile(r"studies/([0-9a-f]{8}(?:-[0-9a-f]{8}){4})/ask")
_NAMES = {"positive": "Positive", "not-analysed": "Not analysed", "rest": "Below the threshold"}


@dataclass
class Answer:
    """What a browser gets."""

    body: bytes
    kind: str = "text/plain"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def answer(orthanc: Archive, worker: Worker, method: str, path: str, request: dict[str, Any]) -> Answer:
    """Answers a request.

    Args:
        orthanc: the archive.
        worker: who judges.
        method: ``GET`` or ``POST``.
        path: behind /strokeserve/.
        request: what Orthanc's plugin gives: ``headers`` in lower case, ``body``.
    """
    asked = _ASK.fullmatch(path)
    if asked:
        return take_ask(orthanc, worker, method, asked[1], request)
    if path not in ("", "index.html", "studies"):
        return Answer(b"", status=404)
    if method != "GET":
        return Answer(b"", status=405, headers={"Allow": "GET"})
    if not path:  # links of the page are relative to its folder, since a proxy may have put all of it into another one
        return Answer(b"", status=307, headers={"Location": "/strokeserve/index.html"})
    rows = list_rows(orthanc, worker)
    if path == "studies":
        return Answer(json.dumps(rows).encode(), "application/json", headers={"Cache-Control": "no-store"})
    body = render(rows)
    headers = {
        "Content-Security-Policy": make_policy(body),
        "Cache-Control": "no-store",
        "Referrer-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
    }
    return Answer(body, "text/html; charset=utf-8", headers=headers)


def take_ask(orthanc: Archive, worker: Worker, method: str, study: str, request: dict[str, Any]) -> Answer:
    """Has a study judged again. It takes the token of a page, or a header that no form of another site can send."""
    headers, body = request.get("headers", {}), request.get("body", b"")
    if method != "POST":
        return Answer(b"", status=405, headers={"Allow": "POST"})
    given = parse_qs(body.decode("ascii", "replace")).get("token", [""])[0] if len(body) <= MOST_FORM_BYTES else ""
    if not (hmac.compare_digest(given.encode(), TOKEN.encode()) or headers.get("x-requested-with")):
        return Answer(b"Load the page again: this form is of another one.\n", status=403)
    if orthanc.get(f"/studies/{study}") is None:
        return Answer(b"There is no such study.\n", status=404)
    if not worker.ask(study):
        return Answer(b"Too many studies wait: ask later.\n", status=503)
    return Answer(b"", status=303, headers={"Location": "../../index.html"})


def list_rows(orthanc: Archive, worker: Worker) -> list[dict[str, Any]]:
    """Studies that wait, and those that were judged lately, as JSON has them."""
    pending = worker.list_pending()
    rows: list[dict[str, Any]] = []
    for study in [*pending, *(one for one in worker.list_recent() if one not in pending)][:MOST_SHOWN]:
        found = orthanc.get(f"/studies/{study}")
        if found is None:
            continue
        tags = {**found["PatientMainDicomTags"], **found["MainDicomTags"]}
        row = {"study": study, "state": "", "answer": "", "model": "", "judged_at": ""}
        row |= {"accession_number": tags.get("AccessionNumber", ""), "patient_id": tags.get("PatientID", "")}
        row["study_date"] = tags.get("StudyDate", "")
        is_current, reason = pending.get(study, (None, ""))
        rows.append(row | describe(read_outcome(orthanc, study), is_current, reason))
    return rows


def describe(outcome: dict[str, Any], is_current: bool | None, reason: str) -> dict[str, Any]:
    """State and answer of a study.

    Args:
        outcome: what came of it before.
        is_current: whether it is being judged; None: it does not wait.
        reason: why it was not judged at the last try.
    """
    entry = outcome.get("entry", {})
    row = {"urgency": entry.get("urgency", ""), "judged_at": outcome.get("at", "")}
    row["model"] = f"{entry.get('model', '')} {entry.get('version', '')}".strip()
    row["probability"] = entry.get("probability")
    row["answer"] = entry.get("label") or ", ".join(one["reason"] for one in entry.get("reasons", []))
    row["state"] = _NAMES.get(row["urgency"], "")
    if is_current is not None:
        row["state"] = "Being judged" if is_current else "Waits"
        row["urgency"], row["answer"] = "", reason or row["answer"]
    elif outcome.get("state") == GIVEN_UP:
        row["state"], row["urgency"], row["answer"] = "Given up", "not-analysed", outcome.get("reason", "")
    return row


def render(rows: list[dict[str, Any]]) -> bytes:
    """The page in UTF-8; whatever the archive has written is text in it."""
    texts = {
        "COUNT": f"{len(rows)} {'study' if len(rows) == 1 else 'studies'}",
        "TIME": datetime.now().strftime("%H:%M:%S"),
        "ROWS": "\n".join(map(render_row, rows)),
    }
    template = TEMPLATE.read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: texts[found[1]], template).encode("utf-8", "replace")


def render_row(row: dict[str, Any]) -> str:
    """A study as a row of the table."""
    probability = "" if row["probability"] is None else f"{row['probability']:.3f}"
    day = re.sub(r"^(\d{4})(\d\d)(\d\d)$", r"\1-\2-\3", row["study_date"])
    texts = (row["answer"], probability, row["accession_number"], row["patient_id"], day, row["model"])
    cells = "".join(f"<td>{html.escape(str(one))}</td>" for one in texts)
    link = f"../app/explorer.html#study?uuid={row['study']}"
    label = html.escape(f"Ask again for study {row['accession_number'] or row['study'][:8]}")
    form = (
        f'<form method="post" action="studies/{row["study"]}/ask"><input type="hidden" name="token" value="{TOKEN}">'
        f'<button aria-label="{label}">Ask again</button></form>'
    )
    state = (
        f'<th scope="row" class="{html.escape(row["urgency"])}"><a href="{link}">{html.escape(row["state"])}</a></th>'
    )
    return f"<tr>{state}{cells}<td>{form}</td></tr>"


def make_policy(body: bytes) -> str:
    """A policy (Content Security Policy, level 3) under which a browser runs the page's own elements alone."""
    scripts, styles = (
        " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(found).digest()).decode()}'"
            for found in re.findall(rb"<%b[^>]*>(.*?)</%b>" % (name, name), body, re.DOTALL)
        )
        for name in (b"script", b"style")
    )
    return (
        f"default-src 'none'; connect-src 'self'; script-src {scripts}; style-src {styles}; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
