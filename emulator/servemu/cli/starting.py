"""`servemu up`, without the other commands."""

from servemu.cli.root import root
from servemu.cli.up import up

app = root()
app.command("up")(up)
