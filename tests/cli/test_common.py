"""What the commands share: argument types, and options in the place of parameters."""

import argparse

import pytest

from sk_asd.cli._common import in_options, number, spoken


@pytest.mark.parametrize(
    ("convert", "right", "wrong", "message"),
    [
        (number(int, 1), {"1": 1, "12": 12}, ("0", "-1"), "an integer of at least 1, found"),
        (number(int, but=0), {"-1": -1, "3": 3}, ("0",), "an integer other than 0, found"),
        (number(float), {"-1e3": -1000.0}, ("nan", "inf", "-inf"), "a finite number, found"),
        (number(float, 0), {"0": 0.0}, ("-0.1", "inf"), "a number of at least 0, found"),
        (number(float, 0, but=0), {"0.1": 0.1}, ("0", "-1", "nan"), "a number above 0, found"),
        (number(float, 0, 1), {"0": 0.0, "1": 1.0}, ("1.1", "nan"), "a number from 0 to 1, found"),
    ],
)
def test_numbers(convert, right, wrong, message):
    assert {text: convert(text) for text in right} == right
    for text in wrong:
        with pytest.raises(argparse.ArgumentTypeError, match=f"^expected {message} {text}$"):
            convert(text)


def test_what_is_no_number_is_named_by_its_kind(run):
    status, _, err = run("check", "x", "--sr", "loud")
    assert status == 2
    assert "invalid int value: 'loud'" in err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("state=a.b is damaged", "--state a.b is damaged"),
        ("state=.: it is a folder (give_up=3)", "--state .: it is a folder (--give-up 3)"),
        ("fan: folder=x is full; give folder, or", "fan: --out x is full; give --out, or"),
        ("/data/state=old/a.wav and mystate=1", "/data/state=old/a.wav and mystate=1"),
        ("give states, the state is known", "give states, the state is known"),
    ],
)
def test_parameters_are_said_as_options(text, said):
    assert in_options(text, "state", "give_up", folder="out") == said


@pytest.mark.parametrize(("raised", "kind"), [(ValueError, ValueError), (PermissionError, OSError)])
def test_errors_are_said_in_options(raised, kind):
    with pytest.raises(kind, match="^--state x is wrong$"), spoken("state"):
        raise raised("state=x is wrong")
    error = raised("x is wrong")
    with pytest.raises(raised) as found, spoken("state"):
        raise error
    assert found.value is error
