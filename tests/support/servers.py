"""Servers that a test starts for itself, so that it may stop, kill and starve them.

    with PrivateRedis(tmp_path / "redis", password="hush") as server: ... server.url ...
    with PrivatePostgres() as server: ... server.url ...

They listen on a free port of this machine and keep it over restarts; whatever is left of them is
killed at the end. A missing binary skips the test, as a missing service does.
"""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

import psutil
import psycopg
import pytest
import redis
from sqlalchemy.engine import make_url

from db.redis_server import find_server
from tests.support.certificates import Certificates
from tests.support.processes import eventually
from tests.support.services import missing

#: The password of every private PostgreSQL: easily found where it should not be.
POSTGRES_PASSWORD = "marker-password-of-postgres"

_STOPS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class _Server(ABC):
    """One process; subclasses say how it starts and whether it serves."""

    def __init__(self, log: Path) -> None:
        self.port = free_port()
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("it was never started")
        return self._process

    def start(self) -> None:
        """Start it and wait until it serves; what it had stored is there again."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                **self._options(),
            )

        def look() -> bool:
            assert self.process.poll() is None, self.said()
            return self._serves()

        eventually(look, what=f"the server on port {self.port} serves")

    def kill(self) -> None:
        """SIGKILL, as the kernel does when memory is short; the children too."""
        if self._process is None or self._process.poll() is not None:
            return
        children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        for child in children:
            if child.is_running():  # asked of its start time too: no other with its pid
                child.kill()
        self._process.wait()
        psutil.wait_procs(children, timeout=10)

    def pause(self, seconds: float) -> None:
        """Let it be silent for so long, with its connections open: a hang, not an end."""
        with self.paused():
            time.sleep(seconds)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Silent within the block."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def _end(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        self.process.wait(30)

    @abstractmethod
    def _command(self) -> list[str]: ...

    def _options(self) -> dict[str, Any]:
        return {}

    @abstractmethod
    def _serves(self) -> bool: ...


class PrivateRedis(_Server):
    """A Redis or Valkey with its data in `folder`, which is made."""

    def __init__(
        self,
        folder: Path,
        *,
        password: str | None = None,
        certificates: Certificates | None = None,
        appendonly: bool = False,
    ) -> None:
        """`certificates`: TLS only, no plain port. Without `appendonly` a restart is empty."""
        server = find_server()
        if server is None:
            missing("redis-server", "neither on PATH nor in a wheel")
        self._binary = "" if server is None else str(server.path)
        self._folder = folder
        self._password = password
        self._certificates = certificates
        self._appendonly = appendonly
        folder.mkdir(parents=True)
        # A short name: a socket's path may have about 100 characters.
        self._sockets = Path(tempfile.mkdtemp(prefix="pm-"))
        super().__init__(folder / "server.log")

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        shutil.rmtree(self._sockets, ignore_errors=True)

    @property
    def url(self) -> str:
        """Over TCP, with the password and the authority that it needs."""
        user = f":{self._password}@" if self._password else ""
        plain = f"://{user}127.0.0.1:{self.port}/0"
        if self._certificates is None:
            return f"redis{plain}"
        return f"rediss{plain}?ssl_ca_certs={self._certificates.authority}"

    @property
    def socket_url(self) -> str:
        """Over the unix socket, as `PROMPTMILL_BROKER_URL` takes it."""
        user = f":{self._password}@" if self._password else ""
        return f"redis+socket://{user}{self._sockets / 'redis.sock'}"

    def client(self) -> redis.Redis:
        """A client of it; the caller closes it."""
        return redis.Redis.from_url(self.url, socket_timeout=5)

    def stop(self) -> None:
        """SIGTERM: what is appended is on disk."""
        self._end(signal.SIGTERM)

    def restart_empty(self) -> None:
        """Killed, and back with nothing of what it knew."""
        self.kill()
        shutil.rmtree(self._folder / "data", ignore_errors=True)
        self.start()

    def _command(self) -> list[str]:
        data = self._folder / "data"
        data.mkdir(exist_ok=True)
        options = {
            "--bind": "127.0.0.1",
            "--port": str(self.port),
            "--unixsocket": str(self._sockets / "redis.sock"),
            "--dir": str(data),
            "--save": "",
            "--appendonly": "yes" if self._appendonly else "no",
            "--appendfsync": "always" if self._appendonly else "no",
        }
        if self._password is not None:
            options["--requirepass"] = self._password
        if (tls := self._certificates) is not None:
            options |= {
                "--port": "0",
                "--tls-port": str(self.port),
                "--tls-cert-file": str(tls.certificate),
                "--tls-key-file": str(tls.key),
                "--tls-ca-cert-file": str(tls.authority),
                "--tls-auth-clients": "no",
            }
        return [self._binary, *(word for option in options.items() for word in option)]

    def _serves(self) -> bool:
        client = self.client()
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False
        finally:
            client.close()


class PrivatePostgres(_Server):
    """A PostgreSQL with one empty database; it never waits for a disk.

    It refuses to run as root, so root starts it as the user `postgres`, in a folder of that
    user's.
    """

    def __init__(self, *, certificates: Certificates | None = None) -> None:
        """`certificates`: connections without TLS are refused."""
        self._certificates = certificates
        template = _template()
        self._folder = _own_folder()
        self._data = self._folder / "data"
        _run_as_owner("cp", "-Rp", str(template), str(self._data))
        super().__init__(self._folder / "server.log")
        host = "host" if certificates is None else "hostssl"
        (self._data / "pg_hba.conf").write_text(f"{host} all all 127.0.0.1/32 scram-sha-256\n")
        if certificates is not None:
            self._install(certificates)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """As `PROMPTMILL_DATABASE_URL` takes it."""
        return self._dsn("postgresql+psycopg")

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """As `pg_ctl stop --mode`: smart waits for the clients, immediate leaves a crash."""
        self._end(_STOPS[mode])

    def _install(self, certificates: Certificates) -> None:
        for name, source in (("pem", certificates.certificate), ("key", certificates.key)):
            target = self._data / f"server.{name}"
            shutil.copyfile(source, target)
            target.chmod(0o600)
            _give_to_owner(target)

    def _dsn(self, scheme: str) -> str:
        plain = f"{scheme}://postgres:{POSTGRES_PASSWORD}@127.0.0.1:{self.port}/postgres"
        if self._certificates is None:
            return plain
        return f"{plain}?sslmode=verify-full&sslrootcert={self._certificates.authority}"

    def _command(self) -> list[str]:
        values = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "16MB",
            "max_connections": 100,
        }
        if self._certificates is not None:
            values |= {"ssl": "on", "ssl_cert_file": "server.pem", "ssl_key_file": "server.key"}
        options = [word for key, value in values.items() for word in ("-c", f"{key}={value}")]
        return [_postgres_binary("postgres"), "-D", str(self._data), *options]

    def _options(self) -> dict[str, Any]:
        return _owner_options()

    def _serves(self) -> bool:
        try:
            psycopg.connect(self._dsn("postgresql"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True


class PgBouncer(_Server):
    """A pooler in transaction mode before a PostgreSQL that trusts its clients."""

    def __init__(self, database_url: str) -> None:
        """`database_url` as `PROMPTMILL_DATABASE_URL` takes it."""
        found = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
        if found is None:
            # In CI too: it is no service of promptmill's, and no registry of Python's has it.
            pytest.skip("pgbouncer is not installed")
        self._binary = found
        self._behind = make_url(database_url)
        self._folder = _own_folder()
        super().__init__(self._folder / "server.log")

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """The database, through the pooler."""
        through = self._behind.set(host="127.0.0.1", port=self.port)
        return through.render_as_string(hide_password=False)

    def _command(self) -> list[str]:
        behind = self._behind
        place = {"host": behind.host, "port": behind.port or 5432, "user": behind.username}
        if behind.password is not None:
            place["password"] = str(behind.password)
        words = " ".join(f"{name}={value}" for name, value in place.items())
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            # Fewer than those who ask: they take turns on the same sessions.
            "default_pool_size": 2,
        }
        lines = [f"{name} = {value}" for name, value in settings.items()]
        file = self._folder / "pgbouncer.ini"
        file.write_text("\n".join(["[databases]", f"* = {words}", "[pgbouncer]", *lines, ""]))
        _give_to_owner(file)
        return [self._binary, str(file)]

    def _options(self) -> dict[str, Any]:
        return _owner_options()

    def _serves(self) -> bool:
        plain = make_url(self.url).set(drivername="postgresql")
        try:
            psycopg.connect(plain.render_as_string(hide_password=False), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True


def free_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@cache
def _template() -> Path:
    """A data folder fresh from initdb: made once, copied for every server."""
    folder = _own_folder()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    password = folder / "password"
    password.write_text(POSTGRES_PASSWORD)
    _give_to_owner(password)
    _run_as_owner(
        _postgres_binary("initdb"), "--pgdata", str(folder / "data"), "--username", "postgres",
        "--pwfile", str(password), "--auth", "scram-sha-256", "--encoding", "UTF8",
        "--locale", "C", "--no-sync", "--wal-segsize", "1",
    )  # fmt: skip
    return folder / "data"


def _postgres_binary(name: str) -> str:
    """From PATH, or where Debian, Red Hat and Homebrew put them; the newest version."""
    if found := shutil.which(name):
        return found
    places = (
        ("/usr/lib/postgresql", "*/bin"),
        ("/", "usr/pgsql-*/bin"),
        ("/", "opt/homebrew/opt/postgresql@*/bin"),
    )
    found_ones = [one for root, glob in places for one in Path(root).glob(f"{glob}/{name}")]
    if not found_ones:
        missing("PostgreSQL's own program", f"no {name} on PATH or under /usr/lib/postgresql")
    return str(max(found_ones, key=_version_of))


def _version_of(binary: Path) -> int:
    return int("".join(filter(str.isdigit, str(binary))) or 0)


def _owner() -> pwd.struct_passwd | None:
    """Who runs PostgreSQL; None: we do ourselves."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        missing("PostgreSQL", "it does not run as root, and there is no user 'postgres'")
        return None


def _owner_options() -> dict[str, Any]:
    owner = _owner()
    if owner is None:
        return {}
    return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": [], "cwd": "/"}


def _give_to_owner(path: Path) -> None:
    if (owner := _owner()) is not None:
        os.chown(path, owner.pw_uid, owner.pw_gid)


def _own_folder() -> Path:
    """Outside of pytest's folders, which are for the user that runs the tests alone."""
    folder = Path(tempfile.mkdtemp(prefix="pm-postgres-"))
    _give_to_owner(folder)
    return folder


def _run_as_owner(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, **_owner_options())
