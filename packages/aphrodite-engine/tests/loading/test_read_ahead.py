"""Weights are asked of the disk before anybody needs them."""

import os

import pytest
from aphrodite_engine.loading.read_ahead import read_ahead


def test_every_byte_is_asked_for(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "posix_fadvise", lambda file, *advice: asked.append(advice))
    (tmp_path / "a").write_bytes(bytes(1000))
    with (tmp_path / "b").open("wb") as file:
        file.truncate((20 << 20) + 1)
    read_ahead([tmp_path / name for name in ("a", "missing", "b")]).join()
    piece = 8 << 20
    assert asked == [(start, piece, os.POSIX_FADV_WILLNEED) for start in (0, 0, piece, 2 * piece)]


def test_a_system_that_takes_no_advice(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "posix_fadvise")
    assert read_ahead([tmp_path]) is None


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system takes no such advice")
def test_a_real_file(tmp_path):
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    read_ahead([tmp_path / "a"]).join()
