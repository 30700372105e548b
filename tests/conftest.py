"""Shared fixtures: the development data folder, one thread per test process, fixed seeds."""

from pathlib import Path

import pytest
import torch

DATA_FOLDER = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real brains, neurons and images that lies beside the checkout during development."""
    if not DATA_FOLDER.is_dir():
        pytest.skip("the development data (../shared/data beside the checkout) is absent")
    return DATA_FOLDER


@pytest.fixture(autouse=True)
def one_seed() -> None:
    torch.manual_seed(0)
