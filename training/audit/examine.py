"""What to know about a data set before believing any figure on it: ``python -m training audit``."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray

from training.audit.facts import Audit, ClassCount, Duplicates
from training.audit.inspection import FileFacts, Inspection, inspect_images
from training.audit.page import render_page
from training.audit.shortcuts import find_class_shortcuts
from training.data.duplicates import find_near_duplicates
from training.data.format import make_format
from training.data.given import check_split, number_parts
from training.data.groups import join_groups
from training.data.labels import ImageSet, list_data
from training.errors import TrainingError, count_nouns
from training.evaluation.nearest import FOLDS, LeakageTest, compare_splits
from training.progress import Progress
from training.settings.audit import AuditConfig

PAGE, PLOT = "audit.md", "audit.png"
EXAMPLES = 5
COMPARED = 20_000
"""Most images of the leakage test: its time grows with the square of their number, to half a minute here."""


def audit(config: AuditConfig) -> str:
    """Audits a data set and writes its page and plot.

    Returns:
        What to print: the findings and the page's path, or everything as JSON.

    Raises:
        TrainingError: when the folder is not usable, an earlier audit would be overwritten, or with --strict images
            cannot be decoded; the page is written then all the same.
    """
    from training.audit.plot import plot_audit

    for name in (PAGE, PLOT):
        if (config.out / name).exists():
            raise TrainingError(f"{config.out / name} exists; name another --out, or remove it")
    images = list_data(config)
    inspection = inspect_images(images, make_format(config.windows), Progress("reading"))
    labels = set(images.targets[inspection.kept].tolist())
    if len(labels) < len(images.labels):
        raise TrainingError(f"{images.root} has no readable image of {find_lost(images, labels)}")
    result = examine(images, inspection, config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    page, findings = render_page(result, PLOT)
    (config.out / PAGE).write_text(page, encoding="utf-8", errors="replace")  # names may be no UTF-8
    plot_audit(config.out / PLOT, result, inspection.facts, images.targets[inspection.kept])
    if config.strict and result.unreadable:
        file, reason = result.unreadable[0]
        raise TrainingError(
            f"{len(result.unreadable):,} of {count_nouns(len(images.files), 'image')} cannot be decoded, see "
            f"{config.out / PAGE}; the first: {file}: {reason}"
        )
    if config.json:
        return json.dumps({**asdict(result), "findings": findings}, indent=2, ensure_ascii=False)
    return "\n".join([*(f"- {finding}" for finding in findings), str(config.out / PAGE)])


def find_lost(images: ImageSet, labels: set[int]) -> str:
    """Names the classes that are not among ``labels``."""
    return " and none of ".join(name for index, name in enumerate(images.labels) if index not in labels)


def examine(images: ImageSet, inspection: Inspection, seed: int) -> Audit:
    """Computes what the page shows."""
    facts, kept = inspection.facts, inspection.kept
    targets = images.targets[kept]
    files = [images.files[index] for index in kept]
    patients = [images.patients[index] for index in kept]
    digests = [fact.digest for fact in facts]
    groups = join_groups(patients, digests)
    print("comparing every image with every other", file=sys.stderr)
    small = np.stack([fact.small for fact in facts])
    same = find_same_bytes(digests)
    alike = find_near_duplicates(small)
    is_copy = np.array([digests[first] == digests[second] for first, second in alike], bool)
    owners: dict[str, set[int]] = {}
    for patient, target in zip(patients, targets.tolist(), strict=True):
        if patient is not None:
            owners.setdefault(patient, set()).add(target)
    return Audit(
        data=images.root.resolve().name,
        classes=tuple(
            count_class(label, patients, targets == index, images.has_patients)
            for index, label in enumerate(images.labels)
        ),
        patients_in_both_classes=sum(len(classes) > 1 for classes in owners.values()),
        has_patients=images.has_patients,
        sizes=count_values([f"{fact.size[0]} x {fact.size[1]}" for fact in facts]),
        modes=count_values([fact.mode for fact in facts]),
        unreadable=inspection.unreadable,
        exact=describe_duplicates(same, files, patients, targets),
        near=describe_duplicates(alike[~is_copy], files, patients, targets),
        shortcuts=tuple(find_class_shortcuts(facts, targets, groups, images.labels)),
        leakage=run_leakage_test(facts, targets, groups, seed) if images.has_patients else None,
        notes=images.notes,
        warnings=(
            *images.warnings,
            *find_split_leaks(images, kept, digests, alike[groups[alike[:, 0]] != groups[alike[:, 1]]]),
        ),
    )


def find_split_leaks(
    images: ImageSet, kept: NDArray[np.int64], digests: Sequence[str], pairs: NDArray[np.int64]
) -> list[str]:
    """Says what is in two parts of the split that the data set brings.

    Args:
        images: the data set; its own split is looked at.
        kept: [K], positions of the readable images.
        digests: [K], SHA-256 of each.
        pairs: [P, 2], positions in ``kept`` of images of different patients that look the same.
    """
    if not images.parts:
        return []
    split = number_parts([images.parts[index] for index in kept.tolist()])
    readable = replace(
        images,
        files=tuple(images.files[index] for index in kept.tolist()),
        targets=images.targets[kept],
        patients=tuple(images.patients[index] for index in kept.tolist()),
    )
    check, _ = check_split(readable, digests, pairs, split)
    found = [what for what, shared in check.list_findings() if shared.count]
    if not found:
        return []
    return [
        f"The data set's own split ({images.parts_source}) leaks: in two parts of it are {' and '.join(found)}. "
        "Training refuses it; --split merge makes another, --split given takes it and says so."
    ]


def count_class(label: str, patients: list[str | None], mask: NDArray[np.bool_], has_patients: bool) -> ClassCount:
    """Counts the images and people of one class."""
    if not has_patients:
        return ClassCount(label, int(mask.sum()), None, ())
    slices = Counter(patient for patient, belongs in zip(patients, mask.tolist(), strict=True) if belongs)
    return ClassCount(label, int(mask.sum()), len(slices), tuple(sorted(slices.values())))


def count_values(values: list[str]) -> dict[str, int]:
    """Returns how often each value occurs, the most frequent first."""
    return dict(Counter(values).most_common())


def find_same_bytes(digests: list[str]) -> NDArray[np.int64]:
    """Returns each file that repeats an earlier one, with the first of that content: int64 [P, 2]."""
    first: dict[str, int] = {}
    pairs = [(first.setdefault(digest, index), index) for index, digest in enumerate(digests)]
    return np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)


def describe_duplicates(
    pairs: NDArray[np.int64], files: list[str], patients: list[str | None], targets: NDArray[np.int64]
) -> Duplicates:
    """Counts pairs of images by what they have in common."""
    names = np.array(
        [f"patient {name}" if name else f"file {file}" for name, file in zip(patients, files, strict=True)]
    )
    people = names[pairs[:, 0]] != names[pairs[:, 1]]
    classes = targets[pairs[:, 0]] != targets[pairs[:, 1]]
    worst = pairs[np.argsort(-(2 * classes + people), kind="stable")][: min(EXAMPLES, int((people | classes).sum()))]
    return Duplicates(
        len(pairs),
        int(people.sum()),
        int(classes.sum()),
        tuple((files[first], files[second]) for first, second in worst),
    )


def run_leakage_test(
    facts: tuple[FileFacts, ...], targets: NDArray[np.int64], groups: NDArray[np.int64], seed: int
) -> LeakageTest | None:
    """Compares the two splits on at most ``COMPARED`` images of whole people; None with too few people."""
    order = np.random.default_rng(seed).permutation(int(groups.max()) + 1)
    taken = np.cumsum(np.bincount(groups)[order]) <= COMPARED
    chosen = np.flatnonzero(np.isin(groups, order[taken]))
    groups, targets = np.unique(groups[chosen], return_inverse=True)[1], targets[chosen]
    people = [len(np.unique(groups[targets == label])) for label in np.unique(targets)]
    folds = min(FOLDS, *people)
    if len(people) < 2 or folds < 2:
        return None
    small = np.stack([facts[index].small for index in chosen])
    try:
        return compare_splits(small, targets, groups, folds=folds, seed=seed)
    except TrainingError:  # people of very different numbers of slices may not fill each fold
        return None
