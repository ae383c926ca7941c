"""A workspace back at its first second: one transaction, then everything in memory, no await.

Its endpoints are not deleted but moved out of every workspace, into one that no token can name:
that takes a fifth of the time, and what is left over a kill is removed at the next start.
"""

from servemu.world import World
from servemu_state import faults, registered_models, replies, workspaces


def reset(world: World, workspace: str) -> int:
    """Answers how many endpoints went. Requests that still run end by themselves, unrecorded.

    Access tokens stay good: they hold nothing of the workspace but its name.
    """
    first = world.workspaces.at_first(workspace)
    with world.db.write() as connection:
        ids = world.attic.take(connection, workspace)
        faults.delete_all(connection, workspace)
        replies.delete_all(connection, workspace)
        registered_models.delete_all(connection, workspace)
        workspaces.save(connection, first)
    world.workspaces.put(first)
    forget(world, workspace, ids)
    return len(ids)


def forget(world: World, workspace: str, endpoint_ids: list[str]) -> None:
    """Whatever is in memory of the workspace and of these endpoints: deployments and loads under
    way, due times, budgets, counts, replies, draws, journal.
    """
    world.deployments.forget(endpoint_ids)
    world.reconciler.forget(endpoint_ids)
    for endpoint_id in endpoint_ids:
        world.router.forget(endpoint_id)
    world.router.budgets.limits.forget(workspace)
    world.meter.forget_all(workspace)
    world.replies.forget(workspace)
    world.faults.forget(workspace)
    world.dice.forget(workspace)
    world.journal.forget(workspace)
