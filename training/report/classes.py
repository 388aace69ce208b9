"""What a model that tells more than two classes apart is worth for each, in Markdown."""

from __future__ import annotations

from training.evaluation.figures import ClassFigures
from training.evaluation.summary import Summary
from training.report.tables import NONE, escape, make_table, state

EXPLAINED = (
    "Slices, one class against all others; intervals by bootstrap over people. Where the probabilities of the positive "
    "classes ({positive}) together exceed the threshold, the most probable of them is answered, otherwise the most "
    "probable of the others. Always answering the most frequent class here would have an accuracy of {majority:.3f}."
)

PEOPLE_EXPLAINED = (
    "People, likewise: a person is of the class of their positive slices, or where none is positive of that of all"
    "{left_out}. The probabilities are means over the {top_k} slices with the highest score, and the threshold is that "
    "of people. Always answering the most frequent class would have an accuracy of {majority:.3f}."
)


def describe_classes(summary: Summary) -> list[str]:
    """Returns the paragraphs and tables about the classes; none where there are two."""
    parts: list[str] = []
    if classes := summary.classes:
        positive = ", ".join(map(escape, classes.positive_labels))
        parts += [EXPLAINED.format(positive=positive, majority=classes.majority_accuracy), *tabulate(classes, "images")]
    if (classes := summary.patient_classes) and (patients := summary.patients):
        several = patients.count - sum(classes.counts)
        left_out = f" ({several:,} of {patients.count:,} people have several, and are left out)" if several else ""
        explained = PEOPLE_EXPLAINED.format(left_out=left_out, top_k=patients.top_k, majority=classes.majority_accuracy)
        parts += [explained, *tabulate(classes, "people")]
    return parts


def tabulate(classes: ClassFigures, unit: str) -> list[str]:
    """Returns both tables, with what is counted in them."""
    return [
        tabulate_classes(classes, unit),
        f"What was answered for what, in {unit}:",
        tabulate_answers(classes),
    ]


def name_figures(classes: ClassFigures) -> str:
    """Returns the headline in one line, for the terminal."""
    found = ", ".join(
        f"{label} {figures['sensitivity'].value:.3f}"
        for label, figures in zip(classes.labels, classes.figures, strict=True)
    )
    return f"classes: mean AUC against the rest {state(classes.overall['macro_auc'])}; sensitivity {found}"


def tabulate_classes(classes: ClassFigures, unit: str) -> str:
    """Returns the figures of each class, and their means."""
    rows = [
        [
            f"{escape(label)}{' (positive)' * (label in classes.positive_labels)}",
            f"{count:,}",
            *(state(figures.get(name)) for name in ("auc", "sensitivity", "ppv")),
        ]
        for label, count, figures in zip(classes.labels, classes.counts, classes.figures, strict=True)
    ]
    total, overall = f"{sum(classes.counts):,}", classes.overall
    rows += [
        ["**mean**", total, state(overall["macro_auc"]), state(overall["macro_sensitivity"]), NONE],
        ["**right class**", total, NONE, state(overall["accuracy"]), NONE],
    ]
    return make_table(["class", unit, "AUC against the rest (95 %)", "sensitivity (95 %)", "PPV (95 %)"], rows)


def tabulate_answers(classes: ClassFigures) -> str:
    """Returns the confusion matrix, a row each actual class."""
    rows = [
        [escape(label), *(f"{count:,}" for count in row)]
        for label, row in zip(classes.labels, classes.confusion, strict=True)
    ]
    return make_table(["actual", *(f"answered {escape(label)}" for label in classes.labels)], rows)
