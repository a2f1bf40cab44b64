"""Text and values without their secrets, for whatever is recorded, printed or sent.

It stands above the four packages and imports none of them, nor anything beyond the standard
library: training, `analysis` and MLflow's process all write what may hold one.
"""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, TextIO
from urllib.parse import unquote

HIDDEN = "***"
"""What stands in the place of a secret."""

_STRONG = {"password", "passwords", "passwd", "passphrase", "secret", "secrets"}
_STRONG |= {"credential", "credentials"}
_WORDS = _STRONG | {"key", "token", "apikey"}
"""A name is a secret's if one of these is a word of it; of the others, numbers aren't secrets:
`key_dim=4` isn't, `password=1234` is."""
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_PLAIN = re.compile(r"(?i)[-+]?(\d[\d_]*\.?\d*|\.\d+)(e[-+]?\d+)?|true|false|none|null")
_SHORTEST = 4
"""Characters of the shortest value that is looked for in texts: shorter ones are everywhere."""

# A password of a database may hold a slash, which urlsplit takes for the end of the host.
_USER = re.compile(
    r"(\b[a-zA-Z][\w+.-]*://[^\s/:@?#'\"]*):"
    r"(?:[^\s/?#]*|(?!\d{1,5}(?:[/?#\s'\"]|$))[^\s@'\"]*)@"
)
_HEADER = re.compile(
    r"(?i)(authorization['\"]?\s*[:=]\s*['\"]?(?:(?:basic|bearer|digest|token)\s+)?)[^\s'\",;}\])]+"
)
_BEARER = re.compile(r"(?i)\b(bearer\s+)[\w.~+/-]{8,}=*")
# A name with what is between it and its value: NAME=, "NAME":, --NAME and a space.
_NAMED = re.compile(
    r"(?P<before>['\"?&;]?)(?P<dashes>-{0,2})(?<![\w.])(?P<name>[a-zA-Z_][\w.-]*)"
    r"(?P<after>=|['\"]\s*:\s*|(?<!\\)['\"]?,?[ \t]+)"
)
_QUOTED = r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\""
_ONE = re.compile(_QUOTED)
_REST = re.compile(rf"(?:{_QUOTED})(?:{_QUOTED}|[^\s'\",;)\]}}])*|[^\s'\"]\S*")
_PART = re.compile(r"[^\s&;#'\"]+")

_known: set[str] = set()


def is_secret_name(name: str) -> bool:
    """Whether a name, of one or more words in any spelling, is that of a secret."""
    return not _words(name).isdisjoint(_WORDS)


def hides(name: str, value: object) -> bool:
    """Whether a value of this name is a secret: text that isn't empty; of a password numbers, too.

    A URI with a password in it is one whatever its name.
    """
    if isinstance(value, str):
        return bool(value) and (is_secret_name(name) or _USER.search(value) is not None)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and not _words(name).isdisjoint(_STRONG)


def shown(name: str, value: Any) -> Any:
    """Returns a value as it may be shown under its name; of lists and objects each part."""
    if isinstance(value, Mapping):
        return {key: shown(f"{name}.{key}", part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(shown(name, part) for part in value)
    if not hides(name, value):
        return value
    return HIDDEN if is_secret_name(name) else _without_users(value)


def redacted(text: str) -> str:
    """Returns a text without passwords in URIs, values of secrets' names, and known secrets.

    As NAME=VALUE, --NAME VALUE, "NAME": "VALUE", in a query and after Authorization and Bearer. The
    same text again gives the same.
    """
    for value in sorted(_known, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    text = _hide_named(_without_users(text))
    return _BEARER.sub(rf"\1{HIDDEN}", _HEADER.sub(rf"\1{HIDDEN}", text))


def redacted_words(words: Iterable[str]) -> list[str]:
    """Returns a command's words without secrets: also where a value is a word of its own."""
    hidden, found = False, []
    for word in words:
        if hidden and not word.startswith("--"):
            found.append(word if _PLAIN.fullmatch(word) else HIDDEN)
            hidden = False
            continue
        name, equals, value = word.partition("=")
        name = name.lstrip("-")
        hidden = word.startswith("--") and not equals and is_secret_name(name)
        whole = equals and re.fullmatch(r"[\w.-]+", name) and _hides_text(name, value)
        found.append(f"{word.partition('=')[0]}={HIDDEN}" if whole else redacted(word))
    return found


def remember(*values: object) -> None:
    """Notes secrets of this process, which `redacted` then hides wherever they stand."""
    texts = (str(value) for value in values)
    _known.update(text for text in texts if len(text) >= _SHORTEST and text != HIDDEN)


def remember_environment() -> None:
    """Notes the secrets that are in this process's environment."""
    named = [value for name, value in os.environ.items() if is_secret_name(name)]
    # A number, a word or a path is no secret, and hiding it would spoil other texts.
    remember(*(v for v in named if len(v) > 5 and not (_PLAIN.fullmatch(v) or v[0] == "/")))


def remember_uri(uri: str) -> None:
    """Notes the password of a URI, as it is written there and as it is meant."""
    hidden = _without_users(uri)
    start = hidden.find(f":{HIDDEN}@")
    if start >= 0:
        end = len(uri) - len(hidden) + start + 1 + len(HIDDEN)
        remember(uri[start + 1 : end], unquote(uri[start + 1 : end]))


def remember_words(words: Iterable[str]) -> None:
    """Notes the secrets in a command's words NAME=VALUE, for what is said of it later."""
    for word in words:
        name, _, value = word.partition("=")
        if _hides_text(name, value):
            remember(value, *value.split(","))


class RedactedLines:
    """A text stream like `sys.stderr` that passes whole lines on without their secrets."""

    def __init__(self, stream: TextIO):
        self._stream, self._waiting = stream, ""

    def write(self, text: str) -> int:
        """Takes in a text; what ends in a line break is written."""
        whole, newline, self._waiting = (self._waiting + text).rpartition("\n")
        if newline:
            self._stream.write(f"{redacted(whole)}\n")
        return len(text)

    def flush(self) -> None:
        """Flushes whole lines; a part could hold half a secret."""
        self._stream.flush()

    def close(self) -> None:
        """Writes the last line, which has no end; the stream itself stays open."""
        self._stream.write(redacted(self._waiting))
        self._waiting = ""
        self.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _words(name: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(name)}


def _without_users(text: str) -> str:
    return _USER.sub(rf"\1:{HIDDEN}@", text)


def _hides_text(name: str, text: str) -> bool:
    """Whether a value that was typed is a secret; what reads as a number may be one."""
    if not text or not is_secret_name(name):
        return False
    return not _PLAIN.fullmatch(text) or not _words(name).isdisjoint(_STRONG)


def _hide_named(text: str) -> str:
    parts, at, start = [], 0, 0
    while found := _NAMED.search(text, start):
        start = found.end()
        value = _value(text, found)
        if value is None or not _hides_text(found["name"], value.strip("'\"")):
            continue
        quote = value[0] if value[0] in "'\"" else ""
        parts += [text[at:start], quote, HIDDEN, quote]
        at = start = start + len(value)
    return "".join([*parts, text[at:]])


def _value(text: str, found: "re.Match[str]") -> str | None:
    """What follows a name, as far as it goes; none where that isn't its value."""
    if not is_secret_name(found["name"]):
        return None
    before, after = found["before"], found["after"]
    if ":" in after:
        value = _ONE.match(text, found.end())
    elif after != "=":
        if len(found["dashes"]) < 2:
            return None
        value = _REST.match(text, found.end())
    elif before and before in "'\"":
        end = text.find(before, found.end())
        return text[found.end() : end if end >= 0 else len(text)] or None
    elif before:
        value = _PART.match(text, found.end())
    else:
        value = _REST.match(text, found.end())
    return value[0] if value else None
