"""The documentation as a browser gets it: no key, nothing from elsewhere, and a document that others can read."""

import re

import httpx
import jsonschema
import pytest

from api.app import create_app
from shared.settings import Settings

LOADED = re.compile(r'(?:src|href)="([^"]+)"')
DOCUMENT = create_app(Settings(_env_file=None)).openapi()  # type: ignore[call-arg]


def test_the_page_loads_what_this_server_has_and_nothing_else(server):
    page = httpx.get(f"{server}/docs")
    loaded = LOADED.findall(page.text)
    answers = {path: httpx.get(server + path) for path in loaded}

    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert len(loaded) == 3
    assert all(path.startswith("/docs/") for path in loaded)
    assert {answer.status_code for answer in answers.values()} == {200}
    assert "SwaggerUIBundle" in answers["/docs/swagger-ui-bundle.js"].text
    assert "/openapi.json" in answers["/docs/start.js"].text
    assert "<script>" not in page.text


def test_its_policy_lets_nothing_else_be_loaded(server):
    page = httpx.get(f"{server}/docs")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))

    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
    assert page.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/docs/swagger-ui.css"])
def test_it_is_cached(server, path):
    first = httpx.get(server + path)
    again = httpx.get(server + path, headers={"If-None-Match": first.headers["ETag"]})

    assert (again.status_code, again.content) == (304, b"")
    assert httpx.head(server + path).headers["Content-Length"] == str(len(first.content))
    assert httpx.get(f"{server}{path}?x=1").status_code == 422


def test_the_document_says_where_and_under_which_licence(serve, settings):
    url = serve(settings.model_copy(update={"public_url": "https://efface.example.org/"}))
    document = httpx.get(f"{url}/openapi.json").json()

    assert document["openapi"].startswith("3.1")
    assert document["info"]["license"] == {"name": "Apache 2.0", "identifier": "Apache-2.0"}
    assert document["servers"] == [{"url": "/"}, {"url": "https://efface.example.org"}]


def test_every_operation_says_how_it_is_secured_and_how_it_refuses():
    for path, operations in DOCUMENT["paths"].items():
        for method, operation in operations.items():
            assert "security" in operation, (method, path)
            assert any(status.startswith("4") for status in operation["responses"]), (method, path)


def unions(schema: object) -> list[dict]:
    if isinstance(schema, dict):
        own = [schema] if "discriminator" in schema else []
        return own + [found for value in schema.values() for found in unions(value)]
    return [found for item in schema for found in unions(item)] if isinstance(schema, list) else []


def test_members_of_a_union_need_what_tells_them_apart():
    found = unions(DOCUMENT["components"]["schemas"])

    assert found
    for union in found:
        name = union["discriminator"]["propertyName"]
        for reference in union["discriminator"]["mapping"].values():
            member = DOCUMENT["components"]["schemas"][reference.rsplit("/", 1)[-1]]
            assert name in member["required"]


@pytest.mark.parametrize("kind", ["class", "subgroup"])
def test_a_target_fits_one_member_alone(kind):
    target = {"type": kind, "class": "horse", "labels": ["horse", "cow"]}
    target |= {"subgroup": "sketches"} if kind == "subgroup" else {}
    schema = {"$ref": "#/components/schemas/ErasureRequest/properties/target", "components": DOCUMENT["components"]}
    validator = jsonschema.Draft202012Validator(schema)

    assert list(validator.iter_errors(target)) == []
    without = {name: value for name, value in target.items() if name != "type"}
    assert list(validator.iter_errors(without))
