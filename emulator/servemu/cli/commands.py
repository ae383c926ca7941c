"""All commands of `servemu`."""

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
from servemu.cli.root import root

app = root()
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
