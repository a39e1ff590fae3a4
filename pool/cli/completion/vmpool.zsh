#compdef vmpool
# Completion of vmpool for zsh. With eval, after compinit; or as a file `_vmpool` in a directory of $fpath.

_vmpool() {
    local line separator=$'\x1f'
    local -a given answer fields plain part
    given=("${(@Q)words[1,CURRENT-1]}" "${(Q)PREFIX}")
    answer=("${(@f)$(_VMPOOL_COMPLETE=zsh_complete _VMPOOL_WORDS="${(pj:$separator:)given}" "${given[1]/#\~/$HOME}" 2>/dev/null)}")
    for line in $answer; do
        fields=("${(@ps:\t:)line}")
        case $fields[1] in
        file) _path_files -f ;;
        dir) _path_files -/ ;;
        part) part+=("${fields[2]//:/\\:}:$fields[3]") ;;
        plain) plain+=("${fields[2]//:/\\:}:$fields[3]") ;;
        esac
    done
    (( $#part )) && _describe -V vmpool part -S ''
    (( $#plain )) && _describe -V vmpool plain
    return 0
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _vmpool "$@"
else
    compdef _vmpool vmpool
fi
