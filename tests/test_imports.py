"""Imports point one way, and importing does nothing.

service  -> restoration <- training
archive  -> restoration       (archive talks to the service over HTTP only)
"""

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
MAY_IMPORT: dict[str, set[str]] = {
    "restoration": set(),
    "service": {"restoration"},
    "training": {"restoration"},
    "archive": {"restoration"},
    "benchmarks": {"restoration", "training"},
}
EXTRAS = {
    "archive": ("archive", "ray"),
    "benchmarks": ("benchmarks", "ray", "training"),
    "service": ("ray", "tracing"),
    "training": ("training",),
}
"""What a package may import beside the base dependencies; `service` does so only where a setting asks for it, and in
`service.cluster`."""
PACKAGES = [name for name in MAY_IMPORT if (REPOSITORY / name).is_dir()]


def modules_of(package: str) -> list[Path]:
    return sorted((REPOSITORY / package).rglob("*.py"))


def imported_names(source: str) -> Iterator[str]:
    """Yield every absolute name that the source imports, wherever in the file, `import_module("...")` included."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def forbidden_imports(package: str, source: str) -> set[str]:
    forbidden = MAY_IMPORT.keys() - MAY_IMPORT[package] - {package}
    return {name for name in imported_names(source) if name.split(".")[0] in forbidden}


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    violations = {
        str(path.relative_to(REPOSITORY)): names
        for path in modules_of(package)
        if (names := forbidden_imports(package, path.read_text(encoding="utf-8")))
    }
    assert violations == {}


@pytest.mark.parametrize(
    "source",
    [
        "import training",
        "import training.losses as losses",
        "from training.losses import l1_loss",
        "def late():\n    from training import losses",
        "import importlib\nimportlib.import_module('training.losses')",
    ],
)
def test_import_of_the_training_job_is_noticed_in_the_service(source: str) -> None:
    assert forbidden_imports("service", source)
    assert not forbidden_imports("training", source)


def test_service_may_import_what_both_sides_share() -> None:
    assert not forbidden_imports("service", "from restoration.photo import Photo\nfrom . import settings")


def test_every_package_that_is_installed_is_held_to_the_rule() -> None:
    here = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")} - {"tests"}
    assert here <= MAY_IMPORT.keys()


@pytest.mark.parametrize("package", [name for name in PACKAGES if name != "training"])
def test_what_serves_knows_no_pickle(package: str) -> None:
    """But for what codec workers send, which is unpickled with nothing allowed but our own classes and arrays."""
    for path in set(modules_of(package)) - {REPOSITORY / "service" / "parcels.py"}:
        source = path.read_text(encoding="utf-8")
        assert not {"pickle", "dill", "joblib", "cloudpickle"} & set(imported_names(source)), path
        assert "torch.load" not in source, path


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_imported_from_elsewhere_is_a_declared_dependency(package: str) -> None:
    """Serving installs the base dependencies only, so a package of an extra would be missing there."""
    declared = declared_distributions(*EXTRAS.get(package, ()))
    providers = importlib.metadata.packages_distributions()
    undeclared = {
        name.split(".")[0]
        for path in modules_of(package)
        for name in imported_names(path.read_text(encoding="utf-8"))
        if name.split(".")[0] not in MAY_IMPORT.keys() | sys.stdlib_module_names
        and not declared & {normalised(provider) for provider in providers.get(name.split(".")[0], [])}
    }
    assert undeclared == set()


def declared_distributions(*extras: str) -> set[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [*project["dependencies"]]
    for extra in extras:
        requirements += project["optional-dependencies"][extra]
    return {normalised(re.split(r"[^\w.-]", requirement)[0]) for requirement in requirements}


def normalised(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


# Runs in a process of its own. Whoever reads a setting at import fails on its value; the audit hook sees the rest.
IMPORT_ALL = """
import importlib, json, sys, threading

actions = []
importing = None
model_store = sys.argv[2]

def watch(event, arguments):
    if event in ("socket.bind", "socket.connect", "os.mkdir", "os.remove", "os.rename", "subprocess.Popen", "os.fork"):
        if "__pycache__" not in str(arguments):
            actions.append(f"{importing}: {event} {arguments}")
    elif event == "open" and model_store in str(arguments[0]):
        actions.append(f"{importing}: opens {arguments[0]}")

for importing in json.loads(sys.argv[1])["third_party"]:
    importlib.import_module(importing)
sys.addaudithook(watch)
num_threads = threading.active_count()
for importing in json.loads(sys.argv[1])["ours"]:
    importlib.import_module(importing)
    if threading.active_count() != num_threads:
        actions.append(f"{importing}: starts a thread")
        num_threads = threading.active_count()
json.dump(actions, sys.stdout)
"""


def test_importing_does_nothing(tmp_path: Path) -> None:
    paths = [path for package in PACKAGES for path in modules_of(package)]
    names = {
        # imported by itself OpenVINO tells its makers: it is watched, too, as `restoration.quiet_openvino` imports it
        "third_party": sorted({name for path in paths for name in third_party_imports(path)} - {"openvino"}),
        "ours": [module_name(path) for path in paths],
    }
    unusable = {"RESTORE_PORT": "not a port", "RESTORE_DEVICE": "not a device"}
    finished = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, json.dumps(names), str(REPOSITORY / "model_store")],
        cwd=tmp_path,
        env={**os.environ, **unusable, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout) == []
    assert list(tmp_path.iterdir()) == []


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def third_party_imports(path: Path) -> set[str]:
    """Return what the file imports at its top level from elsewhere: its doings are not ours to judge."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top_level = ast.Module(body=[n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)], type_ignores=[])
    names = imported_names(ast.unparse(top_level))
    return {name for name in names if name.split(".")[0] not in MAY_IMPORT and name != "__future__"}
