"""Access control lists on the wire (facts/control_plane §1.3)."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from servemu.access import ADMINS, Level
from servemu_state.records import Endpoint, Grant

PERMISSION_LEVELS = {
    Level.CAN_MANAGE: "Can manage the serving endpoint.",
    Level.CAN_QUERY: "Can query the serving endpoint.",
    Level.CAN_VIEW: "Can view the serving endpoint.",
}
"""Descriptions are a GUESS."""


class AccessControlRequest(BaseModel):
    """One principal, and its level."""

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)

    user_name: str | None = None
    group_name: str | None = None
    service_principal_name: str | None = None
    permission_level: Literal["CAN_VIEW", "CAN_QUERY", "CAN_MANAGE"]

    @model_validator(mode="after")
    def _names_one_principal(self) -> "AccessControlRequest":
        if len(self._principals()) != 1:
            raise PydanticCustomError(
                "principal",
                "Exactly one of user_name, group_name, service_principal_name must be given",
            )
        return self

    def grant(self) -> Grant:
        [(kind, principal)] = self._principals()
        return Grant(kind, principal, self.permission_level)

    def _principals(self) -> list[tuple[str, str]]:
        named = {
            "user_name": self.user_name,
            "group_name": self.group_name,
            "service_principal_name": self.service_principal_name,
        }
        return [(kind, name) for kind, name in named.items() if name]


class AccessControlList(BaseModel):
    """The body of PUT and PATCH."""

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)

    access_control_list: tuple[AccessControlRequest, ...] = ()


def render_permissions(endpoint: Endpoint, grants: list[Grant]) -> dict[str, Any]:
    """What was given, the creator's own level, and what admins have of their workspace."""
    creator = creator_grant(endpoint)
    admins = Grant("group_name", ADMINS, Level.CAN_MANAGE.name)
    others = [g for g in grants if not _same(g, creator) and not _same(g, admins)]
    given = [g for g in grants if _same(g, admins)]
    return {
        "object_id": f"/serving-endpoints/{endpoint.id}",
        "object_type": "serving-endpoint",
        "access_control_list": [
            *(_entry(grant, [_direct(grant)]) for grant in (creator, *others)),
            _entry(admins, [_inherited(), *map(_direct, given)]),
        ],
    }


def creator_grant(endpoint: Endpoint) -> Grant:
    """The creator manages the endpoint, whatever a list says."""
    is_user = endpoint.settings.get("creator_kind") != "ServicePrincipal"
    kind = "user_name" if is_user else "service_principal_name"
    return Grant(kind, endpoint.creator, Level.CAN_MANAGE.name)


def render_levels() -> dict[str, Any]:
    return {
        "permission_levels": [
            {"permission_level": level.name, "description": description}
            for level, description in PERMISSION_LEVELS.items()
        ]
    }


def _same(one: Grant, other: Grant) -> bool:
    return (one.kind, one.principal) == (other.kind, other.principal)


def _entry(grant: Grant, held: list[dict[str, Any]]) -> dict[str, Any]:
    """Groups have no display name."""
    shown = {} if grant.kind == "group_name" else {"display_name": grant.principal}
    return {grant.kind: grant.principal, **shown, "all_permissions": held}


def _direct(grant: Grant) -> dict[str, Any]:
    return {"permission_level": grant.level, "inherited": False}


def _inherited() -> dict[str, Any]:
    return {
        "permission_level": Level.CAN_MANAGE.name,
        "inherited": True,
        "inherited_from_object": ["/serving-endpoints/"],
    }
