"""Tests the page at /docs: all of the API, and nothing from elsewhere."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient


def test_the_page_of_the_api_names_every_operation_field_and_limit(client: TestClient) -> None:
    page, document = client.get("/docs").text, client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method in methods:
            assert f"<code>{method.upper()} {path}</code>" in page
    for name, schema in document["components"]["schemas"].items():
        assert f'id="{name}"' in page
        assert all(f"<code>{key}</code>" in page for key in schema.get("properties", {}))
    assert "to 1,000" in page  # max_k
    links = set(re.findall(r'href="#(\w+)"', page))
    assert links <= set(document["components"]["schemas"])
    assert "{{" not in page


@pytest.mark.parametrize("path", ["/docs", "/"])
def test_pages_load_nothing_from_elsewhere_and_say_so(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert not re.search(r"""(src|href|url|action)\s*[=(]\s*["']?\s*(https?:)?//""", response.text)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.findall(r"\bstyle=|\bon\w+=", response.text)  # which the policy would refuse


def test_markup_in_descriptions_stays_text(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    document["paths"]["/recall"]["post"]["description"] = "<script>alert(1)</script>"
    from recall.serving.http.docs import docs_page

    assert "<script>" not in docs_page(document)
