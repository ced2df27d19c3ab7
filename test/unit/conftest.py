"""Puts the project's root on the import path, so that tests run from any folder."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
