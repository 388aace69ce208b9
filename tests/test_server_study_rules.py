"""Which slices are left out by their header alone, what is said of it, and the file that changes the rules."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from server.config import ServerConfig
from server.core.study.exclusion import CHECKS, find_exclusion
from server.core.study.facts import keep_facts
from server.core.study.rules import DEFAULT_RULES, SeriesRules, render_table
from server.core.study.rules_file import RulesFileError, read_rules
from server.lifecycle.doctor import PROBLEM, examine
from tests.fakes import ROOT
from tests.studies import HEADER

CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
TILTED = (1.0, 0.0, 0.0, 0.0, 0.906, -0.423)
"""By 25 degrees."""


def find_reason(rules: SeriesRules = DEFAULT_RULES, **changes: Any) -> str:
    exclusion = find_exclusion(replace(HEADER, **changes), rules)
    return exclusion.reason if exclusion else ""


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("WRONG_MODALITY", {"modality": "MR"}),
        ("WRONG_MODALITY", {"modality": ""}),
        ("LOCALIZER", {"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}),
        ("LOCALIZER", {"image_type": ("ORIGINAL", "PRIMARY", "SCOUT")}),
        ("LOCALIZER", {"series_description": "Topogram 0.6 T20f"}),
        ("DERIVED", {"image_type": ("DERIVED", "PRIMARY", "AXIAL")}),
        ("DERIVED", {"image_type": ("ORIGINAL", "SECONDARY", "AXIAL")}),
        ("DERIVED", {"image_type": ("ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 MPR")}),
        ("DERIVED", {"image_type": ("DERIVED", "SECONDARY", "AXIAL"), "is_lossy": True}),
        ("OTHER_BODY_PART", {"body_part": "CHEST"}),
        ("CONTRAST", {"contrast_agent": "APPLIED"}),
        ("CONTRAST", {"series_description": "CTA head 0.6"}),
        ("BONE_KERNEL", {"kernel": ("H60s",)}),
        ("BONE_KERNEL", {"kernel": ("Hr64", "3")}),
        ("BONE_KERNEL", {"kernel": ("J70h",)}),
        ("BONE_KERNEL", {"kernel": ("BONEPLUS",)}),
        ("BONE_KERNEL", {"kernel": ("FC30",)}),
        ("BONE_KERNEL", {"kernel": ("YC",)}),
        ("NOT_AXIAL", {"orientation": CORONAL}),
        ("NOT_AXIAL", {"orientation": SAGITTAL}),
        ("NOT_AXIAL", {"orientation": None, "image_type": ("ORIGINAL", "PRIMARY")}),
        ("NOT_AXIAL", {"orientation": (1.0, 0.0, 0.0, 1.0, 0.0, 0.0), "image_type": ()}),
        ("SLICE_THICKNESS", {"slice_thickness": 0.5}),
        ("SLICE_THICKNESS", {"slice_thickness": 8.0}),
    ],
)
def test_slice_is_left_out(reason: str, changes: dict[str, Any]) -> None:
    """Each by the first rule that it breaks."""
    assert find_reason(**changes) == reason


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"modality": "ct"},
        {"body_part": ""},
        {"body_part": "brain"},
        {"contrast_agent": "NONE"},
        {"series_description": "Head without contrast"},
        {"image_type": ("DERIVED", "PRIMARY", "AXIAL"), "is_lossy": True},
        {"orientation": TILTED},
        {"orientation": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)},
        {"orientation": None},
        {"slice_thickness": None},
        {"slice_thickness": 0.625},
        *({"kernel": (kernel,)} for kernel in ("H31s", "Hr38f", "J40s", "STANDARD", "FC26", "UB", "MC", "")),
    ],
)
def test_slice_is_judged(changes: dict[str, Any]) -> None:
    """What is not stated is no reason, but for the modality and for a direction that nothing tells."""
    assert find_reason(**changes) == ""


def test_first_reason_is_the_one_that_says_most() -> None:
    """A localizer is sagittal and thick, and called a localizer all the same."""
    changes = {"image_type": ("LOCALIZER",), "orientation": SAGITTAL, "slice_thickness": 300.0}

    assert find_reason(**changes) == "LOCALIZER"


def test_no_text_of_a_file_is_said() -> None:
    """Whatever stands in any of them: it may be a name."""
    name = "JANE^DOE^4711"
    texts = {
        field.name: (name,) if "tuple" in str(field.type) else name
        for field in fields(HEADER)
        if field.name in ("modality", "image_type", "body_part", "series_description", "kernel", "contrast_agent")
    }
    uids = {"sop_instance_uid": name, "series_instance_uid": name, "study_instance_uid": name}
    kept = [keep_facts(replace(HEADER, **{field: value}), DEFAULT_RULES) for field, value in (texts | uids).items()]

    assert len(kept) == 9
    assert not any("JANE" in repr(facts) or "4711" in repr(facts) for facts in kept)


def test_numbers_that_are_none_are_not_kept() -> None:
    """Neither infinite ones nor such as no scanner has."""
    facts = keep_facts(
        replace(
            HEADER,
            position=(0.0, float("inf"), 0.0),
            orientation=(float("nan"),) * 6,
            slice_thickness=float("inf"),
            gantry_tilt=1e9,
        ),
        DEFAULT_RULES,
    )

    assert (facts.place, facts.normal, facts.thickness, facts.gantry_tilt) == (None, None, 0.0, 0.0)


def test_rules_can_be_changed(tmp_path: Path) -> None:
    """What a file does not say stays as it is."""
    path = tmp_path / "rules.toml"
    path.write_text(
        'body_parts = ["CHEST"]\nmay_have_contrast = true\nmost_thickness_mm = 10\n# a remark\nbone_kernels = ["B*"]\n'
    )
    rules = read_rules(path)

    assert find_reason(rules, body_part="CHEST", contrast_agent="X", slice_thickness=10.0, kernel=("H60s",)) == ""
    assert find_reason(rules, body_part="HEAD") == "OTHER_BODY_PART"
    assert find_reason(rules, body_part="CHEST", kernel=("b30f",)) == "BONE_KERNEL"
    assert rules.least_slices == DEFAULT_RULES.least_slices


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("least_slice = 5", "'least_slice' is no rule"),
        ("least_slices = 0", "'least_slices' must be 1 to 1000"),
        ("least_slices = 2.5", "'least_slices' must be a whole number"),
        ("least_slices = true", "'least_slices' must be a whole number"),
        ("least_thickness_mm = nan", "'least_thickness_mm' must be 0 to 50"),
        ("least_thickness_mm = 6", "must not be above"),
        ('body_parts = "HEAD"', "'body_parts' must be a list of texts"),
        ("body_parts = [1]", "'body_parts' must be a list of texts"),
        ('body_parts = [""]', "1 to 40 characters"),
        ("may_have_contrast = 1", "'may_have_contrast' must be true or false"),
        ("least_slices = 5\nleast_slices = 6", "Cannot overwrite"),
        ("[[[", "Invalid"),
        ("x = " + "[" * 5000, ""),
        ("# " + "x" * 70_000, "more than 65,536 bytes"),
    ],
)
def test_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    """In one line that names the file and what is wrong in it."""
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(RulesFileError) as refusal:
        read_rules(path)

    assert fault in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    """A folder, and bytes, too."""
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for path in (tmp_path, tmp_path / "none", tmp_path / "bytes"):
        with pytest.raises(RulesFileError):
            read_rules(path)


def test_doctor_looks_at_the_rules(tmp_path: Path) -> None:
    """Before a start would fail on them."""
    path = tmp_path / "rules.toml"
    path.write_text("least_slices = 5")
    found = {one.subject: one.state for one in examine(ServerConfig(models=tmp_path, study_rules=path))}
    path.write_text("slices = 5")
    bad = {one.subject: one.state for one in examine(ServerConfig(models=tmp_path, study_rules=path))}

    assert found["study rules"] != PROBLEM
    assert bad["study rules"] == PROBLEM


def test_page_has_the_rules_of_the_code() -> None:
    """docs/studies.md is made of them, and names every reason."""
    page = (ROOT / "docs" / "studies.md").read_text("utf-8")

    assert render_table() in page
    for reason, _, _ in CHECKS:
        assert f"`{reason}`" in page
