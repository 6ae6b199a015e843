from pathlib import Path

from fastapi.testclient import TestClient

from .serving import MakeClient, context_of, encode, scratched_photo


def value(client: TestClient, name: str, **labels: str) -> float:
    return context_of(client).metrics.registry.get_sample_value(name, labels) or 0.0


def test_a_restored_photo_is_counted_and_timed(make_client: MakeClient) -> None:
    client = make_client()
    client.post("/restore", content=encode(scratched_photo()))
    assert value(client, "http_requests_total", method="POST", route="/restore", status="200") == 1
    assert value(client, "http_request_duration_seconds_count", method="POST", route="/restore") == 1
    for stage in ("queue", "decode", "infer", "encode"):
        assert value(client, f"restore_{stage}_seconds_count") == 1
    assert value(client, "restore_pixels_total") == 96 * 128
    assert value(client, "restore_damage_ratio_count") == 1


def test_refusals_are_counted_by_problem(make_client: MakeClient) -> None:
    client = make_client()
    client.post("/restore", content=b"no photo")
    client.post("/restore?mode=foo", content=b"")
    assert value(client, "restore_rejected_total", reason="unsupported-format") == 1
    assert value(client, "restore_rejected_total", reason="invalid-parameter") == 1


def test_the_active_release_is_named(client: TestClient) -> None:
    text = client.get("/metrics").text
    assert 'restore_model_info{sha256="' in text
    assert 'version="0001"} 1.0' in text


def test_a_monitor_may_ask_for_metrics_by_head(client: TestClient) -> None:
    asked, got = client.head("/metrics"), client.get("/metrics")
    assert (asked.status_code, asked.content) == (200, b"")
    assert asked.headers["content-type"] == got.headers["content-type"]


def test_clients_cannot_make_up_label_values(make_client: MakeClient) -> None:
    client = make_client()
    client.get("/some/made/up/path")
    client.request("BREW", "/livez")
    text = client.get("/metrics").text
    assert "made" not in text
    assert "BREW" not in text
    assert value(client, "http_requests_total", method="GET", route="unmatched", status="404") == 1
    assert value(client, "http_requests_total", method="other", route="/livez", status="405") == 1


def test_metrics_can_be_closed(make_client: MakeClient) -> None:
    assert make_client(metrics_enabled=False).get("/metrics").status_code == 404


def test_two_services_in_one_process_count_for_themselves(make_client: MakeClient) -> None:
    one, other = make_client(), make_client()
    one.post("/restore", content=encode(scratched_photo()))
    assert value(other, "restore_pixels_total") == 0


def test_readiness_is_a_metric(make_client: MakeClient, tmp_path: Path) -> None:
    ready, empty = make_client(), make_client(ready=False, model_store=tmp_path)
    assert (value(ready, "restore_ready"), value(empty, "restore_ready")) == (1, 0)
    context_of(ready).queue.drain()
    assert value(ready, "restore_ready") == 0


def test_the_queues_limit_and_the_devices_load_can_be_read(make_client: MakeClient) -> None:
    client = make_client(max_queued_requests=7)
    client.post("/restore", content=encode(scratched_photo()))
    assert value(client, "restore_requests_limit") == 7
    assert value(client, "restore_device_busy_seconds_total") > 0
    assert "restore_device_memory_used_bytes" in client.get("/metrics").text


def test_refused_releases_are_counted_from_zero(client: TestClient) -> None:
    assert 'restore_model_reload_total{result="refused"} 0.0' in client.get("/metrics").text
