"""From a configuration to an engine, where the parts disagree."""

import pytest
from aphrodite_engine import EngineConfig
from aphrodite_engine.build import build_engine
from aphrodite_engine.errors import ConfigError
from aphrodite_engine.loading.errors import loading_error


def test_deterministic_is_refused_where_rows_are_not_independent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("APHRODITE_BACKEND", "reference")
    with pytest.raises(Exception, match="cannot be deterministic") as caught:
        build_engine(EngineConfig(model="demo", deterministic=True), [], lambda text: None)
    assert isinstance(loading_error(caught.value), ConfigError)
