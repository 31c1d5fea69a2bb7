"""Grafana with the committed dashboard, as a browser shows it: the pinned image, over vLLM on CPUs and Prometheus."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import pytest
from helpers import cis
from helpers.images import build_image, pinned_or_built, pulled_image, remove_image, run_container
from helpers.monitoring import Monitored, monitored
from helpers.stacks import ask
from helpers.wait import wait_until
from helpers.watched import free_port

from dsv4_stack import dashboard, panels

pytestmark = [pytest.mark.docker, pytest.mark.network]

PROJECT = "dsv4-mon-dashboard"
PANELS = [panel for row in panels.ROWS for panel in row.panels]
NEED_GPUS = {panel.title for panel in panels.GPUS}
PAGE = f"http://grafana:3000/d/{dashboard.UID}?kiosk&from=now-5m&to=now"
_HEADER = re.compile(r'data-testid="data-testid Panel header ([^"]*)"')


@dataclass
class Grafana:
    """`port` is Grafana's. `browser` is an image that holds one."""

    monitored: Monitored
    port: int
    browser: str

    def show(self, folder: Path) -> str:
        """The page's elements as they are after a while; a picture of it becomes dashboard.png."""
        folder.chmod(0o777)
        words = ["--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1600,1900"]
        words += ["--virtual-time-budget=20000", "--screenshot=/out/dashboard.png", "--dump-dom", PAGE]
        container = ["--network", f"{PROJECT}_inside", "--shm-size", "512m", "--user", "10001", "--env", "HOME=/tmp"]
        container += ["--volume", f"{folder}:/out", self.browser]
        done = run_container(*container, "chromium-headless-shell", *words, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def grafana(base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grafana]:
    image = pulled_image("grafana")
    if not image:
        pytest.skip("Grafana's pinned image cannot be pulled on this machine, and no package holds it")
    port, browser = free_port(), f"dsv4-test/chromium:{PROJECT}"
    build_image("tests/standin", tag=browser, dockerfile="chromium.Dockerfile", args={"BASE_IMAGE": base})
    with pinned_or_built("prometheus", base) as prometheus:
        env = {"DSV4_PROMETHEUS_IMAGE": prometheus, "DSV4_GRAFANA_PORT": str(port)}
        folder = tmp_path_factory.mktemp("dashboard")
        with monitored(PROJECT, folder, env=env, services=("grafana",)) as found:
            found.stack.wait_for("ready", seconds=300)
            assert wait_until(lambda: ask(port, "/api/health")[0] == 200, timeout_s=120)
            assert wait_until(lambda: found.is_up("engine"), timeout_s=120)
            yield Grafana(monitored=found, port=port, browser=browser)
    remove_image(browser)


def elements(page: str) -> dict[str, str]:
    """Each panel's part of the page, by its title."""
    _, *parts = _HEADER.split(page)
    return {unescape(title): text for title, text in zip(parts[::2], parts[1::2], strict=True)}


def test_whoever_reaches_it_may_look_and_change_nothing(grafana: Grafana) -> None:
    status, body = ask(grafana.port, f"/api/dashboards/uid/{dashboard.UID}")
    assert status == 200
    assert json.loads(body)["meta"]["canSave"] is False
    status, body = ask(grafana.port, "/api/dashboards/home")
    assert json.loads(body)["dashboard"]["title"] == "dsv4-stack"
    assert ask(grafana.port, "/api/dashboards/db", {"dashboard": {"title": "mine"}})[0] in (401, 403)
    assert ask(grafana.port, "/api/datasources")[0] in (401, 403)


def test_every_panel_shows_something_but_those_of_gpus(grafana: Grafana, tmp_path: Path) -> None:
    queries = [query.expr for panel in PANELS if panel.title not in NEED_GPUS for query in panel.queries]

    def is_filled() -> bool:
        grafana.monitored.work()
        return all(grafana.monitored.has(query) for query in queries)

    assert wait_until(is_filled, timeout_s=120, interval_s=0.5)
    shown = elements(grafana.show(tmp_path))
    assert set(shown) == {panel.title for panel in PANELS}
    assert {title for title, text in shown.items() if "No data" in text} == NEED_GPUS
    assert [title for title, text in shown.items() if "Panel status error" in text] == []
    assert "ready" in shown["State"]
    assert (tmp_path / "dashboard.png").stat().st_size > 50_000


def test_it_calls_nobody_and_complains_of_nothing(grafana: Grafana) -> None:
    log = grafana.monitored.stack.log("grafana")
    assert [line for line in log.splitlines() if "level=error" in line] == []
    found = grafana.monitored.stack.inspect("grafana")
    assert (found["Config"]["User"], found["HostConfig"]["ReadonlyRootfs"]) == ("472:0", True)
    assert found["NetworkSettings"]["Ports"]["3000/tcp"][0]["HostIp"] == "127.0.0.1"
    assert cis.failed(found) - {"5.1"} == {"5.11", "5.14"}
