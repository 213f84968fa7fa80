"""The one rule that turns numbers into samples, whatever door they come in by."""

import numpy as np

# Largest magnitude that is taken for a sample. The counts of a 32-bit converter reach 2.1e9; far
# beyond, squares overflow float32 and features are infinite.
LARGEST = 1e10
# Full scale of the integer formats that sound files have, by NumPy's code of the type.
_FULL_SCALE = {"i1": 2.0**7, "u1": 2.0**7, "i2": 2.0**15, "i4": 2.0**31}


def as_samples(values, name, *, ndim=1):
    """Samples as float32, integers scaled as sound files of the same format are read.

    Float samples are taken as they are, in any unit. int8, int16 and int32 are fractions of full
    scale, in [-1, 1); uint8 is so after 128 is subtracted. Samples of 24 bits come as int32 whose
    lowest byte is 0, as soundfile and SciPy read them. No other type says what its full scale is.

    Parameters
    ----------
    values : array-like
        The numbers.
    name : str
        What to call them in a message.
    ndim : int, default=1
        Number of dimensions that they must have.

    Returns
    -------
    ndarray, float32
        The samples. Values beyond float32 are infinite.

    Raises
    ------
    ValueError
        If there is another number of dimensions.
    TypeError
        If the type is none of these.
    """
    try:
        values = np.asarray(values)
        if values.dtype == object:  # numbers one by one: NumPy finds the type that they share
            values = np.asarray(values.tolist())
    except ValueError as error:  # rows of several lengths
        raise ValueError(f"{name}: expected a {ndim}-D array of samples: {error}") from None
    if values.ndim != ndim:
        raise ValueError(
            f"{name}: expected a {ndim}-D array of samples, found shape {values.shape}."
        )
    kind = values.dtype.kind
    if kind == "f":
        with np.errstate(over="ignore"):
            return values.astype(np.float32, copy=False)
    scale = _FULL_SCALE.get(values.dtype.str[1:])
    if scale is None:
        if kind == "O":
            try:
                values.astype(np.float32)
            except (TypeError, ValueError) as error:
                raise TypeError(f"{name}: {error}.") from None
        raise TypeError(
            f"{name}: expected samples of type float, int8, int16, int32 or uint8, found "
            f"{values.dtype}, whose full scale is not known. Convert them to float in [-1, 1]."
        )
    samples = values.astype(np.float32)
    if kind == "u":
        samples -= scale
    samples /= scale  # a power of two: exact
    return samples


def is_sample(samples):
    """Tell for every value whether it is finite and of a size that sound can have."""
    return np.abs(samples) <= LARGEST


def check_range(samples, name):
    """Raise unless all samples are finite and of a size that sound can have.

    Parameters
    ----------
    samples : ndarray, float32
        The samples of a clip.
    name : str
        What to call it in the message.

    Raises
    ------
    ValueError
        If one is not.
    """
    # Comparisons with NaN are false.
    if samples.size and not (samples.min() >= -LARGEST and samples.max() <= LARGEST):
        raise ValueError(
            f"{name}: the clip contains NaN, infinity or a value beyond {LARGEST:.0e}, too large "
            "for a sample of sound."
        )
