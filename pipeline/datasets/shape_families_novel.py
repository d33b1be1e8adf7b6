"""Families of the *novel* scenes: training has none of them. See :mod:`pipeline.datasets.shape_families`."""

from __future__ import annotations

import numpy as np

from pipeline.datasets.shape_families import Entry, entries, handle, pipe
from pipeline.datasets.shape_solids import (
    Solid,
    arc_strip,
    box,
    capsule,
    column,
    ellipsoid,
    extrusion,
    hull,
    lathe,
    rectangle,
    smooth,
    smooth_profile,
    sweep,
    union,
    wall,
)


def teapot(r: float, h: float) -> Solid:
    """A closed pot with lid, spout and handle."""
    profile = smooth_profile([(0.6 * r, 0), (0.95 * r, 0.25 * h), (r, 0.45 * h), (0.55 * r, 0.8 * h)], 24)
    knob = [(5.0, 0.82 * h), (9.0, 0.88 * h), (10.0, 0.95 * h), (4.0, h)]
    body = lathe([*column([*profile, (5.0, 0.84 * h)]), *column(knob)])
    spout = sweep(
        smooth([(-0.8 * r, 0, 0.3 * h), (-1.25 * r, 0, 0.45 * h), (-1.55 * r, 0, 0.8 * h)], 14),
        np.linspace(12, 6, 14),
        stride=3,
    )
    return body + spout + handle(0.88 * r, 0.22 * h, 0.66 * h, 0.62 * r, 5.5)


def funnel(r: float, h: float) -> Solid:
    """A funnel, standing on its rim."""
    return lathe(wall([(11, 0), (13, 0.42 * h), (r, 0.9 * h), (r, h)], 6)).moved(degrees=(180, 0, 0))


def wrench(length: float, jaw: float, height: float) -> Solid:
    """An open-ended spanner, lying flat."""
    head = arc_strip(jaw, 12, 40, 320, 10, x=0, y=0)
    tail = arc_strip(0.62 * jaw, 9, 0, 360, 12, x=-length, y=0)
    return extrusion([*head, *tail, rectangle(-length + 0.55 * jaw, -8, -0.85 * jaw, 8)], height)


def nut(r: float, hole: float, height: float) -> Solid:
    """A hexagon nut."""
    inner = [(hole * np.cos(a), hole * np.sin(a)) for a in np.radians(np.arange(0, 360, 15))]
    outer = [(r * np.cos(a), r * np.sin(a)) for a in np.radians(np.arange(0, 360, 60))]
    slices = []
    for k in range(6):
        edge = np.linspace(outer[k], outer[(k + 1) % 6], 5)
        for i in range(4):
            a, b = inner[(4 * k + i) % 24], inner[(4 * k + i + 1) % 24]
            slices.append(
                [a, b, (float(edge[i + 1][0]), float(edge[i + 1][1])), (float(edge[i][0]), float(edge[i][1]))]
            )
    return extrusion(slices, height)


def key(length: float, bow: float, height: float) -> Solid:
    """A large key, lying flat."""
    pieces = [
        *arc_strip(bow, 11, 0, 360, 16),
        rectangle(bow, -5.5, length, 5.5),
        rectangle(length - 12, -20, length, 0),
        rectangle(length - 32, -16, length - 21, 0),
    ]
    return extrusion(pieces, height)


def vase(r: float, h: float) -> Solid:
    """A bellied vase, open at the top."""
    points = [(0.6 * r, 0), (r, 0.34 * h), (0.55 * r, 0.76 * h), (0.72 * r, h)]
    fine, coarse = (wall([(0.0, 0.0), *smooth_profile(points, n)], 6) for n in (28, 10))
    return lathe(fine, coarse)


def basket(x: float, y: float, h: float, arch: float) -> Solid:
    """An open box with a bow handle over it."""
    t = 6.0
    sides = [
        box(x, y, t),
        box(x, t, h).moved((0, y / 2 - t / 2, 0)),
        box(x, t, h).moved((0, -y / 2 + t / 2, 0)),
        box(t, y, h).moved((x / 2 - t / 2, 0, 0)),
        box(t, y, h).moved((-x / 2 + t / 2, 0, 0)),
    ]
    angles = np.radians(np.linspace(0, 180, 26))
    reach = x / 2 - t / 2
    bow = np.stack([reach * np.cos(angles), np.zeros_like(angles), h - 3 + arch * np.sin(angles)], axis=1)
    return union(sides) + sweep(bow, 4.5, stride=3)


def gear(r: float, teeth: int, height: float, bore: float) -> Solid:
    """A spur gear with a bore, lying flat."""
    rim = arc_strip((r + bore) / 2, r - bore, 0, 360, 24)
    tooth = np.array([(r - 2, -5), (r + 8, -3.2), (r + 8, 3.2), (r - 2, 5)])
    for k in range(teeth):
        a = 2 * np.pi * k / teeth
        turned = tooth @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
        rim.append([(float(u), float(v)) for u, v in turned])
    return extrusion(rim, height)


def duck(size: float) -> Solid:
    """A bath duck."""
    s = size
    body = ellipsoid(0.62 * s, 0.44 * s, 0.38 * s).moved((0, 0, 0.36 * s))
    head = ellipsoid(0.29 * s, 0.28 * s, 0.29 * s).moved((0.34 * s, 0, 0.86 * s))
    beak = ellipsoid(0.17 * s, 0.14 * s, 0.075 * s).moved((0.64 * s, 0, 0.83 * s))
    tail = hull(
        np.array([(-0.35, -0.18, 0.3), (-0.35, 0.18, 0.3), (-0.35, 0, 0.58), (-0.8, -0.08, 0.66), (-0.8, 0.08, 0.66)])
        * s
    )
    return body + head + beak + tail


def cone(r: float, h: float, plate: float) -> Solid:
    """A traffic cone on its square plate."""
    return box(plate, plate, 8) + lathe(column([(r, 7.9), (0.28 * r, h - 2), (0.2 * r, h)]))


def s_hook(radius: float, thickness: float) -> Solid:
    """An S of wire, lying flat."""
    upper = np.radians(np.linspace(-40, 190, 26))
    top = np.stack([radius * np.cos(upper), radius * np.sin(upper) + radius, 0 * upper], axis=1)
    lower = np.radians(np.linspace(10, -220, 26))
    bottom = np.stack([radius * np.cos(lower), radius * np.sin(lower) - radius, 0 * lower], axis=1)
    s = np.concatenate([top[8:], smooth([top[-1], (0, 0, 0), bottom[0]], 10)[1:-1], bottom[:-8]])
    return sweep(s, thickness, stride=3)


def axe(length: float, blade: float, thickness: float) -> Solid:
    """A hatchet, lying flat."""
    grip = extrusion([capsule((0, 0), (length, 0), 10)], 18).moved((0, 0, -9))
    x = length - 30
    head = hull(
        [(x + u, v, w * t / 2) for u, v, t in ((-4, -14, thickness), (34, -14, thickness)) for w in (-1, 1)]
        + [(x + u, v, w * 3.2) for u, v in ((-22, blade), (48, blade)) for w in (-1, 1)]
    )
    return grip + head


def camera(x: float, y: float, z: float, lens: float) -> Solid:
    """A compact camera: body, lens, shutter button."""
    barrel = lathe(column([(lens, 0), (lens, 26), (lens - 2, 28)]))
    button = lathe(column([(7, 0), (7, 8)]))
    return (
        box(x, y, z) + barrel.moved((-0.08 * x, -y / 2 + 0.1, z / 2), (90, 0, 0)) + button.moved((0.32 * x, 0, z - 0.1))
    )


def pawn(r: float, h: float) -> Solid:
    """A chess pawn."""
    foot = [(r, 0.0), (r, 0.09 * h), (0.78 * r, 0.15 * h), (0.5 * r, 0.3 * h), (0.34 * r, 0.62 * h)]
    collar = [(0.62 * r, 0.64 * h), (0.62 * r, 0.69 * h)]
    ball = ellipsoid(0.5 * r, 0.5 * r, 0.19 * h).moved((0, 0, 0.81 * h))
    return (
        lathe(
            [
                *column([*foot, (0.34 * r, 0.66 * h)]),
                *column(collar),
                *column([(0.34 * r, 0.68 * h), (0.34 * r, 0.75 * h)]),
            ]
        )
        + ball
    )


def drill(length: float, r: float, grip: float) -> Solid:
    """A hand drill: motor, chuck, slanted grip, battery foot; its grip along z."""
    motor = lathe(column([(r - 4, 0), (r, 6), (r, 0.62 * length), (0.55 * r, 0.7 * length), (0.5 * r, length)]))
    handle_part = box(34, 26, grip + 14).moved((0, 0, -grip), (0, 8, 0))
    foot = box(66, 44, 26).moved((-10, 0, -grip - 12))
    return motor.moved((-0.3 * length, 0, 24), (0, 90, 0)) + handle_part + foot


NOVEL: tuple[Entry, ...] = (
    *entries("teapot", "handle", teapot, 700, teapot=(44, 92)),
    *entries("funnel", "hollow thin", funnel, 900, funnel=(50, 104)),
    *entries("wrench", "thin", wrench, 900, wrench=(120, 21, 11)),
    *entries("nut", "hollow", nut, 900, nut=(34, 16, 26)),
    *entries("key", "thin hollow", key, 900, key=(120, 24, 9)),
    *entries("vase", "hollow thin", vase, 900, vase=(40, 128)),
    *entries("basket", "hollow handle", basket, 900, basket=(104, 72, 46, 60)),
    *entries("gear", "hollow", gear, 900, gear=(34, 12, 20, 12)),
    *entries("duck", "", duck, 400, duck=(64,)),
    *entries("cone", "", cone, 500, cone=(32, 110, 82)),
    *entries("s_hook", "thin", s_hook, 900, s_hook=(28, 7.5)),
    *entries("tape", "hollow", pipe, 900, tape=(50, 13, 44)),
    *entries("axe", "handle thin", axe, 700, axe=(170, 46, 22)),
    *entries("camera", "", camera, 600, camera=(104, 36, 64, 23)),
    *entries("pawn", "", pawn, 700, pawn=(27, 105)),
    *entries("drill", "handle", drill, 400, drill=(150, 25, 82)),
)
