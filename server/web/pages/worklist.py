"""The worklist as HTML: whole without script, and what an archive has written is text in it."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path

from starlette.responses import Response

from server.admission.status import Status
from server.web.pages.page import hash_elements
from server.web.problems import find_http_status, make_headers
from server.web.worklist.content import URGENCIES, Study, Worklist

PAGE, SCRIPT = (Path(__file__).with_name(name) for name in ("worklist.html", "sign_in.js"))

OLD_SECONDS = 180.0
"""The gateway writes its list once a minute, whether it has changed or not."""

AHEAD_SECONDS = 60.0
"""How far the clocks of gateway and server may differ before the age means nothing."""

NAMES = {"positive": "Positive", "not-analysed": "Not analysed", "rest": "Below the threshold"}
UNITS = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
REFRESH_SECONDS = 15

SIGN_IN = """<form><label for="token">Token</label>
<input id="token" type="password" autocomplete="off" required><button>Show the worklist</button></form>
<noscript><p>A browser sends a token by script alone, and this one runs none.</p></noscript>"""

_HEAD = "".join(
    f'<th scope="col"{attributes}>{name}</th>'
    for name, attributes in (
        ("Accession number", ""),
        ("Patient ID", ""),
        ("Study", ""),
        ("Answer", ""),
        ("Probability", ' class="number"'),
        ("Look first at", ""),
        ("Model", ""),
        ("Judged at", ""),
    )
)


def is_old(age: float) -> bool:
    """Whether a list of this age, in seconds, may lack studies: its writer has stopped, or clocks differ."""
    return not -AHEAD_SECONDS <= age <= OLD_SECONDS


def render_list(worklist: Worklist) -> str:
    """All studies, in a table for each urgency; of one worklist always the same."""
    sections = []
    for urgency in URGENCIES:
        rows = [render_row(study) for study in worklist.studies if study["urgency"] == urgency]
        sections.append(f'<h2 id="{urgency}">{NAMES[urgency]} ({len(rows)})</h2>')
        sections.append(render_table(urgency, rows) if rows else "<p>No study.</p>")
    if worklist.left_out:
        sections.append(f"<p>{worklist.left_out:,} more, less urgent than these, found no room.</p>")
    return "\n".join(sections)


def render_table(urgency: str, rows: list[str]) -> str:
    """A table that scrolls by itself where the screen is narrow, also with the keyboard."""
    body = "\n".join(rows)
    named = f'aria-labelledby="{urgency}"'
    return (
        f'<div class="scroll" role="region" {named} tabindex="0"><table {named}>\n'
        f"<thead><tr>{_HEAD}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def render_row(study: Study) -> str:
    """A study as a row of its table."""
    texts = {name: html.escape(value) if isinstance(value, str) else "" for name, value in study.items()}
    number = study["probability"]
    day = re.sub(r"^(\d{4})(\d\d)(\d\d)$", r"\1-\2-\3", texts["study_date"])
    hour = re.sub(r"^(\d\d)(\d\d).*", r"\1:\2", texts["study_time"])
    return (
        f'<tr><th scope="row">{texts["accession_number"] or "none"}</th><td>{texts["patient_id"]}</td>'
        f'<td>{day} {hour}<br><span class="uid">{texts["study_instance_uid"]}</span></td>'
        f"<td>{texts['label'] or texts['reasons']}</td>"
        f'<td class="number">{"" if number is None else f"{number:.3f}"}</td>'
        f"<td>{texts['look_first_at']}</td><td>{texts['model']}</td><td>{show_time(texts['judged_at'])}</td></tr>"
    )


def show_time(text: str) -> str:
    """A moment of the list in this machine's time; what is none stays as it is."""
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError):
        return text


def render_counts(worklist: Worklist) -> str:
    """What there is, in a line that is read aloud when it changes."""
    counts = ", ".join(f"{count} {NAMES[urgency].lower()}" for urgency, count in worklist.count().items())
    waiting = f" {worklist.waiting:,} more came and are not judged yet." if worklist.waiting else ""
    return f"<strong>{counts}</strong> in the last {worklist.hours:g} hours.{waiting}"


def render_state(worklist: Worklist, now: datetime) -> str:
    """How old the list is: one that nobody writes any more must not look like one of now."""
    age = worklist.find_age(now)
    written = worklist.written_at.astimezone()
    lines = [
        f'<p class="soft">As of <time datetime="{written.isoformat()}">{written:%Y-%m-%d %H:%M:%S}</time>, '
        f"{describe_age(age)}.</p>",
    ]
    if is_old(age):
        lines.insert(
            0,
            '<p class="warning" role="alert"><strong>Out of date.</strong> The gateway writes this list every minute; '
            f"this one was written {describe_age(age)}. It may have stopped: newer studies are missing here.</p>",
        )
    return "\n".join(lines)


def describe_age(age: float) -> str:
    """``12 seconds ago``, in the largest unit of which there are two."""
    if age < 0:
        return "just now" if age >= -AHEAD_SECONDS else "in the future, by the clock of this server"
    seconds, unit = next((one for one in UNITS if age >= 2 * one[0]), UNITS[-1])
    count = int(age // seconds)
    return f"{count} {unit}{'' if count == 1 else 's'} ago"


def render_control(seconds: int) -> str:
    """How often the page looks again, and how that is changed."""
    if seconds:
        return f'<p class="soft">Looks again every {seconds} seconds. <a href="?refresh=off">Stop that</a></p>'
    return (
        f'<p class="soft">Does not look again by itself. <a href="?">Look again every {REFRESH_SECONDS} seconds</a></p>'
    )


def make_list_page(worklist: Worklist, studies: str, now: datetime, seconds: int) -> Response:
    """The page with the list.

    Args:
        worklist: what is shown.
        studies: as ``render_list`` has made them.
        now: with a time zone.
        seconds: after which it looks again; 0: never.
    """
    texts = {
        "COUNTS": render_counts(worklist),
        "STATE": render_state(worklist, now),
        "CONTROL": render_control(seconds),
        "SECONDS": str(seconds),
        "LIST": studies,
    }
    return make_page(200, texts, {"refresh": str(seconds)} if seconds else {})


def make_refusal_page(status: Status, request_id: str) -> Response:
    """The page where there is no list, with the reason; it asks for a token where another one may help."""
    state = (
        f'<p class="warning" role="alert">{html.escape(status.message)}</p>\n'
        f'<p class="soft">{status.reason}, {html.escape(request_id)}</p>'
    )
    headers = make_headers(status)
    if status.reason.startswith("TOKEN_") or status.reason == "ROLE_MISSING":
        script = f"<script>{read(SCRIPT)}</script>"
        scripts = hash_elements(script.encode(), "script")
        texts = {"STATE": state, "CONTROL": SIGN_IN, "SCRIPT": script}
        return make_page(find_http_status(status), texts, headers, f"script-src {scripts}; connect-src 'self'; ")
    may_pass = status.code in ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
    texts = {"STATE": state, "SECONDS": str(REFRESH_SECONDS if may_pass else 0)}
    return make_page(find_http_status(status), texts, headers | ({"refresh": str(REFRESH_SECONDS)} if may_pass else {}))


def make_page(number: int, texts: Mapping[str, str], headers: Mapping[str, str], sources: str = "") -> Response:
    """A page with its policy.

    Args:
        number: the status of HTTP.
        texts: what stands where in the template; what is not there is empty.
        headers: besides those of every page.
        sources: of the policy, where the page has a script.
    """
    content = re.sub(r"\{\{(\w+)\}\}", lambda found: texts.get(found[1], ""), read(PAGE))
    styles = hash_elements(read(PAGE).encode(), "style")
    policy = (
        f"default-src 'none'; {sources}style-src {styles}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    policies = {"content-security-policy": policy}
    return Response(content.encode("utf-8", "replace"), number, {**headers, **policies}, "text/html")


@cache
def read(path: Path) -> str:
    """A file of the program."""
    return path.read_text("utf-8")
