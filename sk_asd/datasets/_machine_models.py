"""Signal models of the five industrial machines of DCASE Task 2, and of their faults.

Every machine is a pair of functions. ``<machine>_unit(rng)`` draws one individual: its geometry,
its resonances and its base speed. ``<machine>(sound, unit, attributes, fault, depth)`` returns what
that individual sounds like for the attributes of a clip, with a fault of the given depth, or
healthy for ``fault=None``. Faults change the healthy sound by an amount that grows with `depth`;
1 is the calibrated default.
"""

import numpy as np

from sk_asd.datasets._synthesis import add, decibels, draw_modes, humps, product, ring, slope


def number(attributes, key, default):
    """Leading number of an attribute such as ``28V``, or `default` where it is absent."""
    value = attributes.get(key)
    return default if value is None else float(value.rstrip("V"))


# --- fan -----------------------------------------------------------------------------------------


def fan_unit(rng):
    """Rotation, blades, tonality and turbulence of one fan."""
    blades = int(rng.choice([5, 6, 7, 9]))
    orders = np.arange(1, 10 * blades + 1)
    levels = 0.05 * rng.uniform(0.3, 1.0, orders.size) * (orders + 1.0) ** -0.3
    on_blade = orders % blades == 0
    levels[on_blade] = decibels(-7.0 * np.arange(10)) * rng.uniform(0.6, 1.2, 10)
    return {
        "rate": rng.uniform(19, 29),
        "blades": blades,
        "orders": orders,
        "levels": levels,
        "corner": rng.uniform(350, 900),
        "fall": rng.uniform(5, 8),
        "modes": draw_modes(rng, 4, 250, 5000, (3, 8), (0.5, 1.5)),
        "tone": rng.uniform(-4, 0),
    }


def fan(sound, unit, attributes, fault, depth):
    """Blade-pass harmonics at rotation × blades, and turbulence."""
    rng = sound.rng
    rate = unit["rate"] * (1 + 0.012 * rng.standard_normal())
    corner = unit["corner"] * np.exp(0.05 * rng.standard_normal())
    tone = unit["tone"] + rng.normal(0, 1.2)
    orders, levels = unit["orders"], unit["levels"]
    if fault == "over_voltage":
        rate *= 1 + 0.045 * depth
        tone += 2.0 * depth
        corner *= 1 + 0.08 * depth
    elif fault == "clogging":
        corner *= 1 + 0.28 * depth
        tone -= 2.0 * depth
    angle = sound.rotation(rate)
    if fault == "damaged_blade":
        off_blade = orders % unit["blades"] != 0
        levels = np.where(off_blade, levels * (1 + 3.5 * depth), levels)
    whirl = sound.tones(angle, orders, levels, rate)
    air = sound.noise(product(slope(corner, unit["fall"]), humps(unit["modes"])))
    y = add(air, whirl, tone)
    if fault == "unbalance":
        shake = sound.tones(angle, [1, 2], [1.0, 0.3], rate)
        y *= 1 + np.float32(min(0.25 * depth, 0.9)) * shake
        y = add(y, shake, -11, depth)
    return y


# --- bearing -------------------------------------------------------------------------------------


def bearing_rates(shaft, balls, ratio, contact=0.0):
    """Characteristic rates of a rolling bearing with a fixed outer ring.

    Parameters
    ----------
    shaft : float
        Rotation of the inner ring in Hz.
    balls : int
        Rolling elements.
    ratio : float
        Ball diameter over pitch diameter.
    contact : float
        Contact angle in radians.

    Returns
    -------
    dict of str to float
        ``ftf`` (cage), ``bpfo`` (outer race), ``bpfi`` (inner race) and ``bsf`` (ball spin) in Hz;
        Randall and Antoni 2011 (doi:10.1016/j.ymssp.2010.07.017), equations 1 to 4.
    """
    lean = ratio * np.cos(contact)
    return {
        "ftf": shaft / 2 * (1 - lean),
        "bpfo": balls * shaft / 2 * (1 - lean),
        "bpfi": balls * shaft / 2 * (1 + lean),
        "bsf": shaft / (2 * ratio) * (1 - lean**2),
    }


def bearing_unit(rng):
    """Geometry and resonances of one bearing and its housing."""
    return {
        "balls": int(rng.integers(7, 12)),
        "ratio": rng.uniform(0.18, 0.3),
        "contact": rng.uniform(0, 0.3),
        "modes": draw_modes(rng, 3, 1800, 6500, (12, 30)),
        "body": draw_modes(rng, 4, 150, 3000, (4, 10), (0.5, 2.0)),
        "corner": rng.uniform(500, 1100),
        "levels": decibels(-4.0 * np.arange(8)) * rng.uniform(0.4, 1.2, 8),
        "tone": rng.uniform(-5, -1),
    }


def bearing(sound, unit, attributes, fault, depth):
    """Shaft harmonics and rolling noise; resonances struck at the ball-pass rates when damaged."""
    rng = sound.rng
    shaft = number(attributes, "vel", 12.0) * (1000 / 60) * (1 + 0.008 * rng.standard_normal())
    angle = sound.rotation(shaft, wander=0.002)
    # Rolling noise grows brighter with speed.
    corner = unit["corner"] * (shaft / 200) ** 0.4 * np.exp(0.05 * rng.standard_normal())
    orders = np.arange(1, 9)
    levels = unit["levels"].copy()
    tone = unit["tone"] + rng.normal(0, 1.2)
    if fault == "eccentric_shaft":
        levels[1:4] *= 1 + 0.6 * depth
        tone += 1.0 * depth
    rolling = sound.noise(product(slope(corner, 6), humps(unit["body"])))
    y = add(rolling, sound.tones(angle, orders, levels, shaft), tone)
    if fault == "eccentric_shaft":
        y *= 1 + np.float32(min(0.3 * depth, 0.9)) * sound.tones(angle, [1], [1.0], shaft)
    if fault in ("outer_race", "inner_race", "ball"):
        rates = bearing_rates(shaft, unit["balls"], unit["ratio"], unit["contact"])
        rate = {"outer_race": rates["bpfo"], "inner_race": rates["bpfi"], "ball": rates["bsf"]}
        times = sound.clock(rate[fault], jitter=0.01)
        heights = np.exp(0.25 * rng.standard_normal(times.size))
        # The load zone stands still: an inner race turns through it, a ball goes with the cage.
        turn = {"outer_race": 0.0, "inner_race": shaft, "ball": rates["ftf"]}[fault]
        heights *= 1 + 0.8 * (turn > 0) * np.cos(2 * np.pi * turn * times)
        y = add(y, sound.strikes(times, heights, ring(unit["modes"], sound.sr)), -22.5, depth)
    return y


# --- gearbox -------------------------------------------------------------------------------------


def gearbox_unit(rng):
    """Teeth, speed per volt, mesh harmonics and resonances of one gear pair."""
    teeth = int(rng.integers(17, 25))
    return {
        "teeth": teeth,
        "teeth_out": int(teeth * rng.uniform(1.6, 2.4)) | 1,
        "rate_per_volt": rng.uniform(8, 11),
        "mesh": decibels(-4.5 * np.arange(5)) * rng.uniform(0.5, 1.2, 5),
        "sidebands": rng.uniform(0.08, 0.2, (5, 4)),
        "modes": draw_modes(rng, 3, 900, 5500, (10, 25)),
        "body": draw_modes(rng, 4, 200, 4000, (4, 9), (0.5, 2.0)),
        "corner": rng.uniform(500, 1000),
        "tone": rng.uniform(-2, 2),
    }


def _sidebands(teeth, mesh, ratios):
    """Orders and levels of mesh harmonics with sidebands of one and two rotations around them."""
    centre = teeth * np.arange(1, len(mesh) + 1)
    steps = np.array([0, -2, -1, 1, 2])
    ratios = np.column_stack([np.ones(len(mesh)), ratios])
    return (centre[:, None] + steps).ravel(), (mesh[:, None] * ratios).ravel()


def gearbox(sound, unit, attributes, fault, depth):
    """Mesh tone with sidebands at the rotation of both shafts, and a brushed motor's noise."""
    rng = sound.rng
    volt = number(attributes, "volt", 2.0)
    load = number(attributes, "wt", 100.0) / 100
    copy = np.random.default_rng(int(number(attributes, "id", 0.0)))  # small spread of a series
    rate = unit["rate_per_volt"] * volt * (1 - 0.06 * load) * (1 + 0.01 * rng.standard_normal())
    rate *= 1 + 0.03 * copy.standard_normal()
    corner = unit["corner"] * np.exp(0.05 * rng.standard_normal() + 0.15 * copy.standard_normal())
    corner *= (volt / 2) ** 0.3
    tone = unit["tone"] + 2.0 * (load - 1) + rng.normal(0, 1.2)
    mesh, sidebands = unit["mesh"], unit["sidebands"]
    if fault == "wear":
        mesh = mesh * (1 + 0.7 * depth * np.array([0, 1, 1, 1, 1]))
        sidebands = sidebands * (1 + 3.0 * depth)
    angle = sound.rotation(rate, wander=0.004)
    angle_out = angle * (unit["teeth"] / unit["teeth_out"])
    orders, levels = _sidebands(unit["teeth"], mesh, sidebands)
    whine = sound.tones(angle, orders, levels, rate)
    orders, levels = _sidebands(unit["teeth_out"], mesh, sidebands)
    whine += 0.5 * sound.tones(angle_out, orders, levels, rate)
    rate_out = rate * unit["teeth"] / unit["teeth_out"]
    if fault == "eccentric_gear":
        whine *= 1 + np.float32(min(0.6 * depth, 0.95)) * sound.tones(angle_out, [1], [1.0])
        tone += 1.5 * depth
    motor = sound.noise(product(slope(corner, 5.5), humps(unit["body"])))
    y = add(motor, whine, tone)
    if fault == "broken_tooth":
        times = sound.clock(rate_out, jitter=0.004)
        heights = np.exp(0.2 * rng.standard_normal(times.size))
        y = add(y, sound.strikes(times, heights, ring(unit["modes"], sound.sr)), -13, depth)
    elif fault == "lack_of_oil":
        scrape = sound.noise(humps([(hz, 4, 6 * gain) for hz, _, gain in unit["modes"]]))
        scrape *= 1 + np.float32(0.7) * sound.tones(angle, [unit["teeth"]], [1.0])
        y = add(y, scrape, -12, depth)
    return y


# --- slider --------------------------------------------------------------------------------------


def slider_unit(rng):
    """Stroke, drive and resonances of one slide rail."""
    return {
        "stroke": rng.uniform(0.35, 0.55),
        "dwell": rng.uniform(0.1, 0.25),
        "pitch": rng.uniform(0.004, 0.006),
        "levels": decibels(-3.0 * np.arange(12)) * rng.uniform(0.4, 1.2, 12),
        "modes": draw_modes(rng, 3, 900, 5500, (10, 25)),
        "stop": draw_modes(rng, 3, 180, 900, (8, 18)),
        "friction": draw_modes(rng, 4, 400, 6000, (3, 8), (0.5, 2.0)),
        "corner": rng.uniform(900, 2000),
        "squeal": rng.uniform(1800, 3800),
        "tone": rng.uniform(-4, 0),
    }


def slider_motion(sound, unit, attributes):
    """Motion of the carriage: strokes with constant acceleration, cruise, braking and a dwell.

    Parameters
    ----------
    sound : Sound
        The clip, with its time axis and generator.
    unit : dict
        The machine individual.
    attributes : dict of str to str
        Speed ``vel`` in mm/s and acceleration ``ac`` in g.

    Returns
    -------
    velocity : ndarray of the shape of ``sound.control_times``
        Speed in m/s, never negative.
    starts : ndarray
        Seconds at which strokes begin.
    travel : callable
        Seconds after its start at which a stroke has covered a share of its length.
    duration : float
        Seconds of one stroke.
    """
    cruise = number(attributes, "vel", 600.0) / 1000
    acceleration = 9.81 * number(attributes, "ac", 0.3)
    cruise = min(cruise, np.sqrt(0.9 * acceleration * unit["stroke"]))
    ramp = cruise / acceleration
    duration = unit["stroke"] / cruise + ramp
    period = duration + unit["dwell"]
    n = int(sound.seconds / period) + 3
    steps = period * (1 + 0.01 * sound.rng.standard_normal(n))
    starts = np.cumsum(steps) - period * (1 + sound.rng.uniform())
    latest = np.maximum(np.searchsorted(starts, sound.control_times, side="right") - 1, 0)
    since = sound.control_times - starts[latest]
    velocity = cruise * np.clip(np.minimum(since, duration - since) / ramp, 0, 1)
    grid = np.linspace(0, duration, 400)
    covered = np.cumsum(np.clip(np.minimum(grid, duration - grid) / ramp, 0, 1))

    def travel(share):
        return np.interp(share, covered / covered[-1], grid)

    return velocity, starts, travel, duration


def slider(sound, unit, attributes, fault, depth):
    """Reciprocating strokes: friction and belt tones that follow the speed, knocks at the ends."""
    rng = sound.rng
    velocity, starts, travel, duration = slider_motion(sound, unit, attributes)
    pace = sound.stretch(velocity / 0.6)
    angle = sound.rotation(velocity / unit["pitch"], wander=0.006)
    top = velocity.max() / unit["pitch"]
    corner = unit["corner"] * np.exp(0.05 * rng.standard_normal())
    colour = product(slope(corner, 6), humps(unit["friction"]))
    rub = sound.noise(colour) * pace
    belt = sound.tones(angle, np.arange(1, 13), unit["levels"], top) * pace
    if fault == "loose_belt":
        flap = sound.tones(sound.rotation(rng.uniform(14, 22), wander=0.05), [1, 2], [1.0, 0.5])
        belt *= 1 + np.float32(min(0.5 * depth, 1.5)) * flap
    y = add(rub, belt, unit["tone"] + rng.normal(0, 1.0))
    ends = np.concatenate([starts, starts + duration])
    heights = np.exp(0.2 * rng.standard_normal(ends.size))
    y = add(y, sound.strikes(ends, heights, ring(unit["stop"], sound.sr)), -5)
    if fault == "loose_belt":
        slaps = (
            ends[:, None] + 0.03 + np.cumsum(rng.uniform(0.02, 0.05, (ends.size, 5)), 1)
        ).ravel()
        heights = np.tile(0.75 ** np.arange(5), ends.size)
        y = add(y, sound.strikes(slaps, heights, ring(unit["modes"], sound.sr)), -17, depth)
    elif fault == "rail_damage":
        share = rng.uniform(0.25, 0.75)
        # Odd strokes go back over the same spot.
        times = starts + travel(np.where(np.arange(starts.size) % 2, 1 - share, share))
        heights = np.exp(0.2 * rng.standard_normal(times.size))
        y = add(y, sound.strikes(times, heights, ring(unit["modes"], sound.sr)), -20, depth)
    elif fault == "no_grease":
        hz = unit["squeal"] * np.exp(0.05 * rng.standard_normal()) * (1 + 0.03 * sound.wander(0.2))
        squeal = sound.tones(sound.rotation(hz, 0.002), [1, 2], [1.0, 0.4], unit["squeal"] * 1.3)
        stick = np.clip(sound.wander(0.15) + 0.5, 0, None)
        y = add(y, squeal * pace * sound.stretch(stick), -24, depth)
        y = add(y, sound.noise(humps([(unit["squeal"], 2, 4)])) * pace, -19, depth)
    return y


# --- valve ---------------------------------------------------------------------------------------

# Seconds of one cycle, and (opening, seconds open) of each opening in it.
VALVE_PATTERNS = {
    "00": (1.10, [(0.00, 0.35)]),
    "01": (1.60, [(0.00, 0.25), (0.60, 0.40)]),
    "02": (1.90, [(0.00, 0.20), (0.45, 0.20), (0.90, 0.35)]),
    "03": (1.30, [(0.00, 0.60)]),
    "04": (1.40, [(0.00, 0.30), (0.70, 0.25)]),
    "05": (0.90, [(0.00, 0.30)]),
}


def valve_unit(rng):
    """Resonances of two solenoids, and the hiss of the flow."""
    return {
        "modes": [draw_modes(rng, 4, 1500, 7000, (12, 35)) for _ in range(2)],
        "thump": [draw_modes(rng, 2, 120, 600, (5, 10)) for _ in range(2)],
        "close": rng.uniform(-7, -3),
        "hiss": draw_modes(rng, 3, 1500, 7000, (1.5, 4), (1.0, 3.0)),
        "flow": rng.uniform(-12, -8),
    }


def valve_schedule(sound, pattern):
    """Openings and closings of one valve in seconds, in order and paired, from a random start."""
    cycle, openings = VALVE_PATTERNS[pattern]
    starts = np.arange(-1, int(sound.seconds / cycle) + 1) * cycle + sound.rng.uniform(0, cycle)
    begin, length = np.array(openings).T
    opens = (starts[:, None] + begin).ravel()
    closes = opens + np.tile(length, starts.size)
    jitter = 0.003 * sound.rng.standard_normal((2, opens.size))
    return opens + jitter[0], closes + jitter[1]


def _some(sound, times, depth):
    """Mask of the events that a fault strikes, at least one of those that can be heard."""
    struck = sound.rng.uniform(size=times.size) < min(0.6 * depth, 0.8)
    heard = np.flatnonzero((times > 0) & (times < sound.seconds))
    if depth > 0 and heard.size:
        struck[sound.rng.choice(heard)] = True
    return struck


def valve(sound, unit, attributes, fault, depth):
    """Clicks of solenoids in a timed pattern, and the hiss of the flow between them."""
    rng = sound.rng
    patterns = {0: attributes.get("v1pat"), 1: attributes.get("v2pat")}
    if not any(patterns.values()):
        patterns = {0: attributes.get("pat", "00")}
    patterns = {i: pattern for i, pattern in patterns.items() if pattern is not None}
    broken = rng.choice(list(patterns))
    y = np.zeros(sound.n, dtype=np.float32)
    is_open = np.zeros(sound.control_times.size)
    for i, pattern in patterns.items():
        opens, closes = valve_schedule(sound, pattern)
        extra = np.empty(0)
        if i == broken and fault in ("missing_click", "late_click", "double_click"):
            struck = _some(sound, opens, depth)
            if fault == "missing_click":  # the valve is stuck: it neither opens nor closes
                opens, closes = opens[~struck], closes[~struck]
            elif fault == "late_click":
                opens = opens + struck * rng.uniform(0.06, 0.16, opens.size)
            else:
                bounces = np.cumsum(rng.uniform(0.015, 0.04, (struck.sum(), 2)), axis=1)
                extra = (opens[struck, None] + bounces).ravel()
        times = np.concatenate([opens, extra, closes])
        heights = np.where(np.arange(times.size) < times.size - closes.size, 0, unit["close"])
        heights = decibels(heights + rng.normal(0, 1.0, times.size))
        modes = unit["modes"][i] + unit["thump"][i]
        y += sound.strikes(times, heights, ring(modes, sound.sr))
        began = np.searchsorted(opens, sound.control_times)
        is_open += began > np.searchsorted(closes, sound.control_times)
    flow = sound.noise(humps(unit["hiss"]))
    y = add(y, flow * sound.stretch(is_open), unit["flow"] + rng.normal(0, 0.7))
    if fault == "leak":
        y = add(y, flow * sound.stretch(1.0 * (is_open == 0)), -11, depth)
    return y


# Machine: how to draw one, how it sounds, and the faults it can have.
MODELS = {
    "bearing": (bearing_unit, bearing, ("outer_race", "inner_race", "ball", "eccentric_shaft")),
    "fan": (fan_unit, fan, ("unbalance", "damaged_blade", "clogging", "over_voltage")),
    "gearbox": (
        gearbox_unit,
        gearbox,
        ("broken_tooth", "wear", "eccentric_gear", "lack_of_oil"),
    ),
    "slider": (slider_unit, slider, ("rail_damage", "loose_belt", "no_grease")),
    "valve": (valve_unit, valve, ("missing_click", "late_click", "double_click", "leak")),
}
