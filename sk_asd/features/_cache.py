"""Features kept on disk in memory-mapped files."""

import contextlib
import hashlib
from pathlib import Path

import numpy as np

from sk_asd.datasets._audio import replacing

# To be raised whenever the features of the same clips and parameters change.
_VERSION = 1
_DTYPE = np.dtype(np.float32)


class FeatureFile:
    """One ``.npy`` file whose name says what is in it.

    Parameters
    ----------
    folder : str or path-like
        Where the file lies; made when first written to.
    kind : str
        First part of the file name.
    shape : tuple of int
        Shape of the features, which are float32.
    contents : object
        All that the values depend on; its ``repr`` is hashed into the file name.
    """

    def __init__(self, folder, kind, shape, contents):
        self.folder = Path(folder)
        self.shape = shape
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((_VERSION, kind, shape, contents)).encode())
        self.path = self.folder / f"{kind.lower()}-{digest.hexdigest()}.npy"

    def load(self):
        """Return the features memory-mapped, or None if there is no sound file of them."""
        try:
            features = np.load(self.path, mmap_mode="r")
        except (OSError, ValueError, EOFError):
            return None
        if features.shape != self.shape or features.dtype != _DTYPE:
            return None
        return np.asarray(features)

    def write(self, blocks):
        """Write the features block by block and return them as :meth:`load` does.

        Memory use is that of the blocks: the file is written, not mapped. It appears under its
        name when it is complete; of two processes that write it at once the last one wins.

        Parameters
        ----------
        blocks : iterable of ndarray
            The features along the first axis.

        Returns
        -------
        ndarray
            The features, memory-mapped.

        Raises
        ------
        OSError
            If the folder or the file cannot be written; the message names `cache_dir`.
        """
        with self._named_errors():
            self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as temporary:
            with self._named_errors():
                file = open(temporary, "wb")  # noqa: SIM115
            with file:
                header = {"descr": _DTYPE.str, "fortran_order": False, "shape": self.shape}
                with self._named_errors():
                    np.lib.format.write_array_header_1_0(file, header)
                # Failures to make a block are not the folder's.
                for block in blocks:
                    with self._named_errors():
                        file.write(np.ascontiguousarray(block, dtype=_DTYPE))
                with self._named_errors():
                    file.flush()
        features = self.load()
        if features is None:
            raise OSError(f"The features in {self.path} were removed while they were written.")
        return features

    @contextlib.contextmanager
    def _named_errors(self):
        try:
            yield
        except OSError as error:
            message = f"cache_dir={str(self.folder)!r} cannot be written: {error}"
            raise type(error)(message) from error
