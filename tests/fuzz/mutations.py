"""Changes to valid inputs that keep most of their form, for what bytes at random seldom reach."""

import json

NUMBERS = [0, 1, -1, 2, 3, 10, 0.5, -0.0, 1e-30, 1e30, 1e300, 2**31, 2**53, 2**63, 2**64]
NUMBERS += [10**25, 10**400, float("nan"), float("inf")]
OTHERS = [None, True, False, "", "a", "None", "finished", "camera", "\u00fc", "\n", "\ud800"]
OTHERS += ["x" * 5000, [], {}, [0, 1], [[0], [1]], {"a": 1}]


def change_json(data, rng, mark=None):
    """An input with one change to the tree of one of its parts; None where that is no JSON.

    Args:
      data: bytes.
      rng: random.Random.
      mark: bytes between the parts; None for an input of one.
    """
    parts = data.split(mark) if mark else [data]
    at = rng.randrange(len(parts))
    try:
        tree = json.loads(parts[at])
        places = [*_places([tree])]
        holder, key = rng.choice(places)
        _change(holder, key, places, rng)
        parts[at] = json.dumps(places[0][0][0], ensure_ascii=rng.random() < 0.5).encode()
    except (ValueError, RecursionError, IndexError):
        return None
    if mark and rng.random() < 0.1:
        parts.insert(at, parts[at])
    return mark.join(parts) if mark else parts[0]


def change_settings(paths, values):
    """A function that adds, changes or removes a line of FIELD=TEXT."""

    def change(data, rng):
        lines = data.split(b"\n")
        at = rng.randrange(len(lines))
        path, _, text = lines[at].partition(b"=")
        match rng.randrange(4):
            case 0:
                lines.insert(at, rng.choice(paths) + b"=" + (text or rng.choice(values)))
            case 1:
                lines[at] = path + b"=" + rng.choice(values)
            case 2:
                lines[at] = rng.choice(paths) + b"=" + rng.choice(values)
            case 3:
                del lines[at]
        return b"\n".join(lines)

    return change


def _places(holder):
    """Every (list or dict, key) of a tree in its holder, the holder's own first."""
    for key, inner in [*(holder.items() if isinstance(holder, dict) else enumerate(holder))]:
        yield holder, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def _change(holder, key, places, rng):
    """Changes one value, or the names or the number of those around it."""
    value = holder[key]
    match rng.randrange(7):
        case 0:
            holder[key] = rng.choice(NUMBERS)
        case 1:
            holder[key] = rng.choice(OTHERS)
        case 2:
            other, at = rng.choice(places)
            holder[key] = json.loads(json.dumps(other[at]))
        case 3 if type(value) in (int, float):
            holder[key] = value + rng.choice((-1, 1)) if rng.random() < 0.5 else -value
        case 3 | 4 if isinstance(value, str):
            holder[key] = value[: rng.randrange(len(value) + 1)] + rng.choice(("", "_", "\u2028"))
        case 4 | 5 if len(places) > 1:
            del holder[key]
        case 6 if isinstance(holder, dict):
            holder[rng.choice((f"{key}_", "", "a.b", "round", "count", "device"))] = value
        case 6:
            holder.append(value)
        case _:
            holder[key] = [value]
