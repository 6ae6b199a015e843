"""The audit of dependencies, with a service that is not there, and one that knows of a vulnerability."""

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("pip_audit")

AUDIT = Path(__file__).parents[1] / "scripts" / "audit_dependencies.py"
NOWHERE = "http://127.0.0.1:9"  # the port of the discard protocol


def audit(service: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, AUDIT, "--service", service], capture_output=True, text=True, check=False)


class Advisories(http.server.BaseHTTPRequestHandler):
    """OSV's interface, for one advisory: the real service needs a network that a test must not."""

    def do_GET(self) -> None:
        self.send_error(404)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = {"id": "TEST-2026-1", "summary": "a hole", "affected": []}
        found["affected"] = [{"package": {"name": "pillow", "ecosystem": "PyPI"}, "ranges": []}]
        answer = json.dumps({"vulns": [found]} if asked["package"]["name"] == "pillow" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def advisories() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Advisories) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_without_the_advisory_service_the_audit_is_skipped_with_a_word() -> None:
    done = audit(NOWHERE)
    assert done.returncode == 0
    assert done.stdout == f"audit of dependencies skipped: the advisory service {NOWHERE} cannot be reached\n"


def test_a_package_that_is_known_to_be_vulnerable_is_named() -> None:
    with advisories() as service:
        done = audit(service)
    assert done.returncode == 1
    assert "pillow" in done.stdout
    assert "TEST-2026-1" in done.stdout
