"""The command and a pair of small files for it."""

import pytest
from cli_cases import QUICK, Command, write_pair


@pytest.fixture
def medwave(monkeypatch, capsys):
    return Command(monkeypatch, capsys)


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    return write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def run(medwave, pair, tmp_path):
    """A run folder of the quickest registration there is."""
    assert medwave("register", pair["fixed"], pair["moving"], "-o", tmp_path / "run", *QUICK).code == 0
    return tmp_path / "run"
