"""The server's life: bind, load, verify, serve, drain. The one place where the parts are put together."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from server.admission.boundary import Boundary, stopping_server
from server.admission.core import make_core
from server.api.health import Health
from server.api.rpc.boundary import RpcBoundary
from server.api.rpc.listen import bind
from server.api.service import SERVICE_NAME, StrokeServicer
from server.config import ServerConfig
from server.core.plan import make_plan
from server.core.study.rules_file import RulesFileError, read_rules
from server.errors import ModelFileError
from server.lifecycle.admin import AdminHandlers, make_activator, open_socket
from server.lifecycle.banner import describe_choices, describe_memory, describe_models
from server.lifecycle.ports import answer_probes, make_grpc_server, open_certificates, open_web
from server.lifecycle.services import CHECKS, Parts, list_services
from server.lifecycle.upkeep import return_memory
from server.machine.addresses import ListenError
from server.machine.processors import count_processors
from server.models.registry import ModelRegistry
from server.process.console import PATIENCE_SECONDS, complain, has_terminal, say
from server.process.notify import notify, show_life
from server.security.files import AccessFileError

if TYPE_CHECKING:
    import grpc

    from server.audit.writer import AuditLog
    from server.core.metrics import Metrics
    from server.lifecycle.admin import AdminPort
    from server.metrics.port import MetricsPort
    from server.security.certificates import Certificates
    from server.security.gate import Gate
    from server.web.port import WebPort

logger = logging.getLogger(__name__)

DRAIN_POLL_SECONDS = 0.05
DRAIN_QUIET_SECONDS = 0.5
DRAIN_ACCEPT_SECONDS = 2.0
"""A stop of gRPC cancels calls that are still on their way. So calls and streams are served until no call has arrived
for the quiet time, at the latest until the accept time is over, while health already sends callers elsewhere."""

LEAVE_SECONDS = 0.4
"""For gRPC to close what is open, after the drain."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
EXIT_CANNOT_SERVE = 1


class Application:
    """One server. ``run`` blocks until it is stopped."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._plan = make_plan(config, count_processors())
        self._registry = ModelRegistry()
        self._study_rules = read_rules(config.study_rules)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stops = 0
        self._stop_asked = asyncio.Event()
        self._metrics: Metrics | None = None
        if config.metrics_port:
            from server.core.metrics import Metrics

            self._metrics = Metrics()
        self._metrics_port: MetricsPort | None = None
        self._admin: AdminPort | None = None
        self._web: WebPort | None = None
        self._web_address = ""
        self._reloads: list[Callable[[], None]] = []
        """What SIGHUP does; none of these raises."""
        self._alarms: dict[str, Callable[[], bool]] = {}
        """See ``Health.make_handlers``."""
        self._activator = make_activator(config, self._registry, self._plan.options)
        self._alarms["stroke.alarm.models"] = self._registry.needs_person
        self._audit: AuditLog | None = None
        if config.audit is not None:
            from server.audit.opening import open_log

            self._audit = open_log(config, config.audit)
            self._reloads.append(self._audit.reopen)
            self._alarms["stroke.alarm.audit"] = self._audit.needs_person
        self._certificates: Certificates | None = None
        """None: without TLS."""

        self._gate: Gate | None = None
        """None: nobody is asked who they are."""

        if config.tokens is not None or config.tls_client_ca is not None:
            from server.security.gate import Gate

            self._gate = Gate(config.tokens, config.allow_clients)

    def run(self, *, handle_signals: bool = False) -> int:
        """Serves until ``stop``. Returns the process's exit code; an error has been printed when it is not 0.

        Args:
            handle_signals: SIGTERM and SIGINT stop the server, SIGHUP lets it read its files again, or stops it when
                its terminal was closed; only in the main thread.
        """
        try:
            return asyncio.run(self._run(handle_signals))
        finally:
            if self._audit is not None:
                self._audit.close()
            if self._certificates is not None:
                self._certificates.close()

    def stop(self) -> None:
        """Starts to drain; called again, stops at once. For other threads than that of ``run``."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ask_to_stop)

    def _ask_to_stop(self) -> None:
        self._stops += 1
        self._stop_asked.set()

    def _reload_or_stop(self, had_terminal: bool) -> None:
        """Reads files again that may have changed, each in a thread, so that no call waits for a disk. But the same
        signal comes when the terminal is closed in which a server was started."""
        assert self._loop is not None
        if had_terminal and not has_terminal():
            self._ask_to_stop()
            return
        logger.info("reading files again")
        for reload in self._reloads:
            self._loop.run_in_executor(None, reload)

    async def _run(self, handle_signals: bool) -> int:
        self._loop = asyncio.get_running_loop()
        # gRPC reports calls that ended before they were answered with a traceback each: a log that callers can grow.
        self._loop.set_exception_handler(lambda loop, context: logger.debug("event loop: %s", context["message"]))
        logging.getLogger("grpc").setLevel(logging.CRITICAL + 1)
        if handle_signals:
            for number in STOP_SIGNALS:
                self._loop.add_signal_handler(number, self._ask_to_stop)
            self._loop.add_signal_handler(signal.SIGHUP, self._reload_or_stop, has_terminal())
        self._build_server()
        if (code := self._listen()) is not None:
            return code
        await self._server.start()
        try:
            await self._show_metrics()
            if self._config.probe_port:
                self._probes = await answer_probes(self._config, self._health.make_handlers())
            if self._config.http:
                self._web, self._web_address = open_web(self._core, self._certificates)
            parts = (self._make_admin, self._core.inbox, self._core.journal)
            self._admin = await open_socket(self._config, self._listener.address, *parts)
        except ListenError as error:
            await self._leave()
            return fail(str(error))
        try:
            code = await self._load()
        except BaseException:
            await self._leave()
            raise
        if code is not None:
            await self._leave()
            return code
        gc.collect()
        gc.freeze()  # what lives as long as the process need not be looked through: 1 ms a collection instead of 10
        self._health.set_serving()
        models = describe_models(self._registry)
        notify(f"READY=1\nSTATUS=serving {models}")
        self._activator.on_change = lambda: notify(f"STATUS=serving {describe_models(self._registry)}")
        # Whoever started it may have no use for this, so nothing waits for its reader.
        lines = [f"serving {models} on {self._listener.address}", describe_choices(self._registry, self._plan)]
        lines.append(describe_memory(self._config, self._plan, self._registry))
        if self._web_address:
            lines.append(f"  HTTP on {self._web_address}")
        if self._certificates is not None:
            lines.append(f"  {self._certificates.summary}")
        threading.Thread(target=say, args=("\n".join(lines), PATIENCE_SECONDS), daemon=True).start()
        arrivals = (self._core.boundary, self._core.inbox)
        trim = return_memory(
            lambda: max(place.last_arrival for place in arrivals), lambda: self._registry.last_departure
        )
        upkeep = [asyncio.create_task(trim), asyncio.create_task(show_life())]
        await self._stop_asked.wait()
        for task in upkeep:
            task.cancel()
        return await self._drain()

    def _listen(self) -> int | None:
        """Takes the address, with TLS where there are certificates. Returns the exit code of a server that cannot."""
        config = self._config
        credentials = None
        if config.tls_cert is not None and config.tls_key is not None:
            from server.security.bundle import CertificateError

            try:
                self._certificates = open_certificates(config.tls_cert, config.tls_key, config.tls_client_ca)
            except CertificateError as error:
                return fail(str(error))
            credentials = self._certificates.make_credentials()
        try:
            self._listener = bind(
                self._server,
                config.host,
                config.port,
                config.socket_permissions,
                credentials=credentials,
                is_insecure=config.insecure,
            )
        except ListenError as error:
            return fail(str(error))
        if self._certificates is not None:
            self._certificates.watch()
            self._reloads.append(self._certificates.reload)
            self._alarms["stroke.alarm.certificates"] = self._certificates.needs_person
        return None

    def _build_server(self) -> None:
        config, audit = self._config, self._audit
        core = self._core = make_core(
            config,
            self._plan,
            self._registry,
            self._study_rules,
            lambda: self._health.is_serving,
            gate=self._gate,
            recorders=[one for one in (self._metrics, audit) if one is not None],
            check_ready=audit.check_ready if audit and config.audit_required else None,
        )
        self._health = Health(SERVICE_NAME, core.inbox)
        if self._gate is not None:
            assert self._loop is not None
            self._gate.watch(self._loop.call_soon_threadsafe)
            self._reloads.append(self._gate.reload)
            self._alarms["stroke.alarm.access"] = self._gate.needs_person
        self._server = make_grpc_server(config)
        health = self._health.make_handlers(self._gate if config.health == "token" else None, self._alarms)
        rpc = RpcBoundary(core.boundary, core.inbox)
        checks = RpcBoundary(Boundary(CHECKS, core.journal, self._gate), core.inbox)
        stroke, others = StrokeServicer(core).make_handlers(rpc), list_services(Parts(core, rpc, checks))
        self._server.add_generic_rpc_handlers((stroke, health, *others))
        if self._gate is not None and config.tls_cert is not None:
            self._server.add_generic_rpc_handlers((AdminHandlers(lambda: self._make_admin(rpc)),))

    def _make_admin(self, boundary: RpcBoundary) -> grpc.GenericRpcHandler:
        """What administrators call."""
        from server.api.admin import AdminServicer

        parts = (self._activator, self._registry, self._core.detector.shadows, self._listener.address)
        return AdminServicer(*parts).make_handlers(boundary)

    async def _show_metrics(self) -> None:
        """Opens the port for Prometheus, where there is to be one. Raises as ``_answer_probes``."""
        if self._metrics is not None:
            from server.metrics.state import State, show  # here, for its library takes 5 MB

            parts = (self._core.detector, self._core.boundary, self._core.streams, self._health)
            state = State(self._config, *parts, self._certificates, self._gate, self._audit, self._activator)
            self._metrics_port = await show(self._metrics, state)

    async def _load(self) -> int | None:
        """Loads the models in a thread of their own, so that a stop is obeyed meanwhile. Returns the exit code of a
        server that cannot serve."""
        assert self._loop is not None
        loaded: asyncio.Future[None] = self._loop.create_future()
        loop = self._loop

        def load() -> None:
            try:
                trusted = self._activator.read_keys()
                self._registry.load(self._config.models, self._config.model, self._plan.options, trusted)
            except BaseException as error:
                report(loaded.set_exception, error)
            else:
                report(loaded.set_result, None)

        def report(settle: Callable[[Any], None], outcome: object) -> None:
            with suppress(RuntimeError):  # the loop has ended: a stop came first
                loop.call_soon_threadsafe(settle, outcome)

        threading.Thread(target=load, name="loader", daemon=True).start()
        stop = asyncio.create_task(self._stop_asked.wait())
        await asyncio.wait((loaded, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if self._stops:
            logger.info("stopped while the model was loading")
            return 0
        try:
            loaded.result()
        except ModelFileError as error:
            return fail(f"{error.message} [{error.reason}]")
        return None

    async def _drain(self) -> int:
        """Refuses what is new, finishes what is in flight, and closes."""
        config, calls = self._config, self._core.boundary
        logger.info("stopping: finishing the calls in flight, for at most %g s", config.drain_seconds)
        self._health.end()
        notify("STOPPING=1")
        started = time.monotonic()
        accept_seconds = min(DRAIN_ACCEPT_SECONDS, config.drain_seconds)
        await self._poll(
            lambda now: now - max(calls.last_arrival, started) > DRAIN_QUIET_SECONDS or now - started > accept_seconds
        )
        self._core.streams.end_all(stopping_server())
        await self._stop_listening()
        closed = asyncio.create_task(self._server.stop(config.drain_seconds))
        await self._poll(lambda now: not calls.in_flight or now - started > config.drain_seconds)
        if calls.in_flight:
            logger.warning("stopping at once: %d calls in flight are cut off", calls.in_flight)
        else:
            await asyncio.wait((closed,), timeout=LEAVE_SECONDS)  # until the last answers are out
        if not closed.done():
            await self._leave()
        if self._metrics_port is not None:
            self._metrics_port.close()
        if self._web is not None:
            await self._web.leave(0 if calls.in_flight else LEAVE_SECONDS)  # its last answers are on their way
        logger.info("stopped")
        return 0

    async def _leave(self) -> None:
        """Cuts off what is open, and gives the addresses free."""
        if self._metrics_port is not None:
            self._metrics_port.close()
        await self._stop_listening()
        if self._web is not None:
            await self._web.leave(0)
        await asyncio.wait((asyncio.create_task(self._server.stop(None)),), timeout=LEAVE_SECONDS)

    async def _stop_listening(self) -> None:
        self._listener.close()
        if self._admin is not None:
            self._admin.close()
        if self._web is not None:
            await self._web.close()

    async def _poll(self, is_over: Callable[[float], bool]) -> None:
        """Returns once ``is_over`` says so of the time, or a second stop was asked for."""
        while self._stops < 2 and not is_over(time.monotonic()):
            await asyncio.sleep(DRAIN_POLL_SECONDS)


def fail(message: str) -> int:
    """Prints one line on standard error and returns the exit code."""
    complain(f"server: error: {message}")
    return EXIT_CANNOT_SERVE


def serve(config: ServerConfig) -> int:
    """Runs a server in this process until SIGTERM or SIGINT. Returns its exit code."""
    try:
        application = Application(config)
    except ModelFileError as error:
        return fail(f"{error.message} [{error.reason}]")
    except (AccessFileError, RulesFileError) as error:
        return fail(str(error))
    return application.run(handle_signals=True)
