"""One JSON object of config.json, read key by key: what is missing, mistyped or unsupported is refused by its path."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar, cast

from antiphon.errors import CheckpointError

KindT = TypeVar("KindT")

_NAMES: Final[Mapping[type, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


class Section:
    def __init__(self, values: object, path: str, file: Path) -> None:
        """path: of the keys above, each with a dot behind it. Raises CheckpointError when `values` is no object."""
        self._path, self._file = path, file
        self._values = self._checked(path.rstrip(".") or "a JSON object: it", values, dict)

    def section(self, key: str) -> "Section":
        return Section(self._values.get(key), f"{self._path}{key}.", self._file)

    def has(self, key: str) -> bool:
        return self._values.get(key) is not None

    def integer(self, key: str) -> int:
        return self._get(key, int)

    def number(self, key: str) -> float:
        value = self._values.get(key)
        return float(value) if type(value) is int else self._get(key, float)

    def boolean(self, key: str) -> bool:
        return self._get(key, bool)

    def integers(self, key: str) -> tuple[int, ...]:
        values = cast(list[object], self._get(key, list))
        return tuple(self._checked(f"{self._path}{key}[{place}]", value, int) for place, value in enumerate(values))

    def ids(self, key: str) -> dict[str, int]:
        """Names, in lower case, to ids; at least one."""
        values = cast(dict[str, object], self._get(key, dict))
        if not values:
            raise self._refusal(f"{self._path}{key}", "names and their ids", values)
        return {name.lower(): self._checked(f"{self._path}{key}.{name}", each, int) for name, each in values.items()}

    def require(self, key: str, supported: object) -> None:
        """A variant that the model's code does not compute is refused; a key that is absent or null is not one."""
        value = self._values.get(key)
        if value is not None and value != supported:
            raise CheckpointError(
                f"{self._file}: {self._path}{key} is {value!r}; only {supported!r} is supported. "
                "Use a checkpoint of the Qwen3-Omni family."
            )

    def rope(self, default_theta: float | None = None, kind: str = "default") -> tuple[float, tuple[int, ...]]:
        """(theta, mrope sections): rope_parameters (transformers 5) or rope_theta and rope_scaling (real files)."""
        name = next((key for key in ("rope_parameters", "rope_scaling") if self.has(key)), None)
        nested = Section({}, f"{self._path}rope.", self._file) if name is None else self.section(name)
        nested.require("rope_type", kind)
        nested.require("interleaved", True)
        holder = nested if nested.has("rope_theta") else self
        has_theta = holder.has("rope_theta") or default_theta is None
        theta = holder.number("rope_theta") if has_theta else cast(float, default_theta)
        return theta, nested.integers("mrope_section") if nested.has("mrope_section") else ()

    def _get(self, key: str, kind: type[KindT]) -> KindT:
        return self._checked(f"{self._path}{key}", self._values.get(key), kind)

    def _checked(self, path: str, value: object, kind: type[KindT]) -> KindT:
        if type(value) is not kind:  # JSON's true is no number
            raise self._refusal(path, _NAMES[kind], value)
        return value

    def _refusal(self, path: str, expected: str, value: object) -> CheckpointError:
        came = "nothing" if value is None else repr(value)[:80]
        return CheckpointError(
            f"{self._file}: expected {path} to be {expected}; found {came}. Is this a Qwen3-Omni checkpoint?"
        )
