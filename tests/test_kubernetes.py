"""deploy/kubernetes is as Kubernetes, KServe and the server want it, and its containers run as written."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from client import StrokeClient
from server.config import ServerConfig
from server.core.metric_names import METRICS
from tests.access import token_of, write_private, write_tokens
from tests.certificates import CA, HOSPITAL, chain, issue_client, issue_server, key, settings
from tests.fakes import ROOT, encode, make_slice, wait_until
from tests.oip_calls import require_program
from tests.scraping import find_free_port, scrape

FOLDER = ROOT / "deploy" / "kubernetes"
SCHEMA = "1.33"
CONTAINERS = ("strokeserve.yaml", "inference-service.yaml")
KINDS = {
    "strokeserve.yaml": ["ServiceAccount", "Deployment", "Service", "PodDisruptionBudget"],
    "autoscaler.yaml": ["HorizontalPodAutoscaler"],
    "network-policy.yaml": ["NetworkPolicy"],
}


def list_documents(name: str) -> list[Any]:
    """The objects of a file."""
    return [one for one in yaml.safe_load_all((FOLDER / name).read_text("utf-8")) if one]


def find_document(name: str, kind: str) -> Any:
    """The object of that kind."""
    (found,) = [one for one in list_documents(name) if one["kind"] == kind]
    return found


def find_pod(name: str) -> Any:
    """The specification of the pod that a file has."""
    if name == "inference-service.yaml":
        return find_document(name, "InferenceService")["spec"]["predictor"]
    return find_document(name, "Deployment")["spec"]["template"]["spec"]


def find_settings(name: str) -> dict[str, str]:
    """Variables of the container of a file."""
    (container,) = find_pod(name)["containers"]
    return {entry["name"]: entry["value"] for entry in container["env"]}


@pytest.mark.parametrize("name", KINDS)
def test_objects_fit_the_schema(name: str) -> None:
    """Each by itself, with no field that the schema does not know."""
    import kubernetes_validate

    documents = list_documents(name)

    assert [document["kind"] for document in documents] == KINDS[name]
    for document in documents:
        kubernetes_validate.validate(document, SCHEMA, strict=True)


def test_predictor_is_what_kserve_knows() -> None:
    """Its fields are those of KServe's own predictor; those of a pod fit the schema of one."""
    import kubernetes_validate

    service = find_document("inference-service.yaml", "InferenceService")
    predictor = service["spec"]["predictor"]
    code = (
        "import json; from kserve.models import *; print(json.dumps([list(kind.attribute_map.values()) for kind in "
        "(V1beta1InferenceService, V1beta1InferenceServiceSpec, V1beta1PredictorSpec, V1beta1ComponentExtensionSpec)]))"
    )
    done = subprocess.run([require_program("kserve"), "-c", code], capture_output=True, text=True, check=True)
    top, spec, known, of_kserve = map(set, json.loads(done.stdout))

    assert set(service) <= top
    assert set(service["spec"]) <= spec
    assert set(predictor) <= known
    of_pod = {name: predictor[name] for name in set(predictor) - of_kserve | {"terminationGracePeriodSeconds"}}
    kubernetes_validate.validate(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": of_pod}, SCHEMA, strict=True
    )
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"


@pytest.mark.parametrize("name", CONTAINERS)
def test_container_fits_the_server(name: str) -> None:
    """Ports and files that are mounted are those of its settings; processor time is not limited, memory is."""
    (container,) = find_pod(name)["containers"]
    given = find_settings(name)
    ports = {port["containerPort"] for port in container["ports"]}
    mounts = [mount["mountPath"] for mount in container.get("volumeMounts", [])]

    assert ServerConfig().port in ports
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["grpc"]["port"] == int(given["STROKE_PROBE_PORT"])
    files = [value for value in given.values() if value.startswith("/")]
    assert all(any(file.startswith(f"{mount}/") for mount in mounts) for file in files)
    assert set(container["resources"]["limits"]) == {"memory"}


@pytest.mark.parametrize("name", CONTAINERS)
def test_container_can_do_no_more_than_it_must(name: str) -> None:
    """No root, nothing to write, no capabilities, and no token that opens Kubernetes."""
    pod = find_pod(name)
    (container,) = pod["containers"]

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("name", CONTAINERS)
def test_stop_is_given_the_time_that_it_takes(name: str) -> None:
    """What waits before it, calls in flight, and some seconds to close."""
    pod = find_pod(name)
    (container,) = pod["containers"]
    drain = float(find_settings(name).get("STROKE_DRAIN_SECONDS", ServerConfig().drain_seconds))

    assert pod["terminationGracePeriodSeconds"] >= container["lifecycle"]["preStop"]["sleep"]["seconds"] + drain + 5


def test_objects_belong_together() -> None:
    """Service, budget, autoscaler and policy mean the pods of the Deployment, and ports that these have."""
    deployment = find_document("strokeserve.yaml", "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"] for port in find_pod("strokeserve.yaml")["containers"][0]["ports"]}
    service = find_document("strokeserve.yaml", "Service")["spec"]
    policy = find_document("network-policy.yaml", "NetworkPolicy")["spec"]
    budget = find_document("strokeserve.yaml", "PodDisruptionBudget")["spec"]
    target = find_document("autoscaler.yaml", "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]

    assert service["clusterIP"] == "None"
    assert service["selector"] == labels
    assert {port["targetPort"] for port in service["ports"]} <= ports
    assert policy["podSelector"]["matchLabels"] == budget["selector"]["matchLabels"] == labels
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == {"grpc", "metrics"}
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_queues_by_which_servers_are_added_are_measured() -> None:
    """The autoscaler's metric is one that the server shows, and the one that Prometheus is asked for."""
    (metric,) = find_document("autoscaler.yaml", "HorizontalPodAutoscaler")["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    (rule,) = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text("utf-8"))["rules"]["custom"]

    assert name in [one.name for one in METRICS if one.kind == "gauge"]
    assert re.match(r"\w+", rule["seriesQuery"])[0] == name  # type: ignore[index]
    assert "avg_over_time" in rule["metricsQuery"]


def place_files(folder: Path, given: dict[str, str]) -> dict[str, str]:
    """Makes what is mounted, and returns the variables with these paths, and with free ports of this machine."""
    own = issue_server(HOSPITAL, "strokeserve")
    content = {"tls.crt": chain(own), "tls.key": key(own), "ca.crt": CA}
    placed = dict(given)
    for name, value in given.items():
        if not value.startswith("/"):
            continue
        path = folder / Path(value).name
        placed[name] = str(path)
        if path.name == "tokens":
            write_tokens(path, pacs="")
        else:
            write_private(path, content[path.name].decode().splitlines())
    for name in ("STROKE_PORT", "STROKE_PROBE_PORT", "STROKE_METRICS_PORT"):
        if name in given or name == "STROKE_PORT":
            placed[name] = str(find_free_port())
    return {**placed, "STROKE_HOST": "127.0.0.1", "STROKE_METRICS_HOST": "127.0.0.1"}


def close_root(command: list[str]) -> list[str]:
    """A command for which the root of the file system is read-only, where this user may make it so."""
    closing = ["unshare", "--mount", "sh", "-c", 'mount -o remount,bind,ro / && exec "$@"', "sh"]
    is_allowed = subprocess.run([*closing, "true"], capture_output=True, check=False).returncode == 0
    return [*closing, *command] if is_allowed else command


def read_container() -> tuple[list[str], dict[str, str]]:
    """Command and variables of the image, for this checkout."""
    text = (ROOT / "deploy" / "container" / "Dockerfile").read_text("utf-8")
    _, image = text.rsplit("\nFROM ", 1)
    (entry,) = re.findall(r"^ENTRYPOINT (.+)$", image, re.MULTILINE)
    variables = dict(
        part.split("=", 1) for line in re.findall(r"^ENV (.+)$", image, re.MULTILINE) for part in shlex.split(line)
    )
    python, *rest = json.loads(entry)
    assert python == "python3"
    return [sys.executable, *rest], {**variables, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("name", CONTAINERS)
def test_container_runs_as_written(name: str, tiny_models: Path, tmp_path: Path) -> None:
    """Its command with its variables, and no place to write to: the probes pass, who has certificate and token is
    answered, the autoscaler's metric is there, and SIGTERM ends it with 0 within the time that the pod gives it."""
    command, variables = read_container()
    given = place_files(tmp_path, find_settings(name))
    environment = {"PATH": os.environ["PATH"], **variables, **given, "STROKE_MODELS": str(tiny_models)}
    with subprocess.Popen(close_root(command), env=environment, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        with grpc.insecure_channel(f"127.0.0.1:{given['STROKE_PROBE_PORT']}") as channel:
            wait_until(lambda: probe(channel) == health_pb2.HealthCheckResponse.SERVING)
        is_secured = "STROKE_TLS_CERT" in given
        access = {"tls": settings(issue_client(), server_name="strokeserve"), "token": token_of("pacs")}
        with StrokeClient(f"127.0.0.1:{given['STROKE_PORT']}", **access if is_secured else {}) as client:
            assert client.predict(encode(make_slice())).label
        if "STROKE_METRICS_PORT" in given:
            names = {sample.name for sample in scrape(int(given["STROKE_METRICS_PORT"])).samples}
            assert "stroke_queue_depth" in names
        process.terminate()
        began = time.monotonic()
        assert process.wait(60) == 0

    assert time.monotonic() - began < find_pod(name)["terminationGracePeriodSeconds"] - 10


def probe(channel: grpc.Channel) -> int:
    """What a gRPC probe of Kubernetes is told; 0: nothing."""
    try:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
    except grpc.RpcError:
        return 0
    status: int = answer.status
    return status
