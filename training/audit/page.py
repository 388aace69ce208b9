"""The page about a data set, in Markdown: what was found first, then the figures."""

from __future__ import annotations

from training.audit.facts import Audit, ClassCount, Duplicates
from training.audit.shortcuts import SUSPICIOUS_AUC
from training.data.pixels import count_reasons
from training.errors import count_nouns
from training.report.tables import escape

LISTED = 20
"""Most lines of a list on the page; it counts the rest."""

LEAKAGE_GAP = 0.05
"""Difference of the nearest neighbour's accuracies that is called a leak: about twice the standard error of an accuracy
over 500 slices."""


def render_file(name: str) -> str:
    """Returns a file's name as code; a code span keeps neither backticks nor line breaks, and careless viewers no <."""
    return f"`{name}`" if name.isprintable() and not set(name) & set("`<>&") else f"<code>{escape(name)}</code>"


def find_findings(audit: Audit) -> list[str]:
    """Returns what somebody who trains on this data has to know, in sentences."""
    findings = list(audit.warnings)
    if not audit.has_patients:
        findings.append(
            "It is not known of every image who it shows: leakage between splits cannot be excluded. Give "
            "--patient-pattern or a column patient in labels.csv, or state --one-image-per-patient where that is true."
        )
    if audit.unreadable:
        unreadable = count_nouns(len(audit.unreadable), "image")
        findings.append(f"{unreadable} cannot be decoded; a training would stop at the first.")
        findings.append(f"Of these: {count_reasons(reason for _, reason in audit.unreadable)}.")
    if audit.patients_in_both_classes:
        shared = count_nouns(audit.patients_in_both_classes, "patient id")
        several, both = ("both", "both") if len(audit.classes) == 2 else ("several", "each")
        findings.append(
            f"{shared} in {several} classes: each is taken for one person with slices of {both}, which is wrong where "
            "the classes were numbered apart (--patient-pattern can tell them apart)."
        )
    # Neighbouring slices of one person can look the same, and the lesion end between them.
    for kind, verdict, duplicates in (
        ("the same bytes", "one label of each is wrong", audit.exact),
        ("the same look", "a label may be wrong, or the lesion is small", audit.near),
    ):
        if duplicates.across_classes:
            pairs = count_nouns(duplicates.across_classes, "pair")
            findings.append(f"{pairs} of images with {kind} and different labels: {verdict}.")
        if duplicates.across_patients:
            pairs = count_nouns(duplicates.across_patients, "pair")
            findings.append(f"{pairs} of images with {kind}, of different or unknown patients.")
    for shortcut in audit.shortcuts:
        if shortcut.is_suspicious:
            findings.append(
                f"The label can be told from the {shortcut.name} alone (AUC {shortcut.auc:.2f}): a network may learn "
                "that instead of the disease."
            )
    if audit.leakage and audit.leakage.random - audit.leakage.grouped >= LEAKAGE_GAP:
        findings.append(
            f"The nearest neighbour is right for {audit.leakage.random:.1%} of the slices on a random split and for "
            f"{audit.leakage.grouped:.1%} with patients held out: figures from random slice splits of this data mean "
            "nothing."
        )
    return findings


def render_page(audit: Audit, plot: str) -> tuple[str, list[str]]:
    """Returns the page, and its findings."""
    findings = find_findings(audit)
    lines = [f"# Audit of {escape(audit.data)}", ""]
    lines += [f"- **{escape(finding)}**" for finding in findings] or [
        "Nothing was found that speaks against training on it."
    ]
    lines += [f"- {escape(note)}" for note in audit.notes]
    lines += ["", f"![Slices per patient, brightness and leakage]({plot})", ""]
    lines += ["## Images", "", "| class | images | patients | slices per patient |", "|---|---|---|---|"]
    lines += [render_class(count) for count in audit.classes]
    lines += ["", f"Sizes: {render_counts(audit.sizes)}. Colour modes: {render_counts(audit.modes)}.", ""]
    lines += ["## Leakage test", "", *render_leakage(audit), ""]
    lines += [
        "## Shortcuts",
        "",
        "How well one property of a file predicts the label, with no look at the brain; 0.5 is chance. Size, mode and "
        f"tables are judged on people whose images were not counted. Flagged from {SUSPICIOUS_AUC}.",
        "",
        "| property | AUC | different values | |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {escape(shortcut.name)} | {shortcut.auc:.2f} | {shortcut.values:,} | "
        f"{'**suspicious**' * shortcut.is_suspicious} |"
        for shortcut in audit.shortcuts
    ]
    lines += ["", "## Duplicates", "", "| | pairs | of different or unknown patients | of different classes |"]
    lines += ["|---|---|---|---|", render_duplicates("byte for byte", audit.exact)]
    lines += [render_duplicates("look the same", audit.near), ""]
    lines += [
        f"- {render_file(first)} and {render_file(second)}"
        for first, second in (*audit.exact.examples, *audit.near.examples)
    ]
    if audit.unreadable:
        lines += ["", "## Unreadable images", ""]
        lines += [f"- {render_file(file)}: {escape(reason)}" for file, reason in audit.unreadable[:LISTED]]
        if len(audit.unreadable) > LISTED:
            lines.append(f"- … and {len(audit.unreadable) - LISTED:,} more (--json lists all)")
    return "\n".join(lines).rstrip() + "\n", findings


def render_class(count: ClassCount) -> str:
    if count.patients is None:
        return f"| {escape(count.label)} | {count.images:,} | not known | not known |"
    slices = count.slices_per_patient
    median = slices[len(slices) // 2]
    spread = f"{median} (median), {slices[0]} to {slices[-1]}"
    return f"| {escape(count.label)} | {count.images:,} | {count.patients:,} | {spread} |"


def render_counts(counts: dict[str, int]) -> str:
    """Returns ``512 x 512 (80), 256 x 256 (4)``, and how many more there are."""
    shown = [f"{value} ({count:,})" for value, count in list(counts.items())[:LISTED]]
    return ", ".join(shown) + (f" and {len(counts) - LISTED:,} more" if len(counts) > LISTED else "")


def render_duplicates(name: str, duplicates: Duplicates) -> str:
    return f"| {name} | {duplicates.pairs:,} | {duplicates.across_patients:,} | {duplicates.across_classes:,} |"


def render_leakage(audit: Audit) -> list[str]:
    if not audit.leakage:
        why = "there are too few patients" if audit.has_patients else "patients are not known for all images"
        return [f"Not possible: {why}."]
    test = audit.leakage
    return [
        f"Accuracy of the label of the nearest image (1-NN on 32 x 32 pixels, nothing is learned), {test.folds} folds "
        f"over {test.images:,} images.",
        "",
        "| split | accuracy |",
        "|---|---|",
        f"| random slices (leaks: the same patient on both sides) | {test.random:.1%} |",
        f"| patients held out | {test.grouped:.1%} |",
        f"| always the more frequent class | {test.majority:.1%} |",
    ]
