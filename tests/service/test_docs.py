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


def test_a_missing_file_of_the_documentation_is_a_problem(client: TestClient) -> None:
    missing = client.get("/docs/assets/nothing.js")
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"


def test_the_page_links_to_the_documentation(client: TestClient) -> None:
    assert '<a href="docs">' in client.get("/").text
