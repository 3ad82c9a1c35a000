"""Objects of an OpenDSS model that are no element of a case: data that others refer to, controls, meters."""

from __future__ import annotations

from lateral.io.opendss.map_build import Build, numbers, text
from lateral.io.opendss.map_inverters import InverterControls
from lateral.io.opendss.map_shapes import Shapes

#: Property -> class of the object that it names.
_REFERS = {
    "linecode": "linecode",
    "geometry": "linegeometry",
    "spacing": "linespacing",
    "wire": "wiredata",
    "wires": "wiredata",
    "cncable": "cndata",
    "cncables": "cndata",
    "tscable": "tsdata",
    "tscables": "tsdata",
    "xfmrcode": "xfmrcode",
    "effcurve": "xycurve",
    "p-tcurve": "xycurve",
}
_REFERRING = ("line", "linegeometry", "transformer", "autotrans", "pvsystem", "storage")
_FOLDED = ("linecode", "linegeometry", "linespacing", "wiredata", "cndata", "tsdata", "xfmrcode", "xycurve")

_CONTROLS = {
    "invcontrol": "inverter curves do not act; reactive power is a decision or at the stated power factor",
    "expcontrol": "inverter curves do not act; reactive power is a decision or at the stated power factor",
    "storagecontroller": "the schedule is a decision",
    "gendispatcher": "generators are held",
    "upfccontrol": "power-flow controllers have no counterpart",
    "espvlcontrol": "local controllers do not act",
}
#: Controls whose inverters keep the power factor of the solved point: exact there, not at other steps.
_CURVES = ("invcontrol", "expcontrol")
_PROTECTION = ("fuse", "recloser", "relay", "tcc_curve")
_MEASUREMENT = ("monitor", "energymeter", "sensor", "feedermeter")
_OTHER_STUDY = ("spectrum", "growthshape", "dynamicexp", "priceshape", "tshape")


def map_passive(build: Build, shapes: Shapes, controls: InverterControls) -> None:
    """Record everything that is not an element of the case."""
    used = _references(build)
    for cls in _FOLDED:
        for properties in build.model.objects(cls):
            name = str(properties["name"]).lower()
            if (cls, name) in used:
                build.record(f"{cls}.{name}", "mapped", "IMP-003", "inside the elements that refer to it")
            else:
                build.record(f"{cls}.{name}", "ignored", "IMP-034", "no element that is read refers to it")
    for properties in build.model.objects("loadshape"):
        name = str(properties["name"]).lower()
        if name in shapes.used:
            build.record(f"loadshape.{name}", "mapped", "IMP-003", "a profile of the case, on its horizon")
        else:
            why = f"no element follows it in horizon '{shapes.kind}'"
            build.record(f"loadshape.{name}", "ignored", "IMP-036", why)
    for cls, why in _CONTROLS.items():
        follows = cls in _CURVES and shapes.kind != "snapshot"
        code, outcome = ("IMP-069", "approximated") if follows else ("IMP-030", "ignored")
        if cls != "invcontrol":
            _all(build, cls, code, why, outcome)
            continue
        for properties in build.model.objects(cls):
            controls.record(str(properties["name"]).lower(), why, code, outcome)
    for cls in _PROTECTION:
        _all(build, cls, "IMP-031", "protection does not act in a schedule; what it guards is in the case")
    for cls in _MEASUREMENT:
        _all(build, cls, "IMP-032", "does not change the solution")
    for cls in _OTHER_STUDY:
        _all(build, cls, "IMP-033", "data of harmonics, growth, prices or dynamics")
    _switch_controls(build)
    _capacitor_controls(build)


def capacitor_steps(build: Build) -> dict[str, tuple[int, ...]]:
    """Steps on and off of every capacitor under control, at the solved point."""
    wanted = {text(c, "capacitor") for c in build.model.objects("capcontrol")}
    return {
        str(c["name"]).lower(): tuple(int(s) for s in numbers(c, "states"))
        for c in build.model.objects("capacitor")
        if str(c["name"]).lower() in wanted
    }


def record_the_rest(build: Build) -> None:
    """Whatever no rule knew: nothing is dropped in silence."""
    for cls, objects in build.model.classes.items():
        for properties in objects:
            element = f"{cls}.{str(properties['name']).lower()}"
            if element not in build.entries:
                build.record(element, "ignored", "IMP-040", f"class {cls} has no counterpart")
            if not build.entries[element].file and build.entries[element].outcome == "ignored":
                _engine_default(build, element)


def _engine_default(build: Build, element: str) -> None:
    old = build.entries.pop(element)
    if old.code in ("IMP-033", "IMP-034", "IMP-036", "IMP-031"):
        build.record(element, "ignored", "IMP-035", "defined by the engine, not by the files")
    else:
        build.entries[element] = old


def _all(build: Build, cls: str, code: str, why: str, outcome: str = "ignored") -> None:
    for properties in build.model.objects(cls):
        build.record(f"{cls}.{str(properties['name']).lower()}", outcome, code, why)


def _references(build: Build) -> set[tuple[str, str]]:
    """Class and name of every object that another one refers to."""
    found: set[tuple[str, str]] = set()
    for cls in _REFERRING:
        objects = build.model.objects(cls)
        keys = [key for key in _REFERS if objects and key in objects[0]]
        for properties in objects:
            for key in keys:
                value = properties[key]
                if value:
                    for name in value if isinstance(value, list) else [value]:
                        found.add((_REFERS[key], str(name).lower()))
    # a name may carry its class
    return found | {tuple(name.split(".", 1)) for _, name in found if "." in name}  # type: ignore[misc]


def _switch_controls(build: Build) -> None:
    for properties in build.model.objects("swtcontrol"):
        name = str(properties["name"]).lower()
        target = text(properties, "switchedobj")
        why = f"the state of {target} at the solved point is in the case; the control itself is off"
        build.record(f"swtcontrol.{name}", "mapped", "IMP-002", why)


def _capacitor_controls(build: Build) -> None:
    steps = capacitor_steps(build)
    for properties in build.model.objects("capcontrol"):
        name, target = str(properties["name"]).lower(), text(properties, "capacitor")
        on = " ".join("on" if s else "off" for s in steps.get(target, ()))
        why = f"steps of capacitor.{target} as at the solved point ({on}), held"
        build.record(f"capcontrol.{name}", "mapped", "IMP-002", why)


__all__ = ["capacitor_steps", "map_passive", "record_the_rest"]
