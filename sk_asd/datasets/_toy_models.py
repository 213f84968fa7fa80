"""Signal models of ToyCar and ToyTrain, made as those of the industrial machines."""

import numpy as np

from sk_asd.datasets._machine_models import number
from sk_asd.datasets._synthesis import add, decibels, draw_modes, humps, product, ring, slope


def toy_car_unit(rng):
    """Motor, gear and wheels of one toy car."""
    return {
        "rate_per_volt": rng.uniform(3.8, 5.2),
        "pinion": int(rng.integers(8, 12)),
        "ratio": rng.uniform(9, 14),
        "levels": decibels(-5.0 * np.arange(4)) * rng.uniform(0.5, 1.2, 4),
        "brush": decibels(-3.0 * np.arange(6)) * rng.uniform(0.2, 0.7, 6),
        "modes": draw_modes(rng, 3, 500, 4000, (8, 20)),
        "body": draw_modes(rng, 4, 300, 5500, (4, 9), (0.5, 2.0)),
        "corner": rng.uniform(1000, 2200),
        "tone": rng.uniform(-3, 1),
    }


def _toy_motor(sound, unit, attributes, fault, depth):
    """Motor angle, its rate, whine and brush noise; shared by the car and the train."""
    rng = sound.rng
    # Copies of a model differ a little: A1 and A2 less than A1 and B1.
    car = attributes.get("car", "A1")
    model, copy = (np.random.default_rng([ord(c)]).standard_normal(3) for c in car)
    spread = 0.03 * model + 0.01 * copy
    rate = unit["rate_per_volt"] * number(attributes, "spd", 28.0) * np.exp(spread[0])
    rate *= 1 + 0.01 * rng.standard_normal()
    corner = unit["corner"] * np.exp(3 * spread[1] + 0.05 * rng.standard_normal())
    tone = unit["tone"] + 30 * spread[2] + rng.normal(0, 1.2)
    if fault == "over_voltage":
        rate *= 1 + 0.05 * depth
        tone += 1.0 * depth
    angle = sound.rotation(rate, wander=0.006)
    teeth = unit["pinion"]
    mesh = teeth * np.arange(1, 5)
    orders = np.concatenate([mesh, mesh - 1, mesh + 1, np.arange(1, 7)])
    levels = np.concatenate(
        [unit["levels"], 0.12 * unit["levels"], 0.12 * unit["levels"], unit["brush"]]
    )
    if fault == "melted_gear":  # a lump: every turn of the pinion modulates the mesh
        levels[4:12] += 0.25 * depth * np.tile(unit["levels"], 2)
        levels[1:4] *= 1 + 0.4 * depth
    whine = sound.tones(angle, orders, levels, rate)
    brushes = sound.noise(product(slope(corner, 5), humps(unit["body"])))
    return angle, rate, whine, brushes, tone


def toy_car(sound, unit, attributes, fault, depth):
    """Motor whine at a speed set by the voltage, gear mesh, and wheels on a stand."""
    rng = sound.rng
    angle, rate, whine, brushes, tone = _toy_motor(sound, unit, attributes, fault, depth)
    wheel = angle / unit["ratio"]
    rate /= unit["ratio"]
    sway = sound.tones(wheel, [1, 2], [0.08, 0.04])
    if fault == "bent_shaft":
        sway += np.float32(min(0.25 * depth, 0.8)) * sound.tones(wheel, [1, 2], [1.0, 0.3])
    y = add(brushes, whine, tone) * (1 + sway)
    kernel = ring(unit["modes"], sound.sr)
    rattle = sound.clock(4 * rate, jitter=0.15)
    y = add(y, sound.strikes(rattle, rng.lognormal(0, 0.5, rattle.size), kernel), -16)
    if fault == "bent_shaft":
        rub = sound.noise(humps(unit["body"])) * np.maximum(sway, 0)
        y = add(y, rub, -16, depth)
    elif fault == "deformed_tire":
        times = sound.clock(rate, jitter=0.004)
        heights = rng.lognormal(0, 0.2, times.size)
        y = add(y, sound.strikes(times, heights, kernel), -12, depth)
    return y


def toy_train_unit(rng):
    """Motor, wheels, axles and track of one toy train."""
    unit = toy_car_unit(rng)
    unit["rate_per_volt"] = rng.uniform(2.6, 3.6)
    unit["wheel"] = rng.uniform(0.055, 0.075)  # circumference in metres
    unit["joints"] = int(rng.integers(12, 19))
    unit["rail"] = rng.uniform(0.15, 0.2)  # metres between two joints
    unit["axles"] = np.array([0.0, 0.03, 0.085, 0.115]) * rng.uniform(0.9, 1.1)
    unit["strengths"] = rng.lognormal(0, 0.4, unit["joints"])
    return unit


def toy_train(sound, unit, attributes, fault, depth):
    """Motor whine that comes near and goes far on a closed track, axles over the rail joints."""
    rng = sound.rng
    angle, rate, whine, brushes, tone = _toy_motor(sound, unit, attributes, fault, depth)
    wheel = angle / unit["ratio"]
    rate /= unit["ratio"]
    speed = rate * unit["wheel"]
    loop = unit["joints"] * unit["rail"] / speed
    place = sound.control_times / loop + rng.uniform()
    near = sound.stretch(1 + 0.3 * np.cos(2 * np.pi * place))
    y = add(brushes, whine, tone)
    kernel = ring(unit["modes"], sound.sr)
    step = unit["rail"] / speed
    passed = np.arange(-2, int(sound.seconds / step) + 2)
    first = rng.uniform(0, step)
    times = passed[:, None] * step + first + unit["axles"] / speed
    times = times + 0.002 * rng.standard_normal(times.shape)
    joint = (passed + rng.integers(unit["joints"])) % unit["joints"]
    heights = unit["strengths"][joint, None] * rng.lognormal(0, 0.25, times.shape)
    y = add(y, sound.strikes(times.ravel(), heights.ravel(), kernel), -7)
    if fault == "disjointed_rail":
        loose = np.isin(joint, joint[2] + np.array([0, 1]))  # passed soon after the start
        y = add(y, sound.strikes(times[loose].ravel(), heights[loose].ravel(), kernel), -9, depth)
    elif fault == "flat_wheel":
        times = sound.clock(rate, jitter=0.004)
        y = add(y, sound.strikes(times, rng.lognormal(0, 0.2, times.size), kernel), -7, depth)
    elif fault == "obstruction":  # one spot of the track scrapes and knocks
        distance = np.abs((place + rng.uniform() + 0.5) % 1 - 0.5) * loop
        scrape = sound.noise(humps(unit["body"])) * sound.stretch(np.exp(-((distance / 0.25) ** 2)))
        y = add(y, scrape, -13, depth)
    elif fault == "broken_axle":
        wobble = sound.tones(wheel, [1, 2], [1.0, 0.4])
        y *= 1 + np.float32(min(0.2 * depth, 0.7)) * wobble
        rub = sound.noise(humps(unit["body"])) * np.maximum(wobble, 0)
        y = add(y, rub, -16, depth)
    return y * near


# Machine: how to draw one, how it sounds, and the faults it can have.
MODELS = {
    "ToyCar": (
        toy_car_unit,
        toy_car,
        ("bent_shaft", "melted_gear", "deformed_tire", "over_voltage"),
    ),
    "ToyTrain": (
        toy_train_unit,
        toy_train,
        ("flat_wheel", "broken_axle", "disjointed_rail", "obstruction", "over_voltage"),
    ),
}
