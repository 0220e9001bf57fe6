"""One JSON object of config.json, read key by key: what is missing, mistyped or unsupported is refused by its path."""

from pathlib import Path
from typing import Any, cast

from antiphon.errors import CheckpointError


class Section:
    def __init__(self, values: dict[str, Any], path: str, file: Path) -> None:
        self._values, self._path, self._file = values, path, file

    def section(self, key: str) -> "Section":
        return Section(cast(dict[str, Any], self._get(key, dict)), f"{self._path}{key}.", self._file)

    def has(self, key: str) -> bool:
        return self._values.get(key) is not None

    def integer(self, key: str) -> int:
        return cast(int, self._get(key, int))

    def number(self, key: str) -> float:
        return float(cast(float, self._get(key, (int, float))))

    def boolean(self, key: str) -> bool:
        return cast(bool, self._get(key, bool))

    def integers(self, key: str) -> tuple[int, ...]:
        return tuple(int(value) for value in cast(list[int], self._get(key, list)))

    def ids(self, key: str) -> dict[str, int]:
        return {name.lower(): int(value) for name, value in cast(dict[str, int], self._get(key, dict)).items()}

    def require(self, key: str, supported: object) -> None:
        """A variant that the model's code does not compute is refused; a key that is absent or null is not one."""
        value = self._values.get(key)
        if value is not None and value != supported:
            raise CheckpointError(
                f"{self._file}: {self._path}{key} is {value!r}; only {supported!r} is supported. "
                "Use a checkpoint of the Qwen3-Omni family."
            )

    def rope(self, default_theta: float | None = None) -> tuple[float, tuple[int, ...]]:
        """(theta, mrope sections): rope_parameters (transformers 5) or rope_theta and rope_scaling (real files)."""
        scaling = self._values.get("rope_parameters") or self._values.get("rope_scaling") or {}
        theta = scaling.get("rope_theta", self._values.get("rope_theta", default_theta))
        if theta is None:
            raise CheckpointError(f"{self._file}: expected {self._path}rope_theta; it is missing.")
        Section(scaling, f"{self._path}rope.", self._file).require("rope_type", "default")
        return float(theta), tuple(scaling.get("mrope_section", ()))

    def _get(self, key: str, kind: type | tuple[type, ...]) -> object:
        value = self._values.get(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            came = "nothing" if value is None else repr(value)
            raise CheckpointError(
                f"{self._file}: expected {self._path}{key} to be {kind}; found {came}. Is this a Qwen3-Omni checkpoint?"
            )
        return value
