"""A scorer for every machine that a system knows."""

from sk_asd.datasets._names import section_name
from sk_asd.ensemble._by_columns import rows_by_group
from sk_asd.utils._system import System, extractors
from sk_asd.utils._text import composed
from sk_asd.watching._drift import DriftMonitor
from sk_asd.watching._streaming import StreamingScorer


class StreamingScorers:
    """A StreamingScorer for each machine and section, made when it is asked for.

    Parameters
    ----------
    system : outlier detector
        Fitted to clip tables: a Pipeline from sound to scores, or an ensemble of some.
    window : float, default=None
        Seconds of a window; None is the length of the clips that `system` was fitted to.
    sections : dict of str to list of str, default=None
        Sections of each machine that `system` knows. None: no name is checked.
    machine, section : str, default=None
        What is heard, whatever else is said of a stream.
    sr : int, default=None
        Sample rate of the streams in Hz; None is that of `system`.
    n_recent : int, default=None
        Scores that are compared with those of training at a time, by a :class:`DriftMonitor` for
        each machine and section; None: no drift is looked for.
    **options
        Further parameters of :class:`StreamingScorer`, such as `hop` and `k_of_n`.

    Attributes
    ----------
    sections : dict of str to list of str
        As given, with the names of machines in the composed form of Unicode.
    window, sr : float, int
        As given, or as `system` says.

    Raises
    ------
    ValueError
        If `system` does not say its sample rate, or the length of its clips, and they are not
        given.

    See Also
    --------
    FolderWatcher : Hears recordings that arrive in a folder.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_asd.datasets import make_machine_sounds
    >>> from sk_asd.systems import make_pooling
    >>> from sk_asd.watching import StreamingScorers
    >>> clips = make_machine_sounds(["fan", "valve"], n_train=20, n_test=2, duration=1.0,
    ...                             random_state=0)
    >>> system = make_pooling().fit(clips[clips["split"] == "train"])
    >>> sections = {"fan": ["00"], "valve": ["00"]}
    >>> scorers = StreamingScorers(system, sections=sections, k_of_n=(2, 3))
    >>> scorers.place("valve")
    ('valve', '00')
    >>> scorer = scorers["valve", "00"]
    >>> sound = clips["audio"][clips["machine"] == "valve"].iloc[-1]
    >>> [event.type for event in scorer.feed(sound) + scorer.finish()]
    ['score']
    """

    def __init__(
        self,
        system,
        window=None,
        *,
        sections=None,
        machine=None,
        section=None,
        sr=None,
        n_recent=None,
        **options,
    ):
        first = next(iter(extractors(system)), None)
        self.sr = sr or getattr(first, "sr", None)
        if self.sr is None:
            raise ValueError("The system does not say its sample rate: give sr.")
        if window is None and not hasattr(first, "n_samples_"):
            raise ValueError("The system does not say the length of its clips: give window.")
        self.window = first.n_samples_ / first.sr if window is None else window
        # As the names of folders are compared.
        self.sections = {composed(name): known for name, known in (sections or {}).items()}
        self._system = system
        self._given = {"machine": machine, "section": section}
        self._n_recent = n_recent
        self._options = options
        self._made = {}

    def place(self, machine=None, section=None):
        """Machine and section of a stream, as the system calls them.

        Parameters
        ----------
        machine, section : str, default=None
            What is said of the stream. It counts where `machine` and `section` of these scorers are
            None; where nothing is said, there must be one that the system knows.

        Returns
        -------
        tuple of str
            Machine and section; what was given, or None, where `sections` was not.

        Raises
        ------
        ValueError
            If the system knows no such machine or section, or several where none is said.
        """
        if not self.sections:
            return tuple(self._given.values())
        machine = self._one_of("machine", machine, self.sections)
        return machine, self._one_of("section", section, self.sections[machine])

    def _one_of(self, kind, value, known):
        given = self._given[kind]
        name = value if given is None else given
        normal = section_name if kind == "section" else composed
        name = None if name is None else normal(name)
        spelt = {normal(one): one for one in known}
        if name in spelt:
            return spelt[name]
        if name is None and len(known) == 1:
            return next(iter(known))
        known = ", ".join(known)
        if given is not None:
            raise ValueError(f"{kind}={given}: the model knows {known}.")
        found = f"no {kind} is known" if name is None else f"{kind} {name} is not known"
        raise ValueError(f"{found}; give {kind}, one of {known}.")

    def __getitem__(self, place):
        """Scorer of a machine and section, as :meth:`place` returns them."""
        if place not in self._made:
            machine, section = place
            self._made[place] = StreamingScorer(
                self._system,
                self.window,
                sr=self.sr,
                machine=machine,
                section=section,
                labels=dict.fromkeys(("domain", "split", "label")),
                drift=None if self._n_recent is None else self._monitor(place),
                **self._options,
            )
        return self._made[place]

    def _monitor(self, place):
        system = System(self._system)
        scores, groups = system.known()
        names = dict(zip(("machine", "section"), place))
        group = tuple(names.get(column) for column in system.columns)
        rows = rows_by_group(groups).get(group[0] if len(group) == 1 else group)
        scores = scores if rows is None else scores[rows]
        return DriftMonitor(scores, n_recent=self._n_recent, random_state=0)
