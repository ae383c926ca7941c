"""The `servemu` command. All but `up`, `plan`, `models pull` are clients of a running emulator."""

import typer

from servemu import __version__
from servemu.cli import (
    clock,
    faults,
    journal,
    models,
    plan,
    replies,
    scenario,
    status,
    throughput,
    up,
    workspace,
)

app = typer.Typer(
    name="servemu",
    help="The Databricks serving-endpoints API on localhost.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("up")(up.up)
app.command("status")(status.status)
app.command("endpoints")(status.endpoints)
app.command("requests")(journal.requests)
app.command("throughput")(throughput.throughput)
app.command("verdict")(journal.verdict)
app.command("plan")(plan.plan)
app.command("reset")(workspace.reset)
app.add_typer(workspace.app, name="snapshot")
app.add_typer(clock.app, name="clock")
app.add_typer(faults.app, name="fault")
app.add_typer(models.app, name="models")
app.add_typer(replies.app, name="reply")
app.add_typer(scenario.app, name="scenario")


@app.callback(invoke_without_command=True)
def version(
    show: bool = typer.Option(False, "--version", help="Show the version and exit.", is_eager=True),
) -> None:
    """The Databricks serving-endpoints API on localhost."""
    if show:
        typer.echo(f"servemu {__version__}")
        raise typer.Exit


def main() -> None:
    """The console script."""
    app()
