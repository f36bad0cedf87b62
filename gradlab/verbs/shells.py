"""Scripts for bash and zsh in the place of typer's: those would break a key at its sign, or close it with a blank.

Both ask as typer's do; what ends in ``=``, ``.`` or ``/`` is not finished, so no blank follows it.
"""

from __future__ import annotations

BASH = r"""
%(complete_func)s() {
    local IFS=$'\n' line="${COMP_LINE:0:COMP_POINT}" word count
    local -a words
    IFS=$' \t' read -ra words <<< "$line"
    count=${#words[@]}
    [[ $line == *[[:space:]] ]] || count=$((count - 1))
    COMPREPLY=( $( env COMP_WORDS="$line" COMP_CWORD=$count %(autocomplete_var)s=complete_bash "$1" 2>/dev/null ) )
    word=${line##*[[:space:]]}
    # Where bash breaks words at "=", what stands before it stays where it is.
    if [[ $COMP_WORDBREAKS == *=* && $word == *=* ]]; then
        COMPREPLY=( "${COMPREPLY[@]#"${word%%"${word##*=}"}"}" )
    fi
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=./] ]] && compopt -o nospace
    return 0
}

complete -o default -F %(complete_func)s %(prog_name)s
"""

ZSH = r"""
#compdef %(prog_name)s

%(complete_func)s() {
  local line value
  local -a found open closed
  found=("${(@f)$(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" _TYPER_COMPLETE_FISH_ACTION=get-args \
    %(autocomplete_var)s=complete_fish ${words[1]} 2>/dev/null)}")
  for line in $found; do
    value=${${line%%%%$'\t'*}//:/\\:}
    [[ $line == *$'\t'* ]] && line="$value:${line#*$'\t'}" || line=$value
    [[ $value == *[=./] ]] && open+=("$line") || closed+=("$line")
  done
  if (( $#open + $#closed )); then
    (( $#open )) && _describe -V "" open -S ''
    (( $#closed )) && _describe -V "" closed
  else
    compset -P '*='
    _files
  fi
}

# Loaded by the first Tab, it answers that one too.
if [[ $funcstack[1] == _%(prog_name)s ]]; then
  %(complete_func)s "$@"
else
  compdef %(complete_func)s %(prog_name)s
fi
"""


def put_in_place() -> None:
    """Has typer install these scripts, where it keeps its own as it does today; else its own are installed."""
    from typer import _completion_shared

    scripts = getattr(_completion_shared, "_completion_scripts", {})
    scripts.update({"bash": BASH, "zsh": ZSH})
