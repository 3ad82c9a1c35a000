"""``lateral areas serve``: an area of a federation, solved by its owner (`lateral.areas.federation`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lateral.cli.failures import Exit
from lateral.cli.screen import note, working

if TYPE_CHECKING:
    from lateral.areas.federate import Service
    from lateral.areas.member import Connection

BrokerOption = Annotated[
    str, typer.Option("--broker", metavar="HOST:PORT", help="The HELICS broker, such as 127.0.0.1:23404.")
]
KeyFileOption = Annotated[
    str | None, typer.Option("--key-file", metavar="FILE", help="File with the broker's key (--brokerkey).")
]
EncryptionOption = Annotated[
    str | None,
    typer.Option(
        "--encryption", metavar="FILE", help="HELICS's JSON file of certificates; needs a build with encryption."
    ),
]


def serve(
    folder: Annotated[str, typer.Argument(metavar="AREA_FOLDER", help="Case folder of the area.")],
    federation: Annotated[str, typer.Option("--federation", metavar="FILE", help="federation.toml.")],
    broker: BrokerOption,
    area: Annotated[str | None, typer.Option("--area", metavar="NAME", help="Absent: found by its digest.")] = None,
    key_file: KeyFileOption = None,
    encryption: EncryptionOption = None,
    objective: Annotated[
        bool, typer.Option("--objective/--no-objective", help="Tell the coordinator the area's own objective and cost.")
    ] = True,
    wait: Annotated[
        float,
        typer.Option("--wait", metavar="S", min=0.0, help="Seconds to look for the broker, also when it is lost."),
    ] = 60.0,
) -> int:
    """Solve an area of a federation for as long as the run lasts, as its owner: only border values leave it."""
    from lateral.areas.agent import AreaAgent
    from lateral.areas.executors.helics_ import connection
    from lateral.areas.federate import Service
    from lateral.areas.federation import read_federation
    from lateral.io.tables import read_folder

    known = read_federation(federation)
    with working(f"reading {folder} ..."):
        case = read_folder(folder)
    name = known.check_area(case, area)
    where = connection(broker, key_file, encryption)
    agent = AreaAgent(name, case, known.task(name))
    service = Service(agent=agent, digest=case.hash, owned=True, say_objective=objective)
    note(f"area {name!r} of {known.plan.name!r}, broker {broker}")
    return _serve(where, service, known.identifier, wait)


def _serve(where: Connection, service: Service, federation: str, wait: float) -> int:
    """Serve, and join again with the same solver when the broker was lost and comes back."""
    import time

    from lateral.areas.federate import serve as serve_area
    from lateral.areas.member import FederationLost, Member, area_name, coordinator_name
    from lateral.errors import SolveError

    member, end = None, time.monotonic() + wait
    try:
        while True:
            try:
                member = Member(area_name(federation), where)
            except SolveError:
                if time.monotonic() >= end:
                    raise
                continue
            try:
                serve_area(member, service, federation, say=lambda text: note(f"area {service.agent.name!r}: {text}"))
            except FederationLost as error:
                note(f"{error}; looking for it for {wait:g} s")
                end = time.monotonic() + wait
                member.close()
                continue
            note(f"area {service.agent.name!r}: the run has ended")
            return Exit.OK
    except KeyboardInterrupt:
        if member is not None and member.connected:
            member.send(coordinator_name(federation), {"do": "bye"})
            time.sleep(0.2)  # a text that is under way when the federate leaves is lost
        note(f"area {service.agent.name!r} has left")
        return Exit.INTERRUPTED
    finally:
        if member is not None:
            member.close()


__all__ = ["serve"]
