"""No password, token or key is left in a text, and nothing else is taken out of it."""

import io
import shlex

import pytest

from foretune import redaction
from foretune.redaction import RedactedLines, hides, redacted, redacted_words, remember, shown


@pytest.fixture(autouse=True)
def _own_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(redaction, "_known", set())


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("--tracking-uri http://me:s3cret@host:5000 --out x", None),
        ("postgresql+psycopg2://u:p/s3cret@h/db", "postgresql+psycopg2://u:***@h/db"),
        ("http://u:p@s3cret@host/x", "http://u:***@host/x"),
        ("mysql://:s3cret@h/d and http://a:s3cret@c/d", "mysql://:***@h/d and http://a:***@c/d"),
        ("http://h/x?token=s3cret&page=2", "http://h/x?token=***&page=2"),
        ("http://h/x?user=a&api_key=s3cret#f", "http://h/x?user=a&api_key=***#f"),
        ("HF_TOKEN=s3cret foretune", "HF_TOKEN=*** foretune"),
        ("--api-key s3cret --steps 4", "--api-key *** --steps 4"),
        ("--set model.api_key=s3cret steps=4", "--set model.api_key=*** steps=4"),
        ("--set=model.hubToken=s3cret", "--set=model.hubToken=***"),
        ("'model.api_key=my s3cret' steps=4", "'model.api_key=***' steps=4"),
        ('{"api_key": "a s3cret", "width": 3}', '{"api_key": "***", "width": 3}'),
        ("Config(api_key='s3cret', width=3)", "Config(api_key='***', width=3)"),
        ("['--api-key', 's3cret']", "['--api-key', '***']"),
        ("password=1234 steps=4", "password=*** steps=4"),
        ("Authorization: Bearer s3cret", "Authorization: Bearer ***"),
        ("a header 'bearer s3cret-and-long'", "a header 'bearer ***'"),
        ("'Authorization': 'Basic s3cret=='", "'Authorization': 'Basic ***'"),
    ],
)
def test_secrets_are_hidden_and_hiding_them_again_changes_nothing(text: str, hidden: str | None):
    assert "s3cret" not in redacted(text)
    assert hidden in (None, redacted(text))
    assert redacted(redacted(text)) == redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens=abc tokenizer=bpe tokens=x n_keys=y monkey=z",
        "key_dim=4 --key-dim 4 use_key=true token=none",
        "KeyError: 'loss'",
        "the token is wrong, the key constraint failed: experiments.name",
        "http://host:5000/x?a=b@c",
        "sqlite:////tmp/x/mlflow.db",
        "foretune sweep lr --sizes 16 32 --set optimizer.lr=1e-3",
    ],
)
def test_what_is_no_secret_stays(text: str):
    assert redacted(text) == text


def test_a_command_is_hidden_word_by_word():
    words = ["sweep", "--set", "model.api_key=it's s3cret", "--password", "-s3cret", "--steps", "4"]
    words += ["--tracking-uri", "http://u:s'3cret@h"]
    text = shlex.join(redacted_words(words))
    assert "cret" not in text
    assert text.startswith("sweep --set 'model.api_key=***' --password '***' --steps 4 ")


def test_values_under_their_names():
    assert shown("model.api_key", "s3cret") == "***"
    assert shown("hub_token", ("a", "b")) == ("***", "***")
    assert shown("store", "http://u:s3cret@h/x") == "http://u:***@h/x"
    assert shown("own", {"api_key": "s3cret", "width": 3}) == {"api_key": "***", "width": 3}
    assert shown("key_dim", 4) == 4
    assert shown("password", 1234) == "***"
    assert not hides("api_key", "")
    assert not hides("api_key", None)
    assert not hides("tokenizer", "bpe")


def test_known_secrets_are_hidden_wherever_they_stand_but_short_ones():
    remember("hunter2", "ab", None)
    assert redacted("got 'hunter2' of ab") == "got '***' of ab"


def test_lines_are_hidden_even_if_written_in_pieces():
    out = io.StringIO()
    lines = RedactedLines(out)
    for piece in ("one HF_TO", "KEN=s3", "cret two\nthr", "ee api_key=s3cret"):
        print(piece, end="", file=lines)
    lines.flush()
    assert out.getvalue() == "one HF_TOKEN=*** two\n"
    lines.close()
    assert out.getvalue() == "one HF_TOKEN=*** two\nthree api_key=***"
