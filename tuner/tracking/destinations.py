"""Where this user has had sweeps sent to, as ssh's known_hosts has the hosts it went to.

A directory may come from anyone, and names a server; it is believed where this file agrees.
"""

import json
import os
from contextlib import suppress
from pathlib import Path

from foretune.whole_files import atomic_write


def known_destination(sweep_key: str) -> str:
    """Returns the store, without its password, that this user has named for a sweep; else ""."""
    return _read().get(sweep_key, "")


def remember_destination(sweep_key: str, uri: str) -> None:
    """Notes the store of a sweep; where that can't be written it must be named again."""
    known = _read()
    if known.get(sweep_key) == uri:
        return
    path = _path()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with atomic_write(path, shared=True) as partial:
            partial.write_text(json.dumps({**known, sweep_key: uri}, indent=1) + "\n")


def _path() -> Path:
    state = os.environ.get("XDG_STATE_HOME", "")
    root = Path(state) if os.path.isabs(state) else Path("~/.local/state").expanduser()
    return root / "foretune" / "destinations.json"


def _read() -> dict[str, str]:
    try:
        found = json.loads(_path().read_text())
    except (OSError, ValueError, RuntimeError):  # RuntimeError: nobody's home.
        return {}
    entries = found.items() if isinstance(found, dict) else ()
    return {key: uri for key, uri in entries if isinstance(uri, str)}
