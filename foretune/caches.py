"""Where this user's caches are: what can be made again, and takes long."""

import os
from pathlib import Path


def cache_root() -> Path:
    """Returns FORETUNE_CACHE, or ~/.cache/foretune; RuntimeError where nobody has a home."""
    return Path(os.environ.get("FORETUNE_CACHE") or "~/.cache/foretune").expanduser()
