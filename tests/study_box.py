"""What judges studies, without a network, for tests that hand slices over themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from server.admission.call import Call, Method
from server.admission.inbox import Inbox
from server.admission.judge import Judge
from server.admission.places import StreamPlaces
from server.admission.slice_work import SliceToJudge
from server.admission.status import Status
from server.admission.study import Studies
from server.config import ServerConfig
from server.core.detector import Detector
from server.core.outcomes import Journal, Outcome
from server.core.plan import make_plan
from server.core.study.answer import StudyAnswer
from server.core.study.rules import DEFAULT_RULES
from server.errors import StrokeError
from server.models.registry import ModelRegistry

TIMEOUT = 20
WINDOW = 3
"""Slices of a study that are in work at the same time, with one worker."""


class FakeCall(Call):
    """A call of one study."""

    def __init__(self) -> None:
        super().__init__("ipv4:10.0.0.7:1", Method("PredictStudy"), Inbox(1))

    names, token, seconds_left = (), None, float("inf")  # type: ignore[assignment]

    def find_trace(self) -> str:
        return ""

    async def read(self, note_size: Callable[[int], None]) -> bytes | None:
        raise AssertionError


@dataclass
class Box:
    """What judges studies."""

    root: Path
    options: dict[str, Any] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = ServerConfig(models=self.root, workers=1, **self.options)
        self.registry = ModelRegistry()
        self.registry.load(self.root, "tiny")
        self.failure: StrokeError | None = None
        self.detector = Detector(self.registry, make_plan(config, 1), queue=10, check_ready=self.check_ready)
        self.places = StreamPlaces(config.streams)
        judge = Judge(self.detector, Journal([self]), max_wait_seconds=TIMEOUT, batches=1)
        self.studies = Studies(self.detector, judge, self.places, config, DEFAULT_RULES)
        self.call = FakeCall()

    def note(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def check_ready(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def judge(self, take: Callable[[], Awaitable[SliceToJudge | None]]) -> StudyAnswer | Status:
        return await asyncio.wait_for(self.studies.answer(self.call, take, lambda answer: answer), TIMEOUT)

    def judge_all(self, slices: Sequence[SliceToJudge]) -> StudyAnswer:
        answer = asyncio.run(self.judge(give(slices)))
        assert isinstance(answer, StudyAnswer), answer
        return answer

    def refuse(self, slices: Sequence[SliceToJudge]) -> StrokeError:
        with pytest.raises(StrokeError) as refusal:
            asyncio.run(self.judge(give(slices)))
        return refusal.value


def give(slices: Sequence[SliceToJudge]) -> Callable[[], Awaitable[SliceToJudge | None]]:
    """Hands over one after the other."""
    rest = iter(slices)

    async def take() -> SliceToJudge | None:
        return next(rest, None)

    return take


def wrap(files: Sequence[bytes], **options: Any) -> list[SliceToJudge]:
    return [SliceToJudge(file, **options) for file in files]
