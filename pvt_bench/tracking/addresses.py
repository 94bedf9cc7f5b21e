"""Addresses of MLflow stores: which one a run is logged to, and how a path becomes one."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from pvt_bench.errors import InputError

SERVERS = ("http", "https")
DATABASES = ("postgresql", "mysql", "mssql")
SQLITE = "sqlite:///"
VARIABLE = "MLFLOW_TRACKING_URI"
# What MLflow reads where a script asks for no run: here each run has its record's own.
IGNORED = ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID")
# What has a meaning in an address, or in YAML.
HIDDEN = "***"
# Of an address `//user:password@` or `//token@`, and options such as `?password=...`. A database's
# password may hold any sign, so the last @ ends it.
PASSWORD = re.compile(r"//([^:/?#@\s]*:)\S*@|//[^:/?#@\s]+@")
OPTION = re.compile(
    r"""([?&;][^=&;\s]*(?:pass(?!file)|pwd|token|secret|api_?key|access_?key|auth|cred|signature|odbc_connect)[^=&;\s]*=)[^&#\s"']*""",
    re.IGNORECASE,
)
SPECIAL = re.compile(r"""[%?#:"'\\\[\]{}\x00-\x1f\x7f]""")


def choose_uri(typed: str | None, results_dir: Path | str) -> str:
    """The store to log to: the typed one, that of MLFLOW_TRACKING_URI, or a file among the results.

    Raises:
        InputError: MLflow cannot log there.
    """
    if typed:
        check_uri(typed)
        return typed
    if exported := os.environ.get(VARIABLE):
        check_uri(exported, VARIABLE)
        return exported
    return default_uri(results_dir)


def explain_uri(typed: str | None, environment: Mapping[str, str]) -> list[str]:
    """What is made of MLflow's own variables, a line each."""
    lines = []
    if exported := environment.get(VARIABLE):
        why = f"{VARIABLE} is set; tracking.uri=ADDRESS chooses another"
        if typed:
            why = f"as typed; {VARIABLE} is ignored"
        lines.append(f"MLflow: {without_password(typed or exported)} ({why})")
    if typed and without_password(typed) != typed:
        lines.append(
            "MLflow: others can see a password that is typed while the command runs. Use the "
            "address without it, and export MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD "
            f"for a server, or the whole address as {VARIABLE}"
        )
    ignored = [name for name in IGNORED if environment.get(name)]
    if ignored:
        lines.append(
            f"MLflow: {', '.join(ignored)} ignored: each run is one of its own, in the experiment "
            "that is called after its task"
        )
    return lines


def default_uri(results_dir: Path | str) -> str:
    """The store that is used where none is named: a sqlite file among the results."""
    return sqlite_uri(Path(results_dir).expanduser().resolve() / "mlflow.db")


def sqlite_uri(file: Path) -> str:
    """The address of a sqlite file, whatever the characters of its path."""
    return SQLITE + SPECIAL.sub(lambda found: quote(found[0], safe=""), str(file))


def sqlite_file(uri: str) -> Path | None:
    """The file of a sqlite address; None for other stores."""
    return Path(unquote(uri.removeprefix(SQLITE))) if uri.startswith(SQLITE) else None


def check_uri(uri: str, name: str = "tracking.uri") -> None:
    """Refuse an address that MLflow cannot log to, without importing MLflow.

    name: of the key or the variable that holds it.

    Raises:
        InputError: a directory or `file:` address (MLflow 3.13 gave these up), an unknown scheme,
            or one without the place it needs.
    """
    if re.search(r"\s", uri) and not uri.startswith(SQLITE):
        raise InputError(f"{name} has a space in its address. Write it as %20.")
    parts = urlsplit(uri)
    if re.fullmatch(r"sqlite:///(?!:)[^?]+", uri):
        return
    if parts.scheme.partition("+")[0] in (*SERVERS, *DATABASES) and parts.netloc:
        return
    plain = parts.scheme in ("", "file")
    reason = "MLflow no longer logs to plain directories" if plain else "MLflow cannot log there"
    if parts.scheme == "sqlite" and "?" in uri:
        reason = "a ? begins options, in the name of a file it is %3F"
    raise InputError(
        f"{name}={without_password(uri)}: {reason}. Use "
        "tracking.uri=sqlite:////absolute/path/mlflow.db for a file on this host, or "
        "tracking.uri=http://host:5000 for a tracking server."
    )


def without_password(text: str) -> str:
    """Return a text with `***` for the passwords and tokens of its addresses: what is written."""
    text = PASSWORD.sub(lambda found: f"//{found[1] or ''}{HIDDEN}@", text)
    return OPTION.sub(rf"\1{HIDDEN}", text)


def keep(uri: str) -> str:
    """Keep the secret of an address in the environment of this process and of those it starts.

    Returns the address as it may be written down; `reveal` is the way back.
    """
    shown = without_password(uri)
    if shown != uri:
        os.environ[VARIABLE] = uri
    return shown


def reveal(uri: str) -> str:
    """Return the address whose secret was hidden, from MLFLOW_TRACKING_URI.

    Raises:
        InputError: the environment has no such address.
    """
    exported = os.environ.get(VARIABLE, "")
    if HIDDEN not in uri:
        return uri
    if without_password(exported) != uri:
        raise InputError(
            f"The password of {uri} is not kept. Export the whole address as {VARIABLE}, or "
            "use one without a password and export MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD."
        )
    return exported
