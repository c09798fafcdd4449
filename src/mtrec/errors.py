"""Every error that mtrec raises on purpose.

    MtrecError                 anything mtrec explains in one line          exit code 1
    ├── InputError             the user's input is wrong                    exit code 2
    │   ├── ConfigError        a scenario or parameter file                 exit code 2
    │   ├── DataError          a data file or table                         exit code 2
    │   └── ModelError         a model name, folder or weights file         exit code 2
    ├── RunError               a stage of a run failed                      exit code 1
    │   ├── Diverged           training left the finite numbers             exit code 1
    │   └── Unavailable        a server or a disk is away; may work later   exit code 1
    └── GateRefused            the run succeeded, the gate said no          exit code 3

A message says what is wrong, where, and how to mend it, in one line. The command line prints it as
`mtrec: <message>`; a traceback appears only with `--debug`.
"""


class MtrecError(Exception):
    """Base of every error that mtrec raises on purpose."""

    exit_code = 1


class InputError(MtrecError):
    """Something the user gave is wrong; nothing was written."""

    exit_code = 2


class ConfigError(InputError):
    """A scenario or parameter file is wrong. The message lists every wrong key."""


class DataError(InputError):
    """A data file or table is missing, unreadable or breaks the data contract."""


class ModelError(InputError):
    """A model name, folder or weights file cannot be used."""


class RunError(MtrecError):
    """A stage of a run failed."""


class Diverged(RunError):
    """Training left the finite numbers: its settings, not the machine, are to blame."""


class Unavailable(RunError):
    """A server, a network or a disk that is needed is away or full: the same may work later, or elsewhere."""


class GateRefused(MtrecError):
    """The run succeeded and the gate refused the candidate."""

    exit_code = 3
