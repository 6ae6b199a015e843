import subprocess
import sys
from pathlib import Path

import pytest

from ..service.serving import publish
from .processes import REPOSITORY, running_service, status_of, wait_for

PUBLISHING = (
    "import sys; from pathlib import Path; from tests.service.serving import publish; publish(Path(sys.argv[1]))"
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store")
    publish(path)
    return path


def test_the_loop_closes_and_the_image_is_healthy(store: Path) -> None:
    with running_service(store) as (process, url):
        wait_for(lambda: status_of(f"{url}/readyz") == 200 or None, "a ready service")
        loop = [sys.executable, "docker/full_loop.py", url, "--"]
        nothing_new = subprocess.run([*loop, "false"], cwd=REPOSITORY, capture_output=True, text=True)
        assert nothing_new.returncode == 1
        assert "false ended with exit status 1" in nothing_new.stderr

        training = [sys.executable, "-c", PUBLISHING, str(store)]
        closed = subprocess.run([*loop, *training], cwd=REPOSITORY, capture_output=True, text=True)
        assert closed.returncode == 0, closed.stderr
        assert "release 0002 took over" in closed.stdout
        assert 'restore_model_info{version="0002"}' in closed.stdout

        proxy_of_elsewhere = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
        port = {"RESTORE_PORT": url.rpartition(":")[2]} | proxy_of_elsewhere
        check = [sys.executable, "docker/healthcheck.py"]
        assert subprocess.run(check, cwd=REPOSITORY, env=port).returncode == 0
        process.kill()
        process.wait()
        assert subprocess.run(check, cwd=REPOSITORY, env=port, capture_output=True).returncode == 1
