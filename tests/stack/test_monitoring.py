"""The real Prometheus with the committed configuration.

Over vLLM on CPUs every panel gets what it asks for, and over an engine that misbehaves on demand the alerts fire.
"""

import json
import signal
import subprocess
from collections.abc import Iterator

import pytest
from helpers import cis
from helpers.images import pinned_or_built, run_container
from helpers.monitoring import Monitored, monitored
from helpers.process import DSV4, ROOT, dsv4
from helpers.stacks import STANDIN
from helpers.wait import wait_until

from dsv4_stack import panels
from dsv4_stack.guest.serving.watch import State
from dsv4_stack.panels import QUANTILES

pytestmark = [pytest.mark.docker, pytest.mark.network]

# The name of a profile is that of its project, so `dsv4 status` finds this one.
PROFILE = "mon-cpu"
PANELS = [panel for row in panels.ROWS for panel in row.panels]


@pytest.fixture(scope="module")
def prometheus(base: str) -> Iterator[str]:
    with pinned_or_built("prometheus", base) as image:
        yield image


@pytest.fixture(scope="module")
def cpu(prometheus: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    """vLLM on CPUs, which loads while the tests of alerts run."""
    with monitored(
        f"dsv4-{PROFILE}", tmp_path_factory.mktemp("cpu"), env={"DSV4_PROMETHEUS_IMAGE": prometheus}
    ) as found:
        yield found


@pytest.fixture(scope="module")
def faulty(
    cpu: Monitored, standin_serve: str, prometheus: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Monitored]:
    assert cpu
    folder = tmp_path_factory.mktemp("faulty")
    env = {"DSV4_PROMETHEUS_IMAGE": prometheus, "STANDIN_IMAGE": standin_serve}
    with monitored("dsv4-mon-faulty", folder, STANDIN, env=env) as found:
        found.stack.wait_for("ready")
        yield found


def promtool(prometheus: str, *words: str) -> str:
    mounts = [
        "--volume",
        f"{ROOT}/compose:/project/compose:ro",
        "--volume",
        f"{ROOT}/tests/data:/project/tests/data:ro",
    ]
    done = run_container("--entrypoint", "promtool", *mounts, prometheus, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_configuration_and_the_rules_are_valid(prometheus: str) -> None:
    assert "SUCCESS: 9 rules found" in promtool(
        prometheus, "check", "config", "/project/compose/monitoring/prometheus.yml"
    )


def test_every_alert_fires_when_it_should_and_none_while_all_is_well(prometheus: str) -> None:
    assert "SUCCESS" in promtool(prometheus, "test", "rules", "/project/tests/data/alerts_test.yml")


def test_wrong_answers_are_an_alert(faulty: Monitored) -> None:
    assert wait_until(lambda: faulty.is_up("watch") and faulty.has("dsv4_answers_total"), timeout_s=120)
    assert faulty.firing() == {}
    faulty.stack.fault("garbage")
    assert wait_until(lambda: "EngineAnswersWrongly" in faulty.firing(), timeout_s=120)
    assert "Run `dsv4 status` for the answer" in faulty.firing()["EngineAnswersWrongly"]["description"]
    wrong = [float([name for name, _ in panels.STATES].index(State.WRONG))]
    assert wait_until(lambda: faulty.values(PANELS[0].queries[0].expr) == wrong, timeout_s=120)


def test_a_hang_is_an_alert_and_so_it_is_after_the_engine_was_started_again(faulty: Monitored) -> None:
    faulty.stack.fault("none")
    faulty.stack.wait_for("ready")
    faulty.stack.fault("hang")
    assert wait_until(lambda: "EngineHangs" in faulty.firing(), timeout_s=120)
    faulty.stack.wait_for("ready")
    assert "EngineHangs" in faulty.firing()


def test_panels_get_what_they_ask_for_but_for_those_of_gpus(cpu: Monitored) -> None:
    cpu.stack.wait_for("ready", seconds=300)
    assert wait_until(lambda: cpu.is_up("engine"), timeout_s=120)
    expressions = {(panel.title, query.expr) for panel in PANELS for query in panel.queries}

    def missing() -> set[str]:
        return {title for title, expr in expressions if not cpu.has(expr)}

    def all_but_gpus() -> bool:
        cpu.work()
        return missing() == {panel.title for panel in panels.GPUS}

    assert wait_until(all_but_gpus, timeout_s=120, interval_s=0.5), missing()
    assert cpu.firing() == {}


def test_what_they_get_is_what_happened(cpu: Monitored) -> None:
    queries = {panel.title: panel.queries for panel in PANELS}
    assert cpu.values(queries["State"][0].expr) == [2.0]
    assert cpu.values(queries["Restarts"][0].expr) == [0.0]

    def some_hit() -> bool:
        """The first prompt hits nothing, and it may be all that Prometheus has seen yet."""
        cpu.work()
        return any(0 < hits < 1 for hits in cpu.values(queries["Prefix cache hits"][0].expr))

    assert wait_until(some_hit, timeout_s=120, interval_s=0.5)
    first, middle, last = (cpu.values(query.expr)[0] for query in queries["Time to first token"][:3])
    assert 0 < first <= middle <= last
    # No GPU: it is the engine's.
    assert cpu.values(queries["Prefill per GPU"][0].expr)[0] > 0
    assert cpu.values("dsv4_gpus") == [0.0]


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("profile") / f"{PROFILE}.toml"
    path.write_text('extends = "demo"\n')
    return str(path)


def test_status_has_the_same_figures_as_prometheus(cpu: Monitored, profile: str) -> None:
    names = {"time_to_first_token": "time_to_first_token", "time_per_output_token": "inter_token_latency"}

    def both() -> bool:
        """The same, once Prometheus has asked since the last request was answered."""
        found = {entry["service"]: entry for entry in json.loads(dsv4("status", "--profile", profile, "--json").stdout)}
        figures = found["serve"]["figures"]
        theirs = {
            (name, quantile): cpu.values(f"histogram_quantile({share}, sum by (le) (vllm:{metric}_seconds_bucket))")
            for name, metric in names.items()
            for quantile, share in QUANTILES.items()
        }
        ours = {(name, quantile): [figures[name][quantile]] for name, quantile in theirs}
        assert found["serve"]["watch"]["state"] == "ready"
        return all(ours[key] == pytest.approx(theirs[key]) for key in theirs)

    assert wait_until(both, timeout_s=120, interval_s=1)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What is started from a shell's background ignores SIGINT, and so does what it starts; not from in here."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_status_goes_on_looking_until_it_is_interrupted(cpu: Monitored, profile: str) -> None:
    command = [DSV4, "status", "--watch", "1", "--profile", profile]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout
        try:
            first = watching.stdout.readline()
            cpu.work()
            second = watching.stdout.readline()
        finally:
            watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 0
    assert "ready; Time to first token p50 " in first
    assert "since the start, " in first
    assert "; Throughput generated " in second
    assert "within the last " in second


def test_it_is_nobodys_root_and_has_nothing_to_complain_about(cpu: Monitored) -> None:
    found = cpu.stack.inspect("prometheus")
    assert (found["Config"]["User"], found["HostConfig"]["ReadonlyRootfs"]) == ("65534:65534", True)
    assert found["NetworkSettings"]["Ports"]["9090/tcp"][0]["HostIp"] == "127.0.0.1"
    # docs/serving.md has the reasons; whether there is AppArmor is the host's affair.
    assert cis.failed(found) - {"5.1"} == {"5.11", "5.14"}
    assert [line for line in cpu.stack.log("prometheus").splitlines() if "level=error" in line.lower()] == []
    assert cpu.stack.inspect("prometheus")["State"]["Health"]["Status"] == "healthy"
