"""The live chart: bars of delivered tokens/s under the line of what was provisioned."""

import math
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, ConsoleDimensions, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

BLOCKS = " ▁▂▃▄▅▆▇█"
LINE = "─"
LONGEST = 600
"""Looks that are kept."""
LABEL = 10
"""Columns of the scale beside the bars."""
BELOW = 9
"""Lines under the bars."""


@dataclass(frozen=True, slots=True)
class Look:
    """At one moment; tokens/s of the second before."""

    provisioned: float | None
    delivered: float
    waiting: int
    replicas: int | None
    refused: int
    """Since the look before."""


@dataclass(slots=True)
class History:
    """Of one endpoint, oldest first."""

    looks: deque[Look] = field(default_factory=lambda: deque(maxlen=LONGEST))
    _refused: int | None = None

    def add(self, certificate: dict[str, Any]) -> None:
        """What it looks like now."""
        refused, before = certificate["refused"], self._refused
        replicas = certificate["replicas"]
        self._refused = refused
        look = Look(
            provisioned=certificate["provisioned"],
            delivered=certificate["windows"][0]["delivered"],
            waiting=certificate["queue"]["requests"],
            replicas=None if replicas is None else replicas["current"],
            refused=0 if before is None or refused < before else refused - before,
        )
        self.looks.append(look)


@dataclass(frozen=True, slots=True)
class Bars:
    """Values under a line, as high and as wide as given."""

    values: list[float]
    lines: list[float | None]
    height: int
    width: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        values, lines = self.values[-self.width :], self.lines[-self.width :]
        known = [line for line in lines if line is not None]
        top = max([*values, *known, 1.0]) * 1.1
        for row in reversed(range(self.height)):
            yield self._row(values, lines, row, top)

    def _row(self, values: list[float], lines: list[float | None], row: int, top: float) -> Text:
        bottom, step = row * top / self.height, top / self.height
        scale = f"{bottom + step:,.0f}" if row % 2 == 1 or row == self.height - 1 else ""
        text = Text(f"{scale:>{LABEL - 2}} │", style="dim")
        for value, line in zip(values, lines, strict=True):
            filled = round((value - bottom) / step * 8)
            is_line = line is not None and bottom <= line < bottom + step
            if is_line and filled < 8:
                text.append(LINE, style="yellow")
            else:
                text.append(BLOCKS[max(0, min(8, filled))], style="green")
        return text


def sparkline(values: list[float]) -> str:
    """One line; the highest is full, and what is not 0 is seen."""
    top = max([*values, 1.0])
    return "".join(BLOCKS[math.ceil(8 * value / top)] for value in values)


def chart(certificate: dict[str, Any], history: History, size: ConsoleDimensions) -> Group:
    """One endpoint on the whole screen."""
    width, height = max(10, size.width - LABEL - 1), max(4, size.height - BELOW)
    looks = list(history.looks)[-width:]
    bars = Bars(
        [look.delivered for look in looks],
        [look.provisioned for look in looks],
        height,
        width,
    )
    return Group(_title(certificate), bars, *_strips(looks), *_figures(certificate))


def overview(certificates: list[dict[str, Any]], histories: dict[str, History]) -> Table:
    """All endpoints, a line each."""
    table = Table(title=time.strftime("%H:%M:%S"), title_justify="left", header_style="bold")
    headings = ("endpoint", "provisioned", "delivered", "error %", "last half minute", "queue")
    for name in (*headings, "replicas", "429s", ""):
        table.add_column(name, overflow="fold")
    for one in certificates:
        looks = list(histories[one["endpoint"]].looks)[-60:]
        table.add_row(
            one["endpoint"],
            _tokens(one["provisioned"]),
            f"{one['windows'][0]['delivered']:,.0f}",
            _error(one),
            Text(sparkline([look.delivered for look in looks]), style="green"),
            str(one["queue"]["requests"]),
            replicas_of(one),
            str(one["refused"]),
            Text(warning(one), style="red"),
        )
    return table


def _title(certificate: dict[str, Any]) -> Text:
    text = Text(certificate["endpoint"], style="bold")
    text.append(f"  provisioned {_tokens(certificate['provisioned'])} tokens/s ", style="yellow")
    text.append(f" delivered {certificate['windows'][0]['delivered']:,.0f}", style="green")
    text.append(f"  {warning(certificate)}", style="bold red")
    return text


def _strips(looks: list[Look]) -> list[Text]:
    strips = {
        "queue": [float(look.waiting) for look in looks],
        "replicas": [float(look.replicas or 0) for look in looks],
        "429s": [float(look.refused) for look in looks],
    }
    styles = {"queue": "cyan", "replicas": "magenta", "429s": "red"}
    return [
        Text(f"{name:>{LABEL - 2}} │", style="dim").append(sparkline(values), style=styles[name])
        for name, values in strips.items()
    ]


def _figures(certificate: dict[str, Any]) -> list[Text]:
    queue = certificate["queue"]
    windows = " · ".join(
        f"{window['seconds']:g} s {window['delivered']:,.0f}"
        + ("" if window["error_percent"] is None else f" ({window['error_percent']:+.2f} %)")
        for window in certificate["windows"]
    )
    waits = "-"
    if queue["wait_p50"] is not None:
        waits = f"{queue['wait_p50']:.2f} / {queue['wait_p95']:.2f} s"
    return [
        Text(f"delivered tokens/s (error): {windows}"),
        Text(
            f"in flight {certificate['in_flight']} · queue {queue['requests']} requests, "
            f"{queue['tokens']:,.0f} tokens · wait p50 / p95 {waits} · "
            f"replicas {replicas_of(certificate)} · 429s {certificate['refused']}"
        ),
        Text("Ctrl-C ends", style="dim"),
    ]


def warning(certificate: dict[str, Any]) -> str:
    said = ["the machine is the limit"] if certificate["engine_bound"] else []
    if certificate["throughput_scale"] != 1:
        said.append(f"scaled by {certificate['throughput_scale']:g}")
    return ", ".join(said)


def _tokens(rate: float | None) -> str:
    return "unlimited" if rate is None else f"{rate:,.0f}"


def _error(certificate: dict[str, Any]) -> str:
    error = certificate["windows"][1]["error_percent"]
    return "-" if error is None else f"{error:+.2f}"


def replicas_of(certificate: dict[str, Any]) -> str:
    replicas = certificate["replicas"]
    if replicas is None:
        return "-"
    return f"{replicas['current']} ({replicas['minimum']} to {replicas['maximum']})"
