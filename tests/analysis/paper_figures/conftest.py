import sys
from pathlib import Path

# Tests are imported by path (`--import-mode=importlib`), so their planted records need the folder.
sys.path.insert(0, str(Path(__file__).parent))
