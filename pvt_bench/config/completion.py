"""Completion of `pvt-bench` and of `python -m pvt_bench` with the tab key.

Hydra knows the words. Its own script for bash completes `python FILE.py` and installed commands,
but no `python -m`; the one here completes both. fish and zsh have Hydra's scripts.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pvt_bench.errors import InputError, nearest

OPTIONS = ("-sc", "--shell-completion")
SHELLS = ("bash", "zsh", "fish")
VERBS = ("install", "uninstall", "query")
PROGRAMS = "pvt-bench python python3"
# Readline replaces only what follows the last sign of COMP_WORDBREAKS, usually after the `=`.
BASH = f"""\
_pvt_bench_complete() {{
    local line=${{COMP_LINE:0:COMP_POINT}} rest word choices
    local -a typed query
    read -ra typed <<< "$line"
    query=("${{typed[0]/#\\~/$HOME}}")
    rest=${{line#*"${{typed[0]}}"}}
    if [[ ${{typed[0]##*/}} != pvt-bench ]]; then
        COMPREPLY=()
        [[ ${{typed[1]}} == -m && ${{typed[2]}} == pvt_bench ]] || return
        query+=(-m pvt_bench)
        rest=${{rest#*pvt_bench}}
    fi
    word=${{line##*[[:space:]]}}
    choices=$(COMP_LINE="pvt-bench$rest" "${{query[@]}}" -sc query=bash 2> /dev/null)
    COMPREPLY=($(compgen -W "$choices" -- "$word"))
    if [[ $word == *=* && $COMP_WORDBREAKS == *=* ]]; then
        COMPREPLY=("${{COMPREPLY[@]#"${{word%"${{word##*=}}"}}"}}")
    fi
}}
complete -o nospace -o bashdefault -o default -F _pvt_bench_complete {PROGRAMS}
"""
REMOVE = f"complete -r {PROGRAMS}; unset -f _pvt_bench_complete"


def asks_completion(words: Sequence[str]) -> bool:
    """Whether the command line asks for completion."""
    return bool({*OPTIONS} & {*words})


def completion_script(
    words: Sequence[str], program: str, environment: Mapping[str, str] = os.environ
) -> str | None:
    """The lines of shell that the command line asks for; None where Hydra has the answer.

    program: the path by which Python was started, as in `sys.argv`.

    Raises:
        InputError: an unknown shell or verb, or a shell that does not complete `python -m`.
    """
    verb, shell = _asked([word for word in words if word not in OPTIONS])
    if verb == "query":
        if "COMP_LINE" not in environment:
            raise InputError(f"query={shell} is for the shell's own use. {_advice()}")
        return None
    if shell == "bash":
        return BASH if verb == "install" else REMOVE
    if Path(program).name != "pvt-bench":
        raise InputError(
            f"Completion in {shell} knows the command pvt-bench, not python -m. {_advice(shell)}"
        )
    return None


def _asked(words: Sequence[str]) -> tuple[str, str]:
    if len(words) != 1:
        raise InputError(f"-sc needs the name of a shell and nothing else. {_advice()}")
    verb, _, shell = words[0].partition("=")
    if verb not in VERBS:
        raise InputError(f"-sc {words[0]}: unknown word. {_advice()}")
    if shell not in SHELLS:
        raise InputError(f"-sc {words[0]}: unknown shell. {nearest(shell, SHELLS)} {_advice()}")
    return verb, shell


def _advice(shell: str = "bash") -> str:
    """The line that installs completion in a shell."""
    line = f'eval "$(pvt-bench -sc install={shell})"'
    return f"Run {'pvt-bench -sc install=fish | source' if shell == 'fish' else line}"
