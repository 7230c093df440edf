"""What completes a line of `ld-deploy` in a shell. The scripts ask this program; files are left to the shell."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from ld_runtime.errors import LdDeployError
from ld_runtime.overview import SUMMARIES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Its value is the position of the word that is being written; the arguments are the words behind `ld-deploy`. An answer
# is a line each: what fits, a tab, what it is.
VARIABLE = "_LD_DEPLOY_COMPLETE"
Shell = Literal["bash", "zsh", "fish", "powershell"]

SCRIPTS: dict[Shell, str] = {
    "bash": f"""\
_ld_deploy() {{
  local IFS=$'\\n'
  COMPREPLY=($({VARIABLE}=$COMP_CWORD ld-deploy "${{COMP_WORDS[@]:1}}" 2>/dev/null | cut -f 1))
}}
complete -o default -F _ld_deploy ld-deploy
""",
    "zsh": f"""\
#compdef ld-deploy
_ld_deploy() {{
  local -a found
  found=("${{(@f)$({VARIABLE}=$((CURRENT - 1)) ld-deploy "${{(@)words[2,-1]}}" 2>/dev/null)}}")
  if [[ -z $found ]]; then
    _files
  else
    found=("${{(@)found/$'\\t'/:}}")
    _describe ld-deploy found
  fi
}}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _ld_deploy "$@"
else
  (( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit }}
  compdef _ld_deploy ld-deploy
fi
""",
    "fish": f"""\
function __ld_deploy
    set -l words (commandline -opc)
    set -l position (count $words)
    set -e words[1]
    set -l found (env {VARIABLE}=$position ld-deploy $words (commandline -ct) 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c ld-deploy -f -a '(__ld_deploy)'
""",
    "powershell": f"""\
Register-ArgumentCompleter -Native -CommandName ld-deploy -ScriptBlock {{
    param($begun, $line, $cursor)
    $words = @($line.CommandElements | Where-Object {{ $_.Extent.StartOffset -lt $cursor }} | ForEach-Object {{ "$_" }})
    $position = if ($begun) {{ $words.Count - 1 }} else {{ $words.Count }}
    $rest = @($words | Select-Object -Skip 1)
    $env:{VARIABLE} = $position
    try {{
        & ld-deploy @rest 2>$null | ForEach-Object {{
            $value, $help = $_ -split "`t", 2
            if (-not $help) {{ $help = $value }}
            [System.Management.Automation.CompletionResult]::new($value, $value, 'ParameterValue', $help)
        }}
    }} finally {{
        Remove-Item Env:{VARIABLE}
    }}
}}
""",
}


def completions(words: Sequence[str], *, position: int) -> dict[str, str]:
    """What fits at a position of the line, each with what it is.

    Args:
        words: of the line, the first is `ld-deploy`.
        position: of the word that is being written; behind the last for a new one.

    Returns:
        Commands, options, or the values of an option that has few; nothing where a file may stand: the shell completes
        those.
    """
    begun = words[position] if position < len(words) else ""
    if position == 1:
        found = {"--help": "the commands", "--version": ""} if begun.startswith("-") else SUMMARIES
    elif words[1] not in SUMMARIES:
        found = {}
    else:
        found = _of_command(words[1], before=words[2:position], begun=begun)
    return {value: about for value, about in found.items() if value.startswith(begun)}


def answer(arguments: Sequence[str]) -> list[str]:
    """The lines for a script; none where the command is not installed."""
    try:
        found = completions(["ld-deploy", *arguments], position=int(os.environ[VARIABLE]))
    except (ValueError, IndexError, ImportError, LdDeployError):
        return []  # a completion has no place for a message
    return [f"{value}\t{about}" if about else value for value, about in found.items()]


def _of_command(name: str, *, before: Sequence[str], begun: str) -> dict[str, str]:
    from ld_runtime.cli import find_command
    from ld_runtime.command import command_of

    function = find_command(name).load()
    parameters: list[Any] = command_of(name, function).params
    if before:
        awaiting = next(
            (one for one in parameters if before[-1] in one.opts and not getattr(one, "is_flag", False)), None
        )
        if awaiting is not None:
            return dict.fromkeys(_choices(function, awaiting.name), "")
    if not begun.startswith("-"):
        arguments = [] if before else [one.name for one in parameters if one.param_type_name == "argument"]
        return dict.fromkeys(_choices(function, arguments[0]), "") if arguments else {}
    options = [one for one in parameters if one.param_type_name == "option"]
    found = {spelling: _first_sentence(one.help) for one in options for spelling in (*one.opts, *one.secondary_opts)}
    return {**found, "--help": "What it does, its options, an example."}


def _choices(function: Callable[..., None], parameter: str) -> list[str]:
    """The values of a parameter that is annotated with a few."""

    def values(annotation: Any) -> list[str]:
        if get_origin(annotation) is Literal:
            return list(map(str, get_args(annotation)))
        return [value for part in get_args(annotation) for value in values(part)]

    return values(get_type_hints(function).get(parameter))


def _first_sentence(text: str | None) -> str:
    return " ".join((text or "").split()).partition(". ")[0].rstrip(".")
