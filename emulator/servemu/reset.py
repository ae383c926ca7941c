"""A workspace back at its first second: one transaction, then everything in memory, no await.

It begins a new generation, to which no endpoint belongs: however many there were, that is one row
(see `servemu_state.generations`). What is left over a kill is removed at the next start.
"""

from servemu.world import World
from servemu_state import endpoints, faults, registered_models, replies, tracking, workspaces


def reset(world: World, workspace: str) -> int:
    """Answers how many endpoints went. Requests that still run end by themselves, unrecorded.

    Access tokens stay good: they hold nothing of the workspace but its name.
    """
    before, first = world.workspaces.open(workspace), world.workspaces.at_first(workspace)
    with world.db.write() as connection:
        count = endpoints.count(connection, workspace)
        faults.delete_all(connection, workspace)
        replies.delete_all(connection, workspace)
        models = registered_models.delete_all(connection, workspace)
        tracking.delete_all(connection, workspace)
        workspaces.save(connection, first)
    world.workspaces.put(first)
    world.attic.take(before, models)
    world.lookup.forget(models)
    world.files.forget_runs(workspace)
    forget(world, workspace)
    return count


def forget(world: World, workspace: str) -> None:
    """Whatever is in memory of the workspace and of its endpoints: deployments and loads under
    way, due times, budgets, counts, replies, draws, journal.
    """
    world.deployments.forget(workspace)
    world.reconciler.forget(workspace)
    world.router.forget_all(workspace)
    world.meter.forget_all(workspace)
    world.replies.forget(workspace)
    world.faults.forget(workspace)
    world.dice.forget(workspace)
    world.journal.forget(workspace)
