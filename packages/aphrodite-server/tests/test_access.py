"""Keys, and what browsers need."""

import pytest
from aphrodite_server.app import create_app
from aphrodite_server.settings import Settings

PATH = "/v1/completions"
ASK = {"prompt": "a"}
ORIGIN = {"origin": "http://page.example"}


@pytest.fixture
def guarded(engine):
    return create_app(engine, Settings(api_keys=("first", "zwéi")))


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer first"},
        {"authorization": "bearer first"},
        {"x-api-key": "first"},
        {"authorization": "Bearer nonsense", "x-api-key": "first"},
        {"authorization": "Bearer zwéi".encode()},
    ],
)
def test_a_key_opens(guarded, post, headers):
    assert post(guarded, PATH, ASK, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "first"},
        {"authorization": "Basic first"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer First"},
        {"x-api-key": "firs"},
    ],
)
def test_others_stay_out(guarded, post, headers):
    response = post(guarded, PATH, ASK, headers=headers)
    assert response.status_code == 401
    assert response.json()["error"]["type"] == "AuthenticationError"
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "path",
    ["/metrics", "/openapi.json", "/v1/models", "/tokenize", "/nowhere", "/version", "/pagesx"],
)
def test_every_path_is_guarded(guarded, post, path):
    assert post(guarded, path).status_code == 401


def test_health_and_preflights_are_open(guarded, post):
    assert post(guarded, "/health").status_code == 200
    headers = {
        **ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }
    response = post(guarded, PATH, method="OPTIONS", headers=headers)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "*"


def test_answers_errors_and_streams_cross_origins(app, engine, guarded, post):
    ok = post(app, PATH, ASK, headers=ORIGIN)
    stream = post(app, PATH, {**ASK, "stream": True}, headers=ORIGIN)
    bad = post(app, PATH, {}, headers=ORIGIN)
    nowhere = post(app, "/nowhere", headers=ORIGIN)
    locked = post(guarded, PATH, ASK, headers=ORIGIN)
    engine.error = ZeroDivisionError("defect")
    broken = post(app, PATH, ASK, headers=ORIGIN)
    statuses = [200, 200, 400, 404, 401, 500]
    responses = [ok, stream, bad, nowhere, locked, broken]
    assert [response.status_code for response in responses] == statuses
    for response in responses:
        assert response.headers["access-control-allow-origin"] == "*"
        assert "x-request-id" in response.headers
