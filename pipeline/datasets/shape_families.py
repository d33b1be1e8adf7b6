"""Families of graspable objects, each a function of a few dimensions in millimetres.

Every object stands upright about z = 0 as a person would put it down; no wall is thinner than 6 mm, so that a
signed-distance grid of 100 cells on the longest side still sees three cells of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pipeline.datasets.shape_solids import (
    Solid,
    box,
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

# --- compact bodies ---------------------------------------------------------------------------------------------


def can(r: float, h: float) -> Solid:
    """A tin with a slight rim at both ends."""
    return lathe(column([(r - 1.5, 0), (r, 2), (r, h - 2), (r - 1.5, h)]))


def bottle(r: float, h: float, neck: float) -> Solid:
    """A bottle with shoulder, neck and cap, filled."""
    profile = [(r - 3, 0.0), (r, 4.0), (r, 0.52 * h), (0.85 * r, 0.63 * h), (neck, 0.76 * h), (neck, 0.86 * h)]
    return lathe([*column(profile), *column([(neck + 3, 0.86 * h), (neck + 3, h - 2), (neck + 1, h)])])


def pear(r: float, h: float, waist: float) -> Solid:
    """A pear: round below, a slimmer top, a stalk."""
    profile = smooth_profile(
        [(0.35 * r, 0), (0.85 * r, 0.12 * h), (r, 0.33 * h), (waist, 0.62 * h), (0.55 * waist, 0.87 * h)], 26
    )
    profile.append((0.2 * waist, 0.92 * h))
    return lathe(column(profile)) + sweep([(0, 0, 0.88 * h), (1, 0, 0.94 * h), (4, 0, h - 3)], 3.2)


def dumbbell(r: float, rod: float, length: float) -> Solid:
    """Two balls on a rod, lying along x."""
    offset = length / 2 - r
    bar = sweep(np.c_[np.linspace(-offset, offset, 8), np.zeros((8, 2))], rod, stride=7)
    return bar + ellipsoid(r, r, r).moved((-offset, 0, 0)) + ellipsoid(r, r, r).moved((offset, 0, 0))


def brick(columns: int, rows: int, pitch: float, h: float) -> Solid:
    """A toy brick with studs."""
    solids = [box(columns * pitch, rows * pitch, h)]
    stud = lathe(column([(0.32 * pitch, 0), (0.32 * pitch, 0.3 * pitch)]))
    for i in range(columns):
        for j in range(rows):
            solids.append(stud.moved(((i + 0.5 - columns / 2) * pitch, (j + 0.5 - rows / 2) * pitch, h - 0.01)))
    return union(solids)


def banana(r: float, bend: float, degrees: float) -> Solid:
    """A tapered bow, lying on the table."""
    t = np.linspace(-0.5, 0.5, 25)
    angle = np.radians(degrees) * t
    path = np.stack([bend * np.sin(angle), bend * (1 - np.cos(angle)), np.zeros_like(angle)], axis=1)
    radius = r * (1 - 0.62 * np.abs(2 * t) ** 3.0)
    return sweep(path, radius, stride=3)


# --- hollow bodies ----------------------------------------------------------------------------------------------


def handle(r: float, low: float, high: float, reach: float, thickness: float = 5.0) -> Solid:
    """A cup handle in the x-z plane that leaves a wall of outer radius ``r``."""
    points = [
        (r, 0, high),
        (r + 0.75 * reach, 0, high - 1),
        (r + reach, 0, 0.5 * (low + high)),
        (r + 0.7 * reach, 0, low + 3),
        (r, 0, low),
    ]
    return sweep(smooth(points, 26), thickness, stride=3)


def mug(r: float, h: float, reach: float) -> Solid:
    """A mug with a handle."""
    return lathe(wall([(0, 0), (r, 0), (r, h)], 6)) + handle(r, 0.2 * h, 0.8 * h, reach)


def bowl(r: float, h: float, foot: float) -> Solid:
    """An open bowl or deep plate."""
    points = [(foot, 0), (0.72 * r, 0.28 * h), (0.93 * r, 0.66 * h), (r, h)]
    fine, coarse = (wall([(0.0, 0.0), *smooth_profile(points, n)], 6.5) for n in (19, 7))
    return lathe(fine, coarse)


def wine_glass(r: float, h: float, foot: float) -> Solid:
    """A stemmed glass: foot, stem, open bowl."""
    base = 0.45 * h
    stem = column([(foot, 0), (foot, 5), (9, 9), (4.5, 16), (4.5, base), (8, base + 6)])
    points = [(7, base), (0.8 * r, base + 0.14 * h), (r, base + 0.3 * h), (0.84 * r, h)]
    fine, coarse = (wall([(0.0, base), *smooth_profile(points, n)], 6) for n in (22, 7))
    return lathe([*stem, *fine], [*stem, *coarse])


def pipe(r: float, thickness: float, h: float) -> Solid:
    """A straight tube, open at both ends."""
    return lathe([rectangle(r - thickness, 0, r, h)])


def ring(radius: float, thickness: float) -> Solid:
    """A torus lying on the table."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    path = np.stack([radius * np.cos(angles), radius * np.sin(angles), np.zeros_like(angles)], axis=1)
    return sweep(path, thickness, closed=True, stride=3)


def pan(r: float, h: float, grip: float) -> Solid:
    """A frying pan with a straight grip along x."""
    dish = lathe(wall([(0, 0), (0.86 * r, 0), (r, h)], 6))
    path = [(r - 2.5, 0, h - 5), (r + 0.4 * grip, 0, h + 3), (r + grip, 0, h + 6)]
    return dish + sweep(smooth(path, 12), np.linspace(5.5, 8.0, 12), stride=3)


# --- slender things and tools -----------------------------------------------------------------------------------


def bracket(a: float, b: float, width: float, thickness: float) -> Solid:
    """An L of two plates."""
    profile = [rectangle(0, 0, a, thickness), rectangle(0, 0, thickness, b)]
    return extrusion(profile, width).moved(degrees=(90, 0, 0))


def channel(a: float, b: float, width: float, thickness: float) -> Solid:
    """A U of three plates, open upward."""
    profile = [
        rectangle(0, 0, a, thickness),
        rectangle(0, 0, thickness, b),
        rectangle(a - thickness, 0, a, b),
    ]
    return extrusion(profile, width).moved(degrees=(90, 0, 0))


def hammer(length: float, grip: float, head: float, radius: float) -> Solid:
    """A hammer lying along x: round grip, cylindrical head with a wedge-shaped peen."""
    x = np.linspace(0, length, 14)
    shaft = sweep(np.c_[x, np.zeros((14, 2))], grip * (1 - 0.25 * x / length), stride=4)
    face = lathe(column([(radius - 2, 0), (radius, 2), (radius, 0.6 * head)])).moved((0, 0, -0.6 * head))
    corner = 0.62 * radius
    peen = hull(
        [(i * corner, j * corner, 0) for i in (-1, 1) for j in (-1, 1)]
        + [(i * corner, j * 3.2, 0.4 * head) for i in (-1, 1) for j in (-1, 1)]
    )
    return shaft + (face + peen).moved((length - radius * 0.3, 0, 0), (90, 0, 0)).moved((0, 0.1 * head, 0))


def hook(radius: float, thickness: float, shank: float) -> Solid:
    """A J lying on the table."""
    angles = np.radians(np.linspace(0, -200, 26))
    bend = np.stack([radius * np.cos(angles), radius * np.sin(angles), np.zeros_like(angles)], axis=1)
    straight = np.stack([np.full(10, radius), np.linspace(shank, 4, 10), np.zeros(10)], axis=1)
    eye = ring(1.4 * thickness + 3, thickness * 0.85).moved((radius, shank + 1.4 * thickness + 3, 0))
    return sweep(np.concatenate([straight, bend]), thickness, stride=3) + eye


def spoon(width: float, length: float, grip: float) -> Solid:
    """A scoop with a flat grip along x."""
    angles = np.radians(np.linspace(-90, 0, 7))
    outer = [(float(width / 2 * np.cos(a)), float(width / 2.6 * (1 + np.sin(a)))) for a in angles]
    outer[0] = (0.0, 0.0)
    scoop = lathe(wall(outer, 6)).scaled((1.35, 1, 1))
    rim = width / 2.6
    reach = 1.35 * width / 2
    path = [(reach - 4, 0, rim - 4), (reach + 0.3 * length, 0, rim + 6), (reach + length, 0, rim + 2)]
    return scoop + sweep(smooth(path, 16), np.linspace(grip * 0.8, grip, 16), flatten=0.55, stride=3)


def screwdriver(grip: float, length: float, shaft: float) -> Solid:
    """A fluted-looking grip of revolution and a slim shaft, lying along x."""
    profile = smooth_profile([(0.5 * grip, 0), (grip, 10), (0.85 * grip, 35), (grip, 70), (0.55 * grip, 88)], 18)
    blade = [(shaft, 86.0), (shaft, 88 + length), (0.7 * shaft, 92 + length)]
    return lathe([*column(profile), *column(blade)]).moved(degrees=(0, 90, 0))


class Entry(NamedTuple):
    """One object: its name, family, what makes it hard, how it is built, effective density (kg/m³)."""

    name: str
    family: str
    traits: frozenset[str]  # of 'thin', 'hollow', 'handle'
    build: Callable[..., Solid]
    arguments: tuple[Any, ...]
    density: float


def entries(
    family: str, traits: str, build: Callable[..., Solid], density: float, **variants: tuple[Any, ...]
) -> list[Entry]:
    """List the variants of one family, name -> arguments of ``build``."""
    return [Entry(name, family, frozenset(traits.split()), build, args, density) for name, args in variants.items()]


def _ball(a: float, b: float, c: float) -> Solid:
    return ellipsoid(a, b, c)


TRAINING: tuple[Entry, ...] = (
    *entries("box", "", box, 350, cereal_box=(45, 95, 150), soap_box=(34, 58, 92), tea_tin=(64, 64, 88)),
    *entries("can", "", can, 700, soup_can=(33, 100), tuna_can=(38, 36), slim_can=(22, 140)),
    *entries("ball", "", _ball, 500, ball=(30, 30, 30), egg=(23, 23, 30), pumpkin=(40, 40, 31)),
    *entries("mug", "hollow handle", mug, 900, mug=(39, 90, 32), espresso=(30, 58, 24), tall_mug=(36, 120, 36)),
    *entries("bowl", "hollow thin", bowl, 900, bowl=(66, 52, 26), dish=(80, 30, 40), deep_bowl=(54, 66, 22)),
    *entries("bottle", "", bottle, 600, bottle=(31, 190, 11), flask=(38, 130, 13), vial=(22, 105, 9)),
    *entries("glass", "hollow thin", wine_glass, 900, glass=(33, 150, 32), goblet=(38, 120, 30), flute=(26, 180, 29)),
    *entries("ring", "thin hollow", ring, 900, ring=(36, 8), hoop=(52, 7), fat_ring=(28, 12)),
    *entries("pipe", "hollow", pipe, 900, pipe=(22, 6, 120), sleeve=(32, 7, 56), slim_pipe=(15, 6, 170)),
    *entries("bracket", "thin", bracket, 900, bracket=(80, 60, 40, 8), angle=(60, 60, 90, 7), shelf=(110, 50, 30, 9)),
    *entries("channel", "thin", channel, 900, channel=(60, 45, 80, 8), clip=(36, 70, 34, 7), tray=(80, 30, 120, 8)),
    *entries(
        "hammer", "handle", hammer, 800, hammer=(165, 11, 84, 15), mallet=(130, 10, 96, 22), tack=(120, 8, 60, 11)
    ),
    *entries("hook", "thin handle", hook, 900, hook=(26, 8, 60), wide_hook=(38, 9, 48), small_hook=(18, 6, 44)),
    *entries("spoon", "thin handle", spoon, 800, spoon=(46, 110, 9), ladle=(60, 120, 10), scoop=(52, 70, 11)),
    *entries("pan", "hollow handle", pan, 900, pan=(54, 28, 96), skillet=(62, 22, 84), pot=(46, 54, 80)),
    *entries("driver", "thin", screwdriver, 800, driver=(15, 95, 4.5), stubby=(18, 40, 5), long_driver=(13, 120, 4)),
    *entries("banana", "", banana, 700, banana=(18, 85, 115), plantain=(20, 130, 85), chili=(14, 60, 120)),
    *entries("pear", "", pear, 700, pear=(34, 95, 20), gourd=(38, 125, 16), fig=(26, 60, 17)),
    *entries("dumbbell", "handle", dumbbell, 800, dumbbell=(24, 9, 140), barbell=(19, 7, 180), bone=(27, 12, 100)),
    *entries("brick", "", brick, 500, brick=(4, 2, 24, 30), plate_brick=(3, 3, 25, 14), long_brick=(6, 1, 26, 34)),
)
