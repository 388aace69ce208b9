"""``python -m server doctor``: looks at this box as the server would find it, before it is relied on."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from server.config import ServerConfig
from server.core.capacity import (
    find_most_decoder_memory,
    find_most_image_memory,
    find_most_message_memory,
    find_most_model_memory,
)
from server.core.plan import make_plan
from server.core.study.rules_file import RulesFileError, read_rules
from server.errors import ModelFileError
from server.flags import LineParser, add_settings, check_settings, read_settings, setting
from server.machine.memory import read_resident_bytes
from server.machine.processors import (
    count_machine_processors,
    count_processors,
    find_target,
    read_cpu_quota,
    read_features,
)
from server.models.registry import ModelRegistry
from server.models.repository import find_places, read_active_for
from server.models.signature import read_trusted
from server.process.console import say

HTTP_NEEDS = ("starlette", "uvicorn", "python_multipart")
GOOD, WARNING, PROBLEM = "ok", "warning", "problem"
LEAST_FREE_DISK = 500 * 1000 * 1000
TIME_ERROR = 5
"""What adjtimex(2) answers where nothing keeps the clock right."""

FIRST_TIME = 1_767_225_600
"""The clock cannot be right before this: 2026-01-01, when the program was younger."""


@dataclass(frozen=True)
class DoctorConfig:
    """What is set of an examination alone."""

    json: bool = setting(False, "print one JSON object instead of lines")

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class Finding:
    """What one look has shown."""

    subject: str
    state: str
    """``ok``, ``warning`` (it serves, though less well than it could), or ``problem`` (it will not serve, or not for
    long)."""

    text: str
    """What was seen, and what to do."""


def main(argv: Sequence[str]) -> int:
    """Examines. Returns 0 when there is no problem, 1 when there is one."""
    parser = build_parser()
    options = parser.parse_args(argv)
    config = read_settings(parser, options, ServerConfig, environment=os.environ)
    wanted = read_settings(parser, options, DoctorConfig)
    findings = list(examine(config))
    is_well = all(finding.state != PROBLEM for finding in findings)
    if wanted.json:
        said = say(json.dumps({"ok": is_well, "findings": [asdict(finding) for finding in findings]}))
    else:
        width = max(len(finding.subject) for finding in findings)
        said = say("\n".join(f"{one.state:8} {one.subject:{width}}  {one.text}" for one in findings))
    return 0 if is_well and said else 1


def build_parser() -> LineParser:
    """The command line of ``python -m server doctor``."""
    parser = LineParser(
        prog="python -m server doctor",
        description="Looks at this box as a server with the same settings would find it: processor, memory, disk, "
        "clock, files, models and port.",
        epilog=(
            "examples:\n"
            "  python -m server doctor\n"
            "  python -m server doctor --host 0.0.0.0 --workers 4 --json\n\n"
            "Exit codes: 0 no problem (there may be warnings), 1 a problem, 2 usage."
        ),
    )
    add_settings(parser, ServerConfig)
    add_settings(parser, DoctorConfig)
    return parser


def examine(config: ServerConfig) -> Iterator[Finding]:
    """All findings, in the order in which an operator reads them. An examination that fails is a finding itself."""
    looks: list[Callable[[ServerConfig], Iterator[Finding]]] = [
        look_at_processor,
        look_at_clock,
        look_at_disk,
        look_at_permissions,
        look_at_certificates,
        look_at_access,
        look_at_study_rules,
        look_at_dicom,
        look_at_models_and_memory,
        look_at_port,
    ]
    for look in looks:
        try:
            yield from look(config)
        except OSError as error:
            yield Finding(look.__name__.removeprefix("look_at_"), PROBLEM, f"cannot be examined: {error.strerror}")


def look_at_processor(config: ServerConfig) -> Iterator[Finding]:
    """Instruction sets and what follows for INT8; processors against a quota."""
    features, target = read_features(), find_target()
    names = {
        "amx_int8": "AMX",
        "avx512_vnni": "VNNI",
        "avx_vnni": "VNNI",
        "avx2": "AVX2",
        "asimddp": "NEON dot product",
    }
    known = sorted({name for feature, name in names.items() if feature in features})
    text = f"{', '.join(known) or 'none of AVX2, VNNI, AMX'}; INT8 variants for {target} are right for it"
    if target == "x86":
        yield Finding("processor", WARNING, f"{text}: without VNNI, INT8 is hardly faster than fp32")
    else:
        yield Finding("processor", GOOD, text)
    there, quota, planned = count_machine_processors(), read_cpu_quota(), count_processors()
    limit = "no quota" if quota is None else f"a quota of {quota:g}"
    plan = make_plan(config, planned)
    text = f"{there} on this machine, {limit}: {planned} to plan for, {plan.workers} images at the same time"
    if quota is not None and quota < 1:
        yield Finding("cores", WARNING, f"{text}; below 1, each image waits for its share in the middle of the work")
    else:
        yield Finding("cores", GOOD if plan.workers <= planned else WARNING, text)


def look_at_clock(config: ServerConfig) -> Iterator[Finding]:
    """Certificates, tokens and the audit log go by it."""
    now = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    if time.time() < FIRST_TIME:
        yield Finding("clock", PROBLEM, f"{now}: set it; certificates would not be valid yet")
    elif is_clock_kept() is False:
        yield Finding("clock", WARNING, f"{now}, and nothing keeps it right: run chrony or systemd-timesyncd")
    else:
        yield Finding("clock", GOOD, now)


def is_clock_kept() -> bool | None:
    """Whether the kernel takes its clock for synchronised; None where it does not tell."""
    try:
        adjust = ctypes.CDLL(None).adjtimex
    except (AttributeError, OSError, TypeError):
        return None
    state = adjust(ctypes.create_string_buffer(512))  # struct timex, all zero: only asks
    return None if state < 0 else bool(state != TIME_ERROR)


def look_at_disk(config: ServerConfig) -> Iterator[Finding]:
    """Room for the cache of optimised models."""
    folder = config.cache_folder
    if folder is None:
        text = "no cache: each start optimises the model again" if config.cache == "off" else "no place for a cache"
        yield Finding("disk", GOOD if config.cache == "off" else WARNING, text)
        return
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    text = f"{free / 1e9:.1f} GB free for {folder}"
    yield Finding("disk", GOOD if free >= LEAST_FREE_DISK else WARNING, text)


def look_at_permissions(config: ServerConfig) -> Iterator[Finding]:
    """Who could change what is served."""
    loose = [path for path in list_served(config.models) if is_loose(path)]
    if loose:
        text = f"others than the owner may write to {loose[0]}"
        text += f" and {len(loose) - 1} more: chmod -R go-w {config.models}"
        yield Finding("permissions", WARNING, text)
    else:
        yield Finding("permissions", GOOD, f"{config.models}: only its owner may change models")


def list_served(folder: Path) -> Iterator[Path]:
    """A folder of models with what is two levels below and the files there."""
    if folder.is_dir():
        yield folder
        for depth in ("*", "*/*", "*/*/*"):
            yield from folder.glob(depth)


def is_loose(path: Path) -> bool:
    """Whether group or others may write to it. The server's group may add to a folder whose sticky bit keeps it from
    changing what others have put there."""
    mode = path.lstat().st_mode
    is_kept = stat.S_ISDIR(mode) and bool(mode & stat.S_ISVTX)
    return not stat.S_ISLNK(mode) and bool(mode & (stat.S_IWOTH if is_kept else stat.S_IWGRP | stat.S_IWOTH))


def look_at_certificates(config: ServerConfig) -> Iterator[Finding]:
    """Whether those of TLS can be used, and for how long. Nothing where there is no TLS."""
    if config.tls_cert is None or config.tls_key is None:
        return
    from server.security.bundle import CertificateError, TLSFiles, show_time
    from server.security.certificates import DAY_SECONDS, WARN_DAYS, describe, find_fault, title

    try:
        found = describe(TLSFiles(config.tls_cert, config.tls_key, config.tls_client_ca))
    except CertificateError as error:
        yield Finding("certificate", PROBLEM, str(error))
        return
    for one in found:
        fault = find_fault(one)
        is_near = one.not_after - time.time() < max(WARN_DAYS) * DAY_SECONDS
        text = fault or f"{title(one)} holds until {show_time(one.not_after)}"
        yield Finding("certificate", PROBLEM if fault else WARNING if is_near else GOOD, text)


def look_at_access(config: ServerConfig) -> Iterator[Finding]:
    """Whether the files that say who may call can be used, and which tokens end soon. Nothing where there are none."""
    if config.tokens is None and config.allow_clients is None:
        return
    from server.security.files import AccessFileError
    from server.security.gate import EXPIRY_WARN_SECONDS, Gate

    try:
        entries = Gate(config.tokens, config.allow_clients).entries
    except AccessFileError as error:
        yield Finding("access", PROBLEM, str(error))
        return
    for entry in entries:
        if entry.expires_at - time.time() < EXPIRY_WARN_SECONDS:
            yield Finding("access", WARNING, f"the token of {entry.name} is good until {entry.expires} (UTC)")
    yield Finding("access", GOOD, f"the files that say who may call can be used; {len(entries)} tokens")


def look_at_study_rules(config: ServerConfig) -> Iterator[Finding]:
    """Whether the rules of series can be used. Nothing where those of the program hold."""
    if config.study_rules is None:
        return
    try:
        read_rules(config.study_rules)
    except RulesFileError as error:
        yield Finding("study rules", PROBLEM, str(error))
    else:
        yield Finding("study rules", GOOD, f"{config.study_rules}: every rule is known and within its range")


def look_at_dicom(config: ServerConfig) -> Iterator[Finding]:
    """Which DICOM files are read, by what is installed."""
    if find_spec("pydicom") is None:
        yield Finding("dicom", GOOD, "DICOM files are refused: to read them, make install-dicom")
        return
    codecs = {"gdcm": "JPEG and JPEG-LS", "openjpeg": "JPEG 2000"}
    missing = [name for package, name in codecs.items() if find_spec(package) is None]
    rest = f"; {' and '.join(missing)} are refused: make install-dicom-codecs" if missing else ", compressed ones, too"
    yield Finding("dicom", GOOD, f"DICOM files are read{rest}")


def look_at_models_and_memory(config: ServerConfig) -> Iterator[Finding]:
    """The models, and with them in memory what else that must hold."""
    registry = ModelRegistry()
    yield from look_at_models(config, registry)
    yield from look_at_memory(config, registry)


def look_at_models(config: ServerConfig, registry: ModelRegistry) -> Iterator[Finding]:
    """Digests, contract and golden answers, exactly as at a start. ``registry`` then has the models."""
    try:
        trusted = None if config.require_signature is None else read_trusted(config.require_signature)
        registry.load(config.models, config.model, make_plan(config, count_processors()).options, trusted)
        places = find_places(config.models, config.model, read_active_for(config.models, config.model))
    except ModelFileError as error:
        yield Finding("model", PROBLEM, f"{error.message} [{error.reason}]")
        return
    for model in registry:
        yield Finding(
            "model",
            GOOD,
            f"{model.spec.name} {model.spec.version} ({model.options.precision}): digest {model.digest[:12]}… and "
            "golden answers are right on this box",
        )
    for fault in (fault for place in places for fault in place.skipped):
        yield Finding("model", WARNING, f"a newer version is not whole and is passed over: {fault}")
    for (name, channel), lost in registry.faults.items():
        yield Finding("model", WARNING, f"the {channel} of {name} is not served: {lost.message} [{lost.reason}]")


def look_at_memory(config: ServerConfig, registry: ModelRegistry) -> Iterator[Finding]:
    """What the settings may come to need, against what there is: the models, which are in memory by then, callers'
    messages and images, decoders, and one version more beside each while it is activated."""
    workers, more = make_plan(config, count_processors()).workers, find_most_model_memory(registry)
    worst = read_resident_bytes() + find_most_message_memory(config, workers) + find_most_image_memory(config, workers)
    worst += more + find_most_decoder_memory(config, workers)
    there = read_available_bytes()
    text = (
        f"at most {worst / 1e6:.0f} MB with these settings, {more / 1e6:.0f} of them for a version that is activated; "
        f"{there / 1e6:.0f} MB are available"
    )
    if there and worst > there:
        yield Finding("memory", WARNING, f"{text}: lower --max-image-pixels, --max-image-bytes or --workers")
    else:
        yield Finding("memory", GOOD, f"{text}; MemoryMax={-(-worst // 100_000_000) * 100}M fits a unit of systemd")


def read_available_bytes() -> int:
    """Memory that could be taken without swapping, the limit of a control group included; 0 where nothing tells."""
    found = []
    for line in read_text(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            found.append(int(line.split()[1]) * 1024)
    limit = read_text(Path("/sys/fs/cgroup/memory.max")) or read_text(
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")
    )
    if limit.strip().isdecimal():
        found.append(int(limit))
    return min(found, default=0)


def read_text(path: Path) -> str:
    """The text of a small file of the kernel; empty where it is not there."""
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""


def look_at_port(config: ServerConfig) -> Iterator[Finding]:
    """Whether the address is free."""
    if config.host.startswith("unix:"):
        folder = Path(config.host.removeprefix("unix:")).parent
        is_there = os.access(folder, os.W_OK)
        yield Finding(
            "port", GOOD if is_there else PROBLEM, f"{folder}: {'can' if is_there else 'cannot'} be written to"
        )
    else:
        yield look_at_address("port", config.host, config.port)
    if config.http:
        missing = [name for name in HTTP_NEEDS if find_spec(name) is None]
        if missing:
            yield Finding("http", PROBLEM, f"not installed: {', '.join(missing)}; make install-web adds it")
        yield look_at_address("http", config.http.rpartition(":")[0].strip("[]"), config.http_port)


def look_at_address(subject: str, host: str, port: int) -> Finding:
    """Whether an address of TCP is free."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            text = f"{host}:{port}: {error.strerror}; a server that runs already has it, too"
            return Finding(subject, PROBLEM, text)
    return Finding(subject, GOOD, f"{host}:{port} is free")
