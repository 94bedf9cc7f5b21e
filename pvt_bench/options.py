"""Print what keys mean: a sentence on each, its type, its default, and the runs in which it counts.

python -m pvt_bench.options                      the groups and their choices
python -m pvt_bench.options trainer              the keys of a group
python -m pvt_bench.options schedule.lr seed     single keys
python -m pvt_bench.options model=pvt_small      the keys of a choice, with its values
python -m pvt_bench.options --markdown           all keys, as in docs/options.md

Exit code 2 is for a word that is neither a group nor a key.
"""

import sys
from collections.abc import Sequence
from textwrap import fill

from pvt_bench.commands import DONE, run_command
from pvt_bench.config import explaining
from pvt_bench.config.choices import EXPERIMENTS, SEARCHPATH, names_of
from pvt_bench.config.explaining import Key, Section
from pvt_bench.config.keys import GROUPS
from pvt_bench.config.recipes import recipe_table
from pvt_bench.errors import InputError, nearest
from pvt_bench.identity import ALL, DIGESTED, role

WIDTH, INDENT = 80, "    "
MARKDOWN = "--markdown"
# Groups whose keys depend on the choice: what it names is imported, and torch with it.
BUILT = ("model", "task", "dataset")
# Groups of which only a choice is typed.
WHOLE = ("recipe", *EXPERIMENTS)
# Stands for the keys outside all groups.
TOP = ""
HEAD = """# All keys

A key is set by `KEY=VALUE` on the command line, or in a YAML file of its group. *Counts in* names
the modes whose result a key can change: runs that differ in such a key are different runs.
`python -m pvt_bench.options KEY` prints the same in the terminal; for the options of the report see
`python -m pvt_bench.report --help`.

This page is written by `python -m pvt_bench.options --markdown > docs/options.md`.
"""


def main(words: Sequence[str]) -> int:
    """Print the keys that the command line names; the exit code."""
    return run_command(words, explain_typed, __doc__)


def explain_typed(words: Sequence[str]) -> int:
    """Print what is typed, or an overview; the exit code."""
    places = [word for word in words if word.lstrip("+").startswith(f"{SEARCHPATH}=")]
    asked = [word for word in words if word not in places]
    if asked == [MARKDOWN]:
        print(in_markdown(places))
        return DONE
    for word in asked:
        if word.startswith("-"):
            raise InputError(
                f"{word} cannot be used here. Use names of groups and keys, or {MARKDOWN} alone."
            )
    parts = [part for word in asked for part in explain(word, places)] or overview(places)
    print("\n\n".join(parts))
    return DONE


def overview(places: Sequence[str]) -> list[str]:
    """Paragraphs on the keys outside groups, and on each group with its choices."""
    parts = [in_text(section) for section in sections_of(TOP, places)]
    parts += [_about(group, places) for group in explaining.group_sentences()]
    return [*parts, "python -m pvt_bench.options GROUP prints the keys of a group."]


def explain(word: str, places: Sequence[str]) -> list[str]:
    """Paragraphs on a group, a choice or a key.

    places: words `hydra.searchpath=...`, where choices of the user's own lie.

    Raises:
        InputError: the word is none of them.
    """
    group, equals, name = word.partition("=")
    if equals and group in GROUPS:
        return [in_text(section) for section in choice_sections(group, name, places)]
    # A word of a run, `seed=1`, asks for its key.
    key = word.partition("=")[0]
    if key in explaining.group_sentences():
        return [_about(key, places), *map(in_text, sections_of(key, places))]
    beginning = key.partition(".")[0]
    sections = sections_of(beginning if beginning in explaining.groups() else TOP, places)
    found = [only for each in sections if (only := narrow(each, key)).keys]
    if not found:
        raise InputError(unknown(key, sections))
    return [in_text(section) for section in found]


def choice_sections(group: str, name: str, places: Sequence[str]) -> list[Section]:
    """The keys of one choice of a group, with its values."""
    names = names_of(group, places)
    if name not in names:
        raise InputError(f"There is no {group}={name}. {nearest(name, names)}")
    if group in BUILT:
        return built_sections(group, [name], places)
    return [explaining.chosen_section(group, name, places)]


def sections_of(group: str, places: Sequence[str]) -> list[Section]:
    """All keys of a group."""
    if group == TOP:
        return [Section("", explaining.run_keys())]
    if group in BUILT:
        return built_sections(group, names_of(group, places), places)
    return [] if group in WHOLE else explaining.plain_sections(group)


def built_sections(group: str, names: Sequence[str], places: Sequence[str]) -> list[Section]:
    """The keys of these choices of a group, read from the classes that their files name."""
    if group == "task":
        return explaining.task_sections(names, places)
    if group == "dataset":
        return explaining.dataset_sections(names, places)
    # It imports torch, which takes seconds.
    from pvt_bench.backbones.explaining import model_sections

    return model_sections(names, places)


def narrow(section: Section, word: str) -> Section:
    """A section with only the key that is asked for, or those below it."""
    keys = [key for key in section.keys if f"{key.name}.".startswith(f"{word}.")]
    return section._replace(keys=keys)


def unknown(word: str, sections: Sequence[Section]) -> str:
    """The message for a word that is neither a group nor a key of these sections."""
    known = {key.name for section in sections for key in section.keys}
    if "." not in word:
        ends = [name for name in _plain_names() if name.endswith(f".{word}")]
        if ends:
            return f"There is no key {word}. Did you mean {' or '.join(ends)}?"
        known |= explaining.group_sentences().keys()
    return f"There is no group or key {word}. {nearest(word, known)}"


def counts_in(name: str) -> str:
    """The modes whose result a key can change, in words; empty for one that changes none."""
    modes = role(name).modes
    listed = "all modes" if modes == ALL else ", ".join(modes)
    return f"{listed}, by the file's content" if name in DIGESTED else listed


def in_text(section: Section) -> str:
    """A section for the terminal."""
    return "\n".join([*filter(None, [wrap(section.title)]), *map(_key_in_text, section.keys)])


def in_markdown(places: Sequence[str]) -> str:
    """All keys as a page."""
    parts = [HEAD, *map(_table, sections_of(TOP, places))]
    for group, sentence in explaining.group_sentences().items():
        names = [f"`{name}`" for name in choices_of(group, places)]
        choices = f" `{group}=` one of {', '.join(names)}." if names else ""
        parts.append(f"## {group}\n\n{_as_sentence(sentence)}{choices}\n")
        parts += map(_table, sections_of(group, places))
    return "\n".join(parts).rstrip("\n")


def choices_of(group: str, places: Sequence[str]) -> list[str]:
    """The names that a group can be set to; none where it has only keys."""
    return [*recipe_table()["settings"]] if group == "recipe" else names_of(group, places)


def wrap(text: str, indent: str = "") -> str:
    """A paragraph for the terminal."""
    return fill(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _about(group: str, places: Sequence[str]) -> str:
    sentence = wrap(f"{group}: {_plain(explaining.group_sentences()[group])}")
    names = choices_of(group, places)
    return "\n".join([sentence, *([wrap(f"{group}={', '.join(names)}", INDENT)] if names else [])])


def _key_in_text(key: Key) -> str:
    modes = counts_in(key.name)
    counts = f"Counts in: {modes}." if modes else "Changes no result."
    facts = f"Type: {key.kind}. Default: {key.default}. {counts}"
    texts = filter(None, [_plain(_as_sentence(key.sentence)), facts])
    return "\n".join([key.name, *(wrap(text, INDENT) for text in texts)])


def _table(section: Section) -> str:
    rows = [
        f"| `{key.name}` | {_as_sentence(key.sentence)} | {key.kind} | `{key.default}` "
        f"| {counts_in(key.name) or 'no result'} |"
        for key in section.keys
    ]
    head = "| key | meaning | type | default | counts in |\n| --- | --- | --- | --- | --- |"
    title = f"### {section.title}\n\n" if section.title else ""
    return "\n".join([f"{title}{head}", *rows, ""])


def _as_sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""


def _plain(text: str) -> str:
    return text.replace("`", "")


def _plain_names() -> list[str]:
    """The keys of all groups that need no import of what they name."""
    groups = [group for group in explaining.groups() if group not in BUILT]
    return [
        key.name
        for group in groups
        for each in explaining.plain_sections(group)
        for key in each.keys
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
