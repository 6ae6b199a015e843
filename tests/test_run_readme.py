"""The script that follows a README, on a small repository whose service answers at once."""

import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import run_readme

SERVICE = """
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        self.do_GET()
        self.wfile.write(b"restored")

HTTPServer(("127.0.0.1", int(os.environ["RESTORE_PORT"])), Answer).serve_forever()
"""
README = """
```bash in a clone, goes on
python3 serve.py
```

```bash
curl --silent --data-binary @service/static/sample.jpg http://127.0.0.1:8000/restore -o restored.jpg
```

```bash in a clone with --lines 1
tail README.md >tail.txt
```

```bash not run: it takes an engine
docker compose up
```
"""

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("git", "curl", "python3"))), reason="git, curl or python3 is not installed"
)


def commit(repository: Path, readme: str) -> None:
    (repository / "service" / "static").mkdir(parents=True)
    (repository / "service" / "static" / "sample.jpg").write_bytes(b"damaged")
    (repository / "serve.py").write_text(SERVICE)
    (repository / "README.md").write_text(readme)
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "All"]):
        identity = ["-c", "user.name=tester", "-c", "user.email=tester@example.org"]
        subprocess.run(["git", *identity, *words], cwd=repository, check=True)


def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readme: str) -> tuple[run_readme.Newcomer, Path]:
    commit(tmp_path / "repository", readme)
    monkeypatch.setattr(run_readme, "REPOSITORY", tmp_path / "repository")
    return run_readme.Newcomer(tmp_path / "clone"), tmp_path / "clone"


def test_each_command_is_run_in_a_clone_and_the_service_is_stopped_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    newcomer, clone = follow(tmp_path, monkeypatch, README)
    newcomer.follow_readme()
    told = [line.partition(": ")[2] for line in capsys.readouterr().out.splitlines()]
    assert [line for line in told if "first restored photo" in line]
    assert (clone / "restored.jpg").read_bytes() == b"restored"
    assert (clone / "tail.txt").read_text() == "```\n"  # one line, as the block's first line asks for
    assert "left out, it takes an engine: docker compose up" in told
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(newcomer.url, timeout=5)


def test_a_command_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newcomer, _ = follow(tmp_path, monkeypatch, README.replace("tail README.md", "tail READYOU.md"))
    with pytest.raises(run_readme.Stumbled, match="READYOU"):
        newcomer.follow_readme()


def test_a_sample_that_comes_back_as_it_was_is_no_restored_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unchanged = README.replace("curl --silent", "cp service/static/sample.jpg restored.jpg; true")
    newcomer, _ = follow(tmp_path, monkeypatch, unchanged)
    with pytest.raises(run_readme.Stumbled, match="came back as it was"):
        newcomer.follow_readme()
