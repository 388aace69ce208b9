"""The page with a model that has three classes, two of them positive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from playwright.sync_api import expect

from tests.fakes import THREE, encode, make_slice, write_model
from tests.studies import STUDY_SPEC, make_series
from tests.test_web_page import save
from tests.web_browser import Upload, Visit, needs_browser, serve_page

pytestmark = needs_browser

SPEC = replace(STUDY_SPEC, labels=THREE.labels, positive_labels=THREE.positive_labels, threshold=0.75)
BRIGHT, DARK, MIDDLE = (encode(make_slice(level)) for level in (200, 60, 128))
IMAGES: list[Upload] = [("bright.png", BRIGHT), ("dark.png", DARK), ("middle.png", MIDDLE)]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = tmp_path_factory.mktemp("models")
    write_model(models, SPEC)
    with serve_page(models) as address:
        yield address


def test_all_probabilities_are_shown_and_which_are_positive(here: Visit) -> None:
    """In the row and below it; the column of the probability is of both together."""
    here.add(*IMAGES)

    bright, dark, middle = here.rows()
    assert [row[1].split()[:2] for row in (bright, dark, middle)] == [
        ["●", "haemorrhagic"],
        ["●", "ischaemic"],
        ["○", "normal"],
    ]
    assert "● haemorrhagic 0.3" in middle[1]
    assert "● ischaemic 0.3" in middle[1]
    assert "normal 0.3" in middle[1]
    assert float(middle[2]) == pytest.approx(2 / 3, abs=0.01)
    assert here.page.inner_text("#positive-head").startswith("P(positive)")
    here.page.click(".name")
    assert "0.75 on P(haemorrhagic or ischaemic)" in here.page.locator(".more").first.inner_text()


def test_csv_has_the_sum(here: Visit) -> None:
    """Beside the probability of each class, and which of the positive labels is the more probable one."""
    here.add(*IMAGES)

    for row in save(here):
        kinds = {label: float(row[f"p_{label}"]) for label in THREE.positive_labels}
        assert float(row["positive_probability"]) == pytest.approx(sum(kinds.values()), abs=2e-6)
        assert row["positive_label"] == max(kinds, key=kinds.__getitem__)


def test_model_says_what_it_looks_for(here: Visit) -> None:
    """By name, and by what rule."""
    expect(here.page.locator("#model-text")).to_have_text(
        "tiny 1. Answers haemorrhagic or ischaemic where the sum of their probabilities is above 0.75."
    )


def test_filters_have_positive_labels_first(here: Visit) -> None:
    """All of them; and the sort by answers as well."""
    here.add(*IMAGES)

    names = [text.split()[0] for text in here.page.locator("#filters button").all_inner_texts()]
    assert names[:4] == ["all", "haemorrhagic", "ischaemic", "normal"]


def test_another_threshold_keeps_the_kind(here: Visit) -> None:
    """Tried on the slider, the sum decides, and the most probable label of that side is answered."""
    here.add(*IMAGES)
    here.page.locator("#threshold").fill("0.5")

    expect(here.page.locator("#threshold-text")).to_contain_text("1 of 3 answers would change")
    assert [text.split()[-1] for text in here.column(1) if "would be" in text] == ["haemorrhagic"]


def test_study_is_of_the_more_probable_kind(here: Visit) -> None:
    """Its score is said to be of both."""
    here.add(*((f"IM{number}", file) for number, file in enumerate(make_series(8, [5, 5, 5]))))

    study = here.page.locator(".study")
    expect(study.locator(".badge")).to_have_text("● ischaemic")
    expect(study).to_contain_text("highest P(haemorrhagic or ischaemic) of 8 slices; ischaemic is answered above 0.5.")
