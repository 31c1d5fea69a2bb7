"""Typed reading of TOML tables: every wrong, missing or unknown key is collected, and all are reported at once."""

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dsv4_stack.errors import ConfigError, NotFoundError

_MISSING: Final = object()


@dataclass(kw_only=True)
class Table:
    """One TOML table under inspection. `path` is where it stands, `problems` is shared by all tables of a file."""

    values: dict[str, Any]
    path: str = ""
    problems: list[str] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def text(self, key: str, default: str | None = None, *, pattern: str = "", hint: str = "") -> str:
        """A string; where `pattern` is given the whole value has to match it, or be empty if the default is."""
        value = str(self._take(key, str, "a string", default))
        if pattern and value and not re.fullmatch(pattern, value):
            self._complain(key, f"should be {hint or pattern}, not {value!r}")
        return value

    def integer(self, key: str, default: int | None = None, *, minimum: int = 0, maximum: int | None = None) -> int:
        value = self.values.get(key)
        if isinstance(value, int) and (
            isinstance(value, bool) or value < minimum or (maximum is not None and value > maximum)
        ):
            upper = "" if maximum is None else f" and at most {maximum}"
            self._complain(key, f"should be a whole number of at least {minimum}{upper}")
        return int(self._take(key, int, "a whole number", default))

    def truth(self, key: str, default: bool | None = None) -> bool:  # noqa: FBT001
        return bool(self._take(key, bool, "true or false", default))

    def texts(self, key: str, default: list[str] | None = None) -> tuple[str, ...]:
        values = self._take(key, list, "a list of strings", default)
        if not all(isinstance(value, str) for value in values):
            self._complain(key, "should be a list of strings")
        return tuple(str(value) for value in values)

    def integers(self, key: str, default: list[int] | None = None) -> tuple[int, ...]:
        values = self._take(key, list, "a list of whole numbers", default)
        if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            self._complain(key, "should be a list of whole numbers")
            return ()
        return tuple(values)

    def scalars(self, key: str) -> dict[str, Any]:
        """A table whose keys are the user's own: kept as it is."""
        return dict(self._take(key, dict, "a table", {}))

    def table(self, key: str, *, optional: bool = False) -> "Table":
        values = self._take(key, dict, "a table", {} if optional else None)
        return Table(values=values, path=self._at(key), problems=self.problems)

    def tables(self, key: str, *, optional: bool = False) -> dict[str, "Table"]:
        """A table of tables, by name."""
        outer = self.table(key, optional=optional)
        return {name: outer.table(name) for name in outer.values}

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def finish(self) -> None:
        """Report every key that nobody asked for."""
        for key in self.values.keys() - self._seen:
            self.problems.append(f"{self._at(key)}: unknown key")

    def complain(self, key: str, problem: str) -> None:
        self._complain(key, problem)

    def _take(self, key: str, kind: type, what: str, default: Any) -> Any:  # noqa: ANN401
        self._seen.add(key)
        value = self.values.get(key, _MISSING)
        if value is _MISSING:
            if default is None:
                self._complain(key, f"is missing; it should be {what}")
                return kind()
            return default
        if not isinstance(value, kind):
            self._complain(key, f"should be {what}")
            return kind()
        return value

    def _complain(self, key: str, problem: str) -> None:
        self.problems.append(f"{self._at(key)}: {problem}")

    def _at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


def read_toml(path: Path) -> dict[str, Any]:
    """The file's values. Raises NotFoundError or ConfigError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError(f"{path} does not exist", "name a file that does") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", "name a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}", f"mend {path}") from None


def reject(path: Path, problems: list[str]) -> None:
    """Raise one ConfigError that names every problem of the file, if there is any."""
    if problems:
        listed = "\n".join(f"  {problem}" for problem in sorted(problems))
        raise ConfigError(f"{path} is invalid:\n{listed}", f"mend {path}")
