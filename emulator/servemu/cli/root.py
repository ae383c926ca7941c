"""What `servemu` answers without a command; every set of commands starts from it."""

import typer

from servemu import __version__


def root() -> typer.Typer:
    """The program without commands."""
    app = typer.Typer(
        name="servemu",
        help="The Databricks serving-endpoints API on localhost.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback(invoke_without_command=True)(version)
    return app


def version(
    show: bool = typer.Option(False, "--version", help="Show the version and exit.", is_eager=True),
) -> None:
    """The Databricks serving-endpoints API on localhost."""
    if show:
        typer.echo(f"servemu {__version__}")
        raise typer.Exit
