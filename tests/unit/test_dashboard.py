"""The dashboard's JSON: nothing lies over anything else, every panel asks something, and states are the watch's."""

import json
from collections.abc import Iterator
from copy import deepcopy
from itertools import combinations
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from dsv4_stack import card, dashboard, panels
from dsv4_stack.guest.serving.watch import State
from dsv4_stack.panels import ROWS, Kind, Panel

DOCUMENT: dict[str, Any] = json.loads(dashboard.text())
PLACED: list[dict[str, Any]] = DOCUMENT["panels"]
PANELS = [panel for row in ROWS for panel in row.panels]


def test_the_text_is_the_same_every_time_and_ends_as_a_file_does() -> None:
    assert dashboard.text() == dashboard.text()
    assert dashboard.text().endswith("}\n")
    assert (DOCUMENT["uid"], DOCUMENT["editable"]) == ("dsv4", False)


def differences(ours: object, theirs: object, where: str = "") -> Iterator[str]:
    """Paths in `ours` that are not, or not the same, in `theirs`."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name, value in ours.items():
            yield from differences(value, theirs.get(name), f"{where}.{name}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, pair in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(*pair, f"{where}[{number}]")
    elif ours != theirs:
        yield where


def read_by_grafana(document: dict[str, Any]) -> dict[str, Any]:
    """What is left once Grafana's own model of a dashboard and of its panels has read and written it."""
    register_default_plugins()
    read: dict[str, Any] = json.loads(json.dumps(Dashboard.from_json(deepcopy(document)), cls=JSONEncoder))
    return read


def test_grafanas_schema_knows_every_field() -> None:
    assert list(differences(DOCUMENT, read_by_grafana(DOCUMENT))) == []


def test_a_misspelt_field_is_noticed() -> None:
    wrong = deepcopy(DOCUMENT)
    panel = wrong["panels"][1]
    panel["gridpos"] = panel.pop("gridPos")
    panel["targets"][0]["exprr"] = "up"
    panel["options"]["legnd"] = {}
    panel["fieldConfig"]["defaults"]["unitt"] = "s"
    assert sorted(differences(wrong, read_by_grafana(wrong))) == [
        ".panels[1].fieldConfig.defaults.unitt",
        ".panels[1].gridpos",
        ".panels[1].options.legnd",
        ".panels[1].targets[0].exprr",
    ]


def test_every_panel_has_a_number_and_a_title_of_its_own() -> None:
    assert len({panel["id"] for panel in PLACED}) == len({panel["title"] for panel in PLACED}) == len(PLACED)


def cells(panel: dict[str, Any]) -> set[tuple[int, int]]:
    place = panel["gridPos"]
    columns = range(place["x"], place["x"] + place["w"])
    return {(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])}


def test_no_panel_lies_over_another_or_beyond_the_edge() -> None:
    assert [pair for pair in combinations(map(cells, PLACED), 2) if pair[0] & pair[1]] == []
    assert max(x for panel in PLACED for x, _ in cells(panel)) == 23


def test_rows_stand_in_their_order_below_their_titles() -> None:
    tops = [panel["gridPos"]["y"] for panel in PLACED]
    assert tops == sorted(tops)
    assert [panel["title"] for panel in PLACED if panel["type"] == "row"] == [row.title for row in ROWS]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_a_panel_says_what_it_shows(panel: Panel) -> None:
    assert panel.about.endswith(".")
    assert [query.expr.count("(") - query.expr.count(")") for query in panel.queries] == [0] * len(panel.queries)
    (placed,) = [found for found in PLACED if found["title"] == panel.title]
    assert [target["refId"] for target in placed["targets"]] == list("ABCD"[: len(panel.queries)])
    assert {target["datasource"]["uid"] for target in placed["targets"]} == {"prometheus"}


def test_the_states_number_is_its_place_among_the_names() -> None:
    assert [name for name, _ in panels.STATES[1:]] == list(State)
    query = PANELS[0].queries[0].expr
    assert (
        query
        == "("
        + " + ".join(f'{number} * sum(dsv4_state{{state="{state}"}})' for number, state in enumerate(State, start=1))
        + ") or vector(0)"
    )
    (mapping,) = next(panel for panel in PLACED if panel["title"] == "State")["fieldConfig"]["defaults"]["mappings"]
    assert {value: words["text"] for value, words in mapping["options"].items()} == {
        "0": "not there",
        "1": "starting",
        "2": "ready",
        "3": "wrong",
        "4": "hung",
        "5": "stopping",
    }


def test_the_cards_lines_are_dashed_and_named() -> None:
    found = {
        panel["title"]: (panel["targets"][-1]["expr"], panel["fieldConfig"]["overrides"][0]["matcher"]["options"])
        for panel in PLACED
        if panel["type"] == "timeseries" and panel["fieldConfig"]["overrides"]
    }
    label = "model card: 24,576 tokens, 2x H200"
    assert found == {"Time to first token": ("vector(1.658)", label), "Prefill per GPU": ("vector(7410)", label)}


def test_the_cards_figures_agree_with_each_other() -> None:
    found = card.PROMPT_TOKENS / card.TTFT_S / card.GPUS
    assert found == pytest.approx(card.PREFILL, rel=0.001)


def test_only_gpus_own_panels_need_gpus() -> None:
    asking = {panel.title for panel in PANELS if any("DCGM" in query.expr for query in panel.queries)}
    assert asking == {panel.title for panel in panels.GPUS}
    assert {panel.kind for panel in panels.GPUS} == {Kind.LINES}
