import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Benchmarks are scripts beside each other, not a package; the histories are those of `analysis`.
sys.path += [str(ROOT / "benchmarks"), str(ROOT / "tests" / "analysis")]
