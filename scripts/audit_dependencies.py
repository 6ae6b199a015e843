"""Hold every installed package against the known vulnerabilities (pip-audit, OSV), or say why that was not done.

    .venv/bin/python scripts/audit_dependencies.py

Part of `make check`, which has to work without a network: where the advisory service cannot be reached, the audit is
skipped with a word, and the exit status is 0. It is 1 if a package is known to be vulnerable.
"""

import argparse
import subprocess
import sys
import urllib.error
import urllib.request

OSV = "https://api.osv.dev"
REACH_SECONDS = 5.0
AUDIT_SECONDS = 15
"""For one answer of the service."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--service", default=OSV, help="of the advisories, as OSV has them; default: %(default)s")
    service: str = parser.parse_args(arguments).service
    if not can_be_reached(service):
        print(f"audit of dependencies skipped: the advisory service {service} cannot be reached")
        return 0
    return subprocess.run(audit_command(service), check=False).returncode


def can_be_reached(service: str) -> bool:
    """Whether it answers at all: anything else than the audit's own questions is a 4xx."""
    try:
        with urllib.request.urlopen(service, timeout=REACH_SECONDS):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def audit_command(service: str) -> list[str]:
    """Of what is installed beside this interpreter; this project itself is in no registry."""
    options = ["--local", "--skip-editable", "--progress-spinner=off", f"--timeout={AUDIT_SECONDS}"]
    return [sys.executable, "-m", "pip_audit", *options, "--vulnerability-service=osv", f"--osv-url={service}/v1/query"]


if __name__ == "__main__":
    sys.exit(main())
