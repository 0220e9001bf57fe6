"""`python -m services.command_line` is `antiphon`."""

from services.command_line.main import app

app()
