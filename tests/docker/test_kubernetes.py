from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.codecs import SMALL_PIXELS
from service.restoring import MOST_SMALL
from service.settings import Settings

from .processes import REPOSITORY

KUBERNETES = REPOSITORY / "docker" / "kubernetes"
PATCHES = {KUBERNETES / "bucket" / "deployment.yaml"}
"""Parts of resources, which are none by themselves."""
RESOURCES = sorted(
    path for path in KUBERNETES.rglob("*.yaml") if path.name != "kustomization.yaml" and path not in PATCHES
)
PODS = [path for path in RESOURCES if path.name in ("deployment.yaml", "job.yaml")]


MOST_BYTES_A_PIXEL = 52
"""What a 16-bit CMYK photo takes while it is written anew: 6.2 GB for 120 megapixels (docs/configuration.md)."""


def name_of(path: Path) -> str:
    return str(path.relative_to(KUBERNETES))


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


@pytest.mark.parametrize("path", RESOURCES, ids=name_of)
def test_every_resource_keeps_to_the_apis_schema(path: Path) -> None:
    kubernetes_validate.validate(load(path), kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("path", sorted(KUBERNETES.rglob("kustomization.yaml")), ids=name_of)
def test_what_is_put_together_is_there(path: Path) -> None:
    kustomization = load(path)
    parts = [*kustomization["resources"], *(patch["path"] for patch in kustomization.get("patches", []))]
    assert [part for part in parts if not (path.parent / part).exists()] == []


@pytest.mark.parametrize("path", PODS, ids=name_of)
def test_every_container_is_confined(path: Path) -> None:
    pod = load(path)["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_the_memory_limit_holds_the_photos_and_uploads_that_are_let_in() -> None:
    container = load(KUBERNETES / "deployment.yaml")["spec"]["template"]["spec"]["containers"][0]
    set_here = {each["name"].removeprefix("RESTORE_").lower(): each["value"] for each in container["env"]}
    settings = Settings(max_decoded_pixels=int(set_here["max_decoded_pixels"]))
    decoded_bytes = MOST_BYTES_A_PIXEL * (settings.max_decoded_pixels + MOST_SMALL * SMALL_PIXELS)
    needed_bytes = decoded_bytes + settings.max_buffered_bytes + 2**30  # and the process itself
    limit = container["resources"]["limits"]["memory"]
    assert limit.endswith("Gi")
    assert needed_bytes <= int(limit.removesuffix("Gi")) * 2**30


@pytest.mark.parametrize("name", ["service.yaml", "disruption-budget.yaml", "network-policy.yaml", "autoscaler.yaml"])
def test_everything_is_about_the_pods_that_there_are(name: str) -> None:
    deployment, spec = load(KUBERNETES / "deployment.yaml"), load(KUBERNETES / name)["spec"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    if name == "autoscaler.yaml":
        assert spec["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    else:
        selector = spec.get("podSelector") or spec["selector"]
        assert selector.get("matchLabels", selector) == labels
