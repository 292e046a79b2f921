# shellcheck shell=bash
# Written by tests/manual.rs from the tables behind --help; change those.
_sindri_agent() {
    local word=${COMP_WORDS[COMP_CWORD]}
    COMPREPLY=()
    case $COMP_CWORD:${COMP_WORDS[1]} in
    1:*) mapfile -t COMPREPLY < <(compgen -W 'replay doctor status health --version --help' -- "$word") ;;
    2:replay) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
    2:doctor) mapfile -t COMPREPLY < <(compgen -W '--json' -- "$word") ;;
    2:status) mapfile -t COMPREPLY < <(compgen -W '--json' -- "$word") ;;
    2:health) mapfile -t COMPREPLY < <(compgen -W '--ready' -- "$word") ;;
    esac
}
complete -F _sindri_agent sindri-agent draupnir
