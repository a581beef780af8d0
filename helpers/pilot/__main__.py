"""A pilot from one end to the other: `python -m helpers.pilot new my_desk --from messages.csv`."""

import sys
from collections.abc import Callable, Sequence

from helpers.core import runtime


def _new(arguments: Sequence[str]) -> int:
    """Make a pilot's folder from a file of messages."""
    from helpers.pilot.new_pilot import new_command  # each command loads what it needs

    return new_command(arguments)


# one more step of a pilot is one more line here; its first docstring line is its help
COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"new": _new}


def pilot_command(arguments: Sequence[str]) -> int:
    """Run the command that the first argument names; returns the exit status."""
    name, *rest = arguments or ["--help"]
    if name in COMMANDS:
        runtime.make_folders_absolute()
        runtime.quiet()
        return COMMANDS[name](rest)
    lines = ["usage: python -m helpers.pilot COMMAND ..., where COMMAND is one of", ""]
    for known, function in COMMANDS.items():
        lines.append(f"  {known:10} {(function.__doc__ or '').splitlines()[0]}")
    lines += ["", "python -m helpers.pilot COMMAND --help says more."]
    if name in ("-h", "--help"):
        print("\n".join(lines))
        return 0
    print(f"There is no command {name!r}.\n" + "\n".join(lines), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(pilot_command(sys.argv[1:]))
