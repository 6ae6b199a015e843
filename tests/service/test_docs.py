import base64
import hashlib
import re

from fastapi.testclient import TestClient


def test_documentation_names_no_other_host_and_its_files_are_served_here(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    links = re.findall(r"""(?:src|href)=["']([^"']+)""", page.text)
    assert links
    for link in links:
        assert link.startswith("/"), f"{link} is fetched from another host"
        assert client.get(link).status_code == 200


def test_the_documentation_s_own_script_is_the_only_one_in_the_page_that_may_run(client: TestClient) -> None:
    page = client.get("/docs")
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = page.headers["content-security-policy"]
    assert f"script-src 'self' 'sha256-{digest}';" in policy
    assert re.search(r"<[^>]* on\w+=", page.text) is None, "a handler in the page would not run"


def test_a_missing_file_of_the_documentation_is_a_problem(client: TestClient) -> None:
    missing = client.get("/docs/assets/nothing.js")
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"


def test_the_page_links_to_the_documentation(client: TestClient) -> None:
    assert '<a href="docs">' in client.get("/").text
