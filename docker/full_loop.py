"""The whole loop on a running service: train, publish, swap, restore with the new release, see it in the metrics.

    python docker/full_loop.py http://127.0.0.1:8000 -- docker compose run --rm training
    python docker/full_loop.py http://127.0.0.1:8000 -- .venv/bin/python -m training run PHOTOS

What stands after -- must train and publish into the store that the service watches. Exit status 1 where the loop does
not close. Standard library only.
"""

import argparse
import json
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")
DOCKER = Path(__file__).resolve().parent
STORE = DOCKER.parent / "model_store"
DASHBOARD = DOCKER / "grafana" / "dashboards" / "restoration.json"
MOST_SWAP_SECONDS = 120
LOOK_EVERY_SECONDS = 0.5
REQUEST_SECONDS = 300


class LoopBroken(Exception):
    """A step did not do what it should; the message says which, and what was seen."""


def main() -> int:
    arguments = parse_arguments()
    try:
        close_the_loop(arguments.service, arguments.prometheus, arguments.photo, arguments.training)
    except (LoopBroken, OSError) as error:
        print(f"the loop is broken: {error}", file=sys.stderr)
        return 1
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("service", help="the running service, such as http://127.0.0.1:8000")
    parser.add_argument("training", nargs="+", help="the command that trains and publishes, after --")
    parser.add_argument("--prometheus", help="such as http://127.0.0.1:9090: ask it, too, what the dashboard asks")
    newest_golden = max(STORE.glob("*/golden/damaged.png"), default=None)
    parser.add_argument("--photo", type=Path, default=newest_golden, help="the photo to restore [a golden photo]")
    return parser.parse_args()


def close_the_loop(service: str, prometheus: str | None, photo: Path, training: list[str]) -> None:
    before = served_release(service)
    say(f"the service restores with release {before}")
    started_seconds = time.monotonic()
    if (status := subprocess.run(training).returncode) != 0:
        raise LoopBroken(f"{' '.join(training)} ended with exit status {status}")
    say(f"the training job ended after {time.monotonic() - started_seconds:.0f} s")
    started_seconds = time.monotonic()
    after = wait_for(lambda: newer_release(service, before), f"a release newer than {before} to be served")
    say(f"release {after} took over {time.monotonic() - started_seconds:.1f} s later")
    restore(service, photo, after)
    wait_for(lambda: after in releases_in(metrics_text(service)) or None, f"release {after} in /metrics")
    say(f'/metrics shows restore_model_info{{version="{after}"}}')
    if prometheus:
        wait_for(lambda: after in releases_seen_by(prometheus) or None, f"release {after} on the dashboard")
        say(f"Prometheus answers the dashboard's query of the release with {after}")


def restore(service: str, photo: Path, release: str) -> None:
    status, headers, body = ask(f"{service}/restore?sensitivity=1&release={release}", photo.read_bytes())
    if status != 200 or headers["X-Model-Version"] != release:
        raise LoopBroken(f"POST /restore?release={release} answered {status}: {body[:500].decode(errors='replace')}")
    say(f"{photo.name}: {len(body):,} bytes by release {release}, damage ratio {headers['X-Damage-Ratio']}")


def served_release(service: str) -> str:
    status, _, body = ask(f"{service}/readyz")
    if status != 200:
        raise LoopBroken(f"{service} is not ready: {body.decode(errors='replace')}")
    return str(json.loads(body)["release"])


def newer_release(service: str, before: str) -> str | None:
    release = served_release(service)
    return release if int(release) > int(before) else None


def metrics_text(service: str) -> str:
    return ask(f"{service}/metrics")[2].decode()


def releases_in(metrics: str) -> list[str]:
    lines = [line for line in metrics.splitlines() if line.startswith("restore_model_info{")]
    return [line.partition('version="')[2].partition('"')[0] for line in lines]


def releases_seen_by(prometheus: str) -> list[str]:
    """What the dashboard's panel Release would show."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    (expression,) = (panel["targets"][0]["expr"] for panel in panels if panel["title"] == "Release")
    query = urllib.parse.urlencode({"query": expression})
    answer = json.loads(ask(f"{prometheus}/api/v1/query?{query}")[2])
    return [series["metric"]["version"] for series in answer["data"]["result"]]


def wait_for(look: Callable[[], Found | None], what: str) -> Found:
    give_up_at = time.monotonic() + MOST_SWAP_SECONDS
    while (found := look()) is None:
        if time.monotonic() > give_up_at:
            raise LoopBroken(f"waited {MOST_SWAP_SECONDS} s for {what}")
        time.sleep(LOOK_EVERY_SECONDS)
    return found


def ask(url: str, body: bytes | None = None) -> tuple[int, Message, bytes]:
    """Status, headers and body. A body is posted; a status of 400 or more is an answer, too."""
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/octet-stream"})
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_SECONDS) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def say(message: str) -> None:
    print(f"loop: {message}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
