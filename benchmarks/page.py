"""A section of a page of docs/ that a command writes, between two marks."""

from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


@dataclass(frozen=True, slots=True)
class Section:
    """What stands between `<!-- NAME begin -->` and `<!-- NAME end -->` in a page."""

    page: Path
    name: str

    @property
    def marks(self) -> tuple[str, str]:
        """The lines before and after the section."""
        return f"<!-- {self.name} begin -->", f"<!-- {self.name} end -->"

    def read(self) -> str:
        """Returns what the page has there now, with its last line break."""
        begin, end = self.marks
        return self.page.read_text().split(f"{begin}\n")[1].split(end)[0]

    def write(self, text: str) -> None:
        """Replaces the section, and says so."""
        begin, end = self.marks
        old, new = (f"{begin}\n{content}{end}" for content in (self.read(), text))
        self.page.write_text(self.page.read_text().replace(old, new, 1))
        print(f"written: {self.page}")
