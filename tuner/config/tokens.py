"""A source of tokens and the windows cut from it."""

from dataclasses import dataclass

NAMES = ("stdlib", "prose", "text", "tokens", "c4", "hf")


EMBEDDED = ("stdlib", "prose")


TOKENISED = ("c4", "hf")
"""Data sets of documents, which are tokenised once: see `tuner.data.token_cache`."""


C4, C4_CONFIG = "allenai/c4", "en"


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A source of tokens and the windows cut from it."""

    name: str = "stdlib"
    """stdlib: the running Python's own standard-library sources as bytes (embedded default);
    prose: the language reference that its help() shows, English, 0.5 MB (embedded);
    text: a file, or a folder's files, as bytes; tokens: a `.npy` or `.bin` (uint16) token file;
    c4: English C4 (Raffel et al. 2020), and hf: any data set of Hugging Face, both as tokens of
    `tokenizer`."""
    path: str = ""
    """File or folder for text and tokens; a data set's name on the hub or its local folder for hf
    and c4 (there empty is allenai/c4); empty for the embedded texts."""
    config: str = ""
    """Configuration of the data set for hf and c4, or the folder in `path` of that name; for c4
    empty is en."""
    column: str = "text"
    """Column of the documents' texts, for hf and c4."""
    tokenizer: str = ""
    """For hf and c4: a `tokenizer.json`, a sentencepiece `.model`, or a repository's name."""
    tokens: int = 0
    """Tokens to train on, for hf and c4: so many are tokenised, once."""
    sequence_length: int = 64
    """Context T, in tokens."""
    vocab_size: int = 256
    """Number of different tokens; 256 for bytes."""
    validation_sequences: int = 128
    """Fixed validation windows of sequence_length tokens."""

    @property
    def predictions(self) -> int:
        """Positions of the loss in one sample: one a token."""
        return self.sequence_length

    @property
    def dataset(self) -> str:
        """The data set's name or folder, for hf and c4."""
        return self.path or (C4 if self.name == "c4" else "")

    @property
    def subset(self) -> str:
        """The data set's configuration, for hf and c4."""
        return self.config or (C4_CONFIG if self.name == "c4" else "")

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(f"data.name must be one of {', '.join(NAMES)}, got {self.name!r}.")
        for name in ("sequence_length", "vocab_size", "validation_sequences"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"data.{name} must be a whole number from 1 up, got {value!r}.")
        self._check_documents()
        if self.name not in (*EMBEDDED, "c4") and not self.path:
            what = "data set" if self.name == "hf" else "file"
            raise ValueError(
                f"data.path must name the {what} of data.name={self.name}, got nothing."
            )
        if self.name in EMBEDDED and self.path:
            raise ValueError(
                f"data.path must be empty for data.name={self.name}, got {self.path!r}; "
                f"set data.name=text to read it."
            )
        if self.name not in ("tokens", *TOKENISED) and self.vocab_size != 256:
            raise ValueError(
                f"data.vocab_size must be 256 for bytes, got {self.vocab_size}; "
                f"only data.name=tokens, c4 and hf have another."
            )

    def _check_documents(self) -> None:
        """ValueError where a field of data sets of documents is wrong, or set for other data."""
        if isinstance(self.tokens, bool) or not isinstance(self.tokens, int) or self.tokens < 0:
            raise ValueError(f"data.tokens must be a whole number from 0 up, got {self.tokens!r}.")
        if self.name not in TOKENISED:
            for name, default in (("config", ""), ("column", "text"), ("tokenizer", ""),
                                  ("tokens", 0)):  # fmt: skip
                if getattr(self, name) != default:
                    raise ValueError(
                        f"data.{name} must be left out for data.name={self.name}, got "
                        f"{getattr(self, name)!r}; it belongs to c4 and hf."
                    )
            return
        for name, cure in (
            ("tokenizer", "set it to T5's tokenizer.json, say"),
            ("tokens", "set it to how many to train on, like 10_000_000"),
        ):
            if not getattr(self, name):
                raise ValueError(
                    f"data.{name} must be given for data.name={self.name}, got nothing; {cure}."
                )
