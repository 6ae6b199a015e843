"""The commands in the documents. Each stands in a fenced block, whose first words say what is to become of it:

    ```bash                      runs, and succeeds
    ```bash refused              runs, and fails: it shows an error
    ```bash with a key           runs against a service that asks for the key called rk_...
    ```bash with OPTIONS         runs with these options appended, which make it short: it takes hours without
    ```bash in a clone           is run by `scripts/run_readme.py`, in a fresh clone; `in a clone with OPTIONS`, too;
                                 `in a clone, goes on` is a service, which runs until the others are done
    ```bash not run: REASON      cannot be run here
    ```python                    runs, and succeeds

`tests/test_documents.py` runs the others, those with `--dry-run` in its own process.
docs/decisions/0035-readme-run-in-a-fresh-clone.md says why.
"""

import re
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r"^```(bash|python) *(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
IN_A_CLONE = "in a clone"
NOT_RUN = "not run: "


@dataclass(frozen=True)
class Command:
    page: str
    language: str
    text: str
    told: str
    """What the block's first line says after its language."""

    @property
    def fails(self) -> bool:
        return self.told == "refused"

    @property
    def needs_key(self) -> bool:
        return self.told == "with a key"

    @property
    def is_for_a_clone(self) -> bool:
        return self.told.startswith(IN_A_CLONE)

    @property
    def goes_on(self) -> bool:
        return self.told == f"{IN_A_CLONE}, goes on"

    @property
    def reason(self) -> str | None:
        """Why it is not run."""
        return self.told.removeprefix(NOT_RUN) if self.told.startswith(NOT_RUN) else None

    @property
    def options(self) -> str:
        """What is appended, so that it takes no hours."""
        told = self.told.removeprefix(IN_A_CLONE).strip()
        return told.removeprefix("with ") if told.startswith("with --") else ""

    @property
    def is_understood(self) -> bool:
        told = self.told.removeprefix(IN_A_CLONE).strip()
        return self.goes_on or told in ("", "refused", "with a key") or bool(re.match(r"with --\w|not run: \w", told))


def commands_in(page: Path) -> list[Command]:
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [Command(page.name, language, text, told) for language, told, text in blocks]
