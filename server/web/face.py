"""HTTP's face of the core: which path is served by what, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.admission.call import ANYBODY, KNOWN, Method
from server.admission.core import Core
from server.admission.ids import new_id
from server.admission.picture import Pictures
from server.admission.status import Status, to_status
from server.web.call import HttpCall
from server.web.describe import GET_MODEL, LIST_MODELS, Describer
from server.web.envelope import Envelope
from server.web.inference import PATH as PROTOCOL_PATH
from server.web.inference import InferenceFace, make_error
from server.web.methods.explain import EXPLAIN, Explainer
from server.web.methods.picture import RENDER, Renderer
from server.web.methods.predict import PREDICT, PREDICT_BATCH, Predictor
from server.web.methods.study import STUDY, StudyCall, StudyFace
from server.web.openapi.document import make_document
from server.web.origin import check_origin
from server.web.pages.page import make_page
from server.web.pages.worklist import make_refusal_page
from server.web.problems import make_problem
from server.web.worklist import face as worklists

Behaviour: TypeAlias = Callable[[HttpCall], Awaitable[Response | Status]]
Refusal: TypeAlias = Callable[[Status, str], Response]


def make_app(core: Core) -> Envelope:
    """The application of ASGI."""
    predictor = Predictor(core.judge, core.config.most_message_bytes)
    renderer = Renderer(Pictures(core.detector, core.judge), core.config.most_message_bytes)
    describer = Describer(core.detector, core.is_serving)
    protocol = InferenceFace(core.detector, core.judge, core.config.most_message_bytes, core.is_serving)
    worklist = worklists.WorklistFace(core.config)
    live, ready = describer.answer_live, describer.answer_ready
    health = KNOWN if core.config.health == "token" else ANYBODY

    def make_call(request: Request, method: Method) -> HttpCall:
        return HttpCall(request, method, core.inbox, core.config.most_message_bytes)

    def make_study_call(request: Request, method: Method) -> HttpCall:
        return StudyCall(request, method, core.inbox, core.config)

    def route(
        path: str,
        verb: str,
        method: Method,
        behaviour: Behaviour,
        refuse: Refusal = make_problem,
        make: Callable[[Request, Method], HttpCall] = make_call,
    ) -> Route:
        async def serve(request: Request) -> Response:
            return await serve_call(core, make(request, method), behaviour, refuse)

        return Route(path, serve, methods=[verb])

    def check(path: str, answer: Callable[[], Response]) -> Route:
        async def behave(call: HttpCall) -> Response:
            return answer()

        return route(path, "GET", Method(f"GET {path}", health), behave)

    routes = [
        give("/", make_page()),
        give("/openapi.json", make_document()),
        check("/health/live", live),
        check("/health/ready", ready),
        route("/predict", "POST", PREDICT, predictor.predict),
        route("/predict/batch", "POST", PREDICT_BATCH, predictor.predict_batch),
        route("/study", "POST", STUDY, StudyFace(core.studies).predict_study, make=make_study_call),
        route("/explain", "POST", EXPLAIN, Explainer(core.judge, core.config.most_message_bytes).explain),
        route("/render", "POST", RENDER, renderer.render),
        route("/models", "GET", LIST_MODELS, describer.list_models),
        route("/models/{name}", "GET", GET_MODEL, describer.get_model),
        route("/worklist", "GET", worklists.PAGE, worklist.show_page, make_refusal_page),
        route("/worklist.json", "GET", worklists.JSON, worklist.give_json),
        route("/worklist.csv", "GET", worklists.CSV, worklist.give_csv),
        *(route(one.path, one.verb, one.method, one.behaviour, make_error) for one in protocol.list_routes(health)),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: refuse_path, Exception: fail})
    app.router.redirect_slashes = False  # to an address that the caller has made up (``Host``)
    return Envelope(app, core.config.most_message_bytes)


def give(path: str, response: Response) -> Route:
    """A path with what is the same for everybody."""

    async def serve(request: Request) -> Response:
        return response

    return Route(path, serve, methods=["GET"])


async def serve_call(core: Core, call: HttpCall, behaviour: Behaviour, refuse: Refusal) -> Response:
    """Serves a call to its end, or until its caller has gone. ``refuse`` makes the answer of an error."""
    work = asyncio.ensure_future(core.boundary.run(call, lambda call: behave(call, behaviour)))
    gone = asyncio.ensure_future(call.wait_until_gone())
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            call.is_wanted = False
            work.cancel()
        outcome = await work
    except asyncio.CancelledError:
        return Response(status_code=499)  # nobody reads it
    finally:
        work.cancel()
        gone.cancel()
    return refuse(outcome, call.request_id) if isinstance(outcome, Status) else outcome


async def behave(call: HttpCall, behaviour: Behaviour) -> Response | Status:
    """Serves a call that has come in."""
    check_origin(call.request.method, call.request.headers)
    call.check_length()
    return await behaviour(call)


async def refuse_path(request: Request, error: Exception) -> Response:
    """What is not served here: an unknown path, or another method of a known one."""
    assert isinstance(error, HTTPException)
    refuse = make_error if f"{request.scope['path']}/".startswith(f"{PROTOCOL_PATH}/") else make_problem
    if error.status_code == 405:
        allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
        response = refuse(
            Status("INVALID_ARGUMENT", "METHOD_UNKNOWN", f"Of this path there is only {allowed}."), new_id()
        )
        response.headers["allow"] = allowed
    else:
        status = Status("NOT_FOUND", "PATH_UNKNOWN", "There is nothing here: /openapi.json lists what there is.")
        response = refuse(status, new_id())
    return response


async def fail(request: Request, error: Exception) -> Response:
    """A fault of ours outside of every call."""
    request_id = new_id()
    return make_problem(to_status(error, request_id), request_id)
