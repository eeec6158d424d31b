"""The checkout that is tested, and what `make` puts into it for the tests."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".cache" / "clients"
"""A folder for each client of `make clients-test`."""
