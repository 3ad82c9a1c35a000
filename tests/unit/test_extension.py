"""A user's own devices, objective and formulation, from outside of the package and without touching it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pytest

from lateral.baseline import power_flow
from lateral.case import Case
from lateral.checks import check
from lateral.devices import Device, DeviceContext, Load, ShuntDevice, Source
from lateral.devices.base import column
from lateral.errors import CaseError, Fault, OptionError
from lateral.formulations import Formulation, OperatingPoint
from lateral.formulations.linear_legs import LinearLegs
from lateral.io import read, read_folder, write_folder
from lateral.io.dispatch import Dispatch
from lateral.io.opendss import write_opendss
from lateral.network.branches import RadialNetwork
from lateral.network.feeder import Bus, Feeder, Line
from lateral.network.horizon import Horizon
from lateral.network.schema import FloatArray, Series, spec
from lateral.objectives import Objective
from lateral.opf import build, dispatch_of, solve
from lateral.program import Affine, ProgramBuilder
from lateral.program.ports import NetworkModel
from lateral.replay import replay
from lateral.units import Base

# -- two devices ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Diesel(ShuntDevice):
    """A generator that burns fuel: 0 <= p <= p_max, at a price per kWh, with unity power factor."""

    kind: ClassVar[str] = "diesel"
    table: ClassVar[str] = "diesels"

    p_max_kw: float = spec("Most power.", unit="kW", minimum=0.0)
    fuel_price: Series = spec("Price of fuel per kWh made.", unit="$/kWh", default=0.1, series=True)

    @classmethod
    def declare(cls, group: Sequence[Self], ctx: DeviceContext) -> None:
        """p, its cost, and its injection."""
        kva, names = ctx.base.total_kva, [d.name for d in group]
        p = ctx.builder.variable(
            "diesel", "p", names, unit="kW", to_unit=kva, lower=0.0, upper=column(group, "p_max_kw") / kva, limit=False
        )
        price = ctx.builder.data(
            "diesel.fuel_price", names, np.array([ctx.series(d.fuel_price) for d in group]), unit="$/kWh"
        )
        cost = (p * (ctx.horizon.hours * kva)).times_parameter(price)
        ctx.builder.output("diesel", "energy_cost", names, cost, unit="$")
        ctx.builder.output("diesel", "p_injected", names, p, unit="kW", to_unit=kva)
        where = ctx.ports(group)
        ctx.net.inject(where.ports, where.spread(p), where.spread(Affine.zeros(*p.shape)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Charger(ShuntDevice):
    """A flexible load: it needs an energy over the horizon, whenever that is cheapest."""

    kind: ClassVar[str] = "charger"
    table: ClassVar[str] = "chargers"

    p_max_kw: float = spec("Most power drawn.", unit="kW", minimum=0.0)
    need_kwh: float = spec("Energy needed over the horizon.", unit="kWh", minimum=0.0)

    @classmethod
    def declare(cls, group: Sequence[Self], ctx: DeviceContext) -> None:
        """sum_t dt_t p_t = need."""
        kva, names = ctx.base.total_kva, [d.name for d in group]
        p = ctx.builder.variable(
            "charger", "p", names, unit="kW", to_unit=kva, lower=0.0, upper=column(group, "p_max_kw") / kva, limit=False
        )
        need = ctx.builder.data("charger.need_kwh", names, column(group, "need_kwh"), unit="kWh") / kva
        ctx.builder.equal(
            "charger", "need", names, (p * ctx.horizon.step_h).sum_steps(), need, unit="kWh", to_unit=kva, limit=True
        )
        ctx.builder.output("charger", "p_injected", names, -p, unit="kW", to_unit=kva)
        where = ctx.ports(group)
        ctx.net.inject(where.ports, where.spread(-p), where.spread(Affine.zeros(*p.shape)))

    @classmethod
    def with_data(
        cls, group: Sequence[Self], values: Mapping[str, FloatArray], profiles: dict[str, FloatArray], n_steps: int
    ) -> Sequence[Self]:
        """Needs that were updated."""
        import dataclasses

        if "charger.need_kwh" not in values:
            return group
        new = np.asarray(values["charger.need_kwh"], dtype=float).reshape(-1)
        return [dataclasses.replace(d, need_kwh=float(x)) for d, x in zip(group, new, strict=True)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sensor(Device):
    """Something without equations, and not between conductors: OpenDSS has no word for it."""

    kind: ClassVar[str] = "sensor"
    table: ClassVar[str] = "sensors"


# -- an objective, a formulation ------------------------------------------------------------------------------------


class Ramp(Objective):
    """``sum_t (p_import_t - p_import_(t-1))^2``, kW^2."""

    name: ClassVar[str] = "ramp"
    title: ClassVar[str] = "changes of import"
    unit: ClassVar[str] = "kW^2"

    def declare(self, ctx: DeviceContext, weight: float) -> None:
        """Squares of differences."""
        total = ctx.builder.find("source.p_total")
        assert total is not None
        steps = np.arange(ctx.n_steps)
        change = total.at_steps(steps[1:]) - total.at_steps(steps[:-1])
        ctx.builder.minimise_squares(change, weight * ctx.base.total_kva**2)


class _Plate(LinearLegs):
    """Every leg loses the same power at every step."""

    loss_pu = 0.0

    def _constants(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        zero = np.zeros((self.net.n_legs, 1))
        return self.loss_pu + zero, zero, zero

    def _source_drop_constant(self, drop_0: np.ndarray) -> FloatArray:
        return np.zeros(drop_0.shape)


class FixedLosses(Formulation):
    """LinDistFlow with a constant loss in every branch."""

    name: ClassVar[str] = "fixed-losses"
    title: ClassVar[str] = "linear branch flow with constant losses"
    balanced_only: ClassVar[bool] = True
    point: ClassVar[str] = "none"

    def __init__(self, loss_kw: float) -> None:
        self.loss_kw = loss_kw

    def declines(self, feeder: Feeder, network: RadialNetwork) -> tuple[Fault, ...]:
        """Loops."""
        return network.faults

    def network(
        self,
        builder: ProgramBuilder,
        feeder: Feeder,
        network: RadialNetwork,
        base: Base,
        point: OperatingPoint | None,
    ) -> NetworkModel:
        """See `Formulation.network`."""
        model = _Plate(builder, feeder, network, base, point)
        model.loss_pu = self.loss_kw / base.total_kva
        return model


# -- a case -----------------------------------------------------------------------------------------------------------


def line(name: str, a: str, b: str) -> Line:
    return Line(
        name=name, bus_from=a, bus_to=b, conductors_from=(1,), conductors_to=(1,), r_ohm=[[0.01]], x_ohm=[[0.02]]
    )


@pytest.fixture
def case() -> Case:
    """Prices 0.1, 0.3, 0.2; 30 kW of load; a diesel at 0.25 $/kWh of 20 kW; a charger of 10 kW that needs 15 kWh."""
    return Case(
        name="own",
        feeder=Feeder(
            buses=tuple(Bus(name=n, conductors=(1,), v_base_kv=2.4) for n in "abc"),
            lines=(line("ab", "a", "b"), line("bc", "b", "c")),
        ),
        devices=(
            Source(name="grid", bus="a", price_import="price"),
            Load(name="l", bus="b", p_kw=30.0),
            Diesel(name="d", bus="b", p_max_kw=20.0, fuel_price=0.25),
            Charger(name="e", bus="c", p_max_kw=10.0, need_kwh=15.0),
        ),
        horizon=Horizon.regular(3),
        profiles={"price": np.array([0.1, 0.3, 0.2])},
    )


#: 0.1 (30 + 10) + [0.3 (30 - 20) + 0.25 * 20] + 0.2 (30 + 5): the diesel runs in step 2 only, the charger takes the two
#: cheapest steps
BY_HAND = 4.0 + 8.0 + 7.0


def test_devices_by_hand(case: Case) -> None:
    assert check(case) == ()
    r = solve(case, "lindistflow", loss_term=False)
    assert r.ok
    np.testing.assert_allclose(r.value("diesel.p")[0], [0, 20, 0], atol=1e-5)
    np.testing.assert_allclose(r.value("charger.p")[0], [10, 0, 5], atol=1e-5)
    assert r.cost == pytest.approx(BY_HAND, abs=1e-6)
    assert r.objective == pytest.approx(BY_HAND, abs=1e-6)
    # the last kWh of the charger is bought in step 3
    assert r.dual("charger.need")[0, 0] == pytest.approx(0.2, abs=1e-6)
    np.testing.assert_allclose(r.set_points["charger.e"][0], [-10, 0, -5], atol=1e-5)
    assert {"diesel.p", "charger.p"} <= set(r.dataset.data_vars)
    assert r.dataset["diesel.p"].attrs["units"] == "kW"


@pytest.mark.parametrize("formulation", ["lindistflow", "soc", "nonlinear", "lindist3flow"])
def test_devices_are_replayed_by_their_set_points(case: Case, formulation: str) -> None:
    """The AC power flow with the set-points and OpenDSS agree; the schedule is replayed, not ignored."""
    r = solve(case, formulation)
    assert r.ok
    assert r.replay is not None
    run = replay(r.case, dispatch_of(r))
    assert run.all_converged
    p, q = (np.array([r.set_points[label][k] for label in ("diesel.d", "charger.e")]) for k in (0, 1))
    flow = power_flow(case, dispatch={"diesel": (p[:1], q[:1]), "charger": (p[1:], q[1:])})
    np.testing.assert_allclose(run.p_source_kw, flow.sources_kva.real.sum(axis=0), atol=1e-4)
    summary = r.replay.summary()
    exact = formulation in ("soc", "nonlinear")
    assert summary["max_dv_pu"] < (1e-6 if exact else 1e-3)
    assert summary["dp_source_kw"] < (1e-2 if exact else 0.5)
    # idle, without set-points
    idle = replay(case, Dispatch.baseline(case))
    assert idle.p_source_kw == pytest.approx(np.full(3, 30.0), abs=0.2)


def test_a_dispatch_without_the_device_is_refused(case: Case) -> None:
    with pytest.raises(CaseError, match=r"diesel\.d.*p_injected"):
        Dispatch(p_kw={"charger.e": np.zeros(3)}, q_kvar={}).check(case)


def test_a_device_without_counterpart_costs_the_replay_not_the_schedule(case: Case) -> None:
    r = solve(case.with_(devices=(*case.devices, Sensor(name="s", bus="a"))), "lindistflow")
    assert r.ok
    assert r.replay is None
    assert any("not replayed" in c and "sensor.s" in c for c in r.choices)


def test_update_of_own_data(case: Case) -> None:
    model = build(case, "lindistflow", loss_term=False)
    model.update_data({"diesel.fuel_price": np.full((1, 3), 0.35), "charger.need_kwh": np.array([[5.0]])})
    r = model.solve()
    # the diesel is too dear; 5 kWh in step 1
    assert r.cost == pytest.approx(0.1 * 35 + 0.3 * 30 + 0.2 * 30, abs=1e-6)
    assert r.case.of(Charger)[0].need_kwh == 5.0


def test_need_that_cannot_be_met_names_the_charger(case: Case) -> None:
    r = build(case, "lindistflow").update_data({"charger.need_kwh": np.array([[35.0]])}).solve()
    assert r.status.word == "infeasible"
    assert len(r.conflicts) == 1
    assert "charger" in r.reasons[0]
    assert "e" in r.reasons[0]
    assert "5" in r.reasons[0]  # 35 kWh of 3 h at 10 kW


def test_folder_round_trip(case: Case, tmp_path: Path) -> None:
    write_folder(case, tmp_path / "c")
    back = read_folder(tmp_path / "c", device_types=(Diesel, Charger))
    assert back.hash == case.hash
    assert read(tmp_path / "c", device_types=(Diesel, Charger)).of(Diesel)[0].fuel_price == 0.25
    assert solve(back, "lindistflow", with_replay=False, loss_term=False).cost == pytest.approx(BY_HAND, abs=1e-6)
    with pytest.raises(CaseError, match="diesels"):
        read(tmp_path / "c")


def test_written_master_holds_the_set_points(case: Case, tmp_path: Path) -> None:
    r = solve(case, "lindistflow", with_replay=False, loss_term=False)
    write_opendss(case, tmp_path / "dss", dispatch=dispatch_of(r))
    text = (tmp_path / "dss" / "devices.dss").read_text()
    assert "New Load.diesel_d" in text
    assert "New Load.charger_e" in text
    shapes = (tmp_path / "dss" / "loadshapes.dss").read_text()
    mine = next(row for row in shapes.splitlines() if "diesel_d" in row)
    numbers = mine.split("mult=[")[1].split("]")[0].split()
    np.testing.assert_allclose([float(x) for x in numbers], [0, -20, 0], atol=1e-4)  # a load that gives


def test_own_objective(case: Case) -> None:
    """Import is as flat as 20 kW of diesel and 15 kWh of charging can make it: perfectly; ramp 0."""
    r = solve(case, "lindistflow", Ramp(), loss_term=False, with_replay=False)
    assert r.ok
    assert np.ptp(r.p_source_kw) < 1e-2
    assert r.objective == pytest.approx(0.0, abs=1e-4)
    # weighted: 1000 $ per kW^2 of ramp dwarfs the tariff, 1e-9 does nothing to it
    flat = solve(case, "lindistflow", _cost() + 1000.0 * Ramp(), loss_term=False, with_replay=False)
    assert np.ptp(flat.p_source_kw) < 1e-1
    free = solve(case, "lindistflow", _cost() + 1e-9 * Ramp(), loss_term=False, with_replay=False)
    assert free.cost == pytest.approx(BY_HAND, abs=1e-4)
    assert free.objective_name == "1*cost+1e-09*ramp"


def _cost() -> Objective:
    from lateral.objectives import get

    return get("cost")


def test_own_formulation(case: Case) -> None:
    """0.5 kW lost in each of two branches, at every step: 1 kW more import at 0.1, 0.3, 0.2."""
    r = solve(case, FixedLosses(0.5), loss_term=False)
    assert r.ok
    assert r.formulation == "fixed-losses"
    assert r.cost == pytest.approx(BY_HAND + 1.0 * (0.1 + 0.3 + 0.2), abs=1e-6)
    assert r.replay is not None
    with pytest.raises(OptionError, match="fixed-losses"):
        solve(case, "fixed-losses")
