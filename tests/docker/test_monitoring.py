"""Rules and dashboard, on a real Prometheus that scrapes real services. Grafana itself is not needed."""

import json
import math
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from ..service.serving import encode, publish, scratched_photo
from .processes import REPOSITORY, free_port, running, running_service, status_of, wait_for

RULES = REPOSITORY / "docker" / "prometheus" / "rules.yml"
DASHBOARD = REPOSITORY / "docker" / "grafana" / "dashboards" / "restoration.json"
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed")


def dashboard_expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


@needs_promtool
@pytest.mark.parametrize(
    "arguments", [["check", "config", "prometheus.yml"], ["test", "rules", "rules_test.yml"]], ids=" ".join
)
def test_promtool_is_content(arguments: list[str]) -> None:
    answer = subprocess.run(["promtool", *arguments], cwd=RULES.parent, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_every_alert_is_tested_and_explained() -> None:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    alerts = [rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule]
    tests = (RULES.parent / "rules_test.yml").read_text(encoding="utf-8")
    explained = (REPOSITORY / "docs" / "monitoring.md").read_text(encoding="utf-8")
    assert alerts
    assert [alert for alert in alerts if f"alertname: {alert}\n" not in tests or f"`{alert}`" not in explained] == []


def test_the_dashboard_is_the_one_that_is_made(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.append('docker/grafana'); import make_dashboard; print(make_dashboard.as_json(), end='')"
    )
    made = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert made.stdout == DASHBOARD.read_text(encoding="utf-8"), "run docker/grafana/make_dashboard.py"


@contextmanager
def running_prometheus(
    folder: Path, targets: list[str], windows: dict[str, str] | None = None
) -> Iterator[httpx.Client]:
    """The repository's rules, without their waiting times, and with other `windows`; a scrape a second."""
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.pop("for", None)
            for window, other in (windows or {}).items():
                rule["expr"] = rule["expr"].replace(f"[{window}]", f"[{other}]")
    (folder / "rules.yml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "500ms"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [{"job_name": "restoration", "static_configs": [{"targets": targets}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    url = f"127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command += [f"--web.listen-address={url}", "--log.level=error"]
    with running(command, f"http://{url}/-/ready"), httpx.Client(base_url=f"http://{url}") as client:
        yield client


def values_of(prometheus: httpx.Client, expression: str) -> list[float]:
    """One value a series; those that are not a number are left out."""
    answer = prometheus.get("/api/v1/query", params={"query": expression}).raise_for_status().json()
    values = [float(series["value"][1]) for series in answer["data"]["result"]]
    return [value for value in values if not math.isnan(value)]


def firing(prometheus: httpx.Client, instance: str) -> set[str]:
    return {labels["alertname"] for labels in firing_labels(prometheus) if labels.get("instance") == instance}


def any_firing(prometheus: httpx.Client) -> set[str]:
    """Of all instances, and those that are not about one."""
    return {labels["alertname"] for labels in firing_labels(prometheus)}


def firing_labels(prometheus: httpx.Client) -> list[dict[str, str]]:
    answer: dict[str, Any] = prometheus.get("/api/v1/alerts").raise_for_status().json()
    return [alert["labels"] for alert in answer["data"]["alerts"] if alert["state"] == "firing"]


def send(url: str, photo: bytes) -> None:
    with suppress(httpx.TransportError):
        httpx.post(f"{url}/restore", content=photo, timeout=60)


@needs_prometheus
def test_panels_show_data_and_alerts_fire_when_their_fault_is_caused(tmp_path: Path) -> None:
    publish(tmp_path / "store")
    (tmp_path / "empty").mkdir()
    photo, large_photo = encode(scratched_photo()), encode(scratched_photo(1000, 1500))
    with (
        running_service(tmp_path / "store", max_queued_requests="1") as (process, url),
        running_service(tmp_path / "empty") as (_, empty_url),
        running_prometheus(tmp_path, [url[7:], empty_url[7:]]) as prometheus,
    ):
        instance, empty_instance = url[7:], empty_url[7:]
        wait_for(lambda: status_of(f"{url}/readyz") == 200 or None, "a ready service")

        def panels_have_data() -> bool | None:
            send(url, photo)
            send(url, b"no photo")
            return all(values_of(prometheus, expression) for expression in dashboard_expressions()) or None

        wait_for(panels_have_data, f"data of {dashboard_expressions()}")
        wait_for(lambda: firing(prometheus, instance) == set() or None, "no alert of a service that is well")

        def starved() -> bool | None:
            send(empty_url, photo)  # a 503
            return {"RestorationNotReady", "RestorationErrors"} <= firing(prometheus, empty_instance) or None

        wait_for(starved, "the alerts of a service without a release")

        def crowded() -> bool | None:
            sending = threading.Thread(target=send, args=(url, large_photo))
            sending.start()
            while sending.is_alive():
                sending.join(0.2)
                if "RestorationQueueNearFull" in firing(prometheus, instance):
                    return True
            return None

        wait_for(crowded, "the alert of a full queue")

        (tmp_path / "store" / "0002").mkdir()
        (tmp_path / "store" / "0002" / "manifest.json").write_text("{}")
        wait_for(lambda: "RestorationReleaseRefused" in firing(prometheus, instance) or None, "the refused release")

        process.kill()
        wait_for(
            lambda: "RestorationDown" in firing(prometheus, instance) or None, "the alert of a service that is gone"
        )
