"""The two inner loops of the antipodal generator: opposing pairs, and a gripper placed around each."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]

BIN = 0.001  # resolution of the search for free room beside the object, metres
REACH = 0.13  # how far the search looks to either side of the first contact, metres
BELONGS = 0.008  # obstacles this close behind the object's own points are taken for the object, seen by another cloud
SAME_SURFACE = 0.0035  # hits closer than this along a line are one surface: just above the usual 3 mm spacing


@njit(cache=True)
def shoot(
    points: Array,
    normals: Array,
    variation: Array,
    samples: NDArray[np.int64],
    axes: Array,
    radius: float,
    shortest: float,
    longest: float,
    least_cosine: float,
) -> tuple[Array, NDArray[np.bool_]]:
    """Follow lines through sampled contacts, both ways, to surfaces that face them.

    Args:
        points, normals, variation: ``(N, 3)``, ``(N, 3)``, ``(N,)`` of one object.
        samples: ``(S,)`` rows of ``points``.
        axes: ``(S, J, 3)`` unit directions, the first of each sample being its outward normal.
        radius: of the cylinder around a line in which points count as hit, metres.
        shortest, longest: distances between the two contacts, metres.
        least_cosine: between a line and both normals.

    Returns:
        ``(K, 10)`` pairs: row of the sample, unit axis (3) from it to the opposing contact, distance to that contact,
        required friction, surface variation, and the free interval of the line around the pair: how far before the
        sample and beyond the opposing contact the next surface lies, +inf for none; last, 1 for the outermost surface
        and 0 for the nearest. And ``(S,)`` bool: the sample's normal met no other surface at all, either way.
    """
    S, J = axes.shape[0], axes.shape[1]
    pairs = np.empty((S * J * 4, 10))
    count = 0
    alone = np.zeros(S, np.bool_)
    cap = 512
    t_hit = np.empty(cap)
    c_hit = np.empty(cap)
    v_hit = np.empty(cap)
    first, last, depth, cosine, rough = np.empty(cap), np.empty(cap), np.empty(cap), np.empty(cap), np.empty(cap)
    for s in range(S):
        i = samples[s]
        for j in range(J):
            ax, ay, az = axes[s, j, 0], axes[s, j, 1], axes[s, j, 2]
            near = abs(normals[i, 0] * ax + normals[i, 1] * ay + normals[i, 2] * az)
            if near < least_cosine:
                continue
            hits = 0
            for q in range(points.shape[0]):
                dx, dy, dz = points[q, 0] - points[i, 0], points[q, 1] - points[i, 1], points[q, 2] - points[i, 2]
                t = dx * ax + dy * ay + dz * az
                if abs(t) > longest + 0.02 or dx * dx + dy * dy + dz * dz - t * t > radius * radius or hits == cap:
                    continue
                t_hit[hits] = t
                c_hit[hits] = abs(normals[q, 0] * ax + normals[q, 1] * ay + normals[q, 2] * az)
                v_hit[hits] = variation[q]
                hits += 1
            order = np.argsort(t_hit[:hits])
            surfaces = 0
            own = 0
            start = 0
            for h in range(1, hits + 1):
                if h < hits and t_hit[order[h]] - t_hit[order[h - 1]] < SAME_SURFACE:
                    continue
                total_t = total_c = total_v = 0.0
                for m in range(start, h):
                    total_t += t_hit[order[m]]
                    total_c += c_hit[order[m]]
                    total_v += v_hit[order[m]]
                first[surfaces], last[surfaces] = t_hit[order[start]], t_hit[order[h - 1]]
                depth[surfaces] = total_t / (h - start)
                cosine[surfaces] = total_c / (h - start)
                rough[surfaces] = total_v / (h - start)
                if first[surfaces] <= 0.0 <= last[surfaces]:
                    own = surfaces
                surfaces += 1
                start = h
            if j == 0:
                alone[s] = surfaces == 1
            for side in range(2):
                step = 1 - 2 * side
                chosen_near = chosen_far = -1
                k = own + step
                while 0 <= k < surfaces:
                    if shortest <= abs(depth[k]) <= longest and cosine[k] >= least_cosine:
                        if chosen_near < 0:
                            chosen_near = k
                        chosen_far = k
                    k += step
                for outermost in range(2):
                    k = chosen_far if outermost else chosen_near
                    if k < 0 or (outermost and chosen_far == chosen_near):
                        continue
                    worst = min(near, cosine[k])
                    before, beyond = np.inf, np.inf
                    if 0 <= own - step < surfaces:
                        before = abs(last[own - step] if side == 0 else first[own - step])
                    if 0 <= k + step < surfaces:
                        beyond = abs(first[k + step] if side == 0 else last[k + step]) - abs(depth[k])
                    row = pairs[count]
                    row[0] = s
                    row[1], row[2], row[3] = step * ax, step * ay, step * az
                    row[4] = abs(depth[k])
                    row[5] = np.sqrt(max(1.0 - worst * worst, 0.0)) / worst
                    row[6] = max(rough[own], rough[k])
                    row[7], row[8] = before, beyond
                    row[9] = 1.0 if chosen_far == k else 0.0
                    count += 1
    return pairs[:count], alone


@njit(cache=True)
def _first_room(foremost: Array, root: float, start: int, step: int, fit: int, roomy: int) -> tuple[int, int]:
    """Find the first run of at least ``fit`` free bins from ``start`` on: its first bin, its length up to ``roomy``.

    A bin is free when its points all lie behind the finger's root. (-1, 0) if there is no such run.
    """
    run = 0
    k = start
    while 0 <= k < len(foremost):
        if foremost[k] <= root:
            run += 1
            if run == roomy:
                return k - step * (run - 1), run
        elif run >= fit:
            return k - step * run, run
        else:
            run = 0
        k += step
    return (k - step * run, run) if run >= fit else (-1, 0)


@njit(cache=True)
def _only_own(own_foremost: Array, root: float, room: int, contact: int, step: int) -> bool:
    """Tell whether what lies between a contact and the room for its finger ends with the object itself."""
    for k in range(1, int(BELONGS / BIN) + 1):
        bin_ = room + step * k
        if bin_ == contact + step or own_foremost[bin_] > root:
            return True
    return False


@njit(cache=True)
def place(
    contacts: Array,
    axes: Array,
    distance: Array,
    free: Array,
    references: Array,
    angles: Array,
    depths: Array,
    own: Array,
    obstacles: Array,
    gripper: Array,
    settings: Array,
) -> Array:
    """Close a gripper on every pair from several sides, and keep, of each side, the depth that leaves most room.

    All in the table frame. The finger tips lie on the pair's line, where the protocol looks for contacts. A finger
    goes into the first free gap beyond the contact that is wide enough, so everything between the fingers fits; and
    nothing but the object may be there.

    Args:
        contacts: ``(P, 3)`` first contact of each pair.
        axes: ``(P, 3)`` unit, from it to the second.
        distance: ``(P,)`` metres to the second contact, NaN where it was not seen: then it is taken to lie as far as
            the object reaches in the plane in which the fingers move, before their tips as well as behind.
        free: ``(P, 2)`` metres to the next surface before the first and beyond the second contact.
        references: ``(P, 3)`` unit approach, across the axis, from which angles are counted.
        angles: ``(A,)`` radians around the axis.
        depths: ``(D,)`` ascending, metres; at most 8.
        own, obstacles: ``(N, 3)``, ``(M, 3)`` points of the grasped object and of everything else to avoid.
        gripper: max_width, height, finger_thickness, finger_back, base_thickness.
        settings: margin around the gripper, wished clearance, least clearance, least height above the table, highest
            vertical component of an approach, least number of own points between the fingers, shortest distance.

    Returns:
        ``(K, 15)``: row of the pair, approach (3), centre of the tips (3), depth, width, clearance, own points
        between the fingers, shift of the centre from the contacts' middle, distance between the contacts, room
        behind the object to the back plate (at most 0.02), height above the table.
    """
    max_width, height, thickness, back, base = gripper[0], gripper[1], gripper[2], gripper[3], gripper[4]
    margin, wish, least, above, steepest, fewest, shortest = (
        settings[0], settings[1], settings[2], settings[3], settings[4], settings[5], settings[6],
    )  # fmt: skip
    P, A, D = contacts.shape[0], angles.shape[0], depths.shape[0]
    bins = int(2 * REACH / BIN)
    origin = bins // 2
    out = np.empty((P * A, 15))
    found = 0
    total = own.shape[0] + obstacles.shape[0]
    ly, l1, l2 = np.empty(total), np.empty(total), np.empty(total)
    is_own = np.empty(total, np.bool_)
    roots = -(back + depths)  # x of the fingers' roots, the tips being at 0
    foremost = np.empty(bins)  # by bin of y: largest x of a point, which a finger meets if it lies before its root
    own_foremost = np.empty(bins)
    # By depth, for points between its root and the next shallower one's, and by bin of y:
    rearmost = np.empty((D, bins))  # least x
    inside = np.zeros((D, bins), np.int64)  # own points
    behind = np.empty((D, bins), np.bool_)  # a point lies where the back plate would be
    half = height / 2
    radius2 = (base + margin - roots[D - 1]) ** 2 + (half + margin) ** 2
    fit = int(np.ceil((thickness + least) / BIN))
    roomy = int(np.ceil((thickness + wish + margin) / BIN))
    for p in range(P):
        bx, by, bz = axes[p, 0], axes[p, 1], axes[p, 2]
        ux, uy, uz = references[p, 0], references[p, 1], references[p, 2]
        wx, wy, wz = by * uz - bz * uy, bz * ux - bx * uz, bx * uy - by * ux
        hidden = np.isnan(distance[p])
        widest = max_width + thickness + wish + margin
        from_y = max(-widest + (0.0 if hidden else distance[p]), -REACH + BIN)
        to_y = min(widest, REACH - BIN)
        n = 0
        for q in range(total):
            mine = q < own.shape[0]
            if mine:
                dx, dy, dz = own[q, 0] - contacts[p, 0], own[q, 1] - contacts[p, 1], own[q, 2] - contacts[p, 2]
            else:
                o = q - own.shape[0]
                dx, dy = obstacles[o, 0] - contacts[p, 0], obstacles[o, 1] - contacts[p, 1]
                dz = obstacles[o, 2] - contacts[p, 2]
            y = dx * bx + dy * by + dz * bz
            if y <= from_y or y >= to_y or dx * dx + dy * dy + dz * dz - y * y > radius2:
                continue
            ly[n], l1[n], l2[n] = y, dx * ux + dy * uy + dz * uz, dx * wx + dy * wy + dz * wz
            is_own[n] = mine
            n += 1
        for turn in range(A):
            c, s = np.cos(angles[turn]), np.sin(angles[turn])
            xz = c * uz + s * wz
            if xz > steepest:
                continue
            zz = c * wz - s * uz
            foremost[:] = -np.inf
            own_foremost[:] = -np.inf
            rearmost[:] = np.inf
            inside[:] = 0
            behind[:] = False
            high = 0.0 if hidden else distance[p]
            for q in range(n):
                z = c * l2[q] - s * l1[q]
                if abs(z) >= half + margin:
                    continue
                x = c * l1[q] + s * l2[q]
                if hidden and is_own[q]:
                    high = max(high, ly[q])
                if x > margin:
                    continue
                k = int(ly[q] / BIN + origin)
                foremost[k] = max(foremost[k], x)
                if is_own[q]:
                    own_foremost[k] = max(own_foremost[k], x)
                level = 0
                while level < D and x <= roots[level]:
                    level += 1
                d = level - 1
                while d >= 0 and x > roots[d] - base - margin:
                    behind[d, k] = True
                    d -= 1
                if level < D and x <= 0.0 and abs(z) < half:
                    rearmost[level, k] = min(rearmost[level, k], x)
                    inside[level, k] += is_own[q]
            if high < shortest or high > max_width - 2 * least:
                continue
            best = -1.0
            for d in range(D):
                right, room_right = _first_room(foremost, roots[d], int(high / BIN + 0.5) + origin, 1, fit, roomy)
                left, room_left = _first_room(foremost, roots[d], origin - 1, -1, fit, roomy)
                if right < 0 or left < 0:
                    continue
                if not _only_own(own_foremost, roots[d], right, int(high / BIN + 0.5) + origin, -1):
                    continue
                if not _only_own(own_foremost, roots[d], left, origin - 1, 1):
                    continue
                upper = max((right - origin) * BIN, high)
                lower = min((left + 1 - origin) * BIN, 0.0)
                spare = max_width - (upper - lower)
                if spare < 2 * least or upper > high + free[p, 1] or lower < -free[p, 0]:
                    continue  # too wide, or another surface on the line would be met first
                # A finger stands off by the wished clearance, or in the middle of the room where that is too much.
                clear_right, clear_left = room_right * BIN - thickness, room_left * BIN - thickness
                clear_right = min(wish, max(clear_right - margin, clear_right / 2), spare / 2)
                clear_left = min(wish, max(clear_left - margin, clear_left / 2), spare / 2)
                upper += clear_right
                lower -= clear_left
                middle = (upper + lower) / 2
                if abs(middle - high / 2) > 0.25 * high:
                    continue  # the search for contacts, from both ends to the middle, would miss one
                lowest = (
                    contacts[p, 2]
                    + min(xz * (roots[d] - base), 0.0)
                    + min(bz * (lower - thickness), bz * (upper + thickness))
                    - abs(zz) * half
                )
                if lowest < above:
                    continue
                blocked = False
                between = 0
                plate_room = 0.02
                for k in range(
                    max(int((lower - thickness) / BIN + origin), 0),
                    min(int((upper + thickness) / BIN + origin) + 1, bins),
                ):
                    blocked |= behind[d, k]
                    for level in range(d + 1):
                        between += inside[level, k]
                        plate_room = min(plate_room, rearmost[level, k] - roots[d])
                if blocked or between < fewest:
                    continue
                clearance = min(clear_left, clear_right)
                value = (clearance + 0.002) * between / (between + 15.0) * (plate_room + 0.004)
                if value <= best:
                    continue
                best = value
                row = out[found]
                row[0] = p
                row[1], row[2], row[3] = c * ux + s * wx, c * uy + s * wy, xz
                row[4] = contacts[p, 0] + middle * bx
                row[5] = contacts[p, 1] + middle * by
                row[6] = contacts[p, 2] + middle * bz
                row[7], row[8], row[9] = depths[d], upper - lower, clearance
                row[10] = between
                row[11] = abs(middle - high / 2)
                row[12] = high
                row[13] = plate_room
                row[14] = lowest
            if best >= 0.0:
                found += 1
    return out[:found]


@njit(cache=True)
def diverse(centres: Array, approaches: Array, axes: Array, near: float, cosine: float, most: int) -> NDArray[np.int64]:
    """Walk down a ranking and keep what differs from everything kept in place, approach or closing line.

    Args:
        centres, approaches, axes: ``(K, 3)`` each, best first.
        near: metres; cosine: of the angle below which two directions are alike. The closing line has no sign.
        most: stop at this many.

    Returns:
        Rows kept, ascending.
    """
    kept = np.empty(min(most, centres.shape[0]), np.int64)
    n = 0
    for i in range(centres.shape[0]):
        if n == most:
            break
        same = False
        for k in range(n):
            j = kept[k]
            d = c = a = 0.0
            for m in range(3):
                d += (centres[i, m] - centres[j, m]) ** 2
                c += approaches[i, m] * approaches[j, m]
                a += axes[i, m] * axes[j, m]
            if d < near * near and c > cosine and abs(a) > cosine:
                same = True
                break
        if not same:
            kept[n] = i
            n += 1
    return kept[:n]
