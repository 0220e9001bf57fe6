"""`antiphon serve`: what it refuses before anything is loaded."""

from typer.testing import CliRunner

from services.command_line.main import app


def test_shards_in_one_process_are_refused_with_what_to_do_instead() -> None:
    result = CliRunner().invoke(app, ["serve", "--expert-shards", "2"])
    assert result.exit_code == 1
    assert "expected with --on ray; came 2 in one process" in result.stderr
    assert "python -m services experts" in result.stderr
