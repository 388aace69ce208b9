"""``/v2``: the Open Inference Protocol over HTTP, as tritonclient, perf_analyzer and the kserve SDK speak it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from starlette.responses import Response

from server.admission.call import READ, Method
from server.admission.judge import Judge
from server.admission.status import Status
from server.core.detector import Detector
from server.errors import RequestError, UnavailableError
from server.models.runtime import OnnxModel
from server.oip.http_body import HEADER_LENGTH, check_binary, read_request, write_answer
from server.oip.inference import Inference
from server.oip.metadata import describe_config, describe_model, describe_repository, describe_server, list_versions
from server.oip.request import InferRequest
from server.web.answers import encode_json
from server.web.bodies import CODINGS
from server.web.call import HttpCall
from server.web.problems import find_http_status, make_headers

Behaviour: TypeAlias = Callable[[HttpCall], Awaitable[Response | Status]]

PATH = "/v2"
MODEL = f"{PATH}/models/{{name}}"
VERSION = f"{MODEL}/versions/{{version}}"
JSON = "application/json"

INFER = Method(f"POST {MODEL}/infer")


@dataclass(frozen=True)
class ProtocolRoute:
    """What is served under a path."""

    path: str
    verb: str
    method: Method
    behaviour: Behaviour


class InferenceFace:
    """Serves the paths of the protocol."""

    def __init__(self, detector: Detector, judge: Judge, most_bytes: int, is_serving: Callable[[], bool]) -> None:
        """Makes it.

        Args:
            detector: the core.
            judge: the way to it.
            most_bytes: of what comes out of a compressed body.
            is_serving: whether images are judged now.
        """
        self._registry = detector.registry
        self._inference = Inference(detector.registry, judge, most_bytes)
        self._is_serving = is_serving

    def list_routes(self, check_role: str) -> list[ProtocolRoute]:
        """All paths.

        Args:
            check_role: what those need who ask for health.
        """
        asked: dict[str, Behaviour] = {
            PATH: self._describe_server,
            MODEL: partial(self._describe, describe=self._describe_model),
            f"{MODEL}/config": partial(self._describe, describe=describe_config),
        }
        checked: dict[str, Behaviour] = {
            f"{PATH}/health/live": self._answer_live,
            f"{PATH}/health/ready": self._answer_ready,
            f"{MODEL}/ready": self._answer_model_ready,
        }
        index = Method(f"POST {PATH}/repository/index", READ)
        found = [ProtocolRoute(path, "GET", Method(f"GET {path}", READ), answer) for path, answer in asked.items()]
        found += [ProtocolRoute(path, "GET", Method(f"GET {path}", check_role), one) for path, one in checked.items()]
        found.append(ProtocolRoute(f"{MODEL}/infer", "POST", INFER, self._infer))
        # A version in the path changes nothing of what a method is.
        found += [
            ProtocolRoute(one.path.replace(MODEL, VERSION), one.verb, one.method, one.behaviour)
            for one in found
            if one.path.startswith(MODEL)
        ]
        return [*found, ProtocolRoute(f"{PATH}/repository/index", "POST", index, self._list_models)]

    async def _infer(self, call: HttpCall) -> Response | Status:
        headers = call.request.headers
        coding = headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("identity", *CODINGS):
            raise RequestError("CONTENT_TYPE_UNSUPPORTED", f"A body may be compressed by {' or '.join(CODINGS)} alone.")

        def read(body: bytes) -> InferRequest:
            name, version = find_model(call.request.path_params)
            return read_request(body, headers.get(HEADER_LENGTH), model_name=name, model_version=version)

        answer = await self._inference.answer(call, read, check=check_binary)
        if isinstance(answer, Status):
            return answer
        model = (answer.model_name, answer.model_version)
        made = write_answer(answer.request, answer.outputs, model=model, parameters=answer.parameters)
        return Response(made.body, headers=made.headers)

    async def _describe_server(self, call: HttpCall) -> Response:
        return give(describe_server(with_http=True))

    async def _describe(self, call: HttpCall, describe: Callable[[OnnxModel], Any]) -> Response:
        return give(describe(self._registry.get(*find_model(call.request.path_params))))

    def _describe_model(self, model: OnnxModel) -> dict[str, Any]:
        return describe_model(model, list_versions(self._registry, model))

    async def _list_models(self, call: HttpCall) -> Response:
        async with call.take_message():
            return give(describe_repository(self._registry))

    async def _answer_live(self, call: HttpCall) -> Response:
        return give({"live": True})

    async def _answer_ready(self, call: HttpCall) -> Response:
        return give({"ready": self._is_serving()}, 200 if self._is_serving() else 503)

    async def _answer_model_ready(self, call: HttpCall) -> Response:
        model = self._registry.get(*find_model(call.request.path_params))
        if not self._is_serving():
            raise UnavailableError("SERVER_STOPPING", "The server is stopping.")
        return give({"name": model.spec.name, "ready": True})


def find_model(path: Mapping[str, str]) -> tuple[str, str]:
    """Name and version in a path; the version is empty where it has none."""
    return path["name"], path.get("version", "")


def give(content: Any, status: int = 200) -> Response:
    """An answer."""
    return Response(encode_json(content), status, media_type=JSON)


def make_error(status: Status, request_id: str) -> Response:
    """An error as clients of this protocol read it; its reason is in the head."""
    content = {"error": status.message}
    return Response(encode_json(content), find_http_status(status), make_headers(status), JSON)
