"""Generates antiphon/v1 from protos/ whenever the project is built or installed editable."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ProtoBuildHook(BuildHookInterface[Any]):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 hatchling asks for both
        from grpc_tools import protoc

        root = Path(self.root)
        out = root / "antiphon" / "v1"
        out.mkdir(parents=True, exist_ok=True)
        protos = sorted(str(path) for path in (root / "protos" / "antiphon" / "v1").glob("*.proto"))
        include = f"-I{root / 'protos'}"
        # The .pyi stubs give mypy the types of every message.
        arguments = [
            "protoc",
            include,
            f"--python_out={root}",
            f"--pyi_out={root}",
            f"--grpc_python_out={root}",
            *protos,
        ]
        if protoc.main(arguments) != 0:
            raise RuntimeError("protoc could not generate antiphon/v1 from protos/; its messages are above")
        (out / "__init__.py").write_text(
            '"""Generated from protos/antiphon/v1 by the build; never edited, never committed."""\n'
        )
        (out / "py.typed").touch()
