"""Which layers go back to fp32 where a variant fails: in the order of what they cost, and no more than it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from converter.int8.region import Region

MOST_FP32_SHARE = 0.5
"""Of the convolutions, and of their multiply-adds: beyond that little speed is left."""

LEAST_GAIN = 1e-3
"""Of the error that is left: what a step takes off at least."""

T = TypeVar("T")


def list_choices(region: Region, sensitivity: Mapping[str, float]) -> list[tuple[str, ...]]:
    """Growing sets of members to keep in fp32, each with all of the one before.

    A tensor is in fp32 only where both what makes it and all that take it are: each step adds these members for one
    more tensor, the costliest first. A step beyond ``MOST_FP32_SHARE`` is left out.
    """
    chosen: set[str] = set()
    choices: list[tuple[str, ...]] = []
    left = sum(sensitivity.values())
    for tensor in sorted(sensitivity, key=lambda name: -sensitivity[name]):
        if not sensitivity[tensor] > LEAST_GAIN * left:
            break
        maker = region.find_member(tensor)
        more = chosen | {*region.find_users(tensor), *([maker] if maker else [])}
        if is_too_much(region, more):
            continue
        left -= sensitivity[tensor]
        if more != chosen:
            chosen = more
            choices.append(tuple(name for name in region.members if name in chosen))
    return choices


def is_too_much(region: Region, chosen: set[str]) -> bool:
    """Whether more than ``MOST_FP32_SHARE`` would be in fp32."""
    costs = [cost for name, cost in region.costs.items() if name in chosen]
    most = MOST_FP32_SHARE
    return len(costs) > most * len(region.costs) or sum(costs) > most * sum(region.costs.values())


def find_first(choices: list[T], passes: Callable[[T], bool]) -> T | None:
    """The first of growing choices that passes, by bisection; None where the last does not."""
    if not choices or not passes(choices[-1]):
        return None
    low, high = 0, len(choices) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(choices[middle]) else (middle + 1, high)
    return choices[high]
