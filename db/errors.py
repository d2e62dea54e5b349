"""Every error that promptmill raises on purpose, as one tree.

    PromptmillError                 exit 1
    ├── UsageError                  exit 2: the caller can mend it
    │   ├── SettingsError           a PROMPTMILL_* setting has a bad value
    │   ├── ParameterError          a generation parameter is unknown or out of range
    │   ├── InputError              a file can't be read, or a line of it is bad
    │   ├── NotFoundError           no such batch, job or model
    │   └── ConflictError           the request contradicts what is stored
    │       └── LostRace            it changed in this very moment: look and try again
    ├── DatabaseError               the database refused or broke
    │   ├── DatabaseUnavailable     it can't be used now: unreachable, or busy for too long
    │   │   ├── DatabaseUnwritable  it is full or read-only: somebody has to mend it
    │   │   └── DatabaseRefused     it answers, but not to us: password, name, encryption, rights
    │   ├── ValueRefused            it does not take one of the values
    │   └── SchemaMismatch          its schema is older or newer than this program
    ├── BrokerUnavailable           Redis can't be reached
    │   └── BrokerRefused           it answers, but not to us
    ├── OutputError                 the results can't be written
    │   └── OutputPathError         exit 2: not where they were asked for
    └── EngineError                 the model side broke
        └── ModelLoadError          exit 2: the model can't be loaded as it was named
            └── ModelUnavailable    exit 1: it can't be loaded now: hub, endpoint or memory

A message says where, what and what to do, in one line; a UsageError of several independent faults
has each in `faults` (see `db.faults`). Foreign errors are translated where
they enter, so that no caller needs to know SQLAlchemy, redis-py or torch.
"""

from db.wording import joined


class PromptmillError(Exception):
    """promptmill failed."""

    #: What the command line exits with.
    exit_code = 1
    #: Whether it may pass by itself, so that waiting helps.
    passing = False

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__ or type(self).__name__)

    @property
    def message(self) -> str:
        return str(self.args[0])

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong, one text for each fault."""
        return (self.message,)


class UsageError(PromptmillError):
    """The call can't be carried out as it was made."""

    exit_code = 2

    def __init__(self, *faults: str) -> None:
        """Several faults become one message, with the first three in full."""
        super().__init__(joined(faults))
        self._faults = faults

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong, one text for each fault."""
        return self._faults or (self.message,)


class SettingsError(UsageError):
    """A setting has a bad value."""


class ParameterError(UsageError):
    """A generation parameter is unknown or out of range."""


class InputError(UsageError):
    """The input can't be used."""


class NotFoundError(UsageError):
    """There is no such thing."""


class ConflictError(UsageError):
    """This contradicts what is stored."""


class LostRace(ConflictError):
    """Somebody else was first: look and try again."""


class DatabaseError(PromptmillError):
    """The database failed."""


class DatabaseUnavailable(DatabaseError):
    """The database can't be used now."""

    passing = True


class DatabaseUnwritable(DatabaseUnavailable):
    """The database takes no writes."""

    passing = False


class DatabaseRefused(DatabaseUnavailable):
    """The database does not let us in."""

    passing = False


class ValueRefused(DatabaseError):
    """The database does not take one of the values."""


class SchemaMismatch(DatabaseError):
    """The database's schema does not fit this program."""


class BrokerUnavailable(PromptmillError):
    """The message broker can't be reached."""

    passing = True


class BrokerRefused(BrokerUnavailable):
    """The message broker does not let us in."""

    passing = False


class OutputError(PromptmillError):
    """The results can't be written."""


class OutputPathError(OutputError):
    """The results can't be written there."""

    exit_code = 2


class EngineError(PromptmillError):
    """The engine failed."""


class ModelLoadError(EngineError):
    """The model can't be loaded."""

    exit_code = 2


class ModelUnavailable(ModelLoadError):
    """The model can't be loaded now."""

    exit_code = 1
