"""The playground at / and the reference at /docs: whole, of this server alone, open."""

import re
from pathlib import Path

import aphrodite_server
import pytest
from aphrodite_engine.sampling.description import describe
from aphrodite_server.app import create_app
from aphrodite_server.settings import Settings

FOLDER = Path(aphrodite_server.__file__).parent / "pages"
FILES = sorted(FOLDER.iterdir())
TEXTS = {path.name: path.read_text() for path in FILES}


@pytest.mark.parametrize(("path", "title"), [("/", "<title>Aphrodite"), ("/docs", "<title>API")])
def test_a_page_and_all_that_it_names_are_served(call, path, title):
    page = call(path)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert title in page.text
    named = re.findall(r'(?:href|src)="(pages/[^"]+)"', page.text)
    assert len(named) == 3
    for name in named:
        assert call(f"/{name}").status_code == 200, name
    assert call(path, method="HEAD").status_code == 200


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_served_with_its_type_and_nothing_from_elsewhere(call, path):
    response = call(f"/pages/{path.name}")
    assert response.content == path.read_bytes()
    types = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}
    assert response.headers["content-type"].startswith(types.get(path.suffix, "image/svg+xml"))
    text = TEXTS[path.name].replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|[(\"']//", text)
    for imported in re.findall(r'from "\./([^"]+)"', text):
        assert imported in TEXTS


def test_pages_are_open_where_keys_are_set(engine, post):
    guarded = create_app(engine, Settings(api_keys=("first",)))
    for path in ("/", "/docs", "/pages/api.js"):
        assert post(guarded, path).status_code == 200, path
    assert post(guarded, "/v1/samplers").status_code == 401


@pytest.mark.parametrize("page", ["playground", "reference"])
def test_scripts_find_their_elements(page):
    """Every id that a script looks for is in its page, or made by a script."""
    html = TEXTS[f"{page}.html"]
    scripts = TEXTS[f"{page}.js"] + TEXTS["elements.js"]
    wanted = set(re.findall(r'find\("([\w-]+)"\)', scripts))
    assert wanted
    made = re.findall(r'\bid: "([\w-]+)"', scripts)
    assert wanted <= {*re.findall(r'id="([\w-]+)"', html), *made}


def test_the_panel_knows_every_type_of_a_field():
    table = TEXTS["samplers.js"].partition("const KINDS = {")[2].partition("\n};")[0]
    known = set(re.findall(r'^  "([^"]+)":', table, re.MULTILINE))
    described = describe()
    fields = [field for sampler in described.samplers for field in sampler.fields]
    assert {field.type for field in (*fields, *described.order)} == known


def test_what_is_not_there_is_told(call):
    assert call("/pages/nowhere.js").status_code == 404
    told = call("/v1/models", {"a": 1})
    assert told.status_code == 405
    assert told.json()["error"]["message"] == (
        "POST /v1/models does not exist on this server; it takes GET"
    )
