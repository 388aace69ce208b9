"""The page about a run, in Markdown and in HTML."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from tests.training_fakes import EVALUATION, SPEC, without_patients
from training.evaluation.figures import Evaluation
from training.evaluation.summary import summarise
from training.report.html import render_page
from training.report.records import count_split
from training.report.run import PLOTS, write_folds_report, write_report
from training.report.tables import escape, explain_threshold, make_paragraph, make_table

VOID = {"meta", "img", "br", "hr"}


class Page(HTMLParser):
    """What a browser would see: checks that tags are closed in order, and collects text, images and references."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.images: dict[str, str] = {}
        self.references: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        values = {key: value or "" for key, value in attributes}
        if tag == "img":
            self.images[values["alt"]] = values["src"]
        self.references += [values[key] for key in ("src", "href", "action", "data", "srcset") if key in values]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def write(folder: Path, evaluation: Evaluation = EVALUATION, **options: tuple[str, ...]) -> tuple[str, Page]:
    """Writes a report and returns its Markdown and its page."""
    write_report(folder, SPEC, evaluation, **options)
    return (folder / "report.md").read_text(), Page((folder / "report.html").read_text())


def draw_plots(folder: Path) -> None:
    for file in PLOTS:
        Image.new("L", (4, 4)).save(folder / file)


def test_each_figure_stands_with_its_interval_on_both_pages(tmp_path: Path) -> None:
    """Markdown and HTML have the same content: slices and patients."""
    markdown, page = write(tmp_path)

    levels = [EVALUATION.slices, EVALUATION.patients]
    for figure in (figure for level in levels for figure in level.figures.values() if figure.value == figure.value):
        stated = f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
        assert stated in markdown
        assert stated in page.text
    assert "not defined" in page.text  # PPV of patients, which is NaN
    assert "nan" not in page.text.lower().split()


def test_baselines_and_leakage_stand_beside_the_headline(tmp_path: Path) -> None:
    """Nobody reads the accuracy without the majority, the AUC without the trivial score, or leakage as performance."""
    markdown, _ = write(tmp_path)
    rows = {line.split("|")[1].strip(): line for line in markdown.splitlines() if line.startswith("| slices:")}

    assert "LEAKAGE |" in markdown
    auc, accuracy = rows["slices: **AUC**"], rows["slices: **accuracy**"]
    assert all(figure in auc for figure in ("0.831", "0.500", "0.712 (0.600 to 0.800)", "same network 0.987"))
    assert all(figure in accuracy for figure in ("0.825", "0.600", "0.556", "same network 0.964, 1-NN 0.931"))
    assert "0.789" in rows["slices: **matched AUC**"]
    assert rows["slices: **sensitivity**"].split("|")[3].strip() == "0.000"  # the majority is negative


def test_what_was_not_measured_is_a_dash(tmp_path: Path) -> None:
    """Without patients and without a random split the report is complete and says so."""
    markdown, page = write(tmp_path, without_patients())

    assert "| slices: **accuracy** | **0.825 (0.700 to 0.900)** | 0.600 | - | - | - |" in markdown
    assert "There are no figures of patients" in page.text
    assert "patients: AUC" not in page.text


def test_warnings_of_leakage_come_first(tmp_path: Path) -> None:
    """Nothing but the title stands above them, and both sources are shown once."""
    leakage = "WARNING: no patient ids. LEAKAGE cannot be excluded."
    evaluation = replace(EVALUATION, warnings=(leakage, "8 files were left out"))

    markdown, page = write(tmp_path, evaluation, warnings=("3 copies", leakage))

    assert markdown.split("\n\n")[1] == f"> **{leakage}**"
    assert page.text.count(leakage) == 1
    assert all(line in page.text for line in ("3 copies", "8 files were left out"))
    assert "blockquote" in page.tags


def test_threshold_is_explained(tmp_path: Path) -> None:
    """How it was chosen, and how many false alarms it tolerates for a missed case."""
    _, page = write(tmp_path)

    assert "stroke is answered where its probability exceeds 0.2." in page.text
    assert "tolerates 4 false alarms per missed stroke" in page.text
    assert "tolerates 19 false alarms per missed stroke" in explain_threshold(0.05, "stroke")
    assert "sensitivity=0.95, chosen on 30 validation images" in page.text


def test_prevalences_calibration_split_and_training_are_stated(tmp_path: Path) -> None:
    """PPV and NPV at given prevalences, temperature, images by split, what the run was, what was not tested."""
    (tmp_path / "split.csv").write_text(
        "file,label,patient,sha256,split\na.png,normal,1,x,train\nb.png,normal,1,y,train\nc.png,stroke,2,z,test\n"
    )

    markdown, page = write(tmp_path)

    assert "| 2.7 % | 0.143 (0.100 to 0.200) | 0.992 (0.980 to 1.000) |" in markdown
    assert "temperature 1.25" in page.text
    assert "| train | 2 | 0 | 1 |" in markdown
    assert "| test | 0 | 1 | 1 |" in markdown
    assert "| data fingerprint | abab" in markdown
    assert "What was not tested" in page.text


def test_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    """All plots are inside, and nothing refers to another file or to the network; no script is needed."""
    draw_plots(tmp_path)

    markdown, page = write(
        tmp_path, warnings=("see [here](http://example.org/x.png) or ![x](http://example.org/y.png)",)
    )

    assert set(page.images) == {name for name, _ in PLOTS.values()}
    assert all(f"]({file})" in markdown for file in PLOTS)
    assert page.references
    assert all(reference.startswith("data:image/png;base64,iVBOR") for reference in page.references)
    assert page.tags.isdisjoint({"script", "link", "iframe", "a", "object", "embed"})
    html = (tmp_path / "report.html").read_text()
    assert not re.search(r"url\(|@import", html)
    assert "default-src 'none'" in html


def test_page_is_for_phones_paper_and_dark_rooms(tmp_path: Path) -> None:
    """It has a viewport, a printed form and dark colours; wide tables scroll by themselves."""
    write(tmp_path)
    html = (tmp_path / "report.html").read_text()

    assert 'name="viewport" content="width=device-width' in html
    assert "@media print" in html
    assert "prefers-color-scheme: dark" in html
    assert html.count('<div class="table"><table>') == html.count("</table></div>") > 3


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "a | b",
        "*bold* _em_ `code` ~~gone~~ $x$ &amp; &lt;",
        "[text](http://example.org)",
        "# heading",
        "- item",
        "1. item",
        "> quote",
        "back\\slash \\| end",
    ],
)
def test_labels_and_notes_are_shown_as_they_are(tmp_path: Path, text: str) -> None:
    """Whatever a label or a note holds is text, in a paragraph and in a cell of a table."""
    page = Page(render_page(tmp_path, text, make_paragraph(text) + "\n\n" + make_table(["x"], [[escape(text)]])))

    assert page.text.count(text) == 3  # the title too
    assert page.tags.isdisjoint({"script", "a", "em", "strong", "code", "h1", "ul", "ol", "blockquote", "s"})


def test_markup_in_a_label_reaches_no_reader(tmp_path: Path) -> None:
    """The positive label, the model's name of the data and provenance are escaped where they are used."""
    odd = "<script>alert(1)</script>"
    spec = replace(SPEC, labels=("normal", odd), positive_labels=(odd,), provenance={odd: odd})

    write_report(tmp_path, spec, replace(EVALUATION, data=odd, operating_point=odd), warnings=(odd,), notes=(odd,))

    assert Page((tmp_path / "report.html").read_text()).tags.isdisjoint({"script"})
    assert "<script>" not in (tmp_path / "report.md").read_text()


def test_split_is_counted_by_fold_where_there_are_folds(tmp_path: Path) -> None:
    """Ten folds stand in the order of their numbers; images without a patient are counted all the same."""
    rows = [f"{fold}.png,normal,,x,{fold}" for fold in range(1, 11)]
    (tmp_path / "split.csv").write_text("\n".join(["file,label,patient,sha256,fold", *rows]))

    lines = count_split(tmp_path).splitlines()[2:]

    assert lines == [f"| held out in fold {fold} | 1 | - |" for fold in range(1, 11)]
    assert count_split(tmp_path / "elsewhere") == ""


def test_folds_are_pooled_and_listed(tmp_path: Path) -> None:
    """The headline is of all people; each fold has a row, and the mean leaves out what is not defined."""
    slices = EVALUATION.slices
    undefined = replace(slices.figures["auc"], value=float("nan"))
    folds = [
        EVALUATION,
        replace(EVALUATION, slices=replace(slices, figures={**slices.figures, "auc": replace(undefined, value=0.731)})),
        replace(EVALUATION, slices=replace(slices, figures={**slices.figures, "auc": undefined})),
    ]

    write_folds_report(tmp_path, SPEC, EVALUATION, [summarise(fold) for fold in folds])

    markdown = (tmp_path / "report.md").read_text()
    assert markdown.startswith("# stroke-cnn 1, 3 folds\n")
    assert "| 3 | 40 | 0.2 | not defined |" in markdown
    (mean,) = (line for line in markdown.splitlines() if line.startswith("| **mean** |"))
    assert mean.split("|")[4].strip() == "**0.781**"
    assert markdown.index("## Headline") < markdown.index("## Each fold") < markdown.index("## All figures")
    Page((tmp_path / "report.html").read_text())
