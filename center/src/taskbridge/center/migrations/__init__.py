"""The revisions of the tables."""

from pathlib import Path

FOLDER = Path(__file__).parent
