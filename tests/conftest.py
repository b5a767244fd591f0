"""Fixtures of the whole test tree."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Folder with real LaMP records beside the repository; the test is skipped where it is not."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "lamp").is_dir():
        pytest.skip("needs real LaMP records in ../shared/lamp, which is not there")
    return folder
