"""The Compose files and commands, as a real parser reads them. It only asks podman's version; a stand-in answers."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from podman_compose import podman_compose

from .processes import REPOSITORY

PROFILES = ("gpu", "training", "training-gpu")


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bin") / "podman"
    path.write_text("#!/bin/sh\necho podman version 5.4.0\n", encoding="ascii")
    path.chmod(0o755)
    return path


def parse(podman: Path, *files: str, profiles: tuple[str, ...] = (), **variables: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "podman_compose", "--podman-path", str(podman)]
    command += [part for file in files for part in ("-f", file)]
    command += [part for profile in profiles for part in ("--profile", profile)]
    environment = {"PATH": os.environ["PATH"], "API_KEYS_FILE": "api_keys"} | variables
    answer = subprocess.run([*command, "config"], cwd=REPOSITORY, env=environment, capture_output=True, check=True)
    parsed: dict[str, Any] = yaml.safe_load(answer.stdout)
    return parsed


@pytest.fixture(scope="module")
def everything(podman: Path) -> dict[str, Any]:
    return parse(podman, "docker-compose.yml", profiles=PROFILES)


@pytest.fixture(scope="module")
def with_keys(podman: Path) -> dict[str, Any]:
    return parse(podman, "docker-compose.yml", "docker/compose.keys.yml", profiles=PROFILES)


def test_it_comes_up_with_the_service_and_what_watches_it(podman: Path) -> None:
    services = parse(podman, "docker-compose.yml")["services"]
    assert set(services) == {"seed", "service", "prometheus", "grafana"}


def test_the_files_keep_to_composes_schema(
    with_keys: dict[str, Any], everything: dict[str, Any], tmp_path: Path
) -> None:
    for name, parsed in ("everything.yml", everything), ("with_keys.yml", with_keys):
        (tmp_path / name).write_text(yaml.safe_dump(parsed), encoding="utf-8")
    files = [REPOSITORY / "docker-compose.yml", tmp_path / "everything.yml", tmp_path / "with_keys.yml"]
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", *map(str, files)]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_without_keys_nothing_is_published_beyond_this_machine(everything: dict[str, Any]) -> None:
    ports = [port for service in everything["services"].values() for port in service.get("ports", [])]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("version", ["", "0010"])
def test_a_release_that_is_named_is_handed_on_to_the_services(podman: Path, version: str) -> None:
    """An empty one is none to the service."""
    parsed = parse(podman, "docker-compose.yml", profiles=PROFILES, RESTORE_MODEL_VERSION=version)
    for name in ("service", "service-gpu"):
        assert parsed["services"][name]["environment"]["RESTORE_MODEL_VERSION"] == version


def test_with_keys_the_service_is_open_to_callers_who_have_one(with_keys: dict[str, Any]) -> None:
    for name, port in ("service", "8000:8000"), ("service-gpu", "8001:8000"):
        service = with_keys["services"][name]
        assert service["ports"] == [port]
        assert service["environment"]["RESTORE_ALLOW_ANONYMOUS"] == "false"
        assert service["environment"]["RESTORE_API_KEYS_FILE"] == "/run/secrets/api_keys"
        assert service["secrets"] == ["api_keys"]


def test_every_container_is_hardened(everything: dict[str, Any]) -> None:
    for name, service in everything["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name


def test_what_training_publishes_is_where_the_service_looks(everything: dict[str, Any]) -> None:
    services = everything["services"]
    store = services["service"]["environment"]["RESTORE_MODEL_STORE"]
    assert f"model_store:{store}:ro" in services["service"]["volumes"]
    for name in ("seed", "training", "training-gpu"):
        assert f"model_store:{store}" in services[name]["volumes"]
    assert services["seed"]["entrypoint"][-1] == store
    assert store in (REPOSITORY / "docker" / "training.Dockerfile").read_text(encoding="utf-8")


def test_what_is_mounted_and_built_from_is_there(everything: dict[str, Any]) -> None:
    for name, service in everything["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./") and source != "./photos":
                assert (REPOSITORY / source).exists(), f"{name}: {source}"
            elif not source.startswith("."):
                assert source in everything["volumes"], f"{name}: {source}"
        if "build" in service:
            assert (REPOSITORY / service["build"]["dockerfile"]).exists(), name


COMPOSE_COMMAND = re.compile(r"^(?:[A-Z_]+=\S+ )*docker compose (.+)$|`docker compose ([^`]+)`", re.MULTILINE)
IN_THE_DOCUMENTS = sorted(
    {
        " ".join((fenced or inline).split())
        for page in (REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md"))
        for fenced, inline in COMPOSE_COMMAND.findall(page.read_text(encoding="utf-8").replace("\\\n", " "))
    }
)


@pytest.mark.parametrize("words", IN_THE_DOCUMENTS)
def test_commands_in_the_documents_are_such_as_compose_takes(words: str, everything: dict[str, Any]) -> None:
    """As podman-compose parses them, with services, profiles and files that there are."""
    parsed = podman_compose._parse_args(shlex.split(words))
    assert set(parsed.profile) <= set(PROFILES)
    assert [name for name in parsed.file if not (REPOSITORY / name).exists()] == []
    named = [parsed.service] if parsed.command == "run" else getattr(parsed, "services", [])
    assert set(named) <= everything["services"].keys()


def test_commands_for_a_cluster_name_what_is_there() -> None:
    text = (REPOSITORY / "docs" / "deployment.md").read_text(encoding="utf-8")
    assert re.findall(r"kubectl apply --kustomize (\S+)", text) == ["docker/kubernetes"]
    named = re.findall(r"docker/kubernetes/[\w./-]+\w", text)
    assert [path for path in named if not (REPOSITORY / path).exists()] == []
    namespace = yaml.safe_load((REPOSITORY / "docker/kubernetes/namespace.yaml").read_text())["metadata"]["name"]
    assert set(re.findall(r"--namespace (\S+)", text)) == {namespace}
    assert re.findall(r"create secret generic (\S+)", text) == re.findall(
        r"secretName: (\S+)\}", (REPOSITORY / "docker/kubernetes/deployment.yaml").read_text()
    )
