"""The `antiphon` command."""

import os

# Before gRPC is loaded: its own notes on connections that close are no concern of whoever sits at the terminal.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import typer

from services.command_line.ask import ask
from services.command_line.bench.command import bench
from services.command_line.experts import experts
from services.command_line.keys import keys, usage
from services.command_line.scaling import scaling
from services.command_line.serve import serve
from services.command_line.trace import trace

app = typer.Typer(
    help="Antiphon hosts Qwen3-Omni: speech, text, pictures and film in; text and speech out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(ask)
app.command()(serve)
app.command()(trace)
app.command()(experts)
app.command()(scaling)
app.command()(bench)
app.add_typer(keys, name="keys")
app.add_typer(usage, name="usage")
