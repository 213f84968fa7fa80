"""Features kept on disk in memory-mapped files."""

import contextlib
import hashlib
import io
import math
import stat
from pathlib import Path

import numpy as np

from sk_asd.utils._files import replacing

# To be raised whenever the features of the same clips and parameters change.
_VERSION = 2
_DTYPE = np.dtype(np.float32)


class FeatureFile:
    """One ``.npy`` file whose name says what is in it.

    Behind the values there is a checksum of the name and the header. A file whose size, header or
    checksum is another one counts for nothing. Nothing in it is ever unpickled.

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
        header = io.BytesIO()
        described = {"descr": _DTYPE.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, described)
        self._header = header.getvalue()
        self._checksum = hashlib.blake2b(
            self.path.name.encode() + self._header, digest_size=16
        ).digest()

    def load(self):
        """Return the features memory-mapped, or None if there is no sound file of them."""
        n_bytes = math.prod(self.shape) * _DTYPE.itemsize
        try:
            found = self.path.stat()
            size = len(self._header) + n_bytes + len(self._checksum)
            if not stat.S_ISREG(found.st_mode) or found.st_size != size:
                return None
            with open(self.path, "rb") as file:
                header = file.read(len(self._header))
                file.seek(n_bytes, io.SEEK_CUR)
                if (header, file.read()) != (self._header, self._checksum):
                    return None
                return np.asarray(np.memmap(file, _DTYPE, "r", len(header), self.shape))
        except (OSError, ValueError):
            return None

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
            self._clear()
        with replacing(self.path) as temporary:
            with self._named_errors():
                file = open(temporary, "wb")  # noqa: SIM115
            try:
                with self._named_errors():
                    file.write(self._header)
                # Failures to make a block are not the folder's.
                for block in blocks:
                    with self._named_errors():
                        file.write(np.ascontiguousarray(block, dtype=_DTYPE))
                with self._named_errors():
                    file.write(self._checksum)
                    file.flush()
            finally:
                with contextlib.suppress(OSError):  # told above, with the folder's name
                    file.close()
        features = self.load()
        if features is None:
            raise OSError(f"The features in {self.path} were removed while they were written.")
        return features

    def _clear(self):
        """Remove what is no file from the place of the file: it could not be replaced."""
        if self.path.is_dir() and not self.path.is_symlink():
            self.path.rmdir()  # raises where it holds anything
        elif not self.path.is_file():
            self.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _named_errors(self):
        try:
            yield
        except OSError as error:
            message = f"cache_dir={str(self.folder)!r} cannot be written: {error}"
            raise type(error)(message) from error
