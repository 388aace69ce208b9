"""docs/security.md has the gateway's bounds as they are."""

from __future__ import annotations

from pathlib import Path

from gateway.fetch import archive, limit
from gateway.judge import selection
from gateway.judge.settings import MOST_CHARACTERS, MOST_PATTERNS
from gateway.listen.service import FETCHES
from gateway.listen.settings import ListenConfig
from gateway.queue import steps
from gateway.receive import bounded, procedure_step, receiver
from tests.fakes import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")


def test_settings_have_these_defaults() -> None:
    """Whoever has set nothing has these bounds."""
    config = ListenConfig(queue=Path("queue"), folder_to=(".",))
    for name in ("senders", "instance_mb", "least_free_mb", "fetch_seconds"):
        assert f"`--{name.replace('_', '-')}` ({getattr(config, name):g})" in PAGE


def test_bounds_that_are_no_settings_are_these() -> None:
    """In the words of the page."""
    seconds = (receiver.ASSOCIATION_SECONDS, receiver.MESSAGE_SECONDS, receiver.IDLE_SECONDS)
    said = [
        f"{bounded.SPARE_CONNECTIONS} connections more",
        "{:g} s for handshake and request, {:g} s for an answer, {:g} s without a word".format(*seconds),
        f"{bounded.MOST_PDU_BYTES >> 20} MiB a PDU",
        f"{bounded.MOST_WAITING} messages of an association",
        f"{procedure_step.MOST_STEP_BYTES // 10**6} MB and {procedure_step.MOST_ITEMS:,} items a message",
        f"{procedure_step.MOST_IMAGES:,} images, {procedure_step.MOST_SERIES} series and ",
        f" and {procedure_step.MOST_STUDIES} studies a step",
        f"{steps.MOST_OF_STUDY} steps a study; {steps.MOST_STEPS} steps and {steps.MOST_BYTES // 10**6} MB in all",
        f"for {steps.KEEP_SECONDS / 86_400:g} days",
        f"C-CANCEL, {limit.GRACE_SECONDS:g} s later an abort; {FETCHES} at the same time",
        f"{archive.MOST_MATCHES} series, {archive.MOST_IMAGES:,} images of one",
        f"{archive.MOST_WAITING[archive.FIND][0] >> 10} kB an answer",
        f"{archive.MOST_WAITING[archive.MOVE][0] // 10**6} MB of a list",
        f"{selection.MOST_TEXT} characters are looked at, by {MOST_PATTERNS} patterns of {MOST_CHARACTERS}",
    ]

    assert [one for one in said if one not in PAGE] == []
