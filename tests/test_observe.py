"""Alert rules and the Grafana dashboard ask only for figures that exist, with labels and values these can have."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from cacheproxy.clock import SystemClock
from cacheproxy.config import Config, split_listen
from cacheproxy.counting import families, labels
from cacheproxy.counting.faults import Fault
from cacheproxy.metrics import Metrics
from cacheproxy.model import Outcome

DOCKER = Path(__file__).parent.parent / "docker"
FAMILIES = {f"cacheproxy_{family.name}": family for family in families.FAMILIES}
OF_PROMETHEUS = {"up", "job", "instance", "le"}
"""What Prometheus itself has or adds."""
VALUES = {
    "outcome": set(Outcome),
    "step": set(labels.STEPS),
    "kind": set(Fault),
    "tier": set(labels.TIERS),
    "decision": {"served", "below", "guarded"},
    "name": {"redis", "upstream", "embedder"},
}
"""Labels with closed sets of values."""
NAME = re.compile(r"\bcacheproxy_[a-z0-9_]+")
MATCHER = re.compile(r'([a-z_]+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
GROUPED = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")


def rules():
    """Every rule of the file."""
    return [rule for group in yaml.safe_load(_text("prometheus/alerts.yml"))["groups"] for rule in group["rules"]]


def alerts():
    """Those that ring."""
    return [rule for rule in rules() if "alert" in rule]


def dashboard():
    """The whole of it."""
    return json.loads(_text("grafana/dashboards/cacheproxy.json"))


def queries():
    """Where a query stands, the query, and the labels its legend names."""
    board = dashboard()
    for rule in rules():
        named = " ".join(str(text) for text in rule.get("annotations", {}).values())
        yield rule.get("alert") or rule["record"], rule["expr"], re.findall(r"\$labels\.(\w+)", named)
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"], re.findall(r"\{\{\s*(\w+)\s*\}\}", target["legendFormat"])
    for one in board["annotations"]["list"]:
        yield one["name"], one["expr"], re.findall(r"\{\{\s*(\w+)\s*\}\}", one["titleFormat"])
    for one in board["templating"]["list"]:
        yield one["name"], one["query"]["query"], []


def _text(name):
    return (DOCKER / name).read_text(encoding="utf-8")


def family_of(name):
    """The family of a series, `_bucket` and the like taken off where it is a histogram; None if there is none."""
    base = re.sub(r"_(?:bucket|sum|count)$", "", name)
    if base != name and base in FAMILIES:
        return FAMILIES[base] if FAMILIES[base].kind == "histogram" else None
    family = FAMILIES.get(name)
    return None if family is None or family.kind == "histogram" else family


def wrong_with(query, legend=()):
    """Everything in a query that does not exist. Recorded names (with a colon) are checked where they are recorded."""
    names = NAME.findall(query)
    families = [family_of(name) for name in names]
    problems = [f"no figure {name}" for name, family in zip(names, families, strict=True) if family is None]
    recorded = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}
    used = [expr for name, expr in recorded.items() if name in query and expr != query]
    labels = OF_PROMETHEUS | {label for family in families if family for label in family.labels}
    labels |= {label for expr in used for name in NAME.findall(expr) for label in family_of(name).labels}
    problems += [f"no record {name}" for name in re.findall(r"\bcacheproxy:[a-z0-9_:]+", query) if name not in recorded]
    grouped = [label.strip() for group in GROUPED.findall(query) for label in group.split(",")]
    problems += [f"no label {label}" for label in (*grouped, *legend) if label not in labels]
    for name, matchers in re.findall(r"\b(cacheproxy_[a-z0-9_]+)\{([^}]*)\}", query):
        known = OF_PROMETHEUS | set(family_of(name).labels if family_of(name) else ())
        for label, values in MATCHER.findall(matchers):
            problems += [] if label in known else [f"{name} has no label {label}"]
            if label in VALUES:
                problems += [f"{label} is never {one}" for one in values.split("|") if one not in VALUES[label]]
    return problems


@pytest.mark.parametrize(("where", "query", "legend"), list(queries()))
def test_every_query_asks_for_figures_that_exist(where, query, legend):
    """A name that was changed in families.py would leave a panel empty and an alert silent for ever."""
    assert wrong_with(query, legend) == [], where
    assert query.count("(") == query.count(")")


@pytest.mark.parametrize(
    "query",
    [
        "cacheproxy_hits_total",
        "cacheproxy_asks_total_bucket",
        "rate(cacheproxy_similarity[5m])",
        'cacheproxy_asks_total{result="hit"}',
        'cacheproxy_asks_total{outcome=~"exact|hit"}',
        "sum by (user) (cacheproxy_asks_total)",
        "cacheproxy:misspelt:rate15m",
    ],
)
def test_what_does_not_exist_is_found(query):
    """The check above can fail."""
    assert wrong_with(query) != []


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_every_alert_says_what_is_wrong_and_what_to_do(alert):
    """A person is woken by it: summary, severity, and a runbook with more than one sentence."""
    texts = alert["annotations"]

    assert set(texts) == {"summary", "runbook"}
    assert alert["labels"]["severity"] in ("warning", "critical")
    assert len(re.findall(r"[.?:;](?:\s|$)", texts["runbook"])) > 1
    assert 20 < len(texts["summary"]) < 100


def test_alerts_cover_what_can_go_wrong():
    """Each by the figure that shows it."""
    asked = {name for alert in alerts() for name in re.findall(r"\bcacheproxy[_:][a-z0-9_:]+", alert["expr"])}

    assert asked >= {
        "cacheproxy:hit_ratio:rate15m",
        "cacheproxy_wrong_hit_ratio",
        "cacheproxy_breaker_open",
        "cacheproxy_redis_up",
        "cacheproxy_faults_total",
        "cacheproxy:budget_breach_ratio:rate15m",
        "cacheproxy_dependency_up",
        "cacheproxy_upstream_up",
        "cacheproxy_workers",
        "cacheproxy_config_last_reload_successful",
    }
    assert any('kind="queue_full"' in alert["expr"] for alert in alerts())


def test_files_and_commands_named_in_runbooks_exist():
    """Whoever is woken types them."""
    from cacheproxy.cli import describe

    texts = " ".join(alert["annotations"]["runbook"] for alert in alerts())
    root = DOCKER.parent
    keys = {f"{section}.{key}" for section, kind in Config.model_fields.items() for key in _keys(kind)}

    assert all((root / path).exists() for path in re.findall(r"docs/[\w/-]+\.md", texts))
    assert all(f"## cacheproxy {name}" in describe() for name in re.findall(r'"cacheproxy (\w+)', texts))
    named = re.findall(r"\b((?:redis|semantic|upstream|cache|admin|embedding)\.[a-z_]+)\b", texts)
    assert set(named) <= keys | {"redis.prefix"}


def _keys(kind):
    return getattr(kind.annotation, "model_fields", {})


def test_counters_alerts_wait_for_exist_from_the_start():
    """A counter that appears with its first event has no increase then: the alert would sleep through it."""
    text = Metrics(SystemClock()).text()[0].decode()

    for kind in ("queue_full", "breaker_opened", "check_mismatch", "internal"):
        assert f'cacheproxy_faults_total{{kind="{kind}"}} 0.0' in text


async def test_a_proxy_shows_every_figure_that_alerts_and_panels_ask_for(house):
    """A gauge that nothing reads is absent, and its alert would sleep for ever; what takes an event is let be."""
    text = (await house.admin("GET", "/metrics")).text
    shown = set(re.findall(r"^(cacheproxy_\w+?)(?:\{| )", text, re.MULTILINE))
    asked = {name for _, query, _ in queries() for name in NAME.findall(query) if FAMILIES.get(name)}
    without = {f"cacheproxy_{name}" for name in ("wrong_hit_ratio", "loaded_bytes", "loaded_vram_bytes")}

    assert {name for name in asked - without if FAMILIES[name].kind == "gauge" or not FAMILIES[name].labels} <= shown
    assert {f"cacheproxy_{name}" for name in ("breaker_open", "redis_keys", "redis_evicted_keys_total")} <= shown


def test_panels_have_numbers_of_their_own_and_do_not_overlap():
    """Grafana would hide one behind the other; each says what it shows."""
    panels = dashboard()["panels"]
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    assert all(panel["description"] for panel in panels if panel["type"] != "row")


def test_the_pieces_find_each_other():
    """Prometheus scrapes the operator's port where it listens, Grafana finds Prometheus, the dashboard its data."""
    scrape = yaml.safe_load(_text("prometheus/prometheus.yml"))
    source = yaml.safe_load(_text("grafana/provisioning/datasources/prometheus.yml"))["datasources"][0]
    provider = yaml.safe_load(_text("grafana/provisioning/dashboards/cacheproxy.yml"))["providers"][0]
    services = yaml.safe_load(_text("compose.yaml"))["services"]
    job = scrape["scrape_configs"][0]
    admin = Config().admin.listen

    assert job["static_configs"][0]["targets"] == [f"127.0.0.1:{split_listen(admin)[1]}"]
    assert services["prometheus"]["network_mode"] == "service:cacheproxy"
    assert [(DOCKER / "prometheus" / name).exists() for name in scrape["rule_files"]] == [True]
    assert source["url"] == "http://cacheproxy:9090"
    assert provider["options"]["path"] in " ".join(services["grafana"]["volumes"])
    assert {panel["datasource"]["uid"] for panel in dashboard()["panels"] if "targets" in panel} == {source["uid"]}
    up = [rule["expr"] for rule in alerts() if rule["expr"].startswith("up{")]
    assert up == [f'up{{job="{job["job_name"]}"}} == 0']
