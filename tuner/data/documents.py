"""Documents and tokenizers of Hugging Face, by name or from files: what a token cache is made of.

The libraries are an optional extra (`hf`) and are loaded only where such data is asked for.
"""

import hashlib
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

END_OF_TEXT = ("</s>", "<|endoftext|>", "<eos>", "<|end_of_text|>", "<s/>")
"""Names of the token between two documents, the first that a tokenizer has: T5's, GPT-2's, ..."""
C4_HINT = (
    "where there is network, hf download allenai/c4 --repo-type dataset --include "
    "'en/c4-train.0000*' 'en/c4-validation*' --local-dir DIR fetches a part of C4 for "
    "data.path=DIR"
)
TOKENIZER_HINT = (
    "T5's is the file tokenizer.json of google-t5/t5-base (hf download google-t5/t5-base "
    "tokenizer.json --local-dir DIR)"
)


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Any tokenizer: texts to token ids without special tokens, and the token between texts."""

    encode: Callable[[list[str]], list[list[int]]]
    vocabulary: int
    """Number of token ids, added ones included."""
    end: int
    """Id of the end-of-text token."""


def library(name: str) -> Any:
    """Returns an imported module of the extra; ValueError where it isn't installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise ValueError(
            f"data.name=c4 and data.name=hf need {name}, got none; run pip install -c "
            f"constraints.txt -e '.[hf]'."
        ) from None


def open_tokenizer(name: str) -> Tokenizer:
    """Returns the tokenizer of a file (`tokenizer.json`, or sentencepiece's `.model`) or of a
    repository's name. ValueError where there is none, or it has no end-of-text token."""
    if name.endswith(".model"):
        return _sentencepiece(name)
    tokenizers, file = library("tokenizers"), _local_file(name)
    try:
        if file:
            tokenizer = tokenizers.Tokenizer.from_file(str(file))
        else:
            tokenizer = tokenizers.Tokenizer.from_pretrained(name)
    except Exception as error:  # The library's own errors have no class of their own.
        raise _no_tokenizer(name, error) from None
    ids = (tokenizer.token_to_id(token) for token in END_OF_TEXT)
    return Tokenizer(
        lambda texts: [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)],
        tokenizer.get_vocab_size(with_added_tokens=True),
        _end(name, next((number for number in ids if number is not None), None)),
    )


def _sentencepiece(name: str) -> Tokenizer:
    sentencepiece = library("sentencepiece")
    try:
        file = str(Path(name).expanduser())
        processor = sentencepiece.SentencePieceProcessor(model_file=file)
    except (OSError, RuntimeError) as error:
        raise _no_tokenizer(name, error) from None
    end = processor.eos_id()
    return Tokenizer(
        lambda texts: processor.encode(texts), len(processor), _end(name, end if end >= 0 else None)
    )


def _no_tokenizer(name: str, error: Exception) -> ValueError:
    return ValueError(
        f"data.tokenizer must be a tokenizer.json, a sentencepiece .model, or the name of a "
        f"repository that can be reached, got {name!r} ({first_line(error)}); {TOKENIZER_HINT}."
    )


def _end(name: str, number: int | None) -> int:
    if number is None:
        raise ValueError(
            f"data.tokenizer must have a token for the end of a text, one of "
            f"{', '.join(END_OF_TEXT)}, got none in {name!r}; add it to the tokenizer."
        )
    return number


def file_identity(name: str) -> str:
    """Returns what a tokenizer's content depends on: the hash of a file, or a repository's name."""
    file = _local_file(name)
    return hashlib.sha256(file.read_bytes()).hexdigest() if file else name


def _local_file(name: str) -> Path | None:
    """The file of this name, None where it is a repository's; ValueError for one that is neither.

    One that looks like a file is refused before the hub is asked, which takes half a minute.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.suffix in (".json", ".model") or name.startswith((".", "/", "~")):
        raise _no_tokenizer(name, FileNotFoundError("no such file"))
    return None


def folder_of(path: str, config: str) -> Path | None:
    """Returns the local folder of a data set, None for a repository's name.

    A configuration is a folder in it, as in a repository of files. ValueError for a folder that
    isn't there.
    """
    root = Path(path).expanduser()
    if root.is_dir():
        return root / config if config and (root / config).is_dir() else root
    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise ValueError(
            f"data.path must be a folder that exists or a data set's name on the hub, got "
            f"{path!r}; {C4_HINT}."
        )
    return None


def splits_of(path: str, config: str) -> Mapping[str, Any]:
    """Returns a data set's splits by name, streamed; `train` is among them.

    Raises ValueError where it isn't there or has no such split.
    """
    datasets, folder = library("datasets"), folder_of(path, config)
    name = str(folder) if folder else path
    try:
        found = datasets.load_dataset(name, None if folder else config or None, streaming=True)
    except Exception as error:  # What the hub, its client and each format's reader raise.
        raise _no_dataset(name, error) from None
    if "train" not in found:
        raise ValueError(
            f"data.path must hold a split named train, got {', '.join(found)} in {name}; name its "
            f"files like train-00000.json.gz."
        )
    return found


def texts_of(split: Any, column: str, where: str) -> Iterator[str]:
    """Gives the texts of a streamed split in its order; ValueError for a column that isn't text."""
    rows = iter(split)
    while True:
        try:
            row = next(rows, None)
        except Exception as error:
            raise _no_dataset(where, error) from None
        if row is None:
            return
        text = row.get(column)
        if not isinstance(text, str):
            raise ValueError(
                f"data.column must name a column of texts, got {column!r}, in {where} of type "
                f"{type(text).__name__}; its columns are {', '.join(map(str, row))}."
            )
        yield text


def _no_dataset(name: str, error: Exception) -> ValueError:
    return ValueError(
        f"data.path must be a data set that can be read, got {name} ({first_line(error)}); "
        f"{C4_HINT}."
    )


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
