"""Server reflection, which tells what there is to those who may call, where it is asked for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from server.lifecycle.services import INFERENCE_SERVICE, LateService
from tests.access import token_of, write_tokens
from tests.fakes import ROOT, ServerProcess, run_server
from tests.oip_calls import SERVICE, reason_of

SERVICES = ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection", SERVICE, "stroke.v1.StrokeService"]
Request = reflection_pb2.ServerReflectionRequest


@pytest.fixture(scope="module")
def reflecting(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with reflection that wants tokens."""
    tokens = write_tokens(tmp_path_factory.mktemp("access") / "tokens", reader="roles=read")
    with run_server(tiny_models, "--reflection", "--tokens", str(tokens)) as server:
        yield server


def exchange(server: ServerProcess, *requests: Request, version: str = "v1", token: str = "reader") -> list[str]:
    """The names of services in the answers."""
    with grpc.insecure_channel(server.address) as channel:
        answers = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=Request.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )(iter(requests), timeout=20, metadata=(("authorization", f"Bearer {token_of(token)}"),))
        return [service.name for answer in answers for service in answer.list_services_response.service]


def test_tools_learn_all_services_and_their_messages(reflecting: ServerProcess) -> None:
    """As a program without stubs does it."""

    class WithToken(grpc.StreamStreamClientInterceptor):  # type: ignore[misc]
        def intercept_stream_stream(self, continuation, details, request_iterator):  # type: ignore[no-untyped-def]
            metadata = (("authorization", f"Bearer {token_of('reader')}"),)
            return continuation(details._replace(metadata=metadata), request_iterator)

    with grpc.insecure_channel(reflecting.address) as plain:
        database = ProtoReflectionDescriptorDatabase(grpc.intercept_channel(plain, WithToken()))
        names = sorted(database.get_services())
        pool = DescriptorPool(database)
        methods = {name: [method.name for method in pool.FindServiceByName(name).methods] for name in names}

    assert names == SERVICES
    assert "Predict" in methods["stroke.v1.StrokeService"]
    assert "ModelInfer" in methods[SERVICE]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_both_versions_are_answered(version: str, reflecting: ServerProcess) -> None:
    """Tools know one or the other; several questions may come on one stream."""
    question = Request(list_services="")

    assert exchange(reflecting, question, question, version=version) == SERVICES * 2


def test_questions_are_bounded_and_for_those_who_may_call(reflecting: ServerProcess) -> None:
    """The name of a symbol is no megabyte."""
    with pytest.raises(grpc.RpcError) as refusal:
        exchange(reflecting, Request(file_containing_symbol="x" * 1_000_000))
    assert reason_of(refusal.value) == "REQUEST_MALFORMED"
    with pytest.raises(grpc.RpcError) as refusal:
        exchange(reflecting, Request(list_services=""), token="nobody")
    assert reason_of(refusal.value) == "TOKEN_WRONG"


def test_it_is_off_unless_asked_for(tiny_server: ServerProcess) -> None:
    """Nobody needs to know more than he asks for."""
    with pytest.raises(grpc.RpcError) as refusal:
        exchange(tiny_server, Request(list_services=""))

    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_service_is_made_at_its_first_call() -> None:
    """Once; calls of other services are left to those."""
    made: list[str] = []
    handler = SimpleNamespace(service=lambda details: "handler" if details.method.endswith("/Known") else None)

    def make() -> list[object]:
        made.append("made")
        return [handler]

    service = LateService("some.Service", make)  # type: ignore[arg-type]

    assert service.service(SimpleNamespace(method="/other.Service/Known")) is None
    assert made == []
    assert service.service(SimpleNamespace(method="/some.Service/Known")) == "handler"
    assert service.service(SimpleNamespace(method="/some.Service/Unknown")) is None
    assert made == ["made"]


def test_protocol_is_not_loaded_before() -> None:
    """Those who never call it do not pay for it."""
    assert INFERENCE_SERVICE == SERVICE
    for part in ("lifecycle", "metrics", "api", "admission"):
        for path in (ROOT / "server" / part).rglob("*.py"):
            tree = ast.parse(path.read_text("utf-8"))
            names = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
            names |= {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}
            assert not [name for name in names if name.startswith("server.oip")], path
