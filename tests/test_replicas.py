"""Three real servers behind one name, replaced one by one under load: no call fails, no image is lost or doubled."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.balancer import balancer
from tests.client_fakes import wait_for
from tests.name_server import name_server
from tests.replicas import replace, run_replicas, split_address
from tests.restarts import Callers
from tests.scraping import find_free_port, scrape

pytestmark = pytest.mark.timed

OLD = ("127.0.0.31", "127.0.0.32", "127.0.0.33")
NEW = ("127.0.0.41", "127.0.0.42", "127.0.0.43")
WAYS = ("_call", "_stream", "_call_in_loop", "_stream_in_loop")
AGES = ("--connection-age", "1", "--connection-grace", "1")


def wait_answers(callers: Callers, number: int = 5) -> None:
    """Waits for so many more answers in each of the ways."""
    before = callers.answered.copy()
    wait_for(lambda: all(callers.answered[way] >= before[way] + number for way in WAYS))


def test_servers_of_a_name_are_replaced(tiny_models: Path) -> None:
    """By others at other addresses, all within seconds: single calls and streams of both clients notice nothing."""
    port = find_free_port()
    with (
        name_server() as names,
        run_replicas(tiny_models, OLD, port=port) as old,
        run_replicas(tiny_models, NEW, port=port) as new,
    ):
        names.addresses = list(OLD)
        callers = Callers(f"dns://{names.address}/strokeserve:{port}", threads=1)
        try:
            wait_answers(callers)
            replace(names, old, new)
            wait_answers(callers)
        finally:
            callers.stop()

    assert callers.failures == []


def test_servers_behind_a_balancer_of_connections_are_replaced(tiny_models: Path) -> None:
    """Where calls stay with their connection it is enough that servers end connections, at their age and when they
    stop."""
    port = find_free_port()
    with (
        name_server() as names,
        balancer() as middle,
        run_replicas(tiny_models, OLD, *AGES, port=port) as old,
        run_replicas(tiny_models, NEW, *AGES, port=port) as new,
    ):
        names.addresses = list(OLD)
        middle.targets = [split_address(server) for server in old]
        callers = Callers(middle.address, threads=1)
        try:
            wait_answers(callers)
            for before, after in zip(old, new, strict=True):
                middle.targets = [*middle.targets, split_address(after)]
                middle.targets = [target for target in middle.targets if target != split_address(before)]
                assert before.stop() == 0
            wait_answers(callers)
        finally:
            callers.stop()

    assert callers.failures == []


def test_new_server_behind_a_balancer_gets_its_share(tiny_models: Path) -> None:
    """Within a few ages of connections: without any, those who are connected would never come to it."""
    metrics = [find_free_port(), find_free_port()]
    hosts = OLD[:2]
    with balancer() as middle:
        flags = [("--metrics-port", str(port), *AGES) for port in metrics]
        with (
            run_replicas(tiny_models, hosts[:1], *flags[0]) as first,
            run_replicas(tiny_models, hosts[1:], *flags[1]) as second,
        ):
            middle.targets = [split_address(first[0])]
            callers = Callers(middle.address, threads=1)
            try:
                wait_answers(callers)
                middle.targets = [split_address(server) for server in (*first, *second)]
                wait_for(lambda: all(count_images(port) > 20 for port in metrics))
            finally:
                callers.stop()

    assert callers.failures == []


def count_images(metrics_port: int) -> float:
    """Images that a server has judged."""
    return scrape(metrics_port).get("stroke_images_total", code="OK")
